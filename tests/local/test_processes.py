"""Child processes start, are awaited, stop, and never outlive their parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from deploy.local import places
from deploy.local.process import Child, Stack, StartFailed, accepts, free_port
from deploy.local.servers import RedisServer

PATIENCE = timedelta(seconds=60)

# Ignores SIGTERM and has a child in a session of its own, as sshd's connections are.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(600)
"""

PARENT = """
import sys, time
from pathlib import Path
from deploy.local.process import Child, Stack, stop_on_signals
place = Path(sys.argv[1])
SLEEPER = '''
import signal, sys, time
def leave(*_):
    with open(sys.argv[1], "a") as file:
        file.write(sys.argv[2])
    sys.exit()
signal.signal(signal.SIGTERM, leave)
open(sys.argv[3], "w").close()
time.sleep(600)
'''
with stop_on_signals(), Stack() as stack:
    for name in "abc":
        there = place / name
        command = [sys.executable, "-c", SLEEPER, place / "order", name, there]
        child = stack.start(Child(name, command, log=place / "log", ready=there.exists))
        (place / f"{name}.pid").write_text(str(child.pid))
    (place / "up").write_text("")
    time.sleep(600)
"""


def eventually(what: Callable[[], bool]) -> None:
    """Waits until it is true."""
    until = time.monotonic() + PATIENCE.total_seconds()
    while not what():
        assert time.monotonic() < until, "did not come true in time"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Says whether the process has ended, reaped or not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


def sleeper(name: str, place: Path, seconds: int = 600) -> Child:
    """Returns a child that does nothing for long."""
    return Child(name, [sys.executable, "-c", f"import time; time.sleep({seconds})"], log=place / f"{name}.log")


def test_a_server_that_dies_at_its_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    """The error carries the exit status and what the program said last."""
    program = "print('no such setting: colour'); raise SystemExit(3)"
    child = Child("odd", [sys.executable, "-c", program], log=tmp_path / "log", ready=lambda: False)
    with pytest.raises(StartFailed, match=r"odd ended with status 3(?s:.*)no such setting: colour"):
        child.start()


def test_a_server_that_never_answers_is_stopped_at_the_deadline(tmp_path: Path) -> None:
    """A start that fails leaves no process."""
    child = sleeper("mute", tmp_path)
    child.ready, child.deadline = lambda: False, timedelta(milliseconds=200)
    with pytest.raises(StartFailed, match="mute does not answer after"):
        child.start()
    assert not child.running


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The error names the program."""
    with pytest.raises(StartFailed, match="/nowhere/server"):
        Child("lost", ["/nowhere/server"], log=tmp_path / "log").start()


def test_stop_ends_what_ignores_sigterm_and_what_left_its_session(tmp_path: Path) -> None:
    """SIGKILL follows the grace and reaches grandchildren in other sessions."""
    note = tmp_path / "grandchild"
    child = Child(
        "stubborn",
        [sys.executable, "-c", STUBBORN, note],
        log=tmp_path / "log",
        ready=lambda: note.exists() and note.read_text() != "",
        grace=timedelta(milliseconds=100),
    )
    child.start()
    grandchild = int(note.read_text())
    child.stop()
    assert child.returncode == -signal.SIGKILL
    eventually(lambda: gone(grandchild))


def test_a_stack_stops_everything_though_one_stop_fails(tmp_path: Path) -> None:
    """One failure on the way down does not spare the others, and is reported."""

    def fail() -> None:
        raise OSError("cannot stop")

    stack = Stack()
    first = stack.start(sleeper("first", tmp_path))
    stack.call_at_end(fail)
    second = stack.start(sleeper("second", tmp_path))
    with pytest.raises(OSError, match="cannot stop"):
        stack.stop()
    assert not first.running
    assert not second.running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_parent_stops_the_children_in_reverse_order(tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM, Ctrl-C and a closed terminal all end the stack from its last server to its first."""
    parent = start_parent(tmp_path)
    parent.send_signal(number)
    assert parent.wait(PATIENCE.total_seconds()) == 128 + number
    assert (tmp_path / "order").read_text() == "cba"


def test_children_of_a_killed_parent_are_ended(tmp_path: Path) -> None:
    """Even kill -9 of the parent leaves no orphan."""
    parent = start_parent(tmp_path)
    children = [int((tmp_path / f"{name}.pid").read_text()) for name in "abc"]
    parent.kill()
    parent.wait(PATIENCE.total_seconds())
    eventually(lambda: all(gone(pid) for pid in children))


def start_parent(place: Path) -> subprocess.Popen[bytes]:
    """Returns a process with three children, all of them up."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(place)], cwd=places.ROOT, env={**os.environ, "PYTHONPATH": str(places.ROOT)}
    )
    eventually((place / "up").exists)
    return parent


def test_a_killed_server_starts_again_on_its_port(tmp_path: Path) -> None:
    """A crash and a restart keep the address, so that clients may come back."""
    server = RedisServer(tmp_path)
    with server:
        port = server.port
        server.child.kill()
        assert not accepts(port)()
        server.start()
        assert server.port == port
        assert accepts(port)()


def test_ports_are_not_given_twice() -> None:
    """Servers that start side by side in one process do not race for a port."""
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == len(ports)
