"""What a region does by itself when it loses sight of the other, where a policy says so (DESIGN 6). Both must declare the same one.

peer-promotes   its table does not answer, or none of its leases is renewed ─ its partitions are promoted here, without evidence
                where it went on alone when last heard
home-solos      its table does not answer ─ the own partitions go on alone
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from eft.domain.ownership import Mode, PeerLoss, Phase
from eft.errors import EftError
from eft.ports import Engine, Lease, Peer
from eft.regions.orders import Order
from eft.regions.switch import promote, solo

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Vigil:
    """One process's eye on the other region, on its own clock. What it orders is conditional, so any number of them may look."""

    engine: Engine
    policy: PeerLoss
    patience: timedelta
    """How long the other region must be out of sight, at every look, before something is done."""
    _declared: bool = False
    _agreed: bool = False
    """Whether the other region, when last heard, had declared the same."""
    _leases: dict[int, Lease] | None = None
    _looked_at: float | None = None
    _sight_at: float = 0.0
    """When the other region was in sight, or nobody was looking."""
    _alone: frozenset[int] = frozenset()
    """Partitions in which it went on alone, when last heard: by a person's order from before the policy."""

    def look(self) -> int:
        """Looks once, acts where it is time, and returns how many partitions it changed.

        Raises:
            EftError: the own table cannot be asked.
        """
        peer = self.engine.peer
        if peer is None:
            return 0
        if not self._declared:
            peer.own.declare(self.policy)
            self._declared = True
        if self.policy is PeerLoss.OPERATOR:
            return 0
        in_sight, now, patience = self._in_sight(peer), self.engine.clock.monotonic(), self.patience.total_seconds()
        # Who slept through half of it has not watched.
        slept = self._looked_at is None or now - self._looked_at > patience / 2
        self._looked_at = now
        if in_sight or slept:
            self._sight_at = now
        if now - self._sight_at < patience:
            return 0
        if not self._agreed:
            log.error("the other region is out of sight; it never declared the same policy, so a person must decide")
            return 0
        return self._act(peer)

    def _in_sight(self, peer: Peer) -> bool:
        try:
            self._agreed = peer.table.declared() is self.policy
            leases = peer.table.leases()
            if self.policy is PeerLoss.PEER_PROMOTES:
                self._alone = frozenset(row.number for row in peer.table.partitions() if row.home == peer.region and row.mode is Mode.SOLO)
        except EftError:
            return False
        moved = leases != self._leases
        self._leases = leases
        return moved or self.policy is PeerLoss.HOME_SOLOS

    def _act(self, peer: Peer) -> int:
        """One partition's trouble leaves the others alone."""
        order = Order(by=f"policy {self.policy}", why=f"{peer.region} has been out of sight for {self.patience}", ticket="none")
        changed = 0
        for row in peer.own.partitions():
            ours = row.home == self.engine.ownership.region
            try:
                if self.policy is PeerLoss.PEER_PROMOTES and not ours:
                    promote(self.engine, row.number, order, old_home_may_be_solo=row.number in self._alone)
                elif self.policy is PeerLoss.HOME_SOLOS and ours and row.mode is Mode.DUAL and row.phase is not Phase.RELEASED:
                    solo(self.engine, row.number, order)
                else:
                    continue
            except EftError as error:
                log.warning("a partition stays as it is", extra={"partition": row.number, "reason": error.reason})
            else:
                changed += 1
        if changed:
            log.warning("acted by policy", extra={"policy": self.policy, "partitions": changed})
        return changed
