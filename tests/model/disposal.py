"""Disposal of the source (DESIGN 5): the delivered version goes, and only that one, whatever comes to stand under its name meanwhile.
A newer one is back under its name in the end, or its transfer is held and says where it is.

worker     claim ─ note a token ─ rename the source to it ─ look at what was renamed ─ remove that, or put it back ─ save settled
listing    once the transfer is settled: see what is under a token ─ give it its name back, or take it under a token of one's own, and look
producer   writes a newer version under the same name at any moment
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

NAMES = "ABCDEF"
DELIVERED = 1
"""The version that was delivered; newer ones count on."""


class Worker(NamedTuple):
    """What a worker is about to do; `valid` while its fence is the row's. `taking` is the token it looks into; 0 is the path."""

    at: str = ""
    valid: bool = False
    token: int = 0
    taking: int = 0


class Disposal(NamedTuple):
    """The row, and the versions that stand under the source's name and under each token."""

    state: str = "delivered"
    path: int = DELIVERED
    tokens: tuple[int, ...] = ()
    newest: int = DELIVERED
    removed: int = 0
    """The newest version that somebody removed."""
    taken_up: int = 0
    """Delivered versions that a listing has taken under a token of its own."""
    workers: tuple[Worker, ...] = ()


IDLE = Worker()
Next = tuple[str, Disposal, Worker]


@dataclass(frozen=True)
class DisposalModel:
    """The protocol, its guards, and the bounds. Each guard can be switched off."""

    workers: int = 4
    claims: int = 4
    versions: int = 2
    """Newer versions that come."""
    by_token: bool = True
    """Off: the source is deleted by its path, after a look at it."""
    token_per_claim: bool = True
    """Off: all workers of a transfer share one token."""
    listed: bool = True
    """Off: nobody looks at what is left under tokens once the transfer is settled."""
    take_ups: int = 1
    """Delivered versions that listings take up."""

    def initial(self) -> Disposal:
        return Disposal(workers=(IDLE,) * self.workers)

    def violation(self, state: Disposal) -> str | None:
        return "a version that was never delivered was removed" if state.removed > DELIVERED else None

    def resting(self, state: Disposal) -> bool:
        if state.state == "settled":
            # Where a third version has the name, the second waits beside it, and each run of the flow says so.
            return bool(state.path) or max(state.tokens, default=0) <= DELIVERED
        return state.state == "held" or len(state.tokens) >= self.claims

    def tidied(self, state: Disposal) -> Disposal:
        refused = {"note", "save", "hold"}
        return state._replace(workers=tuple(IDLE if w.at in refused and not w.valid else w for w in state.workers))

    def canonical(self, state: Disposal) -> Disposal:
        tidied = self.tidied(state)
        return tidied._replace(workers=tuple(sorted(tidied.workers)))

    def steps(self, state: Disposal) -> Iterator[tuple[str, Disposal]]:
        if state.newest <= self.versions and state.path in {0, DELIVERED}:
            new = state.newest + 1
            yield f"the producer writes version {new}", state._replace(path=new, newest=new)
        idle_seen = False
        for n, worker in enumerate(state.workers):
            if worker.at:
                for label, after, then in self._work(state, worker):
                    yield f"{NAMES[n]}: {label}", _put(after, n, then)
                yield f"{NAMES[n]} crashes before: {worker.at}", _put(state, n, IDLE)
            elif not idle_seen and self.listed and state.state == "settled":
                idle_seen = True
                for label, listing in self._listing(state):
                    yield f"{NAMES[n]}: {label}", _put(state, n, listing)
            elif not idle_seen and state.state == "delivered" and len(state.tokens) < self.claims:
                idle_seen = True
                fenced = state._replace(workers=tuple(w._replace(valid=False) for w in state.workers))
                yield f"{NAMES[n]}: claims", _put(fenced, n, Worker("note" if self.by_token else "look at path", True))

    def _listing(self, s: Disposal) -> Iterator[tuple[str, Worker]]:
        """A look that others may come after: what it saw need not be what it moves."""
        for token, version in enumerate(s.tokens, start=1):
            if version > DELIVERED:
                yield f"lists token {token}, version {version}", Worker("give back", token=token)
            elif version and s.taken_up < self.take_ups:
                yield f"lists token {token}, the delivered version", Worker("take up", taking=token)

    def _work(self, s: Disposal, w: Worker) -> Iterator[Next]:  # noqa: C901, PLR0912 - one case a step
        match w.at:
            case "note":
                if w.valid:
                    shared = not self.token_per_claim and bool(s.tokens)
                    tokens = s.tokens if shared else (*s.tokens, 0)
                    first = 1 if self.token_per_claim and len(tokens) > 1 else 0
                    yield f"notes token {len(tokens)} on the row", s._replace(tokens=tokens), Worker("take", True, len(tokens), first)
            case "take":
                yield self._take(s, w)
            case "give back":
                back = s if s.path else _hold(s, w.token, 0)._replace(path=s.tokens[w.token - 1])
                yield "gives it its name back, unless that is taken", back, IDLE
            case "take up":
                taken = _hold(s, w.taking, 0)._replace(
                    tokens=(*_hold(s, w.taking, 0).tokens, s.tokens[w.taking - 1]), taken_up=s.taken_up + 1
                )
                yield f"renames token {w.taking} to one of its own", taken, Worker("look", token=len(taken.tokens))
            case "look":
                yield self._look(s, w)
            case "remove":
                found = s.tokens[w.token - 1]
                yield (
                    f"removes token {w.token}{f', version {found}' if found else ', which is gone'}",
                    _hold(s, w.token, 0)._replace(removed=max(s.removed, found)),
                    w._replace(at="save"),
                )
            case "put back":
                if s.path:
                    yield "finds the name taken again", s, w._replace(at="hold")
                else:
                    back = _hold(s, w.token, 0)._replace(path=s.tokens[w.token - 1])
                    yield "puts it back", back, self._next(s, w)
            case "save" | "hold" if w.valid and s.state == "delivered":
                yield f"saves {'settled' if w.at == 'save' else 'held'}", s._replace(state="settled" if w.at == "save" else "held"), IDLE
            case "look at path":
                same = s.path == DELIVERED
                yield (
                    f"looks at the source: {'the delivered version' if same else 'another'}",
                    s,
                    w._replace(at="remove path" if same else "save"),
                )
            case "remove path":
                yield f"removes the source, version {s.path}", s._replace(path=0, removed=max(s.removed, s.path)), w._replace(at="save")

    def _take(self, s: Disposal, w: Worker) -> Next:
        """Renames without overwriting: first out of each earlier token, whose worker may never come back, then from the path."""
        source = s.path if not w.taking else s.tokens[w.taking - 1]
        whence = f"token {w.taking}" if w.taking else "the source"
        if not source or s.tokens[w.token - 1]:
            what = f"finds {whence} gone" if not source else f"finds token {w.token} taken"
            return what, s, w._replace(at="look") if s.tokens[w.token - 1] else self._next(s, w)
        moved = _hold(s, w.token, source)
        moved = _hold(moved, w.taking, 0) if w.taking else moved._replace(path=0)
        return f"renames {whence}, version {source}, to token {w.token}", moved, w._replace(at="look")

    @staticmethod
    def _look(s: Disposal, w: Worker) -> Next:
        found = s.tokens[w.token - 1]
        if not found:
            return f"finds nothing under token {w.token}", s, w._replace(at="save")
        if found == DELIVERED:
            return f"sees the delivered version under token {w.token}", s, w._replace(at="remove")
        return f"sees version {found} under token {w.token}", s, w._replace(at="put back")

    @staticmethod
    def _next(s: Disposal, w: Worker) -> Worker:
        """What comes after a place that held nothing of ours: the next earlier token, then the path, then the end."""
        if not w.taking:
            return w._replace(at="save")
        following = w.taking + 1
        return w._replace(at="take", taking=following if following < w.token else 0)


def _hold(s: Disposal, token: int, version: int) -> Disposal:
    return s._replace(tokens=(*s.tokens[: token - 1], version, *s.tokens[token:]))


def _put(s: Disposal, n: int, worker: Worker) -> Disposal:
    return s._replace(workers=(*s.workers[:n], worker, *s.workers[n + 1 :]))
