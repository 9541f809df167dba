"""/docs: the page to read about the API and to try it. Everything it loads comes from here: no other host is asked."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from flask import Blueprint, Response, abort, current_app, send_from_directory

from api.openapi import document
from api.operation import operation

docs = Blueprint("docs", __name__)

OWN: Final = Path(__file__).with_name("static")
ASSETS: Final = {
    "swagger-ui.css": "css/swagger-ui.css",
    "swagger-ui-bundle.js": "js/swagger-ui-bundle.js",
    "favicon.svg": "images/swagger.svg",
}
"""Name in the page → name in the package that carries Swagger UI (flask-openapi3-swagger; nothing else of it is used)."""
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@docs.get("/")
@operation(summary="The documentation", scope=None, hidden=True)
def index() -> Response:
    """Leads to the documentation."""
    return Response(status=302, headers={"Location": "/docs"})


@docs.get("/docs")
@operation(summary="The documentation", scope=None, hidden=True)
def page() -> Response:
    """Gives the page."""
    return _file(OWN, "docs.html")


@docs.get("/docs/<name>")
@operation(summary="What the page loads", scope=None, hidden=True)
def asset(name: str) -> Response:
    """Gives a script, a style or a picture of the page."""
    if name in ASSETS:
        return _file(_swagger_ui(), ASSETS[name])
    if name in {"docs.js", "docs.css"}:
        return _file(OWN, name)
    return abort(404)


@docs.get("/v1/openapi.json")
@operation(summary="This document", scope=None, hidden=True)
def openapi() -> Response:
    """Gives the OpenAPI document."""
    return Response(document(current_app), content_type="application/json", headers={"Cache-Control": "no-cache"})


def _file(directory: Path, name: str) -> Response:
    response = send_from_directory(directory, name, max_age=3600)
    response.headers["Content-Security-Policy"] = POLICY
    return response


def _swagger_ui() -> Path:
    spec = find_spec("flask_openapi3_swagger")
    if spec is None or spec.submodule_search_locations is None:  # pragma: no cover - a declared dependency
        abort(404)
    return Path(spec.submodule_search_locations[0]) / "templates" / "swagger"
