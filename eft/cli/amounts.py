"""Amounts as people write and read them: sizes, durations, speeds, moments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import typer

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")
_ISO = re.compile(r"P(?:(\d+)Y)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.\d+)?S)?)?")
_STEP = 1024
_YEAR = 365 * 86400
"""Seconds; the API writes whole years of 365 days as years."""


def parse_size(text: str) -> int:
    """Returns bytes for `0`, `64K`, `10MiB` or `1.5GB`; a lone letter counts in powers of 1024.

    Raises:
        typer.BadParameter: it is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise typer.BadParameter(f"'{text}' is no size; write for example 500, 64K, 10MiB or 1.5GB")
    try:
        return round(float(match[1]) * _UNITS[match[2].upper()])
    except OverflowError:
        raise typer.BadParameter(f"'{text}' is too large") from None


def parse_duration(text: str) -> timedelta:
    """Returns the duration of `90s`, `5m`, `1h30m`, `2d`, or a bare number of seconds.

    Raises:
        typer.BadParameter: it is no duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise typer.BadParameter(f"'{text}' is no duration; write for example 90s, 5m, 1h30m or 2d")
    try:
        return _duration([int(amount or 0) for amount in match.groups()])
    except (OverflowError, ValueError):  # more than timedelta holds, or than int() reads
        raise typer.BadParameter(f"'{text}' is too long") from None


def parse_moment(text: str) -> str:
    """Returns a time as it was written, which the API takes as ISO 8601 has it.

    Raises:
        typer.BadParameter: it is no time, or has no zone.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        what = "is no time" if moment is None else "has no time zone"
        raise typer.BadParameter(f"'{text}' {what}; write for example 2025-12-24T18:00:00Z or 2025-12-24T18:00:00+01:00")
    return text.strip()


def iso(duration: timedelta) -> str:
    """Returns a duration as the API takes it (ISO 8601), in whole seconds."""
    return f"PT{round(duration.total_seconds())}S"


def shown_size(size: float | None) -> str:
    """Returns `17.2 MiB`, or `–` for an unknown size."""
    if size is None:
        return "–"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < _STEP:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= _STEP
    return f"{size:.1f} TiB"


def shown_duration(value: object) -> str:
    """Returns an API duration (ISO 8601, or seconds) as `1h 30m`; what it does not know it returns as it came."""
    if isinstance(value, (int, float)):
        seconds = int(value)
    else:
        match = _ISO.fullmatch(str(value))
        if match is None or not any(match.groups()):
            return str(value)
        years, *rest = (int(amount or 0) for amount in match.groups())
        seconds = int(_duration(rest).total_seconds()) + years * _YEAR
    amounts = ((seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s"))
    return " ".join(f"{amount}{unit}" for amount, unit in amounts if amount) or "0s"


def shown_moment(text: object) -> str:
    """Returns an API time as `2031-05-04 03:02:01` in UTC, or `–`."""
    if not text:
        return "–"
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return str(text)
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _duration(amounts: Sequence[int]) -> timedelta:
    days, hours, minutes, seconds = amounts
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
