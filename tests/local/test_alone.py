"""No stack starts where another one runs."""

import io
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deploy.local import places, up, up_regions
from deploy.local.alone import alone
from deploy.local.process import LOOPBACK, StartFailed, free_port

HOLDER = """
import sys
from pathlib import Path
from deploy.local.alone import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_directory_has_one_stack(tmp_path: Path) -> None:
    """A second one is refused while the first process lives, and welcome once it has been killed."""
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(words, cwd=places.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StartFailed, match="Another one runs in"), alone(tmp_path):
            pass
        holder.kill()
    with alone(tmp_path):
        pass


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    """The port is named; nothing is asked of port 0."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(StartFailed, match=f"Port {port} is not to be had"), alone(tmp_path, 0, port):
            pass
    with alone(tmp_path, free_port()):
        pass


@pytest.mark.parametrize("module", [up, up_regions])
def test_a_running_stack_is_left_alone(tmp_path: Path, module: Any) -> None:  # noqa: ANN401 - two modules of one shape
    """`eft up` in the directory of another one says so, fails, and removes nothing."""
    kept = tmp_path / "sftp" / "home"
    kept.mkdir(parents=True)
    told = io.StringIO()
    said = Console(file=told, width=200)
    with alone(tmp_path):
        assert module.run(directory=tmp_path, port=0, console=said) == 1
    assert kept.is_dir()
    assert "Another one runs in" in told.getvalue()
