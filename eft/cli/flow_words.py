"""A flow in words: where from, where to, what it takes, and what came of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from eft.cli import trigger
from eft.cli.amounts import shown_duration, shown_moment, shown_size

if TYPE_CHECKING:
    from eft.cli.client import JsonObject
    from eft.cli.output import Output


def from_words(flow: JsonObject, names: Mapping[str, str]) -> str:
    """Returns where a flow's files come from, with their pattern; an endpoint without a name among `names` by its id."""
    selection = flow["selection"]
    pattern = selection["glob"] or selection["regex"] or "*"
    return f"{names.get(flow['source'], flow['source'])}:{selection['directory']}/{'**/' if selection['recursive'] else ''}{pattern}"


def to_words(flow: JsonObject, names: Mapping[str, str]) -> str:
    """Returns where a flow's files go, as from_words()."""
    return f"{names.get(flow['destination'], flow['destination'])}:{flow['destination_directory']}"


def show_flow(out: Output, flow: JsonObject, *, names: Mapping[str, str]) -> None:
    """Prints a flow with its selection and policy."""
    selection = flow["selection"]
    stability = selection["stability"]
    bounds = [
        f"at least {shown_size(selection['min_size'])}" if selection["min_size"] else None,
        f"at most {shown_size(selection['max_size'])}" if selection["max_size"] is not None else None,
        f"not younger than {shown_duration(selection['min_age'])}" if shown_duration(selection["min_age"]) != "0s" else None,
        f"not older than {shown_duration(selection['max_age'])}" if selection["max_age"] else None,
        f"forgotten after {shown_duration(selection['forget_after'])}" if selection["forget_after"] else None,
        f"not {' '.join(selection['exclude'])}" if selection["exclude"] else None,
        f"not deeper than {selection['max_depth']}" if selection["max_depth"] else None,
        f"seen unchanged {stability['looks']} times, {shown_duration(stability['apart'])} apart" if stability["looks"] > 1 else None,
        f"with {stability['done_marker']} beside it" if stability["done_marker"] else None,
    ]
    retry = flow["policy"]["retry"]
    out.pairs(
        [
            ("id", flow["id"]),
            ("name", flow["name"]),
            ("state", "on" if flow["enabled"] else "paused"),
            ("when", trigger.when(flow)),
            ("schedule", trigger.schedule_words(flow)),
            ("expected", _expected(flow)),
            ("from", from_words(flow, names)),
            ("to", to_words(flow, names)),
            ("bounds", ", ".join(bound for bound in bounds if bound)),
            *((name, value) for name, value in flow["policy"].items() if name != "retry"),
            ("retry", f"{retry['tries']} tries, pausing {shown_duration(retry['first'])} to {shown_duration(retry['longest'])}"),
            ("revision", flow["revision"]),
            ("created", shown_moment(flow["created"])),
        ]
    )


def outcome(fire: JsonObject) -> str:
    """Returns what came of a run."""
    if not fire["ended"]:
        return "under way"
    if fire["error"]:
        return f"failed ({fire['reason']}): {fire['error']}"
    return ", ".join(f"{count} {what}" for what, count in fire["files"].items() if count) or "none"


def _expected(flow: JsonObject) -> str:
    expected = flow["expected"]
    if expected is None:
        return ""
    warned = f", warned {shown_duration(expected['warn_before'])} before" if expected["warn_before"] else ""
    within = shown_duration(expected["within"])
    return f"{expected['files']} by cron {expected['by']} {expected['timezone']}, come within {within}{warned}"
