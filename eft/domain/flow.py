"""Flows: standing orders, and the policy that a transfer takes along."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Self

from pydantic import AwareDatetime, Field, field_validator, model_validator

from eft.domain.endpoint import Frozen
from eft.domain.names import check_template, directory_path
from eft.domain.selection import Selection, Stability
from eft.domain.trigger import Arrival, Cron, Expected, Interval, Manual, Misfire, Once, Trigger

__all__ = [
    "Arrival",
    "Checksum",
    "ConflictMode",
    "Cron",
    "Disposition",
    "Expected",
    "Flow",
    "Interval",
    "Manual",
    "Misfire",
    "Once",
    "Policy",
    "Priority",
    "Retry",
    "Selection",
    "Stability",
    "Trigger",
]


class ConflictMode(StrEnum):
    """What happens when the destination name exists already."""

    FAIL = "fail"
    OVERWRITE = "overwrite"
    SKIP = "skip"
    RENAME = "rename"


class Disposition(StrEnum):
    """What happens to the source file once it is delivered."""

    KEEP = "keep"
    DELETE = "delete"
    ARCHIVE = "archive"


class Checksum(StrEnum):
    """`auto`: SHA-256 of small files, full-object CRC64NVME of large ones, for a twentieth of the CPU; `sha256`: always, by reading back
    if need be.
    """

    AUTO = "auto"
    SHA256 = "sha256"


class Priority(StrEnum):
    """Class of a flow: how much of its tenant's admission window it may fill (bulk half of it, normal all but one, urgent all)."""

    BULK = "bulk"
    NORMAL = "normal"
    URGENT = "urgent"


class Retry(Frozen):
    """Exponential back-off with jitter: `first` × 2ⁿ up to `longest`, for at most `tries` tries of one step."""

    tries: int = Field(default=8, ge=1, le=100)
    first: timedelta = Field(default=timedelta(seconds=5), ge=timedelta(milliseconds=100), le=timedelta(hours=1))
    longest: timedelta = Field(default=timedelta(minutes=15), ge=timedelta(seconds=1), le=timedelta(days=1))

    def pause(self, tries: int, *, jitter: float) -> timedelta:
        """Returns the pause after failed try number `tries` (from 1); `jitter` in [0, 1) spreads it over [½, 1) of the full pause."""
        full = min(self.longest, self.first * 2 ** min(tries - 1, 30))
        return timedelta(seconds=full.total_seconds() * (0.5 + jitter / 2))


class Policy(Frozen):
    """How one transfer is carried out; copied onto the transfer when it is accepted, so a later change of the flow leaves it alone."""

    name_template: str = Field(default="{path}", max_length=1024)
    conflict: ConflictMode = ConflictMode.FAIL
    disposition: Disposition = Disposition.KEEP
    archive_directory: str | None = None
    create_directories: bool = True
    checksum: Checksum = Checksum.AUTO
    sidecar: bool = False
    """Compare with `<file>.sha256` beside the source, which must then exist."""
    staging: bool | None = None
    """Whether the bytes go through the staging bucket; by default only SFTP → SFTP does."""
    receiver_removes: bool = False
    """The receiver takes files as they appear, and nothing else removes our temporary names (DESIGN 5)."""
    receiver_keeps: bool = False
    """Nobody removes what has arrived, or overwrites it: small files may go to a bucket in one request (docs/adr/0017)."""
    both_regions: bool = False
    """A transfer is accepted only when both regions have it on record."""
    priority: Priority = Priority.NORMAL
    retry: Retry = Retry()

    @field_validator("name_template")
    @classmethod
    def _known_fields(cls, value: str) -> str:
        return check_template(value)

    @field_validator("archive_directory")
    @classmethod
    def _clean_archive(cls, value: str | None) -> str | None:
        return None if value is None else directory_path(value)

    @model_validator(mode="after")
    def _archive_needs_directory(self) -> Self:
        if (self.disposition is Disposition.ARCHIVE) != bool(self.archive_directory):
            msg = "archive_directory goes with disposition 'archive', and only with it"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _receiver_does_one_of_two(self) -> Self:
        if self.receiver_keeps and self.receiver_removes:
            msg = "receiver_keeps and receiver_removes exclude each other: the receiver leaves files where they arrive, or takes them"
            raise ValueError(msg)
        return self


class Flow(Frozen):
    """A standing order: source endpoint + selection → destination endpoint."""

    id: str
    tenant: str
    name: str = Field(min_length=1, max_length=120)
    source: str
    """Id of the source endpoint."""
    destination: str
    """Id of the destination endpoint."""
    destination_directory: str = ""
    selection: Selection = Selection()
    policy: Policy = Policy()
    trigger: Trigger = Manual()
    expected: Expected | None = None
    """By when files must have come."""
    enabled: bool = True
    revision: int = 1
    created: AwareDatetime
    scheduled_since: AwareDatetime | None = None
    """Since when its schedule holds, where that is not its creation: it was resumed then, or got another trigger."""

    @field_validator("destination_directory")
    @classmethod
    def _clean_directory(cls, value: str) -> str:
        return directory_path(value)
