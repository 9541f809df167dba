"""What a flow remembers of its source from one listing to the next.

It spares requests and counts looks. What is decided is decided in the ledger, whose rows stay: a memory that is lost, or older than it
might be, costs questions and looks, never a file. Only the watermark binds: what lies behind it may have been forgotten everywhere.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from eft.domain.instants import instant, millis

DECIDED_AT_MOST: Final = 500_000
"""Versions remembered as decided, at 8 bytes; more are asked for anew each time."""
WATCHED_AT_MOST: Final = 15_000
"""Versions whose looks are counted at a time; more wait until these are settled."""
CHUNK: Final = 20_000
"""Marks in one chunk, on average: 160 KB."""
TOLERANCE: Final = timedelta(seconds=1)
"""By how much two looks may be nearer to each other than asked for: clocks differ."""
_SPREAD: Final = 0x9E3779B97F4A7C15
_BITS: Final = 2**64 - 1
_LOOK: Final = struct.Struct(">QBQ")


@dataclass(frozen=True, slots=True)
class Look:
    """How often a version has been seen unchanged, and when that last counted."""

    count: int
    at: datetime

    def again(self, now: datetime, *, apart: timedelta) -> Look:
        """Returns it with one more look, if the last is long enough ago."""
        return Look(self.count + 1, now) if now - self.at >= apart - TOLERANCE else self


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A flow's memory. Versions are known by their marks."""

    revision: int = 0
    """Of the stored memory that this one comes from; 0: there is none."""
    watermark: datetime | None = None
    """Whatever was modified before is never taken again."""
    decided: AbstractSet[int] = frozenset()
    """Versions in the source that have a transfer."""
    watched: Mapping[int, Look] = field(default_factory=dict)
    """Versions that are not yet settled."""
    stored: frozenset[str] = frozenset()
    """Names of the chunks that hold it."""

    def risen(self, to: datetime | None) -> datetime | None:
        """Returns the watermark after a listing: at full hours, so that it does not change each time, and never lower than before."""
        if to is None:
            return self.watermark
        hour = to.replace(minute=0, second=0, microsecond=0)
        return hour if self.watermark is None else max(self.watermark, hour)

    def same_as(self, other: Memory) -> bool:
        """Returns whether nothing would be gained by storing the other in its place."""
        return (self.watermark, self.decided, self.watched) == (other.watermark, other.decided, dict(other.watched))


def mark(version: str) -> int:
    """Returns 64 bits that stand for a version: of the id of its transfer, which is a partition's two digits and a hash."""
    return int(version[2:18], 16) ^ (int(version[:2], 16) * _SPREAD & _BITS)


def chunks_of(memory: Memory) -> dict[str, bytes]:
    """Returns a memory's contents in pieces of at most about 300 KB, each named by what it holds: what is unchanged keeps its name."""
    decided = sorted(memory.decided)[:DECIDED_AT_MOST]
    shards = 1
    while len(decided) / shards > CHUNK:
        shards *= 2
    pieces: list[list[int]] = [[] for _ in range(shards)]
    for one in decided:
        pieces[one * shards >> 64].append(one)
    packed = [b"D" + struct.pack(f">{len(piece)}Q", *piece) for piece in pieces if piece]
    watched = sorted(memory.watched.items())[:WATCHED_AT_MOST]
    if watched:
        packed.append(b"W" + b"".join(_LOOK.pack(one, look.count, millis(look.at)) for one, look in watched))
    return {hashlib.sha256(piece).hexdigest()[:24]: piece for piece in packed}


def memory_of(chunks: Mapping[str, bytes], *, revision: int, watermark: datetime | None) -> Memory:
    """Returns the memory that such pieces hold; one that is missing is forgotten."""
    decided: set[int] = set()
    watched: dict[int, Look] = {}
    for piece in chunks.values():
        if piece[:1] == b"D":
            decided.update(struct.unpack(f">{(len(piece) - 1) // 8}Q", piece[1:]))
        else:
            watched |= {one: Look(count, instant(at)) for one, count, at in _looks(piece)}
    return Memory(revision=revision, watermark=watermark, decided=decided, watched=watched, stored=frozenset(chunks))


def _looks(piece: bytes) -> Iterable[tuple[int, int, int]]:
    return _LOOK.iter_unpack(piece[1:])
