"""Flows as the API takes and shows them."""

from __future__ import annotations

from datetime import timedelta

from pydantic import AwareDatetime, field_validator

from api.schemas.base import Asked, Directory, Id, Line, Shown
from eft.domain.flow import Manual, Policy, Selection, Trigger


class FlowNew(Asked):
    """A standing order: files of the source endpoint that the selection takes go to the destination endpoint."""

    name: Line
    source: Id
    destination: Id
    destination_directory: Directory = ""
    selection: Selection = Selection()
    policy: Policy = Policy()
    trigger: Trigger = Manual()
    enabled: bool = True

    @field_validator("selection")
    @classmethod
    def _sensible_ages(cls, value: Selection) -> Selection:
        if value.min_age < timedelta(0) or (value.max_age is not None and value.max_age < timedelta(0)):
            msg = "min_age and max_age are not negative"
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
    enabled: bool
    revision: int
    created: AwareDatetime


class FlowPage(Shown):
    """Flows by id; `next_cursor` asks for the next page, null at the end."""

    items: tuple[FlowShown, ...]
    next_cursor: str | None


class RunShown(Shown):
    """A run that was asked for; its transfers appear in `GET /v1/transfers?flow=…` as the source's listing is read."""

    flow: str
    fire: str
