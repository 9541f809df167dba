"""The REST client of the command line: requests, pages, and the API's problems as failures with an exit code.

Problem bodies follow RFC 9457 (application/problem+json).
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx

from eft import __version__
from eft.cli.failure import ExitCode, Failure, Fault, usage

PREFIX: Final = "/v1"
TIMEOUT: Final = 60.0
"""Seconds; a connection test waits for a foreign server while the request is open."""
PAUSES: Final = (0.3, 0.9, 2.0)
"""Seconds before each further try of a request that is safe to repeat."""
LONGEST_WAIT: Final = 10.0
PAGE: Final = 200
"""Items; the most that the API gives at once."""
ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PASSING: Final = frozenset({429, 502, 503, 504})
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful reply: its body (empty for 204), its status, and the ETag that If-Match takes."""

    body: JsonObject
    status: int
    etag: str | None = None


def path(*segments: str) -> str:
    """Returns the API path of these segments, each quoted whole: an id never becomes two, or none.

    Raises:
        Failure: USAGE: a segment is empty, or would lead elsewhere.
    """
    for segment in segments:
        if segment in {"", ".", ".."}:
            raise usage(f"'{segment}' is no id", advice="Give one that `list` shows; a variable of your shell may be empty.")
    return PREFIX + "".join("/" + quote(segment, safe="") for segment in segments)


class Api:
    """The API at one address, with one token. Requests that are safe to repeat are repeated when the network or a proxy fails."""

    def __init__(
        self,
        url: str,
        *,
        token: str,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise usage(f"'{url}' is no address of an API", advice="Write for example https://eft.example.gov.")
        self.url = url.rstrip("/").removesuffix(PREFIX)
        self.loopback = parts.hostname in _LOOPBACK
        self.exposes_token = parts.scheme == "http" and not self.loopback
        self._sleep = sleep
        self._http = httpx.Client(
            base_url=self.url,
            transport=transport,
            timeout=TIMEOUT,
            trust_env=not self.loopback,  # a proxy cannot reach this machine's own loopback
            headers={"Authorization": f"Bearer {token}", "User-Agent": f"eft-cli/{__version__}", "Accept": "application/json"},
        )

    def get(self, where: str, **params: object) -> Answer:
        """Returns what stands at a path. Parameters that are None are left out.

        Raises:
            Failure: with the exit code that the status calls for.
        """
        return self._send("GET", where, params=params, repeatable=True)

    def listing(self, where: str, *, limit: int | None = None, cursor: str | None = None, **params: object) -> JsonObject:
        """Returns a listing as `items` and the `next_cursor` of what follows: at most `limit` items from `cursor` on, or all of them.

        What else the last page said stays beside them.

        Raises:
            Failure: with the exit code that the status calls for.
        """
        items: list[JsonObject] = []
        while True:
            size = PAGE if limit is None else min(limit - len(items), PAGE)
            page = self.get(where, cursor=cursor, limit=size, **params).body
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None or (limit is not None and len(items) >= limit):
                return {**page, "items": items, "next_cursor": cursor}

    def find(self, noun: str, reference: str) -> Answer:
        """Returns the endpoint or flow of this id, else the only one of this name. `noun` is the plural of the path.

        Raises:
            Failure: NOT_FOUND, or USAGE when several have the name.
        """
        if ID.fullmatch(reference):
            try:
                return self.get(path(noun, reference))
            except Failure as failure:
                if failure.code is not ExitCode.NOT_FOUND:
                    raise
        named = self.named(noun, reference)
        if not named:
            raise Failure(
                f"No {noun[:-1]} has the id or the name '{reference}'",
                code=ExitCode.NOT_FOUND,
                advice=f"`eft {noun[:-1]} list` shows what there is.",
            )
        if len(named) > 1:
            ids = ", ".join(str(item["id"]) for item in named)
            raise usage(f"{len(named)} {noun} have the name '{reference}'", advice=f"Give one of their ids: {ids}.")
        return self.get(path(noun, str(named[0]["id"])))

    def named(self, noun: str, name: str) -> list[JsonObject]:
        """Returns all endpoints or flows of this name, as a list shows them.

        Raises:
            Failure: with the exit code that the status calls for.
        """
        return [item for item in self.listing(path(noun))["items"] if item["name"] == name]

    def post(self, where: str, body: Mapping[str, object] | None = None, *, key: str | None = None) -> Answer:
        """Posts a body and returns the reply. With an Idempotency-Key (`key`) a lost reply is asked for again.

        Raises:
            Failure: with the exit code that the status calls for.
        """
        headers = {} if key is None else {"Idempotency-Key": key}
        return self._send("POST", where, body=body, headers=headers, repeatable=key is not None)

    def change(self, method: str, where: str, body: Mapping[str, object] | None = None, *, etag: str | None) -> Answer:
        """Sends PUT, PATCH, POST or DELETE IF the thing is still the version that was read.

        Raises:
            Failure: CONFLICT when it is not.
        """
        return self._send(method, where, body=body, headers={} if etag is None else {"If-Match": etag}, repeatable=False)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def _send(
        self,
        method: str,
        where: str,
        *,
        repeatable: bool,
        params: Mapping[str, object] | None = None,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        known: dict[str, Any] = {name: value for name, value in (params or {}).items() if value is not None}
        for pause in (*PAUSES, None):
            try:
                reply = self._http.request(method, where, params=known, json=body, headers=headers)
            except httpx.TransportError as error:
                if pause is None or not repeatable or isinstance(error, httpx.UnsupportedProtocol):
                    raise self._unreachable(error) from None
                self._sleep(pause)
                continue
            if reply.is_success:
                return Answer(body=_object(reply), status=reply.status_code, etag=reply.headers.get("ETag"))
            if pause is None or not repeatable or reply.status_code not in _PASSING:
                raise failure_of(reply)
            self._sleep(max(pause, _retry_after(reply)))
        raise AssertionError  # pragma: no cover - the last round returns or raises

    def _unreachable(self, error: httpx.TransportError) -> Failure:
        what = "did not answer in time" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
        return Failure(
            f"The API at {self.url} {what}: {str(error) or type(error).__name__}",
            code=ExitCode.UNAVAILABLE,
            advice="Check the address (EFT_API_URL, --api-url or the profile) and whether it runs; `eft up` starts a local one.",
        )


def new_key() -> str:
    """Returns a new Idempotency-Key."""
    return str(uuid.uuid4())


def failure_of(reply: httpx.Response) -> Failure:
    """Returns a reply that is no success as a failure: what is wrong, which field, what to do."""
    problem = _object(reply)
    title = str(problem.get("title") or reply.reason_phrase or "Error")
    detail = str(problem.get("detail") or "")
    message = detail or f"{title} (HTTP {reply.status_code})"
    faults = tuple(_fault(entry) for entry in problem.get("errors") or () if isinstance(entry, dict))
    code = _exit_code(reply.status_code)
    shown = {"status": reply.status_code, **(problem or {"title": title})}
    return Failure(message, code=code, advice=_advice(reply), faults=faults, problem=shown)


def _exit_code(status: int) -> ExitCode:
    match status:
        case 401 | 403:
            return ExitCode.UNAUTHORISED
        case 404 | 410:
            return ExitCode.NOT_FOUND
        case 409 | 412 | 423 | 428:
            return ExitCode.CONFLICT
        case 408 | 425 | 429:
            return ExitCode.UNAVAILABLE
        case _:
            return ExitCode.USAGE if status < HTTPStatus.INTERNAL_SERVER_ERROR else ExitCode.UNAVAILABLE


_ADVICE: Final = {
    401: "Set EFT_TOKEN to a valid token; `eft token --save` issues one from a local stack.",
    404: "Check the id; `list` shows what there is.",
    412: "It changed meanwhile: look at it again, then repeat.",
}


def _advice(reply: httpx.Response) -> str | None:
    if reply.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR or reply.status_code == HTTPStatus.TOO_MANY_REQUESTS:
        pause = _retry_after(reply)
        return f"Repeat in {pause:.0f} s." if pause else "Repeat in a while; if it stays, tell the operators."
    return _ADVICE.get(reply.status_code)


def _fault(entry: JsonObject) -> Fault:
    # In a body the field is a JSON pointer (RFC 6901).
    steps = str(entry.get("field", "")).removeprefix("/").split("/")
    name = ".".join(step.replace("~1", "/").replace("~0", "~") for step in steps)
    return Fault(field=name, message=str(entry.get("message", "is wrong")))


def _retry_after(reply: httpx.Response) -> float:
    try:
        return min(LONGEST_WAIT, float(reply.headers.get("Retry-After", "0")))
    except ValueError:
        return 0.0


def _object(reply: httpx.Response) -> JsonObject:
    try:
        body = reply.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
