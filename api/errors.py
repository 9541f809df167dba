"""Every error as problem+json (RFC 9457), and the one translation of eft.errors into HTTP."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal

from flask import Flask, Response, g, request
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from werkzeug.exceptions import HTTPException

from eft.domain.names import display
from eft.errors import Conflict, EftError, LostOwnership, NotFound, Permanent, Transient, Undecidable

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
MAX_ERRORS: Final = 50

Where = Literal["body", "query", "header"]


class FieldError(BaseModel):
    """One field at fault: a JSON pointer into the body (RFC 6901), or the name of a query parameter or header."""

    model_config = ConfigDict(frozen=True)

    field: str
    message: str
    where: Where = "body"


class ProblemShown(BaseModel):
    """An error (RFC 9457). `reason` is stable and fit for programs, `detail` is for people and says what to do."""

    model_config = ConfigDict(frozen=True)

    type: str
    title: str
    status: int
    detail: str
    reason: str
    instance: str
    request_id: str
    errors: tuple[FieldError, ...] = ()


@dataclass(frozen=True, slots=True)
class _Told:
    status: int
    reason: str


class Problem(Exception):
    """An error of the API's own, told to the caller as it stands."""

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        reason: str,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.errors = tuple(errors)
        self.headers = dict(headers or {})


# Reasons whose status is not their class's.
_REASONS: Final[dict[str, int]] = {
    "directory_missing": HTTPStatus.CONFLICT,
    "idempotency_mismatch": HTTPStatus.UNPROCESSABLE_ENTITY,
    "revision_differs": HTTPStatus.PRECONDITION_FAILED,
    "secret_denied": HTTPStatus.SERVICE_UNAVAILABLE,
}
# Reasons of Permanent that are about the request itself; any other is about what stands in its way.
_ABOUT_REQUEST: Final[dict[str, FieldError]] = {
    "cursor_invalid": FieldError(field="cursor", message="take it from the page before, unchanged", where="query"),
    "name_invalid": FieldError(field="", message="is no path that can be moved"),
}
_HTTP_REASONS: Final[dict[int, tuple[str, str]]] = {
    404: ("not_found", "No such address. The list of all is at /docs."),
    405: ("method_not_allowed", "This address does not take the method; the Allow header names those that it takes."),
    413: ("body_too_large", "The body is larger than 1 MiB; send less."),
    414: ("address_too_long", "The address is too long."),
    415: ("media_type_unsupported", "Send the body as Content-Type: application/json."),
}


def problem(
    status: int,
    reason: str,
    detail: str,
    *,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Returns the response that tells an error."""
    shown = ProblemShown(
        type=f"urn:eft:problem:{reason}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        reason=reason,
        instance=display(request.path),
        request_id=g.get("request_id", ""),
        errors=tuple(errors[:MAX_ERRORS]),
    )
    response = Response(shown.model_dump_json(), status=status, content_type=MEDIA_TYPE)
    response.headers.update(headers or {})
    return response


def field_errors(error: ValidationError, *, where: Where, sent: object = None) -> list[FieldError]:
    """Returns what a model refused, without any of the values; `sent` is the parsed input, for exact pointers."""
    details = error.errors(include_url=False, include_input=False, include_context=True)
    return [FieldError(field=_pointer(d, where, sent), message=_message(d), where=where) for d in details]


def install(app: Flask) -> None:
    """Makes an app tell all its errors as problems."""
    app.register_error_handler(Problem, _own)
    app.register_error_handler(EftError, _engine)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)


def _own(error: Problem) -> Response:
    return problem(error.status, error.reason, str(error), errors=error.errors, headers=error.headers)


def _engine(error: EftError) -> Response:
    headers: dict[str, str] = {}
    errors: tuple[FieldError, ...] = ()
    match error:
        case Transient():
            status = HTTPStatus.SERVICE_UNAVAILABLE
            pause = 1 if error.retry_after is None else max(1, round(error.retry_after.total_seconds()))
            headers["Retry-After"] = str(pause)
        case NotFound():
            status = HTTPStatus.NOT_FOUND
        case Conflict() | LostOwnership() | Undecidable():
            status = HTTPStatus.CONFLICT
        case Permanent() if error.reason in _ABOUT_REQUEST:
            status = HTTPStatus.UNPROCESSABLE_ENTITY
            errors = (_ABOUT_REQUEST[error.reason],)
        case _:
            status = HTTPStatus.CONFLICT
    status = HTTPStatus(_REASONS.get(error.reason, status))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("refused for now", extra={"reason": error.reason})
    return problem(status, error.reason, str(error), errors=errors, headers=headers)


def _http(error: HTTPException) -> Response:
    if error.code is None or error.code < HTTPStatus.BAD_REQUEST:  # a redirect of the router
        return Response(error.get_response().get_data(), status=error.code, headers=dict(error.get_headers()))
    default = (HTTPStatus(error.code).phrase.lower().replace(" ", "_"), error.description or "")
    reason, detail = _HTTP_REASONS.get(error.code, default)
    kept = {name: value for name, value in error.get_headers() if name.lower() in {"allow", "retry-after"}}
    return problem(error.code, reason, detail, headers=kept)


def _unexpected(error: Exception) -> Response:
    # Neither message nor values: either may quote a request, and requests hold credentials.
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("unexpected error", extra={"error": type(error).__name__, "frames": frames})
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "The request failed for a reason of ours; quote its request_id.")


# -- what a model refused ------------------------------------------------------------------------------------------------

_MESSAGES: Final[dict[str, str]] = {
    "missing": "is required",
    "extra_forbidden": "is no known field; remove it, or check its spelling",
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "bool_type": "must be true or false",
    "time_delta_type": "must be a duration as ISO 8601 text, such as PT5M or P1D",
    "time_delta_parsing": "must be a duration as ISO 8601 text, such as PT5M or P1D",
    "tuple_type": "must be a list",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
}


def _message(detail: ErrorDetails) -> str:
    kind = detail["type"]
    if kind in _MESSAGES:
        return _MESSAGES[kind]
    if kind == "union_tag_not_found":
        return "is required; it says which kind of object this is"
    if kind == "union_tag_invalid":
        return f"must be one of {detail.get('ctx', {}).get('expected_tags')}"
    if kind == "string_pattern_mismatch":
        return f"must match {detail.get('ctx', {}).get('pattern')}"
    if kind == "value_error":
        return str(detail.get("ctx", {}).get("error", "is not acceptable"))
    return detail["msg"].replace("Input should", "must").replace("String should", "must").replace("Value should", "must")


def _pointer(detail: ErrorDetails, where: Where, sent: object) -> str:
    """Returns where an error lies, without the tags that a union puts into its location."""
    steps: list[str] = []
    here = sent
    may_be_tag = True
    for step in detail["loc"]:
        if may_be_tag and isinstance(here, dict) and here.get("kind") == step:
            may_be_tag = False
            continue
        steps.append(str(step))
        may_be_tag = True
        here = _inside(here, step)
    if detail["type"].startswith("union_tag"):
        steps.append("kind")
    if where != "body":
        return ".".join(steps)
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in map(display, steps))


def _inside(value: Any, step: int | str) -> object:  # noqa: ANN401 - parsed JSON
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list) and isinstance(step, int) and step < len(value):
        return value[step]
    return None


def parsed(raw: bytes) -> object:
    """Returns a body as plain JSON values.

    Raises:
        Problem: 400 `json_malformed`, saying where.
    """
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        detail = f"line {error.lineno}, column {error.colno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else ""
        message = f"The body is no JSON text{': ' if detail else ''}{detail}."
        raise Problem(message, status=HTTPStatus.BAD_REQUEST, reason="json_malformed") from None
