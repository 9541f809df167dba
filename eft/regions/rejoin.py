"""Rejoin: a home that went on alone and its peer learn what the other one knows.

It may be repeated after a crash at any point.
"""

from __future__ import annotations

from eft.domain.ownership import Intent, JournalEntry, Mode, Partition, Phase
from eft.domain.transfer import FINAL, Transfer
from eft.errors import NotFound, Permanent
from eft.ports import Engine, Ledger, Peer
from eft.regions.adoption import decide_waiting, put_in_order
from eft.regions.orders import Order, change, home_row, own_table, peer_of
from eft.regions.strays import carry_over


def rejoin(engine: Engine, number: int, order: Order) -> Partition:
    """Brings a solo home and its peer together again, and ends with both acks needed and everything known at the peer.

        peer learns who is home, and that it lacks evidence ─ home turns dual ─ what waited for evidence is decided
        ─ what ended with the peer alone is learnt, what it announced is learnt or written off
        ─ journals and intents are copied ─ this ledger knows what was delivered where ─ peer has the evidence

    Raises:
        Permanent: `not_home`, `both_home`; Transient: `peer_unreachable`; Conflict: `partition_changed`.
    """
    own, peer = own_table(engine), peer_of(engine)
    here, there = home_row(engine, number), peer.table.partition(number)
    if there.home == peer.region and there.region_epoch >= here.region_epoch:
        msg = f"{peer.region} is home of partition {number} under region_epoch {there.region_epoch}: rejoin there"
        raise Permanent(msg, reason="both_home")
    if here.mode is Mode.DUAL and here.evidence and there.evidence and there.home == here.home:
        decide_waiting(engine, peer, number)
        return here
    there = change(
        engine, peer.table, there, order, home=here.home, region_epoch=here.region_epoch, mode=Mode.DUAL, phase=Phase.ACTIVE, evidence=False
    )
    if here.mode is Mode.SOLO:
        here = change(engine, own, here, order, mode=Mode.DUAL)
    _reconcile(engine, peer, number, here.region_epoch)
    _compare_intents(engine, peer, number, here.region_epoch)
    _tell_everything(engine, peer, number, here.region_epoch)
    # What this region learnt just now is announced under the present region_epoch.
    put_in_order(own, engine.ledger, number, since=here.region_epoch - 1)
    change(engine, peer.table, there, order, evidence=True)
    here = here if here.evidence else change(engine, own, here, order, evidence=True)
    # Once more: what has come to wait for evidence since.
    decide_waiting(engine, peer, number)
    return here


def _reconcile(engine: Engine, peer: Peer, number: int, region_epoch: int) -> None:
    """After a promotion: the old home's rows are carried over, and what was held here for want of evidence is decided by theirs."""
    here = engine.ownership.region
    theirs = {row.id: row for row in peer.ledger.unsettled(number)}
    decide_waiting(engine, peer, number)
    for row in theirs.values():
        carry_over(engine, row, peer.ledger, engine.ledger, to=here, region_epoch=region_epoch)
    for entry in peer.own.journals(number, open_only=False):
        if not entry.closed and entry.transfer not in theirs:
            _learn(engine, _row(peer.ledger, entry.transfer), region_epoch=region_epoch)


def _learn(engine: Engine, theirs: Transfer | None, *, region_epoch: int) -> None:
    """What came to rest for good in the other region is known here by its row: neither journal nor sleeper starts it again."""
    if theirs is None or theirs.state not in FINAL:
        return
    if engine.ledger.adopt(theirs.with_(region_epoch=region_epoch, fence=0, claim_until=None)):
        engine.ownership.forget(theirs)


def _row(ledger: Ledger, transfer: str) -> Transfer | None:
    try:
        return ledger.load(transfer)
    except NotFound:
        return None


def _compare_intents(engine: Engine, peer: Peer, number: int, region_epoch: int) -> None:
    """Decides between what the peer announced as home and this region never acknowledged, and what this region announced.

    Committed alone, or carried on here, the peer's is learnt. Else it can never be committed, for the gate is against it. The other
    one is written off, so that it neither stands in the way of a next attempt nor is recovered after a later promotion.
    """
    own, here = peer.own, engine.ownership.region
    tokens = {intent.transfer: intent.token for intent in own.intents(number)}
    for intent in peer.table.intents(number):
        if intent.abandoned or tokens.get(intent.transfer) == intent.token:
            continue
        # Once more, for what was announced since.
        ours = own.intent(intent.transfer)
        if ours is not None and ours.token == intent.token:
            continue
        theirs = _row(peer.ledger, intent.transfer)
        _learn(engine, theirs, region_epoch=region_epoch)
        row = _row(engine.ledger, intent.transfer)
        if row is not None and row.commit is not None and row.commit.token == intent.token:
            if ours is not None and not ours.abandoned:
                own.intend(_written_off(ours, region_epoch), home=here, mode=None)
            own.intend(intent.model_copy(update={"region_epoch": region_epoch}), home=here, mode=None)
            closed = row.state in FINAL
            own.journal(JournalEntry(partition=number, transfer=intent.transfer, row=intent.row, closed=closed))
        else:
            peer.table.intend(_written_off(intent, region_epoch), home=here, mode=None)


def _written_off(intent: Intent, region_epoch: int) -> Intent:
    """As attempt 0, so that whichever comes next is a later one."""
    return intent.model_copy(update={"region_epoch": region_epoch, "abandoned": True, "attempt": 0})


def _tell_everything(engine: Engine, peer: Peer, number: int, region_epoch: int) -> None:
    """Copies what the peer may have missed: journals, intents, what was accepted here alone, and what has come to rest since."""
    own, here = peer.own, engine.ownership.region
    moving = {row.id: row.model_dump_json(exclude_defaults=True) for row in engine.ledger.unsettled(number)}
    told = {entry.transfer: entry for entry in own.journals(number, open_only=False)}
    for transfer, text in moving.items():
        told.setdefault(transfer, JournalEntry(partition=number, transfer=transfer, row=text))
    heard = {intent.transfer: (intent.token, intent.abandoned) for intent in peer.table.intents(number)}
    for intent in own.intents(number):
        if heard.get(intent.transfer) != (intent.token, intent.abandoned):
            # Under the present era, or the peer's gate would be against it.
            peer.table.intend(intent.model_copy(update={"region_epoch": region_epoch}), home=here, mode=None)
        closed = intent.transfer not in moving
        told.setdefault(intent.transfer, JournalEntry(partition=number, transfer=intent.transfer, row=intent.row, closed=closed))
    known = peer.table.journalled(list(told))
    for transfer in sorted(told.keys() - known):
        peer.table.journal(told[transfer])
    for entry in peer.table.journals(number):
        row = _row(engine.ledger, entry.transfer)
        if row is not None and row.state in FINAL and row.elsewhere is None:
            peer.table.close_journal(entry.transfer)
