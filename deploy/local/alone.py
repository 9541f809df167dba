"""One stack at a time in a directory, and on the ports that it was told to take."""

from __future__ import annotations

import fcntl
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.process import LOOPBACK, StartFailed


@contextmanager
def alone(directory: Path, *ports: int) -> Iterator[None]:
    """Holds the directory while the block runs, so that no other stack empties it.

    The lock goes with the process, however it ends. Port 0 stands for any free one.

    Raises:
        StartFailed: another stack runs in the directory, or somebody listens on one of the ports.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartFailed(f"Another one runs in {directory}: stop it, or take another --directory and --port.") from None
        for port in ports:
            _check_free(port)
        yield


def _check_free(port: int) -> None:
    with socket.socket() as trial:
        # As servers do: what an earlier connection left behind is no listener.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((LOOPBACK, port))
        except OSError as error:
            raise StartFailed(f"Port {port} is not to be had ({error.strerror}): take another with --port.") from None
