"""Bandwidth windows: no more passes in them than they allow, whoever moves it; outside them nothing is bounded."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest

from eft.domain.endpoint import Bandwidth
from eft.domain.transfer import State
from eft.journey.pacing import Pace
from eft.ports import Tuning
from tests.fakes import START
from tests.world import SMALL, TENANT, World

KIB = 1024
RATE = 128 * KIB
LARGE = Tuning(part_size=256 * KIB, lane_threshold=3, lane_width=3, inline_size=1 << 20)


@pytest.fixture
def world() -> World:
    """An engine over fakes at nine o'clock, where a pause is a step of the clock."""
    made = World(tuning=LARGE)

    def pause(seconds: float) -> None:
        made.clock.advance(seconds)

    made.engine = replace(made.engine, pause=pause)
    return made


def bound(world: World, endpoint: str, **fields: object) -> None:
    """Gives an endpoint a window from eight to ten."""
    window = Bandwidth.model_validate({"begin": "08:00", "end": "10:00", "bytes_per_second": RATE, **fields})
    present = world.registry.endpoint(TENANT, endpoint)
    world.registry.change_endpoint(present.model_copy(update={"bandwidth": (*present.bandwidth, window), "revision": present.revision + 1}))


@pytest.mark.parametrize("bounded", ["sftp-a", "s3-b"])
def test_a_file_takes_as_long_as_its_window_makes_it(world: World, bounded: str) -> None:
    """The source's window and the destination's alike; the file arrives."""
    bound(world, bounded)
    content = b"x" * (512 * KIB)
    world.server("sftp-a").put("in/a.bin", content)
    began = world.clock.now()
    row = world.until_rest(world.submit("sftp-a", "s3-b"))
    assert row.state is State.SETTLED
    # All but the last chunk of 64 KiB is waited for.
    assert timedelta(seconds=3.5) <= world.clock.now() - began < timedelta(seconds=5)
    assert world.server("s3-b").finals() == {"out/a.bin": content}


@pytest.mark.parametrize(("bounded", "grown"), [(None, 2), ("s3-a", 1), ("sftp-b", 1)])
def test_parts_do_not_grow_where_bytes_are_let_through_slowly(bounded: str | None, grown: int) -> None:
    """A slice has its turn until its part is over, and others wait for theirs."""
    world = World(tuning=SMALL)
    if bounded is not None:
        bound(world, bounded)
    world.server("s3-a").put("in/a.bin", b"x" * (128 * SMALL.part_size))
    transfer = world.submit("s3-a", "sftp-b")
    world.deliver_message(world.queue.popleft())
    upload = world.ledger.load(transfer.id).upload
    assert upload is not None
    assert upload.plan.part_size == grown * SMALL.part_size


def test_outside_its_window_an_endpoint_is_not_bounded(world: World) -> None:
    """Nor does it take a turn."""
    bound(world, "sftp-a", begin="10:00", end="08:00")
    world.server("sftp-a").put("in/a.bin", b"x" * (512 * KIB))
    began = world.clock.now()
    world.until_rest(world.submit("sftp-a", "s3-b"))
    assert world.clock.now() == began
    assert world.limits.holders("pace:sftp-a") == set()


def test_many_workers_share_a_window(world: World) -> None:
    """The lanes of a large file, and another file, come one after the other; nobody uses up a try, and all arrive."""
    bound(world, "sftp-a")
    sizes = {"in/large.bin": 2048 * KIB, "in/small.bin": 64 * KIB}
    for path, size in sizes.items():
        world.server("sftp-a").put(path, b"x" * size)
    rows = [world.submit("sftp-a", "s3-b", path, to=f"out/{path}", retry={"tries": 1}) for path in sizes]
    began = world.clock.now()
    # Somebody else has the turn for half a minute.
    assert world.limits.acquire("pace:sftp-a", limit=1, holder="other", lease=timedelta(seconds=30))
    for row in rows:
        assert world.until_rest(row).state is State.SETTLED
    assert world.clock.now() - began >= timedelta(seconds=30 + sum(sizes.values()) / RATE - 3)
    assert world.limits.holders("pace:sftp-a") - {"other"} == set()


def test_within_any_second_no_more_passes_than_the_window_allows(world: World) -> None:
    """Measured by when each chunk is let through, with pauses of others' making in between."""
    bound(world, "sftp-a")
    transfer = world.submit("sftp-a", "s3-b")
    passed: list[tuple[float, int]] = []
    pace = Pace(world.engine, transfer, world.slice())
    for number, chunk in enumerate(pace.kept([b"x" * (32 * KIB)] * 40)):
        passed.append((world.clock.monotonic(), len(chunk)))
        if number == 20:
            world.clock.advance(30)
    for at, _ in passed:
        within = sum(size for when, size in passed if at <= when < at + 1)
        assert within <= RATE + 32 * KIB


def test_the_narrowest_window_counts_and_zones_do(world: World) -> None:
    """Nine o'clock UTC is four in New York."""
    bound(world, "sftp-a", bytes_per_second=10 * RATE)
    bound(world, "sftp-a", bytes_per_second=2 * RATE)
    bound(world, "sftp-a", begin="03:00", end="05:00", timezone="America/New_York", bytes_per_second=3 * RATE)
    endpoint = world.registry.endpoint(TENANT, "sftp-a")
    assert endpoint.bytes_per_second(START) == 2 * RATE
    assert endpoint.bytes_per_second(datetime(2025, 1, 6, 7, 59, tzinfo=UTC)) is None
    assert endpoint.bytes_per_second(datetime(2025, 7, 7, 7, 30, tzinfo=UTC)) == 3 * RATE


def test_a_worker_that_leaves_does_not_finish_its_pause(world: World) -> None:
    """What it has done is kept, and the next worker goes on."""
    bound(world, "sftp-a")
    world.server("sftp-a").put("in/a.bin", b"x" * (700 * KIB))
    transfer = world.submit("sftp-a", "s3-b")
    leaving = False

    def pause(seconds: float) -> None:
        nonlocal leaving
        world.clock.advance(seconds)
        leaving = world.clock.monotonic() > 3

    calm = world.engine
    world.engine = replace(world.engine, pause=pause)
    piece = world.slice()
    piece.leaving = lambda: leaving
    world.deliver_message(world.queue.popleft(), piece)
    assert world.ledger.load(transfer.id).state is not State.SETTLED
    world.engine = calm
    assert world.until_rest(transfer).state is State.SETTLED


@pytest.mark.parametrize("fields", [{"bytes_per_second": 1}, {"begin": time(1), "end": time(1)}, {"timezone": "Mars"}])
def test_a_window_that_cannot_work_is_refused(fields: dict[str, Any]) -> None:
    """When it is given."""
    with pytest.raises(ValueError, match=r"greater|different|no time zone"):
        Bandwidth.model_validate({"begin": "08:00", "end": "10:00", "bytes_per_second": RATE, **fields})
