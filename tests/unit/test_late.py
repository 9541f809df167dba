"""Files that are expected by a time: warned of before, raised after, once each; nothing where they came."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from eft.domain.announcement import FlowTold
from eft.domain.flow import Expected, Flow, Interval
from eft.errors import Transient
from eft.journey.late import Judged, late
from eft.journey.operate import run_flow
from tests.fake_announcing import Told
from tests.fakes import START
from tests.world import World

ALL = range(64)
HOUR = timedelta(hours=1)
DEADLINE = START + 3 * HOUR


@pytest.fixture
def world() -> World:
    """An engine over fakes, at nine o'clock on a Monday, with an outbox."""
    made = World()
    made.engine = replace(made.engine, announcing=Told(made.ledger).ports())
    made.server("sftp-a").directories.add("in")
    return made


def expecting(world: World, **fields: object) -> Flow:
    """Returns a flow that expects files by noon, within two hours, and warns half an hour before."""
    expected = Expected.model_validate({"by": "0 12 * * *", "within": "PT2H", "warn_before": "PT30M", **fields})
    flow = world.flow("sftp-a", "s3-b").model_copy(update={"expected": expected, "revision": 2})
    world.registry.change_flow(flow)
    return flow


def raised(world: World, *, until: datetime, judged: Judged | None = None) -> list[tuple[str, datetime]]:
    """Looks every minute until a time; returns what was raised, and when."""
    found: list[tuple[str, datetime]] = []
    judged = set() if judged is None else judged
    while world.clock.now() < until:
        world.clock.advance(60)
        for one in late(world.engine, ALL, judged=judged):
            assert isinstance(one.data, FlowTold)
            found.append((one.data.level, world.clock.now()))
    return found


def test_nothing_came(world: World) -> None:
    """A warning half an hour before, the alarm right after, each once; on record with the flow, and in the outbox."""
    flow = expecting(world)
    minute = timedelta(minutes=1)
    assert raised(world, until=DEADLINE + 5 * HOUR) == [("warning", DEADLINE - 29 * minute), ("late", DEADLINE + minute)]
    missing = {"expected": 1, "found": 0}
    noted = {fire.name: fire.outcome for fire in world.ledger.fires(flow, limit=9)}
    assert noted == {"late-20250106T120000": missing, "warn-20250106T120000": missing}
    assert world.engine.announcing is not None
    outbox = world.engine.announcing.outbox
    told = [one for shard in range(outbox.shards) for untold in outbox.untold(shard, limit=9) for one in untold.announcements]
    assert sorted(one.id for one in told) == [f"{flow.id}-late-1736164800000", f"{flow.id}-warning-1736164800000"]
    assert list(world.ledger.due(0, before=DEADLINE + 99 * HOUR)) == []


@pytest.mark.parametrize(
    ("came", "files", "levels"),
    [
        ([2 * HOUR], 1, []),
        ([2 * HOUR], 2, ["warning", "late"]),
        ([2 * HOUR, 2.6 * HOUR], 2, ["warning"]),
        # Too early to count, and too late.
        ([0.5 * HOUR], 1, ["warning", "late"]),
        ([3.1 * HOUR], 1, ["warning", "late"]),
    ],
)
def test_what_came_in_time_counts(world: World, came: list[timedelta], files: int, levels: list[str]) -> None:
    """So many files within the time before the deadline."""
    flow = expecting(world, files=files)
    found: list[str] = []
    judged: Judged = set()
    for n, after in enumerate(came):
        found += [level for level, _ in raised(world, until=START + after, judged=judged)]
        world.server("sftp-a").put(f"in/{n}.csv", b"1")
        world.queue += run_flow(world.engine, flow)
        world.drain()
    found += [level for level, _ in raised(world, until=DEADLINE + HOUR, judged=judged)]
    assert found == levels


def test_any_number_of_beats_raise_once(world: World) -> None:
    """Each with a memory of its own, or none; what others have been told of does not come into the outbox again."""
    expecting(world)
    world.clock.advance(DEADLINE + HOUR - world.clock.now())
    assert [len(late(world.engine, ALL, judged=set())) for _ in range(4)] == [1, 0, 0, 0]
    assert world.engine.announcing is not None
    outbox = world.engine.announcing.outbox
    (untold,) = [one for shard in range(outbox.shards) for one in outbox.untold(shard, limit=9)]
    outbox.told(untold)
    assert late(world.engine, ALL, judged=set()) == []
    assert [one for shard in range(outbox.shards) for one in outbox.untold(shard, limit=9)] == []


def test_a_beat_that_was_killed_is_made_up_for(world: World) -> None:
    """Between the outbox and the record: it is told again, under the same id. A day later nobody asks any more."""
    expecting(world)
    world.clock.advance(DEADLINE + HOUR - world.clock.now())
    world.ledger.trip("fire", Transient("gone", reason="throttled"))
    judged: Judged = set()
    assert late(world.engine, ALL, judged=judged) == []
    assert [one.data.level for one in late(world.engine, ALL, judged=judged) if isinstance(one.data, FlowTold)] == ["late"]


def test_what_is_judged_is_not_asked_for_again(world: World) -> None:
    """Between two deadlines a look costs no request to the ledger."""
    flow = expecting(world, warn_before=None)
    world.registry.change_flow(flow.model_copy(update={"trigger": Interval(every=HOUR), "revision": 3}))
    judged: Judged = set()
    raised(world, until=DEADLINE + HOUR, judged=judged)
    world.ledger.calls.clear()
    assert raised(world, until=DEADLINE + 5 * HOUR, judged=judged) == []
    assert world.ledger.calls.total() == 0
    raised(world, until=DEADLINE + timedelta(days=3), judged=judged)
    assert len(judged) <= 3


def test_a_paused_flow_and_another_partitions_are_not_late(world: World) -> None:
    """A flow that was resumed after its deadline neither."""
    flow = expecting(world)
    world.registry.change_flow(flow.model_copy(update={"enabled": False, "revision": 3}))
    assert raised(world, until=DEADLINE + HOUR) == []
    world.registry.change_flow(flow.model_copy(update={"scheduled_since": world.clock.now(), "revision": 4}))
    assert raised(world, until=DEADLINE + 2 * HOUR) == []
    world.registry.change_flow(flow.model_copy(update={"revision": 5}))
    assert late(world.engine, [], judged=set()) == []


def test_many_transfers_are_counted_page_by_page(world: World) -> None:
    """Newer ones are passed over, and names that can never be moved are no files that came."""
    flow = expecting(world, files=120)
    world.clock.advance(2 * HOUR)
    for n in range(119):
        world.server("sftp-a").put(f"in/{n}.csv", b"1")
    world.server("sftp-a").put("in/" + "n" * 255, b"1")
    world.registry.change_flow(
        flow.model_copy(update={"policy": flow.policy.model_copy(update={"name_template": "{name}n"}), "revision": 3})
    )
    (fire,) = run_flow(world.engine, flow)
    world.deliver_message(fire)
    assert len(world.ledger.rows()) == 120
    assert [level for level, _ in raised(world, until=DEADLINE + HOUR)] == ["warning", "late"]


def test_a_look_at_deadlines_of_each_minute_is_bounded(world: World) -> None:
    """A warning of a week before spans ten thousand deadlines: the latest hundred of each level are judged, and then each in its turn."""
    expecting(world, by="* * * * *", within="P8D", warn_before="P7D")
    world.clock.advance(timedelta(days=2))
    world.ledger.calls.clear()
    judged: Judged = set()
    first = [one.data.level for one in late(world.engine, ALL, judged=judged) if isinstance(one.data, FlowTold)]
    assert (first.count("late"), first.count("warning"), world.ledger.calls["page"]) == (100, 100, 200)
    assert [level for level, _ in raised(world, until=world.clock.now() + timedelta(minutes=1), judged=judged)] == ["late", "warning"]
