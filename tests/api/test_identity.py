"""The local stack's issuer: the API trusts what it signs, and its key stays its own."""

from __future__ import annotations

import json
import stat
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from api.app import create_app
from api.auth import AuthSettings
from deploy.local.identity import Identity, create_identity, issue
from tests.api.conftest import Client, Queue, problem
from tests.world import World


def trusting(world: World, identity: Identity, token: str) -> Client:
    """Returns a client of an API that trusts an identity."""
    auth = AuthSettings(issuer=identity.issuer, audience=identity.audience, jwks=str(identity.jwks))
    return Client(create_app(world.engine, Queue(), auth), token)


def test_trusted(world: World, tmp_path: Path) -> None:
    """A token that it issues is let in, for its tenant and with its scopes only."""
    identity = create_identity(tmp_path / "identity")
    client = trusting(world, identity, issue(identity, "acme", ["endpoints:read"], timedelta(minutes=5)))
    assert len(client.get("/v1/endpoints").get_json()["items"]) == 4
    problem(client.get("/v1/flows"), 403, "scope_missing")


def test_expires(world: World, tmp_path: Path) -> None:
    """A token's lifetime ends."""
    identity = create_identity(tmp_path)
    client = trusting(world, identity, issue(identity, "acme", ["endpoints:read"], timedelta(minutes=-5)))
    problem(client.get("/v1/endpoints"), 401, "token_expired")


def test_key_is_private(tmp_path: Path) -> None:
    """The key file is its owner's alone, and the published document holds no part of the private key."""
    identity = create_identity(tmp_path)
    assert stat.S_IMODE(identity.key_file.stat().st_mode) == 0o600
    published = json.loads(identity.jwks.read_text())["keys"]
    assert [set(key) for key in published] == [{"kty", "crv", "x", "alg", "kid", "use"}]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["issuer.pem", "jwks.json"]


def test_same_again(tmp_path: Path) -> None:
    """A second start finds the same key, also when several processes start at once, so tokens issued before stay good."""
    made: list[Identity] = []
    threads = [threading.Thread(target=lambda: made.append(create_identity(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [create_identity(tmp_path)] * 8


def test_of_another_stack(world: World, tmp_path: Path) -> None:
    """A token of another stack's issuer is refused."""
    mine, theirs = create_identity(tmp_path / "mine"), create_identity(tmp_path / "theirs")
    client = trusting(world, mine, issue(theirs, "acme", ["endpoints:read"], timedelta(minutes=5)))
    problem(client.get("/v1/endpoints"), 401, "token_invalid")


def test_key_of_another_kind(tmp_path: Path) -> None:
    """A key file that holds another kind of key is not used."""
    pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "issuer.pem").write_bytes(pem)
    with pytest.raises(TypeError, match="another kind"):
        create_identity(tmp_path)
