"""Plays many seeds over processes, or one to be read.

python -m tests.simulation --seeds 2000          seeds 0 … 1999; the last line has the figures
python -m tests.simulation --seed 17 --trace     one seed, call by call
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from tests.simulation.outcome import Outcome, play_seed

SHARE: Final = 25
"""Seeds that a process takes at a time."""
SHOWN: Final = 60
"""Last calls of a seed that broke a promise."""
ENOUGH: Final = 3
"""Broken seeds after which the rest is left."""


def main() -> int:
    """Returns the exit code: 0 if no seed broke a promise."""
    asked = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    asked.add_argument("--seeds", type=int, default=2000, help="how many")
    asked.add_argument("--first", type=int, default=0, help="the first one")
    asked.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    asked.add_argument("--seed", type=int, help="one seed alone")
    asked.add_argument("--trace", action="store_true", help="with every call")
    asked.add_argument("--calm", action="store_true", help="without faults")
    asked.add_argument("--minutes", type=float, help="ends it early, with the figures of what was played by then")
    asked.add_argument("--enough", type=int, default=ENOUGH, help="broken seeds after which the rest is left")
    asked.add_argument("--kinds", action="store_true", help="with a table of the faults by kind")
    given = asked.parse_args()
    if given.seed is not None:
        return _one(given.seed, trace=given.trace, calm=given.calm)
    seeds = range(given.first, given.first + given.seeds)
    return _many(seeds, processes=given.processes, kinds=given.kinds, enough=given.enough, minutes=given.minutes)


def _one(seed: int, *, trace: bool, calm: bool) -> int:
    outcome = play_seed(seed, trace=True, calm=calm)
    if trace:
        _say("\n".join(outcome.trace))
    _tell(outcome, lines=0 if trace else SHOWN)
    _say(f"seed {seed}: {outcome.transfers} transfers, {outcome.steps} calls, {dict(outcome.states)}, trace {outcome.trace_hash[:16]}")
    return 1 if outcome.violations else 0


def _many(seeds: range, *, processes: int, kinds: bool, enough: int, minutes: float | None) -> int:
    began = time.monotonic()
    shares = [seeds[at : at + SHARE] for at in range(0, len(seeds), SHARE)]
    played = transfers = steps = 0
    broken: list[int] = []
    fired: Counter[str] = Counter()
    states: Counter[str] = Counter()
    for outcome in _outcomes(shares, processes):
        played += 1
        transfers += outcome.transfers
        steps += outcome.steps
        fired += outcome.fired
        states += outcome.states
        if outcome.violations:
            broken.append(outcome.seed)
            _tell(outcome, lines=SHOWN)
        if len(broken) == enough or (minutes is not None and time.monotonic() - began > 60 * minutes):
            break
        if played % 1000 == 0:
            sys.stderr.write(f"{played} seeds, {transfers} transfers, {time.monotonic() - began:.0f} s\n")
    if kinds:
        _say("\n".join(f"{kind:20} {count:>12,}" for kind, count in sorted(fired.items())))
    rest = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    _say(
        f"simulate: {played} seeds, {transfers} transfers ({rest}), {steps} calls, {sum(fired.values())} faults of {len(fired)} kinds"
        f" (rarest {min(fired.values(), default=0)}), {len(broken)} seeds broke a promise,"
        f" {played / (time.monotonic() - began):.1f} seeds/s"
    )
    return 1 if broken else 0


def _outcomes(shares: Sequence[range], processes: int) -> Iterator[Outcome]:
    if processes == 1:
        for share in shares:
            yield from _play(share)
        return
    with multiprocessing.Pool(processes) as pool:
        for outcomes in pool.imap_unordered(_play, shares):
            yield from outcomes


def _play(share: range) -> list[Outcome]:
    return [play_seed(seed) for seed in share]


def _tell(outcome: Outcome, *, lines: int) -> None:
    if outcome.violations:
        _say("\n".join(["", *outcome.trace[-lines:]] if lines else []))
        _say("\n".join(f"seed {outcome.seed}: {each}" for each in outcome.violations))
        _say(f"again: python -m tests.simulation --seed {outcome.seed} --trace")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
