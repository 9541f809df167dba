"""Webhooks: a tenant's subscription to announcements, and what could not be delivered at once."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from pydantic import AwareDatetime, Field, SecretStr
from standardwebhooks import Webhook as Signer

from eft.domain.announcement import Announcement, EventType
from eft.domain.endpoint import Frozen, SecretRef

SECRET_BYTES: Final = 32
"""Of a secret; Standard Webhooks asks for 24 to 64."""
OVERLAP: Final = timedelta(hours=24)
"""How long after a rotation announcements are signed with the former secret, too."""
PAUSES: Final = tuple(timedelta(seconds=s) for s in (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 43200))
"""Before each new try; after the last one a delivery is a dead letter. 28 hours in all (Standard Webhooks, "Retry schedule")."""
OURS: Final = 4
"""Of the pauses those that the bus and state machines are given; they are asked until they answer."""
LONGEST_ASKED: Final = timedelta(hours=1)
"""Of the pauses that a receiver may ask for with Retry-After."""

BUS: Final = "bus"
TASK: Final = "task"
"""The destinations that are no webhook: the event bus, and the state machine that waits for a transfer."""


class Webhook(Frozen):
    """Who is told of which events, and where. Its secret lies in Secrets Manager."""

    id: str
    tenant: str
    name: str = Field(min_length=1, max_length=120)
    url: str
    events: frozenset[EventType]
    secret: SecretRef
    rotated_at: AwareDatetime | None = None
    revision: int = 1
    created: AwareDatetime

    def hears(self, announcement: Announcement) -> bool:
        """Returns whether it is to be told: of its events, from its creation on."""
        return announcement.type in self.events and announcement.timestamp >= self.created


class DeliveryState(StrEnum):
    """Where a delivery that did not succeed at once stands."""

    WAITING = "waiting"
    DEAD = "dead"


class Delivery(Frozen):
    """One announcement that one destination has yet to take, or never took."""

    destination: str
    """A webhook's id, `bus` or `task`."""
    tenant: str
    announcement: Announcement
    state: DeliveryState = DeliveryState.WAITING
    tries: int = 0
    first_at: AwareDatetime
    due_at: AwareDatetime
    """When it is tried next; in a dead letter, when it was given up."""
    reason: str
    error: str

    @property
    def id(self) -> str:
        """The announcement's."""
        return self.announcement.id

    def failed(
        self, *, now: datetime, reason: str, error: str, jitter: float, asked: timedelta | None = None, final: bool = False
    ) -> Delivery:
        """Returns it after one more failed try: waiting for the next one, or dead after the last."""
        tries = self.tries + 1
        told = {"tries": tries, "reason": reason, "error": error}
        ours = self.destination in {BUS, TASK}
        if final or (tries > len(PAUSES) and not ours):
            return self.model_copy(update={**told, "state": DeliveryState.DEAD, "due_at": now})
        pause = PAUSES[min(tries, len(PAUSES[:OURS] if ours else PAUSES)) - 1] * (1 + jitter / 4)
        if asked is not None:
            pause = max(pause, min(asked, LONGEST_ASKED))
        return self.model_copy(update={**told, "due_at": now + pause})


def signatures(secrets: list[SecretStr], *, message_id: str, at: datetime, body: str) -> str:
    """Returns the value of the header `webhook-signature` (Standard Webhooks 1.0.0, "Webhook headers"): one signature per secret."""
    return " ".join(Signer(secret.get_secret_value()).sign(message_id, at, body) for secret in secrets)


def secret_text(random: bytes) -> SecretStr:
    """Returns a secret as receivers' libraries take it."""
    return SecretStr("whsec_" + base64.b64encode(random).decode())
