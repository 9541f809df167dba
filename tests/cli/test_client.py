"""The REST client: what it repeats, what it refuses, and how it tells what went wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from eft.cli.client import Api, failure_of, path
from eft.cli.failure import ExitCode, Failure
from tests.cli.conftest import URL, Desk

Answers = Callable[[httpx.Request], httpx.Response]


class Server:
    """An API that answers from a list, and keeps what it was asked and how long the client slept."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []
        self.slept: list[float] = []

    def api(self, url: str = URL) -> Api:
        """Returns a client of it."""
        return Api(url, token="t0ken", transport=httpx.MockTransport(self._answer), sleep=self.slept.append)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


OK = httpx.Response(200, json={"fine": True})


def problem(status: int, **more: Any) -> httpx.Response:  # noqa: ANN401 - JSON
    """Returns an error as the API tells it."""
    body = {"title": "T", "status": status, "detail": "what is wrong", "reason": "r", **more}
    return httpx.Response(status, json=body, headers={"Content-Type": "application/problem+json"})


@pytest.mark.parametrize("passing", [problem(503), problem(502), problem(429), httpx.ReadTimeout("slow"), httpx.ConnectError("refused")])
def test_what_is_safe_is_repeated(passing: httpx.Response | Exception) -> None:
    """A GET is repeated when the API is away for a moment."""
    server = Server(passing, OK)
    assert server.api().get("/v1/x").body == {"fine": True}
    assert len(server.slept) == 1


def test_a_post_without_key_is_sent_once() -> None:
    """What might be done twice is not repeated."""
    server = Server(httpx.ReadError("reset"), OK)
    with pytest.raises(Failure) as caught:
        server.api().post("/v1/x", {})
    assert caught.value.code is ExitCode.UNAVAILABLE
    assert len(server.asked) == 1


def test_a_post_with_key_is_repeated_with_the_same_key() -> None:
    """A POST with an Idempotency-Key is repeated, and each try carries the key."""
    server = Server(httpx.ReadError("reset"), problem(503), OK)
    server.api().post("/v1/x", {}, key="k-1")
    assert [request.headers["Idempotency-Key"] for request in server.asked] == ["k-1"] * 3


def test_waits_as_long_as_it_is_told() -> None:
    """A Retry-After longer than the client's own pause is kept, up to ten seconds."""
    server = Server(*(httpx.Response(503, headers={"Retry-After": after}) for after in ("7", "3600", "Mon, 01 Jan")), OK)
    server.api().get("/v1/x")
    assert server.slept == [7.0, 10.0, 2.0]


def test_gives_up_after_four_tries() -> None:
    """An API that stays away is exit code 6, with its address and what to do."""
    server = Server(*[httpx.ConnectError("refused")] * 4)
    with pytest.raises(Failure, match=URL) as caught:
        server.api().get("/v1/x")
    assert caught.value.code is ExitCode.UNAVAILABLE
    assert "EFT_API_URL" in (caught.value.advice or "")
    assert not server.answers


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, ExitCode.USAGE),
        (401, ExitCode.UNAUTHORISED),
        (403, ExitCode.UNAUTHORISED),
        (404, ExitCode.NOT_FOUND),
        (409, ExitCode.CONFLICT),
        (412, ExitCode.CONFLICT),
        (413, ExitCode.USAGE),
        (422, ExitCode.USAGE),
        (428, ExitCode.CONFLICT),
        (429, ExitCode.UNAVAILABLE),
        (500, ExitCode.UNAVAILABLE),
        (503, ExitCode.UNAVAILABLE),
    ],
)
def test_each_status_has_its_exit_code(status: int, code: ExitCode) -> None:
    """Scripts tell from the exit code what kind of answer there was."""
    assert failure_of(problem(status)).code is code


def test_a_problem_keeps_its_fields() -> None:
    """A problem becomes its detail, and its JSON pointers become names."""
    told = failure_of(
        problem(422, errors=[{"field": "/policy/retry/tries", "message": "must be less"}, {"field": "", "message": "is empty"}])
    )
    assert str(told) == "what is wrong"
    assert [(fault.field, fault.message) for fault in told.faults] == [("policy.retry.tries", "must be less"), ("", "is empty")]


@pytest.mark.parametrize(
    "reply", [httpx.Response(500, text="<html>"), httpx.Response(500, json=["x"]), httpx.Response(500, json={"detail": None})]
)
def test_an_answer_that_is_no_problem_is_told_all_the_same(reply: httpx.Response) -> None:
    """A proxy's page, or any other body, becomes the status in words."""
    assert str(failure_of(reply)) == "Internal Server Error (HTTP 500)"


def test_sends_the_token_and_who_it_is() -> None:
    """Each request carries the bearer token and the client's name."""
    server = Server(OK)
    server.api().get("/v1/x", state=None, limit=3)
    [request] = server.asked
    assert request.headers["Authorization"] == "Bearer t0ken"
    assert request.headers["User-Agent"].startswith("eft-cli/")
    assert str(request.url) == f"{URL}/v1/x?limit=3"


def test_an_id_is_one_segment() -> None:
    """Whatever somebody gives as an id, it addresses nothing else."""
    assert path("transfers", "../flows?x=1#y") == "/v1/transfers/..%2Fflows%3Fx%3D1%23y"


@pytest.mark.parametrize("url", ["eft.example.gov", "ftp://x", "http://", ""])
def test_refuses_what_is_no_address(url: str) -> None:
    """An address without scheme or host is a usage error, not a connection error."""
    with pytest.raises(Failure) as caught:
        Server().api(url)
    assert caught.value.code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("url", "exposes"), [("http://10.0.0.1", True), ("http://127.0.0.1:1", False), ("http://[::1]:1", False), ("https://x", False)]
)
def test_knows_where_a_token_is_exposed(url: str, *, exposes: bool) -> None:
    """A token crosses a network in the clear only over http to another machine."""
    assert Server().api(url).exposes_token is exposes


def test_an_address_may_end_in_its_prefix() -> None:
    """The address is taken with /v1 at its end, too."""
    server = Server(OK)
    server.api(f"{URL}/v1/").get("/v1/x")
    assert server.asked[0].url.path == "/v1/x"


def test_a_listing_asks_for_no_more_than_it_needs() -> None:
    """A limit beyond one page follows the cursor, and the last page is as small as what is left."""
    pages = [{"items": list(range(200)), "next_cursor": "c1"}, {"items": list(range(50)), "next_cursor": "c2"}]
    server = Server(*(httpx.Response(200, json=page) for page in pages))
    page = server.api().listing("/v1/x", limit=250)
    assert (len(page["items"]), page["next_cursor"]) == (250, "c2")
    assert [request.url.params["limit"] for request in server.asked] == ["200", "50"]


def test_find_passes_other_failures_on() -> None:
    """Only a missing id leads to a search by name."""
    server = Server(problem(403))
    with pytest.raises(Failure) as caught:
        server.api().find("endpoints", "x")
    assert caught.value.code is ExitCode.UNAUTHORISED


def test_an_expired_token_is_told(desk: Desk) -> None:
    """A token that does not count ends in exit code 4, and the advice names EFT_TOKEN; the token is not shown."""
    desk.environ["EFT_TOKEN"] = "no-token-at-all"
    result = desk.run("endpoint", "list")
    assert result.exit_code == 4
    assert "EFT_TOKEN" in result.stderr
    assert "no-token-at-all" not in result.output


def test_a_missing_scope_is_told(desk: Desk) -> None:
    """A token without the scope ends in exit code 4, and the scope is named."""
    desk.environ["EFT_TOKEN"] = desk.token("flows:read")
    result = desk.run("endpoint", "list", "--json")
    assert result.exit_code == 4
    assert result.stdout == ""
    assert json.loads(result.stderr)["reason"] == "scope_missing"


def test_an_api_that_is_not_there(desk: Desk) -> None:
    """Without an API the exit code is 6, in words and for programs."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    desk.transport = httpx.MockTransport(refuse)
    assert desk.run("flow", "list").exit_code == 6
    problem = json.loads(desk.run("flow", "list", "--json").stderr)
    assert problem["exit_code"] == 6
    assert "cannot be reached" in problem["title"]


def test_warns_of_a_token_in_the_clear(desk: Desk) -> None:
    """Plain http to another machine is warned about on standard error, and done."""
    result = desk.run("--api-url", "http://api.test", "endpoint", "list", "--json")
    assert result.exit_code == 0
    assert "in the clear" in result.stderr
    assert json.loads(result.stdout)["items"]
