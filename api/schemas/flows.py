"""Flows as the API takes and shows them."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Literal

from pydantic import AwareDatetime, Field, field_validator, model_validator

from api.schemas.base import Asked, Directory, Id, Line, Shown
from eft.domain.flow import Expected, Manual, Policy, Selection, Trigger
from eft.journey.plan import Outlook


class FlowNew(Asked):
    """A standing order: files of the source endpoint that the selection takes go to the destination endpoint."""

    name: Line
    source: Id
    destination: Id
    destination_directory: Directory = ""
    selection: Selection = Selection()
    policy: Policy = Policy()
    trigger: Trigger = Manual()
    expected: Expected | None = None
    """By when files must have come."""
    enabled: bool = True

    @field_validator("selection")
    @classmethod
    def _sensible_ages(cls, value: Selection) -> Selection:
        if value.min_age < timedelta(0) or (value.max_age is not None and value.max_age < timedelta(0)):
            msg = "min_age and max_age are not negative"
            raise ValueError(msg)
        if value.max_age is not None and value.min_age >= value.max_age:
            msg = "takes no file: min_age is less than max_age"
            raise ValueError(msg)
        if value.max_size is not None and value.min_size > value.max_size:
            msg = "takes no file: min_size is at most max_size"
            raise ValueError(msg)
        return value


class FlowShown(Shown):
    """A flow."""

    id: str
    name: str
    source: str
    destination: str
    destination_directory: str
    selection: Selection
    policy: Policy
    trigger: Trigger
    expected: Expected | None
    enabled: bool
    revision: int
    created: AwareDatetime


class FlowMade(FlowShown):
    """A flow that was made or changed, and what its owner should know of it."""

    warnings: tuple[str, ...] = ()
    """Such as that nothing in the source matches it now."""


class FlowPage(Shown):
    """Flows by id; `next_cursor` asks for the next page, null at the end."""

    items: tuple[FlowShown, ...]
    next_cursor: str | None


class RunShown(Shown):
    """A run that was asked for; its transfers appear in `GET /v1/transfers?flow=…` as the source's listing is read."""

    flow: str
    fire: str


class PlanAsked(Asked):
    """How much of a plan to show."""

    limit: int = Field(default=100, ge=1, le=1000)


class ForecastShown(Shown):
    """What would happen to one name that the source shows."""

    path: str
    size: int
    modified: AwareDatetime | None
    outlook: Outlook
    why: str
    destination: str | None
    transfer: str | None
    """The transfer that this version has, or would have."""


class PlanShown(Shown):
    """What a run of the flow would do now."""

    flow: str
    complete: bool
    """Whether the source's listing was read to its end."""
    counts: dict[Outlook, int]
    """Of all names that were listed, by outlook."""
    items: tuple[ForecastShown, ...]
    """What would move first, then what waits, what cannot be moved, what is known already, and what is skipped."""
    destination_trouble: str | None
    """Why the destination could not be compared with."""


class BackfillNew(Asked):
    """A time in the past: files modified in it are taken, whatever their age."""

    modified_from: AwareDatetime
    modified_until: AwareDatetime

    @field_validator("modified_from", "modified_until")
    @classmethod
    def _in_utc(cls, value: AwareDatetime) -> AwareDatetime:
        try:
            return value.astimezone(UTC)
        except OverflowError:
            msg = "lies before the year 1 or after the year 9999 in UTC"
            raise ValueError(msg) from None

    @model_validator(mode="after")
    def _in_order(self) -> BackfillNew:
        if self.modified_from >= self.modified_until:
            msg = "modified_from is before modified_until"
            raise ValueError(msg)
        return self


class FiresAsked(Asked):
    """How many fires to show of each kind."""

    limit: int = Field(default=10, ge=1, le=100)


class FireShown(Shown):
    """A run of the flow, or files of it that were missing at a time."""

    fire: str
    kind: Literal["scheduled", "asked", "backfill", "late", "warning"]
    at: AwareDatetime
    """When it was planned, or asked for."""
    ended: bool
    files: dict[str, int] | None
    """How many were listed, selected, created, refused, waiting; for missing files how many were expected and found.

    `superseded`: it could not list the source, and left that to a later run of the schedule."""
    reason: str | None = None
    """Why it failed, if it did: stable, for programs."""
    error: str | None = None
    """The same in words."""


class FiresShown(Shown):
    """When the flow will run, and when it did."""

    flow: str
    enabled: bool
    coming: tuple[AwareDatetime, ...]
    """None while it is paused."""
    latest: tuple[FireShown, ...]
    """Newest first."""
