"""Fakes for two regions: an ownership table, a link that can be cut, and a pair of worlds that share customers' servers."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from eft.domain.names import PARTITIONS, partition_of
from eft.domain.ownership import Intent, IntentAnswer, JournalEntry, Mode, Partition, PeerLoss, Proposal, first_homes, may_replace
from eft.errors import Permanent, Transient
from eft.ports import Lease, Peer
from eft.regions.pair import RegionPair
from tests.world import SMALL, TENANT, World

WEST, EAST = "us-gov-west-1", "us-gov-east-1"


@dataclass
class FakeOwnershipTable:
    """`ports.OwnershipTable` in memory, safe for threads."""

    rows: dict[int, Partition] = field(default_factory=dict)
    written: dict[str, Intent] = field(default_factory=dict)
    entries: dict[str, JournalEntry] = field(default_factory=dict)
    taken: dict[int, Lease] = field(default_factory=dict)
    proposals: dict[str, Proposal] = field(default_factory=dict)
    policy: PeerLoss = PeerLoss.OPERATOR
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)

    def partitions(self) -> Sequence[Partition]:
        return [self.rows[n] for n in sorted(self.rows)]

    def partition(self, number: int) -> Partition:
        if number not in self.rows:
            raise Permanent(f"partition {number} is not set up", reason="partition_unknown")
        return self.rows[number]

    def change(self, new: Partition, *, seen: Partition) -> bool:
        with self._lock:
            stands = self.rows.get(new.number)
            if stands is None or stands.decisive != seen.decisive:
                return stands == new
            self.rows[new.number] = new
            return True

    def add(self, first: Partition) -> None:
        self.rows.setdefault(first.number, first)

    def intend(self, intent: Intent, *, home: str, mode: Mode | None) -> IntentAnswer:
        with self._lock:
            if not self._allows(intent.partition, home=home, region_epoch=intent.region_epoch, mode=mode):
                return IntentAnswer.FENCED
            stands = self.written.get(intent.transfer)
            if stands is not None and not may_replace(stands, intent):
                return IntentAnswer.OTHER_TOKEN
            self.written[intent.transfer] = intent
            return IntentAnswer.ACKED

    def intent(self, transfer: str) -> Intent | None:
        return self.written.get(transfer)

    def intents(self, partition: int) -> Iterator[Intent]:
        yield from [one for one in self.written.values() if one.partition == partition]

    def journal(self, entry: JournalEntry) -> JournalEntry | None:
        with self._lock:
            if entry.transfer in self.entries:
                return self.entries[entry.transfer]
            self.entries[entry.transfer] = entry
            return None

    def close_journal(self, transfer: str) -> None:
        with self._lock:
            if transfer in self.entries:
                self.entries[transfer] = self.entries[transfer].model_copy(update={"closed": True})

    def renounce(self, entry: JournalEntry, *, home: str, region_epoch: int, mode: Mode | None) -> bool:
        with self._lock:
            if not self._allows(entry.partition, home=home, region_epoch=region_epoch, mode=mode):
                return False
            self.entries[entry.transfer] = entry.model_copy(update={"closed": True})
            return True

    def _allows(self, number: int, *, home: str, region_epoch: int, mode: Mode | None) -> bool:
        row = self.rows.get(number)
        if row is None or row.home != home or row.region_epoch > region_epoch:
            return False
        return mode is None or (row.mode is mode and row.region_epoch == region_epoch)

    def journals(self, partition: int, *, open_only: bool = True) -> Iterator[JournalEntry]:
        yield from [e for e in self.entries.values() if e.partition == partition and not (open_only and e.closed)]

    def journalled(self, transfers: Sequence[str]) -> set[str]:
        return {one for one in transfers if one in self.entries}

    def journal_entry(self, transfer: str) -> JournalEntry | None:
        return self.entries.get(transfer)

    def propose(self, proposal: Proposal) -> None:
        self.proposals.setdefault(proposal.id, proposal)

    def proposal(self, proposal_id: str) -> Proposal | None:
        return self.proposals.get(proposal_id)

    def declare(self, policy: PeerLoss) -> None:
        self.policy = policy

    def declared(self) -> PeerLoss:
        return self.policy

    def lease(self, number: int, *, owner: str, seen: Lease | None) -> Lease | None:
        new = Lease(owner=owner, lease_epoch=1 if seen is None else seen.lease_epoch + 1, rvn=1 if seen is None else seen.rvn + 1)
        with self._lock:
            stands = self.taken.get(number)
            if stands not in {seen, new}:
                return None
            self.taken[number] = new
            return new

    def renew_lease(self, number: int, *, owner: str, lease_epoch: int) -> bool:
        with self._lock:
            stands = self.taken.get(number)
            if stands is None or (stands.owner, stands.lease_epoch) != (owner, lease_epoch):
                return False
            self.taken[number] = replace(stands, rvn=stands.rvn + 1)
            return True

    def leases(self) -> dict[int, Lease]:
        return dict(self.taken)


class Linked:
    """A peer's port over a link: while it is cut, every call is `peer_unreachable`."""

    def __init__(self, port: object, link: Link) -> None:
        self._port, self._link = port, link

    def __getattr__(self, call: str) -> Any:  # noqa: ANN401 - a port's method
        found = getattr(self._port, call)

        def passed(*args: object, **named: object) -> object:
            if self._link.cut:
                raise Transient("the peer region does not answer", reason="peer_unreachable", counts=False)
            return found(*args, **named)

        return passed


@dataclass
class Link:
    """Between the regions."""

    cut: bool = False


class Pair:
    """Two regions, each with its own rows, queue and staging, and the same customers."""

    def __init__(self) -> None:
        self.link = Link()
        self.west = World(tuning=SMALL)
        self.east = World(tuning=SMALL, clock=self.west.clock)
        self.tables = {WEST: FakeOwnershipTable(), EAST: FakeOwnershipTable()}
        for row in first_homes((WEST, EAST), PARTITIONS):
            for table in self.tables.values():
                table.add(row)
        self.east.stores.servers = self.west.stores.servers
        self._tie(self.west, WEST, EAST, self.east)
        self._tie(self.east, EAST, WEST, self.west)

    def _tie(self, world: World, region: str, other: str, peer: World) -> None:
        table: Any = Linked(self.tables[other], self.link)
        ledger: Any = Linked(peer.ledger, self.link)
        world.engine = replace(
            world.engine,
            clock=self.west.clock,
            registry=self.west.registry,
            ownership=RegionPair(region=region, own=self.tables[region], peer=table),
            peer=Peer(region=other, own=self.tables[region], table=table, ledger=ledger),
        )


def home_of(pair: Pair, destination: str) -> tuple[int, World, World]:
    """Returns the partition of a destination, its home's world and the other."""
    number = partition_of(TENANT, destination)
    at_west = pair.tables[WEST].partition(number).home == WEST
    return number, *((pair.west, pair.east) if at_west else (pair.east, pair.west))
