"""Which region's rows speak for a transfer: its partition's home's, whichever region was asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from eft.domain.cursor import cursor_after, listing_key, listing_scope, read_cursor
from eft.domain.names import partition_of_id
from eft.domain.ownership import Intent
from eft.domain.transfer import MOVES, Receipt, State, Transfer
from eft.errors import NotFound, Transient
from eft.journey.operate import owned_transfer
from eft.ports import Engine, Ledger
from eft.regions.pair import RegionPair


def at_home(engine: Engine, transfer_id: str) -> Engine:
    """Returns the engine with ledger and ownership of the transfer's home, over the link where that is the peer.

    Raises:
        NotFound: `transfer_unknown`: it is no id of a transfer.
    """
    if engine.peer is None or engine.peer.own.partition(partition_of_id(transfer_id)).home == engine.ownership.region:
        return engine
    peer = engine.peer
    return replace(engine, ledger=peer.ledger, ownership=RegionPair(region=peer.region, own=peer.table, peer=peer.own))


def find(engine: Engine, tenant: str, transfer_id: str) -> Transfer:
    """Returns a tenant's transfer from its home's ledger; where that has none (yet), from the other's, or as it was journalled.

    Raises:
        NotFound: `transfer_unknown`, also where it is another tenant's.
    """
    home = at_home(engine, transfer_id)
    try:
        return owned_transfer(home, tenant, transfer_id)
    except NotFound:
        if engine.peer is None:
            raise
        other: Ledger = engine.peer.ledger if home is engine else engine.ledger
        known = _in(other, transfer_id) or _journalled(engine, transfer_id)
        if known is None or known.tenant != tenant:
            raise
        return known


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of a tenant's transfers from both regions, newest first."""

    items: Sequence[Transfer]
    cursor: str | None
    missing: str | None = None
    """The region that does not answer: what is at home there is not among the items."""


def page(
    engine: Engine, tenant: str, *, state: State | None = None, flow: str | None = None, limit: int = 50, cursor: str | None = None
) -> Listed:
    """Returns a page of a tenant's transfers: a page of each region's ledger, merged; each transfer as its home has it.

    Raises:
        Permanent: `cursor_invalid`.
    """
    here = engine.ledger.page(tenant, state=state, flow=flow, limit=limit, cursor=cursor)
    if engine.peer is None:
        return Listed(here.items, here.cursor)
    try:
        there = engine.peer.ledger.page(tenant, state=state, flow=flow, limit=limit, cursor=cursor)
    except Transient:
        return Listed([row for row in here.items if row.elsewhere is None], here.cursor, missing=engine.peer.region)
    scope = listing_scope(tenant, state=state, flow=flow)
    found: dict[str, Transfer] = {}
    for row in (*here.items, *there.items):
        key = listing_key(row.created, row.id)
        if row.elsewhere is None and (key not in found or found[key].region_epoch < row.region_epoch):
            found[key] = row
    # Below the end of a page that goes on, the other region may have more.
    whole = max((read_cursor(each.cursor, scope=scope) for each in (here, there) if each.cursor is not None), default="")
    keys = sorted((key for key in found if key >= whole), reverse=True)
    last = keys[limit - 1] if len(keys) > limit else whole
    return Listed([found[key] for key in keys[:limit]], cursor_after(last, scope=scope) if last else None)


def _in(ledger: Ledger, transfer_id: str) -> Transfer | None:
    try:
        return ledger.load(transfer_id)
    except NotFound:
        return None


def _journalled(engine: Engine, transfer_id: str) -> Transfer | None:
    if engine.peer is None:
        return None
    entry = engine.peer.own.journal_entry(transfer_id)
    if entry is None:
        return None
    accepted, intent = Transfer.model_validate_json(entry.row), engine.peer.own.intent(transfer_id)
    return _came_to_rest(accepted, intent) if entry.closed else accepted


def _came_to_rest(accepted: Transfer, intent: Intent | None) -> Transfer:
    """Returns what is left to know of a transfer whose row was lost with its region: it was delivered, or cancelled."""
    known = "known_from_journal"
    if intent is None or intent.abandoned or not intent.row:
        cancelled = State.CANCELLED in MOVES[accepted.state]
        return accepted.to(State.CANCELLED, now=accepted.since, reason=known) if cancelled else accepted
    announced = Transfer.model_validate_json(intent.row)
    if announced.commit is None or announced.state is not State.COMMITTING:
        return announced
    commit, at = announced.commit, announced.since
    receipt = Receipt(path=commit.path, size=commit.size, checksum=commit.checksum, at=at)
    delivered = announced.with_(receipt=receipt, claim_until=None).to(State.DELIVERED, now=at, reason=known)
    return delivered.to(State.SETTLED, now=at, reason=known)
