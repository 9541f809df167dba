"""What becomes of a fire: sources that cannot be listed, listings longer than a slice, names that cannot be moved."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from eft.domain.fingerprint import Fingerprint, RefusedName
from eft.domain.transfer import State, Step
from eft.errors import NotFound, Permanent
from eft.journey.discover import after_failed_discover, discover
from eft.journey.looking import LONGEST_LISTING
from eft.journey.operate import run_flow
from eft.journey.sweep import sweep
from tests.fakes import START
from tests.world import SMALL, TENANT, World


@pytest.fixture
def world() -> World:
    """An engine over fakes, with a file to find."""
    made = World()
    made.server("sftp-a").put("in/a.bin", b"x")
    return made


def test_a_source_whose_breaker_is_open_is_not_listed(world: World) -> None:
    """The fire waits until the breaker lets one through."""
    flow = world.flow("sftp-a", "s3-b")
    for _ in range(5):
        world.limits.failed("sftp-a", reason="unreachable")
    until = world.limits.shut_until("sftp-a")
    assert until is not None
    world.queue += run_flow(world.engine, flow)
    (again,) = world.deliver_message(world.queue.popleft())
    assert world.server("sftp-a").calls["list"] == 0
    assert again.step is Step.DISCOVER
    assert again.delay >= until - world.clock.now()


@pytest.mark.parametrize("selection", [{"glob": "*.csv"}, {"glob": "*.csv", "stability": {"done_marker": "{name}.done"}}])
def test_a_listing_that_never_ends_is_left(world: World, selection: dict[str, object]) -> None:
    """A server that goes on showing names, however slowly, keeps nobody for ever, and its endpoint's breaker counts it."""

    class Endless(list[RefusedName]):
        def __iter__(self) -> Iterator[RefusedName]:
            for number in range(1000):
                world.clock.advance(timedelta(seconds=5))
                yield RefusedName(f"{number}.bin", "is odd", Fingerprint(size=1))

    world.server("sftp-a").refused = Endless()
    flow = world.flow("sftp-a", "s3-b", selection=selection)
    began = world.clock.now()
    for _ in range(5):
        (fire,) = run_flow(world.engine, flow)
        (again,) = world.deliver_message(fire)
        assert again.step is Step.DISCOVER
    assert world.clock.now() - began < 6 * LONGEST_LISTING
    assert world.limits.shut_until("sftp-a") is not None


def test_a_long_listing_goes_on_in_the_next_slice(world: World) -> None:
    """After each hundred files a slice may end: what was found is sent, the rest is found by the fire's next message."""
    for n in range(250):
        world.server("sftp-a").put(f"in/{n:03d}.csv", b"x")
    flow = world.flow("sftp-a", "s3-b", selection={"glob": "*.csv"})
    (fire,) = run_flow(world.engine, flow)
    counts = []
    for leaving in (True, True, True, False):
        world.queue += discover(world.engine, fire.ids[0], world.slice(leaving=leaving))
        counts.append(len(world.ledger.rows()))
    assert counts[-1] == 250
    (shown,) = world.ledger.fires(flow, limit=1)
    assert shown.outcome is not None
    assert shown.outcome["created"] == 250
    assert counts[0] == 100
    messages = [one for one in world.queue if one.step is Step.DISCOVER]
    assert {one.ids for one in messages} == {fire.ids}
    world.queue = type(world.queue)(one for one in world.queue if one.step is not Step.DISCOVER)
    world.drain(rounds=2000)
    assert len(world.server("s3-b").finals()) == 250


def test_a_hostile_name_that_the_flow_does_not_take_makes_no_row(world: World) -> None:
    """Only what the selection names is shown as refused."""
    odd = Fingerprint(size=1, modified=START)
    world.server("sftp-a").refused += [
        RefusedName(shown="in/\\x00.csv", why="contains a control character", fingerprint=odd),
        RefusedName(shown="in/\\x00.txt", why="contains a control character", fingerprint=odd),
    ]
    world.run(world.flow("sftp-a", "s3-b", selection={"glob": "*.csv"}))
    (row,) = world.ledger.rows()
    assert (row.state, row.reason, row.source.path) == (State.DEAD, "name_invalid", "in/\\x00.csv")


def test_a_template_that_makes_no_name_of_a_file_shows_it_dead(world: World) -> None:
    """One file's name too long at the destination leaves the others alone."""
    world.server("sftp-a").put("in/" + "n" * 250, b"y")
    flow = world.flow("sftp-a", "s3-b", selection={"regex": "^(a.bin|n+)$"}, name_template="{name}.received")
    world.run(flow)
    states = {row.source.path[:5]: (row.state, row.reason) for row in world.ledger.rows()}
    assert states == {"in/a.": (State.SETTLED, None), "in/nn": (State.DEAD, "name_invalid")}


def test_a_fire_that_can_never_be_carried_out_ends_and_says_so(world: World) -> None:
    """An unpinned endpoint: the flow's last fire is told as failed, and no message comes again."""
    flow = world.flow("sftp-a", "s3-b")
    (fire,) = run_flow(world.engine, flow)
    error = Permanent("no pinned host key", reason="host_key_unpinned", endpoint="sftp-a")
    assert after_failed_discover(world.engine, fire.ids[0], error) == []
    world.clock.advance(SMALL.stall * 10)
    assert list(sweep(world.engine)) == []
    assert world.limits.calls["failed"] == 1


def test_a_fire_of_a_flow_that_is_gone_ends_without_a_word(world: World) -> None:
    """There is nothing to note it on."""
    assert after_failed_discover(world.engine, f"{TENANT}/gone/now", NotFound("no flow", reason="flow_unknown")) == []
