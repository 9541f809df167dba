"""How many messages a consumer may hold at a time: kombu's prefetch window, without its busy waiting."""

from collections.abc import Callable
from threading import Condition

from kombu.transport import virtual

from tasks.sqs.calls import BATCH


class Window(virtual.QoS):
    """The deliveries that a channel holds, and the room for more. Any thread may settle a delivery.

    Replaces every method of kombu's class, which expects a single thread, restores by publishing again, and lets a
    consumer that is full spin.
    """

    def __init__(self, channel: virtual.Channel, prefetch_count: int = 0) -> None:
        self.channel = channel
        self._changed = Condition()
        self._limit = prefetch_count
        self._taken: set[str] = set()
        self._reserved = 0
        self.on_ack: Callable[[str], None] = lambda _tag: None
        self.on_reject: Callable[[str, bool], None] = lambda _tag, _requeue: None
        self.on_restore: Callable[[], None] = lambda: None

    @property
    def prefetch_count(self) -> int:
        """The most messages to hold; 0 sets no limit."""
        return self._limit

    @prefetch_count.setter
    def prefetch_count(self, limit: int) -> None:
        with self._changed:
            self._limit = limit
            self._changed.notify_all()

    def reserve(self, patience: float, *, most: int = BATCH) -> int:
        """Returns for how many messages a poll may ask, at most ten, or `most`; 0 when there was no room for `patience` seconds.

        Where the room is taken by other queues' polls that may stay empty, one message is granted all the same: so the
        window may be overrun by at most one message per queue, and no queue waits for another's long poll.
        """
        with self._changed:
            if self._room() - self._reserved <= 0:
                self._changed.wait(patience)
            room = self._room()
            if room <= 0:
                return 0
            granted = max(1, min(most, room - self._reserved))
            self._reserved += granted
            return granted

    def release(self, granted: int) -> None:
        """Ends a reservation; what the poll brought was admitted before."""
        with self._changed:
            self._reserved -= granted
            self._changed.notify_all()

    def admit(self, delivery_tag: str) -> None:
        """The message takes its place."""
        with self._changed:
            self._taken.add(delivery_tag)

    @property
    def held(self) -> int:
        """How many messages are in hand."""
        return len(self._taken)

    def can_consume(self) -> bool:
        """Returns whether there is room."""
        with self._changed:
            return self._room() > 0

    def can_consume_max_estimate(self) -> int:
        """Returns the room."""
        with self._changed:
            return max(0, self._room())

    def append(self, message: virtual.Message, delivery_tag: str) -> None:  # noqa: ARG002 - kombu's signature
        """Takes note of a message that kombu delivers."""
        self.admit(delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """The message is done."""
        self._leave(delivery_tag)
        self.on_ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """The message goes back, or is left for the dead-letter queue."""
        self._leave(delivery_tag)
        self.on_reject(delivery_tag, requeue)

    def restore_unacked(self) -> None:
        """Gives back every message that is held."""
        with self._changed:
            self._taken.clear()
            self._changed.notify_all()
        self.on_restore()

    def restore_unacked_once(self, stderr: object = None) -> None:  # noqa: ARG002 - kombu's signature
        """Gives back every message that is held."""
        self.restore_unacked()

    def _leave(self, delivery_tag: str) -> None:
        with self._changed:
            self._taken.discard(delivery_tag)
            self._changed.notify_all()

    def _room(self) -> int:
        return self._limit - len(self._taken) if self._limit else BATCH + self._reserved
