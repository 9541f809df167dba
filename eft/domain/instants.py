"""Points in time as rows keep them: whole milliseconds since 1970, UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def millis(at: datetime) -> int:
    """Returns whole milliseconds since 1970, rounded down."""
    return (at - _EPOCH) // _MILLISECOND


def instant(since_1970: int) -> datetime:
    """Returns the aware UTC time of a number of milliseconds since 1970."""
    return _EPOCH + since_1970 * _MILLISECOND


def sortable(at: datetime) -> str:
    """Returns ISO 8601 in UTC with exactly three decimals: text that sorts as time does."""
    return instant(millis(at)).strftime("%Y-%m-%dT%H:%M:%S.") + f"{millis(at) % 1000:03d}Z"


def fire_time(name: str) -> datetime | None:
    """Returns the planned time that names a schedule's fire (ISO 8601 with an offset), else None."""
    try:
        planned = datetime.fromisoformat(name)
    except ValueError:
        return None
    return planned.astimezone(UTC) if planned.tzinfo else None
