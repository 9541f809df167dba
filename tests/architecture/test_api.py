"""No address of the API answers a stranger, but for those that are meant to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask import Flask

from api.app import create_app
from api.auth import AuthSettings
from api.operation import View
from tests.world import World

# Load balancers and readers of the documentation have no token.
OPEN = {"/", "/docs", "/docs/<name>", "/v1/openapi.json", "/v1/health/live", "/v1/health/ready"}
METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    """The API over fakes, trusting an issuer without keys."""
    jwks = tmp_path / "jwks.json"
    jwks.write_text('{"keys": []}')
    return create_app(World().engine, lambda _messages: None, AuthSettings(issuer="https://issuer.test/", audience="eft", jwks=str(jwks)))


def test_every_address_without_a_token_is_meant_to_be(app: Flask) -> None:
    """A new view states the scope that it needs, or is on the short list."""
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        assert isinstance(view, View), rule
        assert (view.contract.scope is None) == (rule.rule in OPEN), rule


def test_every_blueprint_authenticates(app: Flask) -> None:
    """Asked without a token, every other address says 401 and nothing about itself, in each method that it knows."""
    asked = set()
    for rule in app.url_map.iter_rules():
        if rule.rule in OPEN:
            continue
        path = re.sub(r"<[^>]+>", "some-id", rule.rule)
        for method in set(METHODS) & (rule.methods or set()):
            answer = app.test_client().open(path, method=method)
            assert answer.status_code == 401, (method, rule)
            assert answer.content_type == "application/problem+json"
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            asked.add(rule.endpoint.partition(".")[0])
    assert {"endpoints", "flows", "transfers"} <= asked
