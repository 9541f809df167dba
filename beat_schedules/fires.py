"""Firing flows by their schedules. Any number of processes may do it: each fire is claimed once, in the ledger."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime

from eft.domain.flow import Flow
from eft.domain.instants import fire_name
from eft.domain.names import partition_of
from eft.domain.schedule import due_times, quiet_until
from eft.domain.transfer import Step
from eft.errors import EftError, LostOwnership
from eft.journey.messages import Message
from eft.ports import Engine

log = logging.getLogger(__name__)

Quiet = dict[tuple[str, str], tuple[int, datetime]]
"""By flow: the revision that was looked at, and until when nothing of it becomes due. It spares requests, nothing else."""


def due_fires(engine: Engine, partitions: Sequence[int], *, quiet: Quiet | None = None) -> Iterator[Message]:
    """Claims every fire that is due now in these partitions and yields the message that starts its discover.

    A crash between the claim and the message delays the fire until a sweep finds it past the stall time. One flow's trouble leaves the
    others alone. With `quiet`, which is kept from look to look, a flow costs a request only when it has something to fire.
    """
    mine = frozenset(partitions)
    flows = list(engine.registry.scheduled_flows())
    quiet = {} if quiet is None else quiet
    for gone in quiet.keys() - {(flow.tenant, flow.id) for flow in flows}:
        del quiet[gone]
    for flow in flows:
        partition = partition_of(flow.tenant, flow.destination)
        now = engine.clock.now()
        revision, until = quiet.get((flow.tenant, flow.id), (0, now))
        if partition not in mine or (revision == flow.revision and now < until):
            continue
        try:
            yield from _fire(engine, flow, partition, now=now)
            following = quiet_until(flow, now=now)
        except LostOwnership:
            continue
        except EftError as error:
            log.warning("flow not fired", extra={"tenant": flow.tenant, "flow": flow.id, "reason": error.reason, "error": str(error)})
            continue
        if following is not None:
            quiet[flow.tenant, flow.id] = (flow.revision, following)


def _fire(engine: Engine, flow: Flow, partition: int, *, now: datetime) -> Iterator[Message]:
    for planned in due_times(flow, after=engine.ledger.last_fire(flow), now=now):
        engine.ownership.standing(partition, begin=True)
        name = fire_name(planned)
        if engine.ledger.fire(flow, at=now + engine.tuning.stall, name=name, partition=partition):
            log.info("fired", extra={"tenant": flow.tenant, "flow": flow.id, "fire": name})
            yield Message(step=Step.DISCOVER, ids=(f"{flow.tenant}/{flow.id}/{name}",))
