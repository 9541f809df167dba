"""Sweep: re-queue what stands still. It never does the work itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eft.domain.transfer import Step
from eft.errors import NotFound
from eft.journey.messages import FIRE_AGAIN, Message, next_message
from eft.ports import Due, Engine


def sweep(engine: Engine, partitions: Sequence[int] | None = None) -> Iterator[Message]:
    """Yields a message for everything past its due time in the given partitions, or all of this region's; each goes to one sweep only."""
    now = engine.clock.now()
    for partition in engine.ownership.owned() if partitions is None else partitions:
        for due in engine.ledger.due(partition, before=now):
            stall = engine.tuning.stall
            if engine.ledger.postpone(due, until=now + (stall if due.kind == "transfer" else FIRE_AGAIN * stall)):
                yield from _again(engine, due)


def _again(engine: Engine, due: Due) -> list[Message]:
    if due.kind == "fire":
        return [Message(step=Step.DISCOVER, ids=(due.id,))]
    try:
        return next_message(engine.ledger.load(due.id))
    except NotFound:
        return []
