"""Plans: for each name what would happen and why, and nothing that happens."""

from __future__ import annotations

from datetime import timedelta

import pytest

from eft.domain.fingerprint import Fingerprint, RefusedName
from eft.errors import NotFound, Permanent
from eft.journey.operate import run_flow
from eft.journey.plan import LOOKS, Outlook, plan, warnings_about
from tests.fakes import START
from tests.world import TENANT, World

ADVICE = "remove it and re-drive, or let the flow overwrite, skip or rename"


@pytest.fixture
def world() -> World:
    """An engine over fakes."""
    return World()


def test_each_name_is_told_what_would_happen_to_it_and_why(world: World) -> None:
    """What would move, what waits, what cannot, what has moved, what is left out; in this order."""
    source = world.server("sftp-a")
    selection = {"glob": "*.csv", "min_age": "PT5M", "max_size": 10, "stability": {"done_marker": "{name}.done"}}
    flow = world.flow("sftp-a", "s3-b", selection=selection)
    for name in ("old.csv", "dead.csv"):
        source.put(f"in/{name}", b"1")
        source.put(f"in/{name}.done", b"")
    world.server("s3-b").put("out/dead.csv", b"in the way")
    world.clock.advance(timedelta(minutes=6))
    world.run(flow)
    delivered_at = world.clock.now()
    for name, size in (("a.csv", 1), ("waits.csv", 1), ("large.csv", 11), ("b.txt", 1)):
        source.put(f"in/{name}", b"1" * size)
    source.put("in/a.csv.done", b"")
    world.clock.advance(timedelta(minutes=6))
    source.put("in/young.csv", b"1")
    odd = Fingerprint(size=1, modified=START)
    source.refused.append(RefusedName(shown="in/\\x00.csv", why="contains a control character", fingerprint=odd))
    made = plan(world.engine, flow, limit=100)
    assert [(one.path.removeprefix("in/"), one.why) for one in made.forecasts if not one.path.endswith(".done")] == [
        ("a.csv", "would move to out/a.csv"),
        ("waits.csv", "waits: 'in/waits.csv.done' is not there yet"),
        ("\\x00.csv", "cannot be moved: contains a control character"),
        (
            "dead.csv",
            f"already dead since {delivered_at:%Y-%m-%d %H:%M} UTC: 'out/dead.csv' exists at the destination; " + ADVICE,
        ),
        ("old.csv", f"already delivered on {delivered_at:%Y-%m-%d at %H:%M} UTC to out/old.csv"),
        ("b.txt", "skipped: its name does not match the pattern"),
        ("large.csv", "skipped: larger than 10 bytes"),
        ("young.csv", "skipped: younger than 5 min"),
    ]
    assert made.counts == {"move": 1, "wait": 1, "refuse": 1, "known": 2, "skip": 6}
    assert made.complete
    assert made.destination_trouble is None


def test_a_plan_changes_nothing(world: World) -> None:
    """No row, no memory, no fire, no read of a file; what it foretold then happens."""
    flow = world.flow("sftp-a", "s3-b")
    world.server("sftp-a").put("in/a.csv", b"1")
    before = world.ledger.calls.copy()
    (foretold,) = plan(world.engine, flow, limit=10).forecasts
    assert set(world.ledger.calls - before) == {"memory", "known"}
    assert world.server("sftp-a").calls["read"] == 0
    world.run(flow)
    (row,) = world.ledger.rows()
    assert (row.id, row.destination.path) == (foretold.transfer, foretold.destination)


@pytest.mark.parametrize(
    ("conflict", "why"),
    [
        ("fail", "would fail: 'out/a.csv' exists at the destination"),
        ("overwrite", "would move to out/a.csv, overwriting what is there"),
        ("skip", "would be skipped: 'out/a.csv' exists at the destination"),
        ("rename", "would move to out/a.csv under a numbered name, because that exists"),
    ],
)
def test_what_stands_at_the_destination_is_told(world: World, conflict: str, why: str) -> None:
    """As the flow's conflict mode has it."""
    flow = world.flow("sftp-a", "s3-b", conflict=conflict)
    world.server("sftp-a").put("in/a.csv", b"1")
    world.server("s3-b").put("out/a.csv", b"0")
    assert [one.why for one in plan(world.engine, flow, limit=10).forecasts] == [why]


def test_a_transfer_under_way_and_one_of_the_other_region_are_known(world: World) -> None:
    """The plan says where they stand."""
    flow = world.flow("sftp-a", "s3-b")
    world.server("sftp-a").put("in/a.csv", b"1")
    (fire,) = run_flow(world.engine, flow)
    world.deliver_message(fire)
    assert [one.why for one in plan(world.engine, flow, limit=10).forecasts] == ["already under way: accepted"]
    world.ledger._rows.clear()
    assert [one.why for one in plan(world.engine, flow, limit=10).forecasts] == ["already accepted, by the other region"]


def test_a_long_plan_shows_what_matters_first(world: World) -> None:
    """Counts are of all names; those that would move come before those that are left out, and only some are looked up."""
    flow = world.flow("sftp-a", "s3-b", selection={"glob": "*.csv"})
    for n in range(150):
        world.server("sftp-a").put(f"in/{n:03}.a", b"1")
        world.server("sftp-a").put(f"in/{n:03}.csv", b"1")
    made = plan(world.engine, flow, limit=200)
    assert made.counts == {"move": 150, "skip": 150}
    assert [one.outlook for one in made.forecasts] == ["move"] * 150 + ["skip"] * 50
    assert world.server("s3-b").calls["look"] == LOOKS


def test_a_plan_that_takes_too_long_says_that_it_is_not_complete(world: World) -> None:
    """It shows what it has."""
    flow = world.flow("sftp-a", "s3-b")
    for n in range(500):
        world.server("sftp-a").put(f"in/{n:03}.csv", b"1")
    world.engine.clock._tick = timedelta(seconds=7)  # type: ignore[attr-defined]
    made = plan(world.engine, flow, limit=10)
    assert not made.complete
    assert 100 <= made.counts[Outlook.MOVE] < 500


def test_a_destination_that_cannot_be_looked_at_is_told(world: World) -> None:
    """The plan of the source is shown all the same; a name that the template cannot make is refused."""
    flow = world.flow("sftp-a", "sftp-b", name_template="{name}" + "n" * 252)
    world.server("sftp-a").put("in/a.csv", b"1")
    assert [one.outlook for one in plan(world.engine, flow, limit=10).forecasts] == ["refuse"]
    flow = world.flow("sftp-a", "sftp-b")
    endpoint = world.registry.endpoint(TENANT, "sftp-b")
    world.registry.change_endpoint(endpoint.model_copy(update={"host_keys": (), "revision": 2}))
    made = plan(world.engine, flow, limit=10)
    assert [one.why for one in made.forecasts] == ["would move to out/a.csv"]
    assert "no pinned host key" in (made.destination_trouble or "")


def test_a_source_that_cannot_be_listed_is_an_error(world: World) -> None:
    """With its reason."""
    with pytest.raises(NotFound, match="no directory"):
        plan(world.engine, world.flow("sftp-a", "s3-b"), limit=10)
    endpoint = world.registry.endpoint(TENANT, "sftp-a")
    world.registry.change_endpoint(endpoint.model_copy(update={"host_keys": (), "revision": 2}))
    with pytest.raises(Permanent, match="no pinned host key"):
        plan(world.engine, world.flow("sftp-a", "s3-b"), limit=10)


def test_a_flow_that_nothing_matches_is_warned_about(world: World) -> None:
    """Also where its source cannot be looked at; not where something matches, be it too young."""
    flow = world.flow("sftp-a", "s3-b", selection={"glob": "*.csv", "min_age": "PT5M"})
    assert warnings_about(world.engine, flow) == ["the source could not be listed: no directory 'in'"]
    world.server("sftp-a").put("in/a.txt", b"1")
    assert warnings_about(world.engine, flow) == ["nothing in 'in' matches the pattern: it holds 1 file now"]
    world.server("sftp-a").put("in/a.csv", b"1")
    assert warnings_about(world.engine, flow) == []
    for _ in range(5):
        world.limits.failed("sftp-a", reason="unreachable")
    assert warnings_about(world.engine, flow) == ["endpoint sftp-a has failed repeatedly, so the source was not looked at"]


def test_a_warning_does_not_wait_for_the_end_of_a_long_listing(world: World) -> None:
    """It says how far it looked."""
    flow = world.flow("sftp-a", "s3-b", selection={"glob": "*.csv"})
    for n in range(500):
        world.server("sftp-a").put(f"in/{n:03}.txt", b"1")
    world.engine.clock._tick = timedelta(seconds=1)  # type: ignore[attr-defined]
    (warning,) = warnings_about(world.engine, flow)
    assert warning.startswith("none of the first ")
