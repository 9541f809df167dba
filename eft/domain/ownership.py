"""Ownership of partitions by regions (DESIGN 6): one row per partition in each region's own table, never replicated.

home's row   { home: me,   region_epoch, mode, state }      decides who executes, and whether a commit needs the peer
peer's row   { home: them, region_epoch (its gate), … }     acknowledges the home's commits, or refuses them once it was promoted
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime

from eft.domain.endpoint import Frozen


class Mode(StrEnum):
    """Whether a commit needs the peer's ack."""

    DUAL = "dual"
    SOLO = "solo"


class Phase(StrEnum):
    """Where a partition stands in a planned switch: `draining` begins nothing new, `released` waits for its next home."""

    ACTIVE = "active"
    DRAINING = "draining"
    RELEASED = "released"


class PeerLoss(StrEnum):
    """Who acts when a region does not hear from the other for long: a person, or one of the regions. Both regions declare the same."""

    OPERATOR = "operator"
    """Commits pause until a person declares solo, or promotes."""
    PEER_PROMOTES = "peer-promotes"
    """Who loses sight of a home takes its partitions over; a home never goes on alone."""
    HOME_SOLOS = "home-solos"
    """A home that loses sight of its peer goes on alone; the peer takes over only at a person's word."""


class Partition(Frozen):
    """A partition as one region's ownership table holds it."""

    number: int
    home: str
    region_epoch: int
    """Rises only when the home changes; fences every earlier home. In the peer's table it is the gate."""
    mode: Mode = Mode.DUAL
    phase: Phase = Phase.ACTIVE
    evidence: bool = True
    """Whether this table knows everything that may have been committed so far; False once the home may have committed alone."""
    ordered: int = 0
    """The last region_epoch of this region for which its ledger learnt what had been delivered where before; nothing begins until then."""
    changed_by: str | None = None
    why: str | None = None
    ticket: str | None = None
    changed_at: AwareDatetime | None = None

    @property
    def in_order(self) -> bool:
        """Whether the ledger of this home knows what was delivered before; under the first region_epoch nothing was."""
        return self.ordered >= self.region_epoch or self.region_epoch == 1

    @property
    def decisive(self) -> tuple[str, int, Mode, Phase, bool]:
        """What a change is conditional on; who made the last one is not."""
        return (self.home, self.region_epoch, self.mode, self.phase, self.evidence)


class Standing(Frozen):
    """This region's right to a partition, as its own ownership table says now."""

    partition: int
    home: str
    region_epoch: int
    mode: Mode
    phase: Phase = Phase.ACTIVE


class Intent(Frozen):
    """What is announced before a commit: this attempt of this transfer will consume this token."""

    partition: int
    transfer: str
    attempt: int
    token: str
    region_epoch: int
    row: str = ""
    """The committing row as JSON: what another region needs to settle it by its token."""
    abandoned: bool = False
    """ABANDON(token) is written: a later attempt may take this one's place."""


class IntentAnswer(StrEnum):
    """What became of an intent."""

    ACKED = "acked"
    FENCED = "fenced"
    """The table's row names another home, a higher region_epoch or another mode."""
    OTHER_TOKEN = "other_token"
    """An attempt that was never abandoned stands there with another token."""


class JournalEntry(Frozen):
    """An accepted transfer as each region remembers it, with no end: who accepts or discovers asks here first."""

    partition: int
    transfer: str
    row: str
    """The accepted row as JSON."""
    closed: bool = False
    """The transfer has come to rest for good; the entry stays, for the source may still show the file."""


class Proposal(Frozen):
    """A change that one operator proposes and another is to confirm."""

    id: str
    action: Literal["promote", "solo"]
    partition: int
    by: str
    why: str
    ticket: str
    old_home_may_be_solo: bool = False
    expires: AwareDatetime


def may_replace(stands: Intent, new: Intent) -> bool:
    """Returns whether an intent may stand in another's place: the same token again, or a later attempt after an abandoned one.

    ABANDON(token) is final: the same token is never announced as live again.
    """
    if new.token == stands.token:
        return new.abandoned or not stands.abandoned
    return stands.abandoned and new.attempt > stands.attempt


def first_homes(regions: tuple[str, str], partitions: int) -> list[Partition]:
    """Returns the partitions of a new pair of regions: even numbers at home in the first, odd ones in the second."""
    return [Partition(number=n, home=regions[n % 2], region_epoch=1) for n in range(partitions)]
