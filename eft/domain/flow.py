"""Flows: standing orders, and the policy that a transfer takes along."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from fnmatch import translate
from functools import lru_cache
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

import re2
from cronsim import CronSim, CronSimError
from pydantic import AwareDatetime, Field, field_validator, model_validator

from eft.domain.endpoint import Frozen
from eft.domain.fingerprint import RemoteFile
from eft.domain.names import check_template, directory_path


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
    """`auto`: SHA-256 where one worker sees all bytes in order, else full-object CRC64NVME; `sha256`: always, if need be read back."""

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

    name_template: str = "{path}"
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


class Selection(Frozen):
    """Which files of the source a flow takes."""

    directory: str = ""
    glob: str | None = None
    regex: str | None = Field(default=None, max_length=500)
    recursive: bool = False
    min_size: int = Field(default=0, ge=0)
    max_size: int | None = Field(default=None, ge=0)
    min_age: timedelta = timedelta(0)
    max_age: timedelta | None = None

    @field_validator("directory")
    @classmethod
    def _clean_directory(cls, value: str) -> str:
        return directory_path(value)

    @field_validator("regex")
    @classmethod
    def _is_regex(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                _regex(value)
            except re2.error as error:
                msg = f"is no regular expression of the RE2 syntax (no look-around, no back-references): {_said(error)}"
                raise ValueError(msg) from None
        return value

    @model_validator(mode="after")
    def _one_pattern(self) -> Self:
        if self.glob is not None and self.regex is not None:
            msg = "give glob or regex, not both"
            raise ValueError(msg)
        return self

    def below(self, path: str) -> str:
        """Returns a path relative to the selection's directory."""
        return path[len(self.directory) + 1 :] if self.directory and path.startswith(self.directory + "/") else path

    def names(self, path: str) -> bool:
        """Returns whether the pattern takes a path, given relative to the selection's directory.

        A glob without `/` is matched against the last component, one with `/` against the whole path (`*` crosses `/`); a regex, in
        RE2's syntax because that takes linear time whatever a customer writes, must match the whole path.
        """
        if self.regex is not None:
            return _regex(self.regex).fullmatch(path) is not None
        glob = self.glob or "*"
        return _compiled(translate(glob)).match(path if "/" in glob else path.rpartition("/")[2]) is not None

    def why_not(self, file: RemoteFile, *, now: datetime) -> str | None:
        """Returns why a listed file is left out, in words for a customer, or None if it is taken."""
        if not self.names(self.below(file.path)):
            return "its name does not match the pattern"
        if file.size < self.min_size:
            return f"smaller than {self.min_size} bytes"
        if self.max_size is not None and file.size > self.max_size:
            return f"larger than {self.max_size} bytes"
        age = timedelta(0) if file.modified is None else now - file.modified
        if file.modified is not None and age < self.min_age:
            return f"younger than {self.min_age}"
        if self.max_age is not None and age > self.max_age:
            return f"older than {self.max_age}"
        return None


class Manual(Frozen):
    """The flow runs when somebody asks."""

    kind: Literal["manual"] = "manual"


class Interval(Frozen):
    """The flow runs every so often."""

    kind: Literal["interval"] = "interval"
    every: timedelta = Field(ge=timedelta(seconds=1), le=timedelta(days=31))


class Cron(Frozen):
    """The flow runs by a five-field cron expression, in a time zone."""

    kind: Literal["cron"] = "cron"
    cron: str
    timezone: str = "UTC"

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, value: str) -> str:
        try:
            CronSim(value, datetime(2025, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            msg = f"is no cron expression of five fields: {error}"
            raise ValueError(msg) from None
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            msg = f"no time zone is named '{value}'; use an IANA name such as Europe/Berlin"
            raise ValueError(msg) from None
        return value


class Arrival(Frozen):
    """The flow takes an object as soon as its bucket tells of it; the source is a bucket.

    The source is listed besides, every so often: what no event told of, or what was too young when one did, is found then.
    """

    kind: Literal["arrival"] = "arrival"
    listed_every: timedelta = Field(default=timedelta(hours=1), ge=timedelta(minutes=1), le=timedelta(days=31))


Trigger = Annotated[Manual | Interval | Cron | Arrival, Field(discriminator="kind")]


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
    enabled: bool = True
    revision: int = 1
    created: AwareDatetime

    @field_validator("destination_directory")
    @classmethod
    def _clean_directory(cls, value: str) -> str:
        return directory_path(value)


@lru_cache(maxsize=512)
def _regex(pattern: str) -> Any:  # noqa: ANN401 - re2 is published without types
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options=options)


def _said(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
