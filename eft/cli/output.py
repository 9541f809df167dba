"""What a command says: tables for people, or one JSON document for programs; on standard output, and nothing else there."""

from __future__ import annotations

import json
import sys
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from eft.cli.failure import Failure
from eft.cli.fields import option_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

UNBOUNDED: Final = 4096
"""Columns of a table that is no terminal's: nothing is cut or wrapped on its way into a pipe."""
STYLES: Final = {
    "settled": "green",
    "delivered": "green",
    "held": "bold yellow",
    "dead": "bold red",
    "cancelled": "dim",
    "ok": "green",
    "failed": "bold red",
    "paused": "yellow",
}


def console(*, err: bool = False) -> Console:
    """Returns a console for people on standard output, or on standard error."""
    from rich.console import Console  # noqa: PLC0415 - half of the time of `eft --help`, which needs none

    stream = sys.stderr if err else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else UNBOUNDED, highlight=False, soft_wrap=not stream.isatty())


def text(value: object, *, style: str = "") -> Text:
    """Returns a value for display: names from foreign servers lose what could steer a terminal, and are no markup."""
    from rich.text import Text  # noqa: PLC0415 - as console()

    shown = "–" if value is None or value == "" else printable(str(value))
    return Text(shown, style=style or STYLES.get(shown, ""))


def printable(value: str) -> str:
    """Returns a value with everything escaped that is not to be seen: control characters, line ends, changes of direction."""
    return "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode() for ch in value)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: frozenset[str] = frozenset()) -> Table:
    """Returns a plain table; columns in `right` are right-aligned."""
    from rich.table import Table  # noqa: PLC0415 - as console()

    grid = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        grid.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(text(cell) for cell in row))
    return grid


class Output:
    """One command's voice. With `as_json` only `document` and `line` speak on standard output."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def document(self, value: object) -> None:
        """Prints the command's one JSON document, if it speaks JSON."""
        if self.as_json:
            print(json.dumps(value, indent=2))

    def line(self, value: object) -> None:
        """Prints one document of a stream on a line of its own, at once, if it speaks JSON."""
        if self.as_json:
            print(json.dumps(value), flush=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: frozenset[str] = frozenset(), empty: str) -> None:
        """Prints a table for people, or `empty` where it has no row."""
        if self.as_json:
            return
        found = list(rows)
        if found:
            console().print(table(columns, found, right=right))
        else:
            self.say(empty)

    def pairs(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Prints names and values of one thing for people."""
        if self.as_json:
            return
        from rich.table import Table  # noqa: PLC0415 - as console()

        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold")
        grid.add_column(overflow="fold")
        for name, value in pairs:
            grid.add_row(name, text(value))
        console().print(grid)

    def say(self, message: str, *, style: str = "") -> None:
        """Prints a line for people."""
        if not self.as_json:
            console().print(text(message, style=style))

    def more(self, cursor: str | None) -> None:
        """Says how to see what a list left out."""
        if cursor is not None:
            self.say(f"There are more: --cursor {cursor}", style="dim")

    @contextmanager
    def waiting(self, message: str) -> Iterator[None]:
        """Shows that something takes its time, where a person looks on."""
        with console(err=True).status(text(message)):
            yield

    def note(self, message: str, *, style: str = "yellow") -> None:
        """Prints a remark on standard error, whichever way the command speaks."""
        console(err=True).print(text(message, style=style))


def tell(failure: Failure, *, as_json: bool, options: Container[str] = ()) -> None:
    """Prints a failure on standard error: what is wrong, which of the command's options, what to do; as the API's problem for programs."""
    if as_json:
        problem = failure.problem or {"title": str(failure)}
        extra = {"advice": failure.advice} if failure.advice else {}
        print(json.dumps({**problem, **extra, "exit_code": int(failure.code)}), file=sys.stderr)
        return
    out = console(err=True)
    out.print(text(f"Error: {failure}", style="bold red"))
    for fault in failure.faults:
        out.print(text(f"  {option_of(fault.field, options)}: {fault.message}" if fault.field else f"  {fault.message}"))
    if failure.advice:
        out.print(text(f"  → {failure.advice}", style="dim"))
