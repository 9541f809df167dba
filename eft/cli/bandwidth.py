"""How much may pass to and from an endpoint at a time of day: an option of `endpoint add`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from eft.cli.amounts import parse_size, shown_size
from eft.cli.failure import usage

if TYPE_CHECKING:
    from eft.cli.client import JsonObject

_WINDOW = re.compile(r"(\d\d:\d\d)-(\d\d:\d\d)=([^@]+)(?:@(.+))?")
Windows = Annotated[
    list[str] | None,
    typer.Option(
        "--bandwidth",
        help="No more a second at a time of day, such as 08:00-18:00=10MiB@Europe/Berlin; may be repeated.",
        metavar="HH:MM-HH:MM=SIZE[@ZONE]",
    ),
]


def windows_of(texts: list[str] | None) -> list[dict[str, object]] | None:
    """Returns the windows as the API takes them; None where none is given.

    Raises:
        Failure: one is malformed.
    """
    return [_window(text) for text in texts] if texts else None


def windows_words(endpoint: JsonObject) -> str:
    """Returns an endpoint's windows in words."""
    return ", ".join(
        f"{shown_size(one['bytes_per_second'])}/s from {one['begin'][:5]} to {one['end'][:5]} {one['timezone']}"
        for one in endpoint["bandwidth"]
    )


def _window(text: str) -> dict[str, object]:
    wrong = usage(f"--bandwidth '{text}' is no window", advice="Write 08:00-18:00=10MiB, or 08:00-18:00=10MiB@Europe/Berlin.")
    match = _WINDOW.fullmatch(text)
    if match is None:
        raise wrong
    begin, end, size, zone = match.groups()
    try:
        rate = parse_size(size)
    except typer.BadParameter:
        raise wrong from None
    return {"begin": begin, "end": end, "bytes_per_second": rate, "timezone": zone or "UTC"}
