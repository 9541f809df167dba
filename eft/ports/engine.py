"""All ports of one process, and the journey's figures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from eft.domain.parts import MIB
from eft.ports.announcing import Announcing
from eft.ports.files import Stores
from eft.ports.regions import Ownership, OwnershipTable
from eft.ports.rows import Ledger, Limits, Registry, Secrets


class Clock(Protocol):
    """Time, randomness and identity, so that the whole engine runs under a simulated one."""

    def now(self) -> datetime:
        """Returns the time, aware, in UTC."""

    def monotonic(self) -> float:
        """Returns seconds on a clock that never goes back."""

    def jitter(self) -> float:
        """Returns a random number in [0, 1)."""

    def nonce(self) -> str:
        """Returns 16 random lower-case hex digits."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """Figures of the journey; settings fill them."""

    part_size: int = 8 * MIB
    lane_width: int = 4
    """Lanes of one large file at once, where its destination allows parallel writers."""
    lane_threshold: int = 4
    """Parts from which on a file is worth lanes."""
    inline_size: int = 16 * MIB
    """Files up to this size go through all steps in one slice."""
    slice: timedelta = timedelta(seconds=45)
    lease: timedelta = timedelta(seconds=75)
    """Life of a claim; longer than a slice, shorter than the queue's visibility timeout."""
    stall: timedelta = timedelta(seconds=120)
    """Time without any write to a row after which the sweep looks."""
    tenant_window: int = 16
    """Slices in flight per tenant."""
    admission_lease: timedelta = timedelta(seconds=75)
    staging_retention: timedelta = timedelta(days=14)
    stale_upload_age: timedelta = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Peer:
    """What a process knows of the other region, and the table that speaks for its own."""

    region: str
    own: OwnershipTable
    table: OwnershipTable
    """The peer's, over the link."""
    ledger: Ledger
    """The peer's, over the link."""


@dataclass(frozen=True, slots=True)
class Engine:
    """All ports of one process."""

    clock: Clock
    ledger: Ledger
    limits: Limits
    registry: Registry
    secrets: Secrets
    stores: Stores
    ownership: Ownership
    tuning: Tuning = field(default_factory=Tuning)
    peer: Peer | None = None
    """None where one region is configured."""
    pause: Callable[[float], None] = time.sleep
    """Lets seconds pass."""
    announcing: Announcing | None = None
    """None where nobody is ever told of anything."""
