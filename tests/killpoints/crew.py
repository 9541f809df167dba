"""The director's workers: forked from a process that has everything imported and nothing connected, used again while they live."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections import deque
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

from tests.killpoints.forking import forked
from tests.killpoints.worker import Order, Report, Worker, serve

PATIENCE: Final = 120.0
"""Seconds after which a worker that neither stops nor ends is taken for hung."""


KEPT: Final = 4
"""Workers at rest."""


class Hung(RuntimeError):
    """A worker did not do what it was told; its log has its stack."""


class Hand:
    """One worker as the director sees it."""

    def __init__(self, worker: Worker, *, log: Path) -> None:
        here, there = socket.socketpair()

        def work() -> None:
            here.close()
            serve(there, worker, log_file=log)

        self.pid = forked(work)
        there.close()
        here.settimeout(PATIENCE)
        self._line = here
        self._heard = here.makefile("r")
        self.stopped = False

    def order(self, order: Order) -> None:
        """Has the worker begin."""
        self._line.sendall(json.dumps(asdict(order)).encode() + b"\n")

    def until(self) -> Report | None:
        """Returns the report of what was ordered once it is done; None when the worker has stopped or killed itself."""
        try:
            text = self._heard.readline()
        except TimeoutError:
            os.kill(self.pid, signal.SIGUSR1)
            raise Hung(f"worker {self.pid} is neither done nor stopped after {PATIENCE:g} s") from None
        if not text:
            self._bury()
            return None
        said = json.loads(text)
        if said.pop("is") == "stopping":
            _, status = os.waitpid(self.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                raise Hung(f"worker {self.pid} ended instead of stopping: {status}")
            self.stopped = True
            return None
        return Report(**said)

    def go_on(self) -> None:
        """Continues a stopped worker."""
        os.kill(self.pid, signal.SIGCONT)
        self.stopped = False

    @property
    def alive(self) -> bool:
        """Whether it has not killed itself."""
        return self.pid > 0

    def dismiss(self) -> None:
        """Ends the worker, however it is."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._bury()

    def _bury(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        self._heard.close()
        self._line.close()
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            raise Hung(f"a worker ended by itself: {status}")


class Crew:
    """Workers at rest, longest at rest first; those that end are replaced."""

    def __init__(self, worker: Worker, *, log: Path) -> None:
        self._worker, self._log = worker, log
        self._resting: deque[Hand] = deque()

    def take(self, *, new: bool = False) -> Hand:
        """Returns a worker to be given an order; a new one has no connection yet."""
        return self._resting.popleft() if self._resting and not new else Hand(self._worker, log=self._log)

    def give_back(self, hand: Hand) -> None:
        """Its report has come."""
        if not hand.alive:
            return
        self._resting.append(hand)
        while len(self._resting) > KEPT:
            self._resting.popleft().dismiss()

    def dismiss(self) -> None:
        """Ends all that are at rest."""
        while self._resting:
            self._resting.popleft().dismiss()
