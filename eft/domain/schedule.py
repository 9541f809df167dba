"""When a flow's schedule fires."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim

from eft.domain.flow import Arrival, Cron, Flow, Interval

LOOK_BACK = timedelta(days=1)
"""A schedule that has not been looked at for longer starts again from here: what was missed before is not made up for."""


def latest_fire(flow: Flow, *, after: datetime | None, now: datetime) -> datetime | None:
    """Returns the latest planned time in (`after`, `now`], or None if there is none; of several missed ones only the last fires.

    Without `after` the time begins with the flow's creation. Intervals are counted from the epoch, so that every process plans alike.
    """
    begin = max(after or flow.created, now - LOOK_BACK)
    trigger = flow.trigger
    if isinstance(trigger, Interval | Arrival):
        every = (trigger.every if isinstance(trigger, Interval) else trigger.listed_every).total_seconds()
        planned = datetime.fromtimestamp(now.timestamp() // every * every, UTC)
        return planned if planned > begin else None
    if isinstance(trigger, Cron):
        local = begin.astimezone(ZoneInfo(trigger.timezone))
        fires = takewhile(lambda at: at <= now, CronSim(trigger.cron, local))
        return max((at.astimezone(UTC) for at in fires if at > begin), default=None)
    return None
