"""The parts of the broker one by one: the window, the leases, the envelope, the health record, the options."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from botocore import exceptions
from kombu import Connection, Consumer, Exchange, Queue
from kombu.asynchronous import Hub, set_event_loop

from tasks.sqs import SCHEME, health, leases
from tasks.sqs.calls import Answers, Calls, backoff, described, worth_retrying
from tasks.sqs.channel import Transport
from tasks.sqs.envelope import BrokenMessageError, opened, receive_count, sealed
from tasks.sqs.health import Polls, silent_queues
from tasks.sqs.leases import Leases
from tasks.sqs.options import Options
from tasks.sqs.polling import GIVES_WAY, Poller
from tasks.sqs.window import Window
from tests.tasks.conftest import MakeQueues, StartEngine, eventually

if TYPE_CHECKING:
    from kombu.message import Message
    from kombu.transport import virtual
    from mypy_boto3_sqs.type_defs import MessageTypeDef


def _window(limit: int) -> Window:
    channel: virtual.Channel = SimpleNamespace()  # type: ignore[assignment] # the window only keeps it
    return Window(channel, limit)


def test_a_window_grants_what_is_free_and_ten_at_most() -> None:
    """Reservations of polls under way count as taken; without a limit a poll asks for ten."""
    window = _window(12)
    assert window.reserve(0) == 10
    assert window.reserve(0, most=1) == 1
    assert window.reserve(0) == 1
    window.release(10)
    for n in range(11):
        window.admit(str(n))
    assert window.can_consume()
    assert window.can_consume_max_estimate() == 1
    window.admit("11")
    assert not window.can_consume()
    assert window.reserve(0) == 0
    assert _window(0).reserve(0) == 10


@pytest.mark.parametrize(("queue", "most"), [("parts", 1), ("deliver", 4)])
def test_lanes_are_taken_one_by_one(queue: str, most: int) -> None:
    """What is sent together is shared by the workers that ask, where the queue is one of those; elsewhere a poll asks for all that fits."""
    asked: list[int] = []
    pollers: list[Poller] = []

    class Silent(Calls):
        def receive(self, queue: str, limit: int) -> "list[MessageTypeDef]":
            asked.append(limit)
            pollers[0].stop()
            return []

    options = Options(queue_urls={queue: "http://127.0.0.1/"}, region="us-gov-west-1", one_by_one=("parts",))
    calls = Silent(options)
    poller = Poller(
        queue, lambda *_: None, calls=calls, options=options, window=_window(4), leases=Leases(calls, options), polls=Polls(None)
    )
    pollers.append(poller)
    poller.run()
    assert asked == [most]


@pytest.mark.parametrize(("queue", "held", "waits"), [("parts", 3, True), ("deliver", 3, False)])
def test_who_has_lanes_in_hand_gives_way(queue: str, held: int, waits: bool) -> None:
    """Before it asks for one more: an idle worker is not to stand by while another one takes them all."""
    options = Options(queue_urls={queue: "http://127.0.0.1/"}, region="us-gov-west-1", one_by_one=("parts",))

    class Bringing(Calls):
        def receive(self, queue: str, limit: int) -> "list[MessageTypeDef]":
            return [{"ReceiptHandle": "r", "Body": "broken", "MessageId": "m"}]

    window, calls = _window(4), Bringing(options)
    for n in range(held):
        window.admit(str(n))
    leases = Leases(calls, options)
    poller = Poller(queue, lambda *_: None, calls=calls, options=options, window=window, leases=leases, polls=Polls(None))
    assert poller._poll(1) == (GIVES_WAY * held if waits else 0)
    leases.close(0)


def test_a_window_lets_no_queue_wait_for_another_queues_long_poll() -> None:
    """When the free places are reserved by polls that may stay empty, one message is granted all the same."""
    window = _window(1)
    assert window.reserve(0) == 1
    assert window.reserve(0.01) == 1


def test_a_full_window_wakes_when_a_message_is_done() -> None:
    """A poll that waits for room goes on as soon as a thread acknowledges, and when the limit grows."""
    window = _window(1)
    window.admit("tag")
    granted: list[int] = []
    waiting = threading.Thread(target=lambda: granted.append(window.reserve(30)))
    waiting.start()
    window.ack("tag")
    waiting.join(10)
    window.admit("tag")
    window.prefetch_count = 2
    assert granted == [1]
    assert window.can_consume()


@dataclass
class ScriptedCalls(Calls):
    """Answers about receipts as a test says."""

    answer: Callable[[Sequence[str]], Answers]
    asked: list[tuple[str, int | None, tuple[str, ...]]] = field(default_factory=list)

    def delete(self, queue: str, receipts: Sequence[str]) -> Answers:
        self.asked.append((queue, None, tuple(receipts)))
        return self.answer(receipts)

    def hide(self, queue: str, receipts: Sequence[str], *, seconds: int) -> Answers:
        self.asked.append((queue, seconds, tuple(receipts)))
        return self.answer(receipts)


def _well(receipts: Sequence[str]) -> Answers:
    return Answers(frozenset(receipts), frozenset())


def _refused(receipts: Sequence[str]) -> Answers:
    return Answers(frozenset(), frozenset(receipts))


def _silent(_: Sequence[str]) -> Answers:
    return Answers(frozenset(), frozenset())


def _dead(_: Sequence[str]) -> Answers:
    raise exceptions.EndpointConnectionError(endpoint_url="nowhere")


QUICK = Options(visibility_timeout=1, backoff_base=0.01, backoff_cap=0.02, close_grace=0.2)


def _close(held: Leases) -> None:
    held.close(time.monotonic() + 5)


def test_leases_are_extended_until_they_are_settled() -> None:
    """What is held is hidden again and again; once given back it is not hidden again; verdicts go out in batches."""
    calls = ScriptedCalls(_well)
    held = Leases(calls, QUICK)
    for n in range(12):
        held.hold("q", f"r{n}")
    eventually(lambda: sum(seconds == 1 for _, seconds, _ in calls.asked) >= 4)
    calls.asked.clear()
    held.show_all_again()
    held.show_all_again()
    eventually(lambda: sum(len(receipts) for _, seconds, receipts in calls.asked if seconds == 0) == 12)
    held.show_again("r1", seconds=5)
    held.delete("never held")
    _close(held)
    assert [len(receipts) for _, seconds, receipts in calls.asked if seconds == 0] == [10, 2]
    assert not [receipts for _, seconds, receipts in calls.asked if seconds == 5 or seconds is None]


def test_a_lease_that_sqs_ended_is_let_go() -> None:
    """A refused extension counts as lost, and nothing more is asked about it."""
    calls = ScriptedCalls(_refused)
    held = Leases(calls, QUICK)
    held.hold("q", "r")
    eventually(lambda: held.lost == 1)
    held.delete("r")
    _close(held)
    assert len(calls.asked) == 1


def test_a_lease_is_not_extended_for_ever() -> None:
    """After the longest hold a message is left to reappear."""
    calls = ScriptedCalls(_well)
    held = Leases(calls, Options(visibility_timeout=1, longest_hold=0))
    held.hold("q", "r")
    held.hold("q", "s")
    time.sleep(1)
    assert not calls.asked


@pytest.mark.parametrize("answer", [_dead, _silent])
def test_a_verdict_is_tried_until_its_time_is_over(answer: Callable[[Sequence[str]], Answers], monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that SQS says nothing about is settled later, and given up in the end."""
    monkeypatch.setattr(leases, "SETTLE_AT_LEAST", 0.0)
    calls = ScriptedCalls(answer)
    held = Leases(calls, Options(visibility_timeout=1, backoff_base=0.01, backoff_cap=0.02))
    held.hold("q", "r")
    held.delete("r")
    eventually(lambda: not held._verdicts)
    assert len([seconds for _, seconds, _ in calls.asked if seconds is None]) > 3
    _close(held)


def test_closing_does_not_wait_for_a_dead_endpoint() -> None:
    """What cannot be told within the grace is left to reappear."""
    held = Leases(ScriptedCalls(_dead), QUICK)
    held.hold("q", "r")
    held.show_all_again()
    began = time.monotonic()
    held.close(began)
    assert time.monotonic() - began < 5
    assert held._verdicts


def test_leases_survive_what_nobody_foresaw(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the looking after itself is logged, and the next round goes on."""
    calls = ScriptedCalls(_well)
    held = Leases(calls, QUICK)
    rounds: list[int] = []
    extend = held._extend

    def fail_once(due: Any) -> None:  # noqa: ANN401 - as the original
        rounds.append(len(due))
        if len(rounds) == 1:
            raise RuntimeError
        extend(due)

    monkeypatch.setattr(held, "_extend", fail_once)
    held.hold("q", "r")
    eventually(lambda: len(calls.asked) > 1)
    held.delete("r")
    _close(held)


def _received(body: object) -> Any:  # noqa: ANN401 - botocore's message
    return {"MessageId": "1", "ReceiptHandle": "r", "Body": body, "Attributes": {"ApproximateReceiveCount": "3"}}


def test_an_envelope_comes_back_as_it_was_sealed() -> None:
    """SQS's own options leave the envelope; what SQS says about the message joins its delivery."""
    message = {
        "body": "[[], {}, {}]",
        "headers": {"task": "work", "id": "1"},
        "content-type": "application/json",
        "properties": {
            "delivery_info": {"exchange": "e", "routing_key": "k"},
            "delay_seconds": 7,
            "MessageGroupId": "tenant",
            "message_attributes": {"a": {"DataType": "String", "StringValue": "b"}},
        },
    }
    sending = sealed(message)
    assert sending["DelaySeconds"] == 7
    assert sending["MessageGroupId"] == "tenant"
    assert set(sending["MessageAttributes"]) == {"a"}
    found = opened(_received(sending["MessageBody"]), "q")
    delivery = found["properties"].pop("delivery_info")
    assert delivery == {"exchange": "e", "routing_key": "k", "receive_count": 3, "redelivered": True}
    assert found["properties"] == {"delivery_tag": "r"}
    assert receive_count(SimpleNamespace(properties={"delivery_info": delivery})) == 3
    assert receive_count(SimpleNamespace(properties=None)) == 1


@pytest.mark.parametrize("body", ["", "{", "null", "[]", "[" * 100_000, "{}", '{"properties": {}}', '"\\ud800"'])
def test_what_is_no_envelope_is_broken(body: str) -> None:
    """Whatever else lies in the queue raises the one error."""
    with pytest.raises(BrokenMessageError):
        opened(_received(body), "q")


@pytest.mark.parametrize(
    ("name", "value"),
    [("wait_time_seconds", 21), ("visibility_timeout", 0), ("requeue_visibility", -1), ("reject_visibility", 0)],
)
def test_options_refuse_what_sqs_refuses(name: str, value: int) -> None:
    """A duration out of SQS's range is found at the start."""
    with pytest.raises(ValueError, match=name):
        Options(**{name: value})  # type: ignore[arg-type]


def test_options_refuse_names_that_nobody_knows() -> None:
    """A misspelt transport option is an error, not a wish."""
    with pytest.raises(TypeError), Connection(f"{SCHEME}://", transport_options={"visibilty_timeout": 5}) as connection:
        connection.connect()


def test_backoff_grows_to_its_cap() -> None:
    """Pauses double, jitter, and never exceed the cap."""
    options = Options(backoff_base=1, backoff_cap=8)
    for failures, ceiling in ((1, 1), (2, 2), (3, 4), (4, 8), (99, 8)):
        assert ceiling / 2 <= backoff(options, failures) <= ceiling


def test_errors_are_told_by_type_and_code() -> None:
    """A mistake of ours is not tried again, a mood of theirs is; no description quotes the request."""
    denied = exceptions.ClientError(
        {"Error": {"Code": "AccessDenied", "Message": "secret"}, "ResponseMetadata": {"HTTPStatusCode": 403}},  # type: ignore[typeddict-item]
        "SendMessage",
    )
    assert not worth_retrying(denied)
    assert described(denied) == "SendMessage AccessDenied (HTTP 403)"
    assert not worth_retrying(exceptions.ParamValidationError(report="secret"))
    assert worth_retrying(exceptions.NoCredentialsError())
    assert described(ValueError("secret")) == "ValueError"


def test_the_health_record_tells_silent_queues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A queue that answers, and one that need not be asked, are well; one that fails grows silent; others are left out."""
    path = tmp_path / "health"
    polls = Polls(str(path))
    assert health.main([str(path), "60"]) == 1
    for queue in ("heard", "full", "failing", "gone"):
        polls.watch(queue)
    before = time.time()
    polls.heard("heard")
    polls.full("full")
    assert [polls.failed("failing"), polls.failed("failing")] == [1, 2]
    for change in (polls.forget, polls.heard, polls.full):
        change("gone")
    known = polls.queues()
    assert set(known) == {"heard", "full", "failing"}
    assert known["failing"].failures == 2
    assert known["heard"].heard is not None
    assert known["heard"].heard >= before
    assert silent_queues(path, older_than=60, now=time.time()) == []
    assert health.main([str(path), "60"]) == 0
    assert silent_queues(path, older_than=60, now=time.time() + 61) == ["failing", "full", "heard"]
    path.write_text(json.dumps({"q": {"heard": None, "well": 1.0, "failures": 9}}))
    assert health.main([str(path), "60"]) == 1
    assert "q" in capsys.readouterr().err


def test_a_health_record_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    """Without its directory the file is missing, and the poll goes on."""
    polls = Polls(str(tmp_path / "missing" / "health"))
    polls.watch("q")
    assert polls.queues()["q"].failures == 0


def test_a_consumer_in_a_loop_receives_settles_and_gives_back(make_queues: MakeQueues, engine: StartEngine) -> None:
    """In one process: what is acknowledged is gone, what is given back comes again, what the consumer cannot take goes
    towards the dead-letter queue, and what was received but not yet taken is given back by closing.
    """
    queues = make_queues(receives=2)
    (name,) = queues.names
    here = engine(queues.transport(reject_visibility=1))
    hub = Hub()
    set_event_loop(hub)
    taken: list[str] = []

    def on_message(message: "Message") -> None:
        task = message.payload[0][0]
        taken.append(task)
        if task == "gone":
            message.ack()
        elif task == "again":
            message.requeue() if taken.count("again") == 1 else message.ack()
        else:
            raise RuntimeError(task)

    for task in ("gone", "again", "never"):
        here.send("work", task)
    with Connection(f"{SCHEME}://", transport_options=queues.transport()) as connection:
        assert isinstance(connection.transport, Transport)
        assert connection.transport.driver_version()
        queue = Queue(name, Exchange(name), routing_key=name)
        consumer = Consumer(connection, [queue], on_message=on_message)
        consumer.qos(prefetch_count=10)
        with consumer:

            def turn(until: Callable[[], bool]) -> bool:
                hub.run_once()
                return until()

            assert hub.readers, "a loop that watches nothing is not woken by who calls it"
            eventually(lambda: turn(lambda: queues.empty(name) and queues.dead(name) == 1))
            assert sorted(taken) == ["again", "again", "gone", "never", "never"]
            here.send("work", "untaken")
            eventually(lambda: queues.count(name) == (0, 1))
    eventually(lambda: queues.count(name) == (1, 0))
    assert not hub.readers
    hub.close()


def test_a_loop_that_was_reset_hears_again(make_queues: MakeQueues, engine: StartEngine) -> None:
    """After an error in it Celery resets its loop and consumes anew: kombu does not name the loop any more, and nobody would poll."""
    queues = make_queues()
    (name,) = queues.names
    hub = Hub()
    set_event_loop(hub)
    taken: list[str] = []

    def on_message(message: "Message") -> None:
        taken.append(message.payload[0][0])
        message.ack()

    for task in ("before", "after"):
        engine(queues.transport()).send("work", task)
        with Connection(f"{SCHEME}://", transport_options=queues.transport()) as connection:
            with Consumer(connection, [Queue(name, Exchange(name), routing_key=name)], on_message=on_message):

                def turn(until: Callable[[], bool]) -> bool:
                    hub.run_once()
                    return until()

                eventually(partial(turn, partial(taken.__contains__, task)))
            hub.reset()
    hub.close()


def test_a_message_can_be_fetched_without_a_loop(make_queues: MakeQueues, engine: StartEngine) -> None:
    """basic_get returns a message or nothing, leaves broken ones alone, and an endpoint that is away means nothing."""
    queues = make_queues(receives=1)
    (name,) = queues.names
    here = engine(queues.transport())
    queues.client.send_message(QueueUrl=queues.urls[name], MessageBody="broken")
    options = queues.transport(wait_time_seconds=0)
    with Connection(f"{SCHEME}://", transport_options=options) as connection:
        channel: Any = connection.channel()
        assert channel.basic_get(name) is None
        here.send("work", "one")
        message = eventually(lambda: channel.basic_get(name))
        assert message.payload[0] == ["one"]
        message.ack()
        eventually(lambda: queues.dead(name) == 1 or channel.basic_get(name))
    eventually(lambda: queues.empty(name))
    options["endpoint_url"] = "http://127.0.0.1:1"
    with Connection(f"{SCHEME}://", transport_options=options) as connection:
        channel = connection.channel()
        assert channel.basic_get(name) is None
