"""Fires and memories of flows: one contract, on the fake and on DynamoDB's stand-ins."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

from eft.adapters.ledger_rows import fire_key
from eft.domain.memory import Look, Memory
from eft.errors import Permanent
from eft.ports import Due, Fire, Run
from tests.contract.rows import LEASE, DynamoRows, Rows

SECOND = timedelta(seconds=1)


def test_each_run_of_a_fire_is_counted_until_it_ends(rows: Rows) -> None:
    """A run moves the time at which the fire is due again; one that has ended begins no more."""
    flow, now = rows.flow(), rows.clock.now()
    rows.ledger.fire(flow, at=now, name="now-1", partition=rows.partition)
    assert [rows.ledger.begin_fire(flow, name="now-1", until=now + n * LEASE) for n in (1, 2)] == [Run(1), Run(2)]
    assert rows.ledger.due(rows.partition, before=now + LEASE) == []
    assert rows.ledger.due(rows.partition, before=now + 2 * LEASE) == [Due("fire", f"{rows.tenant}/{flow.id}/now-1", now + 2 * LEASE)]
    rows.ledger.fire_done(flow, name="now-1", outcome={})
    assert rows.ledger.begin_fire(flow, name="now-1", until=now) is None
    assert rows.ledger.due(rows.partition, before=now + 3 * LEASE) == []


def test_a_fire_is_kept_for_400_days(moto_rows: DynamoRows) -> None:
    """From when it was due first; its runs and its end change nothing in that."""
    flow, now = moto_rows.flow(), moto_rows.clock.now()
    moto_rows.ledger.fire(flow, at=now, name="now-1", partition=moto_rows.partition)
    moto_rows.ledger.begin_fire(flow, name="now-1", until=now + LEASE)
    moto_rows.ledger.fire_done(flow, name="now-1", outcome={})
    item = moto_rows.item(*fire_key(flow.tenant, flow.id, "now-1"))
    assert item["expires"] == {"N": str(int((now + timedelta(days=400)).timestamp()))}


def test_a_fire_that_failed_says_why(rows: Rows) -> None:
    """By its reason and in words; what it noted first stays."""
    flow, now = rows.flow(), rows.clock.now()
    rows.ledger.fire(flow, at=now, name="now-1", partition=rows.partition)
    rows.ledger.fire_done(flow, name="now-1", outcome={"failed": 1}, why=Permanent("no such directory", reason="source_missing"))
    rows.ledger.fire_done(flow, name="now-1", outcome={"failed": 1}, why=Permanent("denied", reason="access_denied"))
    assert rows.ledger.fires(flow, limit=1) == [Fire("now-1", {"failed": 1}, "source_missing", "no such directory")]


def test_a_fire_without_its_flow_is_ended(rows: Rows) -> None:
    """By its id; one that is not there, or has ended, stays as it is."""
    flow, now = rows.flow(), rows.clock.now()
    for name in ("now-1", "2025-01-06T09:00:00Z", "now-2"):
        rows.ledger.fire(flow, at=now, name=name, partition=rows.partition)
    rows.ledger.fire_done(flow, name="now-2", outcome={"listed": 1})
    for name in ("now-1", "2025-01-06T09:00:00Z", "now-2", "now-3"):
        rows.ledger.end_fire(f"{flow.tenant}/{flow.id}/{name}")
    assert rows.ledger.due(rows.partition, before=now + LEASE) == []
    ended = {fire.name: fire.outcome for fire in rows.ledger.fires(flow, limit=9)}
    assert ended == {"now-1": {"failed": 1}, "2025-01-06T09:00:00Z": {"failed": 1}, "now-2": {"listed": 1}}


def test_a_fire_of_another_region_begins_without_a_row(rows: Rows) -> None:
    """It is carried out, and leaves nothing that a sweep would find."""
    assert rows.ledger.begin_fire(rows.flow(), name="now-1", until=rows.clock.now()) == Run()
    assert rows.ledger.due(rows.partition, before=rows.clock.now() + LEASE) == []


def test_the_latest_fires_are_shown(rows: Rows) -> None:
    """Of every kind, newest first, with what came of those that have ended."""
    flow, now = rows.flow(), rows.clock.now()
    names = ["2025-01-06T09:00:00Z", "now-20250106T100000-ff", "late-20250106T110000", "past-20250106T120000-x", "2025-01-06T13:00:00Z"]
    for name in names:
        rows.ledger.fire(flow, at=now, name=name, partition=rows.partition)
    rows.ledger.fire(rows.flow("other"), at=now, name=names[0], partition=rows.partition)
    rows.ledger.fire_done(flow, name=names[0], outcome={"listed": 3})
    assert rows.ledger.fires(flow, limit=9) == [*(Fire(name, None) for name in reversed(names[1:])), Fire(names[0], {"listed": 3})]
    assert [fire.name for fire in rows.ledger.fires(flow, limit=2)] == names[:2:-1]


def test_a_memory_comes_back(rows: Rows) -> None:
    """However large: it is kept in pieces, of which those that change are written."""
    flow, now = rows.flow(), rows.clock.now()
    assert rows.ledger.memory(flow) == Memory()
    dice = random.Random(1)
    decided = {dice.getrandbits(64) for _ in range(60_000)}
    watched = {dice.getrandbits(64): Look(n % 20, now) for n in range(100)}
    assert rows.ledger.remember(flow, Memory(watermark=now, decided=decided, watched=watched))
    found = rows.ledger.memory(flow)
    assert found.same_as(Memory(watermark=now, decided=decided, watched=watched))
    assert found.revision == 1
    assert len(found.stored) > 3
    fewer = set(list(decided)[:10])
    assert rows.ledger.remember(flow, replace(found, decided=fewer, watched={}))
    again = rows.ledger.memory(flow)
    assert (again.decided, again.watched, again.watermark, len(again.stored)) == (fewer, {}, now, 1)
    assert rows.ledger.memory(rows.flow("other")) == Memory()
    assert rows.ledger.last_fire(flow) is None


def test_a_memory_is_forgotten_with_its_flow(rows: Rows) -> None:
    """With all its pieces; its fires stay, and so do other flows' memories. Forgetting again is harmless."""
    flow, other, now = rows.flow(), rows.flow("other"), rows.clock.now()
    rows.ledger.fire(flow, at=now, name="now-1", partition=rows.partition)
    for each in (flow, other):
        assert rows.ledger.remember(each, Memory(decided=set(range(40_000))))
    for _ in range(2):
        rows.ledger.forget(flow)
    assert rows.ledger.memory(flow) == Memory()
    assert rows.ledger.memory(other).revision == 1
    assert len(rows.ledger.fires(flow, limit=9)) == 1
    assert rows.ledger.remember(flow, Memory(decided={1}))


def test_of_two_that_remember_one_is_believed(rows: Rows) -> None:
    """The other's memory came from one that is no longer stored."""
    flow = rows.flow()
    assert rows.ledger.remember(flow, Memory(decided={1}))
    assert not rows.ledger.remember(flow, Memory(decided={2}))
    seen = rows.ledger.memory(flow)
    assert rows.ledger.remember(flow, replace(seen, decided={1, 2}))
    assert not rows.ledger.remember(flow, replace(seen, decided={3}))
    assert rows.ledger.memory(flow).decided == {1, 2}


def test_a_fire_that_is_only_on_record_is_never_due(rows: Rows) -> None:
    """It is there once, with its outcome."""
    flow, now = rows.flow(), rows.clock.now()
    assert rows.ledger.fire(flow, at=now, name="late-20250106T110000", partition=rows.partition, outcome={"found": 0})
    assert not rows.ledger.fire(flow, at=now, name="late-20250106T110000", partition=rows.partition, outcome={"found": 1})
    assert rows.ledger.begin_fire(flow, name="late-20250106T110000", until=now) is None
    assert rows.ledger.due(rows.partition, before=now + LEASE) == []
    assert rows.ledger.fires(flow, limit=2) == [Fire("late-20250106T110000", {"found": 0})]


def test_what_earlier_runs_did_is_added_up(rows: Rows) -> None:
    """Until the fire has ended; a fire that is not there stays so."""
    flow, now = rows.flow(), rows.clock.now()
    rows.ledger.fire_goes_on(flow, name="now-1", created=1, refused=1)
    assert rows.ledger.fires(flow, limit=1) == []
    rows.ledger.fire(flow, at=now, name="now-1", partition=rows.partition)
    for _ in range(2):
        rows.ledger.begin_fire(flow, name="now-1", until=now)
        rows.ledger.fire_goes_on(flow, name="now-1", created=3, refused=1)
    assert rows.ledger.begin_fire(flow, name="now-1", until=now) == Run(3, created=6, refused=2)
    rows.ledger.fire_done(flow, name="now-1", outcome={})
    rows.ledger.fire_goes_on(flow, name="now-1", created=3, refused=1)
    assert rows.ledger.begin_fire(flow, name="now-1", until=now) is None
