"""Ownership where one region is configured: this region is every partition's home, and there is no peer to ask.

DESIGN 6's protocol for two regions takes the place of this class; the callers ask the same questions and get the same errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from eft.domain.names import PARTITIONS
from eft.domain.ownership import Intent, Mode, Standing
from eft.domain.transfer import Transfer
from eft.errors import LostOwnership
from eft.ports import Durability, Remembered

REGION_EPOCH: Final = 1
"""The first, and while no other region can become home, the only one."""


class SingleRegionOwnership:
    """`ports.Ownership` without a peer; no requests."""

    def __init__(self, *, region: str) -> None:
        self.region = region

    def standing(self, partition: int, *, begin: bool = False) -> Standing:
        """Solo: commits need no ack; whatever may go on may also begin."""
        del begin
        return Standing(partition=partition, home=self.region, region_epoch=REGION_EPOCH, mode=Mode.SOLO)

    def owned(self) -> Sequence[int]:
        """All partitions."""
        return range(PARTITIONS)

    def ack(self, intent: Intent) -> None:
        """Nothing to write: the committing row itself is the intent at home, and its fence decides."""
        _admit(intent)

    def abandon(self, intent: Intent) -> None:
        """Nothing to write: consuming the token decides."""
        _admit(intent)

    def renounce(self, transfer: Transfer) -> None:
        """Nothing to write: the row itself says so."""
        _admit_epoch(transfer.partition, transfer.region_epoch)

    def remember(self, transfer: Transfer, *, demand_both: bool = False) -> Remembered:
        """Nothing to write: there is no other region."""
        del transfer, demand_both
        return Remembered(durability=Durability.ONE, home=self.region, region_epoch=REGION_EPOCH)

    def known(self, transfers: Sequence[str]) -> set[str]:
        """None: what was accepted has a row."""
        del transfers
        return set()

    def forget(self, transfer: Transfer) -> None:
        """Nothing to write."""


def _admit(intent: Intent) -> None:
    _admit_epoch(intent.partition, intent.region_epoch)


def _admit_epoch(partition: int, region_epoch: int) -> None:
    if region_epoch < REGION_EPOCH:
        msg = f"partition {partition} is at region_epoch {REGION_EPOCH}, not {region_epoch}"
        raise LostOwnership(msg)
