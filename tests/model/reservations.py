"""Reservations (DESIGN 5, D1): two transfers want one destination path; `older` is of an older version of the file than `newer`.

worker    claim ─ reserve ─ look ─ begin ─ D4 ─ look ─ rename ─ D7 ─ release
others    who finds the path reserved by a transfer at rest takes it over; operators re-drive what is dead; the receiver takes files
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

OLDER, NEWER = 1, 2
TITLES = {OLDER: "older", NEWER: "newer"}
AT_REST = frozenset({"dead", "delivered"})


class Row(NamedTuple):
    """One transfer."""

    state: str = "accepted"
    fence: int = 0


class Reservation(NamedTuple):
    """Who has the path, and under which fence it was reserved."""

    holder: int = 0
    fence: int = 0
    delivered: int = 0
    """The newest version delivered to the path."""


class Worker(NamedTuple):
    """What a worker is about to do for which transfer, under which fence; `seen` is the fence of a holder at rest."""

    at: str = ""
    transfer: int = 0
    fence: int = 0
    seen: int = 0


class Paths(NamedTuple):
    """Two rows, the reservation (one in each region where each region has its own), and the destination."""

    rows: tuple[Row, Row] = (Row(), Row())
    reservations: tuple[Reservation, ...] = (Reservation(),)
    final: int = 0
    appeared: int = 0
    """Transfers whose file became visible, a bit mask."""
    wrong: str = ""
    workers: tuple[Worker, ...] = ()


IDLE = Worker()
Next = tuple[str, Paths, Worker]


@dataclass(frozen=True)
class ReservationModel:
    """The protocol, its guards, and the bounds. Each guard can be switched off."""

    workers: int = 4
    claims: tuple[int, int] = (3, 3)
    """Of the older transfer and of the newer, operators' re-drives among them."""
    overwrite: bool = False
    one_ledger: bool = True
    """Off: each transfer runs in another region, and each region keeps reservations of its own."""
    release_fenced: bool = True
    """A reservation is made and released under the transfer's fence, not in its name alone."""

    def initial(self) -> Paths:
        return Paths(reservations=(Reservation(),) * (1 if self.one_ledger else 2), workers=(IDLE,) * self.workers)

    def violation(self, state: Paths) -> str | None:
        return state.wrong or None

    def resting(self, state: Paths) -> bool:
        return all(row.state in AT_REST | {"held"} or row.fence >= most for row, most in zip(state.rows, self.claims, strict=True))

    def tidied(self, state: Paths) -> Paths:
        refused = {"bury", "begin", "D4", "D7", "hold"}
        fences = {OLDER: state.rows[0].fence, NEWER: state.rows[1].fence}
        return state._replace(workers=tuple(IDLE if w.at in refused and w.fence != fences[w.transfer] else w for w in state.workers))

    def canonical(self, state: Paths) -> Paths:
        tidied = self.tidied(state)
        return tidied._replace(workers=tuple(sorted(tidied.workers)))

    def steps(self, state: Paths) -> Iterator[tuple[str, Paths]]:
        if state.final:
            yield "the receiver takes the file", state._replace(final=0)
        idle = next((n for n, w in enumerate(state.workers) if not w.at), None)
        for transfer in (OLDER, NEWER):
            row = state.rows[transfer - 1]
            if row.state == "dead" and row.fence < self.claims[transfer - 1]:
                yield f"operator re-drives the {TITLES[transfer]}", _row(state, transfer, Row("accepted", row.fence + 1))
            first = {"accepted": "reserve", "delivering": "D4", "committing": "look"}.get(row.state)
            if idle is not None and first is not None and row.fence < self.claims[transfer - 1]:
                claimed = _row(state, transfer, row._replace(fence=row.fence + 1))
                yield f"{'ABCDEF'[idle]}: claims the {TITLES[transfer]}", _put(claimed, idle, Worker(first, transfer, row.fence + 1))
        for n, worker in enumerate(state.workers):
            if worker.at:
                for label, after, then in self._work(state, worker):
                    yield f"{'ABCDEF'[n]}, {TITLES[worker.transfer]}: {label}", _put(after, n, then)
                yield f"{'ABCDEF'[n]} crashes before: {worker.at}", _put(state, n, IDLE)

    def _work(self, s: Paths, w: Worker) -> Iterator[Next]:  # noqa: C901, PLR0912 - one case a step
        row = s.rows[w.transfer - 1]
        valid = row.fence == w.fence
        match w.at:
            case "reserve":
                yield from self._reserve(s, w)
            case "take over":
                other = OLDER + NEWER - w.transfer
                released = self._release(s, w, other, fence=w.seen, delivered=s.rows[other - 1].state == "delivered")
                yield "releases what a transfer at rest had reserved", released, w._replace(at="reserve", seen=0)
            case "look first":
                free = not s.final or self.overwrite
                yield f"sees the name {'free' if free else 'taken'}", s, w._replace(at="begin" if free else "let go")
            case "let go":
                yield "releases the path", self._release(s, w, w.transfer, fence=w.fence, delivered=False), w._replace(at="bury")
            case "begin" if valid and row.state == "accepted":
                yield "uploads under a token", _row(s, w.transfer, row._replace(state="delivering")), w._replace(at="D4")
            case "bury" if valid and row.state in {"accepted", "delivering"}:
                yield "saves dead", _row(s, w.transfer, row._replace(state="dead")), w._replace(at="free")
            case "free":
                yield "releases the path", self._release(s, w, w.transfer, fence=w.fence, delivered=False), IDLE
            case "D4" if valid and row.state == "delivering":
                yield "D4: committing", _row(s, w.transfer, row._replace(state="committing")), w._replace(at="look")
                yield "fails for good", s, w._replace(at="bury")
            case "look":
                taken = s.final and not self.overwrite
                yield (
                    f"looks at the final name: {'taken' if taken else 'free'}",
                    s,
                    w._replace(at="D7" if taken and s.final == w.transfer else "hold" if taken else "rename"),
                )
            case "rename":
                yield self._rename(s, w)
            case "hold" if valid and row.state == "committing":
                yield "holds it", _row(s, w.transfer, row._replace(state="held")), IDLE
            case "D7" if valid and row.state == "committing":
                yield "saves delivered", _row(s, w.transfer, row._replace(state="delivered")), w._replace(at="release")
            case "release":
                yield "releases the path, delivered", self._release(s, w, w.transfer, fence=w.fence, delivered=True), IDLE

    def _reserve(self, s: Paths, w: Worker) -> Iterator[Next]:
        stands = self._reservation(s, w)
        if stands.delivered > w.transfer:
            yield "is superseded by a newer version", s, w._replace(at="bury")
        elif stands.holder == w.transfer and stands.fence > w.fence and self.release_fenced:
            yield "finds a later claim's reservation", s, IDLE
        elif stands.holder in {0, w.transfer}:
            mine = stands._replace(holder=w.transfer, fence=w.fence)
            yield "reserves the path", self._with(s, w, mine), w._replace(at="look first")
        else:
            holder = s.rows[stands.holder - 1]
            if holder.state in AT_REST:
                yield f"finds the {TITLES[stands.holder]} at rest", s, w._replace(at="take over", seen=holder.fence)
            yield "finds the path reserved, waits", s, IDLE

    def _rename(self, s: Paths, w: Worker) -> Next:
        bit = 1 << w.transfer
        if s.appeared & bit:
            return "finds its token gone", s, w._replace(at="D7")
        wrong = ""
        if s.final and not self.overwrite:
            wrong = f"the {TITLES[w.transfer]} destroyed a delivered file that the receiver had not taken"
        elif w.transfer == OLDER and s.appeared & 1 << NEWER and self.overwrite:
            wrong = "the older version came after the newer one"
        return (
            "renames its token: the file is there",
            s._replace(final=w.transfer, appeared=s.appeared | bit, wrong=wrong),
            w._replace(at="D7"),
        )

    def _reservation(self, s: Paths, w: Worker) -> Reservation:
        return s.reservations[0 if self.one_ledger else w.transfer - 1]

    def _with(self, s: Paths, w: Worker, reservation: Reservation) -> Paths:
        if self.one_ledger:
            return s._replace(reservations=(reservation,))
        pair = (reservation, s.reservations[1]) if w.transfer == OLDER else (s.reservations[0], reservation)
        return s._replace(reservations=pair)

    def _release(self, s: Paths, w: Worker, holder: int, *, fence: int, delivered: bool) -> Paths:
        stands = self._reservation(s, w)
        if stands.holder != holder or (self.release_fenced and stands.fence > fence):
            return s
        newest = max(stands.delivered, holder) if delivered else stands.delivered
        return self._with(s, w, Reservation(delivered=newest))


def _row(s: Paths, transfer: int, row: Row) -> Paths:
    return s._replace(rows=(row, s.rows[1]) if transfer == OLDER else (s.rows[0], row))


def _put(s: Paths, n: int, worker: Worker) -> Paths:
    return s._replace(workers=(*s.workers[:n], worker, *s.workers[n + 1 :]))
