"""Points in time as rows keep them: whole milliseconds since 1970, UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_ASKED = re.compile(r"[a-z]+-(\d{8}T\d{6})")


def millis(at: datetime) -> int:
    """Returns whole milliseconds since 1970, rounded down."""
    return (at - _EPOCH) // _MILLISECOND


def instant(since_1970: int) -> datetime:
    """Returns the aware UTC time of a number of milliseconds since 1970."""
    return _EPOCH + since_1970 * _MILLISECOND


def sortable(at: datetime) -> str:
    """Returns ISO 8601 in UTC with exactly three decimals: text that sorts as time does."""
    return instant(millis(at)).strftime("%Y-%m-%dT%H:%M:%S.") + f"{millis(at) % 1000:03d}Z"


def fire_name(planned: datetime) -> str:
    """Returns the name of a schedule's fire: its planned time, to the second; names sort as times do."""
    return planned.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def asked_time(at: datetime) -> str:
    """Returns a time as names of fires that were asked for hold it: UTC, to the second, the year in four digits."""
    utc = at.astimezone(UTC)
    # strftime writes the years before 1000 with fewer digits.
    return f"{utc.year:04d}{utc:%m%dT%H%M%S}"


def fire_time(name: str) -> datetime | None:
    """Returns the planned time that names a schedule's fire (ISO 8601 with an offset), else None."""
    try:
        planned = datetime.fromisoformat(name)
    except ValueError:
        return None
    return planned.astimezone(UTC) if planned.tzinfo else None


def fire_moment(name: str) -> datetime:
    """Returns the time in a fire's name, planned or asked for; 1970 where it has none. Fires are shown in this order."""
    planned = fire_time(name)
    if planned is None and (asked := _ASKED.match(name)):
        planned = datetime.strptime(asked[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    return planned or _EPOCH


def spoken(duration: timedelta) -> str:
    """Returns a duration as people say it, to the second: `5 min`, `1 d 6 h`."""
    seconds = round(duration.total_seconds())
    words = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count:
            words.append(f"{count} {unit}")
    return " ".join(words) or "0 s"
