"""What a person asks for: cancel, re-drive, run now."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Final

from eft.domain.flow import Flow
from eft.domain.instants import asked_time
from eft.domain.names import partition_of
from eft.domain.transfer import State, Step, Transfer
from eft.errors import Conflict, EftError, LostOwnership, NotFound, Permanent
from eft.journey.messages import Message
from eft.journey.opening import destination
from eft.journey.work import Slice, Work
from eft.ports import Engine

LATEST: Final = 100
"""Fires among which one of the same key is looked for."""
TOO_LATE = frozenset({State.COMMITTING, State.DELIVERED, State.SETTLED})


def owned_transfer(engine: Engine, tenant: str, transfer_id: str) -> Transfer:
    """Returns a tenant's transfer.

    Raises:
        NotFound: `transfer_unknown`, also where it is another tenant's.
    """
    transfer = engine.ledger.load(transfer_id)
    if transfer.tenant != tenant:
        msg = f"no transfer has the id '{transfer_id}'"
        raise NotFound(msg, reason="transfer_unknown")
    return transfer


def cancel(engine: Engine, tenant: str, transfer_id: str, by: str) -> Transfer:
    """Ends a transfer that is not committing yet: its fence rises, its reservation and what it uploaded go. Repeating it is harmless.

    Raises:
        NotFound: `transfer_unknown`; Permanent: `too_late`; Transient: `peer_unreachable`; LostOwnership: it moved on meanwhile; ask again.
    """
    _refuse_late(owned_transfer(engine, tenant, transfer_id))
    work = take(engine, transfer_id)
    transfer = work.transfer
    if transfer.state is State.CANCELLED:
        work.save(transfer)
        return transfer
    with _put_down_if_refused(work):
        _refuse_late(transfer)
        engine.ownership.renounce(transfer)
    work.save(transfer.to(State.CANCELLED, now=work.now(), reason="cancelled", by=by))
    release_paths(engine, transfer, delivered=False)
    _remove_uploads(engine, transfer)
    engine.ownership.forget(work.transfer)
    return work.transfer


def redrive(engine: Engine, tenant: str, transfer_id: str, by: str) -> Transfer:
    """Sends a dead or held transfer round again from the step that failed.

    It goes on from the staged copy where there is one, and with the same token where that may have been committed.

    Raises:
        NotFound: `transfer_unknown`; Permanent: `not_resting`: it is neither dead nor held; `no_evidence`: the other region may have
        delivered it alone; `undecided`: a decision about it broke off.
    """
    seen = owned_transfer(engine, tenant, transfer_id)
    if seen.reason in {"name_invalid", "is_symlink"}:
        msg = f"transfer {transfer_id} is {seen.state}; its name can never be moved"
        raise Permanent(msg, reason="not_resting")
    work = take_resting(engine, seen, frozenset({State.DEAD, State.HELD}), reason="not_resting")
    transfer = work.transfer
    with _put_down_if_refused(work):
        _refuse_undecided(transfer)
    again = transfer.held_from if transfer.held_from in TOO_LATE else State.ACCEPTED if transfer.staged is None else State.STAGED
    due_at = work.now() + engine.tuning.stall
    changed = transfer.with_(redrives=transfer.redrives + 1, claim_until=None, due_at=due_at)
    work.save(changed.to(again or State.ACCEPTED, now=work.now(), reason="redriven", by=by))
    return work.transfer


def run_flow(
    engine: Engine, flow: Flow, *, window: tuple[datetime, datetime] | None = None, idempotency_key: str | None = None
) -> list[Message]:
    """Fires a flow now, whatever its schedule, for files modified in the window if one is given; returns its discover's first message.

    Under the key of one of the flow's latest fires it is that fire.

    Raises:
        Conflict: `idempotency_mismatch`: the key was used for another window, or for none.
    """
    mark = engine.clock.nonce() if idempotency_key is None else hashlib.sha256(idempotency_key.encode()).hexdigest()[:16]
    times = [engine.clock.now(), *(window or ())]
    name = "-".join(["past" if window else "now", *(asked_time(at) for at in times), mark])
    if idempotency_key is not None:
        before = next((fire.name for fire in engine.ledger.fires(flow, limit=LATEST) if fire.name.endswith(f"-{mark}")), name)
        if _asked_for(before) != _asked_for(name):
            msg = "this Idempotency-Key was used for another run of the flow; use a new key"
            raise Conflict(msg, reason="idempotency_mismatch")
        name = before
    engine.ledger.fire(
        flow,
        at=engine.clock.now() + engine.tuning.stall,
        name=name,
        partition=partition_of(flow.tenant, flow.destination),
    )
    return [Message(step=Step.DISCOVER, ids=(f"{flow.tenant}/{flow.id}/{name}",))]


def _asked_for(name: str) -> tuple[str, ...]:
    """Returns what a fire's name says beside when it was asked for: its kind, its window and its mark."""
    kind, _, *rest = name.split("-")
    return (kind, *rest)


def take(engine: Engine, transfer_id: str) -> Work:
    """Returns a transfer under an operator's claim, which fences whatever worker has it.

    Raises:
        NotFound: `transfer_unknown`.
    """
    piece = Slice(worker=f"operator-{engine.clock.nonce()}", clock=engine.clock, length=engine.tuning.slice)
    transfer = engine.ledger.claim(transfer_id, worker=piece.worker, now=engine.clock.now(), lease=engine.tuning.lease, force=True)
    if transfer is None:
        msg = f"transfer {transfer_id} is in another worker's hands; ask again"
        raise LostOwnership(msg)
    return Work(engine, transfer, piece)


def take_resting(engine: Engine, seen: Transfer, states: frozenset[State], *, reason: str) -> Work:
    """Returns a transfer as `take` does, if it rests in one of these states: as it was seen, and still once it is claimed.

    Raises:
        Permanent: it does not, with this reason; LostOwnership: the other region carries it on.
    """
    _refuse_others(seen, states, reason)
    work = take(engine, seen.id)
    with _put_down_if_refused(work):
        _refuse_others(work.transfer, states, reason)
    return work


@contextmanager
def _put_down_if_refused(work: Work) -> Iterator[None]:
    """Gives a claim back, with the row as it is, when what is tried under it is refused."""
    try:
        yield
    except EftError:
        with suppress(EftError):
            if work.transfer.next_step is None:
                work.put_down()
            else:
                work.give_back()
        raise


def _refuse_others(transfer: Transfer, states: frozenset[State], reason: str) -> None:
    if transfer.elsewhere is not None:
        msg = f"transfer {transfer.id} is carried on in {transfer.elsewhere}; ask there"
        raise LostOwnership(msg)
    if transfer.state not in states:
        msg = f"transfer {transfer.id} is {transfer.state}; this is for {' and '.join(sorted(states))} transfers"
        raise Permanent(msg, reason=reason)


def release_paths(engine: Engine, transfer: Transfer, *, delivered: bool) -> None:
    """Frees every destination path that the transfer may have reserved, up to the claim that it is seen under here."""
    places = (transfer.upload, transfer.commit)
    for path in sorted({transfer.destination.path, *(place.path for place in places if place is not None)}):
        engine.ledger.release(
            endpoint=transfer.destination.endpoint, path=path, transfer=transfer.id, claim=transfer.claim, delivered=delivered
        )


def _refuse_late(transfer: Transfer) -> None:
    if transfer.state in TOO_LATE:
        msg = f"transfer {transfer.id} is {transfer.state}: too late to cancel"
        raise Permanent(msg, reason="too_late")
    if transfer.state is State.HELD and (transfer.held_from in TOO_LATE or transfer.reason == "no_evidence"):
        msg = f"transfer {transfer.id} is held where it may have been delivered: decide that first"
        raise Permanent(msg, reason="too_late")


def _refuse_undecided(transfer: Transfer) -> None:
    if transfer.state is State.HELD and transfer.commit is not None and transfer.commit.abandoned:
        msg = f"a decision about transfer {transfer.id} was begun, and its token given up: decide again"
        raise Permanent(msg, reason="undecided")
    if transfer.state is State.HELD and transfer.reason == "no_evidence":
        msg = f"the other region may have delivered transfer {transfer.id} alone: rejoin decides, or ask the receiver and decide"
        raise Permanent(msg, reason="no_evidence")


def _remove_uploads(engine: Engine, transfer: Transfer) -> None:
    """Best effort: a dead endpoint keeps our temporary file, and the clean-up of stale uploads finds what S3 keeps."""
    try:
        if transfer.staging is not None:
            with engine.stores.staging() as staging:
                staging.consume(transfer.staging.token, transfer.staging.path)
        uploads = [*transfer.abandoned, *(u for u in (transfer.upload,) if u is not None)]
        if uploads:
            with destination(engine, transfer) as sink:
                for upload in uploads:
                    sink.consume(upload.token, upload.path)
    except EftError:
        return
