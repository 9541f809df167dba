"""One address and method of the API: what it takes, what it answers, which scope it needs. The document and the drift test read it here."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import update_wrapper
from http import HTTPStatus
from typing import Any, Final, Literal, cast

from flask import Response, current_app, g, request
from pydantic import BaseModel, TypeAdapter, ValidationError

from api.auth import Caller, Scope
from api.errors import FieldError, Problem, field_errors, parsed
from eft.journey.messages import Message
from eft.ports import Engine

log = logging.getLogger(__name__)

MAX_BODY: Final = 1024 * 1024
JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
MAX_KEY: Final = 255

Send = Callable[[Sequence[Message]], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the views work with; built once per app."""

    engine: Engine
    send: Send
    two_person: bool = False
    """Whether promote and solo wait for a second operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """The contract of one view."""

    summary: str
    scope: Scope | None
    """What the token must allow; None: no token is asked for."""
    answer: Any = None
    """The answer's type; None: no body."""
    status: int = 200
    body: Any = None
    """The request body's type; the view gets it as `body`."""
    patch: bool = False
    """Whether the body is a merge patch (RFC 7396), which the view reads itself."""
    query: type[BaseModel] | None = None
    """The view gets it as `query`."""
    if_match: Literal["required", "optional"] | None = None
    idempotent: bool = False
    """Whether an Idempotency-Key counts."""
    etag: bool = False
    also: tuple[int, ...] = ()
    """Statuses beside the usual ones, for the document."""
    hidden: bool = False
    """Whether it stays out of the document."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer with more than a body."""

    value: BaseModel | None
    status: int | None = None
    etag: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class View:
    """A view that carries its contract. Flask calls it with the path's parameters."""

    def __init__(self, contract: Operation, function: Callable[..., BaseModel | Answered | Response | None]) -> None:
        self.contract = contract
        self.function = function
        self._body: TypeAdapter[object] | None = None if contract.body is None or contract.patch else TypeAdapter(contract.body)
        self.__name__: str
        update_wrapper(self, function)

    def __call__(self, **path: str) -> Response:
        """Returns the response of a request whose token has been checked."""
        given: dict[str, object] = dict(path)
        if self.contract.query is not None:
            given["query"] = _read_query(self.contract.query)
        if self._body is not None:
            given["body"] = validated(self._body, read_body())
        answer = self.function(**given)
        return answer if isinstance(answer, Response) else self._written(answer)

    def _written(self, answer: BaseModel | Answered | None) -> Response:
        answered = answer if isinstance(answer, Answered) else Answered(answer)
        text = "" if answered.value is None else answered.value.model_dump_json()
        response = Response(text, status=answered.status or self.contract.status, content_type=JSON)
        if answered.value is None:
            del response.headers["Content-Type"]
        if answered.etag is not None:
            response.set_etag(str(answered.etag))
        response.headers.update(answered.headers)
        return response


def operation(**contract: Any) -> Callable[[Callable[..., Any]], View]:  # noqa: ANN401 - checked by Operation
    """Returns the decorator that makes a view of a function; its docstring is the document's description."""
    made = Operation(**contract)
    return lambda function: View(made, function)


def parts() -> Parts:
    """Returns what the app was built with."""
    return cast("Parts", current_app.extensions["eft"])


def engine() -> Engine:
    """Returns the app's engine."""
    return parts().engine


def caller() -> Caller:
    """Returns who asks."""
    return cast("Caller", g.caller)


def announce(messages: Sequence[Message]) -> None:
    """Puts messages into their queues. When that fails nothing is lost: the rows are there, and the sweep queues what stands still."""
    if not messages:
        return
    try:
        parts().send(messages)
    except Exception as error:  # noqa: BLE001 - the row is the truth, the message a hint: no failure of a queue fails a request
        log.warning("a queue took nothing; the sweep sends it", extra={"messages": len(messages), "error": type(error).__name__})


def read_body(*, patch: bool = False) -> bytes:
    """Returns the request's body, which says that it is JSON.

    Raises:
        Problem: 415 `media_type_unsupported`, 400 `json_malformed` for an empty one; RequestEntityTooLarge: it exceeds MAX_BODY.
    """
    accepted = {JSON, MERGE_PATCH} if patch else {JSON}
    if request.mimetype not in accepted or request.headers.get("Content-Encoding", "identity") != "identity":
        raise Problem(
            f"Send the body as Content-Type: {' or '.join(sorted(accepted))}, without Content-Encoding.",
            status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            reason="media_type_unsupported",
        )
    raw = request.get_data()
    if not raw.strip():
        raise Problem("A body is needed: a JSON object.", status=HTTPStatus.BAD_REQUEST, reason="json_malformed")
    return raw


def validated(adapter: TypeAdapter[object], raw: bytes) -> object:
    """Returns a body as its model.

    Raises:
        Problem: 400 `json_malformed`, 422 `request_invalid` with every field at fault.
    """
    sent = parsed(raw)
    try:
        return adapter.validate_json(raw, strict=True)
    except ValidationError as error:
        if any(detail["type"] == "json_invalid" for detail in error.errors(include_input=False, include_url=False)):
            raise Problem("The body is no JSON text in UTF-8.", status=HTTPStatus.BAD_REQUEST, reason="json_malformed") from None
        raise invalid(*field_errors(error, where="body", sent=sent)) from None


@contextmanager
def turn(what: str, *, limit: int, lease: timedelta) -> Iterator[None]:
    """Bounds how much of something a tenant does at a time, for it waits for foreign servers and the API's threads are everybody's.

    Raises:
        Problem: 429 `too_many_<what>s`.
    """
    limits, key, holder = engine().limits, f"{what}/{caller().tenant}", engine().clock.nonce()
    if not limits.acquire(key, limit=limit, holder=holder, lease=lease):
        raise Problem(
            f"{limit} of your {what}s run already; wait for one to end.",
            status=HTTPStatus.TOO_MANY_REQUESTS,
            reason=f"too_many_{what}s",
            headers={"Retry-After": "10"},
        )
    try:
        yield
    finally:
        limits.release(key, holder=holder)


def body_hash(raw: bytes) -> str:
    """Returns the SHA-256 of a JSON text's content, whatever its blanks and the order of its keys."""
    return hashlib.sha256(json.dumps(parsed(raw), sort_keys=True).encode()).hexdigest()


def merged(current: object, patch: object) -> object:
    """Returns a JSON merge patch applied (RFC 7396); an object of another `kind` replaces the present one as a whole."""
    if not isinstance(patch, dict):
        return patch
    other_kind = isinstance(current, dict) and patch.get("kind", current.get("kind")) != current.get("kind")
    result = {} if other_kind or not isinstance(current, dict) else dict(current)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def invalid(*errors: FieldError) -> Problem:
    """Returns the refusal of a request that names the fields at fault."""
    named = "; ".join(f"{error.field or 'the body'} {error.message}" for error in errors[:3])
    more = f"; and {len(errors) - 3} more" if len(errors) > 3 else ""  # noqa: PLR2004 - as many as one line holds
    return Problem(
        f"The request is not acceptable: {named}{more}.",
        status=HTTPStatus.UNPROCESSABLE_ENTITY,
        reason="request_invalid",
        errors=errors,
    )


def match_revision(revision: int, *, required: bool) -> bool:
    """Returns whether the request holds an If-Match, which then names the present revision.

    Raises:
        Problem: 428 `precondition_missing`, 412 `revision_differs`.
    """
    if "If-Match" not in request.headers:
        if required:
            raise Problem(
                "Say which version you change: send If-Match with the ETag that you read.",
                status=HTTPStatus.PRECONDITION_REQUIRED,
                reason="precondition_missing",
                errors=[FieldError(field="If-Match", message="is required", where="header")],
            )
        return False
    wanted = request.if_match
    if not (wanted.star_tag or wanted.is_strong(str(revision))):
        raise Problem(
            "It has changed since you read it: read it again, and repeat your change with the new ETag.",
            status=HTTPStatus.PRECONDITION_FAILED,
            reason="revision_differs",
            errors=[FieldError(field="If-Match", message=f'is not the present ETag "{revision}"', where="header")],
        )
    return True


def idempotency_key() -> str | None:
    """Returns the request's Idempotency-Key, if it has one.

    Raises:
        Problem: 422 `request_invalid`.
    """
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        message = f"must be 1 to {MAX_KEY} printable ASCII characters"
        raise invalid(FieldError(field="Idempotency-Key", message=message, where="header"))
    return key


def _read_query(model: type[BaseModel]) -> BaseModel:
    twice = [name for name, values in request.args.lists() if len(values) > 1]
    if twice:
        raise invalid(*(FieldError(field=name, message="is given twice", where="query") for name in twice))
    try:
        return model.model_validate(request.args.to_dict())
    except ValidationError as error:
        raise invalid(*field_errors(error, where="query")) from None
