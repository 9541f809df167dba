"""Partitions, and what operators order about them, as the API takes and shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from api.schemas.base import Asked, Shown
from eft.domain.ownership import Mode, Phase


class OrderAsked(Asked):
    """Why a partition is changed; it stays on record with who asked."""

    why: str = Field(min_length=3, max_length=500)
    ticket: str = Field(min_length=1, max_length=100)


class PromoteAsked(OrderAsked):
    """A forced promotion."""

    old_home_may_be_solo: bool
    """Whether the old home may have committed without us: then what has no evidence here is held until the regions rejoin."""


class ConfirmAsked(Asked):
    """A second person's word."""

    why: str | None = Field(default=None, max_length=500)


class PreviewAsked(Asked):
    """Which promotion to preview."""

    old_home_may_be_solo: bool = False


class PreviewShown(Shown):
    """What a promotion would hold."""

    will_be_held: int
    ids: tuple[str, ...]


class PartitionShown(Shown):
    """A partition as this region's table has it; `peer_…` as the other's has it, where the link is up."""

    number: int
    home: str
    region_epoch: int
    mode: Mode
    phase: Phase
    evidence: bool
    changed_by: str | None
    why: str | None
    ticket: str | None
    changed_at: AwareDatetime | None
    peer_home: str | None
    peer_region_epoch: int | None


class PartitionPage(Shown):
    """All partitions."""

    region: str
    """This one."""
    link: bool
    """Whether the peer answers."""
    items: tuple[PartitionShown, ...]


class ProposalShown(Shown):
    """What one operator proposes and another is to confirm."""

    id: str
    action: Literal["promote", "solo"]
    partition: int
    by: str
    why: str
    ticket: str
    old_home_may_be_solo: bool
    expires: AwareDatetime


class SwitchShown(Shown):
    """A partition after a change, or the proposal that waits for a second person."""

    partition: PartitionShown | None
    proposal: ProposalShown | None
