"""`ports.Ownership` for two regions: two acks before every commit, and a journal in each (DESIGN 6).

commit:   standing ─ intent at home IF (home, region_epoch, mode as read) ─ dual? at the peer IF (its home is me, its gate ≤ mine)
promote:  the peer's row changes home, gate and mode in one write ─ from then on it refuses the old home's intents, however late they come
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from eft.domain.ownership import Intent, IntentAnswer, JournalEntry, Mode, Phase, Standing
from eft.domain.transfer import Transfer
from eft.errors import EftError, LostOwnership, Transient, Undecidable
from eft.ports import Durability, OwnershipTable, Remembered

log = logging.getLogger(__name__)


class RegionPair:
    """One region's side of a pair."""

    def __init__(self, *, region: str, own: OwnershipTable, peer: OwnershipTable) -> None:
        self.region = region
        self._own = own
        self._peer = peer

    def standing(self, partition: int, *, begin: bool = False) -> Standing:
        """One read of the own table."""
        row = self._own.partition(partition)
        if row.home != self.region or row.phase is Phase.RELEASED or (begin and row.phase is not Phase.ACTIVE):
            msg = f"partition {partition} is {row.phase} at home in {row.home}, region_epoch {row.region_epoch}"
            raise LostOwnership(msg)
        if begin and not row.in_order:
            msg = f"partition {partition} has yet to learn what was delivered before region_epoch {row.region_epoch}"
            raise LostOwnership(msg)
        return Standing(partition=partition, home=row.home, region_epoch=row.region_epoch, mode=row.mode, phase=row.phase)

    def owned(self) -> Sequence[int]:
        """One query."""
        return [row.number for row in self._own.partitions() if row.home == self.region and row.phase is not Phase.RELEASED]

    def ack(self, intent: Intent) -> None:
        """Two writes under dual mode, three where one region had accepted alone; one under solo."""
        self._write(intent)

    def abandon(self, intent: Intent) -> None:
        """The same two writes, with the token given up."""
        self._write(intent.model_copy(update={"abandoned": True}))

    def renounce(self, transfer: Transfer) -> None:
        """Two writes under dual mode, each on the conditions of an ack."""
        standing = self._standing_of(transfer.partition, transfer.region_epoch)
        entry = JournalEntry(partition=transfer.partition, transfer=transfer.id, row=transfer.model_dump_json(exclude_defaults=True))
        epoch = transfer.region_epoch
        done = self._own.renounce(entry, home=self.region, region_epoch=epoch, mode=standing.mode)
        if not done or (standing.mode is Mode.DUAL and not self._peer.renounce(entry, home=self.region, region_epoch=epoch, mode=None)):
            msg = f"region_epoch {epoch} of partition {transfer.partition} is refused: transfer {transfer.id} is not ours to end"
            raise LostOwnership(msg)

    def remember(self, transfer: Transfer, *, demand_both: bool = False) -> Remembered:
        """Two reads and a write at the peer where this region is home; else a read, and a write in each journal.

        A peer that cannot be reached costs durability, not acceptance. What the own journal has was accepted before, in either
        region: the home makes its row of that entry (adoption), never a second one.
        """
        row = self._own.partition(transfer.partition)
        entry = JournalEntry(partition=transfer.partition, transfer=transfer.id, row=transfer.model_dump_json(exclude_defaults=True))
        durability = Durability.BOTH
        try:
            self._peer.journal(entry)
        except EftError as error:
            log.warning("on record in one region only", extra={"transfer": transfer.id, "reason": error.reason})
            durability = Durability.ONE
        if row.home == self.region:
            before = self._own.journal_entry(transfer.id)
        else:
            before = None if demand_both and durability is Durability.ONE else self._own.journal(entry)
        existing = None if before is None else Transfer.model_validate_json(before.row)
        return Remembered(durability=durability, home=row.home, region_epoch=row.region_epoch, existing=existing, evidence=row.evidence)

    def known(self, transfers: Sequence[str]) -> set[str]:
        """One batch of reads of the own journal."""
        return self._own.journalled(transfers)

    def forget(self, transfer: Transfer) -> None:
        """A journal that stays open costs a look after a promotion, nothing else."""
        for table in (self._own, self._peer):
            try:
                table.close_journal(transfer.id)
            except EftError as error:
                log.info("a journal stays open", extra={"transfer": transfer.id, "reason": error.reason})

    def _write(self, intent: Intent) -> None:
        standing = self._standing_of(intent.partition, intent.region_epoch)
        self._check(self._own.intend(intent, home=self.region, mode=standing.mode), intent, where=self.region)
        if standing.mode is Mode.DUAL:
            self._make_known(intent)
            answer = self._peer.intend(intent, home=self.region, mode=None)
            if answer is IntentAnswer.OTHER_TOKEN and not self._peer.partition(intent.partition).evidence:
                msg = f"the peer has yet to be told what was decided about transfer {intent.transfer}: rejoin is under way"
                raise Transient(msg, reason="rejoining", counts=False)
            self._check(answer, intent, where="the peer")

    def _standing_of(self, partition: int, region_epoch: int) -> Standing:
        standing = self.standing(partition)
        if standing.region_epoch != region_epoch:
            msg = f"partition {partition} is at region_epoch {standing.region_epoch}, not {region_epoch}"
            raise LostOwnership(msg)
        return standing

    def _make_known(self, intent: Intent) -> None:
        """What one region accepted alone is journalled by the other before it may be committed: discover there knows it for good."""
        if intent.row and Transfer.model_validate_json(intent.row).durability != Durability.BOTH:
            self._peer.journal(JournalEntry(partition=intent.partition, transfer=intent.transfer, row=intent.row))

    @staticmethod
    def _check(answer: IntentAnswer, intent: Intent, *, where: str) -> None:
        if answer is IntentAnswer.FENCED:
            msg = f"{where} refuses region_epoch {intent.region_epoch} of partition {intent.partition}"
            raise LostOwnership(msg)
        if answer is IntentAnswer.OTHER_TOKEN:
            msg = f"{where} has an attempt of transfer {intent.transfer} that was never abandoned"
            raise Undecidable(msg, reason="other_token")
