"""/v1/partitions: which region has which partition, and moving them. For operators."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from flask import Blueprint

from api.auth import Scope
from api.errors import Problem
from api.operation import Answered, caller, engine, operation, parts
from api.schemas.partitions import (
    ConfirmAsked,
    OrderAsked,
    PartitionPage,
    PartitionShown,
    PreviewAsked,
    PreviewShown,
    PromoteAsked,
    ProposalShown,
    SwitchShown,
)
from eft.domain.ownership import Mode, Partition, Proposal
from eft.errors import Conflict, EftError, NotFound, Permanent
from eft.journey.reconcile import Reconciliation, reconcile
from eft.ports import OwnershipTable
from eft.regions import switch
from eft.regions.orders import Order
from eft.regions.rejoin import rejoin as rejoin_peer

partitions = Blueprint("partitions", __name__, url_prefix="/v1/partitions")

CONFIRM_WITHIN: Final = timedelta(minutes=15)
SHOWN_IDS: Final = 20
Action = Callable[[int, Order, bool], Partition]


@partitions.get("")
@operation(summary="List partitions", scope=Scope.OPERATOR, answer=PartitionPage)
def listing() -> PartitionPage:
    """Every partition as this region's table has it, and as the peer's has it where the link is up."""
    peer = _peer_view()
    return PartitionPage(
        region=engine().ownership.region,
        link=peer is not None,
        items=tuple(_shown(row, None if peer is None else peer.get(row.number)) for row in _own().partitions()),
    )


@partitions.get("/reconciliation")
@operation(summary="Reconcile this region", scope=Scope.OPERATOR, answer=Reconciliation)
def reconciliation() -> Reconciliation:
    """Looks for what must not be: counts that do not add up, rows that stand still, reservations without a transfer. It changes nothing."""
    return reconcile(engine())


@partitions.get("/<id:number>/preview")
@operation(summary="Show what a promotion would hold", scope=Scope.OPERATOR, query=PreviewAsked, answer=PreviewShown)
def preview(number: str, query: PreviewAsked) -> PreviewShown:
    """The accepted transfers for whose fate this region has no evidence; the first ids, and how many they are."""
    held = [entry.transfer for entry in switch.will_be_held(engine(), _checked(number), old_home_may_be_solo=query.old_home_may_be_solo)]
    return PreviewShown(will_be_held=len(held), ids=tuple(held[:SHOWN_IDS]))


@partitions.post("/<id:number>/drain")
@operation(summary="Drain a partition", scope=Scope.OPERATOR, body=OrderAsked, answer=SwitchShown, also=(409,))
def drain(number: str, body: OrderAsked) -> SwitchShown:
    """Begins a planned switch: nothing new begins in the partition; ask for hand-over next."""
    return _done(switch.drain(engine(), _checked(number), _order(body)))


@partitions.post("/<id:number>/undrain")
@operation(summary="Take a drain back", scope=Scope.OPERATOR, body=OrderAsked, answer=SwitchShown, also=(409,))
def undrain(number: str, body: OrderAsked) -> SwitchShown:
    """The partition works on where it is."""
    return _done(switch.undrain(engine(), _checked(number), _order(body)))


@partitions.post("/<id:number>/hand-over")
@operation(summary="Hand a drained partition over", scope=Scope.OPERATOR, body=OrderAsked, answer=SwitchShown, also=(409, 503))
def hand_over(number: str, body: OrderAsked) -> SwitchShown:
    """Ends a planned switch: the peer becomes its home. 503 `still_busy` while a transfer is claimed or committing."""
    return _done(switch.hand_over(engine(), _checked(number), _order(body)))


@partitions.post("/<id:number>/rejoin")
@operation(summary="Bring a solo partition together again", scope=Scope.OPERATOR, body=OrderAsked, answer=SwitchShown, also=(409, 503))
def rejoin(number: str, body: OrderAsked) -> SwitchShown:
    """Ask at its home, once the link is up: the peer learns all that it missed, and commits need both acks again."""
    return _done(rejoin_peer(engine(), _checked(number), _order(body)))


@partitions.post("/<id:number>/promote")
@operation(summary="Promote this region", scope=Scope.OPERATOR, body=PromoteAsked, answer=SwitchShown, also=(202, 409))
def promote(number: str, body: PromoteAsked) -> Answered:
    """Makes this region the partition's home without asking the other, which gets no more acks from then on. Look at the preview first.

    Where two persons are asked for, the answer is 202 with a proposal for another operator to confirm.
    """
    return _risky("promote", number, body, old_home_may_be_solo=body.old_home_may_be_solo)


@partitions.post("/<id:number>/solo")
@operation(summary="Let a home commit alone", scope=Scope.OPERATOR, body=OrderAsked, answer=SwitchShown, also=(202, 409))
def solo(number: str, body: OrderAsked) -> Answered:
    """Only while nobody promotes the peer. Where two persons are asked for, the answer is 202 with a proposal."""
    return _risky("solo", number, body, old_home_may_be_solo=False)


@partitions.get("/proposals/<id:proposal_id>")
@operation(summary="Show a proposal", scope=Scope.OPERATOR, answer=ProposalShown)
def proposed(proposal_id: str) -> ProposalShown:
    """What another operator asks to be confirmed, while it is open; look at the preview of its partition, too."""
    return ProposalShown(**_open_proposal(proposal_id).model_dump())


@partitions.post("/proposals/<id:proposal_id>/confirm")
@operation(summary="Confirm another operator's proposal", scope=Scope.OPERATOR, body=ConfirmAsked, answer=SwitchShown, also=(409,))
def confirm(proposal_id: str, body: ConfirmAsked) -> SwitchShown:
    """Carries a proposal out, once, within a quarter of an hour, if somebody else made it and the partition is still as it was then."""
    proposal = _open_proposal(proposal_id)
    if proposal.by == caller().subject:
        raise Permanent("another operator than the one who proposed it must confirm", reason="same_person")
    _refuse_overtaken(proposal)
    both = f"{proposal.by}, confirmed by {caller().subject}"
    order = Order(by=both, why=f"{proposal.why}; {body.why}" if body.why else proposal.why, ticket=proposal.ticket)
    return _done(_carry_out(proposal.action, proposal.partition, order, old_home_may_be_solo=proposal.old_home_may_be_solo))


def _risky(action: str, number: str, body: OrderAsked, *, old_home_may_be_solo: bool) -> Answered:
    if not parts().two_person:
        return Answered(_done(_carry_out(action, _checked(number), _order(body), old_home_may_be_solo=old_home_may_be_solo)))
    now = engine().clock.now()
    proposal = Proposal(
        id=engine().clock.nonce(),
        action="promote" if action == "promote" else "solo",
        partition=_checked(number),
        by=caller().subject,
        why=body.why,
        ticket=body.ticket,
        old_home_may_be_solo=old_home_may_be_solo,
        expires=now + CONFIRM_WITHIN,
    )
    _own().propose(proposal)
    return Answered(SwitchShown(partition=None, proposal=ProposalShown(**proposal.model_dump())), status=202)


def _open_proposal(proposal_id: str) -> Proposal:
    proposal = _own().proposal(proposal_id)
    if proposal is None or proposal.expires < engine().clock.now():
        raise NotFound("no proposal that is still open has this id", reason="proposal_unknown")
    return proposal


def _refuse_overtaken(proposal: Proposal) -> None:
    """Sees that nothing has moved the partition since a proposal was made; one that has been carried out may be confirmed again."""
    row = _own().partition(proposal.partition)
    stands = row.home == engine().ownership.region if proposal.action == "promote" else row.mode is Mode.SOLO
    if not stands and row.changed_at is not None and row.changed_at >= proposal.expires - CONFIRM_WITHIN:
        msg = f"partition {row.number} was changed by {row.changed_by} after this was proposed; look again, and propose anew"
        raise Conflict(msg, reason="partition_changed")


def _carry_out(action: str, number: int, order: Order, *, old_home_may_be_solo: bool) -> Partition:
    if action == "promote":
        return switch.promote(engine(), number, order, old_home_may_be_solo=old_home_may_be_solo)
    return switch.solo(engine(), number, order)


def _order(body: OrderAsked) -> Order:
    return Order(by=caller().subject, why=body.why, ticket=body.ticket)


def _own() -> OwnershipTable:
    peer = engine().peer
    if peer is None:
        raise Problem("One region is configured: there is nothing to switch.", status=409, reason="no_peer")
    return peer.own


def _checked(number: str) -> int:
    for row in _own().partitions():
        if str(row.number) == number:
            return row.number
    raise NotFound(f"no partition has the number '{number}'", reason="partition_unknown")


def _peer_view() -> dict[int, Partition] | None:
    peer = engine().peer
    try:
        return None if peer is None else {row.number: row for row in peer.table.partitions()}
    except EftError:
        return None


def _done(row: Partition) -> SwitchShown:
    return SwitchShown(partition=_shown(row, None), proposal=None)


def _shown(row: Partition, peer: Partition | None) -> PartitionShown:
    return PartitionShown(
        **row.model_dump(),
        peer_home=None if peer is None else peer.home,
        peer_region_epoch=None if peer is None else peer.region_epoch,
    )
