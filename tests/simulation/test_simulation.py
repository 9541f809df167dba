"""The short form of the simulation: `make simulate` plays more seeds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from typing import Final

import pytest

from tests.simulation.outcome import play_seed
from tests.simulation.weather import BASE

SHARES: Final = 80
SHARE: Final = 25
"""Seeds per test: two thousand in all."""
WORLD: Final = frozenset(
    {
        "dead_letter",
        "foreign_file",
        "janitor",
        "link_cut",
        "partition",
        "receiver_took",
        "redelivered",
        "region_death",
        "reordered",
        "server_down",
        "server_outage",
        "source_replaced",
    }
)
"""Kinds of trouble that come from the world, beside those that strike single calls."""


@pytest.mark.parametrize("first", range(0, SHARES * SHARE, SHARE))
def test_no_seed_breaks_a_promise(first: int) -> None:
    """Whatever fails at whatever call, each accepted transfer rests visibly, and what is settled has appeared exactly once, whole."""
    for seed in range(first, first + SHARE):
        outcome = play_seed(seed)
        assert not outcome.violations, "\n".join(
            [*outcome.trace[-60:], *outcome.violations, f"python -m tests.simulation --seed {seed} --trace"]
        )


def test_a_good_day_settles_everything() -> None:
    """Without faults every transfer is settled, but for those that their own conflict mode ends."""
    states: Counter[str] = Counter()
    for seed in range(20):
        outcome = play_seed(seed, calm=True)
        assert not outcome.violations
        states += outcome.states
    assert states.keys() <= {"settled", "cancelled", "dead"}
    assert states["settled"] > 0.9 * states.total()


def test_the_same_seed_plays_the_same() -> None:
    """A seed's trace is the same a second time, and in another process whose hashes are in another order."""
    seed = 5260
    first = play_seed(seed, trace=True)
    assert len(first.trace) > 500
    assert play_seed(seed, trace=True).trace_hash == first.trace_hash
    asked = [sys.executable, "-m", "tests.simulation", "--seed", str(seed)]
    for order in ("1", "2"):
        told = subprocess.run(asked, env={**os.environ, "PYTHONHASHSEED": order}, capture_output=True, text=True, check=True, timeout=240)
        assert f"trace {first.trace_hash[:16]}" in told.stdout
    assert play_seed(seed + 1, trace=True).trace_hash != first.trace_hash


def test_every_kind_of_fault_strikes() -> None:
    """A few hundred seeds meet every kind of fault that there is: none is planned and never fired."""
    fired: Counter[str] = Counter()
    seed = 0
    while seed < 2000 and not (BASE.keys() | WORLD) <= fired.keys():
        fired += play_seed(seed).fired
        seed += 1
    assert (BASE.keys() | WORLD) <= fired.keys(), (BASE.keys() | WORLD) - fired.keys()
