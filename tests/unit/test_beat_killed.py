"""Three beats and two workers that are killed at random, through changes of clocks in two zones: each fire runs once, none is lost."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from beat_schedules.fires import Quiet, due_fires
from eft.domain.flow import Cron, Flow, Misfire
from eft.domain.instants import fire_name
from eft.errors import EftError
from eft.journey.discover import after_failed_discover, discover
from eft.journey.messages import Message
from eft.journey.sweep import sweep
from tests.crashes import Crash, watch
from tests.fakes import FakeClock
from tests.world import World

ALL = range(64)
BEGIN, END = datetime(2025, 10, 25, 12, tzinfo=UTC), datetime(2025, 11, 3, 12, tzinfo=UTC)
"""Clocks change in Berlin on 26 October at 01:00 UTC, in New York on 2 November at 06:00 UTC."""
HOURLY = {"Europe/Berlin": "15 */2 * * *", "America/New_York": "45 */2 * * *"}
NIGHTLY = {"Europe/Berlin": "30 2 * * *", "America/New_York": "30 1 * * *"}
STEP = timedelta(minutes=5)


class Fleet:
    """Beats and workers over one ledger and one queue; dice decide who acts, who dies and what comes twice."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.world = World(clock=FakeClock(BEGIN))
        self.world.server("sftp-a").directories.add("in")
        watch(self.world, self._at)
        self.killed = self.nested = 0
        self.queue: list[Message] = []
        self.beats: list[Quiet] = [{}, {}, {}]
        self.ended: Counter[tuple[str, str]] = Counter()
        self.busy = False

    def flow(self, cron: str, zone: str) -> Flow:
        """Creates a flow whose missed fires are all made up for."""
        made = self.world.flow("sftp-a", "s3-b")
        made = made.model_copy(update={"trigger": Cron(cron=cron, timezone=zone, misfire=Misfire.ALL), "revision": 2})
        self.world.registry.change_flow(made)
        return made

    def step(self, *, sweeping: bool) -> None:
        """Lets some minutes pass, in which beats look and workers work."""
        self.world.clock.advance(STEP * self.dice.random())
        for number in self.dice.sample(range(3), k=self.dice.randint(0, 3)):
            self.look(number)
        if sweeping:
            self.queue += self._survived(lambda: list(sweep(self.world.engine)))
        for _ in range(2):
            if self.queue and self.dice.random() < 0.8:
                self._work()

    def look(self, number: int) -> None:
        """One beat's look; whoever dies is replaced by another that remembers nothing."""
        killed = self.killed
        self.queue += self._survived(lambda: list(due_fires(self.world.engine, ALL, quiet=self.beats[number])))
        if self.killed > killed:
            self.beats[number] = {}

    def _work(self) -> None:
        message = self.queue[self.dice.randrange(len(self.queue))]
        killed = self.killed
        follow = self._survived(lambda: self._carry(message))
        if self.killed == killed and self.dice.random() > 0.05:
            self.queue.remove(message)
        self.queue += follow

    def _carry(self, message: Message) -> list[Message]:
        piece = self.world.slice()
        try:
            return discover(replace(self.world.engine), message.ids[0], piece)
        except EftError as error:
            return after_failed_discover(self.world.engine, message.ids[0], error)

    def _survived(self, act: object) -> list[Message]:
        assert callable(act)
        try:
            done: list[Message] = act()
        except Crash:
            self.killed += 1
            return []
        return done

    def _at(self, label: str) -> None:
        """Kills one call in fifty, and lets another beat look in the middle of one in twenty."""
        if label == "ledger.fire_done:before":
            return
        if self.dice.random() < 0.02:
            raise Crash(label)
        if label == "ledger.fire:before" and not self.busy and self.dice.random() < 0.3:
            self.busy, self.nested = True, self.nested + 1
            try:
                self.look(self.dice.randrange(3))
            finally:
                self.busy = False


def minutes(begin: datetime, end: datetime) -> Iterator[datetime]:
    """Yields the whole minutes after `begin` up to `end`."""
    at = begin + timedelta(minutes=1)
    while at <= end:
        yield at
        at += timedelta(minutes=1)


def by_the_clock(zone: str, *, minute: int) -> set[str]:
    """Returns the fires of `<minute> */2 * * *`, from looking at the zone's clock in each minute."""
    times = ((at, at.astimezone(ZoneInfo(zone))) for at in minutes(BEGIN, END))
    return {fire_name(at) for at, local in times if local.minute == minute and local.hour % 2 == 0}


def once_a_night(zone: str, *, hour: int) -> set[str]:
    """Returns the fires of `30 <hour> * * *`: the first time that a zone's clock shows it on a day."""
    first: dict[object, datetime] = {}
    for at in minutes(BEGIN, END):
        local = at.astimezone(ZoneInfo(zone))
        if (local.hour, local.minute) == (hour, 30):
            first.setdefault(local.date(), at)
    return {fire_name(at) for at in first.values()}


@pytest.mark.parametrize("seed", range(3))
def test_each_fire_runs_once(seed: int) -> None:
    """Of 230 fires in nine days none is lost, none has two rows, and each has ended once."""
    fleet = Fleet(seed)
    expected = {}
    for zone, minute in (("Europe/Berlin", 15), ("America/New_York", 45)):
        expected[fleet.flow(HOURLY[zone], zone).id] = by_the_clock(zone, minute=minute)
    for zone, hour in (("Europe/Berlin", 2), ("America/New_York", 1)):
        expected[fleet.flow(NIGHTLY[zone], zone).id] = once_a_night(zone, hour=hour)
    assert sum(map(len, expected.values())) > 230
    ends: Counter[tuple[str, str]] = Counter()
    done = fleet.world.ledger.fire_done

    def counted(flow: Flow, *, name: str, outcome: dict[str, int], why: EftError | None = None) -> None:
        ends[flow.id, name] += 1
        done(flow, name=name, outcome=outcome, why=why)

    fleet.world.ledger.fire_done = counted  # type: ignore[method-assign]
    fires = {(flow, name) for flow, names in expected.items() for name in names}
    for steps in range(12_000):
        fleet.step(sweeping=steps % 3 == 0)
        if fleet.world.clock.now() > END and fires <= ends.keys() and not fleet.queue:
            break
    last = max(name for _, name in fires)
    assert {fire: count for fire, count in ends.items() if fire[1] <= last} == dict.fromkeys(fires, 1)
    assert fleet.killed > 100
    assert fleet.nested > 10
