"""Moving the partition between regions, and the upkeep between them: what operators and the adoption task do, one write a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.model.regions import (
    ACTIVE,
    AFTER,
    DRAINING,
    NO_OPERATION,
    REGIONS,
    RELEASED,
    UNDER_WAY,
    Guards,
    Operation,
    Pair,
    Row,
    put_row,
    put_table,
    raise_fence,
    set_flag,
)


@dataclass(frozen=True)
class Switching(Guards):
    """Operators and upkeep of both regions."""

    # -- upkeep --------------------------------------------------------------------------------------------------------

    def upkeep(self, s: Pair, region: int) -> Iterator[tuple[str, Pair]]:
        table, row, peer, name = s.tables[region], s.rows[region], 1 - region, REGIONS[region]
        if (
            table.home == peer
            and row.state in UNDER_WAY | {"held", "unknown"}
            and not row.elsewhere
            and (row.epoch <= table.epoch or not self.arrivals_stay)
        ):
            yield f"{name} returns the stray row", self._carry(s, region, table.epoch)
        if table.home == peer and table.journal and not s.tables[peer].journal and self.journals_passed_on:
            yield f"{name} passes its journal on", put_table(s, peer, s.tables[peer]._replace(journal=True))
        if table.home == peer and not table.journal and not row.state and self.cuts:
            yield f"{name} accepts the request for its peer, alone", put_table(s, region, table._replace(journal=True))
        if not self.leases_apart and table.home == region and table.epoch < self.epochs:
            yield f"{name}: another process takes the chores over", put_table(s, region, table._replace(epoch=table.epoch + 1))

    def _carry(self, s: Pair, region: int, epoch: int) -> Pair:
        """Fences the row's workers, copies it to the peer IF that has none of this era, and ends it here, unless the peer says it is."""
        s = self._copy(s, region, epoch)
        return s if s.rows[1 - region].elsewhere else put_row(s, region, s.rows[region]._replace(elsewhere=True))

    def _copy(self, s: Pair, region: int, epoch: int) -> Pair:
        row, there = s.rows[region], s.rows[1 - region]
        s = raise_fence(s, region)
        if not there.state or there.epoch < epoch:
            copied = row._replace(epoch=epoch, attempted=row.attempted or row.state in {"committing", "held"})
            s = put_row(raise_fence(s, 1 - region), 1 - region, copied)
        return s

    def _copied(self, s: Pair, region: int, o: Operation, *, epoch: int, then: str) -> Pair:
        row = s.rows[region]
        later = row.epoch > epoch and self.arrivals_stay
        if row.state not in UNDER_WAY | {"held", "unknown"} or row.elsewhere or later:
            return s._replace(operation=o._replace(at=AFTER[then]))
        copied = self._copy(s, region, epoch)
        ends = not copied.rows[1 - region].elsewhere
        return copied._replace(operation=o._replace(at=then if ends else AFTER[then], valid=ends))

    @staticmethod
    def _ended(s: Pair, o: Operation, region: int) -> Iterator[tuple[str, Pair]]:
        if o.valid:
            ended = put_row(s, region, s.rows[region]._replace(elsewhere=True))
            yield f"the rows of {REGIONS[region]} are ended there", ended._replace(operation=o._replace(at=AFTER[o.at], valid=False))

    # -- operators -----------------------------------------------------------------------------------------------------

    def operators(self, s: Pair) -> Iterator[tuple[str, Pair]]:
        for region in (0, 1):
            table, peer, name = s.tables[region], s.tables[1 - region], REGIONS[region]
            if table.home != region and table.epoch < self.epochs:
                yield self._promote(s, region)
            if self.solos and table.home == region and not table.solo and (peer.home == region or not self.solo_looks):
                declared = put_table(s, region, table._replace(solo=True))._replace(alone=set_flag(s.alone, region, value=True))
                yield f"! operator declares {name} solo", declared
            if self.switches and table.home == region:
                yield from self._drains(s, region)
        if s.operation.at:
            yield from self._operate(s, s.operation)
            yield f"operation ends before: {s.operation.at}", s._replace(operation=NO_OPERATION)
            return
        for region in (0, 1):
            table, peer = s.tables[region], s.tables[1 - region]
            together = not table.solo and table.evidence and peer.evidence and peer.home == region
            both = peer.home == 1 - region and peer.epoch >= table.epoch
            if self.rejoins and table.home == region and not together and not both:
                yield f"operator has {REGIONS[region]} rejoin its peer", s._replace(operation=Operation("tell home", region, table.epoch))
            if self.switches and table.home == region and table.phase != ACTIVE and self._may_switch(s, region):
                yield f"operator hands {REGIONS[region]} over", s._replace(operation=Operation("release", region, table.epoch))

            if self.switches and table.home == region and table.phase == RELEASED and peer.home == 1 - region and peer.epoch > table.epoch:
                yield f"operator hands {REGIONS[region]} over again", s._replace(operation=Operation("follow", region, table.epoch))

    def _promote(self, s: Pair, region: int) -> tuple[str, Pair]:
        table, alone = s.tables[region], s.alone[1 - region]
        new = table._replace(home=region, epoch=table.epoch + 1, solo=True, phase=ACTIVE, evidence=table.evidence and not alone)
        after = put_table(s, region, new)._replace(seat=region, alone=set_flag(s.alone, region, value=True))
        return f"! operator promotes {REGIONS[region]}{', the old home may have been solo' if alone else ''}", after

    def _drains(self, s: Pair, region: int) -> Iterator[tuple[str, Pair]]:
        table = s.tables[region]
        if table.phase == ACTIVE and table.epoch < self.epochs:
            yield f"! operator drains {REGIONS[region]}", put_table(s, region, table._replace(phase=DRAINING))
        elif table.phase == DRAINING or (table.phase == RELEASED and not self.release_final):
            yield f"operator takes the drain of {REGIONS[region]} back", put_table(s, region, table._replace(phase=ACTIVE))

    def _may_switch(self, s: Pair, region: int) -> bool:
        table, peer = s.tables[region], s.tables[1 - region]
        if peer.home != region:
            return False
        return not self.switch_with_evidence or (not table.solo and table.evidence and peer.evidence)

    def _operate(self, s: Pair, o: Operation) -> Iterator[tuple[str, Pair]]:  # noqa: C901, PLR0912 - one case a step
        region, peer = o.region, 1 - o.region
        here, there, name = s.tables[region], s.tables[peer], REGIONS[peer]
        mine = here.home == region and here.epoch == o.epoch
        match o.at:
            case "tell home":
                if mine and not (there.home == peer and there.epoch >= o.epoch):
                    told = there._replace(home=region, epoch=o.epoch, solo=False, phase=ACTIVE, evidence=False)
                    yield (
                        f"{name} learns who is home, and that it lacks evidence",
                        put_table(s, peer, told)._replace(operation=o._replace(at="turn dual")),
                    )
            case "turn dual":
                if mine:
                    yield (
                        f"{REGIONS[region]} turns dual",
                        put_table(s, region, here._replace(solo=False))._replace(operation=o._replace(at="reconcile")),
                    )
            case "reconcile":
                if mine:
                    yield self._reconcile(s, o)
            case "carry":
                yield f"the rows of {name} are copied", self._copied(s, peer, o, epoch=o.epoch, then="end")
            case "end" | "end here":
                yield from self._ended(s, o, peer if o.at == "end" else region)
            case "tell all" if self.rejoin_learns and s.rows[region].state == "unknown" and not s.rows[region].elsewhere:
                yield "sees that something has come to wait for evidence", s._replace(operation=o._replace(at="reconcile"))
            case "tell all":
                yield f"{name} is told journals and intents", self._tell(s, region)._replace(operation=o._replace(at="evidence there"))
            case "evidence there":
                if there.home == region and there.epoch == o.epoch and not there.evidence and not there.solo:
                    after = put_table(s, peer, there._replace(evidence=True))
                    yield (
                        f"{name} has the evidence",
                        after._replace(alone=set_flag(s.alone, region, value=here.solo), operation=o._replace(at="evidence here")),
                    )
            case "evidence here":
                if mine and not here.solo:
                    after = put_table(s, region, here._replace(evidence=True))
                    yield (
                        f"{REGIONS[region]} has the evidence",
                        after._replace(alone=set_flag(s.alone, peer, value=False), operation=NO_OPERATION),
                    )
            case _:
                yield from self._hand_over(s, o)

    def _hand_over(self, s: Pair, o: Operation) -> Iterator[tuple[str, Pair]]:
        region, peer = o.region, 1 - o.region
        here, there, row = s.tables[region], s.tables[peer], s.rows[region]
        mine = here.home == region and here.epoch == o.epoch
        match o.at:
            case "release":
                if mine and here.phase != ACTIVE and row.state != "committing":
                    released = put_table(s, region, here._replace(phase=RELEASED))
                    yield f"{REGIONS[region]} is released", released._replace(operation=o._replace(at="copy"))
            case "copy":
                yield "its rows are copied", self._copied(s, region, o, epoch=o.epoch + 1, then="end here")
            case "hand on":
                if there.home == region and (self._may_switch(s, region) or not self.switch_with_evidence):
                    handed = there._replace(home=peer, epoch=o.epoch + 1, solo=here.solo, phase=ACTIVE)
                    yield f"{REGIONS[peer]} is home", put_table(s, peer, handed)._replace(seat=peer, operation=o._replace(at="follow"))
            case "follow":
                if mine:
                    followed = here._replace(home=peer, epoch=o.epoch + 1, phase=ACTIVE, solo=there.solo)
                    yield f"{REGIONS[region]} follows", put_table(s, region, followed)._replace(operation=NO_OPERATION)

    def _reconcile(self, s: Pair, o: Operation) -> tuple[str, Pair]:
        ours, theirs, there = s.rows[o.region], s.rows[1 - o.region], s.tables[1 - o.region]
        after = s._replace(operation=o._replace(at="carry"))
        here = s.tables[o.region]
        waits = ours.state == "unknown" and not ours.elsewhere
        undecided = waits or not ours.state or ours.elsewhere or ours.epoch < o.epoch
        if self.rejoin_learns and there.intent and undecided:
            here = here._replace(intent=there.intent, written_off=there.written_off)
            after = put_table(after, o.region, here)
        learns = not ours.state and (theirs.state == "delivered" or self.heard(here))
        if not waits and not (learns and self.rejoin_learns):
            return "nothing waits for evidence", after
        token, off = (there.intent, there.written_off) if there.intent else (here.intent, here.written_off)
        if theirs.state == "delivered":
            new = Row("delivered", o.epoch, theirs.token)
        elif token and not off:
            new = Row("committing", o.epoch, token, attempted=True)
        elif token and self.written_off_is_held:
            new = Row("held", o.epoch, token, attempted=True, written_off=True)
        else:
            new = Row("accepted", o.epoch)
        return f"what waited for evidence is {new.state}", put_row(raise_fence(after, o.region), o.region, new)

    def _tell(self, s: Pair, region: int) -> Pair:
        here, there, row = s.tables[region], s.tables[1 - region], s.rows[region]
        told = there._replace(journal=there.journal or here.journal or bool(row.state))
        if self.peer_is_told:
            if here.intent:
                told = told._replace(intent=here.intent, written_off=here.written_off)
            elif there.intent and there.intent != row.token:
                told = told._replace(written_off=True)
        elif here.intent and self.replaceable(there, here.intent, off=here.written_off):
            told = told._replace(intent=here.intent, written_off=here.written_off)
        return put_table(s, 1 - region, told)
