"""Health: alive whatever else is down, ready only when requests can be served."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask import Flask

from api.app import create_app
from api.auth import AuthSettings
from eft.errors import Permanent, Transient
from tests.api.conftest import AUDIENCE, ISSUER, Client, Queue
from tests.world import World


def test_live(stranger: Client, world: World) -> None:
    """The process is alive without a token, and without a look at any table."""
    answer = stranger.get("/v1/health/live")
    assert (answer.status_code, answer.get_json()) == (200, {"live": True})
    assert not world.ledger.calls
    assert not world.registry.calls["flows"]


def test_ready(stranger: Client) -> None:
    """All is well: ready, with each check named."""
    answer = stranger.get("/v1/health/ready")
    assert answer.status_code == 200
    assert answer.get_json() == {"ready": True, "checks": {"ledger": True, "registry": True, "token_keys": True}}


@pytest.mark.parametrize("error", [Transient("down"), Permanent("denied")])
def test_table_down(stranger: Client, world: World, error: Exception) -> None:
    """A table that does not answer makes the API not ready, names it, and is looked at again after two seconds."""
    world.ledger.trip("page", error)
    for _ in range(3):
        answer = stranger.get("/v1/health/ready")
        assert answer.status_code == 503
        assert answer.get_json() == {"ready": False, "checks": {"ledger": False, "registry": True, "token_keys": True}}
    assert world.ledger.calls["page"] == 1
    world.clock.advance(timedelta(seconds=2))
    assert stranger.get("/v1/health/ready").status_code == 200


def test_no_keys(world: World, queue: Queue) -> None:
    """Without the keys that tokens are checked with, the API is not ready."""
    app: Flask = create_app(world.engine, queue, AuthSettings(issuer=ISSUER, audience=AUDIENCE, jwks="/nowhere/jwks.json"))
    answer = Client(app, None).get("/v1/health/ready")
    assert answer.status_code == 503
    assert answer.get_json()["checks"]["token_keys"] is False
    assert Client(app, "a.b.c").get("/v1/flows").status_code == 401


def test_queue_down(stranger: Client, queue: Queue) -> None:
    """A queue that is down leaves the API ready: accepting goes on without it."""
    queue.down = ConnectionError("no queue")
    assert stranger.get("/v1/health/ready").status_code == 200
