"""Sizes, durations and times as people write and read them."""

from __future__ import annotations

from datetime import timedelta

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from eft.cli.amounts import iso, parse_duration, parse_size, shown_duration, shown_moment, shown_size

DURATION = TypeAdapter(timedelta)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("500", 500),
        ("500B", 500),
        ("64K", 65536),
        ("64KiB", 65536),
        ("64kb", 64000),
        (" 1.5 GB ", 1_500_000_000),
        ("2t", 2 * 2**40),
    ],
)
def test_reads_a_size(text: str, size: int) -> None:
    """Powers of 1024 with a lone letter or `iB`, powers of 1000 with `B`."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1 XB", "MB", "1e3", "1_000"])
def test_refuses_what_is_no_size(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(typer.BadParameter):
        parse_size(text)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("2d", 172800), ("0s", 0)])
def test_reads_a_duration(text: str, seconds: int) -> None:
    """Days, hours, minutes and seconds, in this order."""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "5 m", "m", "30m1h", "-5m", "1.5h"])
def test_refuses_what_is_no_duration(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(typer.BadParameter):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**8))
def test_the_api_reads_what_is_sent_and_people_what_it_answers(seconds: int) -> None:
    """A duration survives the way to the API and back into words, which can be typed again."""
    sent = iso(timedelta(seconds=seconds))
    assert DURATION.validate_python(sent) == timedelta(seconds=seconds)
    answered = DURATION.dump_python(timedelta(seconds=seconds), mode="json")
    shown = shown_duration(answered)
    assert parse_duration(shown.replace(" ", "")) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(90, "1m 30s"), (0.2, "0s"), ("PT0S", "0s"), ("P1DT2H", "1d 2h"), ("P1Y1D", "366d"), ("P1M", "P1M"), (None, "None")],
)
def test_shows_a_duration(value: object, shown: str) -> None:
    """What is no duration that it knows is shown as it came."""
    assert shown_duration(value) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [(None, "–"), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 2**30, "5.0 GiB"), (2**40, "1.0 TiB"), (2**52, "4096.0 TiB")],
)
def test_shows_a_size(size: float | None, shown: str) -> None:
    """The unit is the largest that leaves a number of at least one."""
    assert shown_size(size) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [("2031-05-04T05:02:01.5+02:00", "2031-05-04 03:02:01"), ("2031-05-04T03:02:01Z", "2031-05-04 03:02:01"), (None, "–"), ("x", "x")],
)
def test_shows_a_moment(value: object, shown: str) -> None:
    """Times are shown in UTC, to the second."""
    assert shown_moment(value) == shown
