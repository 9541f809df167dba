"""Triggers: what makes a flow run by itself, and when it must not."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints, model_validator

from eft.domain.calendar import check_holidays, is_holiday
from eft.domain.frozen import Frozen
from eft.domain.windows import WEEK, Blackout, Weekday, Zone

DAYS_AT_MOST = 1000


def _five_fields(value: str) -> str:
    try:
        CronSim(value, datetime(2025, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        msg = f"is no cron expression of five fields: {error}"
        raise ValueError(msg) from None
    if len(value.split()) != 5:  # noqa: PLR2004 - minute, hour, day, month, weekday
        msg = "is no cron expression of five fields: it has seconds, too"
        raise ValueError(msg)
    return value


CronText = Annotated[str, StringConstraints(max_length=200), AfterValidator(_five_fields)]


class Misfire(StrEnum):
    """What becomes of fires that nobody made in time: none is made up for, the latest is, or each is (the latest hundred of a day)."""

    SKIP = "skip"
    ONCE = "once"
    ALL = "all"


class Calendar(Frozen):
    """Days on which a schedule fires; days are those of the schedule's time zone."""

    weekdays: tuple[Weekday, ...] = Field(default=WEEK[:5], min_length=1)
    holidays: Annotated[str, AfterValidator(check_holidays)] | None = None
    """Country, and state if need be, whose public holidays are no working days: `US`, `DE-BY`."""
    closed: tuple[date, ...] = Field(default=(), max_length=DAYS_AT_MOST)
    """Further days without fires."""
    open: tuple[date, ...] = Field(default=(), max_length=DAYS_AT_MOST)
    """Days with fires, whatever the rest says."""

    def has(self, day: date) -> bool:
        """Returns whether the schedule fires on a day."""
        if day in self.open:
            return True
        if WEEK[day.weekday()] not in self.weekdays or day in self.closed:
            return False
        return self.holidays is None or not is_holiday(self.holidays, day)


class Schedule(Frozen):
    """What all schedules share."""

    timezone: Zone = "UTC"
    calendar: Calendar | None = None
    """None: every day."""
    blackouts: tuple[Blackout, ...] = Field(default=(), max_length=50)
    """Times in which nothing fires; what they make miss is made up for afterwards as `misfire` says."""
    misfire: Misfire = Misfire.ONCE
    jitter: timedelta = Field(default=timedelta(0), ge=timedelta(0), le=timedelta(hours=1))
    """Fires come later by up to this, by an amount that is the flow's own, so that not all come at midnight."""

    def open_on(self, at: datetime) -> bool:
        """Returns whether the calendar has the day of an instant."""
        return self.calendar is None or self.calendar.has(at.astimezone(ZoneInfo(self.timezone)).date())

    def day_after(self, at: datetime) -> datetime:
        """Returns when the day after an instant's begins."""
        zone = ZoneInfo(self.timezone)
        return datetime.combine(at.astimezone(zone).date() + timedelta(days=1), time(), tzinfo=zone).astimezone(UTC)

    def blackout_end(self, at: datetime) -> datetime | None:
        """Returns when a blackout ends in which an instant lies; None if it lies in none."""
        ends = (blackout.end_after(at, self.timezone) for blackout in self.blackouts)
        return next((end for end in ends if end is not None), None)


class Manual(Frozen):
    """The flow runs when somebody asks."""

    kind: Literal["manual"] = "manual"


class Once(Schedule):
    """The flow runs once, at an instant."""

    kind: Literal["once"] = "once"
    at: AwareDatetime


class Interval(Schedule):
    """The flow runs every so often."""

    kind: Literal["interval"] = "interval"
    every: timedelta = Field(ge=timedelta(seconds=1), le=timedelta(days=31))


class Cron(Schedule):
    """The flow runs by a five-field cron expression, in a time zone.

    Through a change of clocks as Debian's cron has it: what the change leaves out fires right after it, what it repeats fires once;
    expressions with `*` for minute or hour simply follow the clock.
    """

    kind: Literal["cron"] = "cron"
    cron: CronText


class Arrival(Frozen):
    """The flow takes an object as soon as its bucket tells of it; the source is a bucket.

    The source is listed besides, every so often: what no event told of, or what was too young when one did, is found then.
    """

    kind: Literal["arrival"] = "arrival"
    listed_every: timedelta = Field(default=timedelta(hours=1), ge=timedelta(minutes=1), le=timedelta(days=31))


Trigger = Annotated[Manual | Once | Interval | Cron | Arrival, Field(discriminator="kind")]


class Expected(Frozen):
    """Files that must have come by a time; a flow whose files are late says so."""

    by: CronText
    """When they must be there, as a cron expression."""
    timezone: Zone = "UTC"
    calendar: Calendar | None = None
    within: timedelta = Field(default=timedelta(hours=24), ge=timedelta(minutes=1), le=timedelta(days=31))
    """How long before that time a file may have come to count."""
    files: int = Field(default=1, ge=1, le=1000)
    warn_before: timedelta | None = Field(default=None, ge=timedelta(seconds=30), le=timedelta(days=7))
    """A warning comes so long before, if files are missing then."""

    @model_validator(mode="after")
    def _warns_within(self) -> Self:
        if self.warn_before is not None and self.warn_before >= self.within:
            msg = "warn_before is shorter than within"
            raise ValueError(msg)
        return self

    def open_on(self, at: datetime) -> bool:
        """Returns whether files are expected on the day of an instant."""
        return self.calendar is None or self.calendar.has(at.astimezone(ZoneInfo(self.timezone)).date())
