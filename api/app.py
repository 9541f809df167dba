"""The app: blueprints, and what holds for every request: who asks, how large, what is logged, what a browser may do with the answer."""

from __future__ import annotations

import logging
import re
import uuid
from contextlib import ExitStack
from typing import Final

from flask import Flask, Response, g, request
from werkzeug.routing import BaseConverter

from api import errors
from api.auth import AuthSettings, Verifier
from api.docs import docs
from api.endpoints import endpoints
from api.flows import flows
from api.health import Readiness, health
from api.operation import MAX_BODY, Parts, Send, View
from api.partitions import partitions
from api.transfers import transfers
from api.webhooks import webhooks
from eft.domain.names import display
from eft.ports import Engine
from eft.telemetry import context

log = logging.getLogger(__name__)

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{8,64}")
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""OWASP REST Security Cheat Sheet, "Security Headers"; no CORS header is ever sent, so no other site's page reads an answer."""


class IdConverter(BaseConverter):
    """An id in an address; anything that cannot be one is an unknown address."""

    regex = r"[A-Za-z0-9_-]{1,64}"


def create_app(engine: Engine, send: Send, auth: AuthSettings, *, two_person: bool = False) -> Flask:
    """Returns the API. `send` puts messages into their queues; it may fail, and requests succeed all the same."""
    app = Flask("api", static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=MAX_BODY, TRAP_HTTP_EXCEPTIONS=False, PROPAGATE_EXCEPTIONS=False)
    app.url_map.strict_slashes = False
    app.url_map.converters["id"] = IdConverter
    verifier = Verifier(auth)
    app.extensions["eft"] = Parts(engine=engine, send=send, two_person=two_person)
    app.extensions["eft-readiness"] = Readiness(engine, verifier.keys.ready)
    errors.install(app)

    @app.before_request
    def begin() -> None:
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        g.log_context = ExitStack()
        g.log_context.enter_context(context(request_id=g.request_id))
        g.began = engine.clock.monotonic()
        if request.endpoint is None:  # no such address, or not this method: told without looking at a token
            return
        view = app.view_functions[request.endpoint]
        scope = view.contract.scope if isinstance(view, View) else None
        if isinstance(view, View) and scope is None:
            return
        # Whatever has no contract is refused to everybody without a token too.
        g.caller = verifier.caller(request.headers.get("Authorization"))
        if scope is not None:
            g.caller.must_have(scope)

    @app.after_request
    def end(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers["X-Request-Id"] = g.request_id
        asked_by = g.get("caller")
        log.info(
            "request",
            extra={
                "method": display(request.method),
                "path": display(request.path),
                "status": response.status_code,
                "ms": round((engine.clock.monotonic() - g.began) * 1000),
                "bytes": response.content_length,
                "tenant": None if asked_by is None else asked_by.tenant,
                "by": None if asked_by is None else display(asked_by.subject),
            },
        )
        return response

    @app.teardown_request
    def leave(_error: BaseException | None) -> None:
        g.log_context.close()

    for blueprint in (endpoints, flows, transfers, webhooks, partitions, health, docs):
        app.register_blueprint(blueprint)
    return app
