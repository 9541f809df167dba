"""What a channel received and nobody has taken yet, without a byte being moved."""

from __future__ import annotations

import threading
from collections import deque

from paramiko.buffered_pipe import PipeTimeout

from eft.ports import Bytes


class Piece:
    """Payload that lies in an arena from `start` to `end`. `view` is the whole arena; while a piece lives, the arena is not used again."""

    __slots__ = ("end", "start", "view")

    def __init__(self, view: memoryview, start: int, end: int) -> None:
        self.view = view
        self.start = start
        self.end = end


SMALL = 1 << 14
"""Bytes of a piece that is not cut: less than a packet of a long reply, whose bytes are to be taken together."""


class Inflow:
    """What a channel received and nobody has taken yet; stands in for a channel's `in_buffer`. Unlike that it moves no bytes."""

    def __init__(self) -> None:
        self._pieces: deque[Piece] = deque()
        self._arrival = threading.Condition(threading.Lock())
        self._size = 0
        self._over = False
        self._awaited = 0
        """Bytes for which the reader waits; 0 while it does not."""

    def feed(self, data: Piece | Bytes) -> None:
        """Takes what follows."""
        piece = data if isinstance(data, Piece) else Piece(memoryview(data), 0, len(data))
        with self._arrival:
            if self._over or piece.start == piece.end:
                return
            last = self._pieces[-1] if self._pieces else None
            if last is not None and last.view is piece.view and last.end == piece.start:
                last.end = piece.end
            else:
                self._pieces.append(piece)
            self._size += piece.end - piece.start
            if 0 < self._awaited <= self._size:
                self._arrival.notify()

    def read(self, nbytes: int, timeout: float | None = None) -> memoryview:
        """Waits for `nbytes`, or the end, and returns as many of them as lie together; none at the end. A small piece comes whole: what
        is asked for next most often lies in it, too.

        Raises:
            PipeTimeout: they did not come in `timeout` seconds.
        """
        with self._arrival:
            if self._size < nbytes and not self._over:
                self._awaited = nbytes
                came = self._arrival.wait_for(lambda: self._size >= nbytes or self._over, timeout)
                self._awaited = 0
                if not came:
                    raise PipeTimeout
            if not self._pieces:
                return memoryview(b"")
            piece = self._pieces[0]
            begin, end = piece.start, piece.end
            if end - begin > max(nbytes, SMALL):
                end = begin + nbytes
            if end == piece.end:
                self._pieces.popleft()
            else:
                piece.start = end
            self._size -= end - begin
            return piece.view[begin:end]

    def rest(self) -> None:
        """Holds what is there by itself: where nobody reads for a while, a few bytes would keep a whole arena from being used again."""
        with self._arrival:
            for piece in self._pieces:
                # Not by its length: a piece may fill an arena.
                if not isinstance(piece.view.obj, bytes):
                    own = memoryview(bytes(piece.view[piece.start : piece.end]))
                    piece.view, piece.start, piece.end = own, 0, len(own)

    def drop(self) -> None:
        """Holds nothing any more: the channel is over, and nobody reads."""
        with self._arrival:
            self._pieces.clear()
            self._size = 0
            self._over = True

    def read_ready(self) -> bool:
        """Returns whether anything is there."""
        return self._size > 0

    def close(self) -> None:
        """Nothing follows any more."""
        with self._arrival:
            self._over = True
            self._arrival.notify_all()

    def __len__(self) -> int:
        return self._size
