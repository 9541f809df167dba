"""The results as JSON, as a table for people, and as a chart."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from tests.bench.measured import Outcome
from tests.bench.rows import Wanted

BEGIN, END = "<!-- figures: written by make bench -->", "<!-- end of figures -->"
BAR, GAP, LEFT, WIDTH, RIGHT = 18, 14, 210, 420, 130
OURS, THEIRS = "#1a7f64", "#9aa5b1"


@dataclass(frozen=True, slots=True)
class Ratio:
    """A row of `ratios`: higher is better."""

    workload: str
    against: str
    of: str
    value: float
    minimum: float
    aim: float

    @property
    def met(self) -> bool:
        """Whether the minimum is reached."""
        return self.value >= self.minimum

    def as_json(self) -> dict[str, Any]:
        """Returns the row."""
        return {
            "workload": self.workload,
            "against": self.against,
            "of": self.of,
            "value": round(self.value, 3),
            "minimum": round(self.minimum, 3),
            "aim": self.aim,
            "met": self.met,
        }


@dataclass
class Report:
    """What a run of the benchmarks found."""

    results: list[Outcome] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)
    """What was left out, and why."""
    loads: list[float] = field(default_factory=list)
    """Load averages seen before each run: above the number of processors others were at work, too."""
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    more: dict[str, Any] = field(default_factory=dict)

    def compare(self, row: str, wanted: Sequence[Wanted], *, allowed_mb: float) -> None:
        """Adds the ratios of a row whose tools have been measured."""
        found = {one.tool: one for one in self.results if one.workload == row}
        for one in wanted:
            ours, other = found.get(one.tool), found.get(one.against)
            if ours is None or (other is None and one.of != "memory"):
                continue
            if one.of == "memory" or other is None:
                # Whatever it moves: the most of all rows.
                value = allowed_mb / max(row.peak_rss_mb for row in self.results if row.tool == one.tool)
            elif one.of == "cpu":
                value = other.cpu_s_per_gib / ours.cpu_s_per_gib
            else:
                value = ours.rate / other.rate
            self.ratios.append(Ratio(row, one.against, one.of, value, one.minimum, one.aim))

    def write(self, directory: Path, *, profile: str) -> None:
        """Writes latest.json and latest.svg, and the figures into README.md between their marks."""
        directory.mkdir(parents=True, exist_ok=True)
        whole = {
            "profile": profile,
            "machine": self.machine(),
            "results": [one.as_json() for one in self.results],
            "ratios": [one.as_json() for one in self.ratios],
            "not_measured": self.not_measured,
            **self.more,
        }
        (directory / "latest.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
        (directory / "latest.svg").write_text(chart(self.results))
        readme = directory / "README.md"
        if readme.exists() and BEGIN in (text := readme.read_text()):
            before, _, rest = text.partition(BEGIN)
            readme.write_text(f"{before}{BEGIN}\n{self.table(profile)}\n{END}{rest.partition(END)[2]}")

    def machine(self) -> dict[str, Any]:
        """Returns what the figures were taken on, and how busy it was with other things."""
        model = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        return {
            "processors": os.cpu_count(),
            "model": model[0] if model else platform.machine(),
            "memory_gb": round(memory, 1),
            "kernel": platform.release().partition("-")[0],
            "python": platform.python_version(),
            "openssh": subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr.split(",")[0].strip(),
            "began": self.began.isoformat(timespec="seconds"),
            "minutes": round((datetime.now(UTC) - self.began).total_seconds() / 60, 1),
            "load_average": {"least": min(self.loads, default=0), "most": max(self.loads, default=0)},
        }

    def table(self, profile: str) -> str:
        """Returns the ratios and results as Markdown."""
        machine = self.machine()
        load = machine["load_average"]
        taken = (
            f"`{profile}`, {machine['began']}, {machine['minutes']} minutes, {machine['processors']} processors ({machine['model']}), "
            f"load average {load['least']:.1f} … {load['most']:.1f} before each run."
        )
        lines = [
            taken,
            "",
            "| workload | against | of | value | minimum | aim | |",
            "|---|---|---|---|---|---|---|",
        ]
        for one in self.ratios:
            verdict = "reached" if one.met else f"missed by {1 - one.value / one.minimum:.0%}"
            lines.append(
                f"| {one.workload} | {one.against} | {one.of} | {one.value:.2f} × | {one.minimum:.2f} × | {one.aim:.2f} × | {verdict} |"
            )
        if self.results:
            lines += ["", *_rates(self.results)]
        if "fleet" in self.more:
            lines += ["", *_fleet(self.more["fleet"])]
        if self.not_measured:
            lines += ["", "Not measured: " + "; ".join(f"{what} ({why})" for what, why in self.not_measured.items()) + "."]
        return "\n".join(lines)


def _rates(results: Sequence[Outcome]) -> list[str]:
    lines = ["| workload | tool | rate | client CPU s/GiB | server CPU s | emulator CPU s | peak RSS MB | runs | slowest/fastest |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for row in results:
        rate = f"{row.rate:,.0f} files/s" if row.small else f"{row.rate:,.0f} MB/s"
        # Per GiB says nothing of files of some kilobytes.
        cpu = f"{row.cpu_s:.1f} s in all" if row.small else f"{row.cpu_s_per_gib:.2f}"
        lines.append(
            f"| {row.workload} | {row.tool} | {rate} | {cpu} | {row.server_cpu_s:.1f} | {row.emulator_cpu_s:.1f} | "
            f"{row.peak_rss_mb:.0f} | {row.runs} | {row.spread:.2f} |"
        )
    return lines


def _fleet(days: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["| workers | files a day | done in time | slots busy | median wait s | 99 % wait s | longest s | item writes/s at the peak |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    return lines + [
        f"| {day['workers']:,} × {day['slots']} | {day['files']:,} | {'yes' if day['done_in_time'] else 'no'} | {day['busy']:.1%} | "
        f"{day['wait_median']:,.1f} | {day['wait_p99']:,.1f} | {day['wait_longest']:,.1f} | {day['peak_item_writes_per_s']:,.0f} |"
        for day in days
    ]


def chart(results: Sequence[Outcome]) -> str:
    """Returns an SVG: a group of bars per workload, one per tool, each group in its own scale."""
    shapes: list[str] = []
    top = 30
    for workload in dict.fromkeys(one.workload for one in results):
        group = [one for one in results if one.workload == workload]
        most = max(one.rate for one in group)
        shapes.append(f'<text x="8" y="{top}" class="title">{escape(workload)}</text>')
        top += 8
        for one in group:
            width = max(1.0, WIDTH * one.rate / most)
            colour = OURS if one.tool.startswith("engine") else THEIRS
            unit = "files/s" if one.small else "MB/s"
            cpu = "" if one.small else f", {one.cpu_s_per_gib:.1f} CPU s/GiB"
            middle = top + BAR - 5
            shapes += [
                f'<text x="{LEFT - 8}" y="{middle}" text-anchor="end">{escape(one.tool)}</text>',
                f'<rect x="{LEFT}" y="{top}" width="{width:.1f}" height="{BAR - 4}" fill="{colour}"/>',
                f'<text x="{LEFT + width + 6:.1f}" y="{middle}">{one.rate:,.0f} {unit}{cpu}</text>',
            ]
            top += BAR
        top += GAP + 12
    whole = LEFT + WIDTH + RIGHT + 60
    style = "text{font:12px sans-serif;fill:#1f2933}.title{font-weight:bold;font-size:13px}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole}" height="{top}" viewBox="0 0 {whole} {top}">'
    return "\n".join([head, f"<style>{style}</style>", '<rect width="100%" height="100%" fill="#ffffff"/>', *shapes, "</svg>", ""])
