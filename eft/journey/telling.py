"""Telling one destination: its letters one after the other, as long as it answers and within its share of the time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final

from pydantic import SecretStr

from eft.domain.announcement import Announcement, EventType, TransferTold
from eft.domain.webhook import BUS, OVERLAP, PAUSES, TASK, Delivery, Webhook, signatures
from eft.errors import EftError, NotFound, Permanent, Transient
from eft.ports import Engine

log = logging.getLogger(__name__)

STRIKES: Final = 3
"""Refusals in a batch after which a destination is not asked again in it; silence counts as much as three."""
SHARE: Final = 2
"""Times the patience for one letter: what a lane may take of a batch."""
FEW: Final = 4
"""Letters: whoever took fewer in its share is slow, and gets no more in this run."""
_FINAL: Final = frozenset({"webhook_address_refused", "webhook_gone", "secret_missing", "secret_malformed"})
"""What no repetition helps until somebody changes the webhook."""
_SILENT: Final = frozenset({"webhook_timeout", "webhook_unreachable", "webhook_tls_failed", "dns_failed"})


@dataclass(frozen=True, slots=True)
class Letter:
    """One announcement for one destination."""

    destination: str
    announcement: Announcement
    first_at: datetime
    webhook: Webhook | None = None
    task_token: str | None = field(default=None, repr=False)
    tries: int = 0
    delivery: Delivery | None = None
    """As it is kept; None: it is not."""


@dataclass(frozen=True, slots=True)
class Mail:
    """All letters of a batch for one destination, or a lane's share of them."""

    destination: str
    letters: list[Letter]

    def lanes(self, width: int) -> list[Mail]:
        """Returns it in up to so many lanes, none of them empty."""
        return [Mail(self.destination, share) for lane in range(width) if (share := self.letters[lane::width])]


@dataclass(slots=True)
class Batch:
    """One run's dealings with its destinations; `send` may be called for several at the same time."""

    engine: Engine
    patience: timedelta
    strikes: dict[str, int] = field(default_factory=dict)
    slow: set[str] = field(default_factory=set)
    """Destinations that get no more in this run."""

    def send(self, mail: Mail) -> list[Letter]:
        """Returns the letters that were not taken, each with the delivery that keeps it.

        Raises:
            EftError: rows cannot be written now.
        """
        if mail.destination == BUS:
            return self._publish(mail.letters)
        kept: list[Letter] = []
        until = self.engine.clock.monotonic() + SHARE * self.patience.total_seconds()
        shut = self.engine.limits.shut_until(_breaker(mail.destination)) if mail.destination != TASK else None
        if shut is not None:
            self.strikes[mail.destination] = STRIKES
        for index, letter in enumerate(mail.letters):
            if mail.destination in self.slow or self.engine.clock.monotonic() >= until:
                if index < FEW:
                    self.slow.add(mail.destination)
                kept.append(self._postponed(letter))
            elif self.strikes.get(mail.destination, 0) >= STRIKES:
                kept.append(self._failed(letter, Transient("it did not answer others just before", reason="webhook_silent")))
            else:
                kept += self._sent(letter)
        if mail.destination != TASK and not self.strikes.get(mail.destination):
            self.engine.limits.succeeded(_breaker(mail.destination))
        return kept

    def _sent(self, letter: Letter) -> list[Letter]:
        try:
            if letter.destination == TASK:
                _end_wait(self.engine, letter)
            elif letter.webhook is not None:
                post(self.engine, letter.webhook, letter.announcement, patience=self.patience)
        except EftError as error:
            if letter.destination != TASK:
                self._strike(letter.destination, error)
            return [self._failed(letter, error)]
        return []

    def _strike(self, destination: str, error: EftError) -> None:
        silent = error.reason in _SILENT
        self.strikes[destination] = self.strikes.get(destination, 0) + (STRIKES if silent else 1)
        if silent:
            self.engine.limits.failed(_breaker(destination), reason=error.reason)

    def _publish(self, letters: Sequence[Letter]) -> list[Letter]:
        bus = self.engine.announcing.bus if self.engine.announcing is not None else None
        if bus is None:
            return []
        error: EftError = Transient("the event bus did not take it", reason="bus_refused")
        left = {letter.announcement.id for letter in letters}
        if not self.strikes.get(BUS):
            try:
                left = {one.id for one in bus.publish([letter.announcement for letter in letters])}
            except EftError as trouble:
                self.strikes[BUS] = STRIKES
                log.warning("the event bus takes nothing", extra={"reason": trouble.reason, "error": str(trouble)})
                # A bus that refuses us today may not tomorrow: nothing is given up.
                error = Transient(str(trouble), reason=trouble.reason)
        return [self._failed(letter, error) for letter in letters if letter.announcement.id in left]

    def _failed(self, letter: Letter, error: EftError) -> Letter:
        now = self.engine.clock.now()
        delivery = self._delivery(letter, reason=error.reason, error=str(error), due_at=now)
        return replace(
            letter,
            delivery=delivery.failed(
                now=now,
                reason=error.reason,
                error=str(error),
                jitter=self.engine.clock.jitter(),
                asked=error.retry_after if isinstance(error, Transient) else None,
                final=error.reason in _FINAL and letter.webhook is not None,
            ),
        )

    def _postponed(self, letter: Letter) -> Letter:
        """Its turn has not come: that is no failed try."""
        due_at = self.engine.clock.now() + PAUSES[0]
        return replace(letter, delivery=self._delivery(letter, reason="queued", error="it waits for those before it", due_at=due_at))

    def _delivery(self, letter: Letter, *, reason: str, error: str, due_at: datetime) -> Delivery:
        return Delivery(
            destination=letter.destination,
            tenant=letter.announcement.tenant,
            announcement=letter.announcement,
            tries=letter.tries,
            first_at=letter.first_at,
            due_at=due_at,
            reason=reason,
            error=error,
        )


def post(engine: Engine, webhook: Webhook, announcement: Announcement, *, patience: timedelta) -> int:
    """Posts an announcement, signed (Standard Webhooks 1.0.0), and returns the status of the answer that took it.

    Raises:
        Permanent: `webhook_address_refused`, `webhook_gone`, `secret_missing`; Transient: `webhook_refused`, `webhook_timeout`,
            `webhook_unreachable`, `webhook_tls_failed`, `dns_failed`.
    """
    if engine.announcing is None:
        raise NotFound("this engine announces nothing", reason="not_announcing")
    now, body = engine.clock.now(), announcement.model_dump_json()
    answer = engine.announcing.receiver.post(
        webhook.url,
        headers={
            "Content-Type": "application/json",
            "User-Agent": "eft",
            "webhook-id": announcement.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signatures(_secrets(engine, webhook, now), message_id=announcement.id, at=now, body=body),
        },
        body=body.encode(),
        patience=patience,
    )
    status = answer.status
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return status
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        # Perhaps it was rotated a moment ago and we have the former one in memory.
        engine.secrets.forget(webhook.secret)
    if status == HTTPStatus.GONE:
        raise Permanent("the receiver answered 410: it is gone for good", reason="webhook_gone")
    redirect = " with a redirect, which is never followed" if status < HTTPStatus.BAD_REQUEST else ""
    raise Transient(f"the receiver answered {status}{redirect}", reason="webhook_refused", retry_after=answer.retry_after)


def _secrets(engine: Engine, webhook: Webhook, now: datetime) -> list[SecretStr]:
    """Returns the secrets to sign with: for a day after a rotation the former one, too."""
    held = engine.secrets.get(webhook.secret)
    if held.signing_secret is None:
        raise Permanent("the webhook has no signing secret; rotate it", reason="secret_missing")
    former = held.former_signing_secret
    if former is None or webhook.rotated_at is None or now >= webhook.rotated_at + OVERLAP:
        return [held.signing_secret]
    return [held.signing_secret, former]


def _end_wait(engine: Engine, letter: Letter) -> None:
    """Tells the state machine that started a transfer how it ended; that nobody waits any more is as good."""
    data = letter.announcement.data
    if engine.announcing is None or letter.task_token is None or not isinstance(data, TransferTold):
        return
    callbacks = engine.announcing.callbacks
    try:
        if letter.announcement.type is EventType.DELIVERED:
            callbacks.succeed(letter.task_token, output=data.model_dump_json())
        else:
            callbacks.fail(letter.task_token, error=f"eft.{data.reason or data.state}", cause=data.model_dump_json())
    except NotFound as error:
        log.info("nobody waits for a transfer any more", extra={"transfer": data.transfer, "reason": error.reason})


def _breaker(destination: str) -> str:
    return f"webhook:{destination}"
