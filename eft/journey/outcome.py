"""What an error does to a transfer: tried again later, buried, held, or left to whoever owns it now. The one place that decides it."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import timedelta

from eft.domain.transfer import MOVES, State, Transfer
from eft.errors import EftError, LostOwnership, SliceOver, Transient, Undecidable
from eft.journey.messages import Message, next_message
from eft.journey.operate import release_paths
from eft.journey.transferring import without_upload
from eft.journey.work import Work

log = logging.getLogger(__name__)

REPLICA_PATIENCE = timedelta(days=1)
"""After a switch a transfer waits so long for S3's replication of its staged copy (15 minutes by S3's agreement) before it is buried."""
ABANDONING = frozenset({"token_gone", "size_differs", "part_differs", "checksum_mismatch", "source_changed"})
"""Reasons after which an attempt's bytes are worthless: the next try begins a new one."""


def after_error(work: Work, error: Exception) -> list[Message]:
    """Writes what an error means onto the row and returns what goes on with the transfer; nothing if another has it now.

    A claim that is still ours, because the partition drains or has another home, is given back: a switch need not wait until it ends.
    """
    try:
        return _decide(work, error)
    except LostOwnership:
        log.info("lost to another worker or region", extra={"transfer": work.transfer.id})
        with suppress(EftError):
            work.give_back()
        return []


def _decide(work: Work, error: Exception) -> list[Message]:
    if isinstance(error, SliceOver):
        work.give_back()
        return next_message(work.transfer)
    if isinstance(error, LostOwnership):
        raise error
    if not isinstance(error, EftError):
        log.error(
            "unexpected error in a step",
            exc_info=error,
            extra={"transfer": work.transfer.id, "reason": "internal_error"},
        )
        error = Transient(f"unexpected {type(error).__name__}; the log has the details", reason="internal_error")
    if error.endpoint is not None:
        work.engine.limits.failed(error.endpoint, reason=error.reason)
    if error.reason in {"source_missing", "source_changed"} and _waits_for_replica(work):
        msg = f"the staged copy has not come over from {work.transfer.staged and work.transfer.staged.region} yet"
        error = Transient(msg, reason="replica_pending", counts=False, retry_after=timedelta(seconds=30))
    transfer = work.transfer
    if error.reason in ABANDONING and transfer.state in {State.STAGING, State.DELIVERING}:
        transfer = without_upload(transfer)
        if error.reason in {"token_gone", "size_differs"}:
            error = Transient(str(error), reason=error.reason, endpoint=error.endpoint)
    if isinstance(error, Transient) and (not error.counts or transfer.tries + 1 < transfer.policy.retry.tries):
        return _try_again(work, transfer, error)
    _rest(work, transfer, error)
    return []


def _waits_for_replica(work: Work) -> bool:
    """Returns whether the staged copy was written in another region, and so lately that its replica may still be on its way."""
    staged = work.transfer.staged
    elsewhere = staged is not None and staged.region not in {None, work.engine.ownership.region}
    return elsewhere and work.now() - work.transfer.since < REPLICA_PATIENCE


def _try_again(work: Work, transfer: Transfer, error: Transient) -> list[Message]:
    tries = transfer.tries + 1 if error.counts else transfer.tries
    pause = transfer.policy.retry.pause(max(tries, 1), jitter=work.engine.clock.jitter())
    if error.retry_after is not None:
        pause = max(pause, error.retry_after)
    now = work.now()
    waiting = transfer.with_(
        tries=tries,
        reason=error.reason,
        error=str(error),
        retry_at=now + pause,
        claim_until=None,
        due_at=now + pause + work.engine.tuning.stall / 4,
    )
    repeated = not error.counts and transfer.reason == error.reason
    work.save(waiting if repeated else waiting.noted(now=now, reason=error.reason, error=str(error), by=work.slice.worker))
    log.info(
        "try again later",
        extra={"transfer": transfer.id, "reason": error.reason, "tries": tries, "pause_s": pause.total_seconds()},
    )
    return next_message(work.transfer, delay=pause)


def _rest(work: Work, transfer: Transfer, error: EftError) -> None:
    """Buries a transfer, or holds it where that is undecidable or `dead` is no move: what may be committed is never given up."""
    undecidable = isinstance(error, Undecidable) or State.DEAD not in MOVES[transfer.state]
    resting = State.HELD if undecidable else State.DEAD
    before = work.transfer
    work.save(transfer.to(resting, now=work.now(), reason=error.reason, error=str(error), by=work.slice.worker))
    log.warning("%s", resting, extra={"transfer": transfer.id, "reason": error.reason, "error": str(error)})
    if resting is State.DEAD or before.commit is None:
        # What is held without a token keeps no path from others.
        release_paths(work.engine, before, delivered=False)
