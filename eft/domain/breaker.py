"""The rule of an endpoint's circuit breaker; where its state is kept is an adapter's matter."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

THRESHOLD = 5
"""Failures in a row that open a breaker."""
FIRST_PAUSE = timedelta(seconds=15)
LONGEST_PAUSE = timedelta(minutes=5)
PROBE = timedelta(seconds=60)
"""How long others wait for the outcome of a probe; after it, the next caller probes."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """Closed without `shut_until`; else open until that time, then half-open: one caller probes, the others wait."""

    failures: int = 0
    """In a row."""
    opened: int = 0
    """Times opened since it was last closed."""
    shut_until: datetime | None = None
    probing: bool = False

    def failed(self, now: datetime) -> Breaker:
        """Returns the breaker after one more failure; what was under way when it opened does not lengthen the pause."""
        failures = self.failures + 1
        waits = self.shut_until is not None and now < self.shut_until
        if failures < THRESHOLD or (waits and not self.probing):
            return Breaker(failures, self.opened, self.shut_until, self.probing)
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self.opened, 10))
        return Breaker(failures, self.opened + 1, now + pause)

    def inconclusive(self, now: datetime) -> Breaker | None:
        """Returns the breaker with its probe given back, or None where there is none."""
        return Breaker(self.failures, self.opened, now) if self.probing else None

    def probed(self, now: datetime) -> Breaker | None:
        """Returns the breaker while the caller probes, or None when it may not: closed needs none, shut allows none."""
        if self.shut_until is None or now < self.shut_until:
            return None
        return Breaker(self.failures, self.opened, now + PROBE, probing=True)
