"""Recording: parts that are durable are written down, several in one write where they come fast."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from eft.domain.parts import PartDone
from eft.ports import Bytes, Engine

TOGETHER: Final = 0.5
"""Seconds for which a part that is durable may wait for the next one: what a crash costs beside the parts in hand."""


@dataclass(slots=True)
class Recording:
    """The parts of one attempt that one worker brings, a context: at its end what waits is written, whether or not the copying failed."""

    engine: Engine
    transfer: str
    attempt: int
    _waiting: list[PartDone] = field(default_factory=list)
    _write_at: float = 0
    _ended: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None or issubclass(kind, Exception):
            self._write()

    def add(self, done: PartDone) -> None:
        """Takes a part that is durable."""
        if self._ended:
            return
        if not self._waiting:
            self._write_at = max(self._write_at, self.engine.clock.monotonic())
        self._waiting.append(done)
        self._write_due()

    def kept(self, chunks: Iterable[Bytes]) -> Iterator[Bytes]:
        """Passes chunks of the next part through, and sees that no part waits longer for it."""
        for chunk in chunks:
            self._write_due()
            yield chunk

    def forget(self) -> None:
        """Drops what waits and whatever follows: another worker brings those parts, too, and its notes are the true ones."""
        self._waiting = []
        self._ended = True

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            self.engine.ledger.record_parts(self.transfer, attempt=self.attempt, done=waiting)
        self._write_at = self.engine.clock.monotonic() + TOGETHER

    def _write_due(self) -> None:
        if self._waiting and self.engine.clock.monotonic() >= self._write_at:
            self._write()
