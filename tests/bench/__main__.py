"""`python -m tests.bench quick|usual|full|scale`: side by side, interleaved, medians; writes docs/bench/latest.json and latest.svg
(of `full` and `scale` into folders of these names there).

Exit status 0 if everything could be measured, whether or not a minimum was reached: figures are judged by people.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from deploy.local.places import ROOT
from deploy.local.process import Stack, stop_on_signals
from tests.bench import scale
from tests.bench.measured import Measured, outcome
from tests.bench.outside import Outside
from tests.bench.peers import installed
from tests.bench.report import Report
from tests.bench.rows import DEFAULT, ENGINE, LFTP, MEMORY, QUICK, SFTP, SIXTEEN, TOOLS, TUNED, USUAL, Row, matrix
from tests.bench.whole import WholeEngine

SECONDS: Final = {"quick": 55.0, "usual": 480.0, "full": 0.0}
"""After so many seconds no tool is run a second time; each runs once whatever the time."""
IN_MEMORY: Final = Path("/dev/shm")
PROGRAMS: Final = {TUNED: "rclone", DEFAULT: "rclone", SIXTEEN: "rclone", LFTP: "lftp", SFTP: "sftp"}
WORKERS, CONCURRENCY = 2, 4


def main() -> int:
    """Reads the command line, measures, and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profile", choices=["quick", "usual", "full", "scale"])
    parser.add_argument("--only", default="", help="rows whose name holds these words; their results go to .local/bench")
    parser.add_argument("--into", type=Path, help="directory for the results")
    chosen = parser.parse_args()
    into = chosen.into or ROOT / (".local/bench" if chosen.only else "docs/bench")
    rows = {"quick": QUICK, "usual": USUAL, "full": matrix(), "scale": ()}[chosen.profile]
    rows = [row for row in rows if chosen.only in row.name]
    report = Report()
    with stop_on_signals(), ExitStack() as ends:
        directory = Path(tempfile.mkdtemp(prefix="eft-bench-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        ends.callback(shutil.rmtree, directory, ignore_errors=True)
        # Each session of sshd must reach its directory, whoever it belongs to.
        directory.chmod(0o755)
        if chosen.profile == "scale":
            scale.measure(directory, report)
            report.write(into / "scale", profile="scale")
        else:
            stack = ends.enter_context(Stack())
            _measure(Outside(directory / "outside", stack), stack, rows, report, budget=SECONDS[chosen.profile])
            if chosen.profile == "usual":
                scale.two_against_one(directory / "two", report)
            into = into / "full" if chosen.profile == "full" else into
            report.write(into, profile=f"make bench{'' if chosen.profile == 'usual' else '-' + chosen.profile}")
    sys.stdout.write(report.table(chosen.profile) + "\n")
    return 0


def _measure(outside: Outside, stack: Stack, rows: Sequence[Row], report: Report, *, budget: float) -> None:
    """Runs every tool of each row once, and then again, in turn, while there is time.

    Row by row, so that the engine, which is a service, is measured as one: its first turn finds no connections, the others do.
    """
    engine = WholeEngine(outside.directory / "engine", stack, workers=WORKERS, concurrency=CONCURRENCY, settings={})
    until = time.monotonic() + budget
    for row in rows:
        runs: dict[str, list[Measured]] = {tool: [] for tool in row.tools}
        for turn in range(row.runs):
            # None of them always comes after the same one.
            first = turn % len(row.tools)
            for tool in (*row.tools[first:], *row.tools[:first]):
                if (turn and time.monotonic() > until) or f"{row.name}, {tool}" in report.not_measured:
                    continue
                measured = _once(outside, engine, row, tool, turn=turn, report=report)
                if measured is not None:
                    runs[tool].append(measured)
        report.results += [outcome(row.name, tool, measured, row.workload) for tool, measured in runs.items() if measured]
    # At the end: memory is that of all rows.
    for row in rows:
        report.compare(row.name, row.wanted, allowed_mb=MEMORY)
    report.not_measured["0.1 % loss"] = _why_no_loss()


def _once(outside: Outside, engine: WholeEngine, row: Row, tool: str, *, turn: int, report: Report) -> Measured | None:
    name = f"{row.name}, {tool}"
    if tool in PROGRAMS and not installed(PROGRAMS[tool]):
        report.not_measured[name] = f"{PROGRAMS[tool]} is not installed"
        return None
    into = f"{row.workload.name}-{abs(hash(name)) % 10**8}-{turn}"
    case = row.case(outside, into)
    outside.settle()
    # Last: what is given back does not stay at hand for long.
    outside.make_room(row.workload.bytes)
    report.loads.append(round(os.getloadavg()[0], 2))
    try:
        measured = engine(outside, case, **row.policy) if tool == ENGINE else TOOLS[tool](outside, case)
    except Exception as error:  # noqa: BLE001 - one that cannot be measured is told of, and the others are
        sys.stderr.write(f"{name}: {error!r}\n")
        report.not_measured[name] = (str(error).splitlines() or [repr(error)])[0][:200]
        return None
    finally:
        outside.empty(into)
    sys.stderr.write(f"{name}: {measured.seconds:.2f} s, client {measured.client_cpu:.2f} CPU s, servers {measured.server_cpu:.2f} CPU s\n")
    return measured


def _why_no_loss() -> str:
    """Says whether a network namespace with netem can be had here; nothing stays of the try."""
    name = f"bench-{os.getpid()}"
    steps = [
        ["ip", "netns", "add", name],
        ["ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", "lo", "root", "netem", "loss", "0.1%"],
    ]
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "ip and tc are not installed; a proxy cannot lose packets"
    try:
        possible = all(subprocess.run(step, capture_output=True, check=False).returncode == 0 for step in steps)
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return (
        "netem is there, but no row uses it"
        if possible
        else "the kernel offers no netem in a network namespace; a proxy cannot lose packets"
    )


if __name__ == "__main__":
    sys.exit(main())
