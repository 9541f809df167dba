"""The machine's clock and randomness."""

from __future__ import annotations

import random
import secrets
import time
from datetime import UTC, datetime

_RANDOM = random.SystemRandom()


class SystemClock:
    """`ports.Clock`."""

    def now(self) -> datetime:
        """Returns the time."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Returns seconds since some moment."""
        return time.monotonic()

    def jitter(self) -> float:
        """Returns a random number in [0, 1)."""
        return _RANDOM.random()

    def nonce(self) -> str:
        """Returns 16 random hex digits."""
        return secrets.token_hex(8)
