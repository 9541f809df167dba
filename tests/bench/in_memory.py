"""All steps of the journey with ledger, registry and queue in memory: one process, a few threads, real servers.

What a worker does with a message is done here by a thread; what it would send goes into a queue of this process.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any

from eft.domain.flow import Flow, Policy, Selection
from eft.domain.transfer import State, Step
from eft.journey.advance import advance
from eft.journey.discover import discover
from eft.journey.lane import copy_lane
from eft.journey.messages import Message
from eft.journey.operate import run_flow
from eft.journey.work import Slice
from eft.ports import Engine, Tuning
from tests.bench.composed import TENANT, Composed
from tests.fakes import FakeLedger, FakeOwnership, FakeRegistry

THREADS = 8


class Line:
    """The queue, and how many messages are still in hand."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: queue.Queue[Message | None] = queue.Queue()
        self.failed: list[BaseException] = []

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
                follow += copy_lane(engine, one, message.part or 0, piece)
            else:
                follow += advance(engine, one, piece)
        piece.end()
        return follow


def main(told: dict[str, Any]) -> None:
    """Prints the seconds from the run of the flow to the last receipt, connecting included."""
    ports = Composed()
    registry, ledger = FakeRegistry(), FakeLedger()
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
        tuning=Tuning(tenant_window=2 * THREADS),
    )
    flow = Flow(
        id="bench",
        tenant=TENANT,
        name="bench",
        source="source",
        destination="target",
        destination_directory=told["into"],
        selection=Selection(directory=told["directory"]),
        policy=Policy(staging=False),
        created=ports.clock.now(),
    )
    registry.add_flow(flow)
    line = Line(engine)
    began = time.perf_counter()
    line.put(run_flow(engine, flow))
    line.work()
    seconds = time.perf_counter() - began
    ports.sftp.close_all()
    settled = sum(row.state is State.SETTLED for row in ledger.rows())
    if line.failed or settled != len(told["paths"]):
        states = {row.error for row in ledger.rows() if row.state is not State.SETTLED}
        sys.exit(f"{settled} of {len(told['paths'])} settled: {list(states)[:3]} {line.failed[:1]}")
    sys.stdout.write(f"{seconds}\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
