"""A standard SQS queue: at least once, in no order, with delays, a visibility timeout that its holder extends, and a dead-letter queue."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from eft.errors import Transient
from eft.journey.messages import Message
from tests.simulation.kernel import SECOND, Actor, Kernel
from tests.simulation.weather import PROCESS, SQS, Request, Site

OF_CALL: Final = {
    "send": {"send_refused", "send_unheard", "duplicated", "delayed"},
    "receive": {"swallowed", "visibility_lapsed"},
    "delete": {"delete_lost"},
}
VISIBILITY: Final = 120 * SECOND


@dataclass(eq=False, slots=True)
class Envelope:
    """One message in the queue."""

    message: Message
    visible_at: int
    receives: int = 0
    holder: Actor | None = None
    done: bool = False


class QueueSite(Site):
    """Where messages are sent, received and deleted."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        super().__init__(kernel, name, (*PROCESS, *SQS), slowest=20)

    def copy(self) -> Site:
        return QueueSite(self.kernel, self.name)

    def faulty(self, fault: str, request: Request) -> Any:  # noqa: ANN401 - an answer
        if fault not in OF_CALL[request.call]:
            return request.do()
        kernel = self.kernel
        kernel.fire(fault)
        if fault == "delete_lost":
            return None
        if request.call == "receive":
            return request.do(fault=fault)
        if fault == "delayed":
            return request.do(late=kernel.random.choice([200, 3000, 60_000, 300_000]))
        if fault != "send_refused":
            request.do()
        if fault == "duplicated":
            return request.do(late=kernel.random.choice([0, 500, 20_000, 200_000]))
        raise Transient("the queue does not answer", reason="aws_unavailable")


@dataclass(slots=True)
class SimQueue:
    """All queues of a region as one; workers that wait are woken as messages become visible."""

    kernel: Kernel
    region: str
    max_receives: int = 10
    """After so many a message goes to the dead-letter queue; the sweep goes on with its rows."""
    site: QueueSite = field(init=False)
    envelopes: list[Envelope] = field(default_factory=list)
    dead_letters: list[Message] = field(default_factory=list)
    idle: list[Actor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.site = QueueSite(self.kernel, f"queue@{self.region}")

    # -- for processes -------------------------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        self.kernel.call(self.site, "send", self.put, (message,))

    def receive(self) -> Envelope:
        """Returns a message once there is one; which, chance decides."""
        me = self.kernel.current
        while True:
            received: Envelope | None = self.kernel.call(self.site, "receive", self._take, (me,))
            if received is not None:
                return received
            if self._visible():
                continue
            self.idle.append(me)
            self.kernel.park()

    def delete(self, envelope: Envelope) -> None:
        self.kernel.call(self.site, "delete", self._remove, (envelope,))

    # -- effects -------------------------------------------------------------------------------------------------------

    def put(self, message: Message, *, late: int = 0) -> None:
        """Takes a message in."""
        delay = -(-int(message.delay.total_seconds() * SECOND) // SECOND) * SECOND
        envelope = Envelope(message, self.kernel.now + delay + late)
        self.envelopes.append(envelope)
        self.kernel.at(envelope.visible_at, self._announce)

    def _take(self, me: Actor, *, fault: str | None = None) -> Envelope | None:
        visible = self._visible()
        if not visible:
            return None
        envelope = visible[self.kernel.random.randrange(len(visible))]
        if envelope is not visible[0]:
            self.kernel.fired["reordered"] += 1
        envelope.receives += 1
        if envelope.receives > self.max_receives:
            self.kernel.fire("dead_letter")
            self.envelopes.remove(envelope)
            self.dead_letters.append(envelope.message)
            return None
        if envelope.receives > 1:
            self.kernel.fired["redelivered"] += 1
        envelope.holder = None if fault is not None else me
        envelope.visible_at = self.kernel.now + VISIBILITY
        receives = envelope.receives
        self.kernel.at(envelope.visible_at, lambda: self._expire(envelope, receives))
        # A long poll of a client that is gone swallows the message until it is visible again.
        return None if fault == "swallowed" else envelope

    def _remove(self, envelope: Envelope) -> None:
        if not envelope.done:
            envelope.done = True
            if envelope in self.envelopes:
                self.envelopes.remove(envelope)

    def _expire(self, envelope: Envelope, receives: int) -> None:
        if envelope.done or envelope.receives != receives:
            return
        holder = envelope.holder
        if holder is not None and not (holder.dead or holder.done or holder.frozen):
            envelope.visible_at = self.kernel.now + VISIBILITY
            self.kernel.at(envelope.visible_at, lambda: self._expire(envelope, receives))
            return
        envelope.holder = None
        self._announce()

    def _visible(self) -> list[Envelope]:
        now = self.kernel.now
        return [envelope for envelope in self.envelopes if envelope.visible_at <= now]

    def _announce(self) -> None:
        self.idle = [actor for actor in self.idle if not (actor.dead or actor.done)]
        if self.idle and self._visible():
            self.kernel.wake(self.idle.pop(self.kernel.random.randrange(len(self.idle))))
