"""Announce: what the outbox holds is told to whoever listens, at least once; what a destination does not take is tried again by itself.

A row leaves the outbox only when each of its destinations has taken every announcement or has it parked as a delivery of its own: a crash
anywhere before tells some of it again, under the same ids, and loses none. No destination may take long: who is silent, or uses up its
share of a batch, gets the rest of it later, and the others do not wait.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Final, Protocol, TypeVar

from eft.domain.announcement import ENDINGS, Announcement
from eft.domain.webhook import BUS, TASK, Delivery, DeliveryState, Webhook
from eft.errors import NotFound
from eft.journey.telling import Batch, Letter, Mail
from eft.journey.work import Slice
from eft.ports import Announcing, Engine, Outbox, Untold

log = logging.getLogger(__name__)

BATCH: Final = 100
AT_ONCE: Final = timedelta(seconds=2)
"""How long a webhook may take at the first try."""
LATER: Final = timedelta(seconds=10)
"""The same for what was parked."""
LANES: Final = 4
"""Letters that a destination gets at the same time: each waits for its answer, half a world away."""
LEASE: Final = timedelta(seconds=60)
"""Of a shard: how long it rests after a crash."""
T = TypeVar("T")
R = TypeVar("R")


class Together(Protocol):
    """`map`, perhaps with many of them at the same time."""

    def __call__(self, act: Callable[[T], R], each: Iterable[T], /) -> Iterable[R]:
        """Returns what `act` returns for each."""


def announce(engine: Engine, shard: int, piece: Slice, *, together: Together = map) -> Counter[str]:
    """Tells what is in one shard of the outbox while the slice lasts, and returns counts of what became of it.

    Raises:
        EftError: rows cannot be read or written now; nothing is lost.
    """
    counts: Counter[str] = Counter()
    ports = engine.announcing
    waiting = [] if ports is None else ports.outbox.untold(shard, limit=BATCH)
    if ports is None or not waiting or not _take(engine, f"outbox:{shard}", piece):
        return counts
    try:
        batch = Batch(engine, patience=AT_ONCE)
        told: dict[str, int] = {}
        while waiting and not piece.over():
            left = _send(batch, _letters(engine, ports, waiting), together, counts)
            _all(together(ports.outbox.park, [letter.delivery for letter in left if letter.delivery is not None]))
            _all(together(ports.outbox.told, waiting))
            told |= {one.id: one.milestones for one in waiting}
            # The index and a read beside it may still show what has just been told.
            waiting = [one for one in ports.outbox.untold(shard, limit=BATCH) if told.get(one.id) != one.milestones]
    finally:
        engine.limits.release(f"outbox:{shard}", holder=piece.worker)
    log.info("announced", extra={"shard": shard, "counts": dict(counts)})
    return counts


def catch_up(engine: Engine, shard: int, piece: Slice, *, together: Together = map) -> Counter[str]:
    """Tries the parked deliveries of one shard whose time has come, while the slice lasts; returns counts of what became of them.

    Raises:
        EftError: rows cannot be read or written now; nothing is lost.
    """
    counts: Counter[str] = Counter()
    ports = engine.announcing
    due = [] if ports is None else ports.outbox.due(shard, before=engine.clock.now(), limit=BATCH)
    if ports is None or not due or not _take(engine, f"parked:{shard}", piece):
        return counts
    try:
        batch = Batch(engine, patience=LATER)
        tried: set[tuple[str, str]] = set()
        while due and not piece.over():
            letters = list(_parked(engine, ports, due))
            left = {(one.destination, one.announcement.id): one for one in _send(batch, letters, together, counts)}
            _all(together(partial(_settle, ports.outbox, left), due))
            tried |= {(seen.destination, seen.id) for seen in due}
            due = [one for one in ports.outbox.due(shard, before=engine.clock.now(), limit=BATCH) if (one.destination, one.id) not in tried]
    finally:
        engine.limits.release(f"parked:{shard}", holder=piece.worker)
    log.info("deliveries tried again", extra={"shard": shard, "counts": dict(counts)})
    return counts


def resend(engine: Engine, webhook: Webhook, delivery_id: str) -> Delivery:
    """Returns a delivery that is tried again from now on, however often it has been.

    Raises:
        NotFound: `delivery_unknown`: it never failed, or was taken since.
    """
    outbox = announcing(engine).outbox
    while True:
        seen = outbox.delivery(webhook.id, delivery_id)
        again = seen.model_copy(update={"state": DeliveryState.WAITING, "tries": 0, "due_at": engine.clock.now()})
        if outbox.change(again, seen=seen):
            return again


def announcing(engine: Engine) -> Announcing:
    """Returns the ports of an engine that tells.

    Raises:
        NotFound: `not_announcing`: this one tells nobody.
    """
    if engine.announcing is None:
        msg = "this engine announces nothing"
        raise NotFound(msg, reason="not_announcing")
    return engine.announcing


def _settle(outbox: Outbox, left: Mapping[tuple[str, str], Letter], seen: Delivery) -> None:
    """Ends a delivery that was taken, or notes what became of it."""
    letter = left.get((seen.destination, seen.id))
    if letter is None or letter.delivery is None:
        outbox.done(seen)
    else:
        outbox.change(letter.delivery, seen=seen)


def _all(results: Iterable[object]) -> None:
    """Sees each of them done; raises what one of them raised."""
    for _ in results:
        pass


def _take(engine: Engine, key: str, piece: Slice) -> bool:
    return bool(engine.limits.acquire(key, limit=1, holder=piece.worker, lease=LEASE))


def _letters(engine: Engine, ports: Announcing, waiting: Sequence[Untold]) -> Iterator[Letter]:
    webhooks: dict[str, Sequence[Webhook]] = {}
    now = engine.clock.now()
    for one in waiting:
        for announcement in one.announcements:
            if ports.bus is not None:
                yield Letter(BUS, announcement, first_at=now)
            if announcement.tenant not in webhooks:
                webhooks[announcement.tenant] = ports.subscriptions.of(announcement.tenant)
            for webhook in webhooks[announcement.tenant]:
                if webhook.hears(announcement):
                    yield Letter(webhook.id, announcement, first_at=now, webhook=webhook)
            if one.task_token is not None and announcement.type in ENDINGS:
                yield Letter(TASK, announcement, first_at=now, task_token=one.task_token)


def _parked(engine: Engine, ports: Announcing, due: Sequence[Delivery]) -> Iterator[Letter]:
    """Yields the deliveries that there is still somebody for."""
    webhooks: dict[str, Webhook | None] = {}
    for one in due:
        webhook, token = None, None
        if one.destination == BUS and ports.bus is None:
            continue
        if one.destination == TASK:
            token = _token(engine, one.announcement)
            if token is None:
                continue
        elif one.destination != BUS:
            if one.destination not in webhooks:
                webhooks[one.destination] = _webhook(ports, one)
            webhook = webhooks[one.destination]
            if webhook is None:
                continue
        yield Letter(
            one.destination, one.announcement, first_at=one.first_at, webhook=webhook, task_token=token, delivery=one, tries=one.tries
        )


def _webhook(ports: Announcing, delivery: Delivery) -> Webhook | None:
    try:
        return ports.subscriptions.webhook(delivery.tenant, delivery.destination)
    except NotFound:
        return None


def _token(engine: Engine, announcement: Announcement) -> str | None:
    try:
        return engine.ledger.load(announcement.id.partition("-")[0]).task_token
    except NotFound:
        return None


def _send(batch: Batch, letters: Iterable[Letter], together: Together, counts: Counter[str]) -> list[Letter]:
    """Sends letters, each destination's in a few lanes, and returns those that are to be kept, as deliveries."""
    mails: dict[str, Mail] = {}
    for letter in letters:
        # What concerns one transfer's state machine concerns no other's.
        key = f"{TASK}:{letter.announcement.id}" if letter.destination == TASK else letter.destination
        mails.setdefault(key, Mail(letter.destination, [])).letters.append(letter)
    kept: list[Letter] = []
    sent = [lane for mail in mails.values() for lane in mail.lanes(1 if mail.destination == BUS else LANES)]
    for mail, left in zip(sent, list(together(batch.send, sent)), strict=True):
        kept += left
        counts["told"] += len(mail.letters) - len(left)
        for letter in left:
            if letter.delivery is not None:
                counts[letter.delivery.state.value] += 1
                if letter.delivery.state is DeliveryState.DEAD:
                    log.warning(
                        "a delivery is given up",
                        extra={
                            "tenant": letter.announcement.tenant,
                            "webhook": letter.destination,
                            "announcement": letter.announcement.id,
                            "reason": letter.delivery.reason,
                        },
                    )
    return kept
