"""Child processes of the local stack: each has its own log, is awaited until ready, is stopped, and is never orphaned.

Every child leads its own session, so Ctrl-C in a terminal reaches only this process, which then stops the children in
reverse order of their start. Should this process die without a chance to do so, the undertaker does it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Final, Protocol, Self, TypeVar

LOOPBACK: Final = "127.0.0.1"
# Below Linux's range for outgoing connections (32768 and up), so that no client takes a port between choice and use.
PORTS: Final = range(12_000, 32_000)
START_DEADLINE: Final = timedelta(seconds=90)
STOP_GRACE: Final = timedelta(seconds=10)
POLL_SECONDS: Final = 0.02
TAIL_BYTES: Final = 4_000

_given: set[int] = set()


class StartFailed(RuntimeError):
    """A server ended, or did not answer in time; the message carries the end of its log."""


def free_port() -> int:
    """Returns a TCP port of 127.0.0.1 that nobody listens on and that this process has not been given before."""
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if port in _given:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise StartFailed("no free TCP port is left on 127.0.0.1")


def accepts(port: int) -> Callable[[], bool]:
    """Returns a probe that is true once the port of 127.0.0.1 accepts connections."""

    def probe() -> bool:
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=5):
            return True
        return False

    return probe


def answers(url: str) -> Callable[[], bool]:
    """Returns a probe that is true once the address answers over HTTP with anything below 500."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def probe() -> bool:
        try:
            with opener.open(url, timeout=5):
                return True
        except urllib.error.HTTPError as error:
            with error:
                return error.code < 500  # noqa: PLR2004 - HTTP's own border between the client's faults and the server's
        except (OSError, ValueError):
            return False

    return probe


def speaks(port: int, greeting: bytes, *, opening: bytes = b"") -> Callable[[], bool]:
    """Returns a probe that is true once the port sends the greeting, after the opening if one is given."""

    def probe() -> bool:
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=5) as connection:
            if opening:
                connection.sendall(opening)
            return connection.recv(len(greeting), socket.MSG_WAITALL) == greeting
        return False

    return probe


class _Undertaker:
    """This process's line to the program that ends what this process leaves behind; started with the first child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._program: subprocess.Popen[str] | None = None
        self._owner = 0

    def tell(self, sign: str, pid: int) -> None:
        with self._lock:
            if self._program is None or self._owner != os.getpid():
                self._program = self._start()
                self._owner = os.getpid()
            assert self._program.stdin is not None  # noqa: S101 - asked for below
            with contextlib.suppress(OSError):
                self._program.stdin.write(f"{sign}{pid}\n")
                self._program.stdin.flush()

    def _start(self) -> subprocess.Popen[str]:
        program = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("undertaker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        atexit.register(self._dismiss, program, os.getpid())
        return program

    def _dismiss(self, program: subprocess.Popen[str], owner: int) -> None:
        if owner != os.getpid():
            return
        if program.stdin is not None:
            with contextlib.suppress(OSError):
                program.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(STOP_GRACE.total_seconds())


_undertaker: Final = _Undertaker()


class Server(Protocol):
    """Anything that can be started and stopped; stopping twice, or before starting, does nothing."""

    def start(self) -> Self:
        """Returns itself once it serves; raises `StartFailed`."""
        ...

    def stop(self) -> None:
        """Ends it and waits until it has ended."""
        ...


ServerT = TypeVar("ServerT", bound=Server)


class Child:
    """One child process with its own log file. It may be started again after it has ended."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        ready: Callable[[], bool] | None = None,
        deadline: timedelta = START_DEADLINE,
        grace: timedelta = STOP_GRACE,
    ) -> None:
        """Takes the whole environment of the child (None: this process's own) and a probe that says when it serves."""
        self.name = name
        self.command = [str(word) for word in command]
        self.log = log
        self.environment = environment
        self.directory = directory
        self.ready = ready
        self.deadline = deadline
        self.grace = grace
        self._process: subprocess.Popen[bytes] | None = None
        self._group = 0

    @property
    def pid(self) -> int:
        """The process's number; raises `StartFailed` if it was never started."""
        if self._process is None:
            raise StartFailed(f"{self.name} has not been started")
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs or before it was started."""
        return None if self._process is None else self._process.poll()

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Starts the process and waits until the probe is true."""
        if self.running:
            raise StartFailed(f"{self.name} runs already")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = self._spawn(log)
        self._group = self._process.pid
        _undertaker.tell("+", self._group)
        try:
            self._await_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process itself, not to its children; a dead process ignores it."""
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self, limit: timedelta) -> int:
        """Returns the exit status; raises `TimeoutError` when the process outlives the limit."""
        if self._process is None:
            raise StartFailed(f"{self.name} has not been started")
        try:
            return self._process.wait(limit.total_seconds())
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} still runs after {limit.total_seconds():g} s") from None

    def stop(self) -> None:
        """Ends the process and all that it started: SIGTERM, then SIGKILL after the grace."""
        if self._process is None:
            return
        offspring = _offspring(self._process.pid)
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self.grace.total_seconds())
        self._end(offspring)

    def kill(self) -> None:
        """Ends the process and all that it started with SIGKILL, as a crash does."""
        if self._process is not None:
            self._end(_offspring(self._process.pid))

    def tail(self) -> str:
        """Returns the end of the log."""
        with contextlib.suppress(OSError), self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            return log.read().decode(errors="replace")
        return ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if self.environment is None else dict(self.environment),
                cwd=self.directory,
                start_new_session=True,
            )
        except OSError as error:
            raise StartFailed(f"{self.name} cannot be started: {error.strerror}: {self.command[0]}") from error

    def _await_ready(self) -> None:
        limit = time.monotonic() + self.deadline.total_seconds()
        while self.running:
            # Looked at again after the probe: the answer may have come from another's server on the same port.
            if self.ready is None or (self.ready() and self.running):
                return
            if time.monotonic() > limit:
                raise StartFailed(self._report(f"does not answer after {self.deadline.total_seconds():g} s"))
            time.sleep(POLL_SECONDS)
        raise StartFailed(self._report(f"ended with status {self.returncode}"))

    def _report(self, what: str) -> str:
        return f"{self.name} {what}; the end of {self.log}:\n{self.tail()}"

    def _end(self, offspring: list[int]) -> None:
        assert self._process is not None  # noqa: S101 - both callers have looked
        with contextlib.suppress(OSError):
            os.killpg(self._group, signal.SIGKILL)
        # Some servers (sshd) put each connection in a session of its own, out of the group's reach.
        for pid in offspring:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        _undertaker.tell("-", self._group)


class Stack:
    """Servers in the order of their start, stopped in reverse order, when the block ends, however it ends.

    ```python
    with stop_on_signals(), Stack() as stack:
        redis = stack.start(RedisServer(directory))
    ```
    """

    def __init__(self) -> None:
        self._exits = ExitStack()

    def start(self, server: ServerT) -> ServerT:
        """Starts the server, remembers to stop it, and returns it."""
        self._exits.callback(server.stop)
        return server.start()

    def call_at_end(self, action: Callable[[], object]) -> None:
        """Has the action called when its turn comes, in reverse order."""
        self._exits.callback(action)

    def stop(self) -> None:
        """Stops everything, the last started first; one failure does not spare the others."""
        self._exits.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


@contextlib.contextmanager
def stop_on_signals() -> Iterator[None]:
    """Turns the first SIGINT, SIGTERM or SIGHUP of the main thread into `SystemExit` and ignores further ones.

    So every `with` block above it unwinds, once and to its end. The exit status is 128 plus the signal's number, as
    shells have it.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def leave(number: int, _frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def _offspring(pid: int) -> list[int]:
    """Returns the numbers of all processes below the given one, as far as the machine shows them (Linux: /proc)."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The second field, the program's name, may hold spaces and brackets; the fourth is the parent.
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found
