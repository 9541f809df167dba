"""All steps of the journey with ledger, registry and queue in memory: real servers, and as many workers as the whole engine has here.

What a worker does with a message is done by a thread; what it would send goes into a queue of its process. The run of the flow is one
process's, which then becomes two: each has its half of the messages, and the rows as they were.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko

from eft.domain.flow import Flow, Policy, Selection
from eft.domain.transfer import State, Step
from eft.journey.advance import advance
from eft.journey.discover import discover
from eft.journey.lane import copy_lanes
from eft.journey.messages import Message
from eft.journey.operate import run_flow
from eft.journey.work import Slice
from eft.ports import Engine, Tuning
from tests.bench.composed import TENANT, Composed
from tests.fakes import FakeLedger, FakeOwnership, FakeRegistry

WORKERS, THREADS = 2, 4


class Line:
    """The queue, and how many messages are still in hand."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: queue.Queue[Message | None] = queue.Queue()
        self.failed: list[BaseException] = []
        self.ids: list[str] = []
        """Of the transfers that are this process's."""

    def halve(self, which: int) -> None:
        """Keeps one worker's share of what waits."""
        held = [self._waiting.get() for _ in range(self._waiting.qsize())]
        mine = [message for message in held[which::WORKERS] if message is not None]
        self.ids = [one for message in mine for one in message.ids]
        self._waiting = queue.Queue()
        self.put(mine)

    def step(self) -> None:
        """Carries out one message."""
        message = self._waiting.get()
        if message is not None:
            self.put(self._carry(message))

    def put(self, messages: list[Message]) -> None:
        """Adds messages."""
        for message in messages:
            self._waiting.put(message)

    def work(self) -> None:
        """Carries messages out until there are none, on several threads."""
        threads = [threading.Thread(target=self._serve) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        self._waiting.join()
        for _ in threads:
            self._waiting.put(None)
        for thread in threads:
            thread.join()

    def _serve(self) -> None:
        while (message := self._waiting.get()) is not None:
            try:
                self.put(self._carry(message))
            except BaseException as error:  # noqa: BLE001 - told at the end
                self.failed.append(error)
            finally:
                self._waiting.task_done()

    def _carry(self, message: Message) -> list[Message]:
        engine = self._engine
        worker = f"{threading.get_ident()}:{engine.clock.nonce()[:6]}"
        piece = Slice(worker=worker, clock=engine.clock, length=engine.tuning.slice, limits=engine.limits)
        follow: list[Message] = []
        for one in message.ids:
            if message.step is Step.DISCOVER:
                follow += discover(engine, one, piece)
            elif message.step is Step.PARTS:
                follow += copy_lanes(engine, one, message.part or 0, piece)
            else:
                follow += advance(engine, one, piece)
        piece.end()
        return follow


def main(told: dict[str, Any]) -> None:
    """Prints the seconds from the run of the flow to the last receipt, connecting included."""
    ports = Composed()
    registry, ledger = FakeRegistry(), FakeLedger(anew=False)
    for name in ("source", "target"):
        end = told[name]
        registry.add_endpoint(ports.endpoint(name, end, key=Path(end["key_file"]).read_text() if end["kind"] == "sftp" else ""))
    engine = Engine(
        clock=ports.clock,
        ledger=ledger,
        limits=ports.limits,
        registry=registry,
        secrets=ports.secrets,
        stores=ports.stores,
        ownership=FakeOwnership(),
        tuning=Tuning(tenant_window=2 * WORKERS * THREADS),
    )
    flow = Flow(
        id="bench",
        tenant=TENANT,
        name="bench",
        source="source",
        destination="target",
        destination_directory=told["into"],
        selection=Selection(directory=told["directory"]),
        policy=Policy(staging=False, **told.get("policy", {})),
        created=ports.clock.now(),
    )
    registry.add_flow(flow)
    line = Line(engine)
    began = time.perf_counter()
    line.put(run_flow(engine, flow))
    line.step()
    ports.sftp.close_all()
    for thread in threading.enumerate():
        # One that is in the middle of something at the fork leaves its locks held for ever.
        if isinstance(thread, paramiko.Transport):
            thread.join()
    settled, failed = _shared(line, ledger, ports.sftp.close_all)
    seconds = time.perf_counter() - began
    if failed or settled != len(told["paths"]):
        sys.exit(f"{settled} of {len(told['paths'])} settled: {failed[:3]}")
    sys.stdout.write(f"{seconds}\n")


def _shared(line: Line, ledger: FakeLedger, leave: Callable[[], None]) -> tuple[int, list[str]]:
    """Has workers, each a process, carry out what waits; returns how many transfers settled, and what went wrong."""
    pipes = []
    for which in range(WORKERS):
        reading, writing = os.pipe()
        if os.fork() == 0:
            line.halve(which)
            line.work()
            leave()
            # As they were written: reading them would count as work.
            rows = [ledger._rows[one].written for one in line.ids]
            wrong = [str(error) for error in line.failed] + [row.error for row in rows if row.error]
            os.write(writing, json.dumps([sum(row.state is State.SETTLED for row in rows), wrong[:3]]).encode()[:4000])
            os._exit(0)
        os.close(writing)
        pipes.append(reading)
    told = []
    for pipe in pipes:
        with os.fdopen(pipe) as said:
            told.append(json.load(said))
        os.wait()
    return sum(settled for settled, _ in told), [each for _, wrong in told for each in wrong]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
