"""Stability and memory: no partial file is taken, no version twice, and a look at old files asks nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from eft.domain.fingerprint import Fingerprint, RefusedName
from eft.domain.flow import Flow, Interval
from eft.domain.transfer import Step
from eft.journey.messages import Message
from eft.journey.operate import run_flow
from eft.journey.plan import plan
from eft.journey.sweep import sweep
from tests.fakes import START
from tests.world import SMALL, World

APART = timedelta(seconds=10)
LOOKS: dict[str, object] = {"stability": {"looks": 3}}


@pytest.fixture
def world() -> World:
    """An engine over fakes."""
    return World()


def delivered(world: World) -> dict[str, bytes]:
    """Returns what the destination shows."""
    return world.server("s3-b").finals()


def test_a_file_that_grows_is_taken_once_it_stands_still(world: World) -> None:
    """A run looks again by itself; what a slow writer has finished is delivered whole, and only then."""
    flow = world.flow("sftp-a", "s3-b", selection=LOOKS)
    source = world.server("sftp-a")
    source.put("in/slow.csv", b"1")
    world.queue += run_flow(world.engine, flow)
    for size in range(2, 8):
        message = world.queue.popleft()
        world.clock.advance(message.delay)
        world.queue += world.deliver_message(message)
        assert [(one.step, one.delay >= APART) for one in world.queue] == [(Step.DISCOVER, True)]
        source.put("in/slow.csv", b"1" * size)
    world.drain()
    assert delivered(world) == {"out/slow.csv": b"1" * 7}
    assert len(world.ledger.rows()) == 1


def test_two_looks_at_once_are_one(world: World) -> None:
    """Whoever asks for runs in a row does not make a file older."""
    flow = world.flow("sftp-a", "s3-b", selection=LOOKS)
    world.server("sftp-a").put("in/a.csv", b"1")
    for _ in range(5):
        (fire,) = run_flow(world.engine, flow)
        world.deliver_message(fire)
    assert world.ledger.rows() == []


def test_a_marker_counts_for_the_version_that_it_was_made_for(world: World) -> None:
    """While a file is written anew the marker of the version before still stands beside it."""
    flow = world.flow("sftp-a", "s3-b", selection={"stability": {"done_marker": "{name}.done"}}, conflict="overwrite")
    source = world.server("sftp-a")
    for path, data in (("in/a.csv", b"first"), ("in/a.csv.done", b"")):
        source.put(path, data)
    world.run(flow)
    world.clock.advance(60)
    source.put("in/a.csv", b"sec")
    world.run(flow)
    assert delivered(world) == {"out/a.csv": b"first"}
    assert (
        plan(world.engine, flow, limit=1).forecasts[0].why == "waits: 'in/a.csv.done' is older than the file, so it is a former version's"
    )
    source.put("in/a.csv", b"second")
    source.put("in/a.csv.done", b"")
    world.run(flow)
    assert delivered(world) == {"out/a.csv": b"second"}


@pytest.mark.parametrize("name", ["2025-01-06T09:00:00Z", "now-20250106T090000-arrived"])
def test_a_paused_flow_takes_no_more(world: World, name: str) -> None:
    """A run that waits for files to settle ends, whether a schedule or an arrival began it; one that a person asked for goes on."""
    flow = world.flow("sftp-a", "s3-b", selection=LOOKS)
    source = world.server("sftp-a")
    source.put("in/a.csv", b"1")
    world.ledger.fire(flow, at=world.clock.now(), name=name, partition=0)
    world.queue += world.deliver_message(Message(step=Step.DISCOVER, ids=(f"{flow.tenant}/{flow.id}/{name}",)))
    world.registry.change_flow(flow.model_copy(update={"enabled": False, "revision": 2}))
    world.drain()
    assert world.ledger.rows() == []
    (fire,) = world.ledger.fires(flow, limit=5)
    assert fire.outcome is not None
    assert (fire.outcome["created"], fire.outcome["waiting"]) == (0, 1)
    world.run(flow)
    assert delivered(world) == {"out/a.csv": b"1"}


def test_a_settled_file_that_gets_no_transfer_is_counted_no_further(world: World) -> None:
    """A name that the template cannot use is looked at for ever; the flow's other files are taken all the same."""
    flow = world.flow("sftp-a", "s3-b", selection={"stability": {"looks": 2}}, name_template="{name}.received")
    source = world.server("sftp-a")
    source.put("in/" + "n" * 250, b"never")
    for _ in range(300):
        (fire,) = run_flow(world.engine, flow)
        world.deliver_message(fire)
        world.clock.advance(APART)
    source.put("in/a.csv", b"1")
    world.run(flow)
    assert delivered(world) == {"out/a.csv.received": b"1"}
    assert {look.count for look in world.ledger.memory(flow).watched.values()} == {2}


def test_a_file_that_never_stands_still_ends_the_run_in_the_end(world: World) -> None:
    """The run says how many files it left waiting."""
    flow = world.flow("sftp-a", "s3-b", selection=LOOKS)
    (fire,) = run_flow(world.engine, flow)
    size, rounds, began = 1, 0, world.clock.now()
    follow = [fire]
    while follow:
        (message,) = follow
        world.clock.advance(message.delay)
        world.server("sftp-a").put("in/a.csv", b"1" * size)
        size, rounds = size + 1, rounds + 1
        follow = world.deliver_message(message)
    assert rounds > 50
    assert timedelta(hours=4) < world.clock.now() - began < timedelta(hours=12)
    (shown,) = world.ledger.fires(flow, limit=5)
    assert shown.outcome is not None
    assert (shown.outcome["waiting"], shown.outcome["created"]) == (1, 0)


def test_where_the_next_fire_comes_soon_it_looks_again(world: World) -> None:
    """Then the run ends, and leaves the waiting to it."""
    flow = world.flow("sftp-a", "s3-b", selection=LOOKS)
    flow = flow.model_copy(update={"trigger": Interval(every=APART), "revision": 2})
    world.registry.change_flow(flow)
    world.server("sftp-a").put("in/a.csv", b"1")
    for expected in (0, 0, 1):
        (fire,) = run_flow(world.engine, flow)
        follow = world.deliver_message(fire)
        assert [one.step for one in follow] == [Step.DELIVER] * expected
        world.clock.advance(APART)


@pytest.mark.parametrize(
    ("marker", "marks"),
    [("{name}.done", "in/a.csv.done"), ("{stem}.ok", "in/a.ok"), ("READY", "in/READY")],
)
def test_a_file_waits_for_its_marker(world: World, marker: str, marks: str) -> None:
    """One beside it, or one for its directory; markers themselves are not taken, and another directory's does not count."""
    flow = world.flow("sftp-a", "s3-b", selection={"recursive": True, "stability": {"done_marker": marker}})
    source = world.server("sftp-a")
    source.put("in/a.csv", b"1")
    source.put("in/sub/b.csv", b"1")
    world.run(flow)
    assert world.ledger.rows() == []
    source.put(marks, b"")
    world.run(flow)
    assert delivered(world) == {"out/a.csv": b"1"}


def test_a_file_waits_for_its_sidecar(world: World) -> None:
    """A flow that compares with sidecars takes no file without one, nor the sidecar itself."""
    flow = world.flow("sftp-a", "s3-b", sidecar=True)
    source = world.server("sftp-a")
    source.put("in/a.csv", b"1")
    world.run(flow)
    assert world.ledger.rows() == []
    source.put("in/a.csv.sha256", b"6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b  a.csv")
    world.run(flow)
    assert delivered(world) == {"out/a.csv": b"1"}


def test_a_writer_that_renames_at_the_end(world: World) -> None:
    """Names of unfinished files are excluded; the final name is taken."""
    flow = world.flow("sftp-a", "s3-b", selection={"exclude": ["*.tmp", ".*"]})
    source = world.server("sftp-a")
    source.put("in/a.csv.tmp", b"1")
    source.put("in/.a.csv", b"1")
    world.run(flow)
    source.files["in/a.csv"] = source.files.pop("in/a.csv.tmp")
    world.run(flow)
    assert delivered(world) == {"out/a.csv": b"1"}


def test_a_file_rewritten_in_place_is_a_new_version(world: World) -> None:
    """And the same version, seen again, is not; also where the name comes and goes."""
    flow = world.flow("sftp-a", "s3-b", conflict="rename")
    source = world.server("sftp-a")
    first = source.put("in/a.csv", b"1")
    world.run(flow)
    world.clock.advance(60)
    source.put("in/a.csv", b"2")
    world.run(flow)
    del source.files["in/a.csv"]
    world.run(flow)
    source.files["in/a.csv"] = first
    world.run(flow)
    assert sorted(delivered(world).values()) == [b"1", b"2"]
    assert len(world.ledger.rows()) == 2


def test_a_look_at_old_files_asks_the_ledger_nothing_about_them(world: World) -> None:
    """A poll costs the same four requests for three old files and for three thousand."""
    flow = world.flow("sftp-a", "s3-b")
    for n in range(3000):
        world.server("sftp-a").put(f"in/{n}.csv", b"1")
    odd = RefusedName(shown="in/\\x00.csv", why="contains a control character", fingerprint=Fingerprint(size=1, modified=START))
    world.server("sftp-a").refused.append(odd)
    (fire,) = run_flow(world.engine, flow)
    world.deliver_message(fire)
    assert len(world.ledger.rows()) == 3001
    (fire,) = run_flow(world.engine, flow)
    world.ledger.calls.clear()
    assert world.deliver_message(fire) == []
    assert dict(world.ledger.calls) == {"begin_fire": 1, "memory": 1, "fire_done": 1}


def test_a_memory_that_is_lost_costs_questions_and_no_file(world: World) -> None:
    """What is in the ledger is known without it."""
    flow = world.flow("sftp-a", "s3-b")
    for n in range(300):
        world.server("sftp-a").put(f"in/{n}.csv", b"1")
    world.run(flow)
    world.ledger._memories.clear()
    world.run(flow)
    assert len(world.ledger.rows()) == 300
    assert world.ledger.calls["create"] == 300


def test_the_memory_holds_no_more_than_the_source_shows(world: World) -> None:
    """Versions that are gone are forgotten; what a slice that ended early did not see is not."""
    flow = world.flow("sftp-a", "s3-b", disposition="delete")
    for n in range(250):
        world.server("sftp-a").put(f"in/{n}.csv", b"1")
    (fire,) = run_flow(world.engine, flow)
    assert world.deliver_message(fire, world.slice(leaving=True))[-1].step is Step.DISCOVER
    assert len(world.ledger.memory(flow).decided) == 100
    world.deliver_message(fire)
    assert len(world.ledger.memory(flow).decided) == 250
    world.server("sftp-a").files.clear()
    world.server("sftp-a").directories.add("in")
    world.run(flow)
    assert world.ledger.memory(flow).decided == set()


def test_what_lies_behind_the_watermark_is_never_taken_again(world: World) -> None:
    """Not even once the flow remembers for longer: what it did with such files may be forgotten."""
    flow = world.flow("sftp-a", "s3-b", selection={"forget_after": "P2D"})
    source = world.server("sftp-a")
    source.put("in/old.csv", b"1")
    world.clock.advance(timedelta(days=3))
    source.put("in/new.csv", b"2")
    world.run(flow)
    assert delivered(world) == {"out/new.csv": b"2"}
    longer = flow.selection.model_copy(update={"forget_after": timedelta(days=30)})
    world.registry.change_flow(flow.model_copy(update={"selection": longer, "revision": 2}))
    world.run(flow)
    assert delivered(world) == {"out/new.csv": b"2"}
    world.clock.advance(timedelta(days=1))
    source.put("in/old.csv", b"3")
    world.run(flow)
    assert delivered(world) == {"out/new.csv": b"2", "out/old.csv": b"3"}


def test_a_fire_that_has_ended_is_not_carried_out_again(world: World) -> None:
    """A message that comes twice lists the source once."""
    flow = world.flow("sftp-a", "s3-b")
    (fire,) = run_flow(world.engine, flow)
    world.server("sftp-a").directories.add("in")
    world.deliver_message(fire)
    world.deliver_message(fire)
    assert world.server("sftp-a").calls["list"] == 1
    world.clock.advance(SMALL.stall * 10)
    assert list(sweep(world.engine)) == []


def test_a_flow_enters_no_more_directories_than_it_may(world: World) -> None:
    """Two below the selection's."""
    flow: Flow = world.flow("sftp-a", "s3-b", selection={"recursive": True, "max_depth": 2})
    for path in ("in/0.csv", "in/a/1.csv", "in/a/b/2.csv", "in/a/b/c/3.csv"):
        world.server("sftp-a").put(path, b"1")
    world.run(flow)
    assert set(delivered(world)) == {"out/0.csv", "out/a/1.csv", "out/a/b/2.csv"}
