"""What a connection holds while nobody uses it: no memory that others could use."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from uuid import uuid4

import pytest

from deploy.local.sftp import SftpServer
from eft.adapters.buffers import Buffers, _unused
from eft.adapters.sftp import packets, pool, session
from eft.adapters.sftp.wire import Kind, string
from eft.domain.names import remote_path
from eft.domain.parts import MIB
from tests.contract.sftp_bench import SftpBench
from tests.contract.store_suite import content_of, read
from tests.running import eventually


class Watched(Buffers):
    """Buffers of which it can be told whether anybody looks into one."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: dict[int, bytearray] = {}

    def take(self) -> bytearray:
        """Returns a buffer."""
        buffer = super().take()
        self.taken[id(buffer)] = buffer
        return buffer

    @property
    def in_use(self) -> int:
        """How many buffers are not given back, or looked into all the same."""
        with self._lock:
            # Those alone are touched: of another one somebody may be about to look into.
            free = {id(buffer) for buffer in self._given if _unused(buffer)}
        return sum(one not in free for one in list(self.taken))


@pytest.fixture
def buffers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """The connections' own. Whatever hangs together in a circle stays."""
    watched = Watched()
    monkeypatch.setattr(packets, "BUFFERS", watched)
    monkeypatch.setattr(packets, "QUIET", 2)
    monkeypatch.setattr(pool, "TICK", 0.05)
    # A connection that is thought to be far away has bytes under way that nobody waits for any more.
    monkeypatch.setattr(session, "FAR", 0.0)
    gc.disable()
    yield watched
    gc.enable()


def test_a_connection_at_rest_holds_no_buffers(sshd: SftpServer, buffers: Watched) -> None:
    """It is given back with answers under way that nobody takes; used again, it serves as before."""
    content = content_of(12 * MIB)
    with SftpBench(sshd.account(uuid4().hex)) as bench:
        bench.put("in.bin", content)
        for _ in range(2):
            with bench.open() as store:
                file = store.stat(remote_path("in.bin"))
                begun = b"".join(store.read(file, start=0, size=3 * MIB, until=12 * MIB))
            assert begun == content[: 3 * MIB]
            assert buffers.taken
            eventually(lambda: not buffers.in_use)
        with bench.open() as store:
            assert read(store, store.stat(remote_path("in.bin"))) == content
        assert len(bench.limits._slots[bench.key]) == 1


def test_a_connection_at_rest_holds_no_buffer_for_an_answer_that_came_with_another(sshd: SftpServer, buffers: Watched) -> None:
    """Of two requests that left together, the second one's answer is nobody's business."""
    with SftpBench(sshd.account(uuid4().hex)) as bench:
        with bench.open() as store:
            wire = store.session.wire  # type: ignore[attr-defined]
            asked = [wire.post(Kind.LSTAT, string(str(bench.directory).encode())) for _ in range(2)]
            wire._flush()
            eventually(lambda: len(wire._pipe._inflow) >= 2 * 41)
            wire.take(asked[0])
            wire.forget(asked[1])
            assert wire._rest
        eventually(lambda: not buffers.in_use)
        with bench.open() as store:
            bench.put("in.bin", b"still there")
            assert read(store, store.stat(remote_path("in.bin"))) == b"still there"


def test_a_connection_that_is_closed_holds_no_buffers(sshd: SftpServer, buffers: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though paramiko's objects live on until they are collected, and before the keeper comes by."""
    monkeypatch.setattr(pool, "TICK", 3600.0)
    with SftpBench(sshd.account(uuid4().hex)) as bench:
        bench.put("in.bin", content_of(12 * MIB))
        with bench.open() as store:
            file = store.stat(remote_path("in.bin"))
            assert sum(len(chunk) for chunk in store.read(file, start=0, size=3 * MIB, until=12 * MIB)) == 3 * MIB
        del store
        bench.connections.close_all()
        assert buffers.taken
        eventually(lambda: not buffers.in_use)
