"""How far each flow has come: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from deploy.local.customer import JsonObject
from deploy.local.samples import MIB

ARRIVED: Final = frozenset({"delivered", "settled"})
STOPPED: Final = frozenset({"held", "dead", "cancelled"})
LINE_EVERY: Final = 5.0


class Board:
    """One row per flow, each given as title, files and bytes."""

    def __init__(self, out: Console, rows: Sequence[tuple[str, int, int]]) -> None:
        self._out = out
        self._rows = rows
        self._line_at = 0.0
        self._seen = [""] * len(rows)
        self._progress = Progress(
            TextColumn("{task.description:22}"),
            BarColumn(),
            TextColumn("{task.fields[shown]}"),
            TimeElapsedColumn(),
            console=out,
            disable=not out.is_terminal,
        )
        self._bars: list[TaskID] = [
            # A file is worth something beside its bytes, or the large one would be all that moves the bar.
            self._progress.add_task(title, total=size + files * MIB, shown="")
            for title, files, size in rows
        ]

    def show(self, number: int, transfers: Sequence[JsonObject]) -> None:
        """Shows a flow's transfers as they are now."""
        _, files, size = self._rows[number]
        arrived = [one for one in transfers if one["state"] in ARRIVED]
        stopped = sum(one["state"] in STOPPED for one in transfers)
        there = sum(one["size"] or 0 for one in arrived) + sum(
            one["progress"]["bytes_done"] for one in transfers if one["state"] not in ARRIVED and "progress" in one
        )
        shown = f"{len(arrived):3} of {files} files, {there / MIB:6.1f} of {size / MIB:.1f} MiB" + (
            f", {stopped} stopped" if stopped else ""
        )
        self._progress.update(self._bars[number], completed=there + len(arrived) * MIB, shown=shown)
        self._seen[number] = shown
        if not self._out.is_terminal and number == len(self._rows) - 1 and time.monotonic() >= self._line_at:
            self._line_at = time.monotonic() + LINE_EVERY
            self._lines()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()
        if not self._out.is_terminal:
            self._lines()

    def _lines(self) -> None:
        for (title, _, _), shown in zip(self._rows, self._seen, strict=True):
            self._out.print(f"{title:22} {shown}", highlight=False)
