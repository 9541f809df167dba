"""Ports of ownership: who has a partition, and the acks of two regions (DESIGN 6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from eft.domain.ownership import Intent, IntentAnswer, JournalEntry, Mode, Partition, PeerLoss, Proposal, Standing
from eft.domain.transfer import Transfer


class OwnershipTable(Protocol):
    """One region's ownership table: partitions, intents, accept journals. It never replicates; a peer's is reached over the link.

    Raises everywhere:
        Transient: `peer_unreachable` from a peer's table behind a broken link, else what the vendor's error says.
    """

    def partitions(self) -> Sequence[Partition]:
        """Returns all partitions by number."""

    def partition(self, number: int) -> Partition:
        """Returns one, read consistently."""

    def change(self, new: Partition, *, seen: Partition) -> bool:
        """Writes a partition IF home, region_epoch, mode, phase and evidence are still those seen; returns whether they were."""

    def add(self, first: Partition) -> None:
        """Puts a partition IF absent; nothing happens if it is there."""

    def intend(self, intent: Intent, *, home: str, mode: Mode | None) -> IntentAnswer:
        """Writes an intent IF the partition's home is `home`, its gate is not above the intent's region_epoch, and `may_replace` allows it.

        Where `mode` is given, the gate must equal the region_epoch and the mode be this; abandoned intents follow the same rules.
        """

    def intent(self, transfer: str) -> Intent | None:
        """Returns the intent of a transfer."""

    def intents(self, partition: int) -> Iterator[Intent]:
        """Yields the intents of a partition."""

    def journal(self, entry: JournalEntry) -> JournalEntry | None:
        """Puts an entry IF absent; returns None when written, else the entry that stands there."""

    def close_journal(self, transfer: str) -> None:
        """Notes that a transfer rests for good; nothing happens if there is no entry."""

    def renounce(self, entry: JournalEntry, *, home: str, region_epoch: int, mode: Mode | None) -> bool:
        """Puts a closed entry in the place of whatever stands, on `intend`'s conditions of the partition; returns whether they held."""

    def journals(self, partition: int, *, open_only: bool = True) -> Iterator[JournalEntry]:
        """Yields the entries of a partition."""

    def journalled(self, transfers: Sequence[str]) -> set[str]:
        """Returns those of the ids that have an entry."""

    def journal_entry(self, transfer: str) -> JournalEntry | None:
        """Returns a transfer's entry."""

    def propose(self, proposal: Proposal) -> None:
        """Puts a proposal IF absent."""

    def proposal(self, proposal_id: str) -> Proposal | None:
        """Returns a proposal."""

    def declare(self, policy: PeerLoss) -> None:
        """Notes what this region does when it loses sight of the other."""

    def declared(self) -> PeerLoss:
        """Returns what was declared last; `operator` where nothing was."""

    def lease(self, number: int, *, owner: str, seen: Lease | None) -> Lease | None:
        """Takes a partition's chores IF its lease is still the one seen (None: there is none); returns it with the next lease_epoch."""

    def renew_lease(self, number: int, *, owner: str, lease_epoch: int) -> bool:
        """Raises `rvn` IF owner and lease_epoch are these; returns whether they were."""

    def leases(self) -> dict[int, Lease]:
        """Returns who has the chores of which partition."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Who does a partition's chores (sweep, fires). It saves work; fences and region_epoch save files."""

    owner: str
    lease_epoch: int
    rvn: int
    """Rises with each renewal: whoever waits takes over only when it stood still on the waiter's own clock."""


class Ownership(Protocol):
    """Which region owns a partition, and the peer's ack before a commit (DESIGN 6)."""

    region: str

    def standing(self, partition: int, *, begin: bool = False) -> Standing:
        """Returns this region's right to the partition; `begin` asks for the right to begin something new there.

        Raises:
            LostOwnership: another region is its home; or `begin` is asked for, and it is draining or has not learnt yet what was delivered.
        """

    def owned(self) -> Sequence[int]:
        """Returns the partitions whose home is this region."""

    def ack(self, intent: Intent) -> None:
        """Returns once the intent is written at home and, under dual mode, acknowledged by the peer.

        Raises:
            LostOwnership: a higher region_epoch fences this one.
            Undecidable: `other_token`: an attempt that was never abandoned may have been committed.
            Transient: `peer_unreachable`; nothing may be committed.
        """

    def abandon(self, intent: Intent) -> None:
        """Writes ABANDON(token), at home and at the peer, before the token is consumed without a commit.

        Raises:
            LostOwnership: a higher region_epoch fences this one.
            Transient: `peer_unreachable`.
        """

    def renounce(self, transfer: Transfer) -> None:
        """Returns once it is on record that a transfer will not be delivered: at home and, under dual mode, at the peer.

        It comes before a transfer is cancelled, as an ack comes before a commit: what a fenced home gives up, the next one delivers.

        Raises:
            LostOwnership: a higher region_epoch fences the transfer's.
            Transient: `peer_unreachable`; it must not be called cancelled.
        """

    def remember(self, transfer: Transfer, *, demand_both: bool = False) -> Remembered:
        """Journals an accepted transfer in the peer region before its row is created at home; in both where the peer is its home.

        With `demand_both` nothing is written here when the peer cannot be reached.
        """

    def known(self, transfers: Sequence[str]) -> set[str]:
        """Returns those of the ids that this region's journal has: transfers accepted wherever, in any era."""

    def forget(self, transfer: Transfer) -> None:
        """Notes in the journals, best effort, that a transfer rests for good."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """The answer to `remember`."""

    durability: Durability
    home: str
    """The region that creates its row and carries it out."""
    region_epoch: int = 0
    existing: Transfer | None = None
    """The transfer as this region's journal had it before."""
    evidence: bool = True
    """Whether this region knows everything that may have been delivered so far."""


class Durability(StrEnum):
    """In how many regions an accepted transfer is on record."""

    ONE = "single-region"
    BOTH = "both-regions"
