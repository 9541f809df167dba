"""`python -m tests.bench.distance PORT TARGET MILLISECONDS`: a TCP proxy that puts a round-trip time between two processes.

Each block waits for half of the round trip in either direction; blocks follow one another as fast as they came, so that the
delay costs no bandwidth. A sender is held back once `WINDOW` bytes are on their way, as a TCP window does. What the proxy
cannot do: lose packets, or make the handshake of TCP itself wait (SSH's and HTTP's do).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Final

from deploy.local.process import LOOPBACK

BLOCK: Final = 1 << 18
WINDOW: Final = 128 << 20
"""Bytes on their way in one direction: 10 Gbit/s at 100 ms."""


class Direction:
    """What is on its way from one end to the other."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._blocks: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._came = asyncio.Event()
        self._left = asyncio.Event()

    async def take_in(self, source: asyncio.StreamReader) -> None:
        """Takes blocks until the sender has ended."""
        while block := await source.read(BLOCK):
            self._put(block)
            while self._size > WINDOW:
                self._left.clear()
                await self._left.wait()
        self._put(b"")

    async def give_out(self, target: asyncio.StreamWriter) -> None:
        """Passes each block when its time has come; returns after the end."""
        while True:
            while not self._blocks:
                self._came.clear()
                await self._came.wait()
            due, block = self._blocks[0]
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            self._blocks.popleft()
            if not block:
                with suppress(OSError):
                    target.write_eof()
                return
            self._size -= len(block)
            self._left.set()
            target.write(block)
            await target.drain()

    def _put(self, block: bytes) -> None:
        self._blocks.append((time.monotonic() + self._delay, block))
        self._size += len(block)
        self._came.set()


async def carry(near_reader: asyncio.StreamReader, near: asyncio.StreamWriter, *, target: int, delay: float) -> None:
    """Carries one connection until both directions have ended, or one broke."""
    try:
        far_reader, far = await asyncio.open_connection(LOOPBACK, target, limit=4 * BLOCK)
    except OSError:
        near.transport.abort()
        return
    there, back = Direction(delay), Direction(delay)
    work = [there.take_in(near_reader), there.give_out(far), back.take_in(far_reader), back.give_out(near)]
    tasks = [asyncio.ensure_future(one) for one in work]
    with suppress(OSError):
        await asyncio.gather(*tasks)
    for task in tasks:
        task.cancel()
    near.transport.abort()
    far.transport.abort()


async def serve(port: int, target: int, milliseconds: float) -> None:
    """Serves a port of 127.0.0.1 until the process ends; `milliseconds` is the round trip."""
    delay = milliseconds / 2000

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await carry(reader, writer, target=target, delay=delay)

    server = await asyncio.start_server(accepted, LOOPBACK, port, limit=4 * BLOCK, backlog=256)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
