"""When a flow runs, and by when its files must have come: the options of `flow add`. What is not given is the API's default."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from eft.cli.amounts import iso, parse_duration, parse_moment, shown_duration, shown_moment
from eft.cli.failure import usage

if TYPE_CHECKING:
    from eft.cli.client import JsonObject

Every = Annotated[
    timedelta | None, typer.Option("--every", parser=parse_duration, help="Run this often, such as 90s, 5m, 1d.", metavar="DURATION")
]
CronOption = Annotated[str | None, typer.Option("--cron", help="Run by a five-field cron expression.", metavar="EXPRESSION")]
At = Annotated[str | None, typer.Option("--at", parser=parse_moment, help="Run once, then: 2025-12-24T18:00:00Z.", metavar="TIME")]
OnArrival = Annotated[
    bool, typer.Option("--on-arrival", help="Take an object as soon as its bucket tells of it; the source is an S3 endpoint.")
]
ListedEvery = Annotated[
    timedelta | None,
    typer.Option("--listed-every", parser=parse_duration, help="With --on-arrival: list besides. [default: 1h]", metavar="DURATION"),
]
Timezone = Annotated[str | None, typer.Option("--timezone", help="Of --cron, --expect-by and all days. [default: UTC]", metavar="ZONE")]
Workdays = Annotated[bool, typer.Option("--workdays", help="Only Monday to Friday.")]
Holidays = Annotated[
    str | None, typer.Option("--holidays", help="Only Monday to Friday, and not on its public holidays: US, DE-BY.", metavar="CODE")
]
Closed = Annotated[list[str] | None, typer.Option("--closed", help="Not on this day; may be repeated.", metavar="YYYY-MM-DD")]
Blackouts = Annotated[
    list[str] | None,
    typer.Option(
        "--blackout", help="Not in this time: 22:00-04:00 each day, or BEGIN/END once; may be repeated.", metavar="HH:MM-HH:MM|BEGIN/END"
    ),
]
Misfire = Annotated[
    Literal["skip", "once", "all"] | None,
    typer.Option("--misfire", help="Fires that nobody made in time: none, the last, or each is made up for. [default: once]"),
]
Jitter = Annotated[
    timedelta | None, typer.Option("--jitter", parser=parse_duration, help="Come later by up to this. [default: 0s]", metavar="DURATION")
]
ExpectBy = Annotated[
    str | None, typer.Option("--expect-by", help="Files must be there at these times, else the flow is late.", metavar="CRON")
]
ExpectFiles = Annotated[int | None, typer.Option("--expect-files", help="So many of them. [default: 1]", min=1)]
ExpectWithin = Annotated[
    timedelta | None,
    typer.Option("--expect-within", parser=parse_duration, help="Come at most so long before that time. [default: 1d]", metavar="DURATION"),
]
WarnBefore = Annotated[
    timedelta | None, typer.Option("--warn-before", parser=parse_duration, help="Warn so long before that time.", metavar="DURATION")
]


def trigger_of(
    *,
    every: timedelta | None,
    cron: str | None,
    at: str | None,
    on_arrival: bool,
    listed_every: timedelta | None,
    timezone: str | None,
    schedule: dict[str, object],
) -> dict[str, object]:
    """Returns the trigger as the API takes it, without what is not given.

    Raises:
        Failure: the options do not go together.
    """
    kinds = {"--every": every is not None, "--cron": cron is not None, "--at": at is not None, "--on-arrival": on_arrival}
    given = [name for name, is_given in kinds.items() if is_given]
    if len(given) > 1:
        raise usage("A flow has one trigger", advice=f"Give one of {', '.join(given)}.")
    if listed_every is not None and not on_arrival:
        raise usage("--listed-every goes with --on-arrival")
    if schedule and given not in (["--every"], ["--cron"], ["--at"]):
        raise usage("--workdays, --holidays, --closed, --blackout, --misfire and --jitter go with --every, --cron or --at")
    shared = schedule if timezone is None or not given or on_arrival else {**schedule, "timezone": timezone}
    if every is not None:
        return {"kind": "interval", "every": iso(every), **shared}
    if cron is not None:
        return {"kind": "cron", "cron": cron, **shared}
    if at is not None:
        return {"kind": "once", "at": at, **shared}
    if on_arrival:
        return {"kind": "arrival", **({} if listed_every is None else {"listed_every": iso(listed_every)})}
    return {"kind": "manual"}


def schedule_of(
    *,
    workdays: bool,
    holidays: str | None,
    closed: list[str] | None,
    blackouts: list[str] | None,
    misfire: str | None,
    jitter: timedelta | None,
) -> dict[str, object]:
    """Returns what all schedules share, without what is not given.

    Raises:
        Failure: a blackout is malformed.
    """
    made: dict[str, object] = {}
    if workdays or holidays or closed:
        week = {} if workdays or holidays else {"weekdays": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]}
        made["calendar"] = week | ({"holidays": holidays} if holidays else {}) | ({"closed": closed} if closed else {})
    if blackouts:
        made["blackouts"] = [_blackout(text) for text in blackouts]
    if misfire is not None:
        made["misfire"] = misfire
    if jitter is not None:
        made["jitter"] = iso(jitter)
    return made


def expected_of(
    *,
    by: str | None,
    files: int | None,
    within: timedelta | None,
    warn_before: timedelta | None,
    timezone: str | None,
    calendar: object,
) -> dict[str, object] | None:
    """Returns by when files are expected, in the schedule's zone and calendar; None if they are not.

    Raises:
        Failure: the rest is given without `--expect-by`.
    """
    rest: dict[str, object] = {
        "files": files,
        "within": None if within is None else iso(within),
        "warn_before": None if warn_before is None else iso(warn_before),
    }
    rest = {name: value for name, value in rest.items() if value is not None}
    if by is None:
        if rest:
            raise usage("--expect-files, --expect-within and --warn-before go with --expect-by")
        return None
    shared = {"timezone": timezone, "calendar": calendar}
    return {"by": by, **{name: value for name, value in shared.items() if value is not None}, **rest}


def when(flow: JsonObject) -> str:
    """Returns a flow's trigger in words."""
    trigger = flow["trigger"]
    match trigger["kind"]:
        case "interval":
            return f"every {shown_duration(trigger['every'])}"
        case "cron":
            return f"cron {trigger['cron']} {trigger['timezone']}"
        case "once":
            return f"once, at {shown_moment(trigger['at'])}"
        case "arrival":
            return f"on arrival, and every {shown_duration(trigger['listed_every'])}"
        case _:
            return "on request"


def schedule_words(flow: JsonObject) -> str:
    """Returns what limits a flow's schedule, in words."""
    trigger = flow["trigger"]
    calendar = trigger.get("calendar")
    words = []
    if calendar is not None:
        words.append("on " + ",".join(calendar["weekdays"]))
        words += [f"not on holidays of {calendar['holidays']}"] if calendar["holidays"] else []
        words += [f"not on {day}" for day in calendar["closed"]] + [f"also on {day}" for day in calendar["open"]]
    words += [f"not {one['begin']} to {one['end']}" for one in trigger.get("blackouts", ())]
    if shown_duration(trigger.get("jitter", "PT0S")) != "0s":
        words.append(f"up to {shown_duration(trigger['jitter'])} later")
    return ", ".join([*words, f"missed: {trigger['misfire']}"]) if "misfire" in trigger else ""


def _blackout(text: str) -> dict[str, object]:
    begin, slash, end = text.partition("/")
    if slash:
        return {"kind": "span", "begin": begin, "end": end}
    begin, dash, end = text.partition("-")
    if not dash:
        raise usage(f"--blackout '{text}' is no time", advice="Write 22:00-04:00, or 2025-12-24T00:00:00Z/2025-12-27T00:00:00Z.")
    return {"kind": "daily", "begin": begin, "end": end}
