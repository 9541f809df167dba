"""Delivery in one region (DESIGN 5, D2 … D8): one transfer, many workers on it, a receiver that takes the file when it pleases.

    worker    claim ─ mint ─ create ─ write ─ D4 ─ note ─ look ─ rename ─ D7      each arrow: anything may happen in between
    anybody   pauses for ever, wakes late, crashes (its place is free again), loses an answer (the effect stays, the worker is gone)
    operator  cancels, re-drives, writes a token off and has the file delivered anew; is as slow and as mortal as a worker
    others    the receiver takes the final file; a sweep removes what abandoned attempts left; where the flow does not say
              `receiver_removes`, a stranger's clean-up removes any temporary file at any moment

A fence is a number that only ever matters as "the row's" or "an older one": a worker is `valid` or not, and claims need no bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

NAMES = "ABCDEF"


class Worker(NamedTuple):
    """What a worker is about to do; `valid` while its fence is the row's."""

    at: str = ""
    valid: bool = False
    token: int = 0
    before: bool = False
    """D6 was noted as attempted when it claimed the row."""


class Delivery(NamedTuple):
    """The row, the destination's directory, and the workers. Tokens are numbered by attempt from 1; sets of them are bit masks."""

    state: str = "accepted"
    upload: int = 0
    made: int = 0
    commit: int = 0
    attempted: bool = False
    written_off: bool = False
    named: int = 0
    """Temporary files that exist."""
    whole: int = 0
    """Attempts whose bytes are all written."""
    final: int = 0
    """The attempt whose bytes stand under the final name."""
    appeared: int = 0
    taken: bool = False
    """The receiver has it."""
    sweeping: int = 0
    """The temporary file that a clean-up has decided to remove."""
    workers: tuple[Worker, ...] = ()


IDLE = Worker()
CLAIMABLE = frozenset({"accepted", "delivering", "committing"})
WRITES_ROW = frozenset({"mint", "give up", "D4", "note", "unnote", "hold", "D7", "bury", "write off", "anew"})
"""Where a worker with an old fence can do nothing any more but be refused."""
READS_THEN_WRITES_ROW = frozenset({"open", "resolve", "half", "search"})


@dataclass(frozen=True)
class DeliveryModel:
    """The protocol, its guards, and the bounds. Each guard can be switched off."""

    workers: int = 4
    attempts: int = 2
    rename: Literal["posix", "plain", "s3"] = "posix"
    receiver_removes: bool = True
    cancels: bool = True
    """Operators cancel."""
    fence_on_commit_write: bool = True
    """D4 is conditional on the fence and on `delivering`."""
    one_token: bool = True
    """Off: a lease, a temporary file for each worker and a rename that overwrites nothing."""
    recover_by_token: bool = True
    """Off: recovery looks at the final name and uploads again where it is absent."""
    consumed_before_anew: bool = True
    """A new token only once this call has consumed the old one."""
    write_off_kept: bool = True
    """ABANDON(token) stands on the row before the token is consumed, and recovery concludes nothing from that token's absence."""
    rename_begun_once: bool = True
    """A plain rename noted as attempted is never begun again."""
    half_renamed_kept: bool = True
    """The token of a plain rename that was begun is never removed: its server may still be at it."""

    def initial(self) -> Delivery:
        return Delivery(workers=(IDLE,) * self.workers)

    def violation(self, state: Delivery) -> str | None:
        if state.appeared > 1:
            return "the file appeared twice"
        if state.final and not state.whole & 1 << state.final:
            return "a part of the file became visible"
        if state.state == "delivered" and not state.appeared:
            return "marked delivered, and never was"
        if state.state == "delivered" and not state.final and not state.taken:
            return "marked delivered, and the file vanished before the receiver had it"
        if state.state in {"dead", "cancelled"} and state.appeared:
            return f"marked {state.state}, and was delivered"
        return None

    def resting(self, state: Delivery) -> bool:
        return state.state in {"delivered", "held", "dead", "cancelled"}

    def canonical(self, state: Delivery) -> Delivery:
        tidied = self.tidied(state)
        return tidied._replace(workers=tuple(sorted(tidied.workers)))

    def tidied(self, state: Delivery) -> Delivery:
        live = self.one_token and self.fence_on_commit_write
        harmless = WRITES_ROW if live else WRITES_ROW - {"D4"}
        if self.rename != "plain" or (self.rename_begun_once and self.half_renamed_kept):
            harmless = harmless | READS_THEN_WRITES_ROW
        workers = []
        for worker in state.workers:
            if not worker.valid and worker.at in harmless:
                workers.append(IDLE)
            elif worker.before and not worker.valid and worker.at in {"rename", "unlink", "consume"}:
                workers.append(worker._replace(before=False))
            else:
                workers.append(worker)
        return state._replace(workers=tuple(workers))

    def steps(self, state: Delivery) -> Iterator[tuple[str, Delivery]]:
        yield from self._others(state)
        idle_seen = False
        for n, worker in enumerate(state.workers):
            name = NAMES[n]
            if worker.at:
                for label, after, then in self._work(state, worker):
                    yield f"{name}: {label}", _put(after, n, then)
                yield f"{name} crashes before: {worker.at}", _put(state, n, IDLE)
            elif not idle_seen:
                idle_seen = True
                for label, after, then in self._begin(state):
                    yield f"{name}: {label}", _put(_others_stale(after), n, then)

    # -- who is not a worker -------------------------------------------------------------------------------------------

    def _others(self, state: Delivery) -> Iterator[tuple[str, Delivery]]:
        if state.final:
            yield "the receiver takes the file", state._replace(final=0, taken=True)
        if state.sweeping:
            yield f"clean-up removes token {state.sweeping}", state._replace(named=state.named & ~(1 << state.sweeping), sweeping=0)
        for token in range(1, state.made + 1):
            if not state.named & 1 << token:
                continue
            if not state.sweeping and token not in {state.upload, state.commit}:
                yield f"clean-up finds the abandoned token {token}", state._replace(sweeping=token)
            renaming = self.rename == "plain" and any(w.at == "unlink" and w.token == token for w in state.workers)
            if not self.receiver_removes and not renaming:
                yield f"a stranger removes token {token}", state._replace(named=state.named & ~(1 << token))

    # -- taking the transfer -------------------------------------------------------------------------------------------

    def _begin(self, state: Delivery) -> Iterator[tuple[str, Delivery, Worker]]:
        if state.state == "accepted" or (state.state == "delivering" and not state.upload):
            if state.upload and state.named & 1 << state.upload:
                goes_on = state._replace(state="delivering")
                yield f"claims, goes on with token {state.upload}", goes_on, Worker("open", True, state.upload)
            else:
                yield "claims", state, Worker("mint", True)
        elif state.state == "delivering":
            mine = "mint" if not self.one_token else "open"
            yield f"claims, finds token {state.upload}", state, Worker(mine, True, state.upload)
        elif state.state == "committing":
            yield self._recovery(state)
        elif state.state == "held":
            if not (state.written_off and self.write_off_kept):
                yield "operator re-drives it, same token", state._replace(state="committing"), IDLE
            half = self.rename == "plain" and state.attempted and self.half_renamed_kept
            yield "operator decides: deliver anew", state, Worker("search" if half else "write off", True, state.commit)
        elif state.state == "dead":
            yield "operator re-drives it", state._replace(state="accepted"), IDLE
        if self.cancels and state.state in {"accepted", "delivering", "dead"}:
            yield "operator cancels", state._replace(state="cancelled"), Worker("remove", True, state.upload) if state.upload else IDLE

    def _recovery(self, state: Delivery) -> tuple[str, Delivery, Worker]:
        token, before = state.commit, state.attempted
        if not self.recover_by_token:
            return "claims it committing, looks at the final name", state, Worker("stat", True, token)
        if state.written_off and self.write_off_kept:
            return "claims it committing, finds its token written off", state, Worker("hold", True, token)
        if self.rename == "plain" and before:
            return "claims it committing, a rename was begun", state, Worker("half", True, token, True)
        needs_note = not before and (self.receiver_removes or self.rename == "plain")
        return f"claims it committing with token {token}", state, Worker("note" if needs_note else "look", True, token, before)

    # -- a worker's next step ------------------------------------------------------------------------------------------

    def _work(self, s: Delivery, w: Worker) -> Iterator[tuple[str, Delivery, Worker]]:  # noqa: C901, PLR0912, PLR0915 - one case a step
        bit = 1 << w.token
        match w.at:
            case "mint":
                if w.valid and s.made < self.attempts:
                    new = s.made + 1
                    minted = s._replace(state="delivering", upload=new, made=new)
                    yield f"token {new} is on the row", minted, Worker("create", True, new)
                elif w.valid:
                    yield "all tries used: dead", s._replace(state="dead"), IDLE
            case "create":
                yield (
                    f"creates token {w.token}",
                    s._replace(named=s.named | bit),
                    w._replace(at="write"),
                )
            case "open":
                there = bool(s.named & bit)
                yield f"opens token {w.token}: {'there' if there else 'gone'}", s, w._replace(at="write" if there else "give up")
            case "write":
                yield f"writes all bytes of token {w.token}", s._replace(whole=s.whole | bit), w._replace(at="D4")
                yield f"writes some bytes of token {w.token} and ends its slice", s, IDLE
            case "give up":
                if w.valid:
                    yield f"gives attempt {w.token} up", s._replace(upload=0), Worker("mint", True)
            case "D4":
                yield from self._decide(s, w)
            case "note":
                if w.valid:
                    noted = s._replace(attempted=True)
                    yield "notes on the row that the commit is attempted", noted, w._replace(at="look")
                    yield "notes the attempt, loses the answer", noted, w._replace(at="unnote")
            case "unnote":
                if w.valid:
                    yield "writes the row back as it knows it", s._replace(attempted=False), IDLE
            case "half":
                yield from self._half_renamed(s, w)
            case "look":
                yield from self._look(s, w)
            case "rename":
                yield from self._rename(s, w)
            case "unlink":
                yield from self._unlink(s, w)
            case "resolve":
                yield from self._resolve(s, w)
            case "consume left":
                yield f"removes token {w.token}, left by a half-done rename", s._replace(named=s.named & ~bit), w._replace(at="D7")
            case "stat":
                yield from self._by_stat(s, w)
            case "hold":
                if w.valid and s.state == "committing":
                    yield "holds it", s._replace(state="held"), IDLE
            case "D7":
                if w.valid and s.state == ("committing" if self.one_token else "delivering"):
                    yield "saves delivered", s._replace(state="delivered", commit=w.token), IDLE
            case "remove":
                yield f"removes token {w.token}", s._replace(named=s.named & ~bit), IDLE
            case _:
                yield from self._operate(s, w)

    def _decide(self, s: Delivery, w: Worker) -> Iterator[tuple[str, Delivery, Worker]]:
        if not self.one_token:
            if w.valid:
                yield "sees that the lease is its own", s, w._replace(at="look")
            return
        mine = w.valid and s.state == "delivering"
        if mine or not self.fence_on_commit_write:
            frozen = s._replace(state="committing", commit=w.token, attempted=False)
            needs_note = self.receiver_removes or self.rename == "plain"
            yield f"D4: committing token {w.token}", frozen, w._replace(at="note" if needs_note else "look")
        if mine:
            yield "fails for good: dead", s._replace(state="dead"), IDLE

    def _look(self, s: Delivery, w: Worker) -> Iterator[tuple[str, Delivery, Worker]]:
        if self.rename == "s3" or not s.final:
            yield "sees the final name free", s, w._replace(at="rename")
        else:
            yield "sees the final name taken", s, w._replace(at="resolve" if self.one_token else "")
        if w.valid and self.one_token:
            yield "may not write there now", s, w._replace(at="hold")

    def _rename(self, s: Delivery, w: Worker) -> Iterator[tuple[str, Delivery, Worker]]:
        bit = 1 << w.token
        there = bool(s.named & bit)
        if not there or (s.final and self.rename != "posix"):
            yield "cannot rename: " + ("the name is taken" if there else "the token is gone"), s, w._replace(at="resolve")
            return
        visible = s._replace(final=w.token, appeared=min(s.appeared + 1, 2))
        if self.rename == "plain":
            yield f"rename links token {w.token} to the final name", visible, w._replace(at="unlink")
        else:
            done = visible._replace(named=s.named & ~bit)
            yield (
                f"{'completes upload' if self.rename == 's3' else 'renames token'} {w.token}: the file is there",
                done,
                w._replace(at="D7"),
            )

    def _unlink(self, s: Delivery, w: Worker) -> Iterator[tuple[str, Delivery, Worker]]:
        """OpenSSH's rename, second half: the token's name goes; if somebody removed it meanwhile, the new name goes instead."""
        bit = 1 << w.token
        if s.named & bit:
            yield "rename unlinks the token", s._replace(named=s.named & ~bit), w._replace(at="D7")
        else:
            taken_back = s._replace(final=0)
            yield "rename finds the token gone and takes the final name back", taken_back, w._replace(at="resolve")

    def _half_renamed(self, s: Delivery, w: Worker) -> Iterator[tuple[str, Delivery, Worker]]:
        there = bool(s.named & 1 << w.token)
        if not self.rename_begun_once:
            if there and not s.final:
                yield "sees the token and no final file", s, w._replace(at="hold")
            else:
                yield (
                    f"sees the token {'there' if there else 'gone'}, the final file {'there' if s.final else 'gone'}",
                    s,
                    w._replace(at="look"),
                )
        elif not there:
            yield "sees the token gone", s, w._replace(at="resolve")
        elif s.final == w.token:
            then = "D7" if self.half_renamed_kept else "consume left"
            yield "sees the token and our file under the final name", s, w._replace(at=then)
        else:
            yield "sees the token and no final file", s, w._replace(at="hold")

    def _resolve(self, s: Delivery, w: Worker) -> Iterator[tuple[str, Delivery, Worker]]:
        there = bool(s.named & 1 << w.token)
        if not self.one_token:
            yield "gives up", s, IDLE
        elif s.final:
            if there and self.rename == "plain" and not self.half_renamed_kept:
                yield "finds our file, and the token", s, w._replace(at="consume left")
            else:
                yield "finds our file", s, w._replace(at="D7")
        elif there:
            yield "finds the token again", s, IDLE
        elif w.before and self.receiver_removes:
            yield "finds nothing: the receiver has taken it", s, w._replace(at="D7")
        else:
            yield "finds nothing, cannot tell", s, w._replace(at="hold")

    def _by_stat(self, s: Delivery, w: Worker) -> Iterator[tuple[str, Delivery, Worker]]:
        if s.final:
            yield "finds the final file", s, w._replace(at="D7")
        elif w.valid:
            yield "finds no final file, begins again", s._replace(state="delivering", commit=0, upload=0), Worker("mint", True)

    # -- the operator's decision ---------------------------------------------------------------------------------------

    def _operate(self, s: Delivery, w: Worker) -> Iterator[tuple[str, Delivery, Worker]]:  # noqa: C901 - one case a step
        bit = 1 << w.token
        match w.at:
            case "write off":
                if w.valid and s.state == "held":
                    yield f"ABANDON(token {w.token})", s._replace(written_off=self.write_off_kept), w._replace(at="consume")
            case "consume":
                if s.named & bit:
                    yield f"removes token {w.token}", s._replace(named=s.named & ~bit), w._replace(at="anew")
                else:
                    yield f"finds token {w.token} gone", s, w._replace(at="search" if self.consumed_before_anew else "anew")
            case "search":
                if s.final and w.valid and s.state == "held":
                    yield "finds our file: delivered", s._replace(state="delivered"), IDLE
                elif not s.final:
                    yield "finds nothing: it stays held", s, IDLE
            case "anew":
                half = self.rename == "plain" and s.attempted and self.consumed_before_anew
                if w.valid and s.state == "held" and half:
                    yield "a rename was begun, which may have shown it: it stays held", s, IDLE
                elif w.valid and s.state == "held":
                    fresh = s._replace(state="accepted", upload=0, commit=0, attempted=False, written_off=False)
                    yield "sends it round again", fresh, IDLE


def _put(state: Delivery, n: int, worker: Worker) -> Delivery:
    workers = state.workers
    return state._replace(workers=(*workers[:n], worker, *workers[n + 1 :]))


def _others_stale(state: Delivery) -> Delivery:
    return state._replace(workers=tuple(w._replace(valid=False) if w.valid else w for w in state.workers))
