"""Which region's rows speak for a transfer: its partition's home's, whichever region was asked."""

from __future__ import annotations

from dataclasses import replace

from eft.domain.names import partition_of_id
from eft.domain.ownership import Intent
from eft.domain.transfer import MOVES, Receipt, State, Transfer
from eft.errors import NotFound
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
