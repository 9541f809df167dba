"""A hostile path to SQS: every call fails in every way, and workers and producers go on."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from kombu.exceptions import OperationalError

from tasks.sqs.calls import Calls
from tests import faultproxy
from tests.faultproxy import Fault, FaultProxy
from tests.tasks.conftest import PATIENCE, Engine, MakeQueues, Process, Queues, StartEngine, eventually, until_ready

POOLS: Final = ("prefork", "threads")
HIDE: Final = "ChangeMessageVisibilityBatch"


@pytest.fixture
def proxy(sqs_url: str) -> Iterator[FaultProxy]:
    """A proxy in front of the emulator."""
    with FaultProxy(sqs_url) as proxy:
        yield proxy


@dataclass
class Trial:
    """A worker whose way to its queue leads through a proxy of its own."""

    here: Engine
    queues: Queues
    proxy: FaultProxy
    worker: Process

    def inject(self, operation: str, *faults: Fault) -> None:
        for fault in faults:
            self.proxy.inject(operation, fault)

    def send(self, stem: str, count: int) -> None:
        for n in range(count):
            self.here.send("work", f"{stem}{n}")

    def done_once(self, stem: str, count: int) -> None:
        names = [f"{stem}{n}" for n in range(count)]
        self.here.until_told("ended", *names)
        assert {name: self.here.times("began")[name] for name in names} == dict.fromkeys(names, 1)
        self.proxy.wait_until_met(PATIENCE)


def _came_again(trial: Trial) -> bool:
    return trial.here.times("began")["refused"] > 1


@pytest.fixture
def trials(make_queues: MakeQueues, engine: StartEngine, sqs_url: str) -> Iterator[Callable[..., list[Trial]]]:
    """Starts one worker of each pool, to be put through the same at the same time."""
    with ExitStack() as proxies:

        def start(visibility: int, prefetch: int) -> list[Trial]:
            found = []
            for pool in POOLS:
                queues = make_queues(visibility=visibility)
                proxy = proxies.enter_context(FaultProxy(sqs_url))
                here = engine(queues.transport(proxy.url, visibility_timeout=visibility), prefetch=prefetch)
                here.sender = {"endpoint_url": queues.endpoint}
                found.append(Trial(here, queues, proxy, here.begin_worker(pool)))
            until_ready(*(trial.worker for trial in found))
            return found

        yield start


def test_workers_go_on_through_every_fault(trials: Callable[..., list[Trial]]) -> None:
    """Faults on receiving, on deleting, on extending and on giving back, and on sending from within a task: each task
    runs once, and the worker lives.
    """
    both = trials(visibility=4, prefetch=2)
    for operation in ("ReceiveMessage", "DeleteMessageBatch"):
        for trial in both:
            trial.inject(operation, *faultproxy.ALL)
            trial.send(operation, 6)
        for trial in both:
            trial.done_once(operation, 6)
    for trial in both:
        # As many in a row as fit between the first extension, after a third of the timeout, and its end.
        trial.inject(HIDE, faultproxy.UNAVAILABLE, faultproxy.DROPPED, faultproxy.EXPIRED, faultproxy.THROTTLED)
        trial.here.send("work", "extended0", 7)
    for trial in both:
        trial.done_once("extended", 1)
        trial.inject(HIDE, faultproxy.INTERNAL, faultproxy.RUBBISH, faultproxy.SHAPELESS)
        trial.here.send("refuse", "refused")
    for trial in both:
        eventually(partial(_came_again, trial))
        trial.proxy.wait_until_met(PATIENCE)
        trial.inject("SendMessage", faultproxy.UNAVAILABLE, faultproxy.EXPIRED, faultproxy.THROTTLED, faultproxy.HANGING)
        for n in range(4):
            trial.here.send("forward", f"f{n}")
    for trial in both:
        trial.here.until_told("ended", *(f"f{n}+" for n in range(4)))
        trial.proxy.wait_until_met(PATIENCE)
        assert trial.worker.alive


@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_work_resumes_after_the_endpoint_was_dead(seconds: float, trials: Callable[..., list[Trial]]) -> None:
    """Nobody listens for a while: a task that ran meanwhile is done, what was sent before and after runs, by itself."""
    both = trials(visibility=60, prefetch=1)
    for trial in both:
        trial.send("meanwhile", 1)
        trial.here.until_told("began", "meanwhile0")
    for trial in both:
        trial.proxy.stop()
        trial.send("waiting", 5)
    time.sleep(seconds)
    for trial in both:
        assert set(trial.here.times("began")) == {"meanwhile0"}
        trial.proxy.start()
    for trial in both:
        trial.done_once("waiting", 5)
        trial.queues.until_counted(trial.queues.names[0], 0, 0)
        assert trial.here.times("began")["meanwhile0"] == 1
        assert trial.worker.alive


def test_a_producer_sends_through_every_fault(make_queues: MakeQueues, engine: StartEngine, proxy: FaultProxy) -> None:
    """Every message arrives, whatever its first attempts met; only a lost reply makes one arrive twice."""
    queues = make_queues()
    here = engine(queues.transport(proxy.url))
    for fault in faultproxy.ALL:
        proxy.inject("SendMessage", fault, times=2)
        here.send("work", fault.name)
    proxy.wait_until_met(0.1)
    assert queues.count(queues.names[0])[0] == len(faultproxy.ALL) + 2


def test_a_producer_gives_up_in_bounded_time(make_queues: MakeQueues, engine: StartEngine, proxy: FaultProxy) -> None:
    """A dead or hanging endpoint costs the sender no more than its deadline and a call; a refusal costs nothing."""
    queues = make_queues()
    here = engine(queues.transport(proxy.url, send_deadline=2.0))
    proxy.inject("SendMessage", faultproxy.DENIED)
    began = time.monotonic()
    with pytest.raises(OperationalError):
        here.send("work", "denied")
    proxy.inject("SendMessage", faultproxy.HANGING, times=20)
    with pytest.raises(OperationalError):
        here.send("work", "hangs")
    proxy.stop()
    with pytest.raises(OperationalError):
        here.send("work", "dead")
    assert time.monotonic() - began < 20
    assert queues.empty(queues.names[0])


def test_credentials_that_expire_are_read_again(
    make_queues: MakeQueues, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After SQS refuses them, the next call asks boto3's chain anew; a chain that fails for a while does no harm."""
    queues = make_queues()
    file = tmp_path / "credentials"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    calls = Calls(queues.options(endpoint_url=proxy.url, wait_time_seconds=0))

    def outcome() -> str:
        try:
            calls.receive(queues.names[0], 1)
        except Exception as error:  # noqa: BLE001 - the outcome is what the test looks at
            return type(error).__name__
        return "well"

    def write(key: str) -> None:
        file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")

    assert outcome() == "NoCredentialsError"
    write("OLD")
    assert outcome() == "well"
    proxy.expired_keys.add("OLD")
    assert outcome() == "ClientError"
    file.unlink()
    assert outcome() == "NoCredentialsError"
    write("NEW")
    assert outcome() == "well"
