"""Firing flows by their schedules. Any number of processes may do it: each fire is claimed once, in the ledger."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from eft.domain.flow import Flow
from eft.domain.names import partition_of
from eft.domain.schedule import latest_fire
from eft.domain.transfer import Step
from eft.errors import EftError, LostOwnership
from eft.journey.messages import Message
from eft.ports import Engine

log = logging.getLogger(__name__)


def due_fires(engine: Engine, partitions: Sequence[int]) -> Iterator[Message]:
    """Claims every fire that is due now in these partitions and yields the message that starts its discover.

    A crash between the claim and the message delays the fire until a sweep finds it past the stall time. One flow's trouble leaves the
    others alone.
    """
    mine = frozenset(partitions)
    for flow in engine.registry.scheduled_flows():
        partition = partition_of(flow.tenant, flow.destination)
        if partition not in mine:
            continue
        try:
            yield from _fire(engine, flow, partition)
        except LostOwnership:
            continue
        except EftError as error:
            log.warning("flow not fired", extra={"tenant": flow.tenant, "flow": flow.id, "reason": error.reason, "error": str(error)})


def _fire(engine: Engine, flow: Flow, partition: int) -> list[Message]:
    now = engine.clock.now()
    planned = latest_fire(flow, after=engine.ledger.last_fire(flow), now=now)
    if planned is None:
        return []
    engine.ownership.standing(partition, begin=True)
    name = planned.strftime("%Y-%m-%dT%H:%M:%SZ")
    if not engine.ledger.fire(flow, at=now + engine.tuning.stall, name=name, partition=partition):
        return []
    log.info("fired", extra={"tenant": flow.tenant, "flow": flow.id, "fire": name})
    return [Message(step=Step.DISCOVER, ids=(f"{flow.tenant}/{flow.id}/{name}",))]
