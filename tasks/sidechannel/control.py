"""Remote control over Redis: the client of the commands, and the worker's mailbox in a thread of its own."""

from concurrent.futures import Future
from threading import Event, Thread
from typing import Any, Final

from celery import Celery, bootsteps
from celery.app.control import Control
from celery.utils.collections import AttributeDict
from celery.utils.functional import pass1
from celery.utils.log import get_logger
from celery.worker import state as worker_state
from celery.worker.control import Panel
from kombu.exceptions import OperationalError
from kombu.pidbox import Mailbox, Node

from tasks import drain
from tasks.sidechannel.link import attached, connect, pause

logger = get_logger(__name__)

ANSWER_WITHIN: Final = 5.0
LOOK_EVERY: Final = 1.0
LEAVE_WITHIN: Final = 1.5


class SideControl(Control):
    """`app.control`: ping, inspect, revoke, shutdown and the rest, sent over Redis."""

    def __init__(self, app: Celery) -> None:
        super().__init__(app)
        self.mailbox = _mailbox(app, self.Mailbox)

    def broadcast(self, command: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Celery's signature
        """Sends the command and returns the replies, if any were asked for.

        Raises kombu's OperationalError, within seconds, when Redis is not there.

        Without a side channel nobody hears, and the answer is None as from a cluster without workers.
        """
        if kwargs.get("connection") is not None:
            return super().broadcast(command, *args, **kwargs)
        if not attached(self.app):
            return None
        with connect(self.app) as own:
            try:
                return super().broadcast(command, *args, **{**kwargs, "connection": own, "channel": own.channel()})
            except own.recoverable_connection_errors as error:
                raise OperationalError(f"no Redis: {type(error).__name__}") from error

    def _after_fork(self) -> None:
        """Celery would reset a pool of connections here; each command has its own."""


class ControlStep(bootsteps.StartStopStep):
    """The worker's ear: listens on Redis in its own thread, while commands run in the worker's loop."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    label = "Side channel control"

    def __init__(self, consumer: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Celery's signature
        super().__init__(consumer, **kwargs)
        self.enabled = attached(consumer.app) and consumer.app.conf.worker_enable_remote_control
        self._stopping = Event()
        self._thread: Thread | None = None

    def start(self, consumer: Any) -> None:  # noqa: ANN401 - Celery's consumer
        """Begins to listen."""
        self._stopping = Event()
        self._thread = Thread(target=self._listen, args=(consumer, self._stopping), name="sidechannel-control", daemon=True)
        self._thread.start()

    def stop(self, _consumer: object) -> None:
        """Ends the listening; a worker that leaves does not wait for it."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None and not drain.draining():
            thread.join(LEAVE_WITHIN)

    shutdown = stop

    def _listen(self, consumer: Any, stopping: Event) -> None:  # noqa: ANN401 - Celery's consumer
        failures = 0
        while not stopping.is_set():
            try:
                with connect(consumer.app) as connection:
                    mailbox = _mailbox(consumer.app, _LoopMailbox)(connection)
                    node = mailbox.Node(consumer.hostname, _state(consumer), connection.channel(), Panel.data)
                    node.listen()
                    if failures:
                        logger.warning("side channel: remote control is back")
                    failures = 0
                    self._hear(connection, stopping)
            except Exception as error:  # noqa: BLE001 - whatever happens to Redis, control comes back
                if not failures:
                    logger.warning("side channel: no remote control: %s", type(error).__name__)
                failures += 1
                stopping.wait(pause(failures))

    def _hear(self, connection: Any, stopping: Event) -> None:  # noqa: ANN401 - kombu's connection
        while not stopping.is_set():
            try:
                connection.drain_events(timeout=LOOK_EVERY)
            except TimeoutError:
                continue


class _LoopNode(Node):
    """Runs each command in the worker's loop, where Celery expects it."""

    def handle(self, method: str, arguments: dict[str, Any] | None = None) -> Any:  # noqa: ANN401 - any command's answer
        answer: Future[Any] = Future()
        super_handle = super().handle

        def run() -> None:
            try:
                answer.set_result(super_handle(method, arguments))
            except SystemExit as leaving:
                drain.begin()
                worker_state.should_stop = leaving.code if isinstance(leaving.code, int) else 0  # type: ignore[assignment] # published as None alone
                answer.set_result({"ok": "shutting down"})
            except Exception as error:  # noqa: BLE001 - the answer carries it
                answer.set_exception(error)

        consumer: Any = self.state.consumer  # type: ignore[union-attr] # a listening node has its state
        consumer.hub.call_soon(run)
        return answer.result(ANSWER_WITHIN)


class _LoopMailbox(Mailbox):
    node_cls = _LoopNode


def _mailbox(app: Any, kind: type[Mailbox]) -> Any:  # noqa: ANN401 - the published types lack the app's clock and the mailbox's call
    """Returns the mailbox that both sides know, without a pool of connections to the queues."""
    return kind(
        app.conf.control_exchange,
        type="fanout",
        accept=["json"],
        serializer="json",
        clock=app.clock,
        producer_pool=None,
        reply_queue_ttl=app.conf.control_queue_ttl,
        reply_queue_expires=app.conf.control_queue_expires,
    )


def _state(consumer: Any) -> AttributeDict:  # noqa: ANN401 - Celery's consumer
    return AttributeDict(
        app=consumer.app,
        hostname=consumer.hostname,
        consumer=consumer,
        tset=pass1 if consumer.controller.use_eventloop else set,
    )
