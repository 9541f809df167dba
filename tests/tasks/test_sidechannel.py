"""Events and remote control over Redis, while tasks travel over SQS; and Flower on top."""

import base64
import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
from celery import Celery
from celery.events import EventReceiver
from kombu.exceptions import OperationalError

from tasks import monitoring
from tasks.sidechannel import attach, events, link
from tasks.sidechannel.events import publisher_of
from tasks.sidechannel.link import connect
from tests.tasks.conftest import Engine, MakeQueues, Process, RedisServer, StartEngine, eventually, free_port, until_ready

PASSWORD: Final = "operator:secret"


def _pong(here: Engine) -> set[str]:
    try:
        answers = here.app.control.ping(timeout=1.0) or []
    except OperationalError:
        return set()
    return {name for answer in answers for name in answer}


def _processes(here: Engine, worker: str) -> int:
    stats = here.app.control.inspect([worker], timeout=10).stats() or {}
    return len(stats[worker]["pool"]["processes"]) if worker in stats else 0


def test_remote_control_reaches_workers(make_queues: MakeQueues, engine: StartEngine, redis_server: RedisServer) -> None:
    """Ping, inspect, revoke, terminate, growing and shrinking, rate limits and shutdown work over the side channel."""
    queues = make_queues(visibility=60)
    here = engine(queues.transport(visibility_timeout=60), redis=redis_server.url)
    prefork, threads = here.begin_worker("prefork"), here.begin_worker("threads")
    until_ready(prefork, threads)
    control: Any = here.app.control
    eventually(lambda: _pong(here) == {"w1@test", "w2@test"})
    registered = control.inspect(["w1@test"], timeout=10).registered()
    assert "work" in registered["w1@test"]
    assert set(control.inspect(timeout=10, limit=2).active_queues()) == {"w1@test", "w2@test"}
    shown = json.dumps(control.inspect(timeout=10, limit=2).conf())
    assert "eftsqs" in shown
    # The address of Redis may carry a password.
    assert redis_server.url not in shown

    assert control.pool_grow(2, ["w1@test"], reply=True, timeout=10) == [{"w1@test": {"ok": "pool will grow"}}]
    eventually(lambda: _processes(here, "w1@test") == 4)
    control.pool_shrink(1, ["w1@test"], reply=True, timeout=10)
    eventually(lambda: _processes(here, "w1@test") == 3)
    assert control.rate_limit("work", "100/s", ["w1@test"], reply=True, timeout=10)[0]["w1@test"]["ok"]
    assert "error" in control.broadcast("nobody_knows", reply=True, destination=["w1@test"], timeout=10)[0]["w1@test"]

    control.revoke("never", reply=True, timeout=10, limit=2)
    here.send("work", "never", task_id="never")
    here.send("work", "ever")
    eventually(lambda: here.times("ended")["ever"])
    eventually(lambda: queues.empty(queues.names[0]))
    assert "never" not in here.times("began")

    control.shutdown(["w2@test"])
    threads.popen.wait(30)
    here.send("slice", "long", 60, task_id="long")
    eventually(lambda: here.times("began")["long"])
    assert [task["id"] for task in control.inspect(["w1@test"], timeout=10).active()["w1@test"]] == ["long"]
    control.terminate("long", reply=True, timeout=10, limit=1)
    eventually(lambda: queues.empty(queues.names[0]))

    here.send("slice", "given back", 60)
    eventually(lambda: here.times("began")["given back"])
    control.shutdown()
    assert prefork.popen.wait(30) == 0
    assert threads.popen.returncode == 0
    assert here.times("left") == {"given back": 1}
    assert queues.count(queues.names[0]) == (1, 0)


def _flower(folder: Path, redis_url: str) -> tuple[Process, str]:
    port = free_port()
    command = [sys.executable, "-m", "tasks.monitoring", "--redis-url", redis_url, "--port", str(port), "--task=work"]
    process = Process.start(command, folder / "flower.log", {"EFT_FLOWER_AUTH": PASSWORD})
    address = f"http://127.0.0.1:{port}"
    eventually(lambda: not process.alive or _get(address, "/healthcheck"))
    assert process.alive, process.said()
    return process, address


def _get(address: str, path: str, method: str = "GET") -> Any:  # noqa: ANN401 - any JSON
    basic = base64.b64encode(PASSWORD.encode()).decode()
    request = Request(address + path, method=method, headers={"Authorization": f"Basic {basic}"})  # noqa: S310 - our own server
    try:
        with urlopen(request, timeout=10) as answer:  # noqa: S310 - our own server
            content = answer.read().decode()
    except (URLError, TimeoutError):
        return None
    try:
        return json.loads(content)
    except ValueError:
        return content


def _succeeded(address: str) -> set[str]:
    tasks = _get(address, "/api/tasks?limit=1000") or {}
    return {task["args"] for task in tasks.values() if task["state"] == "SUCCESS"}


def _args(stem: str, count: int) -> set[str]:
    return {f"('{stem}{n}',)" for n in range(count)}


def test_flower_sees_workers_and_tasks_and_outlives_redis(
    make_queues: MakeQueues, engine: StartEngine, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Flower shows workers and tasks, behind its password alone. Redis dies: tasks run on, unhurried and none twice;
    Redis returns: control, the tasks of the meantime and new ones are there.
    """
    queues = make_queues(visibility=60)
    here = engine(queues.transport(visibility_timeout=60), redis=redis_server.url)
    workers = [here.begin_worker("prefork"), here.begin_worker("threads")]
    until_ready(*workers)
    flower, address = _flower(tmp_path, redis_server.url)
    try:
        with pytest.raises(HTTPError, match="401"):
            urlopen(f"{address}/api/workers", timeout=10)  # noqa: S310 - our own server
        eventually(lambda: set(_get(address, "/api/workers?refresh=1") or ()) == {"w1@test", "w2@test"})
        for n in range(20):
            here.send("work", f"first{n}")
        eventually(lambda: _succeeded(address) >= _args("first", 20))
        assert _get(address, "/api/worker/pool/grow/w1@test?n=1", "POST")

        redis_server.kill()
        time.sleep(1)
        began = time.monotonic()
        for n in range(60):
            here.send("work", f"blind{n}")
        eventually(lambda: len(here.times("ended")) == 80)
        assert time.monotonic() - began < 30
        assert set(here.times("began").values()) == {1}
        assert all(worker.alive for worker in workers)
        time.sleep(6)

        redis_server.start()
        eventually(lambda: _pong(here) == {"w1@test", "w2@test"}, timeout=15)
        for n in range(5):
            here.send("work", f"later{n}")
        eventually(lambda: _succeeded(address) >= _args("first", 20) | _args("later", 5) | _args("blind", 60))
        assert flower.alive
        assert flower.terminate() < 10
    finally:
        flower.end()


def test_a_worker_starts_and_stops_without_redis(make_queues: MakeQueues, engine: StartEngine, redis_server: RedisServer) -> None:
    """A side channel that was never there keeps no worker from starting, working and leaving in time."""
    redis_server.kill()
    queues = make_queues()
    here = engine(queues.transport(), redis=redis_server.url)
    worker = here.worker("prefork")
    here.send("work", "blind")
    eventually(lambda: here.times("ended")["blind"])
    assert worker.terminate() < 5
    assert worker.popen.returncode == 0
    assert queues.empty(queues.names[0])


def test_flower_refuses_to_start_without_a_password(tmp_path: Path) -> None:
    """No password, no Flower; and no Redis address, no Flower."""
    for arguments, auth in ((["--redis-url", "redis://127.0.0.1:1/0"], ""), ([], PASSWORD)):
        command = [sys.executable, "-m", "tasks.monitoring", *arguments]
        process = Process.start(command, tmp_path / "log", {"EFT_FLOWER_AUTH": auth, "EFT_REDIS_URL": ""})
        assert process.popen.wait(60) == 2


@pytest.fixture
def app() -> Celery:
    """An app of its own, not yet attached."""
    return Celery("side", set_as_current=False)


def _listen(app: Celery, heard: list[dict[str, Any]], enough: Callable[[], bool]) -> None:
    with connect(app) as connection:
        receiver = EventReceiver(connection, handlers={"*": heard.append}, app=app)
        listening = receiver.itercapture(limit=None, timeout=1, wakeup=False)
        next(listening)
        heard.append({"type": "listening"})
        while not enough():
            with suppress(TimeoutError):
                next(listening)


def test_events_reach_whoever_listens(app: Celery, redis_server: RedisServer) -> None:
    """What is told arrives in order and with its sender; what cannot be JSON is dropped, and the rest goes on."""
    attach(app, redis_server.url)
    heard: list[dict[str, Any]] = []
    listener = threading.Thread(target=_listen, args=(app, heard, lambda: heard[-1]["type"] == "worker-offline"), daemon=True)
    listener.start()
    eventually(lambda: heard)
    time.sleep(0.5)
    with app.events.default_dispatcher(hostname="here") as dispatcher:
        dispatcher.send("task-odd", what=object())
        time.sleep(0.2)
        for n in range(300):
            dispatcher.send("task-custom", n=n, retry=True)
        dispatcher.publish("task-sent", {"n": 300}, None)
        dispatcher.flush()
        time.sleep(0.2)
        dispatcher.send("worker-offline")
    listener.join(30)
    told = [event["n"] for event in heard if event["type"].startswith("task-")]
    assert told == list(range(301))
    assert {event["hostname"] for event in heard[1:]} == {"here"}
    assert publisher_of(app).dropped == 1


def test_a_dispatcher_tells_what_it_is_asked_for(app: Celery, redis_server: RedisServer) -> None:
    """Groups and the on/off switch are Celery's; whoever watches the switch is called."""
    attach(app, redis_server.url)
    dispatcher = app.events.Dispatcher(hostname="here", groups=["worker"])
    told = publisher_of(app)
    dispatcher.send("task-custom")
    assert not told._buffer
    switched: list[str] = []
    dispatcher.on_enabled.add(lambda: switched.append("on"))
    dispatcher.on_disabled.add(lambda: switched.append("off"))
    dispatcher.disable()
    dispatcher.disable()
    dispatcher.send("worker-custom")
    assert not told._buffer
    dispatcher.enable()
    assert switched == ["off", "on"]
    assert dispatcher.connection is None


def test_telling_never_waits_and_keeps_a_bounded_number(app: Celery, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Redis, telling costs nothing and the oldest events go; with Redis the kept ones go out."""
    monkeypatch.setattr(events, "KEPT", 50)
    monkeypatch.setattr(events, "LET_OTHERS_RETURN", 0.0)
    redis_server.kill()
    attach(app, redis_server.url)
    dispatcher = app.events.Dispatcher(hostname="here")
    began = time.monotonic()
    for n in range(1000):
        dispatcher.send("task-custom", n=n)
    dispatcher.close()
    assert time.monotonic() - began < 1
    publisher = publisher_of(app)
    assert publisher.dropped >= 949
    eventually(lambda: publisher._failures)
    redis_server.start()
    eventually(lambda: not publisher._buffer and publisher._connected)
    redis_server.kill()
    for n in range(3):
        dispatcher.send("task-custom", n=n)
    eventually(lambda: not publisher._connected)
    assert len(publisher._buffer) == 3


def test_without_a_side_channel_nothing_is_told(app: Celery) -> None:
    """No address: events and commands go nowhere, and nobody minds."""
    attach(app, "redis://127.0.0.1:1/0")
    attach(app, None)
    with app.events.default_dispatcher() as dispatcher:
        dispatcher.enable()
        assert not dispatcher.enabled
        dispatcher.send("task-custom")
        dispatcher.publish("task-sent", {}, None)
        dispatcher.extend_buffer(dispatcher)
    assert app.control.ping() is None
    assert not link.attached(app)


def test_a_command_into_nowhere_fails_soon(app: Celery) -> None:
    """Without Redis a command raises within seconds rather than waiting for it."""
    attach(app, f"redis://127.0.0.1:{free_port()}/0")
    began = time.monotonic()
    with pytest.raises(OperationalError):
        app.control.ping()
    assert time.monotonic() - began < 15


def test_flower_never_pauses_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often Redis was not there, the next look at it is seconds away."""
    pauses: list[float] = []

    def note(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 12:
            raise SystemExit

    monkeypatch.setattr(monitoring, "time", SimpleNamespace(sleep=note))
    app = monitoring.monitoring_app(f"redis://127.0.0.1:{free_port()}/0", ["work"])
    assert "work" in app.tasks
    listening = monitoring.SteadyEvents(app, io_loop=None, enable_events=False, max_tasks_in_memory=10)
    with pytest.raises(SystemExit):
        listening.run()
    assert max(pauses) <= link.LONGEST_PAUSE
    assert pauses[0] < 1


def test_flower_is_not_served_without_a_password() -> None:
    """An entry without a colon is no password."""
    with pytest.raises(ValueError, match="password"):
        monitoring.serve("redis://127.0.0.1:1/0", ["operator"], address="127.0.0.1", port=0)
