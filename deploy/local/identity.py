"""The local stack's own token issuer: one Ed25519 key pair in a directory, and what an API needs to trust it.

It stands in for a company's OIDC issuer on one machine. Nothing in `api/` can issue a token.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key

ISSUER: Final = "https://issuer.local.invalid/"
"""No address: a name of RFC 6761, so that no token of a local stack is ever mistaken for another issuer's."""
AUDIENCE: Final = "eft"


@dataclass(frozen=True, slots=True)
class Identity:
    """An issuer on disk. The API is told `issuer`, `audience` and `jwks`; the key stays in its file."""

    key_file: Path
    jwks: Path
    key_id: str
    issuer: str = ISSUER
    audience: str = AUDIENCE


def create_identity(directory: Path) -> Identity:
    """Returns the issuer of a directory, made now if it has none: `issuer.pem`, readable to its owner only, and `jwks.json`.

    Several processes may ask at once; they get the same one.
    """
    directory.mkdir(parents=True, exist_ok=True)
    key_file = directory / "issuer.pem"
    if not key_file.exists():
        _create_whole(key_file, Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    raw = _key(key_file).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    public = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(raw)}
    # RFC 7638: the thumbprint of the required members, in this order and without blanks.
    key_id = _base64url(hashlib.sha256(json.dumps(public, separators=(",", ":")).encode()).digest())
    jwks = directory / "jwks.json"
    whole = {"keys": [{**public, "alg": "EdDSA", "kid": key_id, "use": "sig"}]}
    beside = directory / f".jwks.{uuid.uuid4().hex}"
    beside.write_text(json.dumps(whole, indent=2) + "\n")
    beside.replace(jwks)
    return Identity(key_file=key_file, jwks=jwks, key_id=key_id)


def issue(identity: Identity, tenant: str, scopes: Iterable[str], lifetime: timedelta) -> str:
    """Returns a signed token that allows a tenant's bearer these scopes for this long."""
    now = datetime.now(UTC)
    claims = {
        "iss": identity.issuer,
        "aud": identity.audience,
        "sub": f"local:{tenant}",
        "tenant": tenant,
        "scope": " ".join(scopes),
        "iat": now,
        "nbf": now,
        "exp": now + lifetime,
        "jti": uuid.uuid4().hex,
    }
    return jwt.encode(claims, _key(identity.key_file), algorithm="EdDSA", headers={"kid": identity.key_id})


def _key(file: Path) -> Ed25519PrivateKey:
    key = load_pem_private_key(file.read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError(f"{file} holds a key of another kind; remove it to have one made")
    return key


def _create_whole(file: Path, content: bytes) -> None:
    """Creates a file that only its owner reads: whole under its name, or another's that was there first."""
    beside = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)
    try:
        os.link(beside, file)
    except FileExistsError:
        pass
    finally:
        beside.unlink()


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
