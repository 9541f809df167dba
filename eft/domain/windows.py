"""Times of day and spans of time, in a zone."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from eft.domain.frozen import Frozen


def _known_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        msg = f"no time zone is named '{value}'; use an IANA name such as Europe/Berlin"
        raise ValueError(msg) from None
    return value


Zone = Annotated[str, AfterValidator(_known_zone)]


class Weekday(StrEnum):
    """A day of the week."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


WEEK = tuple(Weekday)


class Span(Frozen):
    """A time without fires, once."""

    kind: Literal["span"] = "span"
    begin: AwareDatetime
    end: AwareDatetime

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.begin >= self.end:
            msg = "begins before it ends"
            raise ValueError(msg)
        return self

    def end_after(self, at: datetime, zone: str) -> datetime | None:  # noqa: ARG002 - as Daily
        """Returns when it ends, if an instant lies in it."""
        return self.end if self.begin <= at < self.end else None


class Hours(Frozen):
    """A time of day; one that ends before it begins goes over midnight."""

    begin: time
    end: time
    weekdays: tuple[Weekday, ...] = Field(default=WEEK, min_length=1)
    """Days on which it begins."""

    @model_validator(mode="after")
    def _some_time_is_left(self) -> Self:
        if self.begin == self.end or self.begin.tzinfo or self.end.tzinfo:
            msg = "begins and ends at two different times of day, without an offset"
            raise ValueError(msg)
        return self

    def end_after(self, at: datetime, zone: str) -> datetime | None:
        """Returns when it ends, if an instant lies in it."""
        local = at.astimezone(ZoneInfo(zone))
        clock, today, over_midnight = local.time(), WEEK[local.weekday()], self.begin > self.end
        if today in self.weekdays and self.begin <= clock and (over_midnight or clock < self.end):
            day = local.date() + timedelta(days=over_midnight)
        elif over_midnight and WEEK[local.weekday() - 1] in self.weekdays and clock < self.end:
            day = local.date()
        else:
            return None
        return datetime.combine(day, self.end, tzinfo=ZoneInfo(zone)).astimezone(UTC)


class Daily(Hours):
    """A time of day without fires, in the schedule's time zone."""

    kind: Literal["daily"] = "daily"


class Bandwidth(Hours):
    """How much may pass to and from an endpoint in a time of day, all transfers together."""

    timezone: Zone = "UTC"
    bytes_per_second: int = Field(ge=128 * 1024)


Blackout = Annotated[Span | Daily, Field(discriminator="kind")]
