"""Who does a partition's chores (sweep, fires): a lease that saves work, judged on the waiter's own clock.

holder   renew IF (owner, lease_epoch) ─ every third of the lease; stops by itself at two thirds without a renewal
waiter   sees rvn ─ takes over IF the lease is still the one seen, once rvn stood still for a whole lease on its own clock
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from eft.errors import EftError, Permanent
from eft.ports import Engine, Lease, OwnershipTable

LEASE = timedelta(seconds=15)


@dataclass(slots=True)
class Chores:
    """One process's share of its region's chores. With one region it has them all, without a lease: conditional writes decide."""

    engine: Engine
    owner: str
    length: timedelta = LEASE
    _seen: dict[int, tuple[Lease, float]] = field(default_factory=dict)
    """Others' leases, and when this process first saw them stand so."""
    _mine: dict[int, tuple[Lease, float]] = field(default_factory=dict)
    """Own leases, and when they were last renewed."""

    def mine(self) -> Sequence[int]:
        """Returns the partitions whose chores are this process's now, after renewing and taking over what may be."""
        owned = self.engine.ownership.owned()
        if self.engine.peer is None:
            return owned
        leases = self.engine.peer.own.leases()
        return [number for number in owned if self._hold(number, leases.get(number))]

    def _hold(self, number: int, stands: Lease | None) -> bool:
        held = self._mine.get(number)
        if held is not None:
            return self._renewed(number, *held)
        return self._taken(number, stands)

    def _renewed(self, number: int, lease: Lease, renewed_at: float) -> bool:
        now, length = self.engine.clock.monotonic(), self.length.total_seconds()
        if now - renewed_at < length / 3:
            return True
        try:
            if self._table().renew_lease(number, owner=self.owner, lease_epoch=lease.lease_epoch):
                self._mine[number] = (lease, now)
                return True
            del self._mine[number]
        except EftError:
            pass
        return number in self._mine and now - renewed_at < length * 2 / 3

    def _taken(self, number: int, stands: Lease | None) -> bool:
        now = self.engine.clock.monotonic()
        if stands is not None:
            lease, since = self._seen.get(number, (None, now))
            if lease != stands:
                self._seen[number] = (stands, now)
                return False
            if now - since < self.length.total_seconds():
                return False
        taken = self._table().lease(number, owner=self.owner, seen=stands)
        if taken is None:
            return False
        self._seen.pop(number, None)
        self._mine[number] = (taken, now)
        return True

    def _table(self) -> OwnershipTable:
        if self.engine.peer is None:
            msg = "one region is configured: there are no leases"
            raise Permanent(msg, reason="no_peer")
        return self.engine.peer.own
