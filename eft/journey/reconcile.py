"""Reconcile: an hourly look for what must not be; what it finds is logged, counted and shown to operators.

It changes one thing: paths that transfers at rest still hold, because a worker died between the last save and the release, are freed.

Its identity (accepted = the sum of all states) compares two indexes of the same items: it fails where an index lacks a row or has it
in two states, never where a row is gone. That is seen in two regions alone, by what the other one has on record as accepted here (`lost`);
what was accepted while the other could not be reached, and everything in one region, has no second witness.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from eft.domain.endpoint import Frozen
from eft.domain.names import remote_path
from eft.domain.ownership import JournalEntry
from eft.domain.transfer import RESTING, State, Transfer
from eft.errors import NotFound, Transient
from eft.journey.reserve import free_of
from eft.ports import Engine, OwnershipTable, Peer

log = logging.getLogger(__name__)

COMMITTING_BOUND = timedelta(minutes=15)
OVERDUE_STALLS = 10
"""Stall times past its due time after which a row stands still for no visible reason."""
UNTOLD_BOUND = timedelta(minutes=15)
ADOPTED_WITHIN = timedelta(minutes=15)
FRUITLESS_CLAIMS = 10
FRUITLESS_BOUND = timedelta(hours=1)
SLOW = frozenset({State.STAGING, State.DELIVERING})
"""States in which a large file is claimed slice after slice for long."""
FRUITLESS_SLOW_BOUND = timedelta(days=1)
WINDOW = timedelta(hours=24)
SHOWN = 20


class Reconciliation(Frozen):
    """What a reconciliation found; ids are the first few of each kind."""

    at: datetime
    accepted: int
    """Transfers accepted within the window."""
    by_state: dict[State, int]
    """The same transfers by state; their sum is `accepted` unless one is in no state or two."""
    overdue: tuple[str, ...] = ()
    """Rows that the sweep should have moved long ago."""
    fruitless: tuple[str, ...] = ()
    """Rows claimed again and again of which nothing was heard for long: whoever takes them dies, as for want of memory."""
    committing_late: tuple[str, ...] = ()
    """Committing rows older than their bound: the peer or the destination does not answer."""
    freed: tuple[str, ...] = ()
    """`<endpoint>/<path>` that a transfer at rest, gone to the other region, or without a row still held: free now."""
    unadopted: tuple[str, ...] = ()
    """Accepted by the other region for this one, or adopted from it, and still without a row here: nobody adopts, or what is on record
    cannot be read."""
    lost: tuple[str, ...] = ()
    """On record in the other region alone, as accepted here, and without a row: the ledger has lost it, a change of home has left it
    behind, or its acceptance broke off before anybody was told."""
    untold: tuple[str, ...] = ()
    """Rows of which somebody should have been told long ago: nobody tells, or what tells fails."""

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        found = self.overdue or self.fruitless or self.committing_late or self.unadopted or self.lost or self.untold
        return not found and sum(self.by_state.values()) == self.accepted


def reconcile(engine: Engine, tenants: Sequence[str] | None = None) -> Reconciliation:
    """Looks through this region's rows: counts of the window per tenant, and the unsettled rows and reservations of every partition."""
    now = engine.clock.now()
    overdue: list[str] = []
    fruitless: list[str] = []
    late: list[str] = []
    freed: list[str] = []
    unadopted: list[str] = []
    lost: list[str] = []
    owned = engine.ownership.owned()
    for partition in owned:
        for row in engine.ledger.unsettled(partition):
            if row.state not in RESTING and (row.due_at is None or row.due_at < now - OVERDUE_STALLS * engine.tuning.stall):
                overdue.append(row.id)
            if _fruitless(row, now):
                fruitless.append(row.id)
            if row.state is State.COMMITTING and row.since < now - COMMITTING_BOUND:
                late.append(row.id)
        for endpoint, path, holder in _without_live_holder(engine, partition):
            if free_of(engine.ledger, endpoint=endpoint, path=remote_path(path), holder=holder):
                freed.append(f"{endpoint}/{path}")
        if engine.peer is not None:
            unadopted += _without_row(engine, engine.peer.own, partition, before=now - ADOPTED_WITHIN)
            lost += _lost(engine, engine.peer, partition, before=now - ADOPTED_WITHIN)
    accepted, by_state = _census(engine, engine.registry.tenants() if tenants is None else tenants, since=now - WINDOW)
    found = Reconciliation(
        at=now,
        accepted=accepted,
        by_state=by_state,
        overdue=tuple(overdue[:SHOWN]),
        fruitless=tuple(fruitless[:SHOWN]),
        committing_late=tuple(late[:SHOWN]),
        freed=tuple(freed[:SHOWN]),
        unadopted=tuple(unadopted[:SHOWN]),
        lost=tuple(lost[:SHOWN]),
        untold=tuple(_untold(engine, before=now - UNTOLD_BOUND)[:SHOWN]),
    )
    log.log(logging.INFO if found.clean else logging.ERROR, "reconciled", extra=found.model_dump(mode="json"))
    return found


def _census(engine: Engine, tenants: Sequence[str], *, since: datetime) -> tuple[int, dict[State, int]]:
    """Counts twice, by two indexes of the same rows; moves in between are looked at again."""
    accepted, by_state = 0, dict.fromkeys(State, 0)
    for tenant in tenants:
        total, each = _counted(engine, tenant, since)
        for _ in range(2):
            if sum(each.values()) != total:
                total, each = _counted(engine, tenant, since)
        accepted += total
        by_state = {state: by_state[state] + each[state] for state in State}
    return accepted, by_state


def _counted(engine: Engine, tenant: str, since: datetime) -> tuple[int, dict[State, int]]:
    total = engine.ledger.count(tenant, since=since)
    return total, {state: engine.ledger.count(tenant, state=state, since=since) for state in State}


def _without_live_holder(engine: Engine, partition: int) -> list[tuple[str, str, str]]:
    """Returns the reservations of transfers at rest that are there at a second look, too: a path is freed a moment after its row."""
    suspects = {each for each in engine.ledger.reservations(partition) if not _live(engine, each[2])}
    if not suspects:
        return []
    return [each for each in engine.ledger.reservations(partition) if each in suspects]


def _fruitless(row: Transfer, now: datetime) -> bool:
    """The sweep moves a row's due time each time it re-queues it, so that such a one is never overdue."""
    heard = max((event.at for event in row.timeline), default=row.since)
    bound = FRUITLESS_SLOW_BOUND if row.state in SLOW else FRUITLESS_BOUND
    return row.state not in RESTING and row.reason is None and row.fence >= FRUITLESS_CLAIMS and heard < now - bound


def _lost(engine: Engine, peer: Peer, partition: int, *, before: datetime) -> list[str]:
    """Returns what only the other region's journal has; nothing while that cannot be reached: the next look asks again.

    What the own journal has, too, was adopted, is `unadopted`, or has ended in the other region.
    """
    try:
        missing = _without_row(engine, peer.table, partition, before=before)
        return sorted(set(missing) - peer.own.journalled(missing)) if missing else []
    except Transient as error:
        log.info("the other region's journal not compared", extra={"partition": partition, "reason": error.reason})
        return []


def _without_row(engine: Engine, table: OwnershipTable, partition: int, *, before: datetime) -> list[str]:
    """Returns what a journal has as accepted before a time, or cannot be read, and has no row."""
    entries = {entry.transfer: entry for entry in table.journals(partition)}
    missing = sorted(entries.keys() - engine.ledger.known(sorted(entries))) if entries else []
    return [one for one in missing if _accepted_before(entries[one], before)]


def _accepted_before(entry: JournalEntry, when: datetime) -> bool:
    try:
        return Transfer.model_validate_json(entry.row).created < when
    except ValueError:
        return True


def _untold(engine: Engine, *, before: datetime) -> list[str]:
    """Returns what has waited in the outbox since before a time, as far as the oldest of each shard show it."""
    if engine.announcing is None:
        return []
    outbox = engine.announcing.outbox
    waiting = [one for shard in range(outbox.shards) for one in outbox.untold(shard, limit=SHOWN)]
    return [one.id for one in waiting if any(each.timestamp < before for each in one.announcements)]


def _live(engine: Engine, transfer_id: str) -> bool:
    try:
        row: Transfer = engine.ledger.load(transfer_id)
    except NotFound:
        return False
    return row.state not in {State.SETTLED, State.CANCELLED, State.DEAD} and row.elsewhere is None
