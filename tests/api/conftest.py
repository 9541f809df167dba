"""The app over the fakes, a customer's client, and an issuer whose keys it trusts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from flask import Flask
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from werkzeug.test import TestResponse

from api.app import create_app
from api.auth import AuthSettings, Scope
from eft.journey.messages import Message
from tests.world import TENANT, World

ISSUER = "https://issuer.test/"
AUDIENCE = "eft"
ALL = tuple(Scope)

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass
class Issuer:
    """An OIDC issuer: keys by algorithm, and the document that publishes them."""

    file: Path
    keys: dict[str, Key]
    """By algorithm; the key id is the algorithm in lower case."""

    def publish(self) -> None:
        """Writes the document."""
        self.file.write_text(json.dumps({"keys": [self.public(name) for name in self.keys]}))

    def public(self, name: str) -> dict[str, Any]:
        """Returns one key as the document shows it."""
        key = self.keys[name].public_key()
        if isinstance(key, rsa.RSAPublicKey):
            made = RSAAlgorithm.to_jwk(key, as_dict=True)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            made = ECAlgorithm.to_jwk(key, as_dict=True)
        else:
            made = OKPAlgorithm.to_jwk(key, as_dict=True)
        return {**made, "kid": name.lower(), "use": "sig", "alg": name}

    def token(
        self, name: str = "EdDSA", *, tenant: object = TENANT, scopes: Sequence[str] = ALL, kid: str | None = None, **claims: object
    ) -> str:
        """Returns a token; a claim given as None is left out."""
        now = datetime.now(UTC)
        whole: dict[str, object] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "ada",
            "tenant": tenant,
            "scope": " ".join(scopes),
            "exp": now + timedelta(hours=1),
            **claims,
        }
        kept = {claim: value for claim, value in whole.items() if value is not None}
        return jwt.encode(kept, self.keys[name], algorithm=name, headers={"kid": kid or name.lower()})


@dataclass
class Client:
    """One customer's program."""

    app: Flask
    token: str | None
    headers: dict[str, str] = field(default_factory=dict)

    def send(self, method: str, path: str, body: object = None, *, raw: bytes | str | None = None, **headers: str) -> TestResponse:
        """Sends a request and returns the answer; header names are written with underscores."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token is not None:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        data = raw if body is None else json.dumps(body)
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        return self.app.test_client().open(path, method=method, data=data, headers=sent, buffered=True)

    def get(self, path: str, **headers: str) -> TestResponse:
        """Sends a GET."""
        return self.send("GET", path, **headers)

    def post(self, path: str, body: object = None, *, raw: bytes | str | None = None, **headers: str) -> TestResponse:
        """Sends a POST."""
        return self.send("POST", path, body, raw=raw, **headers)

    def patch(self, path: str, body: object = None, *, raw: bytes | str | None = None, **headers: str) -> TestResponse:
        """Sends a PATCH."""
        return self.send("PATCH", path, body, raw=raw, **headers)

    def delete(self, path: str, **headers: str) -> TestResponse:
        """Sends a DELETE."""
        return self.send("DELETE", path, **headers)


@dataclass
class Queue:
    """Where the app's messages go; `down` makes it refuse them."""

    sent: list[Message] = field(default_factory=list)
    down: Exception | None = None

    def __call__(self, messages: Sequence[Message]) -> None:
        if self.down is not None:
            raise self.down
        self.sent += messages


@pytest.fixture(scope="session")
def keys() -> dict[str, Key]:
    """Returns one key of each kind; making them takes a moment, so all tests share them."""
    return {
        "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }


@pytest.fixture
def issuer(tmp_path: Path, keys: dict[str, Key]) -> Issuer:
    """Returns an issuer whose keys are published in a file."""
    made = Issuer(tmp_path / "jwks.json", dict(keys))
    made.publish()
    return made


@pytest.fixture
def world() -> World:
    """Returns an engine over fakes, with two endpoints of each kind."""
    return World()


@pytest.fixture
def queue() -> Queue:
    """Returns the queue that the app sends to."""
    return Queue()


@pytest.fixture
def app(world: World, queue: Queue, issuer: Issuer) -> Flask:
    """Returns the app."""
    return create_app(world.engine, queue, AuthSettings(issuer=ISSUER, audience=AUDIENCE, jwks=str(issuer.file)))


@pytest.fixture
def acme(app: Flask, issuer: Issuer) -> Client:
    """Returns the client of the tenant whose endpoints the world holds, with every scope."""
    return Client(app, issuer.token())


@pytest.fixture
def other(app: Flask, issuer: Issuer) -> Client:
    """Returns another tenant's client, with every scope."""
    return Client(app, issuer.token(tenant="other"))


@pytest.fixture
def stranger(app: Flask) -> Client:
    """Returns a client without a token."""
    return Client(app, None)


@pytest.fixture(scope="session")
def private_key(keys: dict[str, Key]) -> Callable[..., str]:
    """Returns a function that writes a key as customers paste it."""

    def write(name: str = "EdDSA", *, passphrase: str | None = None, pem: bool = False) -> str:
        encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase.encode())
        form = PrivateFormat.PKCS8 if pem else PrivateFormat.OpenSSH
        return keys[name].private_bytes(Encoding.PEM, form, encryption).decode()

    return write


def problem(response: TestResponse, status: int, reason: str) -> dict[str, Any]:
    """Returns a problem after seeing that it is one, whole, with this status and reason."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    told: dict[str, Any] = json.loads(response.data)
    assert told["reason"] == reason
    assert told["status"] == status
    assert told["type"] == f"urn:eft:problem:{reason}"
    assert told["title"]
    assert told["detail"]
    assert told["request_id"] == response.headers["X-Request-Id"]
    return told


def fields(told: dict[str, Any]) -> list[str]:
    """Returns the fields that a problem names."""
    return [error["field"] for error in told["errors"]]
