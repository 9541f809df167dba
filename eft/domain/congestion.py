"""How many connections an endpoint stands at a time: fewer where it refuses, cuts or slows down, and more again by and by (ADR 0022).

The customer's `max_connections` is the bound; below it `allowed` is found, for the whole fleet at once (`ports.Limits`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

EASES: Final = timedelta(seconds=5)
"""Time between two steps down: what was allowed last is seen at work first."""
WIDENS: Final = timedelta(seconds=15)
"""Time after which whoever needs one more connection than is allowed gets it, one each time."""
TRUSTED: Final = 8
"""Looks at a number of connections before its rate is compared."""
CLEARLY: Final = 0.8
"""A rate below this share of another is worse, and no accident."""
LASTS: Final = 120.0
"""Seconds for which a rate is remembered: links have other days."""
NEWER: Final = 0.3
"""Weight of the newest look in a rate."""


def after_refusal(taken: int) -> int:
    """Returns how many connections to allow where one more than the others was refused; `taken` counts it."""
    return max(1, taken - 1)


def after_cut(taken: int) -> int:
    """Returns how many connections to allow where one was cut in use while others live: half."""
    return max(1, (taken + 1) // 2)


@dataclass(slots=True)
class _Level:
    rate: float = 0.0
    looks: int = 0
    at: float = 0.0


@dataclass(slots=True)
class Gradient:
    """The rates that one process saw at each number of its connections to an endpoint that moved bytes at a time."""

    _levels: dict[int, _Level] = field(default_factory=dict)

    def note(self, connections: int, rate: float, *, now: float) -> int | None:
        """Takes what so many connections together moved a second; returns a smaller number that clearly moves more, if one does.

        That it returned once: what was taken back may show anew what it is worth. `now` is in seconds, of any clock that runs on.
        """
        level = self._levels.setdefault(connections, _Level())
        if now - level.at > LASTS:
            level.looks = 0
        level.rate = rate if not level.looks else level.rate + NEWER * (rate - level.rate)
        level.looks += 1
        level.at = now
        if level.looks < TRUSTED:
            return None
        known = {n: one for n, one in self._levels.items() if n < connections and one.looks >= TRUSTED and now - one.at <= LASTS}
        best = max(known, key=lambda n: known[n].rate, default=None)
        if best is None or level.rate >= CLEARLY * known[best].rate:
            return None
        level.looks = 0
        return best
