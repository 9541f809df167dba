"""Where Celery meets the journey: what a message asks for is carried out, and what follows is sent."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from typing import Any

from celery.exceptions import Reject

from eft.bootstrap import build_engine
from eft.domain.transfer import Step
from eft.errors import EftError, NotFound, Transient
from eft.journey.advance import advance
from eft.journey.discover import after_failed_discover, discover
from eft.journey.lane import copy_lanes
from eft.journey.messages import MESSAGE_FORMAT, Message
from eft.journey.work import Slice
from eft.ports import Engine
from eft.telemetry import context
from tasks.app import SETTINGS, app
from tasks.drain import draining

log = logging.getLogger(__name__)

LONGEST_DELAY = timedelta(minutes=15)
"""SQS's own limit (DelaySeconds); what waits longer belongs to the sweep."""
AGAIN = timedelta(seconds=10)
REMEMBER = timedelta(seconds=3)
"""How long a worker trusts an endpoint that it has just read: a change by the API holds from then on."""


def engine() -> Engine:
    """Returns this process's engine, built after the fork and once."""
    return _engine_of(os.getpid())


@cache
def _engine_of(_pid: int) -> Engine:
    return build_engine(SETTINGS, remember=REMEMBER)


def carry(step: Step, ids: Sequence[str], part: int | None) -> None:
    """Carries a message out within one slice and sends what follows; ids that the slice does not reach are sent on.

    While the slice lasts, large files are gone on with at once.

    Raises:
        Reject: the message is broken (it goes towards the dead-letter queue).
    """
    if not ids or not all(isinstance(one, str) for one in ids) or (step is Step.PARTS) != isinstance(part, int):
        log.error("broken message", extra={"step": step})
        raise Reject("broken message", requeue=False)
    piece = _new_slice()
    follow = _carry_all(Message(step=step, ids=tuple(ids), part=part), piece, alone=len(ids) == 1)
    while (own := _own(step, follow)) is not None and not piece.over():
        piece.end()
        forward([message for message in follow if message is not own])
        step, follow = own.step, _carry_all(own, piece, alone=False)
    piece.end()
    forward(follow)


def _carry_all(message: Message, piece: Slice, *, alone: bool) -> list[Message]:
    run = _runner(message.step, message.part)
    follow: list[Message] = []
    for index, one in enumerate(message.ids):
        if index and piece.over():
            follow.append(Message(step=message.step, ids=message.ids[index:], part=message.part))
            break
        with context(step=message.step.value, id=one):
            follow += _carry_one(run, Message(step=message.step, ids=(one,), part=message.part), piece, alone=alone)
    return follow


def _own(step: Step, follow: Sequence[Message]) -> Message | None:
    """Returns what this worker goes on with itself, without a queue between: a lane of a file that it planned, or what follows a lane."""
    return next((message for message in follow if not message.delay and Step.PARTS in {step, message.step}), None)


def forward(messages: Sequence[Message]) -> None:
    """Sends what follows, in order. After a failure the rest is left to the sweep, which finds it on the rows."""
    for index, message in enumerate(messages):
        if message.delay > LONGEST_DELAY:
            continue
        try:
            _send(message)
        except Exception:
            log.exception("messages could not be sent; the sweep sends them", extra={"step": message.step, "left": len(messages) - index})
            return


def _send(message: Message) -> None:
    body: dict[str, Any] = {"v": MESSAGE_FORMAT, "ids": list(message.ids)}
    if message.part is not None:
        body["part"] = message.part
    seconds = -(-message.delay // timedelta(seconds=1))
    delay: dict[str, Any] = {"delay_seconds": seconds} if seconds else {}
    app.send_task(f"eft.{message.step}", kwargs=body, queue=message.step.value, **delay)


def _runner(step: Step, part: int | None) -> Callable[[Engine, str, Slice], list[Message]]:
    if step is Step.DISCOVER:
        return discover
    if step is Step.PARTS:
        return lambda ports, one, piece: copy_lanes(ports, one, part or 0, piece)
    return advance


def _carry_one(run: Callable[[Engine, str, Slice], list[Message]], message: Message, piece: Slice, *, alone: bool) -> list[Message]:
    """The one place where an error that no row could take becomes another message, a dead letter, or a line in the log."""
    try:
        return run(engine(), message.ids[0], piece)
    except NotFound as error:
        if message.step is Step.DISCOVER:
            # A directory, an endpoint or the flow that is gone: the fire ends, and its flow, if there is one, shows that it failed.
            return after_failed_discover(engine(), message.ids[0], error)
        log.error("message for something unknown", extra={"reason": error.reason})  # noqa: TRY400 - no traceback wanted
        if alone:
            raise Reject(error.reason, requeue=False) from error
        return []
    except EftError as error:
        if message.step is Step.DISCOVER:
            return after_failed_discover(engine(), message.ids[0], error)
        log.warning("nothing could be written; the message comes again", extra={"reason": error.reason, "error": str(error)})
        delay = (error.retry_after if isinstance(error, Transient) else None) or AGAIN
        return [Message(step=message.step, ids=message.ids, part=message.part, delay=delay)]


def _new_slice() -> Slice:
    ports = engine()
    worker = f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}:{ports.clock.nonce()[:6]}"
    return Slice(worker=worker, clock=ports.clock, length=ports.tuning.slice, leaving=draining, limits=ports.limits)
