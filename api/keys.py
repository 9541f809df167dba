"""Private keys as customers paste them: checked when they are onboarded, without ever working hard for a hostile one."""

from __future__ import annotations

import binascii
import struct
from base64 import b64decode
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key
from pydantic import SecretStr

OPENSSH: Final = "-----BEGIN OPENSSH PRIVATE KEY-----"
MAGIC: Final = b"openssh-key-v1\x00"
MAX_ROUNDS: Final = 256
"""ssh-keygen writes 16 or 24, and people who care 100; each round costs whoever opens the key some milliseconds."""
MIN_RSA_BITS: Final = 2048


def check_private_key(key: SecretStr, passphrase: SecretStr | None) -> None:
    """Raises ValueError, saying what is wrong and nothing of what is inside, when a key cannot be used with this passphrase.

    An encrypted key in PEM is not opened: its cost is for its writer to choose. The connection test shows whether it opens.
    """
    text = key.get_secret_value().strip() + "\n"
    secret = None if passphrase is None else passphrase.get_secret_value().encode()
    if text.startswith(OPENSSH):
        encrypted = _rounds(text) > 0
    elif "ENCRYPTED" in text:
        if secret is None:
            msg = "private_key is encrypted: give its passphrase"
            raise ValueError(msg)
        return
    else:
        encrypted = False
    if encrypted and secret is None:
        msg = "private_key is encrypted: give its passphrase"
        raise ValueError(msg)
    if not encrypted and secret is not None:
        msg = "private_key is not encrypted: leave the passphrase out"
        raise ValueError(msg)
    load = load_ssh_private_key if text.startswith(OPENSSH) else load_pem_private_key
    try:
        opened = load(text.encode(), secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        msg = "the passphrase does not open private_key" if encrypted else "private_key is no OpenSSH or PEM text of a key"
        raise ValueError(msg) from None
    if isinstance(opened, RSAPrivateKey) and opened.key_size < MIN_RSA_BITS:
        msg = f"private_key is an RSA key of {opened.key_size} bits; at least {MIN_RSA_BITS} are needed"
        raise ValueError(msg)
    if not isinstance(opened, RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey):
        msg = "private_key is of another kind than Ed25519, ECDSA or RSA"
        raise ValueError(msg)  # noqa: TRY004 - a value that its model refuses


def _rounds(text: str) -> int:
    """Returns the bcrypt rounds of an OpenSSH key, 0 where it is not encrypted (OpenSSH, PROTOCOL.key)."""
    try:
        blob = b64decode("".join(text.split("-----")[2].split()), validate=True)
        if not blob.startswith(MAGIC):
            raise ValueError  # noqa: TRY301 - told below, as all that is malformed
        rest = blob[len(MAGIC) :]
        fields = []
        for _ in range(3):  # cipher, name of the key derivation, its options
            (size,) = struct.unpack_from(">I", rest)
            fields.append(rest[4 : 4 + size])
            rest = rest[4 + size :]
        if fields[1] == b"none":
            return 0
        (salt,) = struct.unpack_from(">I", fields[2])
        (rounds,) = struct.unpack_from(">I", fields[2], 4 + salt)
    except (ValueError, IndexError, struct.error, binascii.Error):
        msg = "private_key is no OpenSSH or PEM text of a key"
        raise ValueError(msg) from None
    if rounds > MAX_ROUNDS:
        msg = f"private_key asks for {rounds} bcrypt rounds; encrypt it with at most {MAX_ROUNDS} (ssh-keygen -p -a 100)"
        raise ValueError(msg)
    return int(rounds)
