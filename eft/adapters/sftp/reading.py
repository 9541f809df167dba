"""One open file that is read in order, with requests under way ahead of what was taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from eft.adapters.sftp.wire import Code, Kind, Refused, Reply
from eft.domain.parts import WHOLE_UP_TO

if TYPE_CHECKING:
    from eft.adapters.sftp.session import Session

REFILL = 4
"""Requests that are sent together."""


class Shorter(Exception):
    """A file ended before the range asked for."""


class Reading:
    """A place in an open file. Whoever is done with it leaves it, or keeps it for the range that follows (`Session.keep`)."""

    def __init__(self, session: Session, handle: bytes, *, start: int) -> None:
        self._session = session
        self.handle = handle
        self.at = start
        """The byte that comes next."""
        self._next = start
        """The byte that is asked for next."""
        self._asked: deque[tuple[int, int, int]] = deque()
        """Requests under way, in the file's order: id, offset, length."""
        self._left: deque[memoryview] = deque()
        """Bytes at hand from `at` on: what came beyond the end of a range, and what the last reply held beside its first piece."""

    @property
    def ahead(self) -> bool:
        """Whether more was asked for than was taken."""
        return self.at < self._next

    def chunks(self, end: int, *, ahead_to: int) -> Iterator[memoryview]:
        """Yields the bytes up to `end`, in order, while those up to `ahead_to` are asked for.

        Raises:
            Shorter: the file ends before.
            Refused: the server refuses to read.
        """
        large = end - self.at > WHOLE_UP_TO
        while self.at < end:
            if not self._left:
                self._left.extend(self._arrived(ahead_to))
            held = self._left.popleft()
            fits = min(len(held), end - self.at)
            if fits < len(held):
                self._left.appendleft(held[fits:])
            self.at += fits
            if large:
                self._session.streamed["read"] += fits
            yield held[:fits]

    def forget(self) -> None:
        """Gives up what is under way."""
        for ident, _, _ in self._asked:
            self._session.wire.forget(ident)
        self._asked.clear()
        self._left.clear()
        self._next = self.at

    def leave(self) -> None:
        """Gives up what is under way, and closes the file."""
        self.forget()
        self._session.drop(self.handle)

    def _arrived(self, ahead_to: int) -> list[memoryview]:
        session = self._session
        if len(self._asked) <= max(0, session.reads_ahead - REFILL):
            while self._next < ahead_to and len(self._asked) < session.reads_ahead:
                length = min(session.read_size, ahead_to - self._next)
                self._asked.append(self._ask(self._next, length))
                self._next += length
        ident, offset, length = self._asked.popleft()
        held = data_of(session, session.wire.take(ident), length)
        came = sum(len(piece) for piece in held)
        if came < length:
            self._asked.appendleft(self._ask(offset + came, length - came))
            session.reads_at_most(came)
        return held

    def _ask(self, offset: int, length: int) -> tuple[int, int, int]:
        return self._session.ask_read(self.handle, offset, length), offset, length


def data_of(session: Session, reply: Reply, length: int) -> list[memoryview]:
    """Returns what a READ of so many bytes is answered with, as many or fewer, in the pieces that they lie in.

    Raises:
        Shorter: the file ends before.
        Refused: the server refuses to read.
    """
    try:
        held = reply.expect(Kind.DATA).pieces()
    except Refused as refused:
        if refused.code == Code.EOF:
            raise Shorter from None
        raise
    came = sum(len(piece) for piece in held)
    if not 0 < came <= length:
        raise session.wire.broke(f"{came} bytes instead of {length}", reason="protocol_error")
    return held
