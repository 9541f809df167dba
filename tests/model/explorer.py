"""An explicit-state model checker: every state that any order of steps can reach, looked at once, the shortest trace to a bad one.

    frontier ─ successors ─ canonical form ─ seen before? ─ judged ─ frontier …

A model's state is a hashable tuple. Workers that could change places are sorted, so that states which differ only in who is who count once.
"""

from __future__ import annotations

import gc
import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)
Step = tuple[str, S]
"""What is done, in words, and the state after it."""


class Model(Protocol[S]):
    """A protocol with its surroundings: who may do what in which state, and what must never be seen."""

    def initial(self) -> S:
        """Returns the state that everything begins in."""
        ...

    def steps(self, state: S) -> Iterable[Step[S]]:
        """Yields every step that somebody may take next."""
        ...

    def violation(self, state: S) -> str | None:
        """Returns what is wrong in a state, or None."""
        ...

    def tidied(self, state: S) -> S:
        """Returns the state without what nobody will ever use: a worker that can only be refused is idle."""
        ...

    def canonical(self, state: S) -> S:
        """Returns the tidied state that stands for all those that differ only in the names of workers."""
        ...

    def resting(self, state: S) -> bool:
        """Returns whether the transfers are at rest: delivered, held, dead or cancelled."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """A violation and the shortest way to it."""

    what: str
    trace: tuple[str, ...]

    def __str__(self) -> str:
        lines = (f"  {n:3}. {step}" for n, step in enumerate(self.trace, 1))
        return "\n".join([f"{self.what}, after {len(self.trace)} steps:", *lines])


@dataclass(slots=True)
class Explored:
    """What an exploration saw. `complete` is False where it stopped at a violation or at its limit of states."""

    states: int = 0
    steps: int = 0
    depth: int = 0
    seconds: float = 0
    complete: bool = False
    found: Found | None = None
    cannot_rest: Found | None = None
    """A state from which no order of steps brings the transfers to rest; looked for where the exploration was asked to."""


def explore(model: Model[S], *, limit: int | None = None, must_rest: bool = False) -> Explored:
    """Visits every reachable state, nearest first; stops at the first violation, or at `limit` states.

    With `must_rest` each state is also held to be able to come to rest, which needs the memory of every step.
    """
    began = time.monotonic()
    gc.disable()  # nothing here is garbage, and looking for it would take half of the time
    try:
        result = _explore(model, limit=limit, must_rest=must_rest)
    finally:
        gc.enable()
    result.seconds = time.monotonic() - began
    return result


def _explore(model: Model[S], *, limit: int | None, must_rest: bool) -> Explored:
    first = model.canonical(model.initial())
    came_from: dict[S, S | None] = {first: None}
    before: dict[S, list[S]] = defaultdict(list)
    result: Explored = Explored()
    frontier = deque([(first, 0)])
    kept: dict[Any, Any] = {}
    steps, canonical, violation = model.steps, model.canonical, model.violation
    while frontier:
        state, result.depth = frontier.popleft()
        for _, after in steps(state):
            result.steps += 1
            then = canonical(after)
            if must_rest:
                before[then].append(state)
            if then in came_from:
                continue
            then = _shared(then, kept)
            came_from[then] = state
            wrong = violation(then)
            if wrong is not None:
                result.found = Found(wrong, _told(model, came_from, then))
                break
            frontier.append((then, result.depth + 1))
        if result.found is not None or (limit is not None and len(came_from) >= limit):
            break
    else:
        result.complete = True
    if must_rest and result.complete:
        result.cannot_rest = _never_resting(model, came_from, before)
    result.states = len(came_from)
    return result


def _shared(state: S, kept: dict[Any, Any]) -> S:
    """Returns the state made of parts that other states have too: a quarter of the memory."""
    return type(state)(*[kept.setdefault(part, part) if part.__class__ is not int else part for part in state])  # type: ignore[attr-defined]


def _never_resting(model: Model[S], came_from: dict[S, S | None], before: dict[S, list[S]]) -> Found | None:
    may_rest = {state for state in came_from if model.resting(state)}
    waiting = list(may_rest)
    while waiting:
        for earlier in before[waiting.pop()]:
            if earlier not in may_rest:
                may_rest.add(earlier)
                waiting.append(earlier)
    for state in came_from:
        if state not in may_rest:
            return Found("no way leads to rest from here", _told(model, came_from, state))
    return None


def _told(model: Model[S], came_from: dict[S, S | None], last: S) -> tuple[str, ...]:
    """Returns the way to a state in words. Walked again from the start, so that each worker keeps one name all along."""
    way = list(_back(came_from, last))[::-1]
    state, words = model.initial(), []
    for then in way[1:]:
        label, state = next((label, model.tidied(after)) for label, after in model.steps(state) if model.canonical(after) == then)
        words.append(label)
    return tuple(words)


def _back(came_from: dict[S, S | None], last: S) -> Iterator[S]:
    state: S | None = last
    while state is not None:
        yield state
        state = came_from[state]


def until(model: Model[S], wanted: Callable[[S], bool]) -> Found | None:
    """Returns the shortest way to a state that is wanted: what a test asks to see that a model is not empty."""
    first = model.canonical(model.initial())
    came_from: dict[S, S | None] = {first: None}
    frontier = deque([first])
    while frontier:
        state = frontier.popleft()
        if wanted(state):
            return Found("reached", _told(model, came_from, state))
        for _, after in model.steps(state):
            then = model.canonical(after)
            if then not in came_from:
                came_from[then] = state
                frontier.append(then)
    return None
