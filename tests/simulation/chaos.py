"""What happens to a seed's world beside its processes' own faults, and how it is brought to rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final

from eft.domain.transfer import CLOCKS_DIFFER, PUT_ARRIVES_WITHIN, RESTING, State, Transfer
from eft.journey.disposal import give_back
from eft.journey.messages import Message
from eft.journey.reconcile import reconcile
from tests.simulation.kernel import SECOND
from tests.simulation.people import TENANT
from tests.simulation.play import MINUTE, PATIENCE, Play
from tests.simulation.region import Region
from tests.simulation.servers import Server
from tests.simulation.weather import CALM

TROUBLE: Final = (6 * MINUTE, 12 * MINUTE, 20 * MINUTE)
"""How long a seed's faults last."""
ROUNDS: Final = 4
"""How often the operator looks at what rests before the books are closed."""


@dataclass(slots=True)
class Story:
    """A play from its first to its last event."""

    play: Play
    end: int = 0
    cut_until: int = 0
    down_until: dict[str, int] = field(default_factory=dict)

    def run(self) -> None:
        """Plays it through."""
        play = self.play
        self.end = play.kernel.random.choice(TROUBLE)
        if not play.calm:
            self._plan_trouble()
        play.kernel.run(self.end)
        self._calm_down()
        if self._settle():
            for number in range(ROUNDS):
                play.desk.look(all_of_them=True, patient=number < 2, weary=number == ROUNDS - 1)
                if not self._settle():
                    return
            self._find_the_rest()

    # -- trouble -------------------------------------------------------------------------------------------------------

    def _plan_trouble(self) -> None:
        play, random = self.play, self.play.kernel.random
        troubles: list[tuple[int, Callable[[], None]]] = [
            (3, self._take_down),
            (3, self._foreign_writes),
            (3, self._janitor_sweeps),
            (3, play.desk.cancel_some),
            (4, play.desk.look),
            (1, self._kill),
        ]
        if len(play.regions) == 2:
            troubles += [(3, self._cut_link), (6, play.switchboard.move_some)]
        for at_most, trouble in troubles:
            for _ in range(random.randrange(at_most + 1) if random.random() < 0.6 else 0):
                play.kernel.at(random.randrange(5 * SECOND, self.end), trouble)

    def _take_down(self) -> None:
        kernel = self.play.kernel
        server = self.play.servers[kernel.random.choice(sorted(self.play.servers))]
        kernel.fire("server_outage")
        server.down = True
        until = kernel.now + kernel.random.choice([20, 90, 300]) * SECOND
        self.down_until[server.name] = max(until, self.down_until.get(server.name, 0))
        kernel.at(until, lambda: self._bring_up(server))

    def _bring_up(self, server: Server) -> None:
        if self.play.kernel.now >= self.down_until.get(server.name, 0):
            server.down = False

    def _cut_link(self) -> None:
        kernel = self.play.kernel
        kernel.fire("partition")
        self.play.link.cut = True
        until = kernel.now + kernel.random.choice([10, 60, 300, 600]) * SECOND
        self.cut_until = max(until, self.cut_until)
        kernel.at(until, self._heal_link)

    def _heal_link(self) -> None:
        if self.play.kernel.now >= self.cut_until:
            self.play.link.cut = False

    def _kill(self) -> None:
        kernel, play = self.play.kernel, self.play
        region = kernel.random.choice(play.regions)
        if not all(each.alive for each in play.regions):
            return
        kernel.fire("region_death")
        region.die()
        kernel.at(kernel.now + kernel.random.choice([60, 300, 900]) * SECOND, lambda: self._revive(region))
        others = [each for each in play.regions if each is not region]
        if others and kernel.random.random() < 0.6:
            kernel.at(kernel.now + 20 * SECOND, lambda: play.switchboard.promote_all(others[0]))

    def _revive(self, region: Region) -> None:
        region.alive = True

    def _foreign_writes(self) -> None:
        play = self.play
        request = play.kernel.random.choice(play.submissions) if play.submissions else None
        if request is not None and play.servers[request.destination_endpoint].foreign_puts(
            str(request.destination_path), b"foreign" + play.content(20)
        ):
            play.kernel.fire("foreign_file")

    def _janitor_sweeps(self) -> None:
        play = self.play
        trusting = {r.destination_endpoint for r in play.submissions if r.policy.receiver_removes}
        trusting |= {flow.destination for flow in play.flows if flow.policy.receiver_removes}
        # Where sources are disposed of, our temporary names hold a customer's files: that is no receiver.
        for name in sorted(play.servers.keys() - trusting - {"sftp-a"}):
            if play.servers[name].janitor_removes(play.kernel.random.randrange(100)):
                play.kernel.fire("janitor")

    # -- rest ----------------------------------------------------------------------------------------------------------

    def _calm_down(self) -> None:
        play = self.play
        play.kernel.weather = CALM
        for region in play.regions:
            region.alive = True
            for site in region.sites:
                site.set(CALM)
        for server in play.servers.values():
            server.down = False
        play.link.cut = False
        self.down_until.clear()
        self.cut_until = 0
        for actor in play.kernel.living():
            actor.offset = 0
        for flow in play.flows:
            play.regions[0].registry.change_flow(flow.model_copy(update={"enabled": False, "revision": flow.revision + 1}))

    def _settle(self) -> bool:
        """Lets time pass until nothing moves; returns whether that came."""
        play = self.play
        until = play.kernel.now + PATIENCE
        while play.kernel.now < until:
            play.kernel.run(play.kernel.now + MINUTE)
            if len(play.regions) == 2 and not all(play.switchboard.agreed(number) for number in play.partitions):
                play.switchboard.put_in_order()
            elif self._rests():
                return True
        moving = [f"{row.id} {row.state} {row.reason} at {region.name}" for region, row in play.rows() if row.state not in RESTING]
        play.truth.violate(f"does not come to rest: {moving or 'messages go on'}")
        return False

    def _rests(self) -> bool:
        play = self.play
        moving = [row for region, row in play.rows() if row.state not in RESTING and not self._waits(region, row)]
        if moving or any(not self._waiting(region, envelope.message) for region in play.regions for envelope in region.queue.envelopes):
            return False
        if play.switchboard.busy or play.waiting():
            return False
        return all(self._adopted(number) for number in play.partitions)

    def _waits(self, region: Region, row: Transfer) -> bool:
        """A transfer may wait, visibly, for a path that a held one has reserved."""
        if row.reason != "destination_reserved":
            return False
        holders = {path.holder for path in region.ledger._paths.values()} - {None, row.id}
        return any(region.ledger._rows[one].transfer.state is State.HELD for one in holders if one in region.ledger._rows)

    def _waiting(self, region: Region, message: Message) -> bool:
        rows = [region.ledger._rows.get(one) for one in message.ids]
        return all(row is not None and self._waits(region, row.transfer) for row in rows)

    def _adopted(self, number: int) -> bool:
        if len(self.play.regions) == 1:
            return True
        home = self.play.home(number)
        known = {row.id for row in home.ledger.rows()} | {one for one, entry in home.table.entries.items() if entry.closed}
        entries = [entry for region in self.play.regions for entry in region.table.entries.values()]
        return all(entry.transfer in known for entry in entries if entry.partition == number and not entry.closed)

    def _find_the_rest(self) -> None:
        """Each flow and chore runs once more: what was listed before is known, and what was missed or left is found."""
        play = self.play
        for flow in play.flows:
            play.fire_by_hand(flow)
        for region in play.regions:
            play.kernel.spawn(f"desk{play.number()}@{region.name[7:11]}", region.name, partial(give_back, region.engine))
        if self._settle():
            if any(row.state is State.HELD and row.reason == "answer_lost" for _, row in play.rows()):
                # Nobody gives up earlier what may still arrive.
                play.kernel.run(play.kernel.now + (PUT_ARRIVES_WITHIN + CLOCKS_DIFFER) // timedelta(milliseconds=1))
            play.desk.look(all_of_them=True, patient=False, weary=True)
            if self._settle():
                self._reconcile()

    def _reconcile(self) -> None:
        """What operators are shown every hour: once all rests each region says that nothing is amiss."""
        play = self.play
        for region in play.regions:
            found = reconcile(region.unwatched(), [TENANT])
            if not found.clean:
                play.truth.violate(f"reconciled at {region.name}: {found.model_dump(exclude_defaults=True)}")
