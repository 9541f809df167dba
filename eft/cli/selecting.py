"""Which files a flow takes: the options of `flow add`. What is not given is the API's default."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from eft.cli.amounts import iso, parse_duration, parse_size
from eft.cli.failure import usage

Glob = Annotated[str | None, typer.Option("--glob", help="Only these names, such as '*.csv'.", metavar="PATTERN")]
Regex = Annotated[str | None, typer.Option("--regex", help="Only paths that this matches whole.", metavar="PATTERN")]
Exclude = Annotated[
    list[str] | None, typer.Option("--exclude", help="Never these names, such as '*.tmp'; may be repeated.", metavar="PATTERN")
]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Directories below, too.")]
MaxDepth = Annotated[int | None, typer.Option("--max-depth", help="With --recursive: not deeper than so many directories.", min=1)]
MinSize = Annotated[
    int | None, typer.Option("--min-size", parser=parse_size, help="Smaller files stay, such as 1 or 10KiB.", metavar="SIZE")
]
MaxSize = Annotated[int | None, typer.Option("--max-size", parser=parse_size, help="Larger files stay.", metavar="SIZE")]
MinAge = Annotated[
    timedelta | None,
    typer.Option("--min-age", parser=parse_duration, help="Files changed since stay, such as 30s or 5m.", metavar="DURATION"),
]
MaxAge = Annotated[
    timedelta | None, typer.Option("--max-age", parser=parse_duration, help="Files older than this stay.", metavar="DURATION")
]
ForgetAfter = Annotated[
    timedelta | None,
    typer.Option("--forget-after", parser=parse_duration, help="Files older than this are never taken, for good.", metavar="DURATION"),
]
Looks = Annotated[int | None, typer.Option("--looks", help="See a file unchanged so often before it is taken. [default: 1]", min=1)]
LooksApart = Annotated[
    timedelta | None, typer.Option("--looks-apart", parser=parse_duration, help="Between looks. [default: 10s]", metavar="DURATION")
]
DoneMarker = Annotated[
    str | None,
    typer.Option("--done-marker", help="Take a file when this is beside it: '{name}.done', '{stem}.ok', or READY.", metavar="NAME"),
]


def selection_of(
    *,
    directory: str,
    glob: str | None,
    regex: str | None,
    exclude: list[str] | None,
    recursive: bool,
    max_depth: int | None,
    sizes: tuple[int | None, int | None],
    ages: tuple[timedelta | None, timedelta | None, timedelta | None],
    looks: int | None,
    looks_apart: timedelta | None,
    done_marker: str | None,
) -> dict[str, object]:
    """Returns the selection as the API takes it, without what is not given; ages are the least, the greatest, and that of forgetting.

    Raises:
        Failure: the options do not go together, or a pattern is empty.
    """
    for option, patterns in (("--glob", [glob]), ("--regex", [regex]), ("--exclude", exclude or [])):
        if "" in patterns:
            raise usage(f"{option} is empty", advice="Write a pattern, or leave it out.")
    if glob is not None and regex is not None:
        raise usage("--glob and --regex exclude each other", advice="Give one of them.")
    if max_depth is not None and not recursive:
        raise usage("--max-depth goes with --recursive", advice="Add --recursive.")
    if looks_apart is not None and looks is None:
        raise usage("--looks-apart goes with --looks", advice="Add --looks 2, or more.")
    min_age, max_age, forget_after = (None if age is None else iso(age) for age in ages)
    stability = {"looks": looks, "apart": None if looks_apart is None else iso(looks_apart), "done_marker": done_marker}
    given: dict[str, object] = {
        "directory": directory or None,
        "glob": glob,
        "regex": regex,
        "exclude": exclude or None,
        "recursive": recursive or None,
        "max_depth": max_depth,
        "min_size": sizes[0],
        "max_size": sizes[1],
        "min_age": min_age,
        "max_age": max_age,
        "forget_after": forget_after,
        "stability": {name: value for name, value in stability.items() if value is not None} or None,
    }
    return {name: value for name, value in given.items() if value is not None}
