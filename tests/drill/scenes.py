"""What happens to the regions in a run: each scene breaks something at a moment not of its choosing, and puts it right again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from deploy.local.regions import EAST, REGIONS, WEST, TwoRegions, other
from tests.drill.operator import Operator


@dataclass(slots=True)
class Played:
    """What a scene did."""

    story: str
    ordered_at: datetime
    """The moment of the failure, or of the order where nothing failed."""
    home: str
    """The region whose commits are waited for."""
    watched: set[int] = field(default_factory=set)
    """The partitions that moved there, or that waited."""
    quiet: tuple[datetime, datetime] | None = None
    """Between these moments no dual partition may commit anything."""
    may_hold: frozenset[str] = frozenset()
    """Reasons for which the scene cannot but hold: `no_evidence` where a promotion was told that the old home may be solo."""


@dataclass(slots=True)
class Stage:
    """What a scene plays with. `meanwhile` returns once the traffic has gone on for some seconds."""

    pair: TwoRegions
    operator: Operator
    random: random.Random
    meanwhile: Callable[[float], None]


Scene = Callable[[Stage], Played]


def planned(stage: Stage) -> Played:
    """All partitions of a region are drained and handed over."""
    home = _busy_region(stage)
    return _switched(stage, [row.number for row in stage.operator.at_home(home)], away_from=home, story="planned switch")


def fail_back(stage: Stage) -> Played:
    """What is away from its first home goes back there."""
    home = next(region for region in REGIONS if _strangers(stage, region))
    return _switched(stage, _strangers(stage, home), away_from=home, story="fail-back")


def dark(stage: Stage) -> Played:
    """A region dies at once; the other is promoted; the dead one comes back with all that it had."""
    return _forced(stage, fail=stage.pair.darken, repair=stage.pair.bring_back, story="forced promotion, region dark")


def lost(stage: Stage) -> Played:
    """A region dies and comes back empty."""
    return _forced(stage, fail=stage.pair.lose, repair=stage.pair.bring_back, story="forced promotion, region lost for good")


def split(stage: Stage) -> Played:
    """The link is cut and one region promoted while the other lives on and knows nothing."""
    fail = stage.random.choice([stage.pair.cut, stage.pair.silence])
    return _forced(stage, fail=lambda _: fail(), repair=lambda _: stage.pair.heal(), story="forced promotion, both alive")


def link_cut(stage: Stage) -> Played:
    """The link is cut for some seconds, or swallows everything: nothing is committed until it is back."""
    silent = stage.random.random() < 0.5
    (stage.pair.silence if silent else stage.pair.cut)()
    cut_at = datetime.now(UTC)
    stage.meanwhile(stage.random.uniform(5, 8))
    healed_at = datetime.now(UTC)
    stage.pair.heal()
    home = stage.random.choice([region for region in REGIONS if stage.operator.at_home(region)])
    watched = {row.number for row in stage.operator.at_home(home)}
    return Played(f"link {'silent' if silent else 'cut'}", healed_at, home, watched, quiet=(cut_at, healed_at))


def solo(stage: Stage) -> Played:
    """A region dies and nobody is promoted: the other one's own partitions go on alone."""
    home = _busy_region(stage)
    away = other(home)
    failed_at = datetime.now(UTC)
    stage.pair.darken(away)
    mine = [row.number for row in stage.operator.at_home(home)]
    stage.operator.order(home, "solo", mine)
    stage.meanwhile(stage.random.uniform(4, 7))
    stage.pair.bring_back(away)
    stage.operator.order(home, "rejoin", mine)
    return Played(f"solo, {_short(away)} dark", failed_at, home, set(mine))


SCENES: Final[dict[str, Scene]] = {
    "planned": planned,
    "fail-back": fail_back,
    "dark": dark,
    "split": split,
    "lost": lost,
    "link-cut": link_cut,
    "solo": solo,
}


def possible(stage: Stage) -> list[str]:
    """Returns the scenes that can be played now: a fail-back needs something that is away."""
    return [name for name in SCENES if name != "fail-back" or any(_strangers(stage, region) for region in REGIONS)]


def _switched(stage: Stage, numbers: list[int], *, away_from: str, story: str) -> Played:
    ordered_at = datetime.now(UTC)
    stage.operator.order(away_from, "drain", numbers)
    stage.operator.order(away_from, "hand-over", numbers)
    to = other(away_from)
    return Played(f"{story}, {_short(away_from)} → {_short(to)}", ordered_at, to, set(numbers))


def _forced(stage: Stage, *, fail: Callable[[str], None], repair: Callable[[str], None], story: str) -> Played:
    old = _busy_region(stage)
    new = other(old)
    moved = [row.number for row in stage.operator.at_home(old)]
    own = [row.number for row in stage.operator.at_home(new)]
    failed_at = datetime.now(UTC)
    fail(old)
    stage.operator.order(new, "promote", moved, old_home_may_be_solo=False)
    stage.operator.order(new, "solo", own)
    stage.meanwhile(stage.random.uniform(6, 9))
    repair(old)
    stage.operator.order(new, "rejoin", [*moved, *own])
    return Played(f"{story}, {_short(old)} → {_short(new)}", failed_at, new, set(moved))


def _busy_region(stage: Stage) -> str:
    """Returns a region that is home of something."""
    return stage.random.choice([region for region in REGIONS if stage.operator.at_home(region)])


def _strangers(stage: Stage, region: str) -> list[int]:
    """Returns what is at home in a region but was not at first."""
    return [row.number for row in stage.operator.at_home(region) if REGIONS[row.number % 2] != region]


def _short(region: str) -> str:
    return {WEST: "west", EAST: "east"}[region]
