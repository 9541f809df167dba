"""Celery's events: put into a bounded buffer by whoever has something to tell, published to Redis by one thread."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self
from weakref import WeakKeyDictionary

from celery import Celery
from celery.app.events import Events
from celery.events.event import Event, get_exchange, group_from
from celery.utils.log import get_logger
from celery.utils.nodenames import anon_nodename
from celery.utils.time import utcoffset
from kombu import Exchange, Producer
from kombu.exceptions import EncodeError

from tasks.sidechannel.link import attached, connect, pause

logger = get_logger(__name__)

Told = dict[str, Any]

KEPT: Final = 10_000
"""Events kept while Redis is away; then the oldest go."""

TOGETHER: Final = 200
COALESCE: Final = 0.05
LEAVE_WITHIN: Final = 1.0
LET_OTHERS_RETURN: Final = 4.0
"""Redis forwards only to those who listen at that moment; after it was away, they come back first."""


class Publisher:
    """One process's way out for an app's events."""

    def __init__(self, app: Celery) -> None:
        self.pid = os.getpid()
        self.dropped = 0
        self._app = app
        self._buffer: deque[tuple[str, Told]] = deque(maxlen=KEPT)
        self._wake = threading.Event()
        self._empty = threading.Event()
        self._failures = 0
        self._connected = False
        threading.Thread(target=self._run, name="sidechannel-events", daemon=True).start()

    def tell(self, hostname: str, event: Told) -> None:
        """Takes the event along; never waits."""
        if len(self._buffer) == KEPT:
            self.dropped += 1
        self._buffer.append((hostname, event))
        self._empty.clear()
        self._wake.set()

    def flush(self) -> None:
        """Waits until everything is told: not at all while Redis is away, and never longer than a second."""
        if self._connected:
            self._empty.wait(LEAVE_WITHIN)

    def _run(self) -> None:
        while True:
            try:
                self._publish_while_connected()
            except Exception as error:  # noqa: BLE001 - whatever happens to Redis, the view comes back
                if self._connected or self._failures == 0:
                    logger.warning("side channel: events wait for Redis: %s", type(error).__name__)
                self._connected = False
                self._failures += 1
                time.sleep(pause(self._failures))

    def _publish_while_connected(self) -> None:
        with connect(self._app) as connection:
            exchange = get_exchange(connection, name=self._app.conf.event_exchange)
            producer = Producer(connection.channel(), exchange=exchange, auto_declare=False, serializer=self._app.conf.event_serializer)
            if self._failures:
                time.sleep(LET_OTHERS_RETURN)
                logger.warning("side channel: events flow again; %d were dropped so far", self.dropped)
            self._failures, self._connected = 0, True
            while True:
                if not self._buffer:
                    self._empty.set()
                    self._wake.wait()
                    time.sleep(COALESCE)
                self._wake.clear()
                self._publish_some(producer, exchange)

    def _publish_some(self, producer: Producer, exchange: Exchange) -> None:
        batch = [self._buffer.popleft() for _ in range(min(TOGETHER, len(self._buffer)))]
        groups: dict[tuple[str, str], list[Told]] = {}
        for hostname, event in batch:
            groups.setdefault((hostname, group_from(event["type"])), []).append(event)
        try:
            for (hostname, group), events in groups.items():
                self._publish(producer, exchange, hostname=hostname, group=group, events=events)
        except Exception:
            # Some may be told twice; whoever listens keeps state by id.
            room = KEPT - len(self._buffer)
            kept = batch[len(batch) - min(room, len(batch)) :]
            self.dropped += len(batch) - len(kept)
            self._buffer.extendleft(reversed(kept))
            raise

    def _publish(self, producer: Producer, exchange: Exchange, *, hostname: str, group: str, events: list[Told]) -> None:
        alone = len(events) == 1
        try:
            producer.publish(
                events[0] if alone else events,
                routing_key=events[0]["type"].replace("-", ".") if alone else f"{group}.multi",
                exchange=exchange.name,
                headers={"hostname": hostname},
                delivery_mode=1,
                declare=[exchange],
                retry=False,
            )
        except EncodeError:
            # Trying again would never end.
            self.dropped += len(events)
            logger.warning("side channel: %d events cannot be written as JSON", len(events))


_PUBLISHERS: "Final[WeakKeyDictionary[Celery, Publisher]]" = WeakKeyDictionary()


def publisher_of(app: Celery) -> Publisher:
    """Returns the publisher of this process; a forked child gets its own, with an empty buffer."""
    publisher = _PUBLISHERS.get(app)
    if publisher is None or publisher.pid != os.getpid():
        publisher = _PUBLISHERS[app] = Publisher(app)
    return publisher


class SideDispatcher:
    """What Celery's worker and producers know as the event dispatcher; ignores the connection that it is given."""

    app: Any  # Celery; the published types lack its clock

    def __init__(
        self,
        connection: object = None,  # noqa: ARG002 - the queues' connection, of no use here
        hostname: str | None = None,
        enabled: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        *_: object,
        app: Celery | None = None,
        groups: list[str] | None = None,
        **__: object,
    ) -> None:
        self.app = app or self.app
        self.connection = None  # Celery would keep a heartbeat on it
        self.hostname = hostname or anon_nodename()
        self.groups = set(groups or ())
        self.enabled = enabled and attached(self.app)
        self.on_enabled: set[Callable[[], object]] = set()
        self.on_disabled: set[Callable[[], object]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def send(self, type: str, blind: bool = False, **fields: Any) -> None:  # noqa: A002, ANN401, FBT001, FBT002 - Celery's
        """Tells of an event of this worker, unless nobody asked for its kind."""
        if self.enabled and (not self.groups or group_from(type) in self.groups):
            self._tell(type, blind, fields)

    def publish(self, type: str, fields: Told, producer: object, blind: bool = False, **_: object) -> None:  # noqa: A002, ARG002, FBT001, FBT002 - Celery's signature
        """Tells of an event of a producer, such as task-sent."""
        if attached(self.app):
            self._tell(type, blind, fields)

    def enable(self) -> None:
        """Events are told from now on."""
        self.enabled = attached(self.app)
        for callback in self.on_enabled:
            callback()

    def disable(self) -> None:
        """Events are kept back from now on; what was told still goes out."""
        if self.enabled:
            self.enabled = False
            self.close()
            for callback in self.on_disabled:
                callback()

    def flush(self, *_: object, **__: object) -> None:
        """Nothing waits here: the publisher holds what is not yet told."""

    def extend_buffer(self, other: object) -> None:
        """Nothing is buffered here that a successor would need."""

    def close(self) -> None:
        """Lets the last events out, for at most a second."""
        if attached(self.app):
            publisher_of(self.app).flush()

    def _tell(self, type_: str, blind: bool, fields: Told) -> None:  # noqa: FBT001 - Celery's name
        for unwanted in ("retry", "retry_policy", "utcoffset", "Event"):
            fields.pop(unwanted, None)
        event = Event(
            type_,
            hostname=self.hostname,
            utcoffset=utcoffset(),
            pid=os.getpid(),
            clock=None if blind else self.app.clock.forward(),
            **fields,
        )
        publisher_of(self.app).tell(self.hostname, event)


class SideEvents(Events):
    """`app.events` over the side channel."""

    dispatcher_cls = "tasks.sidechannel.events:SideDispatcher"

    @contextmanager
    def default_dispatcher(  # Celery's signature
        self,
        hostname: str | None = None,
        enabled: bool = True,  # noqa: FBT001, FBT002
        buffer_while_offline: bool = False,  # noqa: ARG002, FBT001, FBT002
    ) -> Iterator[Any]:
        """Yields the dispatcher of task.send_event(); needs no connection to the queues."""
        yield self.Dispatcher(None, hostname=hostname, enabled=enabled)
