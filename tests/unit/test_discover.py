"""What becomes of a fire: sources that cannot be listed, listings longer than a slice, names that cannot be moved."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from beat_schedules.fires import due_fires
from eft.domain.fingerprint import Fingerprint, RefusedName
from eft.domain.flow import Arrival, Flow, Interval, Misfire
from eft.domain.transfer import State, Step
from eft.errors import NotFound, Permanent
from eft.journey.discover import after_failed_discover, discover
from eft.journey.looking import LONGEST_LISTING
from eft.journey.messages import Message
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


def test_a_tenants_flows_list_a_few_at_a_time(world: World) -> None:
    """Half of the admission window: whoever finds it full asks again in a moment, and lists once there is room."""
    flow = world.flow("sftp-a", "s3-b")
    (message,) = run_flow(world.engine, flow)
    held = [world.slice() for _ in range(world.tuning.tenant_window // 2)]
    for piece in held:
        assert world.limits.acquire(f"discover:{TENANT}", limit=99, holder=piece.worker, lease=world.tuning.admission_lease)
    (again,) = world.deliver_message(message)
    assert (again.ids, again.delay is not None, world.ledger.rows()) == (message.ids, True, [])
    world.limits.release(f"discover:{TENANT}", holder=held[0].worker)
    world.deliver_message(again)
    assert world.ledger.rows() != []
    assert len(world.limits.holders(f"discover:{TENANT}")) == len(held) - 1


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


# -- a source that is down ---------------------------------------------------------------------------------------------


def _outage(world: World, trigger: Interval | Arrival, *, fires: int = 60) -> Flow:
    """A flow whose source was down for an hour, with a fire each minute that is tried again each minute; returns it."""
    flow = world.flow("sftp-a", "s3-b").model_copy(update={"trigger": trigger, "revision": 2})
    world.registry.change_flow(flow)
    server = world.stores.servers.pop("sftp-a")
    waiting: list[Message] = []
    for _ in range(fires):
        world.clock.advance(60)
        waiting += due_fires(world.engine, range(64))
        waiting = [again for message in waiting for again in world.deliver_message(message)]
    world.stores.servers["sftp-a"] = server
    world.queue += waiting
    return flow


@pytest.mark.parametrize("trigger", [Interval(every=timedelta(minutes=1)), Arrival(listed_every=timedelta(minutes=1))])
def test_one_listing_follows_an_outage(world: World, trigger: Interval | Arrival) -> None:
    """All fires but the latest end as superseded while the source is down; that one takes the file."""
    flow = _outage(world, trigger)
    world.clock.advance(timedelta(minutes=6))
    world.drain()
    assert world.server("sftp-a").calls["list"] == 1
    latest, *before = world.ledger.fires(flow, limit=99)
    assert latest.outcome == {"listed": 1, "selected": 1, "created": 1, "refused": 0}
    assert [fire.outcome for fire in before] == [{"superseded": 1}] * 59
    assert [row.state for row in world.ledger.rows()] == [State.SETTLED]


def test_each_fire_of_an_outage_is_made_up_for_where_all_are_wanted(world: World) -> None:
    """`misfire` all: each lists the source once it is there."""
    flow = _outage(world, Interval(every=timedelta(minutes=1), misfire=Misfire.ALL), fires=8)
    world.clock.advance(timedelta(minutes=6))
    world.drain()
    assert world.server("sftp-a").calls["list"] == 8
    assert all(fire.outcome and fire.outcome["listed"] == 1 for fire in world.ledger.fires(flow, limit=99))


def test_a_run_that_was_asked_for_is_not_superseded(world: World) -> None:
    """It goes on trying, whatever the schedule fires meanwhile."""
    flow = _outage(world, Interval(every=timedelta(minutes=1)), fires=1)
    world.queue.clear()
    world.clock.advance(timedelta(minutes=6))
    server = world.stores.servers.pop("sftp-a")
    (asked,) = run_flow(world.engine, flow)
    (again,) = world.deliver_message(asked)
    world.clock.advance(60)
    assert len(list(due_fires(world.engine, range(64)))) == 1
    world.stores.servers["sftp-a"] = server
    world.clock.advance(timedelta(minutes=6))
    world.deliver_message(again)
    shown = {fire.name: fire.outcome for fire in world.ledger.fires(flow, limit=9)}
    assert shown[asked.ids[0].rpartition("/")[2]] == {"listed": 1, "selected": 1, "created": 1, "refused": 0}


def test_a_run_that_has_taken_files_is_not_superseded(world: World) -> None:
    """Its counts are told by its own end."""
    trigger = Interval(every=timedelta(minutes=1))
    flow = world.flow("sftp-a", "s3-b", selection={"glob": "*.csv"}).model_copy(update={"trigger": trigger, "revision": 2})
    world.registry.change_flow(flow)
    for n in range(150):
        world.server("sftp-a").put(f"in/{n:03d}.csv", b"x")
    world.clock.advance(60)
    (fire,) = due_fires(world.engine, range(64))
    discover(world.engine, fire.ids[0], world.slice(leaving=True))
    world.clock.advance(60)
    assert len(list(due_fires(world.engine, range(64)))) == 1
    discover(world.engine, fire.ids[0], world.slice())
    *_, first = world.ledger.fires(flow, limit=9)
    assert first.outcome is not None
    assert first.outcome["created"] == 150
