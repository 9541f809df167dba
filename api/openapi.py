"""The OpenAPI 3.1 document, made of the views' contracts and their models; there is no second description to drift from them."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal

from flask import Flask
from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaValue

from api.auth import Scope
from api.errors import MEDIA_TYPE, ProblemShown
from api.operation import JSON, MERGE_PATCH, Operation, View
from eft import __version__

REF: Final = "#/components/schemas/{model}"
METHODS: Final = ("get", "post", "put", "patch", "delete")
TAGS: Final = {
    "endpoints": "Where files live. Onboard one with its credential, test it, pin its host keys.",
    "flows": "Standing orders: which files go from where to where, when, and how.",
    "transfers": "Files on their way: submit, follow, cancel, re-drive.",
    "webhooks": "Who is told of what happens, by signed requests; what could not be delivered.",
    "partitions": "For operators: which region has which slice of the work, and moving it.",
    "health": "For load balancers and container platforms.",
}
ABOUT: Final = """Moves files between SFTP servers and S3 buckets: never twice, never silently lost, whole or not at all.

**Tokens.** Every request carries `Authorization: Bearer <JWT>`; the token's claim `tenant` says whose things are seen,
its `scope` what may be done. Things of others do not exist for you (404).

**Errors** are `application/problem+json` (RFC 9457): `reason` is for programs, `detail` for people, `errors` names the
fields at fault, `request_id` is what to quote.

**Changes** are merge patches (RFC 7396) and name the version they change: send the ETag that you read as `If-Match`.

**Lists** give `items` and `next_cursor`; send it as `cursor` for the next page until it is null.

**Values.** Times are RFC 3339, durations ISO 8601 (`PT5M`), sizes bytes. Unknown fields are refused.
"""
_PARAMETER = re.compile(r"<(?:[a-z]+:)?([a-z_]+)>")
Mode = Literal["validation", "serialization"]


@dataclass(frozen=True, slots=True)
class _Route:
    path: str
    parameters: tuple[str, ...]
    method: str
    name: str
    tag: str
    view: View


def document(app: Flask) -> str:
    """Returns the document as JSON; made once per app."""
    made: str | None = app.extensions.get("eft-openapi")
    if made is None:
        made = json.dumps(_document(app), ensure_ascii=False)
        app.extensions["eft-openapi"] = made
    return made


def routes(app: Flask) -> Iterator[tuple[str, str, View]]:
    """Yields (address, method, view) of every route; what is no View is a bug, and is said to be one."""
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        if not isinstance(view, View):
            msg = f"{rule.rule} is served by something without a contract"
            raise TypeError(msg)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield rule.rule, method.lower(), view


def _document(app: Flask) -> dict[str, Any]:
    shown = [_route(*route) for route in routes(app) if not route[2].contract.hidden]
    schemas, definitions = _schemas([route.view.contract for route in shown])
    paths: dict[str, dict[str, Any]] = {}
    for route in sorted(shown, key=lambda r: (list(TAGS).index(r.tag), r.path, METHODS.index(r.method))):
        paths.setdefault(route.path, {})[route.method] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Enterprise file transfer engine",
            "version": __version__,
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(definitions.items())),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "Scopes: " + ", ".join(f"`{scope}`" for scope in Scope) + ".",
                }
            },
            "responses": {
                "problem": {
                    "description": "An error (RFC 9457)",
                    "content": {MEDIA_TYPE: {"schema": {"$ref": REF.format(model=ProblemShown.__name__)}}},
                }
            },
        },
    }


def _route(rule: str, method: str, view: View) -> _Route:
    tag = view.function.__module__.rpartition(".")[2]
    return _Route(
        path=_PARAMETER.sub(r"{\1}", rule),
        parameters=tuple(_PARAMETER.findall(rule)),
        method=method,
        name=f"{tag}_{view.__name__}",
        tag=tag,
        view=view,
    )


def _schemas(contracts: list[Operation]) -> tuple[dict[tuple[str, Mode], JsonSchemaValue], dict[str, Any]]:
    """Returns each type's schema by its name and mode, and the definitions that they refer to."""
    wanted: dict[tuple[str, Mode], Any] = {("problem", "serialization"): ProblemShown}
    mode: Mode
    for contract in contracts:
        for kind, mode in ((contract.body, "validation"), (contract.answer, "serialization")):
            if kind is not None:
                wanted[_name(kind), mode] = kind
    asked = [(name, mode, TypeAdapter(kind)) for (name, mode), kind in wanted.items()]
    found, rest = TypeAdapter.json_schemas(asked, ref_template=REF)
    return dict(found), rest.get("$defs", {})


def _name(kind: Any) -> str:  # noqa: ANN401 - a type, annotated or not
    return str(kind)


def _operation(route: _Route, schemas: dict[tuple[str, Mode], JsonSchemaValue]) -> dict[str, Any]:
    contract = route.view.contract
    made: dict[str, Any] = {
        "operationId": route.name,
        "tags": [route.tag],
        "summary": contract.summary,
        "description": inspect.getdoc(route.view.function) or "",
        "parameters": _parameters(route),
        "responses": _responses(route, schemas),
        "security": [] if contract.scope is None else [{"bearer": [str(contract.scope)]}],
    }
    if contract.body is not None:
        schema = schemas[_name(contract.body), "validation"]
        media = MERGE_PATCH if contract.patch else JSON
        content = {"schema": _optional(schema) if contract.patch else schema}
        made["requestBody"] = {"required": True, "content": {media: content}}
    return made


def _optional(schema: JsonSchemaValue) -> JsonSchemaValue:
    """Returns what a merge patch of a thing is: an object whose fields, all optional, are the thing's."""
    return {
        "type": "object",
        "description": "A merge patch (RFC 7396): any of the fields of " + _named(schema) + "; null sets one back to its default.",
    }


def _named(schema: JsonSchemaValue) -> str:
    text = json.dumps(schema)
    return " or ".join(dict.fromkeys(re.findall(r'"#/components/schemas/(\w+)"', text)))


def _parameters(route: _Route) -> list[dict[str, Any]]:
    contract = route.view.contract
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}}
        for name in route.parameters
    ]
    if contract.query is not None:
        schema = _flat(contract.query.model_json_schema())
        required = schema.get("required", [])
        found += [
            {"name": name, "in": "query", "required": name in required, "schema": field} for name, field in schema["properties"].items()
        ]
    if contract.if_match is not None:
        text = "The ETag of the version that you change."
        found.append(_header("If-Match", text, required=contract.if_match == "required"))
    if contract.idempotent:
        text = "Any text of yours, up to 255 characters: the request may then be repeated, and takes effect once."
        found.append(_header("Idempotency-Key", text, required=False))
    return found


def _header(name: str, text: str, *, required: bool) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": required, "description": text, "schema": {"type": "string"}}


def _flat(schema: JsonSchemaValue) -> JsonSchemaValue:
    """Returns a schema with its definitions written out where they are used."""
    definitions = schema.get("$defs", {})

    def filled(value: Any) -> Any:  # noqa: ANN401 - JSON
        if isinstance(value, dict):
            if "$ref" in value:
                return filled(deepcopy(definitions[value["$ref"].rpartition("/")[2]]))
            return {name: filled(inner) for name, inner in value.items()}
        return [filled(inner) for inner in value] if isinstance(value, list) else value

    flat: JsonSchemaValue = filled({name: value for name, value in schema.items() if name != "$defs"})
    return flat


def _responses(route: _Route, schemas: dict[tuple[str, Mode], JsonSchemaValue]) -> dict[str, Any]:
    contract = route.view.contract
    good: dict[str, Any] = {"description": HTTPStatus(contract.status).phrase}
    if contract.answer is not None:
        good["content"] = {JSON: {"schema": schemas[_name(contract.answer), "serialization"]}}
    headers = {}
    if contract.etag:
        headers["ETag"] = {"description": "The version shown, for If-Match.", "schema": {"type": "string"}}
    if contract.status in {201, 202} and contract.body is not None:
        headers["Location"] = {"description": "Where it is shown.", "schema": {"type": "string"}}
    if headers:
        good["headers"] = headers
    found: dict[str, Any] = {str(contract.status): good}
    for status in sorted(_usual(route) | set(contract.also)):
        if status == HTTPStatus.SERVICE_UNAVAILABLE and contract.scope is None:
            found[str(status)] = {**good, "description": HTTPStatus(status).phrase}
        else:
            found[str(status)] = {"$ref": "#/components/responses/problem"}
    return found


def _usual(route: _Route) -> set[int]:
    contract = route.view.contract
    found: set[int] = set()
    if contract.scope is not None:
        found |= {401, 403, 503}
    if route.parameters:
        found.add(404)
    if contract.query is not None or contract.idempotent:
        found.add(422)
    if contract.body is not None:
        found |= {400, 413, 415, 422}
    if contract.if_match is not None:
        found |= {412, 428} if contract.if_match == "required" else {412}
    return found
