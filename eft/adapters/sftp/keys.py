"""Private keys from a credential's text, and host keys as SSH negotiates them."""

from __future__ import annotations

import base64
import io

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from eft.domain.endpoint import Credential, HostKey
from eft.errors import Permanent

HOST_KEY_ALGORITHMS: dict[str, tuple[str, ...]] = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}
"""Type of a host key → the signatures that are accepted of it (RFC 8332: never SHA-1), strongest first."""

_Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def private_key(credential: Credential) -> paramiko.PKey | None:
    """Returns the credential's private key: Ed25519, ECDSA or RSA, as OpenSSH or PEM text (PKCS#1, SEC 1, PKCS#8); None if it has none.

    Raises:
        Permanent: `key_unreadable`; `passphrase_wrong`, also when one is needed and none is given.
    """
    if credential.private_key is None:
        return None
    # Editors and forms turn line ends and leave blanks around; no key means anything by them.
    text = "\n".join(line.strip() for line in credential.private_key.get_secret_value().strip().splitlines()) + "\n"
    key = _load(text.encode(), None if credential.passphrase is None else credential.passphrase.get_secret_value())
    plain = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()).decode()
    kind: type[paramiko.PKey] = paramiko.Ed25519Key
    if isinstance(key, rsa.RSAPrivateKey):
        kind = paramiko.RSAKey
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        kind = paramiko.ECDSAKey
    return kind.from_private_key(io.StringIO(plain))


def host_key(key: paramiko.PKey) -> HostKey:
    """Returns a server's key as it is pinned."""
    return HostKey(algorithm=key.get_name(), key=base64.b64encode(key.asbytes()).decode())


def type_of(pin: HostKey) -> str:
    """Returns the type of a pinned key, as its own first field tells it (RFC 4253, section 6.6)."""
    blob = base64.b64decode(pin.key)
    return blob[4 : 4 + int.from_bytes(blob[:4], "big")].decode("ascii", "replace")


def _load(text: bytes, passphrase: str | None) -> _Private:
    load = serialization.load_ssh_private_key if b"BEGIN OPENSSH" in text else serialization.load_pem_private_key
    try:
        key = load(text, None)
    except TypeError:
        # It is a key, and it is encrypted.
        if passphrase is None:
            raise Permanent("the private key is encrypted and the credential has no passphrase", reason="passphrase_wrong") from None
        try:
            key = load(text, passphrase.encode())
        except (ValueError, UnsupportedAlgorithm):
            raise Permanent("the passphrase does not open the private key", reason="passphrase_wrong") from None
    except (ValueError, UnsupportedAlgorithm):
        raise Permanent(
            "the private key cannot be read: it must be an Ed25519, ECDSA or RSA key in OpenSSH or PEM format",
            reason="key_unreadable",
        ) from None
    if not isinstance(key, _Private):
        raise Permanent("the private key is none of Ed25519, ECDSA and RSA", reason="key_unreadable")
    return key
