"""A way to a TCP server on which connections end at bad moments: at once, after so many bytes of either side, or while they rest."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from contextlib import suppress
from typing import Final

from deploy.local.process import LOOPBACK

CHUNK: Final = 16 * 1024
HANDSHAKE: Final = 3_000
"""Bytes of either side until an SSH session can be used, more or less."""
LONGEST: Final = 2_000_000


class Relay:
    """Listens on a free port of 127.0.0.1; `rate` of the connections are cut while it is not calm."""

    def __init__(self, upstream: int, *, seed: int, rate: float = 0.25) -> None:
        self.cuts: Counter[str] = Counter()
        """Connections cut, by how."""
        self.calm = False
        self.port = 0
        self._upstream = upstream
        self._rate = rate
        self._random = random.Random(seed)
        self._open: dict[asyncio.Task[bool], list[asyncio.StreamWriter]] = {}
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def start(self) -> None:
        """Serves from now on."""
        self._thread.start()
        self._started.wait(30)

    def stop(self) -> None:
        """Ends all connections."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    def cut_one(self) -> None:
        """Cuts one of the open connections, whatever it does."""
        self._loop.call_soon_threadsafe(self._cut_any)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._until_over())

    async def _until_over(self) -> None:
        server = await asyncio.start_server(self._serve, LOOPBACK, self.port)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._over.wait()
        server.close()
        while self._open:
            for writers in self._open.values():
                self._abort(writers)
            await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fate = "lives"
        if not self.calm and self._random.random() < self._rate:
            fate = self._random.choice(["at byte 0", "sending", "answering"])
        if fate == "at byte 0":
            self.cuts[fate] += 1
            writer.transport.abort()
            return
        limit = HANDSHAKE + int(LONGEST ** self._random.random())
        there_reader, there_writer = await asyncio.open_connection(LOOPBACK, self._upstream)
        writers = [writer, there_writer]
        up = asyncio.ensure_future(self._pump(reader, there_writer, limit if fate == "sending" else None))
        down = asyncio.ensure_future(self._pump(there_reader, writer, limit if fate == "answering" else None))
        task = asyncio.ensure_future(self._until_first(up, down))
        self._open[task] = writers
        try:
            if await task:
                self.cuts[fate] += 1
        finally:
            del self._open[task]
            self._abort(writers)

    @staticmethod
    def _abort(writers: list[asyncio.StreamWriter]) -> None:
        for one in writers:
            one.transport.abort()

    async def _until_first(self, up: asyncio.Future[bool], down: asyncio.Future[bool]) -> bool:
        """Returns whether the connection reached its limit."""
        done, rest = await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
        for one in rest:
            one.cancel()
        return any(one.result() for one in done)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None) -> bool:
        passed = 0
        with suppress(OSError):
            while chunk := await reader.read(CHUNK):
                if limit is not None and passed + len(chunk) >= limit and not self.calm:
                    writer.write(chunk[: max(0, limit - passed)])
                    await writer.drain()
                    return True
                passed += len(chunk)
                writer.write(chunk)
                await writer.drain()
        return False

    def _cut_any(self) -> None:
        if self._open:
            self._abort(self._random.choice(list(self._open.values())))
            self.cuts["at any time"] += 1
