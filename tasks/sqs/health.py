"""When a worker last heard from each of its queues, kept where a health check can read it."""

import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Final

logger = logging.getLogger(__name__)

WRITE_EVERY: Final = 1.0


@dataclass(slots=True)
class QueueHealth:
    """How it stands with one queue; times are seconds since the epoch."""

    heard: float | None = None
    """When SQS last answered a poll."""

    well: float = 0.0
    """When SQS last answered, or when there was last no room to poll for."""

    failures: int = 0
    """Polls failed in a row."""


class Polls:
    """A worker's record of its polls; any thread may add to it."""

    def __init__(self, path: str | None) -> None:
        self._path = None if path is None else Path(path)
        self._lock = Lock()
        self._queues: dict[str, QueueHealth] = {}
        self._written = 0.0

    def watch(self, queue: str) -> None:
        """Begins to watch the queue; it counts as well until a poll had time to answer."""
        with self._lock:
            self._queues[queue] = QueueHealth(well=time.time())
        self._write(at_once=True)

    def forget(self, queue: str) -> None:
        """The queue is no longer polled, on purpose."""
        with self._lock:
            self._queues.pop(queue, None)
        self._write(at_once=True)

    def heard(self, queue: str) -> None:
        """SQS answered."""
        with self._lock:
            if known := self._queues.get(queue):
                known.heard = known.well = time.time()
                known.failures = 0
        self._write()

    def full(self, queue: str) -> None:
        """The worker holds all the messages that it may; not polling is right."""
        with self._lock:
            if known := self._queues.get(queue):
                known.well = time.time()
        self._write()

    def failed(self, queue: str) -> int:
        """A poll failed; returns how many did in a row."""
        with self._lock:
            known = self._queues.setdefault(queue, QueueHealth())
            known.failures += 1
            failures = known.failures
        self._write()
        return failures

    def queues(self) -> dict[str, QueueHealth]:
        """Returns a copy of what is known."""
        with self._lock:
            return {name: QueueHealth(**asdict(known)) for name, known in self._queues.items()}

    def _write(self, *, at_once: bool = False) -> None:
        if self._path is None:
            return
        with self._lock:
            if not at_once and time.monotonic() - self._written < WRITE_EVERY:
                return
            self._written = time.monotonic()
            beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            try:
                beside.write_text(json.dumps({name: asdict(known) for name, known in self._queues.items()}))
                beside.replace(self._path)
            except OSError as error:
                # A full disk must not stop a poll; the health check sees that the file grows old.
                logger.warning("the health file could not be written: %s", type(error).__name__)


def silent_queues(path: Path, *, older_than: float, now: float) -> list[str]:
    """Returns the queues of which the worker has not been well for `older_than` seconds, sorted.

    Raises OSError where there is no file yet and ValueError where it holds something else.
    """
    queues = {name: QueueHealth(**known) for name, known in json.loads(path.read_text()).items()}
    return sorted(name for name, known in queues.items() if now - known.well > older_than)


def main(arguments: Sequence[str]) -> int:
    """`python -m tasks.sqs.health FILE SECONDS` for a container's health check: 0 is well, 1 is not."""
    path, older_than = Path(arguments[0]), float(arguments[1])
    try:
        silent = silent_queues(path, older_than=older_than, now=time.time())
    except (OSError, ValueError, TypeError, AttributeError) as error:
        sys.stderr.write(f"no health record: {type(error).__name__}\n")
        return 1
    if silent:
        sys.stderr.write(f"not heard from for {older_than:g} s: {', '.join(silent)}\n")
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
