"""The document describes what is served, and the page loads nothing from elsewhere."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from flask import Flask
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.openapi import routes
from tests.api.conftest import Client, Queue
from tests.world import World


@pytest.fixture
def document(stranger: Client) -> dict[str, Any]:
    """Returns the document, which asks for no token."""
    answer = stranger.get("/v1/openapi.json")
    assert answer.status_code == 200
    assert answer.content_type == "application/json"
    made: dict[str, Any] = json.loads(answer.data)
    return made


def test_valid(document: dict[str, Any]) -> None:
    """The document is OpenAPI 3.1, valid by its own schema, every reference resolved."""
    assert document["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(document).validate()
    known = set(document["components"]["schemas"])
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document))) <= known


def test_complete(app: Flask, document: dict[str, Any]) -> None:
    """Every route that customers use is described, with its scope, and nothing else is."""
    served = {
        (re.sub(r"<(?:id:)?([a-z_]+)>", r"{\1}", rule), method): view.contract
        for rule, method, view in routes(app)
        if not view.contract.hidden
    }
    described = {(path, method): each for path, methods in document["paths"].items() for method, each in methods.items()}
    assert served.keys() == described.keys()
    assert {path for path, _ in served} >= {f"/v1/{name}" for name in ("endpoints", "flows", "transfers", "health/live", "health/ready")}
    for key, operation in described.items():
        scope = served[key].scope
        assert operation["security"] == ([] if scope is None else [{"bearer": [scope]}])
        assert operation["summary"]
        assert operation["description"]
        assert {p["name"] for p in operation["parameters"] if p["in"] == "path"} == set(re.findall(r"{(\w+)}", key[0]))
        assert ("requestBody" in operation) is (served[key].body is not None)
    names = [operation["operationId"] for operation in described.values()]
    assert len(names) == len(set(names))


def test_headers_described(document: dict[str, Any]) -> None:
    """A change asks for If-Match, a submission takes an Idempotency-Key, and both say so."""

    def header(path: str, method: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(p for p in document["paths"][path][method]["parameters"] if p["name"] == name)
        return found

    assert header("/v1/endpoints/{endpoint_id}", "patch", "If-Match")["required"] is True
    assert header("/v1/flows/{flow_id}", "patch", "If-Match")["required"] is True
    assert header("/v1/flows/{flow_id}", "delete", "If-Match")["required"] is False
    assert header("/v1/transfers", "post", "Idempotency-Key")["required"] is False


def test_no_secret_in_answers(document: dict[str, Any]) -> None:
    """No schema of an answer has a field for a secret; those of requests mark theirs as never shown."""
    schemas = document["components"]["schemas"]
    secret = {"password", "private_key", "passphrase", "secret_access_key", "access_key_id", "session_token", "credential"}
    for name, schema in schemas.items():
        found = secret & schema.get("properties", {}).keys()
        assert not found or not name.endswith("Shown"), name
    word = schemas["SftpCredential"]["properties"]["password"]
    assert "writeOnly" in json.dumps(word)


def test_answers_fit_their_schemas(acme: Client, world: World, queue: Queue, document: dict[str, Any]) -> None:
    """What is answered is what the document says, for a success and an error of each resource."""

    def check(answer: Any, path: str, method: str) -> Any:  # noqa: ANN401 - JSON
        told = document["paths"][path][method]["responses"][str(answer.status_code)]
        if "$ref" in told:
            told = document["components"]["responses"]["problem"]
        schema = told["content"][answer.content_type]["schema"]
        body = json.loads(answer.data)
        Draft202012Validator({**schema, "components": document["components"]}).validate(body)
        return body

    body = {"kind": "sftp", "name": "n", "host": "h.test", "username": "u", "credential": {"password": "p"}}
    made = check(acme.post("/v1/endpoints", body), "/v1/endpoints", "post")
    check(acme.post("/v1/endpoints", {}), "/v1/endpoints", "post")
    check(acme.get("/v1/endpoints"), "/v1/endpoints", "get")
    check(acme.get(f"/v1/endpoints/{made['id']}"), "/v1/endpoints/{endpoint_id}", "get")
    check(acme.get("/v1/endpoints/none"), "/v1/endpoints/{endpoint_id}", "get")
    check(acme.patch(f"/v1/endpoints/{made['id']}", {"name": "m"}), "/v1/endpoints/{endpoint_id}", "patch")
    check(acme.patch(f"/v1/endpoints/{made['id']}", {"name": "m"}, If_Match="*"), "/v1/endpoints/{endpoint_id}", "patch")
    check(acme.post("/v1/endpoints/sftp-a/test"), "/v1/endpoints/{endpoint_id}/test", "post")
    flow = check(acme.post("/v1/flows", {"name": "f", "source": "sftp-a", "destination": "s3-a"}), "/v1/flows", "post")
    check(acme.get("/v1/flows"), "/v1/flows", "get")
    check(acme.post(f"/v1/flows/{flow['id']}/pause"), "/v1/flows/{flow_id}/pause", "post")
    check(acme.post(f"/v1/flows/{flow['id']}/run"), "/v1/flows/{flow_id}/run", "post")
    world.server("sftp-a").put("in/a.bin", b"x")
    places = {"source": {"endpoint": "sftp-a", "path": "in/a.bin"}, "destination": {"endpoint": "s3-a", "path": "a"}}
    transfer = check(acme.post("/v1/transfers", places), "/v1/transfers", "post")
    world.queue += queue.sent
    world.drain()
    check(acme.get(f"/v1/transfers/{transfer['id']}"), "/v1/transfers/{transfer_id}", "get")
    check(acme.post(f"/v1/transfers/{transfer['id']}/cancel"), "/v1/transfers/{transfer_id}/cancel", "post")
    check(acme.get("/v1/transfers?state=settled"), "/v1/transfers", "get")
    check(acme.post("/v1/transfers/redrive", {"state": "dead"}), "/v1/transfers/redrive", "post")
    check(acme.get("/v1/health/live"), "/v1/health/live", "get")
    check(acme.get("/v1/health/ready"), "/v1/health/ready", "get")


def test_examples_of_requests_fit(document: dict[str, Any]) -> None:
    """A request that the API takes fits its schema, and one with an unknown field does not."""
    schema = document["paths"]["/v1/endpoints"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = Draft202012Validator({**schema, "components": document["components"]})
    good = {"kind": "sftp", "name": "n", "host": "h.test", "username": "u", "credential": {"password": "p"}}
    assert validator.is_valid(good)
    assert not validator.is_valid({**good, "extra": 1})
    assert not validator.is_valid({**good, "credential": None})


def test_front_door(stranger: Client) -> None:
    """The front door leads to the page."""
    answer = stranger.get("/")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/docs")


def test_page_loads_nothing_from_elsewhere(stranger: Client) -> None:
    """All that the page loads is served here, with a policy that forbids other hosts and scripts in the page."""
    page = stranger.get("/docs")
    assert page.status_code == 200
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "http" not in policy
    found = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert set(found) >= {"/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/docs.js"}
    for path in found:
        assert path.startswith("/")
        answer = stranger.get(path)
        assert answer.status_code == 200
        assert len(answer.data) > 20
    assert "<script>" not in page.text
    assert "http" not in stranger.get("/docs/docs.js").text
