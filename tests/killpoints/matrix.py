"""Which cases are played: the whole matrix, or a sample of it in which every label is paused at and killed at.

The points of a run fall into *moments*: between two points of one moment no request leaves the process, so whoever stops or dies at
one has done to the world what he has done at the other. Of each moment one point is paused at. A death leaves nothing behind but what
was done, so of all moments between two changes one point is killed at.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.killpoints.cases import Stage
from tests.killpoints.points import label_of, request_of

READS: Final = frozenset(
    {
        *("sftp.lstat", "sftp.stat", "sftp.close", "sftp.drop", "sftp.fsync", "sftp.ask_lstat"),
        *("dynamodb.GetItem", "dynamodb.BatchGetItem", "dynamodb.Query"),
        *("s3.HeadObject", "s3.GetObject", "s3.ListParts", "s3.ListObjectsV2", "s3.ListObjectVersions"),
    }
)
"""Requests that change nothing at the other side. Whatever is not named here is taken for a change."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """When no new case is begun; None: never."""

    at: float | None

    @property
    def passed(self) -> bool:
        """Whether it has."""
        return self.at is not None and time.monotonic() > self.at


def moments(points: Sequence[str], *, changes_only: bool = False) -> list[list[str]]:
    """Returns the points in runs between which a request (a change) was made."""
    found: list[list[str]] = [[]]
    for point in points:
        label = label_of(point)
        request = request_of(label)
        if request is not None and label.endswith(":after") and not (changes_only and request in READS):
            found.append([])
        found[-1].append(point)
    return [one for one in found if one]


class Matrix:
    """All cases of one stage, in units of one pause point each."""

    def __init__(self, stage: Stage, *, part: int, parts: int) -> None:
        """Takes the share of the pause points that is this director's."""
        self.stage = stage
        self.points = stage.undisturbed(wire=True)
        pick = random.Random(stage.variant.name)
        whole = [pick.choice(moment) for moment in moments(self.points)]
        self.pauses = [point for number, point in enumerate(whole) if number % parts == part]
        # Whatever ends early has seen all of a transfer's life.
        pick.shuffle(self.pauses)

    def units(self, deadline: Deadline) -> Iterator[int]:
        """Plays pause point after pause point, with every kill point that the second worker then has; yields after each the cases left."""
        pick = random.Random(self.stage.variant.name)
        for number, pause in enumerate(self.pauses):
            if deadline.passed:
                return
            seen = self.stage.case(pause, None, wire=True)
            for moment in moments(seen or [], changes_only=True):
                if deadline.passed:
                    return
                self.stage.case(pause, pick.choice(moment), wire=True)
            self.stage.tally.counts["pause points"] += 1
            yield len(self.pauses) - number - 1


def sample(stages: Sequence[Stage], *, share: Callable[[set[str]], set[str]]) -> None:
    """Plays labels that the stages' undisturbed runs pass once as the pause and once as the kill, in different pairs.

    `share` returns which of the labels are this director's: another has stages that pass them, too.
    """
    runs = {stage: stage.undisturbed() for stage in stages}
    where: dict[str, list[tuple[Stage, str]]] = {}
    for stage, points in runs.items():
        for point in points:
            where.setdefault(label_of(point), []).append((stage, point))
    killed: set[str] = set()
    pick = random.Random(0)
    mine = sorted(share(set(where)))
    for label in mine:
        stage, pause = pick.choice(where[label])
        rest = runs[stage][runs[stage].index(pause) :]
        fresh = [point for point in rest if label_of(point) in mine and label_of(point) not in killed]
        passed = stage.case(pause, kill := pick.choice(fresh or rest))
        if passed is None:
            killed.add(label_of(kill))
    for label in sorted(set(mine) - killed):
        stage, kill = pick.choice(where[label])
        # Stopped before it has done anything, the first worker leaves the second all points of an undisturbed run.
        stage.case(runs[stage][0], kill)
        killed.add(label)
