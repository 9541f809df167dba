"""A discrete-event kernel: actors are greenlets, time is a number of milliseconds, and one seed decides everything.

An actor gives way only in `call`, where it asks a port for something, and in `sleep` and `park`. Whoever's time comes next goes on, so
that every interleaving of calls is one of the seed's draws. Nothing here reads the machine's clock, a hash's order or an address.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush
from random import Random
from typing import Any, Final

from greenlet import getcurrent, greenlet

from eft.errors import EftError
from tests.fakes import START
from tests.simulation.weather import CALM, LAZY, PROCESS, Request, Site, Weather

SECOND: Final = 1000


class Crash(BaseException):
    """The process is gone; nothing that it does while this passes through it reaches the world."""


def _nothing() -> None:
    """What the hub does by itself."""


@dataclass(eq=False, slots=True)
class Actor:
    """A process. Everything that it asks of the world goes through the kernel."""

    name: str
    region: str
    greenlet: greenlet
    offset: int = 0
    """Milliseconds by which its clock is wrong."""
    dead: bool = False
    done: bool = False
    frozen: bool = False
    """Asleep without knowing it: it keeps nothing alive."""
    leaving: bool = False
    """Asked to stop: it ends its slice early."""
    ticket: int = 0
    """Only the event that carries it wakes the actor."""
    life: Callable[[], object] = _nothing
    ended: Callable[[Actor], object] | None = None
    born: bool = False


@dataclass(slots=True)
class Kernel:
    """Time, turns and faults of one seed."""

    seed: int
    weather: Weather = CALM
    now: int = 0
    random: Random = field(init=False)
    fired: Counter[str] = field(default_factory=Counter)
    """Faults by kind."""
    trace: list[tuple[Any, ...]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """What actors raised that nothing of ours may raise."""
    _events: list[tuple[int, int, Actor | None, Any]] = field(default_factory=list)
    _serial: int = 0
    _until: int = 0
    _hub: greenlet = field(default_factory=getcurrent)
    _actors: list[Actor] = field(default_factory=list)
    current: Actor = field(init=False)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.current = Actor("hub", "", self._hub)

    # -- time and turns ------------------------------------------------------------------------------------------------

    def at(self, when: int, action: Callable[[], object]) -> None:
        """Does something at a time, in nobody's name; it asks nothing of ports."""
        self._push(max(when, self.now), None, action)

    def spawn(self, name: str, region: str, life: Callable[[], object], *, ended: Callable[[Actor], object] | None = None) -> Actor:
        """Starts a process now; `ended` is told when it has ended, crashed or not."""
        actor = Actor(name, region, greenlet(self._live, self._hub), life=life, ended=ended)
        self._actors.append(actor)
        self._push(self.now, actor, 0)
        return actor

    def run(self, until: int) -> None:
        """Lets everything happen up to a time."""
        self._until = until
        events = self._events
        while events and events[0][0] <= until:
            self.now, _, actor, what = heappop(events)
            if actor is None:
                what()
            elif actor.ticket == what and not actor.done:
                self.current = actor
                if actor.born:
                    actor.greenlet.switch()
                else:
                    actor.born = True
                    actor.greenlet.switch(actor)
        self.now = until

    def sleep(self, duration: int) -> None:
        """The current actor goes on after a time, and others before it."""
        actor, wake = self.current, self.now + duration
        events = self._events
        if wake <= self._until and (not events or wake < events[0][0]):
            self.now = wake
        else:
            actor.ticket += 1
            self._push(wake, actor, actor.ticket)
            self._hub.switch()
        if actor.dead:
            raise Crash

    def park(self) -> None:
        """The current actor waits until somebody wakes it."""
        actor = self.current
        actor.ticket += 1
        self._hub.switch()
        if actor.dead:
            raise Crash

    def wake(self, actor: Actor) -> None:
        """Lets an actor go on now."""
        actor.ticket += 1
        self._push(self.now, actor, actor.ticket)

    def kill(self, actor: Actor) -> None:
        """Ends another process where it stands."""
        if not actor.done and not actor.dead:
            actor.dead = True
            self.wake(actor)

    def crash(self) -> None:
        """Ends the current process."""
        self.current.dead = True
        raise Crash

    def living(self) -> Iterator[Actor]:
        """Yields the processes that live."""
        self._actors = [actor for actor in self._actors if not actor.done]
        yield from [actor for actor in self._actors if not actor.dead]

    def close(self) -> None:
        """Ends every process, so that none outlives its seed."""
        for actor in self._actors:
            self.kill(actor)
        self._events = [event for event in self._events if event[2] is not None]
        self.run(self.now)

    # -- calls of ports ------------------------------------------------------------------------------------------------

    def call(
        self, site: Site, call: str, found: Callable[..., Any], args: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - a port's answer
        """Asks something of the world for the current actor: others' turns, the seed's faults, then the effect and the answer."""
        named = named or {}
        actor = self.current
        if actor.dead:
            raise Crash
        roll = self.random.random()
        fault = None if roll >= site.most else site.fault(roll)
        self.sleep(site.latency(self.random))
        result: Any
        try:
            if fault is not None:
                result = self._faulty(fault, Request(site, call, found, args, named))
            else:
                site.refuse(call)
                result = found(*args, **named)
                if call in LAZY:
                    result = iter(list(result))
        except EftError as error:
            self.trace.append((self.now, actor.name, site.name, call, args, named, error))
            raise
        except Crash:
            self.trace.append((self.now, actor.name, site.name, call, args, named, "CRASH"))
            raise
        self.trace.append((self.now, actor.name, site.name, call, args, named, result))
        return result

    def note(self, what: str, *about: object) -> None:
        """Puts a line on the trace."""
        self.trace.append((self.now, self.current.name, "", what, about, {}, None))

    def fire(self, fault: str) -> None:
        """Counts a fault and puts it on the trace."""
        self.fired[fault] += 1
        self.trace.append((self.now, self.current.name, "", f"! {fault}", (), {}, None))

    def _faulty(self, fault: str, request: Request) -> Any:  # noqa: ANN401
        actor, random = self.current, self.random
        if fault not in PROCESS:
            return request.site.faulty(fault, request)
        self.fire(fault)
        if fault == "crash":
            self.crash()
        elif fault == "crash_after":
            with suppress(EftError):
                request.do()
            self.crash()
        elif fault == "pause":
            self._freeze(actor)
        elif fault == "leave":
            actor.leaving = True
        elif fault == "clock_jump":
            actor.offset = random.choice([0, random.randrange(-600, 600), random.randrange(-90, 90)]) * SECOND
        result = request.do()
        if fault == "pause_after":
            self._freeze(actor)
        return result

    def _freeze(self, actor: Actor) -> None:
        actor.frozen = True
        self.sleep(self.random.choice([5, 40, 80, 130, 200, 400]) * self.random.randrange(500, 1500))
        actor.frozen = False

    # -- inside --------------------------------------------------------------------------------------------------------

    def _push(self, when: int, actor: Actor | None, what: object) -> None:
        self._serial += 1
        heappush(self._events, (when, self._serial, actor, what))

    def _live(self, actor: Actor) -> None:
        try:
            if not actor.dead:
                actor.life()
        except Crash:
            pass
        except Exception as error:  # noqa: BLE001 - an actor's unexpected error is a finding
            self.broken.append(f"{actor.name} raised {type(error).__name__}: {error}\n{traceback.format_exc(limit=-12)}")
        actor.done = True
        if actor.ended is not None:
            actor.ended(actor)


class Port:
    """A port as every process sees it: each call goes through the kernel."""

    def __init__(self, kernel: Kernel, site: Site, target: object) -> None:
        self._kernel, self._site, self._target = kernel, site, target

    def __getattr__(self, call: str) -> Any:  # noqa: ANN401 - a port's method
        found = getattr(self._target, call)
        kernel, site = self._kernel, self._site.of(call)

        def passed(*args: Any, **named: Any) -> Any:  # noqa: ANN401
            return kernel.call(site, call, found, args, named)

        self.__dict__[call] = passed
        return passed


@dataclass(slots=True)
class SimClock:
    """`ports.Clock`: each process reads its own, which may be wrong."""

    kernel: Kernel

    def now(self) -> datetime:
        return START + timedelta(milliseconds=self.kernel.now + self.kernel.current.offset)

    def monotonic(self) -> float:
        return self.kernel.now / SECOND

    def jitter(self) -> float:
        return self.kernel.random.random()

    def nonce(self) -> str:
        return f"{self.kernel.random.getrandbits(64):016x}"


@dataclass(slots=True)
class TrueClock:
    """The time itself, as servers have it."""

    kernel: Kernel

    def now(self) -> datetime:
        return START + timedelta(milliseconds=self.kernel.now)

    def monotonic(self) -> float:
        return self.kernel.now / SECOND

    def jitter(self) -> float:
        return self.kernel.random.random()

    def nonce(self) -> str:
        return f"{self.kernel.random.getrandbits(64):016x}"
