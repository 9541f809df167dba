"""What became of a seed."""

from __future__ import annotations

import gc
import hashlib
from collections import Counter
from dataclasses import dataclass, field

from tests.simulation.chaos import Story
from tests.simulation.oracle import carried, judge
from tests.simulation.play import Play, hushed
from tests.simulation.telling import told


@dataclass(slots=True)
class Outcome:
    """Figures and findings of one seed."""

    seed: int
    violations: list[str]
    transfers: int
    steps: int
    fired: Counter[str]
    states: Counter[str]
    trace: list[str] = field(default_factory=list)
    trace_hash: str = ""


def play_seed(seed: int, *, trace: bool = False, calm: bool = False) -> Outcome:
    """Plays one seed and judges it."""
    # What a seed leaves behind is collected between seeds, not again and again while its trace grows.
    gc.disable()
    try:
        return _played(seed, trace=trace, calm=calm)
    finally:
        gc.enable()


def _played(seed: int, *, trace: bool, calm: bool) -> Outcome:
    play = Play(seed, calm=calm)
    with hushed(play):
        Story(play).run()
    violations = judge(play)
    rows = carried(play)
    outcome = Outcome(
        seed=seed,
        violations=violations,
        transfers=len(rows),
        steps=len(play.kernel.trace),
        fired=play.kernel.fired,
        states=Counter(found[0][1].state.value for found in rows.values()),
    )
    if trace or violations:
        outcome.trace = told(play)
        outcome.trace_hash = hashlib.sha256("\n".join(outcome.trace).encode()).hexdigest()
    for region in play.regions:
        region.over = True
    play.kernel.close()
    return outcome
