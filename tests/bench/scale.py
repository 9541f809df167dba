"""How far more workers help: 1, 2 and 4 of them against servers that are far away, and a simulated fleet with the times measured there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from deploy.local.process import Stack
from tests.bench import fleet
from tests.bench.measured import MB
from tests.bench.outside import FROM, Outside
from tests.bench.peers import Case
from tests.bench.report import Ratio, Report
from tests.bench.whole import WholeEngine
from tests.bench.workloads import FEW, QUARTER, WARM, Workload

SLOTS: Final = 4
"""Transfers that a worker has in hand: threads that mostly wait for the server."""
SETTINGS: Final = {"EFT_TENANT_WINDOW": "64"}
DELAY: Final = 200.0
"""Milliseconds to either end: long enough that a file is waited for, not worked at, on two processors."""
MINIMUM: Final = 1.8
"""Of two workers' rate over one's; of four workers', its square."""
SHORT: Final = 2
FLEETS: Final = (10, 30, 100, 300, 1000)
FILES_A_DAY: Final = 10_000_000


def two_against_one(directory: Path, report: Report) -> None:
    """Adds the ratio of two workers' rate to one's."""
    _grow(directory, report, crews=(1, 2))


def measure(directory: Path, report: Report) -> None:
    """Adds the rates of 1, 2 and 4 workers, and what a fleet would do with 10,000,000 files a day."""
    times = _grow(directory, report, crews=(1, 2, 4))
    report.more["service_seconds"] = {name: [round(one, 3) for one in sorted(each)] for name, each in times.items()}
    report.more["fleet"] = [asdict(fleet.simulate(times, workers=workers, slots=SLOTS, files=FILES_A_DAY)) for workers in FLEETS]


def _grow(directory: Path, report: Report, *, crews: Sequence[int]) -> dict[str, list[float]]:
    """Returns the seconds that files took from their claim to their receipt, by kind; nothing in the short form."""
    with Stack() as stack:
        outside = Outside(directory / "outside", stack)
        engine = WholeEngine(directory / "engine", stack, workers=1, concurrency=SLOTS, settings=SETTINGS)
        seconds: dict[int, float] = {}
        each: dict[int, list[float]] = {}
        for crew in crews:
            for number in range(max(seconds, default=1), crew):
                engine.add_worker(f"worker-{number + 1}")
            # The first files pay for connections and imports.
            engine.times(_case(outside, f"warm-{crew}", WARM, delay=DELAY))
            report.loads.append(round(os.getloadavg()[0], 2))
            seconds[crew], each[crew] = engine.times(_case(outside, f"crew-{crew}", FEW, delay=DELAY))
        report.more["crews"] = {str(crew): {"seconds": round(took, 2), "files": len(FEW.sizes)} for crew, took in seconds.items()}
        name = f"workers, servers {DELAY:g} ms away"
        for crew in crews[1:]:
            minimum = MINIMUM ** (crew // 2)
            report.ratios.append(Ratio(f"{crew} {name}", "1 worker", "rate", seconds[1] / seconds[crew], minimum, float(crew)))
        if len(crews) == SHORT:
            return {}
        near = engine.times(_case(outside, "near", FEW))[1]
        outside.fill("sftp", QUARTER)
        large = engine(outside, _case(outside, "large", QUARTER))
        return {"small, far": each[1], "small, near": near, "large": [large.seconds * fleet.LARGE / (large.bytes / MB)]}


def _case(outside: Outside, into: str, workload: Workload, *, delay: float = 0) -> Case:
    """From sshd to the sink, both equally far away."""
    outside.fill("sftp", workload)
    return Case(outside.account(FROM, delay=delay), outside.sink(delay=delay), workload, into)
