"""What the broker, the drain and the side channel rely on inside kombu, Celery and Flower. When a new version changes
it, these tests say so before a worker does.
"""

import inspect
import os
import threading
import time
from typing import Any

import pytest
from celery.app.control import Control
from celery.events.dispatcher import EventDispatcher
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.request import Request
from flower.app import Flower
from flower.events import Events
from kombu.asynchronous import Hub
from kombu.message import Message
from kombu.pidbox import Mailbox, Node
from kombu.transport import virtual

from tasks.sidechannel.events import SideDispatcher
from tasks.sqs.window import Window


def parameters(function: Any) -> str:  # noqa: ANN401 - any callable
    """Returns the names of a callable's parameters."""
    return " ".join(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (virtual.Channel.__init__, "self connection kwargs"),
        (virtual.Channel.basic_consume, "self queue no_ack callback consumer_tag kwargs"),
        (virtual.Channel.basic_cancel, "self consumer_tag"),
        (virtual.Channel.basic_ack, "self delivery_tag multiple"),
        (virtual.Channel.basic_reject, "self delivery_tag requeue"),
        (virtual.Channel._lookup, "self exchange routing_key default"),
        (virtual.Channel._put, "self queue message"),
        (virtual.Channel._get, "self queue timeout"),
        (virtual.Channel._new_queue, "self queue kwargs"),
        (virtual.Message.__init__, "self payload channel kwargs"),
        (virtual.Transport.__init__, "self client kwargs"),
        (Message.decode, "self"),
        (Message.reject, "self requeue"),
        (Hub.call_soon, "self callback args"),
        (Hub.call_repeatedly, "self delay callback args"),
        (Node.handle, "self method arguments"),
        (Mailbox.Node, "self hostname state channel handlers"),
        (vars(Control)["_after_fork"], "self"),
        (Events.__init__, "self capp io_loop db persistent enable_events state_save_interval max_tasks_in_memory kwargs"),
        (Events.run, "self"),
        (Events.on_event, "self event"),
        (Flower.start_http_server, "self"),
        (Flower.stop, "self"),
    ],
)
def test_signatures_are_as_we_override_or_call_them(function: Any, expected: str) -> None:  # noqa: ANN401 - any callable
    """A method that we override or call still takes what it took."""
    assert parameters(function) == expected


def test_the_window_replaces_all_of_kombus_qos() -> None:
    """No method of kombu's QoS is inherited, apart from one that does nothing."""
    public = {name for name, _ in inspect.getmembers(virtual.QoS, inspect.isfunction)} - {"__init__"}
    inherited = {name for name in public if getattr(Window, name) is getattr(virtual.QoS, name)}
    assert inherited <= {"get", "_flush", "restore_visible"}


def test_the_dispatcher_has_all_that_celery_uses() -> None:
    """Each public method of Celery's event dispatcher is there, with its attributes."""
    methods = {name for name, _ in inspect.getmembers(EventDispatcher, inspect.isfunction) if not name.startswith("_")}
    assert {name for name in methods if not hasattr(SideDispatcher, name)} == set()


def test_the_channel_finds_kombus_state() -> None:
    """The attributes of the virtual channel and transport that are read are the ones that kombu writes."""
    source = inspect.getsource(virtual.Channel)
    for attribute in ("_consumers", "_tag_to_queue", "_active_queues", "_qos", "closed"):
        assert f"self.{attribute} = " in source
    assert "self.connection._callbacks[queue] = _callback" in source
    assert "self._callbacks = {}" in inspect.getsource(virtual.Transport)


def test_celery_knows_which_tasks_have_begun() -> None:
    """The worker's state tells reserved, scheduled and active requests apart, and a request knows its message."""
    for name in ("reserved_requests", "scheduled_requests", "active_requests", "should_stop"):
        assert hasattr(state, name)
    assert isinstance(Request.message, property)
    assert Request.acknowledged is False
    assert "if not self.acknowledged" in inspect.getsource(Request.reject)
    # What the envelope's own look at the payload is for:
    assert "message.ack()" in inspect.getsource(Consumer.on_decode_error)


def test_a_loop_is_woken_from_another_thread() -> None:
    """Kombu's hub takes callbacks from any thread at once, though its timers leave it asleep for ten seconds."""
    hub = Hub()
    hub.call_later(60, print)
    called = threading.Event()
    began = time.monotonic()

    def call_from_elsewhere() -> None:
        time.sleep(0.5)
        hub.call_soon(called.set)

    thread = threading.Thread(target=call_from_elsewhere)
    thread.start()
    reader = _Pipe()
    hub.add_reader(reader, print)
    while not called.is_set():
        hub.run_once()
    assert time.monotonic() - began < 8
    thread.join()
    hub.close()
    reader.close()


class _Pipe:
    """Something to wait for, as a worker has by its channel."""

    def __init__(self) -> None:
        self._ends = os.pipe()

    def fileno(self) -> int:
        return self._ends[0]

    def close(self) -> None:
        for end in self._ends:
            os.close(end)
