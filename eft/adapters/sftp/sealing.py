"""What leaves an SSH connection under AES-GCM: packets made and sealed one by one, several sent at once (see `packets.py`)."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from paramiko.message import Message

from eft.ports import Bytes

BURST = 1 << 18
"""Bytes of payload that are sealed before they are sent."""
BURST_PACKETS = 16
LARGEST_SEALED = 1 << 17
"""Bytes of payload in one packet of a burst, where the server allows so many."""
CHANNEL_DATA = 94
HEADER = 10
"""Bytes before the payload of a data packet: padding length, type, channel, payload length."""
TAG = 16
BLOCK = 16
SPARE = 64
"""More than a packet has beside its payload."""


class Burst:
    """Payload for one channel that leaves as several packets, sealed one by one and sent at once."""

    def __init__(self, channel: int, pieces: Sequence[Bytes], sizes: Sequence[int]) -> None:
        """Takes the receiver's channel number, the bytes, and how many of them go into each packet."""
        self.channel = channel
        self.pieces = pieces
        self.sizes = sizes

    def messages(self) -> list[Message]:
        """Returns the packets' messages as paramiko has them."""
        whole = memoryview(b"".join(self.pieces))
        made: list[Message] = []
        for size in self.sizes:
            message = Message()
            message.add_byte(bytes((CHANNEL_DATA,)))
            message.add_int(self.channel)
            message.add_string(bytes(whole[:size]))
            made.append(message)
            whole = whole[size:]
        return made


class Nonces:
    """The nonces of one key in one direction, each of them once (RFC 5647, section 7.1)."""

    def __init__(self, iv: bytes) -> None:
        self._salt = iv[:4]
        self._count = int.from_bytes(iv[4:], "big")

    def following(self) -> bytes:
        """Returns the next one."""
        nonce = self._salt + self._count.to_bytes(8, "big")
        self._count += 1
        return nonce


class Sealer:
    """Seals packets with one key. For one thread at a time, which sends what it is given before it asks again."""

    def __init__(self, engine: AESGCM, iv: bytes) -> None:
        self._engine = engine
        self._nonces = Nonces(iv)
        self._plain = self._sealed = memoryview(b"")

    def rest(self) -> None:
        """Gives back memory: nothing is sealed for a while."""
        self._plain = self._sealed = memoryview(b"")

    def one(self, payload: bytes) -> memoryview:
        """Returns the packet of a message."""
        size = len(payload)
        self._make_room()
        plain, sealed = self._plain, self._sealed
        if size > LARGEST_SEALED:
            plain, sealed = memoryview(bytearray(size + SPARE)), memoryview(bytearray(size + SPARE))
        plain[1 : 1 + size] = payload
        return sealed[: self._seal(plain, size, sealed, os.urandom(BLOCK + 4))]

    def burst(self, burst: Burst) -> memoryview:
        """Returns the packets of a burst, one behind the other."""
        self._make_room()
        plain, sealed, filled = self._plain, self._sealed, 0
        rest = deque(memoryview(piece) for piece in burst.pieces)
        padding = os.urandom(BLOCK + 4)
        plain[1] = CHANNEL_DATA
        plain[2:6] = burst.channel.to_bytes(4, "big")
        for size in burst.sizes:
            plain[6:HEADER] = size.to_bytes(4, "big")
            at, end = HEADER, HEADER + size
            while at < end:
                piece = rest[0]
                fits = min(len(piece), end - at)
                plain[at : at + fits] = piece[:fits]
                at += fits
                if fits == len(piece):
                    rest.popleft()
                else:
                    rest[0] = piece[fits:]
            filled += self._seal(plain, HEADER - 1 + size, sealed[filled:], padding)
        return sealed[:filled]

    def _make_room(self) -> None:
        if not self._sealed:
            self._plain = memoryview(bytearray(LARGEST_SEALED + SPARE))
            self._sealed = memoryview(bytearray(BURST + BURST_PACKETS * SPARE))

    def _seal(self, plain: memoryview, payload: int, sealed: memoryview, padding: bytes) -> int:
        """Seals the packet whose payload begins at `plain[1]` and returns how many bytes of `sealed` it takes."""
        count = 3 + BLOCK - (payload + 4) % BLOCK
        size = 1 + payload + count
        plain[0] = count
        plain[1 + payload : size] = padding[:count]
        length = size.to_bytes(4, "big")
        sealed[:4] = length
        self._engine.encrypt_into(self._nonces.following(), plain[:size], length, sealed[4 : 4 + size + TAG])
        return 4 + size + TAG
