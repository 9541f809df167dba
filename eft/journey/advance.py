"""Advance: one claimed slice of one transfer's life. Claim, run the step its state asks for, and say what goes on with it.

Tasks call it for each id of a message; the simulation calls the same function.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from eft.domain.flow import Disposition, Priority
from eft.domain.transfer import FINAL, RESTING, State, Step, Transfer
from eft.errors import LostOwnership, Transient
from eft.journey.deliver import deliver
from eft.journey.messages import Message, next_message
from eft.journey.outcome import after_error
from eft.journey.recover import recover
from eft.journey.settle import settle
from eft.journey.stage import stage
from eft.journey.work import Slice, Work
from eft.ports import Due, Engine, Limits

EARLY = timedelta(seconds=1)
"""A delayed message may come this much before its time: queues count whole seconds."""


def advance(engine: Engine, transfer_id: str, piece: Slice) -> list[Message]:
    """Runs the steps of one transfer as far as this slice carries it and returns the messages that go on with it.

    A message for a transfer that rests, waits, or is in another worker's hands does nothing: the row is the truth.

    Raises:
        NotFound: `transfer_unknown`; the message is broken.
    """
    seen = engine.ledger.load(transfer_id)
    now = engine.clock.now()
    if seen.next_step is None or (seen.claim_until or now) > now or (seen.retry_at or now) > now + EARLY:
        return []
    if not _in_our_era(engine, seen):
        return []
    if not _admitted(engine, seen, piece):
        return _bounce(engine, seen)
    transfer = engine.ledger.claim(transfer_id, worker=piece.worker, now=now, lease=engine.tuning.lease)
    if transfer is None:
        return []
    work = Work(engine, transfer, piece)
    if transfer.next_step is None:
        # It came to rest, or left for the other region, between the look and the claim.
        work.put_down()
        return []
    try:
        messages = _run(work)
    except Exception as error:  # noqa: BLE001 - every error is classed in one place
        messages = after_error(work, error)
    if work.transfer.state in FINAL:
        engine.ownership.forget(work.transfer)
    return messages


def _in_our_era(engine: Engine, transfer: Transfer) -> bool:
    """Returns whether this region is the partition's home, under the region_epoch that the row was written for, and begins what is new."""
    begins = transfer.state in {State.ACCEPTED, State.STAGED}
    try:
        return engine.ownership.standing(transfer.partition, begin=begins).region_epoch == transfer.region_epoch
    except LostOwnership:
        return False


def _run(work: Work) -> list[Message]:
    while True:
        messages = _between(work, _ends(work.transfer))
        transfer = work.transfer
        if transfer.state in RESTING or any(m.step is Step.PARTS for m in messages):
            return messages
        if (transfer.size or 0) > work.engine.tuning.inline_size or work.slice.over():
            work.give_back()
            return messages


def _between(work: Work, ends: list[str]) -> list[Message]:
    """Runs a step between endpoints whose breakers let it, and tells them what came of it."""
    limits: Limits = work.engine.limits
    let: list[str] = []
    try:
        for endpoint in ends:
            _refuse_shut(work, endpoint)
            let.append(endpoint)
        messages = _step(work)(work)
    except Exception as error:
        for endpoint in let:
            if getattr(error, "endpoint", None) != endpoint:
                limits.inconclusive(endpoint)
        raise
    for endpoint in ends:
        limits.succeeded(endpoint)
    return messages


def _step(work: Work) -> Callable[[Work], list[Message]]:
    if work.transfer.state is State.COMMITTING:
        return recover
    return {Step.STAGE: stage, Step.DELIVER: deliver, Step.SETTLE: settle}[work.transfer.next_step or Step.SETTLE]


def _ends(transfer: Transfer) -> list[str]:
    """Returns the endpoints that the next step needs."""
    step = transfer.next_step
    if step is Step.DELIVER:
        return (
            [transfer.destination.endpoint]
            if transfer.staged or transfer.commit
            # Each once: a probe of a breaker that is open lets only its first asker through.
            else list(dict.fromkeys([transfer.source.endpoint, transfer.destination.endpoint]))
        )
    return [transfer.source.endpoint] if step is Step.STAGE or transfer.policy.disposition is not Disposition.KEEP else []


def _refuse_shut(work: Work, endpoint: str) -> None:
    """Spares an endpoint whose breaker is open.

    Raises:
        Transient: `breaker_open`; it uses up no try.
    """
    until = work.engine.limits.shut_until(endpoint)
    if until is not None:
        msg = f"endpoint {endpoint} has failed repeatedly; it is tried again at {until:%H:%M:%S} UTC"
        raise Transient(msg, reason="breaker_open", retry_after=until - work.now(), counts=False)


def _admitted(engine: Engine, transfer: Transfer, piece: Slice) -> bool:
    """Takes a slot of the tenant's admission window for this worker; its priority says how much of the window it may fill."""
    window = engine.tuning.tenant_window
    share = {Priority.BULK: max(1, window // 2), Priority.NORMAL: max(1, window - 1), Priority.URGENT: window}[transfer.policy.priority]
    key = f"tenant:{transfer.tenant}"
    if key in piece.admitted:
        return True
    admitted = bool(engine.limits.acquire(key, limit=share, holder=piece.worker, lease=engine.tuning.admission_lease))
    if admitted:
        piece.admitted.add(key)
    return admitted


def _bounce(engine: Engine, transfer: Transfer) -> list[Message]:
    delay = timedelta(seconds=2 + 4 * engine.clock.jitter())
    now, stall = engine.clock.now(), engine.tuning.stall
    if transfer.due_at is not None and transfer.due_at < now + stall / 2:
        engine.ledger.postpone(Due(kind="transfer", id=transfer.id, due_at=transfer.due_at), until=now + stall)
    return next_message(transfer, delay=delay)
