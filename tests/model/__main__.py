"""`make model`: explores everything, tells of each model and of each variant in a line, and ends with one line of figures."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tests.model.catalogue import FOUND, LONG, WEAKENED, Sound, Weakened
from tests.model.explorer import Explored


def main() -> int:
    """Returns 0 if nothing was violated and every weakened variant was found unsafe. `--traces` tells how each of those fails."""
    began, traces = time.monotonic(), "--traces" in sys.argv
    entries: list[Sound | Weakened] = [*LONG, *WEAKENED, *FOUND]
    states = steps = violations = found = 0
    say(f"{'states':>10} {'steps':>11} {'depth':>5} {'s':>5}  model")
    with ProcessPoolExecutor() as pool:
        for entry, explored in zip(entries, pool.map(_run, entries), strict=True):
            trace = explored.found or explored.cannot_rest
            figures = f"{explored.states:10,} {explored.steps:11,} {explored.depth:5} {explored.seconds:5.0f}"
            say(f"{figures}  {entry.name}: {_said(entry, explored)}")
            if isinstance(entry, Sound):
                states, steps = states + explored.states, steps + explored.steps
                violations += not entry.holds(explored)
            else:
                found += entry.found(explored)
            if trace is not None and (traces or isinstance(entry, Sound)):
                say(str(trace))
    variants = len(WEAKENED) + len(FOUND)
    say(
        f"model: {len(LONG)} models, {states:,} states, {steps:,} steps, {violations} violations; "
        f"{found} of {variants} weakened variants found unsafe; {time.monotonic() - began:.0f} s"
    )
    return 0 if not violations and found == variants else 1


def say(line: str) -> None:
    """Prints a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _run(entry: Sound | Weakened) -> Explored:
    return entry.run()


def _said(entry: Sound | Weakened, explored: Explored) -> str:
    trace = explored.found or explored.cannot_rest
    if isinstance(entry, Weakened):
        return "NOT FOUND UNSAFE" if trace is None else f"{trace.what}, after {len(trace.trace)} steps"
    return "no violation" if entry.holds(explored) else "VIOLATED" if trace is not None else "not explored to its end"


if __name__ == "__main__":
    sys.exit(main())
