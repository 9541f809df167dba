"""What goes wrong meanwhile: workers are killed and stopped, messages come twice, connections are cut."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from deploy.local.sftp import PasswordSftpServer, Quirks
from deploy.local.stack import LocalStack
from tests.soak.relay import Relay
from tests.soak.traffic import UNIT

Job = Callable[[str, random.Random], object]
STOPPED: Final = (5.0, 9.0)
"""Seconds that a stopped worker stays so: longer than a claim and than its messages stay hidden."""


class Trouble:
    """Threads that make it, each at its own pace, until told to stop."""

    def __init__(
        self, stack: LocalStack, relay: Relay, *, known: Callable[[], list[str]], again: Callable[[str], object], seed: int
    ) -> None:
        """Takes the transfers known so far and what sends one's message again."""
        self.made: Counter[str] = Counter()
        """How often each thing was done."""
        self.failed: list[str] = []
        self._stack, self._relay, self._known, self._again = stack, relay, known, again
        self._quirky: PasswordSftpServer = stack.password_sftp
        self._over = threading.Event()
        self._seed = seed
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="trouble")

    def start(self) -> None:
        """Begins."""
        jobs: list[tuple[Job, float, float, str]] = [(self._kill_or_stop, 3.0, 12.0, name) for name in self._stack.workers]
        jobs += [(self._duplicate, 0.3, 1.5, ""), (self._change_quirks, 0.0, 0.3, ""), (self._cut, 0.3, 2.0, "")]
        for number, (job, least, most, name) in enumerate(jobs):
            self._threads.submit(self._repeat, job, least, most, name, random.Random(self._seed + number))

    def stop(self) -> None:
        """Ends the trouble: all workers run, connections live."""
        self._over.set()
        self._threads.shutdown()
        self._relay.calm = True
        self._quirky.behave(Quirks())

    def _repeat(self, job: Job, least: float, most: float, name: str, pick: random.Random) -> None:
        while not self._over.wait(pick.uniform(least, most)):
            try:
                job(name, pick)
            except Exception as error:  # noqa: BLE001 - the verdict tells it
                self.failed.append(f"trouble: {type(error).__name__}: {error}")

    def _kill_or_stop(self, name: str, pick: random.Random) -> None:
        worker = self._stack.workers[name]
        if pick.random() < 0.4:
            worker.kill()
            self.made["killed"] += 1
            worker.start()
            return
        worker.signal(signal.SIGSTOP)
        self.made["stopped"] += 1
        time.sleep(pick.uniform(*STOPPED))
        worker.signal(signal.SIGCONT)

    def _duplicate(self, _: str, pick: random.Random) -> None:
        """The same message once more, twice more, for something under way or long at rest."""
        known = self._known()
        recent = known[-60:]
        for transfer in pick.sample(recent, min(2, len(recent))) + pick.sample(known, min(1, len(known))):
            for _time in range(pick.choice([1, 2])):
                self._again(transfer)
                self.made["duplicate messages"] += 1

    def _change_quirks(self, _: str, pick: random.Random) -> None:
        """The server in Python cuts its next connections: at byte 0, in mid-file, before the last byte, at the close, at the rename."""
        times = pick.choice([1, 2])
        how, quirks = pick.choice(
            [
                ("at byte 0", Quirks(cut_after=0, cut_times=times)),
                ("in mid-file", Quirks(cut_after=pick.randrange(1, 2 * UNIT), cut_times=times)),
                ("at the last byte", Quirks(cut_after=pick.choice([1, 2, 3]) * UNIT - 1, cut_times=times)),
                ("during close", Quirks(cut_on="close", cut_times=times)),
                ("during the rename's reply", Quirks(cut_on="rename", cut_times=times)),
            ]
        )
        before = self._cuts()
        self._quirky.behave(quirks)
        self._over.wait(pick.uniform(0.5, 2.0))
        self.made[f"cut {how}"] += self._cuts() - before

    def _cut(self, *_: object) -> None:
        self._relay.cut_one()

    def _cuts(self) -> int:
        return self._quirky.log.read_text().count(" cut\n") if self._quirky.log.exists() else 0
