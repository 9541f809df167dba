"""When a flow's schedule fires: what is due now, and what is to come. All times are UTC; which exist is the trigger's zone's affair."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim

from eft.domain.flow import Flow
from eft.domain.names import shard_of
from eft.domain.trigger import Arrival, Cron, Expected, Interval, Misfire, Once, Schedule, Trigger

LOOK_BACK = timedelta(days=1)
"""A schedule that has not been looked at for longer starts again from here: what was missed before is not made up for."""
GRACE = timedelta(minutes=1)
"""A fire that is made within this time of its plan was not missed."""
ALL_AT_MOST = 100
"""Missed fires that `all` makes up for."""
HORIZON = timedelta(days=5 * 366)
"""Nothing is planned further ahead; a schedule that has no fire before then never fires."""
LEAPS = 10_000
"""Closed days and blackouts that are passed over in search of a time that is open."""
INSTANT = timedelta(microseconds=1)


def due_times(flow: Flow, *, after: datetime | None, now: datetime) -> list[datetime]:
    """Returns the planned times that are to be fired now, oldest first; `after` is the planned time of the last fire, if there was one.

    Of those that pass between two looks all fire with `misfire` all, else the last.
    """
    trigger = flow.trigger
    since = flow.scheduled_since or flow.created
    if isinstance(trigger, Once):
        # After its instant nothing else comes, so it is made up for however late it is.
        begin, until = max(after or since, since), now
    else:
        begin = max(after or since, since, now - LOOK_BACK)
        until = now - offset(flow)
    if not isinstance(trigger, Schedule):
        return list(_planned(trigger, begin, until))[-1:]
    if trigger.blackout_end(now) is not None:
        return []
    if trigger.misfire is Misfire.SKIP:
        begin = max(begin, until - GRACE)
    times = [at for at in _planned(trigger, begin, until) if trigger.open_on(at)]
    if trigger.misfire is Misfire.SKIP:
        times = [at for at in times if trigger.blackout_end(at + offset(flow)) is None]
    return times[-ALL_AT_MOST:] if trigger.misfire is Misfire.ALL else times[-1:]


def coming_fires(flow: Flow, *, now: datetime) -> Iterator[datetime]:
    """Yields the times, jitter and all, at which the flow will fire if it stays enabled.

    At the end of a blackout what fell into it is made up for, once, unless `misfire` says otherwise.
    """
    trigger, shift = flow.trigger, offset(flow)
    begin, end = max(now - shift, flow.scheduled_since or flow.created), now + HORIZON
    made_up = None
    for _ in range(LEAPS):
        leap = None
        for at in _planned(trigger, begin, end):
            leap = _leap(trigger, at, at + shift)
            if leap is not None:
                if leap <= end and _made_up(trigger, at, leap, shift):
                    made_up = leap
                    yield leap
                # Over a closed day or a blackout at once: there may be a fire every second.
                begin = max(min(leap, end) - INSTANT - shift, at)
                break
            if at + shift != made_up:
                yield at + shift
        if leap is None:
            return


def quiet_until(flow: Flow, *, now: datetime) -> datetime | None:
    """Returns a time before which nothing becomes due, if what is due now has been fired; None if there is no such time to tell."""
    trigger, shift = flow.trigger, offset(flow)
    if isinstance(trigger, Schedule) and trigger.blackout_end(now) is not None:
        return None
    planned = next(_planned(trigger, now - shift, now + HORIZON), now + HORIZON)
    if isinstance(trigger, Schedule) and not trigger.open_on(planned):
        # Nothing of a closed day fires: there may be a planned time every second of it.
        planned = trigger.day_after(planned)
    return planned + shift


def deadlines(expected: Expected, *, after: datetime, until: datetime) -> Iterator[datetime]:
    """Yields the times in (`after`, `until`] by which files must have come."""
    return (at for at in _cron(expected.by, expected.timezone, after, until) if expected.open_on(at))


def latest_deadlines(expected: Expected, *, after: datetime, until: datetime, at_most: int) -> list[datetime]:
    """Returns which of the last `at_most` times in (`after`, `until`] are on days that the calendar has, oldest first."""
    begin = until.astimezone(ZoneInfo(expected.timezone)) + timedelta(seconds=1)
    times = (at.astimezone(UTC) for at in CronSim(expected.by, begin, reverse=True))
    found = islice(takewhile(lambda at: at > after, (at for at in times if at <= until)), at_most)
    return [at for at in found if expected.open_on(at)][::-1]


def offset(flow: Flow) -> timedelta:
    """Returns how much later than planned a flow's fires come: its own share of the jitter, always the same."""
    trigger = flow.trigger
    if not isinstance(trigger, Schedule) or not trigger.jitter or isinstance(trigger, Once):
        return timedelta(0)
    return trigger.jitter * shard_of(flow.tenant, flow.id, shards=10_000) / 10_000


def _leap(trigger: Trigger, planned: datetime, fired: datetime) -> datetime | None:
    """Returns when to look on, where nothing fires at a planned time; None if it does."""
    if not isinstance(trigger, Schedule):
        return None
    if not trigger.open_on(planned):
        return trigger.day_after(planned)
    leap = trigger.blackout_end(fired)
    # One blackout may begin before the other ends.
    while leap is not None and leap - fired <= HORIZON and (end := trigger.blackout_end(leap)) is not None:
        leap = end
    return leap


def _made_up(trigger: Trigger, at: datetime, leap: datetime, shift: timedelta) -> bool:
    """Returns whether what was planned at a time and after it fires at the end of the blackout that it falls into."""
    if not isinstance(trigger, Schedule) or trigger.misfire is Misfire.SKIP or not trigger.open_on(at):
        return False
    since = at - INSTANT if isinstance(trigger, Once) else max(at - INSTANT, leap - LOOK_BACK)
    return any(trigger.open_on(one) for one in _planned(trigger, since, leap - shift))


def _planned(trigger: Trigger, after: datetime, until: datetime) -> Iterator[datetime]:
    """Yields the planned times in (`after`, `until`]."""
    match trigger:
        case Once():
            if after < trigger.at <= until:
                yield trigger.at.astimezone(UTC)
        case Cron():
            yield from _cron(trigger.cron, trigger.timezone, after, until)
        case Interval():
            yield from _every(trigger.every, after, until)
        case Arrival():
            yield from _every(trigger.listed_every, after, until)
        case _:
            return


def _every(every: timedelta, after: datetime, until: datetime) -> Iterator[datetime]:
    # Counted from the epoch, so that every process plans alike.
    seconds = every.total_seconds()
    at = datetime.fromtimestamp((after.timestamp() // seconds + 1) * seconds, UTC)
    while at <= until:
        yield at
        at += every


def _cron(text: str, zone: str, after: datetime, until: datetime) -> Iterator[datetime]:
    # CronSim gives times after the one it gets, which it cuts to the second. They are compared in UTC: two times of one zone
    # compare by their clocks, of which there are two of each in autumn.
    times = (at.astimezone(UTC) for at in CronSim(text, after.astimezone(ZoneInfo(zone))))
    return (at for at in takewhile(lambda at: at <= until, times) if at > after)
