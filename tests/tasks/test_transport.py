"""Workers on real queues: what is sent is done once, what is held stays held, what is broken goes away."""

import json
import os
import pickle
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from kombu.exceptions import ChannelError

from tests.tasks.conftest import (
    Engine,
    MakeQueues,
    Process,
    Queues,
    StartEngine,
    cpu_seconds,
    engines,
    eventually,
    until_ready,
)

POOLS: Final = ("prefork", "threads")


@dataclass
class Pair:
    """An engine with a worker of one pool that serves several tests."""

    here: Engine
    queues: Queues
    worker: Process

    def done_once(self, *names: str) -> None:
        self.here.until_told("ended", *names)
        assert {name: self.here.times("began")[name] for name in names} == dict.fromkeys(names, 1)


@pytest.fixture(scope="module")
def pairs(make_queues: MakeQueues, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Pair]]:
    """One worker of each pool, with two queues and a short visibility timeout."""
    with engines(tmp_path_factory.mktemp("pairs")) as make:
        found = []
        for pool in POOLS:
            queues = make_queues("a", "b", receives=3)
            here = make(queues.transport(visibility_timeout=2), prefetch=2)
            found.append(Pair(here, queues, here.begin_worker(pool)))
        until_ready(*(pair.worker for pair in found))
        yield found
        assert all(pair.worker.alive for pair in found)


def test_every_task_of_every_queue_is_done_once(pairs: list[Pair]) -> None:
    """Tasks longer than the visibility timeout, prefetched ones and short ones run once each; their messages go."""
    for pair in pairs:
        # Two run for more than two visibility timeouts; others wait behind them, held.
        for n in range(2):
            pair.here.send("work", f"long{n}", 5, queue=pair.queues.names[0])
        for n in range(20):
            pair.here.send("work", f"short{n}", queue=pair.queues.names[n % 2])
    for pair in pairs:
        pair.done_once("long0", "long1", *(f"short{n}" for n in range(20)))
        for name in pair.queues.names:
            pair.queues.until_counted(name, 0, 0)


def test_waiting_is_sqs_business_or_held(pairs: list[Pair]) -> None:
    """delay_seconds waits in SQS, a countdown in the worker, held beyond the visibility timeout; an eta that lies
    behind is no reason to wait. Each runs once.
    """
    sent = time.time()
    for pair in pairs:
        pair.here.send("work", "delayed", delay_seconds=2, MessageGroupId="tenant")
        url = pair.queues.urls[pair.queues.names[0]]
        delayed = pair.queues.client.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessagesDelayed"])
        assert delayed["Attributes"] == {"ApproximateNumberOfMessagesDelayed": "1"}
        pair.here.send("work", "counted", countdown=5)
        pair.here.send("work", "late", eta=datetime.now(UTC) - timedelta(hours=1))
    for pair in pairs:
        pair.done_once("delayed", "counted", "late")
        began = {line["name"]: line["at"] - sent for line in pair.here.story("began")}
        assert began["delayed"] >= 2
        assert began["counted"] >= 5


def test_a_killed_worker_and_a_killed_child_lose_nothing(make_queues: MakeQueues, engine: StartEngine) -> None:
    """SIGKILL to the process that runs a task makes the task run again: at once for a child, else after the timeout."""
    queues = make_queues(visibility=3)
    here = engine(queues.transport(visibility_timeout=3))
    worker = here.worker("prefork", concurrency=1)
    here.send("work", "child", 3)
    os.kill(eventually(lambda: here.story("began"))[0]["pid"], signal.SIGKILL)
    eventually(lambda: here.times("ended")["child"])
    here.send("work", "all", 3)
    child = eventually(lambda: [line for line in here.story("began") if line["name"] == "all"])[0]["pid"]
    worker.popen.kill()
    os.kill(child, signal.SIGKILL)
    worker.popen.wait()
    here.worker("threads", concurrency=1)
    eventually(lambda: here.times("ended")["all"])
    eventually(lambda: queues.empty(queues.names[0]))
    assert [line["receives"] for line in here.story("began")] == [1, 2, 1, 2]


def test_a_message_is_readable_json(make_queues: MakeQueues, engine: StartEngine) -> None:
    """What lies in a queue is plain JSON, without Base64, and says which task it asks for."""
    queues = make_queues()
    engine(queues.transport()).send("work", "name")
    message = queues.client.receive_message(QueueUrl=queues.urls[queues.names[0]])["Messages"][0]
    envelope = json.loads(message["Body"])
    assert envelope["headers"]["task"] == "work"
    assert json.loads(envelope["body"])[0] == ["name"]


def test_a_message_for_no_queue_is_an_error(make_queues: MakeQueues, engine: StartEngine) -> None:
    """Neither an unknown queue nor an unbound routing key swallows a message; queues are not purged or deleted."""
    here = engine(make_queues().transport())
    with here.app.connection_for_write() as connection:
        channel: Any = connection.channel()
        with pytest.raises(ChannelError):
            channel.basic_publish(channel.prepare_message("{}"), "", "nowhere")
        channel.exchange_declare("somewhere", "direct")
        with pytest.raises(ChannelError):
            channel.basic_publish(channel.prepare_message("{}"), "somewhere", "nowhere")
        with pytest.raises(ChannelError):
            channel.queue_purge(here.app.conf.task_default_queue)
        with pytest.raises(ChannelError):
            channel.basic_consume(here.app.conf.task_default_queue, True, print, "tag")
    with pytest.raises(ValueError, match="900"):
        here.send("work", "late", delay_seconds=901)


def _broken_messages(trap: Path) -> dict[str, str]:
    """Returns bodies that no worker can take, each broken in its own way."""

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(trap),))

    good = {
        "body": json.dumps([["broken"], {}, {}]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "work", "id": "1", "lang": "py"},
        "properties": {"delivery_info": {}},
    }
    without = {f"without {name}": {key: good[key] for key in good if key != name} for name in good}
    del without["without content-encoding"]
    headers: dict[str, Any] = {"task": "work", "id": "1"}
    changed: dict[str, dict[str, Any]] = {
        "not json inside": {"body": "[["},
        "not a task": {"body": "17"},
        "two parts": {"body": "[[], {}]"},
        "a pickle": {
            "content-type": "application/x-python-serialize",
            "content-encoding": "binary",
            "body": pickle.dumps(Trap()).hex(),
        },
        "a real pickle": {
            "content-type": "application/x-python-serialize",
            "content-encoding": "binary",
            "body": pickle.dumps(Trap(), 0).decode("latin-1"),
        },
        "unknown task": {"headers": {**headers, "task": "nobody knows"}},
        "task is a list": {"headers": {**headers, "task": ["work"]}},
        "no task": {"headers": {}},
        "no id": {"headers": {"task": "work"}},
        "bad eta": {"headers": {**headers, "eta": "soon"}},
        "no delivery": {"properties": {}},
    }
    bodies = {name: json.dumps(message) for name, message in without.items()}
    bodies |= {name: json.dumps({**good, **change}) for name, change in changed.items()}
    return bodies | {
        "text": "hello",
        "a list": "[]",
        "a number": "1",
        "null": "null",
        "deep": "[" * 100_000,
        "s3 event": json.dumps({"Records": [{"eventName": "ObjectCreated:Put"}]}),
    }


def test_broken_messages_end_in_the_dead_letter_queue(pairs: list[Pair], tmp_path: Path) -> None:
    """Whatever no task can be made of is neither run, nor deleted, nor tried in a hurry; the worker goes on."""
    bodies = _broken_messages(tmp_path / "trap")
    for pair in pairs:
        url = pair.queues.urls[pair.queues.names[0]]
        for body in bodies.values():
            pair.queues.client.send_message(QueueUrl=url, MessageBody=body)
        pair.here.send("refuse", "refused")
        pair.here.send("work", "good")
    for pair in pairs:
        pair.done_once("good")
        queue = pair.queues.names[0]
        pair.queues.until_counted(f"{queue}-dead", len(bodies) + 1, 0)
        pair.queues.until_counted(queue, 0, 0)
        assert not pair.here.times("began")["broken"]
        looks = [line["at"] for line in pair.here.story("began") if line["name"] == "refused"]
        assert len(looks) == 3
        assert all(later - earlier >= 0.9 for earlier, later in pairwise(looks))
    assert not (tmp_path / "trap").exists()


def test_a_worker_without_work_rests(make_queues: MakeQueues, engine: StartEngine) -> None:
    """With empty queues, and with its window full, a worker uses less than 2 % of a core."""
    queues, full = make_queues("a", "b", "c", "d"), make_queues("a", "b")
    transport: dict[str, Any] = {"wait_time_seconds": 5, "visibility_timeout": 30}
    idle = engine(queues.transport(**transport))
    busy = engine(full.transport(**transport))
    workers = [idle.begin_worker("prefork"), idle.begin_worker("threads"), busy.begin_worker("threads", concurrency=1)]
    until_ready(*workers)
    for n in range(3):
        busy.send("slice", f"s{n}", 60, queue=full.names[n % 2])
    eventually(lambda: busy.story("began"))
    time.sleep(2)
    seconds = 8
    before = [cpu_seconds(worker.popen.pid) for worker in workers]
    time.sleep(seconds)
    used = [cpu_seconds(worker.popen.pid) - earlier for worker, earlier in zip(workers, before, strict=True)]
    assert all(one < 0.02 * seconds for one in used), used
