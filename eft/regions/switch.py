"""Moving partitions between regions: planned (drain, hand over), forced (promote), alone (solo), and together again (rejoin).

Each function may be repeated after a crash at any point; each change is one conditional write that records who, why and ticket.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from eft.domain.ownership import Intent, JournalEntry, Mode, Partition, PeerLoss, Phase
from eft.domain.transfer import FINAL, State, Transfer
from eft.errors import Conflict, LostOwnership, NotFound, Permanent, Transient
from eft.journey.operate import release_paths
from eft.journey.reserve import version_of
from eft.ports import Engine, Ledger, OwnershipTable, Peer
from eft.regions.adoption import decide_waiting, put_in_order


@dataclass(frozen=True, slots=True)
class Order:
    """Who wants a change, why, and under which ticket."""

    by: str
    why: str
    ticket: str


def drain(engine: Engine, number: int, order: Order) -> Partition:
    """Begins a planned switch at home: nothing new begins in the partition, what runs ends or gives itself back.

    Raises:
        Permanent: `not_home`, `released`; Conflict: `partition_changed`: somebody else changed it meanwhile.
    """
    own, seen = _own(engine), _unreleased(engine, number)
    if seen.phase is Phase.DRAINING:
        return seen
    return _change(engine, own, seen, order, phase=Phase.DRAINING)


def undrain(engine: Engine, number: int, order: Order) -> Partition:
    """Takes a drain back, as long as nothing was handed over.

    Raises:
        Permanent: `not_home`, `released`; Conflict: `partition_changed`.
    """
    seen = _unreleased(engine, number)
    return seen if seen.phase is Phase.ACTIVE else _change(engine, _own(engine), seen, order, phase=Phase.ACTIVE)


def hand_over(engine: Engine, number: int, order: Order) -> Partition:
    """Ends a planned switch: copies the drained partition's rows to the peer, which becomes its home under the next region_epoch.

    Raises:
        Permanent: `not_home`, `not_draining`; `not_rejoined`: the peer does not know all that was committed here;
        Transient: `still_busy`: a transfer is claimed or committing; Conflict: `partition_changed`.
    """
    own, peer = _own(engine), _peer(engine)
    there = peer.table.partition(number)
    here = own.partition(number)
    if there.home == peer.region and there.region_epoch > here.region_epoch:
        return _follow(engine, own, here, there, order)
    here = _home_row(engine, number)
    if here.mode is Mode.SOLO or there.home != here.home or not (here.evidence and there.evidence):
        msg = f"partition {number} was carried on by {here.home} alone: rejoin first, so that {peer.region} knows what was delivered"
        raise Permanent(msg, reason="not_rejoined")
    if here.phase is Phase.ACTIVE:
        msg = f"partition {number} is active: drain it first"
        raise Permanent(msg, reason="not_draining")
    rows = list(engine.ledger.unsettled(number))
    now = engine.clock.now()
    # Once released, a committing transfer is recovered by its token in the next home: here nobody may any more.
    waits = here.phase is Phase.DRAINING
    busy = [row.id for row in rows if (waits and row.state is State.COMMITTING) or (row.claim_until or now) > now]
    if busy:
        msg = f"{len(busy)} transfers of partition {number} are claimed or committing, such as {busy[0]}; ask again"
        raise Transient(msg, reason="still_busy", retry_after=timedelta(seconds=5))
    if here.phase is Phase.DRAINING:
        here = _change(engine, own, here, order, phase=Phase.RELEASED)
        # Once more: what was accepted or adopted since.
        rows = list(engine.ledger.unsettled(number))
    for row in rows:
        _carry_over(engine, row, engine.ledger, peer.ledger, to=peer.region, region_epoch=here.region_epoch + 1)
    put_in_order(peer.table, peer.ledger, number, since=there.ordered)
    epoch = here.region_epoch + 1
    there = _change(
        engine, peer.table, there, order, home=peer.region, region_epoch=epoch, ordered=epoch, mode=here.mode, phase=Phase.ACTIVE
    )
    return _follow(engine, own, here, there, order)


def promote(engine: Engine, number: int, order: Order, *, old_home_may_be_solo: bool) -> Partition:
    """Makes this region the partition's home without asking the other, and solo, in one write: the old home gets no more acks.

    With `old_home_may_be_solo` what has no evidence here is held when it is adopted.

    Raises:
        Permanent: `home_may_be_solo`: by policy it goes on alone, and `old_home_may_be_solo` says otherwise;
        Conflict: `partition_changed`.
    """
    own = _own(engine)
    seen = own.partition(number)
    if seen.home == engine.ownership.region:
        return seen
    if not old_home_may_be_solo and own.declared() is PeerLoss.HOME_SOLOS:
        msg = f"by policy {seen.home} goes on alone when it loses sight of us: promote with old_home_may_be_solo"
        raise Permanent(msg, reason="home_may_be_solo")
    return _change(
        engine,
        own,
        seen,
        order,
        home=engine.ownership.region,
        region_epoch=seen.region_epoch + 1,
        mode=Mode.SOLO,
        phase=Phase.ACTIVE,
        evidence=seen.evidence and not old_home_may_be_solo,
    )


def solo(engine: Engine, number: int, order: Order) -> Partition:
    """Lets this home commit without its peer. Only where nobody promotes the peer: the operator's word, where it cannot be asked.

    Raises:
        Permanent: `not_home`, `released`; `peer_promotes`: by policy the peer takes over instead; `both_home`: it was promoted;
        Conflict: `partition_changed`.
    """
    seen = _unreleased(engine, number)
    if seen.mode is Mode.DUAL and _own(engine).declared() is PeerLoss.PEER_PROMOTES:
        msg = f"by policy the peer takes partition {number} over when it loses sight of us: a home never goes on alone"
        raise Permanent(msg, reason="peer_promotes")
    _refuse_promoted(engine, seen)
    return seen if seen.mode is Mode.SOLO else _change(engine, _own(engine), seen, order, mode=Mode.SOLO)


def _refuse_promoted(engine: Engine, seen: Partition) -> None:
    """Sees that the peer, if it answers, is not home itself: a home that was fenced must not go on alone."""
    peer = _peer(engine)
    try:
        there = peer.table.partition(seen.number)
    except Transient:
        return
    if there.home == peer.region and there.region_epoch > seen.region_epoch:
        msg = f"{peer.region} is home of partition {seen.number} under region_epoch {there.region_epoch}: rejoin there"
        raise Permanent(msg, reason="both_home")


def rejoin(engine: Engine, number: int, order: Order) -> Partition:
    """Brings a solo home and its peer together again, and ends with both acks needed and everything known at the peer.

        peer learns who is home, and that it lacks evidence ─ home turns dual ─ what waited for evidence is decided
        ─ what ended with the peer alone is learnt, what it announced is learnt or written off
        ─ journals and intents are copied ─ this ledger knows what was delivered where ─ peer has the evidence

    Raises:
        Permanent: `not_home`, `both_home`; Transient: `peer_unreachable`; Conflict: `partition_changed`.
    """
    own, peer = _own(engine), _peer(engine)
    here, there = _home_row(engine, number), peer.table.partition(number)
    if there.home == peer.region and there.region_epoch >= here.region_epoch:
        msg = f"{peer.region} is home of partition {number} under region_epoch {there.region_epoch}: rejoin there"
        raise Permanent(msg, reason="both_home")
    if here.mode is Mode.DUAL and here.evidence and there.evidence and there.home == here.home:
        decide_waiting(engine, peer, number)
        return here
    there = _change(
        engine, peer.table, there, order, home=here.home, region_epoch=here.region_epoch, mode=Mode.DUAL, phase=Phase.ACTIVE, evidence=False
    )
    if here.mode is Mode.SOLO:
        here = _change(engine, own, here, order, mode=Mode.DUAL)
    _reconcile(engine, peer, number, here.region_epoch)
    _compare_intents(engine, peer, number, here.region_epoch)
    _tell_everything(engine, peer, number, here.region_epoch)
    # What this region learnt just now is announced under the present region_epoch.
    put_in_order(own, engine.ledger, number, since=here.region_epoch - 1)
    _change(engine, peer.table, there, order, evidence=True)
    here = here if here.evidence else _change(engine, own, here, order, evidence=True)
    # Once more: what has come to wait for evidence since.
    decide_waiting(engine, peer, number)
    return here


def _reconcile(engine: Engine, peer: Peer, number: int, region_epoch: int) -> None:
    """After a promotion: the old home's rows are carried over, and what was held here for want of evidence is decided by theirs."""
    here = engine.ownership.region
    theirs = {row.id: row for row in peer.ledger.unsettled(number)}
    decide_waiting(engine, peer, number)
    for row in theirs.values():
        _carry_over(engine, row, peer.ledger, engine.ledger, to=here, region_epoch=region_epoch)
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


def _follow(engine: Engine, own: OwnershipTable, here: Partition, there: Partition, order: Order) -> Partition:
    """The old home learns who has the partition now, and ends its rows."""
    if (here.home, here.region_epoch) != (there.home, there.region_epoch):
        here = _change(engine, own, here, order, home=there.home, region_epoch=there.region_epoch, mode=there.mode, phase=Phase.ACTIVE)
    return_strays(engine, here.number)
    return here


def return_strays(engine: Engine, number: int) -> int:
    """Carries what belongs to a partition's home there: rows created here while it left, and journals that the home could not be told.

    Returns how many. Cheap where there are none.

    Raises:
        Transient: `peer_unreachable`; they wait.
    """
    peer = _peer(engine)
    there = peer.own.partition(number)
    if there.home != peer.region:
        return 0
    strays = [row for row in engine.ledger.unsettled(number) if row.region_epoch <= there.region_epoch]
    for row in strays:
        _carry_over(engine, row, engine.ledger, peer.ledger, to=peer.region, region_epoch=there.region_epoch)
    untold = _untold(peer, number)
    for entry in untold:
        peer.table.journal(entry)
    return len(strays) + len(untold)


def _untold(peer: Peer, number: int) -> list[JournalEntry]:
    """Returns what this region accepted for the peer while the peer could not be reached: it is in one journal only."""
    ours = {entry.transfer: entry for entry in peer.own.journals(number)}
    known = peer.table.journalled(list(ours)) if ours else set()
    return [entry for transfer, entry in ours.items() if transfer not in known]


def _carry_over(engine: Engine, row: Transfer, source: Ledger, target: Ledger, *, to: str, region_epoch: int) -> None:
    """Moves one row: fences whoever still has it, writes it in the other ledger IF that has none of this era, and ends it in its own.

    A row of a later era has just come from there and stays; so does one that the other ledger holds to be here.
    """
    if row.region_epoch > region_epoch:
        return
    worker = f"switch-{engine.clock.nonce()}"
    claimed = source.claim(row.id, worker=worker, now=engine.clock.now(), lease=engine.tuning.lease, force=True)
    if claimed is None or claimed.elsewhere is not None or claimed.state in FINAL:
        return
    commit = claimed.commit and claimed.commit.model_copy(update={"region_epoch": region_epoch, "attempted": True})
    moved = claimed.with_(region_epoch=region_epoch, commit=commit, due_at=engine.clock.now())
    stays = claimed.region_epoch > region_epoch or not (_copy(source, target, moved) or _live_there(engine, target, moved, was=claimed))
    ended = claimed.with_(claim_until=None) if stays else claimed.with_(elsewhere=to, claim_until=None, due_at=None)
    try:
        source.save(ended, was=claimed.state)
    except LostOwnership:
        # Whoever carries the same row at the same time ends it: only an order or the upkeep of its region claims it any more.
        return
    if not stays:
        release_paths(replace(engine, ledger=source), claimed, delivered=False)


def _live_there(engine: Engine, target: Ledger, moved: Transfer, *, was: Transfer) -> bool:
    """Returns whether the other ledger goes on with a row that could not be written there.

    One that it holds to be here, under a later era than ours, it has by mistake: a cancellation that broke off in the one region let it
    believe that the transfer had ended in the other. What we have takes its place.
    """
    theirs = target.load(moved.id)
    if theirs.elsewhere is None:
        return True
    if theirs.region_epoch <= was.region_epoch:
        return False
    worker = f"switch-{engine.clock.nonce()}"
    theirs = target.claim(moved.id, worker=worker, now=engine.clock.now(), lease=engine.tuning.lease, force=True) or theirs
    if theirs.elsewhere is None or theirs.state in FINAL:
        return theirs.elsewhere is None
    try:
        target.save(moved.with_(fence=theirs.fence, claim_until=None, elsewhere=None), was=theirs.state)
    except LostOwnership:
        return False
    return True


def _copy(source: Ledger, target: Ledger, row: Transfer) -> bool:
    """Copies a row with the parts and the reservation of its open attempt; returns whether the row was written."""
    arrived = row.with_(claim_until=None, elsewhere=None, fence=0)
    if not target.adopt(arrived):
        return False
    for upload in (row.upload, row.staging):
        for part in (source.parts(row.id, attempt=upload.attempt) if upload is not None else {}).values():
            target.record_part(row.id, attempt=upload.attempt if upload else 0, done=part)
    if row.upload is not None:
        # Under the claim that it arrives with: the fence it had at its source would bar the first workers that claim it there.
        with suppress(LostOwnership):
            target.reserve(path=row.upload.path, claim=arrived.claim, **version_of(row))
    return True


def _home_row(engine: Engine, number: int) -> Partition:
    row = _own(engine).partition(number)
    if row.home != engine.ownership.region:
        msg = f"the home of partition {number} is {row.home}; ask there"
        raise Permanent(msg, reason="not_home")
    return row


def _unreleased(engine: Engine, number: int) -> Partition:
    row = _home_row(engine, number)
    if row.phase is Phase.RELEASED:
        msg = f"partition {number} is on its way: hand it over again, or promote the other region"
        raise Permanent(msg, reason="released")
    return row


def _change(engine: Engine, table: OwnershipTable, seen: Partition, order: Order, **changes: object) -> Partition:
    who = {"changed_by": order.by, "why": order.why, "ticket": order.ticket, "changed_at": engine.clock.now()}
    new = seen.model_copy(update={**who, **changes})
    if not table.change(new, seen=seen):
        msg = f"partition {seen.number} was changed by somebody else meanwhile; look again"
        raise Conflict(msg, reason="partition_changed")
    return new


def _own(engine: Engine) -> OwnershipTable:
    return _peer(engine).own


def _peer(engine: Engine) -> Peer:
    if engine.peer is None:
        msg = "one region is configured: there is no peer to switch to"
        raise Permanent(msg, reason="no_peer")
    return engine.peer


def will_be_held(engine: Engine, number: int, *, old_home_may_be_solo: bool) -> Iterator[JournalEntry]:
    """Yields what a promotion would hold: shown before it happens."""
    own = _own(engine)
    if old_home_may_be_solo or not own.partition(number).evidence:
        yield from own.journals(number)
