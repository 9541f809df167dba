"""Workers on real queues: what is sent is done once, what is held stays held, what is broken goes away."""

import json
import os
import pickle
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from kombu.exceptions import ChannelError

from tests.tasks.conftest import MakeQueues, Queues, StartEngine, cpu_seconds, eventually

POOLS: Final = ("prefork", "threads")


@pytest.mark.parametrize("pool", POOLS)
def test_every_task_of_every_queue_is_done_once(pool: str, make_queues: MakeQueues, engine: StartEngine) -> None:
    """Tasks longer than the visibility timeout, prefetched ones and short ones run once each; their messages go."""
    queues = make_queues("a", "b")
    here = engine(queues.transport(visibility_timeout=2), prefetch=2)
    worker = here.worker(pool)
    # Two run for three visibility timeouts; on each of the two queues others wait behind them, held.
    long = [here.send("work", f"long{n}", 6, queue=queues.names[0]) for n in range(2)]
    names = [f"t{n}" for n in range(20)]
    for n, name in enumerate(names):
        here.send("work", name, queue=queues.names[n % 2])
    eventually(lambda: set(here.times("ended")) >= {"long0", "long1", *names})
    eventually(lambda: all(queues.empty(name) for name in queues.names))
    assert len(long) == 2
    assert here.times("began") == dict.fromkeys(["long0", "long1", *names], 1)
    assert worker.alive


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


def test_sqs_own_delay_holds_a_message_in_the_queue(make_queues: MakeQueues, engine: StartEngine) -> None:
    """delay_seconds waits in SQS and a countdown in the worker, held beyond the visibility timeout; each runs once."""
    queues = make_queues(visibility=2)
    here = engine(queues.transport(visibility_timeout=2))
    sent = time.time()
    here.send("work", "delayed", delay_seconds=2, MessageGroupId="tenant")
    assert queues.client.get_queue_attributes(QueueUrl=queues.urls[queues.names[0]], AttributeNames=["ApproximateNumberOfMessagesDelayed"])[
        "Attributes"
    ] == {"ApproximateNumberOfMessagesDelayed": "1"}
    here.send("work", "counted", countdown=5)
    here.worker("threads", concurrency=1)
    eventually(lambda: len(here.story("ended")) == 2)
    began = {line["name"]: line["at"] - sent for line in here.story("began")}
    assert began["delayed"] >= 2
    assert began["counted"] >= 5
    assert len(here.story("began")) == 2


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


def _broken_messages(queues: Queues, trap: Path) -> dict[str, str]:
    """Returns bodies that no worker can take, each broken in its own way."""

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(trap),))

    good = {
        "body": json.dumps([["broken"], {}, {}]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "work", "id": "1", "lang": "py"},
        "properties": {"delivery_info": {"exchange": queues.names[0], "routing_key": queues.names[0]}},
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


@pytest.mark.parametrize("pool", POOLS)
def test_broken_messages_end_in_the_dead_letter_queue(pool: str, make_queues: MakeQueues, engine: StartEngine, tmp_path: Path) -> None:
    """Whatever no task can be made of is neither run, nor deleted, nor tried in a hurry; the worker goes on."""
    queues = make_queues(receives=2)
    (queue,) = queues.names
    bodies = _broken_messages(queues, tmp_path / "trap")
    for body in bodies.values():
        queues.client.send_message(QueueUrl=queues.urls[queue], MessageBody=body)
    here = engine(queues.transport())
    worker = here.worker(pool)
    here.send("work", "good")
    here.send("refuse", "refused")
    eventually(lambda: here.times("ended")["good"])
    eventually(lambda: queues.dead(queue) == len(bodies) + 1)
    assert queues.empty(queue)
    assert here.times("began") == {"good": 1, "refused": 2}
    first, second = (line["at"] for line in here.story("began") if line["name"] == "refused")
    assert second - first >= 0.9
    assert not (tmp_path / "trap").exists()
    assert worker.alive


def test_a_worker_without_work_rests(make_queues: MakeQueues, engine: StartEngine) -> None:
    """With empty queues, and with its window full, a worker uses less than 2 % of a core."""
    queues, full = make_queues("a", "b", "c", "d"), make_queues("a", "b")
    transport: dict[str, Any] = {"wait_time_seconds": 5, "visibility_timeout": 30}
    idle = engine(queues.transport(**transport))
    busy = engine(full.transport(**transport))
    workers = [idle.worker("prefork"), idle.worker("threads"), busy.worker("threads", concurrency=1)]
    for n in range(3):
        busy.send("slice", f"s{n}", 60, queue=full.names[n % 2])
    eventually(lambda: busy.story("began"))
    time.sleep(2)
    seconds = 8
    before = [cpu_seconds(worker.popen.pid) for worker in workers]
    time.sleep(seconds)
    used = [cpu_seconds(worker.popen.pid) - earlier for worker, earlier in zip(workers, before, strict=True)]
    assert all(one < 0.02 * seconds for one in used), used


def test_a_past_eta_runs_at_once(make_queues: MakeQueues, engine: StartEngine) -> None:
    """An eta that lies behind is no reason to wait."""
    here = engine(make_queues().transport())
    here.worker("threads", concurrency=1)
    here.send("work", "late", eta=datetime.now(UTC) - timedelta(hours=1))
    eventually(lambda: here.times("ended")["late"])
