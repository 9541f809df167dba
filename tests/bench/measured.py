"""One run of one tool, and what several of them come to."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from tests.bench.workloads import GIB, Workload

MB: Final = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run. Seconds of processors are those of all processes of a kind."""

    seconds: float
    bytes: int
    files: int
    client_cpu: float
    server_cpu: float
    emulator_cpu: float = 0.0
    """Of the AWS emulator: no part of the product, nor of a peer."""
    distance_cpu: float = 0.0
    peak: int = 0
    """Most bytes that one process of the client has had resident."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row of `results`."""

    workload: str
    tool: str
    runs: int
    seconds: float
    mb_per_s: float
    files_per_s: float
    cpu_s_per_gib: float
    cpu_s: float
    server_cpu_s: float
    emulator_cpu_s: float
    distance_cpu_s: float
    peak_rss_mb: float
    spread: float
    """Slowest over fastest run."""
    small: bool

    def as_json(self) -> dict[str, Any]:
        """Returns the row with the one rate that says something."""
        row = {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(self).items()}
        row.pop("small")
        row.pop("mb_per_s" if self.small else "files_per_s")
        return row

    @property
    def rate(self) -> float:
        """Files or megabytes per second."""
        return self.files_per_s if self.small else self.mb_per_s


def outcome(row: str, tool: str, runs: Sequence[Measured], workload: Workload) -> Outcome:
    """Returns the medians of several runs."""

    def median(name: str) -> float:
        return statistics.median(float(getattr(run, name)) for run in runs)

    seconds, gib = median("seconds"), workload.bytes / GIB
    return Outcome(
        workload=row,
        tool=tool,
        runs=len(runs),
        seconds=seconds,
        mb_per_s=workload.bytes / MB / seconds,
        files_per_s=len(workload.sizes) / seconds,
        cpu_s_per_gib=median("client_cpu") / gib,
        cpu_s=median("client_cpu"),
        server_cpu_s=median("server_cpu"),
        emulator_cpu_s=median("emulator_cpu"),
        distance_cpu_s=median("distance_cpu"),
        peak_rss_mb=max(run.peak for run in runs) / MB,
        spread=max(run.seconds for run in runs) / min(run.seconds for run in runs),
        small=workload.small,
    )
