"""Memory for bytes on their way, which is used again as soon as nobody looks into it.

A fresh buffer costs more than what is done with its bytes: the system clears each of its pages when it is first touched, and takes
all of them back when it is dropped.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Final

SIZE: Final = 1 << 20
"""Bytes of a buffer."""
KEPT: Final = 80
"""Buffers that wait to be used again: as many as four lanes of a large file hold at a time."""

SPARE: Final = 16
"""Buffers that are kept though nobody has used them for a while."""


class Buffers:
    """Buffers of one size. Thread-safe."""

    def __init__(self, *, size: int = SIZE, kept: int = KEPT) -> None:
        self.size = size
        self._kept = kept
        self._given: deque[bytearray] = deque()
        self._lock = threading.Lock()

    def take(self) -> bytearray:
        """Returns a buffer into which nobody looks; what it holds is of no meaning."""
        with self._lock:
            for _ in range(len(self._given)):
                buffer = self._given.popleft()
                if _unused(buffer):
                    return buffer
                self._given.append(buffer)
        return bytearray(self.size)

    def give(self, buffer: bytearray) -> None:
        """Takes a buffer back. As long as views into it live on it is not used again; who still wants its bytes has one by now."""
        with self._lock:
            self._given.append(buffer)
            if len(self._given) > self._kept:
                self._given.popleft()

    def after_fork(self) -> None:
        """Begins anew in a forked child: who held the lock is not there."""
        self._given, self._lock = deque(), threading.Lock()

    def trim(self) -> None:
        """Lets go of buffers that nobody uses, but for a few: whoever holds bytes in another way is to find room for them."""
        with self._lock:
            unused = [buffer for buffer in self._given if _unused(buffer)]
            gone = {id(buffer) for buffer in unused[SPARE:]}
            self._given = deque(buffer for buffer in self._given if id(buffer) not in gone)


def _unused(buffer: bytearray) -> bool:
    """Returns whether no view looks into a buffer: only then can a bytearray change its size."""
    try:
        buffer.append(buffer.pop())
    except BufferError:
        return False
    return True


BUFFERS: Final = Buffers()
"""The process's own."""
os.register_at_fork(after_in_child=BUFFERS.after_fork)
