"""Ownership by two regions (DESIGN 6): one transfer, two workers in each region, operators who switch at any moment.

    table     { home, region_epoch, solo?, phase, evidence }  the transfer's intent and journal      one in each region
    worker    claim ─ mint ─ D4 ─ standing ─ intent at home ─ intent at the peer ─ note ─ rename ─ D7
    operator  promote · solo · rejoin · drain, hand over, undrain · re-drive, deliver anew      each stops anywhere, for ever
    upkeep    adopts from the journal, returns strays, passes journals on

A link that is cut, a lost answer and a crash are one thing here: after the effect, or before it, whoever did it is gone. Bytes
are written in one step (`tests/model/delivery.py` has them in detail); chores need no lease here, for anybody may do them at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.model.regions import (
    ACTIVE,
    IDLE,
    REGIONS,
    RELEASED,
    UNDER_WAY,
    WRITES,
    Pair,
    Row,
    Worker,
    put_row,
    put_table,
    put_worker,
    raise_fence,
    with_parts,
)
from tests.model.switching import Switching

Next = tuple[str, Pair, Worker]


@dataclass(frozen=True)
class OwnershipModel(Switching):
    """The protocol with its workers."""

    def initial(self) -> Pair:
        west, east = self.workers
        return self.start._replace(workers=((IDLE,) * west, (IDLE,) * east))

    def violation(self, state: Pair) -> str | None:
        if state.appeared > 1:
            return "the file appeared twice"
        if state.wrong:
            return state.wrong
        if not state.appeared and any(row.state == "delivered" for row in state.rows):
            return "marked delivered, and never was"
        for region, (table, row) in enumerate(zip(state.tables, state.rows, strict=True)):
            if table.home == region and row.state in UNDER_WAY and not row.elsewhere and self._forgotten(state, region):
                return f"the row in {REGIONS[region]} is of an earlier era and will never be advanced"
        return None

    def _forgotten(self, s: Pair, region: int) -> bool:
        return self.leases_apart and s.rows[region].epoch < s.tables[region].epoch and not self.adoptable(s, region)

    def resting(self, state: Pair) -> bool:
        if not state.made and not any(row.state for row in state.rows) and not any(table.journal for table in state.tables):
            return True
        row = state.rows[state.seat]
        return state.made >= self.attempts or (row.state in {"delivered", "held", "unknown"} and not row.elsewhere)

    def tidied(self, state: Pair) -> Pair:
        west = [self._tidied(state, 0, w) if w.at else IDLE for w in state.workers[0]]
        east = [self._tidied(state, 1, w) if w.at else IDLE for w in state.workers[1]]
        return with_parts(state, state.tables, state.rows, (tuple(west), tuple(east)))

    def canonical(self, state: Pair) -> Pair:
        state = self.tidied(state)
        west, east = state.workers
        return with_parts(state, state.tables, state.rows, (tuple(sorted(west)), tuple(sorted(east))))

    def _tidied(self, s: Pair, region: int, w: Worker) -> Worker:  # noqa: C901, PLR0911 - one case a step
        """Returns the worker without what it will never use; idle where all that it can still do is to be refused."""
        table, row, peer = s.tables[region], s.rows[region], s.tables[1 - region]
        match w.at:
            case "rename" if w.valid and w.before:
                return w
            case "note" | "D7" | "hold" | "search" | "anew":
                return w._replace(epoch=0) if w.valid else IDLE
            case "rename":
                if w.valid:
                    return w._replace(epoch=0)
                return Worker("rename", False, w.token) if s.named & 1 << w.token else IDLE
            case "consume":
                return w._replace(epoch=0) if w.valid or s.named & 1 << w.token else IDLE
            case "mint" | "D4":
                return w if w.valid and table.home == region else IDLE
            case "write off":
                return w if w.valid else IDLE
            case "confirm at home" | "confirm at the peer" if not w.valid:
                return IDLE
            case "intend at home" | "abandon at home" | "confirm at home":
                return w if table.home == region and table.epoch == w.epoch else IDLE
            case "intend at the peer" | "abandon at the peer" | "confirm at the peer":
                fenced = peer.home != region or peer.epoch > w.epoch
                return IDLE if fenced and self.promote_raises_gate else w
            case "adopt":
                return IDLE if row.state and row.epoch >= w.epoch else w
            case "create":
                return IDLE if row.state else w
        return w

    def steps(self, state: Pair) -> Iterator[tuple[str, Pair]]:
        if state.final and self.receiver_removes:
            yield "the receiver takes the file", state._replace(final=0)
        yield from self.operators(state)
        for region in (0, 1):
            yield from self.upkeep(state, region)
            idle_seen = False
            for n, worker in enumerate(state.workers[region]):
                name = f"{REGIONS[region]} {'AB'[n]}"
                if worker.at:
                    for label, after, then in self._work(state, region, worker):
                        yield f"{name}: {label}", put_worker(after, region, n, then)
                    yield f"{name} crashes before: {worker.at}", put_worker(state, region, n, IDLE)
                elif not idle_seen:
                    idle_seen = True
                    for label, after, then in self._begin(state, region):
                        yield f"{name}: {label}", put_worker(after, region, n, then)

    # -- taking the transfer -------------------------------------------------------------------------------------------

    def _begin(self, s: Pair, region: int) -> Iterator[Next]:  # noqa: C901 - one case a state
        table, row = s.tables[region], s.rows[region]
        if table.home != region or table.phase == RELEASED:
            return
        if self.discovers and not row.state and not self.heard(table):
            reads = Worker("create", epoch=table.epoch, evidence=table.evidence or not self.unknown_is_held)
            told = put_table(s, 1 - region, s.tables[1 - region]._replace(journal=True))
            yield "discovers the file, journals it at the peer", told, reads
            if self.cuts:
                yield "discovers the file, cannot reach the peer's journal", s, reads
        if self.adoptable(s, region):
            read = Worker("adopt", False, table.intent, table.written_off, table.epoch, table.evidence)
            yield "reads journal and intent to adopt the transfer", s, read
        era = row.epoch == table.epoch if self.leases_apart else row.epoch <= table.epoch
        if row.elsewhere or not era:
            return
        fenced = raise_fence(s, region)
        if row.state == "accepted" and s.made < self.attempts:
            yield "claims", fenced, Worker("mint", True)
        elif row.state == "delivering":
            yield f"claims, finds token {row.token}", fenced, Worker("D4", True, row.token)
        elif row.state == "committing" and row.written_off:
            yield "claims it committing, finds its token written off", fenced, Worker("hold", True, row.token)
        elif row.state == "committing":
            asks = self.intents and self.acks_on_recovery
            at = "intend at home" if asks else "note" if self.receiver_removes and not row.attempted else "rename"
            yield f"claims it committing with token {row.token}", fenced, Worker(at, True, row.token, row.attempted, row.epoch)
        elif row.state == "held" and self.decisions:
            if not row.written_off:
                yield "operator re-drives it, same token", put_row(fenced, region, row._replace(state="committing")), IDLE
            yield "operator decides: deliver anew", fenced, Worker("write off", True, row.token, epoch=row.epoch)

    # -- a worker's next step ------------------------------------------------------------------------------------------

    def _work(self, s: Pair, region: int, w: Worker) -> Iterator[Next]:  # noqa: C901, PLR0912 - one case a step
        table, row = s.tables[region], s.rows[region]
        stands = table.home == region and table.phase != RELEASED
        match w.at:
            case "create":
                if not row.state:
                    yield "creates the row", put_row(s, region, Row("accepted" if w.evidence else "unknown", w.epoch)), IDLE
            case "adopt":
                yield from self._adopt(s, region, w)
            case "mint":
                if w.valid and stands and table.phase == ACTIVE and s.made < self.attempts:
                    new = s.made + 1
                    minted = put_row(s, region, row._replace(state="delivering", token=new))._replace(made=new, named=s.named | 1 << new)
                    yield f"uploads under token {new}", minted, w._replace(at="D4", token=new)
            case "D4":
                if w.valid and stands and row.state == "delivering":
                    frozen = put_row(s, region, row._replace(state="committing", attempted=False, written_off=False))
                    at = "intend at home" if self.intents else "note" if self.receiver_removes else "rename"
                    yield f"D4: committing token {w.token}", frozen, w._replace(at=at, epoch=table.epoch)
            case "intend at home" | "abandon at home" | "confirm at home":
                yield from self._intend_at_home(s, region, w)
            case "intend at the peer" | "abandon at the peer" | "confirm at the peer":
                yield from self._intend_at_peer(s, region, w)
            case "note":
                if w.valid and row.state == "committing":
                    yield "notes that the commit is attempted", put_row(s, region, row._replace(attempted=True)), w._replace(at="rename")
            case "rename":
                yield from self._rename(s, region, w)
            case "hold":
                if w.valid and row.state == "committing":
                    yield "holds it", put_row(s, region, row._replace(state="held")), IDLE
            case "D7":
                if w.valid and row.state == "committing":
                    yield "saves delivered", put_row(s, region, row._replace(state="delivered")), IDLE
            case _:
                yield from self._decide(s, region, w)

    def _adopt(self, s: Pair, region: int, w: Worker) -> Iterator[Next]:
        """`w` carries what was read: token and (as `before`) write-off of the intent, region_epoch, and whether there is evidence."""
        row = s.rows[region]
        if row.state and row.epoch >= w.epoch:
            return
        evidence = w.evidence
        if not evidence and (self.unknown_is_held or not w.token):
            new = Row("unknown", w.epoch)
        elif w.token and not w.before:
            new = Row("committing", w.epoch, w.token, attempted=True)
        elif w.token and self.written_off_is_held:
            new = Row("held", w.epoch, w.token, attempted=True, written_off=True)
        else:
            new = Row("accepted", w.epoch)
        yield f"adopts it as {new.state}", put_row(raise_fence(s, region), region, new), IDLE

    def _intend_at_home(self, s: Pair, region: int, w: Worker) -> Iterator[Next]:
        table, what = s.tables[region], w.at.split()[0]
        if table.home != region or table.epoch != w.epoch:
            return
        if not self.replaceable(table, w.token, off=what == "abandon"):
            yield "the home's table has another token, or has written it off", s, IDLE if what == "abandon" else w._replace(at="hold")
            return
        after = put_table(s, region, table._replace(intent=w.token, written_off=what == "abandon"))
        then = self._after_ack(w, what) if table.solo else f"{what} at the peer"
        yield f"{WRITES[what]} token {w.token} at home{', solo' if table.solo else ''}", after, w._replace(at=then)

    def _intend_at_peer(self, s: Pair, region: int, w: Worker) -> Iterator[Next]:
        peer, what = s.tables[1 - region], w.at.split()[0]
        gate = peer.home == region and peer.epoch <= w.epoch
        if not gate and self.promote_raises_gate:
            yield "the peer refuses: it is fenced", s, IDLE
        elif not self.replaceable(peer, w.token, off=what == "abandon"):
            yield "the peer has another token, or has written it off", s, IDLE if what == "abandon" else w._replace(at="hold")
        else:
            after = put_table(s, 1 - region, peer._replace(intent=w.token, written_off=what == "abandon"))
            yield f"{WRITES[what]} token {w.token}, acked by the peer", after, w._replace(at=self._after_ack(w, what))

    def _after_ack(self, w: Worker, what: str) -> str:
        if what == "intend":
            return "note" if self.receiver_removes and not w.before else "rename"
        return {"abandon": "consume", "confirm": "D7"}[what]

    def _rename(self, s: Pair, region: int, w: Worker) -> Iterator[Next]:
        bit = 1 << w.token
        if w.valid:
            yield "may not write there now", s, w._replace(at="hold")
        if s.named & bit:
            visible = s._replace(
                named=s.named & ~bit, final=w.token, appeared=min(s.appeared + 1, 2), wrong=self._fenced(s, region, w.token)
            )
            yield f"renames token {w.token}: the file is there", visible, w._replace(at="D7")
        elif s.final == w.token:
            yield f"token {w.token} is gone and the file is there", s, w._replace(at="D7")
        elif w.before and self.receiver_removes:
            sure = not self.absence_reasserted or not self.intents
            yield f"token {w.token} is gone: the receiver has taken the file", s, w._replace(at="D7" if sure else "confirm at home")
        else:
            yield f"token {w.token} is gone, no file, cannot tell", s, w._replace(at="hold")

    def _fenced(self, s: Pair, region: int, token: int) -> str:
        if s.seat == region:
            return ""
        row = s.rows[s.seat]
        decided = row.state in UNDER_WAY | {"delivered"} and not row.elsewhere and row.epoch == s.tables[s.seat].epoch
        return "a fenced region committed what its successor had decided otherwise" if decided and row.token != token else ""

    def _decide(self, s: Pair, region: int, w: Worker) -> Iterator[Next]:
        row, bit = s.rows[region], 1 << w.token
        mine = w.valid and row.state == "held"
        match w.at:
            case "write off":
                if mine:
                    noted = put_row(s, region, row._replace(written_off=True))
                    yield f"ABANDON of token {w.token} on the row", noted, w._replace(at="abandon at home")
            case "consume":
                if s.named & bit:
                    yield f"removes token {w.token}", s._replace(named=s.named & ~bit), w._replace(at="anew")
                else:
                    yield f"finds token {w.token} gone", s, w._replace(at="search")
            case "search":
                if mine and s.final:
                    yield "finds our file: delivered", put_row(s, region, row._replace(state="delivered")), IDLE
            case "anew":
                if mine:
                    yield "sends it round again", put_row(s, region, Row("accepted", row.epoch)), IDLE
