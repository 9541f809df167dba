"""People: customers who submit and cancel, an operator who decides what is held, and one who moves partitions between regions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from eft.domain.transfer import RESTING, State, Transfer
from eft.errors import EftError
from eft.journey import operate
from eft.journey.accept import Submission, accept
from eft.journey.held import Decision, decide
from eft.journey.messages import next_message
from eft.regions import switch
from eft.regions.orders import Order
from eft.regions.rejoin import rejoin
from eft.regions.routing import at_home
from tests.simulation.kernel import SECOND, Actor

if TYPE_CHECKING:
    from tests.simulation.play import Play
    from tests.simulation.region import Region

TENANT: Final = "acme"
ORDER: Final = Order(by="op@example.org", why="simulation", ticket="T-1")
TRIES: Final = 6


@dataclass(slots=True)
class Client:
    """A customer's program: it repeats a request under its idempotency key until it is answered."""

    play: Play
    request: Submission
    tries: int = 0

    def ask(self) -> None:
        """Sends the request to one of the regions."""
        self.tries += 1
        region = self.play.pick_region()
        if region is not None:
            answered: list[Transfer] = []

            def serve() -> None:
                try:
                    transfer = accept(region.engine, self.request)
                except EftError:
                    return
                answered.append(transfer)
                region.forward(next_message(transfer))

            def ended(actor: Actor) -> None:
                # The answer is on its way once the row is written, whatever becomes of the process then.
                if answered and not (actor.dead and self.play.kernel.random.random() < 0.5):
                    self.play.truth.accepted[answered[0].id] = str(answered[0].durability)
                elif self.tries < TRIES:
                    self.again()

            self.play.kernel.spawn(f"api{self.play.number()}@{region.name[7:11]}", region.name, serve, ended=ended)
        elif self.tries < TRIES:
            self.again()

    def again(self) -> None:
        """Asks again after a while."""
        kernel = self.play.kernel
        kernel.at(kernel.now + kernel.random.choice([1, 20, 120]) * SECOND, self.ask)


@dataclass(slots=True)
class Desk:
    """Those who look at transfers: customers cancel, an operator re-drives, and decides by what the receiver says."""

    play: Play

    def cancel_some(self) -> None:
        """A customer cancels one of its transfers."""
        truth, kernel = self.play.truth, self.play.kernel
        region = self.play.pick_region()
        if region is None or not truth.accepted:
            return
        one = kernel.random.choice(list(truth.accepted))

        def serve() -> None:
            for _ in range(2):
                try:
                    answer = operate.cancel(at_home(region.engine, one), TENANT, one, "customer")
                except EftError:
                    continue
                if answer.state is State.CANCELLED:
                    truth.cancelled[one] = kernel.now
                return

        kernel.spawn(f"api{self.play.number()}@{region.name[7:11]}", region.name, serve)

    def look(self, *, all_of_them: bool = False, patient: bool = True, weary: bool = False) -> None:
        """An operator takes up what rests and can go on; one who is not patient re-drives nothing held, one who is weary tries no more."""
        for region in self.play.regions:
            if not region.alive:
                continue
            for row in region.ledger.rows():
                rests = row.elsewhere is None and row.state in {State.HELD, State.DEAD} and self.play.home(row.partition) is region
                if rests and (all_of_them or self.play.kernel.random.random() < 0.5):
                    self._take_up(region, row, patient=patient, weary=weary)

    def _take_up(self, region: Region, row: Transfer, *, patient: bool, weary: bool) -> None:
        kernel, truth = self.play.kernel, self.play.truth
        if row.state is State.HELD and row.reason == "no_evidence" and self.play.books.may_be_solo(row.partition):
            # Nobody decides what an isolated region may be deciding too: rejoin comes first.
            return
        roll = kernel.random.random()

        def serve() -> None:
            if row.state is State.DEAD or (patient and roll < 0.3):
                self._send(region, operate.redrive(region.engine, TENANT, row.id, "operator"))
                return
            # The operator has called the receiver, and says what the receiver said.
            missing = Decision.DELIVER if roll < 0.7 and not weary else Decision.ABANDON
            word = Decision.ACCEPT if truth.appeared(row.id) else missing
            truth.words[row.id].add(word.value)
            decided = decide(region.engine, TENANT, row.id, word, by="operator", why="asked the receiver")
            if row.commit is not None and decided.state in {State.ACCEPTED, State.STAGED, State.CANCELLED}:
                truth.given_up.setdefault(row.commit.token, kernel.now)
            self._send(region, decided)

        def served() -> None:
            try:
                serve()
            except EftError as error:
                kernel.note("refused", error)

        kernel.spawn(f"desk{self.play.number()}@{region.name[7:11]}", region.name, served)

    def _send(self, region: Region, row: Transfer) -> None:
        if row.state not in RESTING:
            region.forward(next_message(row))


@dataclass(slots=True)
class Books:
    """What the operators of the regions have done, as they wrote it down before they did it."""

    solo: dict[int, set[str]] = field(default_factory=dict)
    """Regions that may be committing alone, by partition."""
    promoted: dict[int, str] = field(default_factory=dict)
    """The region that was promoted and has not rejoined, by partition."""

    def may_be_solo(self, partition: int) -> bool:
        """Returns whether any region may be committing alone in a partition."""
        return bool(self.solo.get(partition))


@dataclass(slots=True)
class Switchboard:
    """The operator of the regions. Rules: never promote and solo both; whether the old home may be solo is told truthfully."""

    play: Play
    busy: set[int] = field(default_factory=set)
    """Partitions that somebody is moving: one hand at a time."""

    @property
    def books(self) -> Books:
        """What was done."""
        return self.play.books

    def move_some(self) -> None:
        """Does one thing with one partition, as far as the rules allow."""
        play, random = self.play, self.play.kernel.random
        number = random.choice(list(play.partitions))
        if number in self.busy:
            return
        home, other = self._homes(number)
        action = random.choice(["promote", "promote", "solo", "rejoin", "rejoin", "switch", "switch", "drain", "undrain"])
        if action == "promote":
            self._promote(number, home, other)
        elif action == "solo":
            if number not in self.books.promoted:
                self.books.solo.setdefault(number, set()).add(home.name)
                self._order(home, number, action, lambda: switch.solo(home.engine, number, ORDER))
        elif action == "rejoin":
            self._order(home, number, action, lambda: self._rejoin(home, number))
        elif action == "switch":
            self._order(home, number, action, lambda: self._switch(home, number))
        elif action == "drain":
            self._order(home, number, action, lambda: switch.drain(home.engine, number, ORDER))
        else:
            self._order(home, number, action, lambda: switch.undrain(home.engine, number, ORDER))

    def promote_all(self, survivor: Region) -> None:
        """After a region's death: the survivor takes its partitions."""
        for number in self.play.partitions:
            home, other = self._homes(number)
            if other is survivor and number not in self.busy and self.play.kernel.random.random() < 0.7:
                self._promote(number, home, survivor)

    def put_in_order(self) -> None:
        """Ends what was begun, one partition after the other, until both regions agree and commits need both."""
        for number in self.play.partitions:
            home, _ = self._homes(number)
            if home.table.rows[number].phase.value != "active":
                self._order(home, number, "end switch", lambda home=home, number=number: self._end_switch(home, number))  # type: ignore[misc]
            elif not self.agreed(number):
                self._order(home, number, "rejoin", lambda home=home, number=number: self._rejoin(home, number))  # type: ignore[misc]

    def agreed(self, number: int) -> bool:
        """Returns whether both regions say the same of a partition, and that it is whole again."""
        first, second = (region.table.rows[number] for region in self.play.regions)
        return first.decisive == second.decisive and first.mode.value == "dual" and first.phase.value == "active" and first.evidence

    def _promote(self, number: int, home: Region, other: Region) -> None:
        if other.table.rows[number].home == other.name:
            return
        told = home.name in self.books.solo.get(number, set())
        self.books.promoted[number] = other.name
        self.books.solo.setdefault(number, set()).add(other.name)
        self._order(
            other, number, f"promote, old home solo {told}", lambda: switch.promote(other.engine, number, ORDER, old_home_may_be_solo=told)
        )

    def _rejoin(self, home: Region, number: int) -> object:
        done = rejoin(home.engine, number, ORDER)
        self.books.solo.pop(number, None)
        self.books.promoted.pop(number, None)
        return done

    def _switch(self, home: Region, number: int) -> object:
        switch.drain(home.engine, number, ORDER)
        for _ in range(self.play.kernel.random.choice([1, 5, 20])):
            self.play.kernel.sleep(10 * SECOND)
            try:
                return switch.hand_over(home.engine, number, ORDER)
            except EftError as error:
                self.play.kernel.note("hand over", error)
        return switch.undrain(home.engine, number, ORDER)

    def _end_switch(self, home: Region, number: int) -> object:
        if home.table.rows[number].phase.value == "draining":
            return switch.undrain(home.engine, number, ORDER)
        return switch.hand_over(home.engine, number, ORDER)

    def _order(self, region: Region, number: int, what: str, done: Callable[[], object]) -> None:
        kernel = self.play.kernel
        if not region.alive or number in self.busy:
            return
        self.busy.add(number)

        def serve() -> None:
            kernel.note(f"order for {number}: {what}")
            try:
                kernel.note(f"done for {number}: {what}", done())
            except EftError as error:
                kernel.note(f"refused for {number}: {what}", error)

        kernel.spawn(f"ops{self.play.number()}@{region.name[7:11]}", region.name, serve, ended=lambda _: self.busy.discard(number))

    def _homes(self, number: int) -> tuple[Region, Region]:
        home = self.play.home(number)
        return home, next(region for region in self.play.regions if region is not home)
