"""`eft transfer` against the real API."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta

import httpx
import pytest

from eft.domain.transfer import State
from tests.cli.conftest import Desk
from tests.fake_store import FakeServer

SUBMIT = ("transfer", "submit", "--from", "sftp-a:in/a.csv", "--to", "s3-a:out/")


def settle(desk: Desk) -> None:
    """Carries out what is queued."""
    desk.world.drain()


def dead(desk: Desk, name: str = "a.csv") -> str:
    """Returns the id of a transfer that is dead, for something is in its way at the destination."""
    desk.world.server("sftp-a").put(f"in/{name}", b"new")
    desk.world.server("s3-a").put(f"out/{name}", b"in the way")
    made = desk.json("transfer", "submit", "--from", f"sftp-a:in/{name}", "--to", "s3-a:out/")
    settle(desk)
    assert desk.world.ledger.load(made["id"]).state is State.DEAD
    return str(made["id"])


@pytest.mark.parametrize(("to", "path"), [("s3-a", "a.csv"), ("s3-a:out/", "out/a.csv"), ("s3-a:out/b.csv", "out/b.csv")])
def test_submits_a_file(desk: Desk, server: FakeServer, to: str, path: str) -> None:
    """A destination that names no file keeps the file's own name."""
    made = desk.json("transfer", "submit", "--from", "sftp-a:in/a.csv", "--to", to)
    assert made["destination"]["path"] == path
    assert made["state"] == "accepted"


def test_a_submitted_file_arrives(desk: Desk, server: FakeServer) -> None:
    """With --watch the command stays until the file is there, and its exit code is 0."""
    server.put("in/a.csv", b"content")
    digest = hashlib.sha256(b"content").hexdigest()
    result = desk.run(*SUBMIT, "--watch", "--sha256", digest.upper())
    assert result.exit_code == 0, result.output
    assert bytes(desk.world.server("s3-a").files["out/a.csv"].data) == b"content"
    assert result.stdout.splitlines()[-1] == "1 settled, 7 B."


def test_one_key_is_one_transfer(desk: Desk, server: FakeServer) -> None:
    """Submitting again with the same key is the same transfer; with another body it is refused."""
    first, second = (desk.json(*SUBMIT, "--key", "job-1")["id"] for _ in range(2))
    assert first == second
    assert desk.run(*SUBMIT, "--key", "job-1", "--conflict", "skip").exit_code == 2
    assert desk.json(*SUBMIT, "--key", "job-2")["id"] != first


def test_a_lost_reply_makes_no_second_transfer(desk: Desk, server: FakeServer) -> None:
    """When the reply to a submission is lost, the request is repeated with its key: there is one transfer."""
    inner = desk.transport
    lost: list[httpx.Request] = []

    class Losing(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            reply = inner.handle_request(request)
            if request.method == "POST" and not lost:
                lost.append(request)
                raise httpx.ReadError("connection reset")
            return reply

    desk.transport = Losing()
    made = desk.json(*SUBMIT)
    assert lost
    assert [row.id for row in desk.world.ledger.rows()] == [made["id"]]


@pytest.mark.parametrize("words", [("--from", "sftp-a"), ("--from", "sftp-a:in/"), ("--from", ":x"), ("--sha256", "abc")])
def test_refuses_a_submission_that_names_no_file(desk: Desk, words: tuple[str, ...]) -> None:
    """What names no file, no endpoint or no checksum is a usage error."""
    assert desk.run(*SUBMIT, *words).exit_code == 2


def test_lists_transfers(desk: Desk, server: FakeServer) -> None:
    """A list is newest first, filtered by state and flow, and continues at its cursor."""
    assert desk.run("transfer", "list").stdout == "No transfers.\n"
    first = dead(desk)
    desk.world.clock.advance(1)
    second = desk.json(*SUBMIT)["id"]
    assert [item["id"] for item in desk.json("transfer", "list")["items"]] == [second, first]
    assert [item["id"] for item in desk.json("transfer", "list", "--state", "dead", "--all")["items"]] == [first]
    page = desk.json("transfer", "list", "--limit", "1")
    assert [item["id"] for item in desk.json("transfer", "list", "--cursor", page["next_cursor"])["items"]] == [first]
    table = desk.run("transfer", "list").stdout
    assert f"{first}" in table
    assert "sftp-a:in/a.csv" in table
    flow = desk.world.flow("sftp-a", "s3-a")
    assert desk.json("transfer", "list", "--flow", flow.id)["items"] == []


SHOWING = (("transfer", "list"), ("transfer", "show", "TRANSFER"), ("flow", "list"), ("flow", "show", "f"))
ARCHIVE = ("endpoint", "add", "s3", "archive", "--bucket", "acme-archive", "--region", "us-gov-west-1", "--no-test")


def archive(desk: Desk) -> str:
    """Returns the id of an endpoint `archive`, with a flow and a transfer that go there."""
    made: str = desk.json(*ARCHIVE)["endpoint"]["id"]
    desk.run("flow", "add", "f", "--from", "sftp-a:in", "--to", "archive:out")
    desk.run("transfer", "submit", "--from", "sftp-a:in/a.csv", "--to", "archive:out/")
    return made


def named(desk: Desk, words: tuple[str, ...]) -> tuple[str, ...]:
    """Returns a command with the id of the only transfer."""
    [transfer] = desk.world.ledger.rows()
    return tuple(transfer.id if word == "TRANSFER" else word for word in words)


@pytest.mark.parametrize("words", SHOWING)
def test_shows_endpoints_by_name(desk: Desk, server: FakeServer, words: tuple[str, ...]) -> None:
    """What is shown names endpoints as `--from` and `--to` take them, for one more request; programs get what the API says."""
    archive_id = archive(desk)
    asked: list[str] = []
    inner = desk.transport

    class Counting(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            asked.append(request.url.path)
            return inner.handle_request(request)

    desk.transport = Counting()
    shown = desk.run(*named(desk, words)).stdout
    assert "archive:out" in shown
    assert archive_id not in shown
    assert asked.count("/v1/endpoints") == 1
    asked.clear()
    desk.json(*named(desk, words))
    assert "/v1/endpoints" not in asked


@pytest.mark.parametrize("words", SHOWING)
def test_an_endpoint_without_a_name_of_its_own_is_shown_by_id(desk: Desk, server: FakeServer, words: tuple[str, ...]) -> None:
    """So is one that shares its name, one that is gone, and each where the token may not list them."""
    archive_id = archive(desk)
    by_id = f"{archive_id}:out"
    command = named(desk, words)
    other = desk.json(*ARCHIVE)["endpoint"]["id"]
    assert by_id in desk.run(*command).stdout
    desk.world.registry.remove_endpoint("acme", other, revision=1)
    assert by_id not in desk.run(*command).stdout
    whole, desk.environ["EFT_TOKEN"] = desk.environ["EFT_TOKEN"], desk.token("transfers:read", "flows:read")
    result = desk.run(*command)
    assert (result.exit_code, result.stderr, by_id in result.stdout) == (0, "", True)
    desk.environ["EFT_TOKEN"] = whole
    desk.world.registry.remove_endpoint("acme", archive_id, revision=1)
    assert by_id in desk.run(*command).stdout


def test_a_table_in_a_pipe_is_not_cut(desk: Desk, server: FakeServer) -> None:
    """However long a name is, a table that goes into a pipe has each row on one line."""
    name = "x" * 200 + ".csv"
    desk.json("transfer", "submit", "--from", f"sftp-a:in/{name}", "--to", "s3-a")
    heading, row = desk.run("transfer", "list").stdout.splitlines()
    assert name in row
    assert heading.startswith("ID")


def test_hostile_names_do_not_steer_the_terminal(desk: Desk, server: FakeServer) -> None:
    """A name with a terminal's control character or with markup is shown, not obeyed."""
    desk.json("transfer", "submit", "--from", "sftp-a:in/\x9b31m[red]a", "--to", "s3-a")
    shown = desk.run("transfer", "list").stdout
    assert "\\x9b31m[red]a" in shown
    assert "\x9b" not in shown


def test_shows_the_whole_story(desk: Desk, server: FakeServer) -> None:
    """One transfer is shown with its reason and each state of its timeline, a delivered one with its receipt."""
    story = desk.run("transfer", "show", dead(desk)).stdout
    assert "dead" in story
    assert "destination_exists" in story
    assert story.index("accepted") < story.rindex("dead")
    server.put("in/b.csv", b"content")
    made = desk.json("transfer", "submit", "--from", "sftp-a:in/b.csv", "--to", "s3-a")
    settle(desk)
    shown = desk.run("transfer", "show", made["id"]).stdout
    assert "sha256:" + hashlib.sha256(b"content").hexdigest() in shown
    assert desk.json("transfer", "show", made["id"])["receipt"]["size"] == 7


def test_shows_what_comes_next(desk: Desk, server: FakeServer) -> None:
    """A transfer that is not at rest says when it is looked at next."""
    assert "next look" in desk.run("transfer", "show", desk.json(*SUBMIT)["id"]).stdout


def test_redrives_one(desk: Desk, server: FakeServer) -> None:
    """A dead transfer goes round again once its obstacle is gone, and settles."""
    transfer = dead(desk)
    del desk.world.server("s3-a").files["out/a.csv"]
    answer = desk.json("transfer", "redrive", transfer)
    assert (answer["items"][0]["id"], answer["refused"]) == (transfer, [])
    settle(desk)
    assert desk.world.ledger.load(transfer).state is State.SETTLED


def test_redrives_by_filter(desk: Desk, server: FakeServer) -> None:
    """All dead transfers go round again when somebody agrees."""
    transfers = [dead(desk, name) for name in ("a.csv", "b.csv")]
    assert desk.run("transfer", "redrive", "--state", "dead").exit_code == 2
    answer = desk.json("transfer", "redrive", "--state", "dead", "--yes")
    assert (answer["seen"], answer["redriven"], answer["refused"]) == (2, 2, [])
    assert all(desk.world.ledger.load(transfer).state is not State.DEAD for transfer in transfers)


def test_redrives_more_than_one_answer_takes(desk: Desk, server: FakeServer) -> None:
    """A filter goes on, cursor by cursor, until nothing is left, and counts all."""
    for number in range(101):
        server.put(f"in/{number}", b"x")
        desk.world.server("s3-a").put(f"out/{number}", b"in the way")
        desk.world.submit("sftp-a", "s3-a", f"in/{number}", to=f"out/{number}")
    desk.world.drain(rounds=1000)
    answer = desk.json("transfer", "redrive", "--state", "dead", "--yes")
    assert (answer["seen"], answer["redriven"]) == (101, 101)


def test_a_held_transfer_says_from_where(desk: Desk, server: FakeServer) -> None:
    """What is held is shown with its reason, its error, and the state that it was held from."""
    ledger, clock = desk.world.ledger, desk.world.clock
    made = desk.json(*SUBMIT)["id"]
    row = ledger.claim(made, worker="w", now=clock.now(), lease=timedelta(seconds=60))
    assert row is not None
    ledger.save(row.to(State.HELD, now=clock.now(), reason="source_changed", error="it differs"), was=row.state)
    shown = desk.run("transfer", "show", made).stdout
    assert "source_changed" in shown
    assert "held from" in shown
    listed = desk.run("transfer", "list", "--state", "held").stdout
    assert made in listed


def test_redrives_of_a_flow(desk: Desk, server: FakeServer) -> None:
    """A filter by flow takes its dead and its held transfers, and no others."""
    other = dead(desk)
    server.put("in/c.csv", b"c")
    desk.world.server("s3-a").put("out/c.csv", b"in the way")
    flow = desk.world.flow("sftp-a", "s3-a", selection={"glob": "c.csv"})
    desk.world.run(flow)
    assert desk.run("transfer", "redrive", "--flow", flow.id, "--yes").stdout == "1 of 1 are sent round again.\n"
    assert desk.world.ledger.load(other).state is State.DEAD


def test_a_redrive_names_what_it_means(desk: Desk) -> None:
    """A re-drive without ids and without a filter, or with both, is a usage error."""
    assert desk.run("transfer", "redrive").exit_code == 2
    assert desk.run("transfer", "redrive", "x", "--state", "dead").exit_code == 2


def test_a_refused_redrive_is_a_conflict(desk: Desk, server: FakeServer) -> None:
    """A transfer that is not at rest cannot be re-driven (exit code 5), an unknown one is not found (3)."""
    moving = desk.json(*SUBMIT)["id"]
    assert desk.run("transfer", "redrive", moving).exit_code == 5
    assert desk.run("transfer", "redrive", "0" * 32).exit_code == 3


def test_one_refusal_does_not_stop_the_others(desk: Desk, server: FakeServer) -> None:
    """Of several ids the good ones are re-driven, the refused ones listed, and the exit code says why."""
    good = dead(desk)
    result = desk.run("transfer", "redrive", "0" * 32, good, "--json")
    assert result.exit_code == 3
    answer = json.loads(result.stdout)
    assert [item["id"] for item in answer["items"]] == [good]
    assert answer["refused"][0]["reason"] == "transfer_unknown"
    assert "REFUSED" in desk.run("transfer", "redrive", "0" * 32, good).stdout


def test_cancels(desk: Desk, server: FakeServer) -> None:
    """A transfer that has not begun to commit is cancelled; a settled one cannot be (exit code 5)."""
    made = desk.json(*SUBMIT)["id"]
    assert desk.run("transfer", "cancel", made).stdout == f"{made} is cancelled: cancelled.\n"
    server.put("in/a.csv", b"x")
    other = desk.json(*SUBMIT)["id"]
    settle(desk)
    assert desk.run("transfer", "cancel", other).exit_code == 5


def test_another_tenants_transfer_is_not_found(desk: Desk, server: FakeServer) -> None:
    """What belongs to another tenant does not exist (exit code 3)."""
    made = desk.json(*SUBMIT)["id"]
    desk.environ["EFT_TOKEN"] = desk.token(tenant="other")
    assert desk.run("transfer", "show", made).exit_code == 3
