"""Two regions as the ownership model sees them: tables, rows, workers, an operator's procedure; the bounds and the guards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

REGIONS = ("west", "east")
ACTIVE, DRAINING, RELEASED = "active", "draining", "released"


class Table(NamedTuple):
    """One region's ownership table, as far as it concerns the one partition and the one transfer."""

    home: int = 0
    epoch: int = 1
    solo: bool = False
    phase: str = ACTIVE
    evidence: bool = True
    intent: int = 0
    """The token of the last intent; 0 for none."""
    written_off: bool = False
    """ABANDON(token) stands there."""
    journal: bool = False


class Row(NamedTuple):
    """The transfer in one region's ledger; no state, no row. `unknown` is held for want of evidence."""

    state: str = ""
    epoch: int = 0
    token: int = 0
    attempted: bool = False
    written_off: bool = False
    elsewhere: bool = False


class Worker(NamedTuple):
    """What a worker is about to do, with what it has read."""

    at: str = ""
    valid: bool = False
    token: int = 0
    before: bool = False
    epoch: int = 0
    evidence: bool = False


class Operation(NamedTuple):
    """An operator's procedure over both regions, at the step it is about to take."""

    at: str = ""
    region: int = 0
    epoch: int = 0
    valid: bool = False
    """The fence that it raised on the row it moves is still the row's."""


class Pair(NamedTuple):
    """Both regions and the world between them."""

    tables: tuple[Table, Table] = (Table(), Table())
    rows: tuple[Row, Row] = (Row(), Row())
    made: int = 0
    named: int = 0
    """Tokens that exist, a bit mask."""
    final: int = 0
    appeared: int = 0
    seat: int = 0
    """The region that was made home last."""
    alone: tuple[bool, bool] = (False, False)
    """What operators know: the region may have committed what the other has no record of."""
    wrong: str = ""
    operation: Operation = Operation()
    workers: tuple[tuple[Worker, ...], tuple[Worker, ...]] = ((), ())


IDLE = Worker()
WRITES = {"intend": "intent of", "abandon": "ABANDON", "confirm": "intent again of"}
NO_OPERATION = Operation()
NO_ROW = Row()
AFTER = {"end": "tell all", "end here": "hand on"}
UNDER_WAY = frozenset({"accepted", "delivering", "committing"})

NOTHING_YET = Pair()


@dataclass(frozen=True)
class Guards:
    """The bounds, and the guards of the protocol. Each guard can be switched off."""

    workers: tuple[int, int] = (2, 2)
    """In the west and in the east."""
    attempts: int = 2
    epochs: int = 3
    receiver_removes: bool = True
    switches: bool = True
    """Planned switches happen."""
    solos: bool = True
    """Homes are declared solo."""
    decisions: bool = True
    """Operators write tokens off."""
    rejoins: bool = True
    """Regions are brought together again."""
    cuts: bool = True
    """The peer's journal is sometimes out of reach when a transfer is accepted."""
    discovers: bool = True
    """Homes find the file by themselves. Off: it is asked for, at the other region."""
    start: Pair = NOTHING_YET
    """Where everything begins; the workers are idle."""
    intents: bool = True
    """No ack, no commit."""
    acks_on_recovery: bool = True
    """D5 is repeated by every recovery."""
    solo_looks: bool = True
    """A home is declared solo only where its peer was not promoted."""
    promote_raises_gate: bool = True
    """A promotion and the gate against the old home are one write."""
    leases_apart: bool = True
    """Chores change hands under a number of their own. Off: under the region_epoch."""
    write_off_final: bool = True
    """An intent of the same token does not take ABANDON back."""
    written_off_is_held: bool = True
    """Who adopts a token that was written off holds it: it may not have been consumed."""
    unknown_is_held: bool = True
    """A region without evidence holds what it discovers too, and what it has intents for."""
    eras_told_apart: bool = True
    """A row of an earlier era is adopted anew, whoever it was left by."""
    switch_with_evidence: bool = True
    """A planned switch needs both regions to know everything."""
    release_final: bool = True
    """A drain is not taken back once rows may have been copied."""
    absence_reasserted: bool = True
    """Who takes a missing file for a delivered one asks both tables once more, after it has looked."""
    rejoin_learns: bool = True
    """Rejoin copies the peer's intents too, and decides what this region has no row of yet."""
    peer_is_told: bool = True
    """Rejoin ends what the peer still has of a token that was given up, before it calls the peer's evidence whole."""
    intents_known: bool = True
    """Who discovers or adopts asks the intents too: a transfer may have been accepted while its journal could not be reached."""
    arrivals_stay: bool = True
    """A row of a later era is not carried back to an earlier one: neither as a stray nor by a rejoin that began before."""
    journals_passed_on: bool = True
    """A journal that only the other region has reaches the home."""

    def heard(self, table: Table) -> bool:
        return table.journal or (self.intents_known and table.intent > 0)

    def adoptable(self, s: Pair, region: int) -> bool:
        table, row = s.tables[region], s.rows[region]
        if table.home != region or table.phase == RELEASED:
            return False
        if not row.state:
            return self.heard(table)
        older = row.epoch < table.epoch and row.state not in {"delivered", "unknown"} and self.leases_apart
        return older and (self.eras_told_apart or (row.elsewhere and self.heard(table)))

    def replaceable(self, table: Table, token: int, *, off: bool) -> bool:
        if table.intent == token:
            return off or not table.written_off or not self.write_off_final
        return not table.intent or (table.written_off and token > table.intent)


def put_worker(s: Pair, region: int, n: int, worker: Worker) -> Pair:
    """Returns the state with another worker in a place."""
    workers = s.workers[region]
    changed = (*workers[:n], worker, *workers[n + 1 :])
    return with_parts(s, s.tables, s.rows, (changed, s.workers[1]) if region == 0 else (s.workers[0], changed))


def put_table(s: Pair, region: int, table: Table) -> Pair:
    """Returns the state with another table in a region."""
    return with_parts(s, (table, s.tables[1]) if region == 0 else (s.tables[0], table), s.rows, s.workers)


def put_row(s: Pair, region: int, row: Row) -> Pair:
    """Returns the state with another row in a region's ledger."""
    return with_parts(s, s.tables, (row, s.rows[1]) if region == 0 else (s.rows[0], row), s.workers)


def raise_fence(s: Pair, region: int) -> Pair:
    """The row's fence rises: every other worker's is an older one."""
    stale = tuple([w._replace(valid=False) if w.valid else w for w in s.workers[region]])
    if s.operation.valid and moving_from(s.operation) == region:
        s = s._replace(operation=s.operation._replace(valid=False))
    return with_parts(s, s.tables, s.rows, (stale, s.workers[1]) if region == 0 else (s.workers[0], stale))


def moving_from(operation: Operation) -> int:
    """The region whose row an operation has fenced."""
    return operation.region if operation.at == "end here" else 1 - operation.region


def with_parts(s: Pair, tables: tuple[Table, Table], rows: tuple[Row, Row], workers: tuple[tuple[Worker, ...], tuple[Worker, ...]]) -> Pair:
    """`_replace` in a third of its time: half of an exploration would go there."""
    return Pair(tables, rows, s.made, s.named, s.final, s.appeared, s.seat, s.alone, s.wrong, s.operation, workers)


def set_flag(pair: tuple[bool, bool], region: int, *, value: bool) -> tuple[bool, bool]:
    """Returns the pair with one region's value changed."""
    return (value, pair[1]) if region == 0 else (pair[0], value)
