"""Beat: upkeep by Celery's entries, flows by their own schedules, and the sweep; in one process, on a broker in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from beat_schedules import scheduler
from beat_schedules.fires import due_fires
from beat_schedules.scheduler import FlowScheduler
from beat_schedules.upkeep import entries
from eft.domain.flow import Flow, Interval
from eft.domain.names import partition_of
from eft.domain.transfer import State, Step
from eft.errors import LostOwnership, Transient
from eft.regions.chores import LEASE, Chores
from eft.settings import Settings
from tasks import base
from tasks.app import app
from tests.fake_regions import WEST, Pair
from tests.post import PostOffice
from tests.world import TENANT, World

LOOK = 5.0
SWEEP = 30.0


@pytest.fixture
def world() -> World:
    """An engine over fakes."""
    return World()


@pytest.fixture
def post(world: World, monkeypatch: pytest.MonkeyPatch) -> PostOffice:
    """The world's queues; beat has its engine."""
    office = PostOffice(monkeypatch, world.engine)
    monkeypatch.setattr(scheduler, "engine", lambda: world.engine)
    return office


def every_minute(world: World) -> Flow:
    """Returns a flow that fires every minute."""
    flow = world.flow("sftp-a", "s3-b").model_copy(update={"trigger": Interval(every=timedelta(minutes=1)), "revision": 2})
    world.registry.change_flow(flow)
    return flow


def fires(post: PostOffice) -> list[str]:
    """Takes the fires whose discover was asked for."""
    return [one for letter in post.letters() if letter.task == "eft.discover" for one in letter.body["ids"]]


def test_a_tick_fires_flows_and_sweeps_rows(world: World, post: PostOffice) -> None:
    """What is due is sent at once; a row that stood still is sent again."""
    flow = every_minute(world)
    transfer = world.submit("sftp-a", "s3-b")
    world.clock.advance(world.tuning.stall + timedelta(seconds=1))
    pause = FlowScheduler(app=post.app).tick()
    assert 0 < pause <= LOOK
    letters = post.letters()
    assert [letter.body["ids"] for letter in letters if letter.task == "eft.deliver"] == [[transfer.id]]
    assert [letter.body["ids"][0].rpartition("/")[0] for letter in letters if letter.task == "eft.discover"] == [f"{TENANT}/{flow.id}"]


def test_flows_are_looked_at_every_few_seconds_and_rows_less_often(world: World, post: PostOffice) -> None:
    """Between two looks a tick costs no request."""
    every_minute(world)
    beat = FlowScheduler(app=post.app)
    beat.tick()
    world.registry.calls.clear()
    world.ledger.calls.clear()
    world.clock.advance(LOOK - 0.1)
    beat.tick()
    assert world.registry.calls.total() + world.ledger.calls.total() == 0
    world.clock.advance(0.1)
    beat.tick()
    assert (world.registry.calls["scheduled_flows"], world.ledger.calls["due"]) == (1, 0)
    world.clock.advance(SWEEP - LOOK)
    beat.tick()
    assert (world.registry.calls["scheduled_flows"], world.ledger.calls["due"]) == (3, 64)


def test_no_error_ends_beat(world: World, post: PostOffice, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the next look does the work."""
    every_minute(world)
    world.clock.advance(61)
    beat = FlowScheduler(app=post.app)
    world.registry.trip("scheduled_flows", Transient("throttled", reason="throttled"))
    assert beat.tick() == LOOK
    assert "it tries again" in caplog.text
    assert fires(post) == []
    world.clock.advance(LOOK)
    beat.tick()
    assert len(fires(post)) == 1


def test_upkeep_is_asked_for_when_it_is_due(world: World, post: PostOffice) -> None:
    """By registered tasks, on the queue of upkeep; a beat that starts does not ask at once, and keeps nothing on disk."""
    beat = FlowScheduler(app=post.app)
    assert set(beat.schedule) == {"reconcile", "expire_staging", "abort_stale_uploads", "give_back"}
    beat.tick()
    assert post.letters() == []
    for entry in beat.schedule.values():
        entry.last_run_at = datetime.now(UTC) - timedelta(hours=2)
    beat.populate_heap()
    for _ in beat.schedule:
        beat.tick()
    assert {(letter.task, letter.queue) for letter in post.letters()} == {
        (f"eft.{name}", "upkeep") for name in ("reconcile", "expire_staging", "abort_stale_uploads", "give_back")
    }
    assert "registry" in beat.info


def test_entries_name_registered_tasks_and_only_two_regions_adopt() -> None:
    """One region has nobody to adopt from."""
    alone, paired = entries(Settings()), entries(Settings(peer_region="us-gov-east-1", sweep_every=timedelta(seconds=7)))
    app.loader.import_default_modules()
    assert {entry["task"] for entry in paired.values()} <= set(app.tasks)
    assert set(paired) - set(alone) == {"adopt"}
    assert paired["adopt"]["schedule"] == timedelta(seconds=7)


def test_beats_of_one_region_share_its_chores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each partition's flows are fired by the beat that has its chores; the other takes over when that one is gone."""
    pair = Pair()
    post = PostOffice(monkeypatch, pair.west.engine)
    monkeypatch.setattr(scheduler, "engine", lambda: pair.west.engine)
    first, second = FlowScheduler(app=post.app), FlowScheduler(app=post.app)
    first.tick()
    second.tick()
    leases = pair.tables[WEST].leases()
    assert len(leases) == 32
    assert len({lease.owner for lease in leases.values()}) == 1
    pair.west.clock.advance(LEASE * 1.1)
    second.tick()
    assert {lease.lease_epoch for lease in pair.tables[WEST].leases().values()} == {2}


# -- fires -------------------------------------------------------------------------------------------------------------


def test_a_flow_is_fired_where_its_partition_is_at_home_and_begins() -> None:
    """A draining partition's flows wait; elsewhere they are the other region's."""
    world = World()
    flow = every_minute(world)
    partition = partition_of(TENANT, flow.destination)
    world.clock.advance(61)
    assert list(due_fires(world.engine, [n for n in range(64) if n != partition])) == []
    kept = world.ownership.standing

    def draining(number: int, *, begin: bool = False) -> object:
        if begin:
            raise LostOwnership(f"partition {number} drains")
        return kept(number)

    world.ownership.standing = draining  # type: ignore[assignment, method-assign]
    assert list(due_fires(world.engine, [partition])) == []
    assert world.ledger.last_fire(flow) is None
    world.ownership.standing = kept  # type: ignore[method-assign]
    assert len(list(due_fires(world.engine, [partition]))) == 1


def test_a_fire_lost_on_its_way_is_swept(world: World, post: PostOffice, monkeypatch: pytest.MonkeyPatch) -> None:
    """A beat that dies between the claim of a fire and its message delays the fire, no more."""
    flow = every_minute(world)
    world.server("sftp-a").put("in/a.bin", b"x")
    world.clock.advance(61)
    monkeypatch.setattr(scheduler, "forward", lambda messages: list(messages).clear())
    FlowScheduler(app=post.app).tick()
    monkeypatch.setattr(scheduler, "forward", base.forward)
    assert world.ledger.last_fire(flow) is not None
    assert fires(post) == []
    world.registry.change_flow(flow.model_copy(update={"enabled": False, "revision": 3}))
    world.clock.advance(world.tuning.stall * 6)
    FlowScheduler(app=post.app).tick()
    (fire,) = fires(post)
    base.carry(Step.DISCOVER, [fire], None)
    (letter,) = post.letters()
    base.carry(Step.DELIVER, letter.body["ids"], None)
    assert world.ledger.load(letter.body["ids"][0]).state is State.SETTLED


# -- chores ------------------------------------------------------------------------------------------------------------


def test_a_lease_that_somebody_took_is_given_up_and_waited_for() -> None:
    """A holder that slept past its lease learns it at its next renewal, and takes over only once the new one stood still."""
    pair = Pair()
    first, second = Chores(pair.west.engine, "a"), Chores(pair.west.engine, "b")
    mine = set(first.mine())
    assert list(second.mine()) == []
    pair.west.clock.advance(LEASE * 1.1)
    assert set(second.mine()) == mine
    assert list(first.mine()) == []
    assert list(first.mine()) == []
    pair.west.clock.advance(LEASE * 1.1)
    assert set(first.mine()) == mine


def test_of_two_waiters_one_takes_over() -> None:
    """The other sees a new lease, and begins to wait anew."""
    pair = Pair()
    Chores(pair.west.engine, "gone").mine()
    waiters = [Chores(pair.west.engine, name) for name in ("b", "c")]
    for waiter in waiters:
        assert list(waiter.mine()) == []
    pair.west.clock.advance(LEASE * 1.1)
    stale = pair.tables[WEST].leases()
    assert len(waiters[0].mine()) == 32
    pair.tables[WEST].leases = lambda: stale  # type: ignore[method-assign]
    assert list(waiters[1].mine()) == []
