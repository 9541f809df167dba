"""The way from one region to the other, on one machine: a TCP proxy that can be cut, silenced or slowed down.

A pair of regions has two, one each way, so that half a failure can be played too. It runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, Self, TypeVar

from deploy.local.process import LOOPBACK, free_port

BLOCK: Final = 1 << 16
CONTROL_SECONDS: Final = 20.0
T = TypeVar("T")


class LinkState(StrEnum):
    """What becomes of what is sent over a link."""

    UP = "up"
    CUT = "cut"
    """Connections are dropped, new ones refused."""
    SILENT = "silent"
    """Connections are taken, and nothing comes through: who waits, waits until their own time-out."""


class Link:
    """One direction. `target` says where the other end is, asked at each connection."""

    def __init__(self, target: Callable[[], int]) -> None:
        """Takes the port of 127.0.0.1 that it leads to."""
        self.port = free_port()
        self.state = LinkState.UP
        self.delay = timedelta(0)
        """Of each block, in either direction."""
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where the near end is."""
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> Self:
        """Returns itself once it listens."""
        self._thread.start()
        self._run(self._listen())
        return self

    def stop(self) -> None:
        """Drops everything and ends."""
        if not self._thread.is_alive():
            return
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CONTROL_SECONDS)
        self._loop.close()

    def cut(self) -> None:
        """Drops all connections and refuses new ones; returns once that is so."""
        self._run(self._become(LinkState.CUT))

    def silence(self) -> None:
        """Lets nothing through any more, without telling anybody."""
        self._run(self._become(LinkState.SILENT))

    def heal(self) -> None:
        """Carries again; what had been connected while it was silent is dropped."""
        self._run(self._become(LinkState.UP))

    def become(self, state: LinkState) -> None:
        """Brings the link into a state."""
        self._run(self._become(state))

    # -- in the link's own thread ----------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accepted, LOOPBACK, self.port)

    async def _become(self, state: LinkState) -> None:
        before, self.state = self.state, state
        if state is LinkState.CUT:
            await self._close()
        elif state is LinkState.UP and before is LinkState.SILENT:
            self._drop()
        if state is not LinkState.CUT and self._server is None:
            await self._listen()

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._drop()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def _drop(self) -> None:
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = self._loop.create_task(self._carry(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _carry(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        self._ends.add(near)
        far: asyncio.StreamWriter | None = None
        try:
            far_reader, far = await asyncio.open_connection(LOOPBACK, self._target())
            self._ends.add(far)
            await asyncio.gather(self._pump(near_reader, far), self._pump(far_reader, near))
        except OSError:
            # Either end is gone; the other one sees it.
            pass
        finally:
            for end in (near, far):
                if end is not None:
                    end.transport.abort()
                    self._ends.discard(end)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while block := await source.read(BLOCK):
            if self.delay:
                await asyncio.sleep(self.delay.total_seconds())
            if self.state is LinkState.SILENT:
                # What was sent is swallowed; the connection lives until it is dropped, or its owner has had enough.
                continue
            target.write(block)
            await target.drain()
        with suppress(OSError):
            target.write_eof()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CONTROL_SECONDS)
