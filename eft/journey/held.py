"""What a person decides about a held transfer: deliver it anyway, accept it as delivered, or abandon it."""

from __future__ import annotations

from datetime import datetime
from enum import Enum, StrEnum
from typing import Final, NoReturn

from eft.domain.names import put_by
from eft.domain.transfer import CLOCKS_DIFFER, PUT_ARRIVES_WITHIN, Commit, Receipt, State, Transfer
from eft.errors import Permanent
from eft.journey.committing import is_ours
from eft.journey.opening import destination
from eft.journey.operate import owned_transfer, release_paths, take_resting
from eft.journey.work import Work
from eft.ports import Engine


class Decision(StrEnum):
    """An operator's word about a held transfer."""

    DELIVER = "deliver"
    """Deliver it anyway, with a new token: the receiver may get it a second time where the first cannot be found."""
    ACCEPT = "accept"
    """It has been delivered; settle it."""
    ABANDON = "abandon"
    """Give it up."""


class Fate(Enum):
    """What a decision finds of a token that may have been committed."""

    CONSUMED = "consumed"
    """Nobody commits it any more; or there was none."""
    DELIVERED = "delivered"
    """Our file stands at the destination."""
    GONE = "gone"
    """Neither it nor the file is there: delivered and taken, or removed by somebody."""


GONE: Final = "token_gone"


def decide(engine: Engine, tenant: str, transfer_id: str, decision: Decision, *, by: str, why: str) -> Transfer:
    """Carries a decision out; before anything else the old token is written off and consumed, so that no late worker commits it.

    Where that shows the file at its destination, it is delivered, whatever the decision was. Where it shows that the token has gone since
    the transfer was held, a late request of ours may have delivered it after the person had asked: it is held for that, and asked again.

    Raises:
        NotFound: `transfer_unknown`; Permanent: `not_held`, `token_gone`: see above; `may_still_arrive`: wait for minutes;
        Transient: `peer_unreachable`, or the destination does not answer: ask again.
    """
    seen = owned_transfer(engine, tenant, transfer_id)
    _wait_for_put(seen, decision, now=engine.clock.now())
    work = take_resting(engine, seen, frozenset({State.HELD}), reason="not_held")
    fate = _write_off(work, decision)
    if fate is Fate.GONE and decision is not Decision.ACCEPT and seen.reason != GONE:
        _ask_again(work, by=by)
    found = fate is Fate.DELIVERED
    transfer = work.transfer.with_(claim_until=None, due_at=work.now() + engine.tuning.stall, redrives=work.transfer.redrives + 1)
    reason = f"operator_{decision}"
    if found or decision is Decision.ACCEPT:
        delivered = transfer.with_(receipt=transfer.receipt or _receipt(work, transfer.commit), upload=None)
        if State.DELIVERED is not transfer.held_from:
            delivered = delivered.to(State.COMMITTING, now=work.now(), reason=reason, by=by, error=why)
        delivered = delivered.to(State.DELIVERED, now=work.now(), reason="found_at_destination" if found else reason, by=by, error=why)
        if transfer.commit is None:
            # Without a token no intent says so: the peer, should it be promoted, is never to deliver it.
            engine.ownership.renounce(delivered)
        work.save(delivered)
        release_paths(engine, transfer, delivered=True)
    elif decision is Decision.ABANDON:
        engine.ownership.renounce(transfer)
        work.save(transfer.to(State.CANCELLED, now=work.now(), reason=reason, by=by, error=why))
        release_paths(engine, transfer, delivered=False)
        engine.ownership.forget(work.transfer)
    else:
        again = State.ACCEPTED if transfer.staged is None else State.STAGED
        work.save(transfer.with_(commit=None, upload=None).to(again, now=work.now(), reason=reason, by=by, error=why))
    return work.transfer


def _wait_for_put(seen: Transfer, decision: Decision, *, now: datetime) -> None:
    """A request whose answer was lost cannot be taken back; once it is too old its store refuses it, should it still come."""
    commit = seen.commit
    if commit is None or put_by(commit.token) is None or seen.held_from is State.DELIVERED or decision is Decision.ACCEPT:
        return
    until = (commit.asked_at or seen.since) + PUT_ARRIVES_WITHIN + CLOCKS_DIFFER
    if now < until:
        msg = (
            f"the upload of transfer {seen.id} may still arrive; decide after {until:%H:%M} UTC, or re-drive it to look for the file again"
        )
        raise Permanent(msg, reason="may_still_arrive")


def _write_off(work: Work, decision: Decision) -> Fate:
    """ABANDON(token), with the peer's ack, then consumes it; returns what became of the token."""
    commit, transfer = work.transfer.commit, work.transfer
    if commit is None or transfer.held_from is State.DELIVERED:
        return Fate.CONSUMED
    commit = commit.model_copy(update={"abandoned": True, "refused": False})
    transfer = transfer.with_(commit=commit)
    work.save(transfer)
    work.engine.ownership.abandon(work.intent(commit))
    if decision is Decision.ACCEPT and put_by(commit.token) is not None:
        # There is nothing to remove, and whoever says that it has arrived need not be able to look.
        return Fate.CONSUMED
    with destination(work.engine, transfer) as sink:
        if sink.consume(commit.token, commit.path):
            return Fate.CONSUMED
        final = sink.look(commit.path)
        return Fate.DELIVERED if final is not None and is_ours(work, sink, commit, final) else Fate.GONE


def _ask_again(work: Work, *, by: str) -> NoReturn:
    path = work.transfer.destination.path if work.transfer.commit is None else work.transfer.commit.path
    msg = f"the temporary file of '{path}' has gone since this was held, and the final one is not there: it may have been delivered"
    held = work.transfer.with_(claim_until=None, reason=GONE, error=msg)
    work.save(held.noted(now=work.now(), reason=GONE, error=msg, by=by))
    raise Permanent(f"{msg}; ask the receiver again, then decide again", reason=GONE)


def _receipt(work: Work, commit: Commit | None) -> Receipt | None:
    if commit is None:
        return None
    return Receipt(path=commit.path, size=commit.size, checksum=commit.checksum, at=work.now())
