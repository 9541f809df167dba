"""When schedules fire: zones, changes of clocks, calendars, blackouts, missed fires, jitter."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from eft.domain.flow import Arrival, Cron, Flow, Interval, Manual, Misfire, Once
from eft.domain.instants import spoken
from eft.domain.schedule import ALL_AT_MOST, coming_fires, deadlines, due_times, latest_deadlines, offset, quiet_until
from eft.domain.trigger import Calendar, Expected
from eft.domain.windows import WEEK, Daily, Span

NOW = datetime(2025, 4, 1, 12, 0, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
LONG_AGO = NOW - 400 * DAY


def flow(trigger: Any, **fields: Any) -> Flow:  # noqa: ANN401 - a trigger
    """Returns a flow with a trigger."""
    whole = {"id": "f", "tenant": "t", "name": "n", "source": "a", "destination": "b", "created": LONG_AGO, "trigger": trigger, **fields}
    return Flow.model_validate(whole)


def coming(trigger: Any, count: int, *, now: datetime = NOW) -> list[str]:  # noqa: ANN401 - a trigger
    """Returns the next fires, in UTC, to the minute."""
    return [at.strftime("%m-%d %H:%M") for at in islice(coming_fires(flow(trigger), now=now), count)]


def test_intervals_fire_by_the_epoch() -> None:
    """Every process plans the same times; only the last of several missed ones fires."""
    every = flow(Interval(every=10 * MINUTE))
    assert due_times(every, after=None, now=NOW + 7 * MINUTE) == [NOW]
    assert due_times(every, after=NOW, now=NOW + 7 * MINUTE) == []
    assert due_times(every, after=NOW, now=NOW + 35 * MINUTE) == [NOW + 30 * MINUTE]


def test_cron_fires_in_its_zone_through_the_change_of_clocks() -> None:
    """Three o'clock in Berlin is an hour earlier in UTC from the day of the change on."""
    nightly = Cron(cron="0 3 * * *", timezone="Europe/Berlin")
    before = datetime(2025, 3, 29, 12, tzinfo=UTC)
    assert due_times(flow(nightly), after=None, now=before) == [datetime(2025, 3, 29, 2, tzinfo=UTC)]
    assert coming(nightly, 2, now=before - DAY) == ["03-29 02:00", "03-30 01:00"]


@pytest.mark.parametrize(
    ("cron", "zone", "day", "fires"),
    [
        # The hour that spring leaves out: right after the change. The hour that autumn repeats: once.
        ("30 2 * * *", "Europe/Berlin", date(2025, 3, 30), ["01:00"]),
        ("30 2 * * *", "Europe/Berlin", date(2025, 10, 26), ["00:30"]),
        ("30 1 * * *", "America/New_York", date(2025, 11, 2), ["05:30"]),
        ("30 2 * * *", "America/New_York", date(2025, 3, 9), ["07:00"]),
        # By the clock's hands, each hour of the day, of which there are 25 and 23.
        ("15 * * * *", "Europe/Berlin", date(2025, 10, 26), [f"{n:02}:15" for n in (22, 23, *range(23))]),
        ("15 * * * *", "Europe/Berlin", date(2025, 3, 30), [f"{n:02}:15" for n in (23, *range(22))]),
        ("0 12 * * *", "Australia/Lord_Howe", date(2025, 4, 6), ["01:30"]),
    ],
)
def test_a_change_of_clocks_neither_loses_nor_repeats_a_fire(cron: str, zone: str, day: date, fires: list[str]) -> None:
    """Looked at every half minute of the local day, each fire is due once, at its time."""
    trigger = flow(Cron(cron=cron, timezone=zone))
    begin = datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC)
    end = datetime.combine(day + DAY, time(), ZoneInfo(zone)).astimezone(UTC)
    now, after, seen = begin, begin - timedelta(seconds=1), []
    while now < end:
        for planned in due_times(trigger, after=after, now=now):
            seen.append(planned)
            after = planned
        now += MINUTE / 2
    assert [at.strftime("%H:%M") for at in seen] == fires
    assert seen == list(islice(coming_fires(trigger, now=begin - timedelta(seconds=1)), len(fires)))


def test_a_schedule_begins_with_its_flow_or_when_it_was_resumed() -> None:
    """Neither what lies before its creation nor what a pause left out is made up for; a manual flow has no schedule."""
    nightly = Cron(cron="0 3 * * *")
    assert due_times(flow(nightly, created=NOW - MINUTE), after=None, now=NOW) == []
    assert due_times(flow(nightly, scheduled_since=NOW - MINUTE), after=NOW - 3 * DAY, now=NOW) == []
    assert due_times(flow(nightly), after=NOW - 3 * DAY, now=NOW) == [NOW - 9 * HOUR]
    assert due_times(flow(Manual()), after=None, now=NOW) == []
    assert coming(Manual(), 1) == []


def test_a_flow_that_waits_for_arrivals_is_listed_every_so_often() -> None:
    """Hourly unless it says otherwise."""
    waiting = flow(Arrival(listed_every=30 * MINUTE))
    (planned,) = due_times(waiting, after=NOW - 2 * HOUR, now=NOW)
    assert planned == NOW
    assert due_times(waiting, after=planned, now=NOW) == []
    assert Arrival().listed_every == HOUR


def test_once_is_once() -> None:
    """It fires at its instant, however late somebody looks, and never again."""
    once = flow(Once(at=NOW))
    assert due_times(once, after=None, now=NOW - MINUTE) == []
    assert due_times(once, after=None, now=NOW + 30 * DAY) == [NOW]
    assert due_times(once, after=NOW, now=NOW + 30 * DAY) == []
    assert due_times(flow(Once(at=NOW), created=NOW + MINUTE), after=None, now=NOW + HOUR) == []
    assert quiet_until(once, now=NOW) == NOW + 5 * 366 * DAY


@pytest.mark.parametrize(
    ("misfire", "now", "fires"),
    [
        (Misfire.SKIP, NOW + 35 * MINUTE, []),
        (Misfire.SKIP, NOW + MINUTE / 2, [NOW]),
        (Misfire.ONCE, NOW + 35 * MINUTE, [NOW + 30 * MINUTE]),
        (Misfire.ALL, NOW + 35 * MINUTE, [NOW, NOW + 10 * MINUTE, NOW + 20 * MINUTE, NOW + 30 * MINUTE]),
    ],
)
def test_missed_fires_follow_the_flows_policy(misfire: Misfire, now: datetime, fires: list[datetime]) -> None:
    """None, the last, or each in its order, of what nobody fired in time."""
    every = flow(Interval(every=10 * MINUTE, misfire=misfire))
    assert due_times(every, after=NOW - MINUTE, now=now) == fires


def test_all_is_bounded() -> None:
    """The latest hundred, of at most a day."""
    every = flow(Interval(every=MINUTE, misfire=Misfire.ALL))
    times = due_times(every, after=NOW - 5 * DAY, now=NOW)
    assert len(times) == ALL_AT_MOST
    assert times[-1] == NOW
    hourly = flow(Interval(every=HOUR, misfire=Misfire.ALL))
    assert len(due_times(hourly, after=NOW - 5 * DAY, now=NOW)) == 24


def test_jitter_shifts_a_flows_fires_by_its_own_share() -> None:
    """Each flow by the same each time, flows by different amounts, none by more than asked for."""
    shifts = set()
    for number in range(50):
        one = flow(Cron(cron="0 0 * * *", jitter=10 * MINUTE), id=f"f{number}")
        shift = offset(one)
        shifts.add(shift)
        midnight = NOW.replace(hour=0)
        assert next(coming_fires(one, now=midnight - HOUR)) == midnight + shift
        assert due_times(one, after=midnight - DAY, now=midnight + shift - timedelta(milliseconds=1)) == []
        assert due_times(one, after=midnight - DAY, now=midnight + shift) == [midnight]
        assert quiet_until(one, now=midnight - HOUR) == midnight + shift
    assert len(shifts) > 40
    assert max(shifts) < 10 * MINUTE


def test_a_calendar_leaves_out_weekends_and_holidays() -> None:
    """Easter 2025 in Bavaria: Good Friday and Easter Monday; days of one's own are added and opened."""
    calendar = Calendar(holidays="DE-BY", closed=(date(2025, 4, 23),), open=(date(2025, 4, 19),))
    daily = Cron(cron="0 6 * * *", timezone="Europe/Berlin", calendar=calendar)
    assert coming(daily, 4, now=datetime(2025, 4, 16, 12, tzinfo=UTC)) == ["04-17 04:00", "04-19 04:00", "04-22 04:00", "04-24 04:00"]
    friday = datetime(2025, 4, 18, 4, tzinfo=UTC)
    assert due_times(flow(daily), after=friday - DAY, now=friday + HOUR) == []


def test_a_closed_week_of_seconds_is_passed_over_at_once() -> None:
    """The next fire is found without looking at each second."""
    closed = tuple(date(2025, 4, 1) + n * DAY for n in range(200))
    every = Interval(every=timedelta(seconds=1), calendar=Calendar(weekdays=WEEK, closed=closed))
    assert coming(every, 1) == ["10-18 00:00"]


def test_nothing_fires_in_a_blackout_and_what_it_missed_follows_the_policy() -> None:
    """Two o'clock falls into the window from one to four: it is dropped, or made up for at its end."""
    window = Daily(begin=time(1), end=time(4))
    for misfire, made_up in ((Misfire.SKIP, []), (Misfire.ONCE, [NOW.replace(hour=2)])):
        nightly = flow(Cron(cron="0 2 * * *", blackouts=(window,), misfire=misfire))
        two = NOW.replace(hour=2)
        assert due_times(nightly, after=two - DAY, now=two + MINUTE) == []
        assert quiet_until(nightly, now=two) is None
        assert due_times(nightly, after=two - DAY, now=NOW.replace(hour=4)) == made_up
        coming_up = [at.replace(hour=4) for at in made_up]
        assert list(islice(coming_fires(nightly, now=NOW.replace(hour=1)), 1)) == coming_up


@pytest.mark.parametrize("windows", [[(1, 4)], [(1, 3), (2, 4)], [(2, 4), (1, 3)]])
def test_what_a_blackout_always_swallows_comes_at_its_end(windows: list[tuple[int, int]]) -> None:
    """Once, however much fell into it, and not beside a fire that is planned for that time; `due_times` makes it."""
    blackouts = tuple(Daily(begin=time(begin), end=time(end)) for begin, end in windows)
    for text in ("*/20 2 * * *", "0 2,4 * * *"):
        nightly = flow(Cron(cron=text, blackouts=blackouts, misfire=Misfire.ONCE))
        begun = NOW.replace(hour=1)
        coming_up = list(islice(coming_fires(nightly, now=begun), 3))
        assert [(at.day, at.hour) for at in coming_up] == [(1, 4), (2, 4), (3, 4)]
        assert len(due_times(nightly, after=begun, now=coming_up[0])) == 1
    halves = (Daily(begin=time(0), end=time(12)), Daily(begin=time(12), end=time(0)))
    never = flow(Cron(cron="0 2 * * *", blackouts=halves, misfire=Misfire.ONCE))
    assert list(coming_fires(never, now=NOW)) == []


@pytest.mark.parametrize(
    ("at", "end"),
    [("04-01 20:59", None), ("04-01 21:00", "04-02 03:00"), ("04-02 02:59", "04-02 03:00"), ("04-02 03:00", None), ("04-03 01:00", None)],
)
def test_a_blackout_may_go_over_midnight(at: str, end: str | None) -> None:
    """It belongs to the day on which it begins (a Tuesday here), in the schedule's zone."""
    schedule = Interval(every=HOUR, timezone="Europe/Berlin", blackouts=(Daily(begin=time(23), end=time(5), weekdays=(WEEK[1],)),))
    found = schedule.blackout_end(datetime.strptime(f"2025-{at}", "%Y-%m-%d %H:%M").replace(tzinfo=UTC))
    assert (None if found is None else found.strftime("%m-%d %H:%M")) == end


def test_a_span_is_passed_over() -> None:
    """It ends once, for good."""
    span = Span(begin=NOW - DAY, end=NOW + 3 * DAY)
    assert coming(Interval(every=timedelta(seconds=1), blackouts=(span,)), 1) == ["04-04 12:00"]


@pytest.mark.parametrize("trigger", [Interval(every=5 * MINUTE), Cron(cron="0 3 * * *", timezone="Europe/Berlin")])
def test_a_span_until_the_end_of_the_calendar_leaves_no_fire(trigger: Interval | Cron) -> None:
    """It says until further notice; no time after it can be written."""
    span = Span(begin=NOW, end=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
    assert coming(trigger.model_copy(update={"blackouts": (span,)}), 1) == []


def test_a_schedule_that_never_fires_has_no_coming_fire() -> None:
    """A calendar without the days of its expression."""
    weekends = Cron(cron="0 6 * * 6", calendar=Calendar())
    assert list(coming_fires(flow(weekends), now=NOW)) == []


def test_quiet_until_is_the_next_planned_time() -> None:
    """Nothing becomes due before it."""
    every = flow(Interval(every=10 * MINUTE))
    assert quiet_until(every, now=NOW + MINUTE) == NOW + 10 * MINUTE


def test_a_closed_day_is_quiet() -> None:
    """Beat looks at it once, not at each of its seconds; the first time of the next day is not missed."""
    every = flow(Interval(every=timedelta(seconds=1), timezone="Europe/Berlin", calendar=Calendar(), jitter=10 * MINUTE))
    sunday = datetime(2025, 4, 6, 20, tzinfo=UTC)
    quiet = quiet_until(every, now=sunday)
    assert quiet == datetime(2025, 4, 6, 22, tzinfo=UTC) + offset(every)
    assert due_times(every, after=sunday, now=quiet) == [datetime(2025, 4, 6, 22, tzinfo=UTC)]


def test_what_is_to_come_begins_with_the_schedule() -> None:
    """A time before the flow was made or resumed is not announced, though its share of the jitter has not passed."""
    made = flow(Interval(every=HOUR, jitter=HOUR), created=NOW + timedelta(seconds=1))
    first = next(coming_fires(made, now=NOW + timedelta(seconds=1)))
    assert first == NOW + HOUR + offset(made)
    assert due_times(made, after=None, now=first) == [NOW + HOUR]


def test_deadlines_are_those_of_open_days() -> None:
    """Six o'clock on working days, in New York."""
    expected = Expected(by="0 6 * * *", timezone="America/New_York", calendar=Calendar(holidays="US"))
    found = deadlines(expected, after=datetime(2025, 7, 2, 12, tzinfo=UTC), until=datetime(2025, 7, 8, tzinfo=UTC))
    assert [at.strftime("%m-%d %H:%M") for at in found] == ["07-03 10:00", "07-07 10:00"]


@pytest.mark.parametrize(
    ("model", "fields", "why"),
    [
        (Cron, {"cron": "61 * * * *"}, "five fields"),
        (Cron, {"cron": "* * * * * *"}, "five fields"),
        (Cron, {"cron": "0 0 30 2 *"}, "five fields"),
        (Cron, {"cron": "0 0 * * *", "timezone": "Mars/Olympus"}, "no time zone"),
        (Interval, {"every": timedelta(0)}, "greater"),
        (Interval, {"every": DAY, "jitter": 2 * HOUR}, "less"),
        (Calendar, {"holidays": "XX"}, "no public holidays"),
        (Calendar, {"holidays": "DE-XX"}, "no public holidays"),
        (Calendar, {"weekdays": ()}, "at least 1"),
        (Daily, {"begin": time(1), "end": time(1)}, "different times"),
        (Span, {"begin": NOW, "end": NOW}, "before it ends"),
        (Expected, {"by": "0 6 * * *", "within": HOUR, "warn_before": HOUR}, "shorter"),
        (Once, {"at": datetime(2025, 1, 1)}, "timezone"),  # noqa: DTZ001 - is to be refused
    ],
)
def test_bad_values_are_refused(model: Any, fields: dict[str, Any], why: str) -> None:  # noqa: ANN401 - a model
    """A field that cannot work is an error when it is given, and says why."""
    with pytest.raises(ValidationError, match=why):
        model(**fields)


def test_durations_are_spoken() -> None:
    """As a person would say them."""
    spelt = [spoken(timedelta(seconds=n)) for n in (0, 59, 300, 5400, 93600)]
    assert spelt == ["0 s", "59 s", "5 min", "1 h 30 min", "1 d 2 h"]


@pytest.mark.parametrize("by", ["30 2 * * *", "*/20 * * * *", "15 1-3 * * *"])
@pytest.mark.parametrize("change", [datetime(2025, 3, 30, tzinfo=UTC), datetime(2025, 10, 26, tzinfo=UTC)])
def test_the_latest_deadlines_are_the_last_of_all(by: str, change: datetime) -> None:
    """Also through a change of clocks, with closed days left out."""
    expected = Expected.model_validate({"by": by, "timezone": "Europe/Berlin", "calendar": {}})
    after, until = change - timedelta(days=4), change + timedelta(days=3, minutes=20)
    every = list(deadlines(expected, after=after, until=until))
    assert latest_deadlines(expected, after=after, until=until, at_most=10_000) == every
    daily = expected.model_copy(update={"calendar": None})
    last = list(deadlines(daily, after=after, until=until))[-3:]
    assert latest_deadlines(daily, after=after, until=until, at_most=3) == last
