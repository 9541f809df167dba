"""Following transfers: by id, by flow, for people and for programs."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from rich.console import Console
from rich.live import Live

from eft.cli.watch import MOVING, RESTING, ROWS_KEPT, _Screen
from eft.domain import transfer
from eft.domain.parts import MIB
from eft.journey.operate import run_flow
from eft.ports import Fire
from tests.cli.conftest import Desk
from tests.fake_store import FakeServer

SUBMIT = ("transfer", "submit", "--from", "sftp-a:in/a.bin", "--to", "s3-a:out/")


def test_the_states_are_the_engines() -> None:
    """The states at rest and in motion are those of the domain, all of them."""
    assert RESTING == transfer.RESTING
    assert set(MOVING) | RESTING == set(transfer.State)


def test_programs_read_one_document_per_change(desk: Desk, server: FakeServer) -> None:
    """With --json each change is one line: the bytes of a large file grow from line to line, and the last line is settled."""
    server.put("in/a.bin", b"x" * (12 * MIB))
    lines = desk.run(*SUBMIT, "--watch", "--json").stdout.splitlines()
    changes = [json.loads(line) for line in lines]
    assert [change["state"] for change in changes][-1] == "settled"
    grown = [change["progress"]["bytes_done"] for change in changes]
    assert grown == sorted(grown)
    assert grown[-1] == 12 * MIB


def test_follows_several_until_the_last_rests(desk: Desk, server: FakeServer) -> None:
    """A watch of several ends when the last one rests, and a transfer that is not delivered makes its exit code 1."""
    server.put("in/a.bin", b"a")
    server.put("in/b.bin", b"b")
    desk.world.server("s3-a").put("out/b.bin", b"in the way")
    ids = [desk.json("transfer", "submit", "--from", f"sftp-a:in/{n}.bin", "--to", "s3-a:out/")["id"] for n in "ab"]
    result = desk.run("transfer", "watch", *ids)
    assert result.exit_code == 1
    assert "1 of 2 did not settle" in result.stderr
    assert "eft transfer redrive" in result.stderr
    assert "destination_exists" in result.stdout.splitlines()[-1]
    assert f"{ids[0]} settled in/a.bin 1 B" in result.stdout


def test_a_cancelled_one_is_no_success(desk: Desk, server: FakeServer) -> None:
    """A transfer that somebody cancels while it is watched ends the watch with exit code 1."""
    made = desk.json(*SUBMIT)["id"]

    def cancel() -> None:
        assert desk.run("transfer", "cancel", made).exit_code == 0

    desk.while_asleep = cancel
    result = desk.run("transfer", "watch", made)
    assert result.exit_code == 1
    assert "redrive" not in result.stderr


def test_gives_up_in_time(desk: Desk, server: FakeServer) -> None:
    """When the time is up the watch ends with exit code 1 and says that the transfer goes on."""
    made = desk.json(*SUBMIT)["id"]
    desk.while_asleep = lambda: None
    result = desk.run("transfer", "watch", made, "--timeout", "30s")
    assert result.exit_code == 1
    assert "1 of 1 still move after 30s" in result.stderr
    assert 29 <= sum(desk.naps) <= 32


def test_follows_what_moves_in_a_flow(desk: Desk, server: FakeServer) -> None:
    """A watch of a flow takes what moves and what comes meanwhile, and leaves out what rested before."""
    flow = desk.world.flow("sftp-a", "s3-a")
    server.put("in/rested.bin", b"0")
    desk.world.run(flow)
    desk.world.clock.advance(1)
    server.put("in/moving.bin", b"1")
    desk.run("flow", "run", flow.id)
    while not desk.json("transfer", "list", "--state", "accepted")["items"]:
        desk._sleep(0)

    def meanwhile() -> None:
        desk.while_asleep = None
        server.put("in/later.bin", b"2")
        desk.run("flow", "run", flow.id)

    desk.while_asleep = meanwhile
    result = desk.run("transfer", "watch", "--flow", flow.id)
    assert result.exit_code == 0, result.output
    assert "moving.bin" in result.stdout
    assert "rested.bin" not in result.stdout


def test_a_large_file_of_a_flow_shows_its_bytes(desk: Desk, server: FakeServer) -> None:
    """While a flow's large file is copied, programs see its bytes grow."""
    desk.world.tuning = replace(desk.world.tuning, slice=timedelta(0))
    flow = desk.world.flow("sftp-a", "s3-a")
    server.put("in/large.bin", b"x" * (25 * MIB))
    result = desk.run("flow", "run", flow.id, "--watch", "--json")
    assert result.exit_code == 0, result.output
    seen = {json.loads(line).get("progress", {}).get("bytes_done") for line in result.stdout.splitlines()}
    assert any(done and done < 25 * MIB for done in seen)


def test_a_flow_at_rest_is_no_failure(desk: Desk, server: FakeServer) -> None:
    """Watching a flow in which nothing moves ends at once with exit code 0."""
    flow = desk.world.flow("sftp-a", "s3-a")
    assert desk.run("transfer", "watch", "--flow", flow.id).stdout == "Nothing has moved.\n"
    server.put("in/a.bin", b"a")
    desk.world.run(flow)
    assert desk.run("transfer", "watch", "--flow", flow.id).stdout == "Nothing has moved.\n"


def test_watches_ids_or_a_flow(desk: Desk) -> None:
    """A watch of nothing, or of both, is a usage error."""
    assert desk.run("transfer", "watch").exit_code == 2
    assert desk.run("transfer", "watch", "x", "--flow", "f").exit_code == 2


def test_a_terminal_gets_a_screen(desk: Desk, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the watch draws over itself, and what remains is the last state and the sum."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # as rich decides whether it draws
    server.put("in/a.bin", b"a")
    shown = desk.run(*SUBMIT, "--watch").stdout
    assert "\x1b[" in shown
    assert "1 accepted" in shown
    assert shown.splitlines()[-1].endswith("1 settled, 1 B.")


def test_a_flow_of_many_is_read_page_by_page(desk: Desk, server: FakeServer) -> None:
    """A watch sees all files of a run, however many pages they fill."""
    flow = desk.world.flow("sftp-a", "s3-a")
    for number in range(205):
        server.put(f"in/{number}", b"x")
    result = desk.run("flow", "run", flow.id, "--watch")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "205 settled, 205 B."


class Interrupted(httpx.BaseTransport):
    """The API's transport, which fails `times` times when asked for a transfer."""

    def __init__(self, inner: httpx.BaseTransport, *, times: int) -> None:
        self.inner = inner
        self.times = times

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if "/transfers/" in request.url.path and self.times > 0:
            self.times -= 1
            raise httpx.ConnectError("refused")
        return self.inner.handle_request(request)


def test_rides_through_an_outage(desk: Desk, server: FakeServer) -> None:
    """A watch goes on when the API comes back within a minute."""
    server.put("in/a.bin", b"a")
    made = desk.json(*SUBMIT)["id"]
    desk.transport = Interrupted(desk.transport, times=20)
    result = desk.run("transfer", "watch", made)
    assert result.exit_code == 0, result.output
    assert desk.transport.times == 0


def test_an_api_that_stays_away_ends_the_watch(desk: Desk, server: FakeServer) -> None:
    """After a minute without the API the watch ends with exit code 6."""
    made = desk.json(*SUBMIT)["id"]
    desk.transport = Interrupted(desk.transport, times=10_000)
    assert desk.run("transfer", "watch", made).exit_code == 6
    assert sum(desk.naps) > 60


def asked(desk: Desk) -> Sequence[Fire]:
    """Returns the latest runs of the only flow."""
    [flow] = desk.world.registry.flows("acme").items
    return desk.world.ledger.fires(flow, limit=10)


def test_a_watch_ends_with_its_run(desk: Desk, server: FakeServer) -> None:
    """Once the run has ended and its transfers rest, nothing is waited for."""
    flow = desk.world.flow("sftp-a", "s3-a")
    server.put("in/a.bin", b"a")
    left: list[int] = []

    def work() -> None:
        desk.world.drain()
        left.append(len(desk.world.queue))

    desk.while_asleep = work
    assert desk.run("flow", "run", flow.id, "--watch").stdout.splitlines()[-1] == "1 settled, 1 B."
    assert left == [0]


def test_a_run_that_waits_for_a_worker_is_waited_for(desk: Desk, server: FakeServer) -> None:
    """A run that nobody carries out for a minute is no run without files."""
    flow = desk.world.flow("sftp-a", "s3-a")
    server.put("in/a.bin", b"a")
    desk.while_asleep = lambda: desk.world.drain() if sum(desk.naps) > 60 else None
    result = desk.run("flow", "run", flow.id, "--watch")
    assert result.stdout.splitlines()[-1] == "1 settled, 1 B."
    assert 60 < sum(desk.naps) < 65


def test_a_run_can_be_left_when_it_is_quiet(desk: Desk, server: FakeServer) -> None:
    """With --quiet-for the watch ends though the run goes on, and says so; with --timeout it is a failure."""
    flow = desk.world.flow("sftp-a", "s3-a")
    desk.while_asleep = lambda: None
    result = desk.run("flow", "run", flow.id, "--watch", "--quiet-for", "4s")
    assert result.exit_code == 0
    assert result.stdout == f"Nothing has moved.\nThe run may go on, and find more: eft flow next {flow.id}\n"
    assert sum(desk.naps) == 4
    late = desk.run("flow", "run", flow.id, "--watch", "--timeout", "30s")
    assert late.exit_code == 1
    assert "No end after 30s; it goes on without you" in late.stderr


def test_what_comes_after_a_run_is_not_waited_for(desk: Desk, server: FakeServer) -> None:
    """A watch of one run does not go on for the files of the next one."""
    flow = desk.world.flow("sftp-a", "s3-a")
    server.put("in/a.bin", b"a")

    def work() -> None:
        if len(asked(desk)) == 1 and all(fire.outcome for fire in asked(desk)):
            server.put("in/next.bin", b"b")
            [message] = run_flow(desk.world.engine, flow)
            desk.world.deliver_message(message)
        if desk.world.queue:
            desk.world.queue += desk.world.deliver_message(desk.world.queue.popleft())

    desk.while_asleep = work
    result = desk.run("flow", "run", flow.id, "--watch", "--timeout", "5m")
    assert len(asked(desk)) == 2
    assert result.stdout.splitlines()[-1] == "1 settled, 1 B."


class Lagging(httpx.BaseTransport):
    """The API's transport, whose lists of transfers are empty for their first `times`."""

    def __init__(self, inner: httpx.BaseTransport, *, times: int) -> None:
        self.inner = inner
        self.times = times

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/transfers") and self.times > 0:
            self.times -= 1
            return httpx.Response(200, json={"items": [], "next_cursor": None, "missing": None})
        return self.inner.handle_request(request)


@pytest.mark.parametrize(("times", "code", "told"), [(20, 0, "1 settled, 1 B."), (1000, 1, "Nothing has moved.")])
def test_what_a_run_has_made_is_waited_for(desk: Desk, server: FakeServer, times: int, code: int, told: str) -> None:
    """A list that does not show yet what the run has made ends no watch, for a minute; after that it is no success."""
    flow = desk.world.flow("sftp-a", "s3-a")
    server.put("in/a.bin", b"a")
    desk.transport = Lagging(desk.transport, times=times)
    result = desk.run("flow", "run", flow.id, "--watch")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (code, told)
    assert ("0 of 1 transfers that the run has made are listed" in result.stderr) is (code == 1)
    assert sum(desk.naps) < 70


def test_a_name_that_a_run_refuses_is_waited_for(desk: Desk, server: FakeServer) -> None:
    """It is no success, also where the list shows it late; where it was refused by an earlier run, some seconds are all that is waited."""
    flow = desk.world.flow("sftp-a", "s3-a", name_template="{name}" * 10)
    server.put("in/" + "a" * 120, b"a")
    desk.transport = Lagging(desk.transport, times=4)
    first = desk.run("flow", "run", flow.id, "--watch")
    assert (first.exit_code, "1 of 1 did not settle" in first.stderr) == (1, True)
    desk.naps.clear()
    again = desk.run("flow", "run", flow.id, "--watch")
    assert (again.exit_code, "1 refused" in again.stdout) == (0, True)
    assert sum(desk.naps) < 10


def row(number: int, state: str, *, size: int | None = 100, done: int = 0, into: str | None = None) -> dict[str, Any]:
    """Returns a transfer as the API shows it, as far as the screen looks."""
    return {
        "id": f"{number:032x}",
        "state": state,
        "size": size,
        "source": {"path": f"file-{number}"},
        "progress": {"bytes_done": done, "into": into},
    }


@pytest.fixture
def console() -> Console:
    """A small terminal in memory."""
    return Console(file=io.StringIO(), force_terminal=True, width=100, height=10, color_system=None)


def drawn(console: Console, screen: _Screen, seen: list[dict[str, Any]]) -> list[str]:
    """Returns the lines of a screen."""
    paper = Console(file=io.StringIO(), width=console.width, color_system=None)
    with paper.capture() as capture:
        paper.print(screen.render(seen))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_the_screen_shows_speed_and_share(console: Console) -> None:
    """Between two looks the screen knows each file's speed and share, and the sum of all below."""
    with Live(console=console, auto_refresh=False) as live:
        screen = _Screen(live)
        screen.show([row(1, "delivering", size=8 * MIB)], now=0.0)
        seen = [row(1, "delivering", size=8 * MIB, done=2 * MIB, into="staging")]
        screen.show(seen, now=2.0)
        lines = drawn(console, screen, seen)
    assert lines[1].split() == [
        "000000000000",
        "delivering",
        "file-1",
        "2.0",
        "MiB",
        "of",
        "8.0",
        "MiB",
        "25",
        "%",
        "staged",
        "1.0",
        "MiB/s",
    ]
    assert lines[-1] == "1 delivering · 2.0 MiB · 1.0 MiB/s"


def test_a_new_attempt_is_no_negative_speed(console: Console) -> None:
    """When an attempt is abandoned and the bytes begin anew, the speed does not go below nothing."""
    with Live(console=console, auto_refresh=False) as live:
        screen = _Screen(live)
        for at, done in enumerate((50, 0)):
            screen.show([row(1, "delivering", done=done)], now=float(at))
        assert drawn(console, screen, [row(1, "delivering")])[-1] == "1 delivering · 0 B · 0 B/s"


def test_the_screen_shows_what_moves_first(console: Console) -> None:
    """Of more transfers than fit, those that move are shown, then those that failed."""
    seen = [row(n, "settled") for n in range(20)] + [row(20, "held"), row(21, "accepted", size=None)]
    with Live(console=console, auto_refresh=False) as live:
        screen = _Screen(live)
        screen.show(seen, now=0.0)
        lines = drawn(console, screen, seen)
    assert len(lines) == 1 + (10 - ROWS_KEPT) + 1
    assert ["file-21" in lines[1], "file-20" in lines[2], "file-19" in lines[3]] == [True, True, True]
    assert lines[-1].startswith("1 accepted, 1 held, 20 settled · ")
