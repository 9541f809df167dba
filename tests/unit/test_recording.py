"""Parts on their way to the ledger: few writes where they come fast, none that waits long, none forgotten."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest

from eft.domain.parts import PartDone
from eft.journey.recording import TOGETHER, Recording
from tests.world import World

SOON = timedelta(seconds=TOGETHER / 10)
LATE = timedelta(seconds=TOGETHER)


def part(number: int) -> PartDone:
    """Returns evidence of a part."""
    return PartDone(number=number, size=1, crc64nvme=None)


@pytest.fixture
def world() -> World:
    """An engine over fakes."""
    return World()


def noted(world: World) -> list[int]:
    """Returns the numbers in the ledger."""
    return list(world.ledger.parts("t", attempt=1))


def test_parts_that_come_fast_are_written_together(world: World) -> None:
    """The first at once, then what half a second brings, and the rest at the end."""
    with Recording(world.engine, "t", 1) as recording:
        for number in range(1, 26):
            recording.add(part(number))
            world.clock.advance(SOON)
    assert noted(world) == list(range(1, 26))
    assert world.ledger.calls["record_parts"] == 4


def test_parts_that_come_slowly_are_written_one_by_one(world: World) -> None:
    """A crash costs the part in hand."""
    with Recording(world.engine, "t", 1) as recording:
        for number in range(1, 4):
            recording.add(part(number))
            assert noted(world)[-1] == number
            world.clock.advance(LATE)


def test_a_part_does_not_wait_for_a_slow_next_one(world: World) -> None:
    """It is written while the bytes of that one arrive."""
    with Recording(world.engine, "t", 1) as recording:
        recording.add(part(1))
        recording.add(part(2))
        assert noted(world) == [1]
        for _ in recording.kept([b"a", b"b"]):
            world.clock.advance(LATE)
        assert noted(world) == [1, 2]


def test_what_is_durable_is_written_when_the_next_part_fails(world: World) -> None:
    """Nobody brings it again."""
    with suppress(OSError), Recording(world.engine, "t", 1) as recording:
        recording.add(part(1))
        recording.add(part(2))
        raise OSError
    assert noted(world) == [1, 2]
