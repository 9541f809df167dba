"""Late: files that a flow expects by a time and that have not come are warned of before it and raised after it, once each."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Literal

from eft.domain import announcement
from eft.domain.announcement import Announcement
from eft.domain.flow import Expected, Flow
from eft.domain.names import partition_of
from eft.domain.schedule import LOOK_BACK, latest_deadlines
from eft.errors import EftError
from eft.ports import Engine

log = logging.getLogger(__name__)

SETTLE = timedelta(seconds=15)
"""So long after a time it is judged who had come by then: the ledger's index lags by moments."""
PAGE = 100
AT_MOST = 100
"""Deadlines of each level that a look judges, the latest: a warning of a week before files of each minute spans ten thousand."""
Level = Literal["warning", "late"]
Judged = set[tuple[str, str, int, Level, datetime]]
"""What this process has judged: tenant, flow, revision, level, deadline. It spares requests, nothing else."""
_NEVER_CAME = frozenset({"name_invalid", "is_symlink"})


def late(engine: Engine, partitions: Sequence[int], *, judged: Judged) -> list[Announcement]:
    """Records what is late in these partitions, puts it in the outbox where there is one, and returns it.

    It is judged by fixed times, so that every process judges alike; a crash between the outbox and the record tells it again, under the
    same id. One flow's trouble leaves the others alone.
    """
    now, mine = engine.clock.now(), frozenset(partitions)
    judged -= {one for one in judged if one[-1] < now - 2 * LOOK_BACK}
    raised: list[Announcement] = []
    for flow in engine.registry.scheduled_flows():
        if flow.expected is None or partition_of(flow.tenant, flow.destination) not in mine:
            continue
        try:
            for level, deadline in _due(flow, flow.expected, now):
                key = (flow.tenant, flow.id, flow.revision, level, deadline)
                if key not in judged:
                    raised += _judge(engine, flow, flow.expected, level, deadline)
                    judged.add(key)
        except EftError as error:
            log.warning("lateness not judged", extra={"tenant": flow.tenant, "flow": flow.id, "reason": error.reason})
    return raised


def _due(flow: Flow, expected: Expected, now: datetime) -> Iterator[tuple[Level, datetime]]:
    """Yields what is to be judged now."""
    begin = max(flow.scheduled_since or flow.created, now - LOOK_BACK)
    for deadline in latest_deadlines(expected, after=begin, until=now - SETTLE, at_most=AT_MOST):
        yield "late", deadline
    if expected.warn_before is not None:
        ahead = now + expected.warn_before - SETTLE
        for deadline in latest_deadlines(expected, after=now, until=ahead, at_most=AT_MOST):
            yield "warning", deadline


def _judge(engine: Engine, flow: Flow, expected: Expected, level: Level, deadline: datetime) -> list[Announcement]:
    now = engine.clock.now()
    found = _came(engine, flow, begin=deadline - expected.within, end=min(deadline, now), enough=expected.files)
    name = f"{'warn' if level == 'warning' else 'late'}-{deadline:%Y%m%dT%H%M%S}"
    if found >= expected.files or engine.ledger.begin_fire(flow, name=name, until=now) is None:
        return []
    told = announcement.late(tenant=flow.tenant, flow=flow.id, name=flow.name, level=level, expected_by=deadline, now=now)
    if engine.announcing is not None:
        engine.announcing.outbox.add(told)
    outcome = {"expected": expected.files, "found": found}
    if not engine.ledger.fire(flow, at=now, name=name, partition=partition_of(flow.tenant, flow.destination), outcome=outcome):
        return []
    log.warning("files are late", extra={"tenant": flow.tenant, "flow": flow.id, "level": level, "files": outcome})
    return [told]


def _came(engine: Engine, flow: Flow, *, begin: datetime, end: datetime, enough: int) -> int:
    """Returns how many files the flow found in (`begin`, `end`], or `enough`."""
    found, cursor = 0, None
    while True:
        page = engine.ledger.page(flow.tenant, flow=flow.id, limit=PAGE, cursor=cursor)
        for transfer in page.items:
            if transfer.created <= begin:
                return found
            found += transfer.created <= end and transfer.reason not in _NEVER_CAME
            if found == enough:
                return found
        if page.cursor is None:
            return found
        cursor = page.cursor
