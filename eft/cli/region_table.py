"""How `eft region` shows partitions: those alike in one row, their numbers folded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from eft.cli.amounts import shown_moment
from eft.cli.output import Output

if TYPE_CHECKING:
    from eft.cli.client import JsonObject

FOLDED: Final = 6
"""Runs of numbers that are shown."""


def table(out: Output, items: Sequence[JsonObject], *, each: bool = False, peer: bool = False) -> None:
    """Prints partitions, those alike in one row unless each is asked for."""
    groups: dict[tuple[object, ...], list[JsonObject]] = {}
    for item in items:
        groups.setdefault((item["number"],) if each else _alike(item), []).append(item)
    columns = ("PARTITIONS", "COUNT", "HOME", "EPOCH", "MODE", "PHASE", "EVIDENCE", *(("THE OTHER SAYS",) if peer else ()), "LAST CHANGE")
    rows = []
    for group in groups.values():
        first = group[0]
        says = "–" if first["peer_home"] is None else f"{first['peer_home']}, {first['peer_region_epoch']}"
        rows.append(
            (
                folded([item["number"] for item in group]),
                len(group),
                first["home"],
                first["region_epoch"],
                first["mode"],
                first["phase"],
                "whole" if first["evidence"] else "lacking",
                *((says,) if peer else ()),
                _change(first),
            )
        )
    out.table(columns, rows, right=frozenset({"COUNT", "EPOCH"}), empty="No partitions.")


def by_reason(refused: Sequence[JsonObject]) -> list[tuple[str, str, str]]:
    """Returns what was refused for the same reason in one row, with the first one's message."""
    groups: dict[str, list[JsonObject]] = {}
    for item in refused:
        groups.setdefault(item["reason"], []).append(item)
    return [(folded([item["partition"] for item in group]), reason, group[0]["message"]) for reason, group in groups.items()]


def _alike(item: JsonObject) -> tuple[object, ...]:
    same = ("home", "region_epoch", "mode", "phase", "evidence", "peer_home", "peer_region_epoch", "changed_by", "why", "ticket")
    return tuple(item[name] for name in same)


def _change(item: JsonObject) -> str:
    if item["changed_by"] is None:
        return "–"
    return f"{shown_moment(item['changed_at'])} {item['changed_by']}: {item['why']} ({item['ticket']})"


def folded(numbers: Sequence[int]) -> str:
    """Returns numbers in order, briefly: `0–5 7 9`, or `0 2 4 … 62` where they are many."""
    runs = [f"{first}–{last}" if last > first else str(first) for first, last in _runs(sorted(numbers))]
    if len(runs) > FOLDED:
        runs = [*runs[:3], "…", runs[-1]]
    return " ".join(runs)


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    first = last = None
    for number in numbers:
        if last is not None and number == last + 1:
            last = number
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = number
    if first is not None and last is not None:
        yield first, last


def counted(numbers: Sequence[int]) -> str:
    """Returns `1 partition`, `2 partitions`."""
    return f"{len(numbers)} partition{'' if len(numbers) == 1 else 's'}"
