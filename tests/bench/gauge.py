"""What processes have used, as Linux tells it in /proc: processor time of whole trees, and the most memory that one of them held."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

TICKS: Final = os.sysconf("SC_CLK_TCK")
LOOK_EVERY: Final = 0.05
FORGET_PEAK: Final = "5"
"""Written to clear_refs, it begins the peak of resident memory anew (proc(5))."""


def tree(pid: int) -> Iterator[int]:
    """Yields a process and all below it."""
    yield pid
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from tree(int(child))


def cpu_seconds(pids: Iterable[int]) -> float:
    """Returns the processor time of processes, of those below them, and of those that they have waited for."""
    total = 0
    for pid in {one for root in pids for one in tree(root)}:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(field) for field in fields[11:15])
    return total / TICKS


def forget_peak(pids: Iterable[int]) -> None:
    """Begins the peaks of processes anew."""
    for pid in pids:
        with suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text(FORGET_PEAK)


def peak_bytes(pids: Iterable[int]) -> int:
    """Returns the most memory that one of the processes has had resident (VmHWM)."""
    peak = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM"):
                    peak = max(peak, int(line.split()[1]) * 1024)
    return peak


class Watch:
    """Looks at a process tree until its block ends: what it used is gone from /proc with it.

    The processor time is exact where the process has ended in the block and was waited for: it is then the machine's own account
    of the children of this process.
    """

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self.cpu = 0.0
        self._before = _waited_for()
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.cpu = _waited_for() - self._before

    def _look(self) -> None:
        while not self._over.wait(LOOK_EVERY):
            self.peak = max(self.peak, peak_bytes(tree(self._pid)))


def _waited_for() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
