"""Webhooks as the API takes and shows them; the secret is shown when it is made, and never again."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from api.schemas.base import Asked, Line, PageAsked, Shown
from eft.domain.announcement import Announcement, EventType
from eft.domain.webhook import DeliveryState

Url = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
Heard = Literal[
    EventType.ACCEPTED,
    EventType.STARTED,
    EventType.DELIVERED,
    EventType.FAILED,
    EventType.HELD,
    EventType.CANCELLED,
    EventType.LATE,
]
EVERYTHING: Final[frozenset[Heard]] = frozenset(Heard.__args__)  # type: ignore[attr-defined]


class WebhookNew(Asked):
    """An address that is told of events, by a signed POST for each (Standard Webhooks; docs/events.md)."""

    name: Line
    url: Url
    """https:// and an address of the public internet; redirects are not followed."""
    events: frozenset[Heard] = Field(default=EVERYTHING, min_length=1)


class WebhookShown(Shown):
    """A webhook, without its secret. What follows the host of its address may be a secret too: it is shown to whoever may read webhooks."""

    id: str
    name: str
    url: str
    events: tuple[EventType, ...]
    rotated_at: AwareDatetime | None
    revision: int
    created: AwareDatetime


class WebhookMade(WebhookShown):
    """A webhook and its secret, which is shown this once: receivers check signatures with it."""

    secret: str


class WebhookPage(Shown):
    """A tenant's webhooks by id; they always fit in one page."""

    items: tuple[WebhookShown, ...]
    next_cursor: str | None = None


class TestShown(Shown):
    """What became of a test."""

    __test__ = False

    delivered: bool
    status: int | None
    """Of the answer that took it."""
    milliseconds: int
    reason: str | None
    error: str | None


class DeliveriesAsked(PageAsked):
    """Which page, and of which state."""

    state: DeliveryState | None = None


class DeliveryShown(Shown):
    """An event that the receiver did not take at once: `waiting` for its next try, or `dead` after the last."""

    id: str
    state: DeliveryState
    tries: int
    first_at: AwareDatetime
    next_try: AwareDatetime | None
    reason: str
    error: str
    event: Announcement


class DeliveryPage(Shown):
    """Deliveries by id; what the receiver took at once is not among them. `next_cursor` asks for the next page, null at the end."""

    items: tuple[DeliveryShown, ...]
    next_cursor: str | None


class ResendAsked(Asked):
    """How many dead letters to look at, and from where on."""

    limit: int = Field(default=100, ge=1, le=200)
    cursor: str | None = Field(default=None, min_length=1, max_length=2048)


class ResendShown(Shown):
    """How many were sent again; ask with `next_cursor` as `cursor` until it is null."""

    resent: int
    next_cursor: str | None
