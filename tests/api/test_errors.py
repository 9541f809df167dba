"""Requests that are no requests, and what every answer carries."""

from __future__ import annotations

import json
import logging
import string
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.operation import MAX_BODY, View, merged, operation
from tests.api.conftest import Client, fields, problem
from tests.world import World

TRANSFER = {"source": {"endpoint": "sftp-a", "path": "a"}, "destination": {"endpoint": "s3-a", "path": "a"}}
POSTS = ["/v1/endpoints", "/v1/flows", "/v1/transfers", "/v1/transfers/redrive", "/v1/endpoints/sftp-a/host-keys"]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"  \n",
        b"{",
        b'{"a": }',
        b"{'a': 1}",
        b'{"a": 1,}',
        b"nul",
        b"\xff\xfe",
        b'{"name": "\xff"}',
        b'{"name": "\\ud800"}',
        json.dumps(TRANSFER).encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"a": ' + b"9" * 10_000 + b"}",
    ],
)
def test_malformed_json(acme: Client, path: str, raw: bytes) -> None:
    """A body that is no JSON in UTF-8, or nested or large beyond reason, is 400 and never anything worse."""
    told = problem(acme.post(path, raw=raw), 400, "json_malformed")
    assert "JSON" in told["detail"]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("raw", [b"[]", b"null", b"5", b'"{}"', b"true", b"NaN"])
def test_not_an_object(acme: Client, path: str, raw: bytes) -> None:
    """JSON that is no object is refused."""
    answer = acme.post(path, raw=raw)
    assert answer.status_code in {400, 422}
    assert answer.get_json()["reason"] in {"json_malformed", "request_invalid"}


def test_where_json_breaks(acme: Client) -> None:
    """The answer to malformed JSON says in which line and column it breaks."""
    assert "line 2, column 8" in acme.post("/v1/flows", raw=b'{"name": "x",\n"a":   }').get_json()["detail"]


@pytest.mark.parametrize(
    "media", ["", "text/plain", "text/json", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data", "json"]
)
@pytest.mark.parametrize("path", POSTS)
def test_media_type(acme: Client, path: str, media: str) -> None:
    """A body of another media type is 415, and the answer names the right one."""
    told = problem(acme.post(path, raw=b"{}", Content_Type=media), 415, "media_type_unsupported")
    assert "application/json" in told["detail"]


def test_media_type_with_parameters(acme: Client) -> None:
    """A charset beside the media type does no harm; a compressed body is 415."""
    assert acme.post("/v1/transfers", TRANSFER, Content_Type="application/json; charset=utf-8").status_code == 202
    problem(acme.post("/v1/transfers", TRANSFER, Content_Encoding="gzip"), 415, "media_type_unsupported")
    problem(acme.post("/v1/transfers", TRANSFER, Content_Type="application/merge-patch+json"), 415, "media_type_unsupported")


@pytest.mark.parametrize("path", POSTS)
def test_oversized_body(acme: Client, path: str) -> None:
    """A body above 1 MiB is 413; one of just 1 MiB is looked at."""
    problem(acme.post(path, raw=b" " * (MAX_BODY + 1)), 413, "body_too_large")
    padded = b'{"nothing": 1}'.ljust(MAX_BODY)
    problem(acme.post(path, raw=padded), 422, "request_invalid")
    problem(acme.patch("/v1/endpoints/sftp-a", raw=b" " * (MAX_BODY + 1), If_Match='"1"'), 413, "body_too_large")


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/", "/v2/transfers", "/v1/nothing", "/v1/transfers/a/b", "/docs/../app.py", "/docs/x.js", "/static/x", "/%00"]
)
def test_unknown_address(acme: Client, stranger: Client, path: str) -> None:
    """An unknown address is 404 as a problem, with and without a token."""
    for client in (acme, stranger):
        problem(client.get(path), 404, "not_found")


def test_method(acme: Client) -> None:
    """A method that an address does not take is 405, and the Allow header names those that it takes."""
    answer = acme.send("PUT", "/v1/transfers")
    problem(answer, 405, "method_not_allowed")
    assert {"GET", "POST"} <= set(answer.headers["Allow"].replace(" ", "").split(","))
    problem(acme.delete("/v1/health/live"), 405, "method_not_allowed")


def test_many_faults_at_once(acme: Client) -> None:
    """All fields at fault are named in one answer, up to fifty."""
    told = problem(acme.post("/v1/flows", {f"x{n}": 1 for n in range(200)}), 422, "request_invalid")
    assert len(told["errors"]) == 50
    assert {"/name", "/source", "/destination"} <= set(fields(told))
    assert "more" in told["detail"]


def test_pointer_escapes(acme: Client) -> None:
    """A field's pointer escapes what RFC 6901 says, and shows hostile names in printable form, not at any length."""
    told = problem(acme.post("/v1/flows", {"a/b~c": 1, "new\nline": 1, "x" * 5000: 1}), 422, "request_invalid")
    assert "/a~1b~0c" in fields(told)
    assert "/new\\nline" in fields(told)
    assert max(map(len, fields(told))) <= 301


def test_unexpected_error(acme: Client, world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A bug of ours is 500 that tells nothing but a request id; the log has the place and not the message, which may quote a request."""
    world.registry.trip("flows", KeyError("s3cr3t"))
    with caplog.at_level(logging.DEBUG):
        answer = acme.get("/v1/flows", X_Request_Id="find-me-by-this")
    told = problem(answer, 500, "internal")
    assert told["request_id"] == "find-me-by-this"
    assert "s3cr3t" not in answer.text
    line = next(vars(record) for record in caplog.records if record.message == "unexpected error")
    assert line["error"] == "KeyError"
    assert "flows.py" in line["frames"]
    assert "s3cr3t" not in json.dumps([vars(record) for record in caplog.records], default=repr)


@pytest.mark.parametrize("given_id", ["", "short", "x" * 65, "has space!", "new\\nline"])
def test_odd_request_ids(acme: Client, given_id: str) -> None:
    """A request id that is no plain short text is replaced by one of ours."""
    assert acme.get("/v1/flows", X_Request_Id=given_id).headers["X-Request-Id"] != given_id


def test_headers(acme: Client, stranger: Client) -> None:
    """Every answer, good or bad, forbids caching, framing and sniffing, and none invites other sites."""
    answers = [
        acme.get("/v1/flows"),
        stranger.get("/v1/flows"),
        acme.get("/v1/nothing"),
        acme.post("/v1/flows", {}),
        acme.get("/docs"),
        acme.get("/v1/health/live"),
        acme.send("OPTIONS", "/v1/flows", Origin="https://evil.test", Access_Control_Request_Method="POST"),
    ]
    for answer in answers:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert "max-age" in answer.headers["Strict-Transport-Security"]
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert not [name for name, _ in answer.headers if name.lower().startswith("access-control")]
        assert "Server" not in answer.headers
    assert answers[0].headers["Cache-Control"] == "no-store"


def test_options_and_head(acme: Client) -> None:
    """HEAD answers as GET does, without a body; OPTIONS names the methods."""
    assert acme.send("HEAD", "/v1/flows").data == b""
    assert "POST" in acme.send("OPTIONS", "/v1/flows").headers["Allow"]


# -- anything at all -----------------------------------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(string.ascii_lowercase, max_size=12), inner, max_size=4),
    max_leaves=20,
)
NAMES = st.sampled_from(
    [
        *(
            "kind",
            "name",
            "host",
            "port",
            "username",
            "root",
            "host_keys",
            "credential",
            "bucket",
            "prefix",
            "region",
            "source",
            "destination",
        ),
        *("selection", "policy", "trigger", "state", "flow", "limit", "cursor", "replace", "expected_sha256", "endpoint_url", "enabled"),
    ]
)
VALUES = JSON_VALUES | st.sampled_from(
    [
        *("sftp", "s3", "sftp-a", "s3-a", "dead", "held", "../x", "\x00", "a" * 2000, "é", "\U0001f600"),
        {"kind": "cron", "cron": "* * * * *"},
        {"kind": "interval", "every": "P40D"},
        {"endpoint": "sftp-a", "path": "x"},
        {"endpoint": "s3-a", "path": "x"},
        {"password": "p"},
        {"glob": "[", "regex": None},
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(POSTS), body=st.dictionaries(NAMES, VALUES, max_size=8) | JSON_VALUES)
def test_any_body(acme: Client, path: str, body: object) -> None:
    """Whatever JSON is sent, the answer is a success or a problem that names what is wrong; never a 500."""
    answer = acme.post(path, raw=json.dumps(body))
    assert answer.status_code in {200, 201, 202, 400, 409, 413, 422}, answer.text
    if answer.status_code >= 400:
        assert answer.content_type == "application/problem+json"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(["/v1/endpoints/sftp-a", "/v1/endpoints/s3-a"]), body=st.dictionaries(NAMES, VALUES, max_size=6) | JSON_VALUES)
def test_any_change(acme: Client, path: str, body: object) -> None:
    """Whatever a change says, the endpoint stays one that can be shown."""
    answer = acme.patch(path, raw=json.dumps(body), If_Match="*")
    assert answer.status_code in {200, 400, 422}, answer.text
    assert acme.get(path).status_code == 200


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["limit", "cursor", "state", "flow", "x"]), st.text(max_size=30), max_size=4))
def test_any_query(acme: Client, query: dict[str, str]) -> None:
    """Whatever a list is asked, the answer is a page or a 422."""
    answer = acme.app.test_client().get("/v1/transfers", query_string=query, headers={"Authorization": f"Bearer {acme.token}"})
    assert answer.status_code in {200, 422}, answer.text


@pytest.mark.parametrize(
    ("current", "patch", "result"),
    [
        # RFC 7396, appendix A, all cases.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        # Ours: another kind replaces the whole.
        ({"kind": "x", "a": 1}, {"kind": "y", "b": 2}, {"kind": "y", "b": 2}),
        ({"kind": "x", "a": 1}, {"kind": "x", "b": 2}, {"kind": "x", "a": 1, "b": 2}),
    ],
)
def test_merge_patch(current: Any, patch: Any, result: Any) -> None:  # noqa: ANN401 - JSON
    """A merge patch does what RFC 7396 says in each of its examples."""
    assert merged(current, patch) == result


def test_view_that_answers_nothing() -> None:
    """A contract with an unknown word is an error when the module is loaded, not a line of it that nobody reads."""
    with pytest.raises(TypeError):
        operation(sumary="x", scope=None)
    assert isinstance(operation(summary="x", scope=None)(lambda: None), View)
