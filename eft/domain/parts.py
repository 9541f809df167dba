"""Parts: byte ranges numbered from 1, planned once per attempt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pydantic import BaseModel, ConfigDict

MIB = 1024 * 1024
MAX_PARTS = 10_000
"""Amazon S3 User Guide, "Amazon S3 multipart upload limits"."""
MIN_PART_SIZE = 5 * MIB
MAX_PART_SIZE = 5 * 1024 * MIB
WHOLE_UP_TO = MIB
"""Bytes up to which a file is read at once and held in memory until it is delivered."""
LANES_EACH = 4
"""Lanes of a large file for each worker that copies at a time."""
LANE_WORTH = 4
"""Parts below which more lanes are not worth their rows."""
GROWN = 2
PARTS_BEFORE_GROWN = 64
"""How many times larger parts may be that nobody holds in memory, and of how many such parts a file is then."""
FAR_LANES = 2
"""How many times as many lanes a large file has where an end is far away."""
LARGEST_HELD = 128 * MIB
"""Bytes of a part that a worker holds in memory until it is sent to a bucket: files of up to 1.2 TiB, at 10,000 parts."""


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes [start, start + size) of a file."""

    number: int
    start: int
    size: int


class PartDone(BaseModel):
    """Evidence that a part is durably at its destination. `crc64nvme` is the part's own; None where the server copied it and told none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    size: int
    crc64nvme: int | None
    etag: str | None = None


class PartPlan(BaseModel):
    """How an attempt cuts a file: `count` parts of `part_size` bytes, the last one shorter; an empty file is one empty part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    part_size: int

    @property
    def count(self) -> int:
        """Number of parts, at least 1."""
        return max(1, -(-self.size // self.part_size))

    def part(self, number: int) -> Part:
        """Returns part `number`, 1 … count."""
        start = (number - 1) * self.part_size
        return Part(number=number, start=start, size=min(self.part_size, self.size - start))

    def parts(self) -> list[Part]:
        """Returns all parts in order."""
        return [self.part(n) for n in range(1, self.count + 1)]


def followed(parts: Sequence[Part]) -> Iterator[tuple[Part, int]]:
    """Yields parts in order, each with the byte at which it and those that follow it without a gap end."""
    until: dict[int, int] = {}
    for part in reversed(parts):
        end = part.start + part.size
        until[part.start] = until.get(end, end)
    for part in parts:
        yield part, until[part.start]


def plan_parts(size: int, *, part_size: int, held: bool = True) -> PartPlan:
    """Returns a plan with parts of `part_size` bytes, or the least whole number of MiB above it that keeps to S3's 10,000 parts.

    Of a large file parts that are not `held` in memory are larger: each costs a request to read and a note.
    """
    if not held:
        part_size *= GROWN if size >= PARTS_BEFORE_GROWN * GROWN * part_size else 1
    least = -(-size // MAX_PARTS)
    return PartPlan(size=size, part_size=part_size if least <= part_size else -(-least // MIB) * MIB)


def lanes(plan: PartPlan, *, width: int) -> list[range]:
    """Returns contiguous ranges of part numbers that cover the plan, as even as can be, for `width` workers at a time.

    Large files have several for each, so that who is done early finds something left to do.
    """
    width = min(plan.count, max(width, min(LANES_EACH * width, plan.count // LANE_WORTH)))
    bounds = [1 + plan.count * i // width for i in range(width + 1)]
    return [range(a, b) for a, b in pairwise(bounds)]
