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
from tests.bench.outside import Outside
from tests.bench.report import Ratio, Report
from tests.bench.rows import SCALED
from tests.bench.whole import WholeEngine
from tests.bench.workloads import QUARTER

SLOTS: Final = 4
"""Transfers that a worker has in hand: threads that mostly wait for the server."""
SETTINGS: Final = {"EFT_TENANT_WINDOW": "64"}
MINIMUM: Final = 1.8
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
    """Returns the seconds that files took from their claim to their receipt, by kind."""
    with Stack() as stack:
        outside = Outside(directory / "outside", stack)
        engine = WholeEngine(directory / "engine", stack, workers=1, concurrency=SLOTS, settings=SETTINGS)
        # The first files pay for connections and imports.
        engine.times(SCALED.case(outside, "warm"))
        seconds: dict[int, float] = {}
        far: list[float] = []
        for crew in crews:
            for number in range(max(seconds, default=1), crew):
                engine.add_worker(f"worker-{number + 1}")
            report.loads.append(round(os.getloadavg()[0], 2))
            seconds[crew], each = engine.times(SCALED.case(outside, f"crew-{crew}"))
            far = far or each
        report.more["crews"] = {
            str(crew): {"seconds": round(took, 2), "files": len(SCALED.workload.sizes)} for crew, took in seconds.items()
        }
        for crew in crews[1:]:
            wanted = MINIMUM if crew == 2 else MINIMUM * MINIMUM
            report.ratios.append(
                Ratio(f"{crew} workers, servers 100 ms away", "1 worker", "rate", seconds[1] / seconds[crew], wanted, float(crew))
            )
        if len(crews) == 2:
            return {}
        near = _near(outside, engine)
        return {"small, far": far, "small, near": near, "large": _large(outside, engine)}


def _near(outside: Outside, engine: WholeEngine) -> list[float]:
    account, sink = outside.account("from-here"), outside.sink()
    case = SCALED.case(outside, "near")
    return engine.times(type(case)(account, sink, case.workload, "near"))[1]


def _large(outside: Outside, engine: WholeEngine) -> list[float]:
    outside.fill("sftp", QUARTER)
    case = SCALED.case(outside, "large")
    measured = engine(outside, type(case)(outside.account("from-here"), outside.sink(), QUARTER, "large"))
    return [measured.seconds * fleet.LARGE / (measured.bytes / MB)]
