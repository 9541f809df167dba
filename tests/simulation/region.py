"""One region: its tables, its queue, and the processes that carry transfers, as `tasks` and `beat_schedules` run them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final, cast

from beat_schedules.fires import due_fires
from eft.adapters.ownership import SingleRegionOwnership
from eft.domain.transfer import Step
from eft.errors import EftError, NotFound, Transient
from eft.journey import upkeep
from eft.journey.advance import advance
from eft.journey.discover import after_failed_discover, discover
from eft.journey.disposal import give_back
from eft.journey.lane import copy_lanes
from eft.journey.messages import Message
from eft.journey.sweep import sweep
from eft.journey.work import Slice
from eft.ports import Engine, Ledger, Limits, OwnershipTable, Peer, Registry, Tuning
from eft.regions.adoption import adopt
from eft.regions.chores import Chores
from eft.regions.pair import RegionPair
from eft.regions.strays import return_strays
from tests.fakes import FakeClock, FakeSecrets
from tests.simulation.kernel import SECOND, Actor, Kernel, Port, SimClock, TrueClock
from tests.simulation.rows import SimLedger, SimLimits, SimRegistry, SimTable
from tests.simulation.sqs import SimQueue
from tests.simulation.stores import SimStores
from tests.simulation.weather import LinkSite, RowsSite, Site

LONGEST_DELAY: Final = timedelta(minutes=15)
AGAIN: Final = timedelta(seconds=10)
LEASE: Final = timedelta(seconds=120)
"""Of chores: longer than a beat's longest pause here."""
UPKEEP: Final = 0.05
"""Chance per beat that the staging bucket is tidied."""


@dataclass(slots=True)
class Link:
    """Between the regions."""

    cut: bool = False


@dataclass(eq=False, slots=True)
class Region:
    """A region's side of everything."""

    kernel: Kernel
    name: str
    registry: SimRegistry
    stores: SimStores
    tuning: Tuning
    partitions: Sequence[int]
    alive: bool = True
    ledger: SimLedger = field(init=False)
    table: SimTable = field(init=False)
    limits: SimLimits = field(init=False)
    queue: SimQueue = field(init=False)
    engine: Engine = field(init=False)
    sites: list[Site] = field(default_factory=list)
    over: bool = False
    """Nothing that ends is started anew."""
    _born: int = 0
    _other: Region | None = None

    def __post_init__(self) -> None:
        kernel, clock = self.kernel, SimClock(self.kernel)
        self.ledger, self.table = SimLedger(kernel), SimTable(kernel)
        self.limits = SimLimits(cast("FakeClock", clock))
        self.queue = SimQueue(kernel, self.name)
        rows = {name: RowsSite(kernel, f"{name}@{self.name}") for name in ("ledger", "limits", "registry", "ownership")}
        self.sites = [*rows.values(), self.queue.site, *self.stores.sites]
        self.engine = Engine(
            clock=clock,
            ledger=cast("Ledger", Port(kernel, rows["ledger"], self.ledger)),
            limits=cast("Limits", Port(kernel, rows["limits"], self.limits)),
            registry=cast("Registry", Port(kernel, rows["registry"], self.registry)),
            secrets=FakeSecrets(),
            stores=self.stores,
            ownership=SingleRegionOwnership(region=self.name),
            tuning=self.tuning,
        )

    def tie(self, other: Region, link: Link) -> None:
        """Makes the other region this one's peer."""
        self._other = other

        def reach() -> bool:
            return not link.cut and other.alive and self.alive

        table = LinkSite(self.kernel, f"ownership@{other.name}", reach, reason="peer_unreachable")
        ledger = LinkSite(self.kernel, f"ledger@{other.name}", reach, reason="aws_unavailable")
        self.sites += [table, ledger]
        own = cast("OwnershipTable", Port(self.kernel, next(s for s in self.sites if s.name == f"ownership@{self.name}"), self.table))
        peer = cast("OwnershipTable", Port(self.kernel, table, other.table))
        kept = cast("Ledger", Port(self.kernel, ledger, other.ledger))
        self.engine = Engine(
            clock=self.engine.clock,
            ledger=self.engine.ledger,
            limits=self.engine.limits,
            registry=self.engine.registry,
            secrets=self.engine.secrets,
            stores=self.engine.stores,
            ownership=RegionPair(region=self.name, own=own, peer=peer),
            tuning=self.tuning,
            peer=Peer(region=other.name, own=own, table=peer, ledger=kept),
        )

    def unwatched(self) -> Engine:
        """Returns an engine whose rows nobody else comes between: for the judge, when all is over."""
        ledger, clock = cast("Ledger", self.ledger), TrueClock(self.kernel)
        if self._other is None:
            return replace(self.engine, clock=clock, ledger=ledger)
        other = self._other
        pair = RegionPair(region=self.name, own=self.table, peer=other.table)
        peer = Peer(region=other.name, own=self.table, table=other.table, ledger=cast("Ledger", other.ledger))
        return replace(self.engine, clock=clock, ledger=ledger, ownership=pair, peer=peer)

    # -- processes -----------------------------------------------------------------------------------------------------

    def start(self, *, workers: int, beats: int) -> None:
        """Starts the region's processes; each that ends is replaced."""
        for _ in range(workers):
            self._start("worker", self._work)
        for _ in range(beats):
            self._start("beat", self._beat)

    def _start(self, role: str, life: Callable[[], object]) -> None:
        self._born += 1
        name = f"{role}{self._born}@{self.name[7:11]}"

        def ended(actor: Actor) -> None:
            del actor
            pause = self.kernel.random.choice([200, 5 * SECOND, 40 * SECOND])
            self.kernel.at(self.kernel.now + pause, again)

        def again() -> None:
            if self.over:
                return
            if self.alive:
                self._start(role, life)
            else:
                self.kernel.at(self.kernel.now + 20 * SECOND, again)

        self.kernel.spawn(name, self.name, life, ended=ended)

    def die(self) -> None:
        """Every process ends where it stands, and nobody reaches the region's tables."""
        self.alive = False
        for actor in self.kernel.living():
            if actor.region == self.name:
                self.kernel.kill(actor)

    def _work(self) -> None:
        me = self.kernel.current
        while not me.leaving:
            envelope = self.queue.receive()
            try:
                if self._carry(envelope.message):
                    self.queue.delete(envelope)
            except EftError as error:
                # The task failed: its message is not deleted, and comes again.
                self.kernel.note("task failed", error)
            envelope.holder = None

    def _carry(self, message: Message) -> bool:
        """What `tasks.base.carry` does with a message; returns whether it is done with."""
        piece = self.slice()
        follow: list[Message] = []
        for index, one in enumerate(message.ids):
            if index and piece.over():
                follow.append(Message(step=message.step, ids=message.ids[index:], part=message.part))
                break
            try:
                follow += self._run(message, one, piece)
            except NotFound as error:
                if len(message.ids) == 1 and message.step is not Step.DISCOVER:
                    self.kernel.broken.append(f"a message for something unknown: {message} ({error})")
                    return True
            except EftError as error:
                follow += self._after(message, one, error)
        piece.end()
        self.forward(follow)
        return True

    def _run(self, message: Message, one: str, piece: Slice) -> list[Message]:
        if message.step is Step.DISCOVER:
            return discover(self.engine, one, piece)
        if message.step is Step.PARTS:
            return copy_lanes(self.engine, one, message.part or 0, piece)
        return advance(self.engine, one, piece)

    def _after(self, message: Message, one: str, error: EftError) -> list[Message]:
        if message.step is Step.DISCOVER:
            return after_failed_discover(self.engine, one, error)
        delay = (error.retry_after if isinstance(error, Transient) else None) or AGAIN
        return [Message(step=message.step, ids=(one,), part=message.part, delay=delay)]

    def forward(self, messages: Sequence[Message]) -> None:
        """Sends what follows; after a failure the rest is the sweep's, as in `tasks.base.forward`."""
        for message in messages:
            if message.delay > LONGEST_DELAY:
                continue
            try:
                self.queue.send(message)
            except EftError:
                return

    def slice(self) -> Slice:
        """Returns a slice of the current process."""
        me = self.kernel.current
        name = f"{me.name}:{self.engine.clock.nonce()[:6]}"
        return Slice(worker=name, clock=self.engine.clock, length=self.tuning.slice, leaving=lambda: me.leaving, limits=self.engine.limits)

    def _beat(self) -> None:
        """What beat does and asks for, one thing after the other; any of them may fail."""
        me = self.kernel.current
        chores = Chores(self.engine, owner=f"{me.name}:{self.engine.clock.nonce()[:6]}", length=LEASE)
        while not me.leaving:
            self.kernel.sleep(self.kernel.random.randrange(30 * SECOND, 75 * SECOND))
            for task in (self._chores, self._adopt, self._tidy):
                try:
                    task(chores)
                except EftError as error:
                    self.kernel.note("upkeep failed", error)

    def _chores(self, chores: Chores) -> None:
        mine = [number for number in chores.mine() if number in self.partitions]
        self.forward(list(due_fires(self.engine, mine)))
        self.forward(list(sweep(self.engine, mine)))

    def _adopt(self, _: Chores) -> None:
        if self.engine.peer is None:
            return
        for partition in self.engine.peer.own.partitions():
            if partition.home == self.name:
                self.forward(list(adopt(self.engine, partition.number)))
            else:
                return_strays(self.engine, partition.number)

    def _tidy(self, _: Chores) -> None:
        if self.kernel.random.random() < UPKEEP:
            upkeep.abort_stale_uploads(self.engine)
            upkeep.expire_staging(self.engine)
            give_back(self.engine)
