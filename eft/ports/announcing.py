"""Ports of what others are told: who listens, what is to be told, and the ways to tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

from eft.domain.announcement import Announcement
from eft.domain.webhook import Delivery, DeliveryState, Webhook
from eft.ports.rows import Page


class Listening(Protocol):
    """Whether somebody wants to be told of a tenant's transfers. What nobody wants to hear costs no write."""

    def wanted(self, tenant: str) -> bool:
        """Returns whether there is a subscriber; True where that cannot be found out now."""


class Subscriptions(Protocol):
    """Tenants' webhooks."""

    def add(self, webhook: Webhook) -> None:
        """Puts IF absent.

        Raises:
            Conflict: `webhook_exists`.
        """

    def change(self, webhook: Webhook) -> None:
        """Puts IF the stored revision is one less.

        Raises:
            Conflict: `revision_differs`.
        """

    def webhook(self, tenant: str, webhook_id: str) -> Webhook:
        """Returns it.

        Raises:
            NotFound: `webhook_unknown`.
        """

    def of(self, tenant: str) -> Sequence[Webhook]:
        """Returns a tenant's webhooks by id."""

    def remove(self, tenant: str, webhook_id: str, *, revision: int) -> None:
        """Removes IF the revision is this.

        Raises:
            Conflict: `revision_differs`.
        """


@dataclass(frozen=True, slots=True)
class Untold:
    """Something in the outbox, with all that there is to tell of it."""

    kind: Literal["transfer", "announcement"]
    id: str
    announcements: tuple[Announcement, ...]
    milestones: int = 0
    """Of a transfer, told and untold."""
    task_token: str | None = None


class Outbox(Protocol):
    """What is to be told, written with what happened; and the deliveries that did not succeed at once."""

    shards: int

    def add(self, announcement: Announcement) -> bool:
        """Puts an announcement that is no transfer's IF absent; returns whether it was."""

    def untold(self, shard: int, *, limit: int) -> Sequence[Untold]:
        """Returns what is in one shard of the outbox, oldest first."""

    def told(self, untold: Untold) -> None:
        """Takes it out of the outbox, IF nothing was added to it since it was read; what was added stays to be told."""

    def park(self, delivery: Delivery) -> None:
        """Puts a delivery IF absent."""

    def due(self, shard: int, *, before: datetime, limit: int) -> Sequence[Delivery]:
        """Returns the waiting deliveries of one shard whose time has come, those first that wait longest."""

    def change(self, delivery: Delivery, *, seen: Delivery) -> bool:
        """Writes a delivery IF it is still as seen; returns whether it was."""

    def done(self, delivery: Delivery) -> None:
        """Removes a delivery; nothing happens if it is gone."""

    def delivery(self, destination: str, delivery_id: str) -> Delivery:
        """Returns it.

        Raises:
            NotFound: `delivery_unknown`.
        """

    def deliveries(
        self, destination: str, *, state: DeliveryState | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[Delivery]:
        """Returns a destination's deliveries by id.

        Raises:
            Permanent: `cursor_invalid`.
        """


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said."""

    status: int
    retry_after: timedelta | None = None


class Receiver(Protocol):
    """Posts to addresses that customers name, and to no other: never inward, never where a redirect leads."""

    def check(self, url: str) -> None:
        """Sees that an address may be posted to, without connecting.

        Raises:
            Permanent: `webhook_address_refused`; Transient: `dns_failed`.
        """

    def post(self, url: str, *, headers: Mapping[str, str], body: bytes, patience: timedelta) -> Answer:
        """Returns the answer, whatever it is, within `patience`.

        Raises:
            Permanent: `webhook_address_refused`; Transient: `dns_failed`, `webhook_unreachable`, `webhook_timeout`, `webhook_tls_failed`.
        """


class Bus(Protocol):
    """An event bus."""

    def publish(self, announcements: Sequence[Announcement]) -> Sequence[Announcement]:
        """Returns those that were not taken.

        Raises:
            EftError: none was.
        """


class Callbacks(Protocol):
    """State machines that wait for a transfer by a task token.

    Raises everywhere:
        NotFound: `task_gone`: nobody waits with this token any more; Transient: ask again.
    """

    def succeed(self, token: str, *, output: str) -> None:
        """Ends the wait with a JSON text."""

    def fail(self, token: str, *, error: str, cause: str) -> None:
        """Ends the wait with an error's name, and words."""


@dataclass(frozen=True, slots=True)
class Announcing:
    """All that telling others needs."""

    outbox: Outbox
    subscriptions: Subscriptions
    receiver: Receiver
    callbacks: Callbacks
    bus: Bus | None = None
    """None where no event bus is configured."""
