"""What the kernel says of a directory: every name that appears in it, counted, however short it stands there (inotify(7))."""

from __future__ import annotations

import ctypes
import os
import select
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

CREATED: Final = 0x100
MOVED_HERE: Final = 0x80
OVERFLOWN: Final = 0x4000
NONBLOCKING: Final = os.O_NONBLOCK | os.O_CLOEXEC
_HEAD: Final = struct.Struct("iIII")
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Appearances:
    """Names that have appeared in directories since this was made, by creation, by link or by rename, in order."""

    def __init__(self, *directories: Path) -> None:
        self._descriptor = _LIBC.inotify_init1(NONBLOCKING)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._directories: dict[int, Path] = {}
        for directory in directories:
            self.add(directory)

    def add(self, directory: Path) -> None:
        """Watches one more."""
        watch = _LIBC.inotify_add_watch(self._descriptor, os.fsencode(directory), CREATED | MOVED_HERE)
        if watch < 0:
            raise OSError(ctypes.get_errno(), f"inotify_add_watch {directory}")
        self._directories[watch] = directory

    def fileno(self) -> int:
        """What to wait on."""
        return int(self._descriptor)

    def new(self, *, wait: float = 0) -> list[Path]:
        """Returns what has appeared since the last call, temporary names left out, waiting for the first so many seconds."""
        ready, _, _ = select.select([self._descriptor], [], [], wait)
        found: list[Path] = []
        while ready:
            try:
                held = os.read(self._descriptor, 1 << 16)
            except BlockingIOError:
                break
            found += self._read(held)
        return found

    def close(self) -> None:
        """Ends the watch."""
        os.close(self._descriptor)

    def _read(self, held: bytes) -> list[Path]:
        found, at = [], 0
        while at < len(held):
            watch, mask, _, size = _HEAD.unpack_from(held, at)
            at += _HEAD.size
            name = os.fsdecode(held[at : at + size].rstrip(b"\0"))
            at += size
            if mask & OVERFLOWN:
                raise OSError("the kernel dropped events: what appeared is not known")
            if not name.startswith("."):
                found.append(self._directories[watch] / name)
        return found


def take_all(out: Path, taken: Path, *, told: Callable[[Path], object] = lambda _: None, until: Callable[[], bool] = lambda: False) -> None:
    """A receiver that takes every file the moment it appears; each time under a new name, so that nothing is hidden."""
    appearances = Appearances(out)
    waiting = [one for one in out.iterdir() if not one.name.startswith(".")]
    while not until():
        for path in waiting:
            number = 0
            while (target := taken / f"{path.name}.{number}").exists():
                number += 1
            try:
                path.rename(target)
            except FileNotFoundError:
                continue
            told(target)
        waiting = appearances.new(wait=0.2)
    appearances.close()
