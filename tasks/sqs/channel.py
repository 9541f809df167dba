"""The kombu transport itself.

It builds on kombu's virtual transport, which is meant to be extended, and not on kombu's own SQS transport: that one
polls in the worker's loop, where a failed ReceiveMessage ends the polling or the worker. Here threads poll, and the
worker's loop only ever sees sound messages.
"""

import logging
import os
import time
import weakref
from collections.abc import Callable
from functools import partial
from queue import Empty
from typing import Any, Final, NoReturn

import boto3
from kombu import Connection
from kombu.asynchronous import Hub, get_event_loop, set_event_loop
from kombu.exceptions import ChannelError, OperationalError
from kombu.transport import virtual

from tasks.drain import draining
from tasks.sqs.calls import CALL_ERRORS, Calls, described, send_within_deadline
from tasks.sqs.envelope import BrokenMessageError, Message, opened, sealed
from tasks.sqs.health import Polls
from tasks.sqs.leases import Leases
from tasks.sqs.options import Options
from tasks.sqs.polling import Poller
from tasks.sqs.window import Window

logger = logging.getLogger(__name__)

PLAIN: Final = "utf-8"

KOMBUS_OWN: Final = frozenset(
    {
        "callback",
        "connect_retries_timeout",
        "errback",
        "interval_max",
        "interval_start",
        "interval_step",
        "max_retries",
    }
)
"""What kombu.Connection adds to a transport's options, or reads from them, for its own reconnecting."""


_latest_loop: "weakref.ref[Hub] | None" = None


def _loop() -> Hub | None:
    """Returns the worker's loop. Celery resets it after an error and goes on with it, but kombu does not name it any more then."""
    global _latest_loop  # noqa: PLW0603 - kombu's own is global, too
    hub = get_event_loop()
    if hub is not None:
        _latest_loop = weakref.ref(hub)
    elif _latest_loop is not None and (hub := _latest_loop()) is not None:
        set_event_loop(hub)
    return hub


class Channel(virtual.Channel):
    """Sends to and consumes from the queues that the options name; nothing is created and nothing is looked up."""

    QoS = Window
    Message = Message
    body_encoding = PLAIN
    from_transport_options = ()

    def __init__(self, connection: "Transport", **kwargs: Any) -> None:  # noqa: ANN401 - kombu's signature
        super().__init__(connection, **kwargs)
        self._pid = os.getpid()
        self._options = connection.options
        self._calls = connection.calls
        self._polls = Polls(self._options.health_file)
        self._leases = Leases(self._calls, self._options)
        self._pollers: dict[str, Poller] = {}
        self._stopped: list[Poller] = []
        self._on_the_way: dict[str, str] = {}
        self._watched: tuple[Hub, int, int] | None = None
        self._window = Window(self)
        self._window.on_ack = self._leases.delete
        self._window.on_reject = self._rejected
        self._window.on_restore = self._leases.show_all_again
        self._qos = self._window

    def basic_consume(  # type: ignore[override] # the published types promise a tag, kombu returns none
        self,
        queue: str,
        no_ack: bool,  # noqa: FBT001 - kombu's signature
        callback: Callable[..., Any] | None,
        consumer_tag: str | None,
        **kwargs: Any,  # noqa: ANN401 - kombu's signature
    ) -> None:
        """Begins to poll the queue; each message is acknowledged or rejected by the consumer."""
        if no_ack:
            raise ChannelError("a message that nobody acknowledges would be lost with its worker")
        self._new_queue(queue)
        super().basic_consume(queue, no_ack, callback, consumer_tag, **kwargs)
        hub = _loop()
        if hub is not None and queue not in self._pollers:
            self._have_watched(hub)
            poller = self._pollers[queue] = Poller(
                queue,
                partial(self._hand_over, hub),
                calls=self._calls,
                options=self._options,
                window=self._window,
                leases=self._leases,
                polls=self._polls,
            )
            poller.start()

    def basic_cancel(self, consumer_tag: str) -> None:
        """Ends the polling of the consumer's queue."""
        queue = self._tag_to_queue.get(consumer_tag)
        super().basic_cancel(consumer_tag)
        if queue is not None and queue not in self._active_queues and (poller := self._pollers.pop(queue, None)):
            poller.stop()
            self._stopped.append(poller)
            self._turn_back(queue)

    def close(self) -> None:
        """Ends all polls and gives back what is held; takes little more than close_grace."""
        if self.closed or self._pid != os.getpid():
            # A forked child has a copy of this object, not of its messages.
            self.closed = True
            return
        for consumer_tag in list(self._consumers):
            self.basic_cancel(consumer_tag)
        until = time.monotonic() + self._options.close_grace
        for poller in self._stopped:
            poller.join(max(0.0, until - time.monotonic()))
        try:
            super().close()
            self._leases.close(until)
        finally:
            if self._watched is not None:
                hub, reading, writing = self._watched
                self._watched = None
                hub.remove_reader(reading)
                os.close(reading)
                os.close(writing)

    def _have_watched(self, hub: Hub) -> None:
        """Gives the worker's loop a file to watch, in which nothing ever happens: one that watches none sleeps for a tenth of a second at
        a time, whoever calls it meanwhile.
        """
        if self._watched is None:
            self._watched = (hub, *os.pipe())
            hub.add_reader(self._watched[1], lambda: None)

    def _hand_over(self, hub: Hub, queue: str, message: dict[str, Any]) -> None:
        """Brings a message from its poll's thread into the worker's loop."""
        self._on_the_way[message["properties"]["delivery_tag"]] = queue
        hub.call_soon(self._deliver, queue, message)
        if queue not in self._active_queues:
            self._turn_back(queue)

    def _turn_back(self, queue: str) -> None:
        """Gives back what the loop has not taken yet: a loop that has stopped takes nothing any more."""
        for tag in [tag for tag, its_queue in list(self._on_the_way.items()) if its_queue == queue]:
            if self._on_the_way.pop(tag, None) is not None:
                self._window.reject(tag, requeue=True)

    def _deliver(self, queue: str, message: dict[str, Any]) -> None:
        """Hands a message to its consumer, in the worker's loop."""
        tag = message["properties"]["delivery_tag"]
        if self._on_the_way.pop(tag, None) is None:
            return
        callbacks = None if self.closed else self.connection._callbacks  # noqa: SLF001 - as virtual.Transport
        callback = callbacks.get(queue) if callbacks else None
        if callback is None or draining():
            self._window.reject(tag, requeue=True)
            return
        try:
            callback(message)
        except Exception as error:
            # A message that Celery cannot take must not end its loop.
            logger.exception("a message of %s is left for its dead-letter queue: %s", queue, type(error).__name__)
            self._window.reject(tag, requeue=False)

    def _rejected(self, delivery_tag: str, requeue: bool) -> None:  # noqa: FBT001 - kombu's signature
        seconds = self._options.requeue_visibility if requeue else self._options.reject_visibility
        self._leases.show_again(delivery_tag, seconds=0 if requeue and draining() else seconds)

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:  # noqa: ARG002 - kombu's signature
        """Returns one message without an event loop; raises queue.Empty."""
        try:
            received = self._calls.receive(queue, 1)
        except CALL_ERRORS as error:
            logger.warning("poll of %s failed: %s", queue, described(error))
            raise Empty from error
        for one in received:
            receipt = one["ReceiptHandle"]
            self._leases.hold(queue, receipt)
            try:
                message = opened(one, queue)
            except BrokenMessageError:
                self._leases.show_again(receipt, seconds=self._options.reject_visibility)
            else:
                self._window.admit(receipt)
                return message
        raise Empty

    def _put(self, queue: str, message: dict[str, Any], **_: object) -> None:
        """Sends the message; raises OperationalError when SQS did not take it within the deadline."""
        self._new_queue(queue)
        try:
            send_within_deadline(self._calls, self._options, queue, sending=sealed(message))
        except CALL_ERRORS as error:
            raise OperationalError(f"{queue} did not take the message: {described(error)}") from error

    def _lookup(self, exchange: str, routing_key: str, default: str | None = None) -> list[str]:
        queues = list(super()._lookup(exchange, routing_key, default))
        if not queues and self.typeof(exchange).type == "direct":
            # kombu drops such a message without a word.
            raise ChannelError(f"no queue is bound to {exchange!r} with {routing_key!r}")
        return queues

    def _new_queue(self, queue: str, **_: object) -> None:
        if queue not in self._options.queue_urls:
            raise ChannelError(f"{queue!r} is none of the configured queues")

    def _purge(self, queue: str) -> NoReturn:  # noqa: ARG002 - kombu's signature
        raise ChannelError("queues are not purged from here: their messages stand for customers' transfers")

    def _delete(self, queue: str, *_: object, **__: object) -> NoReturn:  # noqa: ARG002 - kombu's signature
        raise ChannelError("queues are not deleted from here")


class Transport(virtual.Transport):
    """What `eftsqs://` stands for. Its settings are `broker_transport_options`, as tasks.sqs.options names them."""

    Channel = Channel
    driver_type = "sqs"
    driver_name = "sqs"
    implements = virtual.Transport.implements.extend(asynchronous=True, exchange_type=frozenset({"direct"}))

    def __init__(self, client: Connection, **kwargs: Any) -> None:  # noqa: ANN401 - kombu's signature
        super().__init__(client, **kwargs)
        given = client.transport_options or {}
        self.options = Options(**{name: value for name, value in given.items() if name not in KOMBUS_OWN})
        self.calls = Calls(self.options)

    @property
    def default_connection_params(self) -> dict[str, Any]:
        """There is no host: the queues' URLs and the region say where to go."""
        return {}

    def driver_version(self) -> str:
        """Returns boto3's version."""
        return boto3.__version__
