"""A source on a real sshd that is polled while files are written to it: no part of a file is ever delivered as a file."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.local.sftp import SftpServer
from eft.adapters.clock import SystemClock
from eft.domain.endpoint import Endpoint
from eft.domain.transfer import State
from eft.journey.messages import Message
from eft.journey.operate import run_flow
from eft.ports import Store
from tests.contract.sftp_bench import SftpBench
from tests.fake_store import FakeStores
from tests.world import TENANT, World

WHOLE = b"".join(b"line %06d\n" % n for n in range(3000))
PIECES = [WHOLE[n : n + 4000] for n in range(0, len(WHOLE), 4000)]
PAUSE = 0.4
"""Seconds between two pieces: less than between two looks."""


class Mixed(FakeStores):
    """A real source, and destinations in memory."""

    bench: SftpBench

    def open(self, endpoint: Endpoint) -> AbstractContextManager[Store]:  # type: ignore[override]
        """Gives either."""
        return self.bench.open() if endpoint.id == self.bench.endpoint.id else super().open(endpoint)


@pytest.fixture
def world(sshd: SftpServer) -> Iterator[World]:
    """An engine by the machine's clock, whose endpoint `source` is an account on a real sshd."""
    made = World()
    bench = SftpBench(sshd.account(f"writers{os.getpid()}{time.monotonic_ns()}"))
    (bench.directory / "in").mkdir()
    bench.endpoint = bench.endpoint.model_copy(update={"tenant": TENANT})
    made.registry.add_endpoint(bench.endpoint)
    stores = Mixed(made.clock, made.stores.servers)
    stores.staging_server, stores.bench = made.stores.staging_server, bench
    made.stores = stores
    made.engine = replace(made.engine, stores=stores, clock=SystemClock())
    yield made
    bench.connections.close_all()


def append(inbox: Path) -> None:
    """Writes piece by piece under the final name."""
    with (inbox / "a.csv").open("wb") as file:
        for piece in PIECES:
            file.write(piece)
            file.flush()
            time.sleep(PAUSE)


def rename(inbox: Path) -> None:
    """Writes under a name for unfinished files."""
    append_to = inbox / "a.csv.tmp"
    with append_to.open("wb") as file:
        for piece in PIECES:
            file.write(piece)
            file.flush()
            time.sleep(PAUSE)
    append_to.rename(inbox / "a.csv")


def rewrite(inbox: Path) -> None:
    """Has a whole file, then another in its place, piece by piece."""
    (inbox / "a.csv").write_bytes(b"first\n")
    time.sleep(4)
    append(inbox)


def mark(inbox: Path) -> None:
    """Makes a marker when the file is whole."""
    append(inbox)
    (inbox / "a.csv.done").touch()


def mark_again(inbox: Path) -> None:
    """Has a whole file and its marker, then another in the file's place, piece by piece, and the marker made anew."""
    (inbox / "a.csv").write_bytes(b"first\n")
    (inbox / "a.csv.done").touch()
    time.sleep(4)
    mark(inbox)


@pytest.mark.parametrize(
    ("write", "selection", "versions"),
    [
        (append, {"stability": {"looks": 3, "apart": "PT1S"}}, [WHOLE]),
        (append, {"min_age": "PT3S"}, [WHOLE]),
        (rename, {"exclude": ["*.tmp"]}, [WHOLE]),
        (rewrite, {"stability": {"looks": 3, "apart": "PT1S"}}, [b"first\n", WHOLE]),
        (mark, {"stability": {"done_marker": "{name}.done"}}, [WHOLE]),
        (mark_again, {"stability": {"done_marker": "{name}.done"}}, [b"first\n", WHOLE]),
    ],
)
def test_only_whole_files_are_delivered(
    world: World, write: Callable[[Path], None], selection: dict[str, object], versions: list[bytes]
) -> None:
    """Polled without pause while it is written, and until it has settled; each whole version arrives, nothing else does."""
    stores = world.stores
    assert isinstance(stores, Mixed)
    flow = world.flow(stores.bench.endpoint.id, "s3-b", selection=selection, conflict="rename")
    writer = threading.Thread(target=write, args=(stores.bench.directory / "in",))
    writer.start()
    queue: deque[Message] = deque()
    until = time.monotonic() + 120
    while len(world.server("s3-b").finals()) < len(versions) or writer.is_alive():
        assert time.monotonic() < until, [(row.state, row.error) for row in world.ledger.rows()]
        queue += run_flow(world.engine, flow)
        while queue:
            # Looks again come with the next run.
            queue += [one for one in world.deliver_message(queue.popleft()) if not one.delay]
        time.sleep(0.2)
    writer.join()
    assert sorted(world.server("s3-b").finals().values()) == sorted(versions)
    assert {row.state for row in world.ledger.rows()} == {State.SETTLED}
