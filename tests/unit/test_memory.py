"""What a flow remembers: pieces named by their content, marks, looks, a watermark that only rises."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from eft.domain.memory import CHUNK, WATCHED_AT_MOST, Look, Memory, chunks_of, mark, memory_of
from eft.domain.names import transfer_id

NOW = datetime(2025, 4, 1, 12, 34, 56, tzinfo=UTC)


def test_a_change_touches_few_pieces() -> None:
    """Of a hundred thousand versions one more changes one piece; each stays far below what a row may hold."""
    dice = random.Random(1)
    decided = {dice.getrandbits(64) for _ in range(100_000)}
    before, after = chunks_of(Memory(decided=decided)), chunks_of(Memory(decided={*decided, 5}))
    assert len(after.keys() - before.keys()) == 1
    assert max(map(len, before.values())) < 300_000
    assert len(before) >= 100_000 / CHUNK


def test_a_piece_that_is_missing_is_forgotten() -> None:
    """The rest is still good."""
    chunks = chunks_of(Memory(decided=set(range(0, 2**64, 2**44))))
    lost = next(iter(chunks))
    rest = memory_of({name: piece for name, piece in chunks.items() if name != lost}, revision=1, watermark=None)
    assert 0 < len(rest.decided) < 2**20


def test_marks_tell_versions_and_destinations_apart() -> None:
    """The same version for another partition's destination is another transfer."""
    ids = {transfer_id("t", "f", str(path), partition=partition) for path in range(100) for partition in range(64)}
    assert len({mark(one) for one in ids}) == len(ids) == 6400


def test_looks_count_only_when_they_are_apart() -> None:
    """Two in a second are one."""
    apart = timedelta(seconds=10)
    look = Look(1, NOW)
    assert look.again(NOW + timedelta(seconds=8), apart=apart) is look
    assert look.again(NOW + apart, apart=apart) == Look(2, NOW + apart)


def test_the_watermark_never_falls() -> None:
    """It stands at full hours, so that it does not change with each listing."""
    assert Memory().risen(None) is None
    assert Memory().risen(NOW) == NOW.replace(minute=0, second=0)
    assert Memory(watermark=NOW).risen(NOW - timedelta(days=1)) == NOW
    assert Memory(watermark=NOW).risen(None) == NOW


def test_no_more_is_watched_than_a_row_holds() -> None:
    """What is left out is looked at later."""
    (piece,) = chunks_of(Memory(watched={n: Look(1, NOW) for n in range(WATCHED_AT_MOST + 5)})).values()
    assert len(piece) < 300_000
