"""A simulated day of a fleet: files arrive as business has them, wait for a free slot, and take the time that was measured.

It knows slots and bundles, and no limit of AWS: what it tells of requests is to be held against those.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

DAY: Final = 86_400.0
BUNDLE: Final = 16
LARGE: Final = 64.0
"""Megabytes of a large file."""
LARGE_SHARE: Final = 0.01
FAR_SHARE: Final = 0.5
"""Of the small files: those of partners 100 ms away."""
HOURS: Final = (2, 1, 1, 1, 1, 2, 4, 6, 8, 8, 7, 6, 6, 6, 6, 7, 8, 6, 4, 3, 3, 2, 1, 1)
"""What arrives in each hour of a day, in proportion: offices open, close, and batches run at night."""
WRITES: Final = 8
"""Item writes per file that the guard in tests/counting allows."""


@dataclass(frozen=True, slots=True)
class Day:
    """How a day went. Waits are seconds from arrival to a free slot."""

    workers: int
    slots: int
    files: int
    done_in_time: bool
    """All files of the day are through within ten minutes of its end."""
    busy: float
    """Share of the slots' time that was used."""
    wait_median: float
    wait_p99: float
    wait_longest: float
    peak_files_per_s: float
    """Arrivals in the busiest hour."""
    peak_item_writes_per_s: float


def simulate(times: Mapping[str, Sequence[float]], *, workers: int, slots: int, files: int, seed: int = 1) -> Day:
    """Returns a day of `files` files with `workers` workers of so many slots; times by kind: `small, far`, `small, near`, `large`."""
    pick = random.Random(seed)
    free = [0.0] * (workers * slots)
    waits: list[float] = []
    used = 0.0
    last = 0.0
    for arrival, kind, count in _arrivals(files, pick):
        took = sum(pick.choice(times[kind]) for _ in range(count))
        begins = max(arrival, free[0])
        heapq.heapreplace(free, begins + took)
        waits.append(begins - arrival)
        used += took
        last = max(last, begins + took)
    waits.sort()
    peak = files * max(HOURS) / sum(HOURS) / 3600
    return Day(
        workers=workers,
        slots=slots,
        files=files,
        done_in_time=last < DAY + 600,
        busy=round(min(1.0, used / (DAY * len(free))), 3),
        wait_median=round(waits[len(waits) // 2], 2),
        wait_p99=round(waits[len(waits) * 99 // 100], 2),
        wait_longest=round(waits[-1], 2),
        peak_files_per_s=round(peak, 1),
        peak_item_writes_per_s=round(peak * WRITES, 1),
    )


def _arrivals(files: int, pick: random.Random) -> Iterator[tuple[float, str, int]]:
    """Yields time, kind and number of files of each message, in order of time."""
    for hour, weight in enumerate(HOURS):
        here = files * weight / sum(HOURS)
        messages = int(here * (1 - LARGE_SHARE) / BUNDLE + here * LARGE_SHARE)
        bundles = here * (1 - LARGE_SHARE) / BUNDLE / max(1, messages)
        for number in range(messages):
            at = 3600 * (hour + (number + pick.random()) / messages)
            if pick.random() < bundles:
                yield at, "small, far" if pick.random() < FAR_SHARE else "small, near", BUNDLE
            else:
                yield at, "large", 1
