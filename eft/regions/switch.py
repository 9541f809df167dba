"""Moving partitions between regions: planned (drain, hand over), forced (promote), alone (solo); together again is `rejoin`.

Each function may be repeated after a crash at any point; each change is one conditional write that records who, why and ticket.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from eft.domain.ownership import JournalEntry, Mode, Partition, PeerLoss, Phase
from eft.domain.transfer import State
from eft.errors import Permanent, Transient
from eft.ports import Engine, OwnershipTable
from eft.regions.adoption import put_in_order
from eft.regions.orders import Order, change, home_row, own_table, peer_of
from eft.regions.strays import carry_over, return_strays


def drain(engine: Engine, number: int, order: Order) -> Partition:
    """Begins a planned switch at home: nothing new begins in the partition, what runs ends or gives itself back.

    Raises:
        Permanent: `not_home`, `released`; Conflict: `partition_changed`: somebody else changed it meanwhile.
    """
    own, seen = own_table(engine), _unreleased(engine, number)
    if seen.phase is Phase.DRAINING:
        return seen
    return change(engine, own, seen, order, phase=Phase.DRAINING)


def undrain(engine: Engine, number: int, order: Order) -> Partition:
    """Takes a drain back, as long as nothing was handed over.

    Raises:
        Permanent: `not_home`, `released`; Conflict: `partition_changed`.
    """
    seen = _unreleased(engine, number)
    return seen if seen.phase is Phase.ACTIVE else change(engine, own_table(engine), seen, order, phase=Phase.ACTIVE)


def hand_over(engine: Engine, number: int, order: Order) -> Partition:
    """Ends a planned switch: copies the drained partition's rows to the peer, which becomes its home under the next region_epoch.

    Raises:
        Permanent: `not_home`, `not_draining`; `not_rejoined`: the peer does not know all that was committed here;
        Transient: `still_busy`: a transfer is claimed or committing; Conflict: `partition_changed`.
    """
    own, peer = own_table(engine), peer_of(engine)
    there = peer.table.partition(number)
    here = own.partition(number)
    if there.home == peer.region and there.region_epoch > here.region_epoch:
        return _follow(engine, own, here, there, order)
    here = home_row(engine, number)
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
        here = change(engine, own, here, order, phase=Phase.RELEASED)
        # Once more: what was accepted or adopted since.
        rows = list(engine.ledger.unsettled(number))
    for row in rows:
        carry_over(engine, row, engine.ledger, peer.ledger, to=peer.region, region_epoch=here.region_epoch + 1)
    put_in_order(peer.table, peer.ledger, number, since=there.ordered)
    epoch = here.region_epoch + 1
    there = change(
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
    own = own_table(engine)
    seen = own.partition(number)
    if seen.home == engine.ownership.region:
        return seen
    if not old_home_may_be_solo and own.declared() is PeerLoss.HOME_SOLOS:
        msg = f"by policy {seen.home} goes on alone when it loses sight of us: promote with old_home_may_be_solo"
        raise Permanent(msg, reason="home_may_be_solo")
    return change(
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
    if seen.mode is Mode.DUAL and own_table(engine).declared() is PeerLoss.PEER_PROMOTES:
        msg = f"by policy the peer takes partition {number} over when it loses sight of us: a home never goes on alone"
        raise Permanent(msg, reason="peer_promotes")
    _refuse_promoted(engine, seen)
    return seen if seen.mode is Mode.SOLO else change(engine, own_table(engine), seen, order, mode=Mode.SOLO)


def _refuse_promoted(engine: Engine, seen: Partition) -> None:
    """Sees that the peer, if it answers, is not home itself: a home that was fenced must not go on alone."""
    peer = peer_of(engine)
    try:
        there = peer.table.partition(seen.number)
    except Transient:
        return
    if there.home == peer.region and there.region_epoch > seen.region_epoch:
        msg = f"{peer.region} is home of partition {seen.number} under region_epoch {there.region_epoch}: rejoin there"
        raise Permanent(msg, reason="both_home")


def _follow(engine: Engine, own: OwnershipTable, here: Partition, there: Partition, order: Order) -> Partition:
    """The old home learns who has the partition now, and ends its rows."""
    if (here.home, here.region_epoch) != (there.home, there.region_epoch):
        here = change(engine, own, here, order, home=there.home, region_epoch=there.region_epoch, mode=there.mode, phase=Phase.ACTIVE)
    return_strays(engine, here.number)
    return here


def _unreleased(engine: Engine, number: int) -> Partition:
    row = home_row(engine, number)
    if row.phase is Phase.RELEASED:
        msg = f"partition {number} is on its way: hand it over again, or promote the other region"
        raise Permanent(msg, reason="released")
    return row


def will_be_held(engine: Engine, number: int, *, old_home_may_be_solo: bool) -> Iterator[JournalEntry]:
    """Yields what a promotion would hold: shown before it happens."""
    own = own_table(engine)
    if old_home_may_be_solo or not own.partition(number).evidence:
        yield from own.journals(number)
