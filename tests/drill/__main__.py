"""`python -m tests.drill --runs 20`: exit status 0 only if nothing was lost or duplicated, and nothing given up or held needlessly."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from deploy.local.process import stop_on_signals
from deploy.local.regions import TwoRegions
from tests.drill.drill import Drill, Verdict, summary
from tests.drill.scenes import SCENES
from tests.drill.traffic import Shop


def main() -> int:
    """Reads the command line, plays, and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--files", type=int, default=72, help="handed in per run; the flows add a sixth")
    parser.add_argument("--scene", choices=SCENES, action="append", help="only these, in turns; all, at random, if not given")
    parser.add_argument("--workers", type=int, default=1, help="per region")
    told = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="eft-drill-"))
    # Other local users' sshd sessions must reach their directories.
    directory.chmod(0o755)
    say(f"seed {told.seed}; everything lies in {directory}")
    verdicts: list[Verdict] = []
    begun = time.monotonic()
    with stop_on_signals(), TwoRegions(directory, workers=told.workers) as pair, Shop(pair) as shop:
        say(f"two regions are up after {time.monotonic() - begun:.0f} s")
        drill = Drill(pair, shop, seed=told.seed, files=told.files)
        for number in range(1, told.runs + 1):
            scene = None if not told.scene else told.scene[(number - 1) % len(told.scene)]
            verdicts.append(drill.run(number, scene))
            say(str(verdicts[-1]))
        drill.judge_again()
    good = summary(verdicts, say)
    if good:
        shutil.rmtree(directory, ignore_errors=True)
    return 0 if good else 1


def say(line: str) -> None:
    """Prints a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
