"""SFTP version 3 packets over a pipe: requests go out pipelined, replies come back in any order.

Numbers and layouts are those of draft-ietf-secsh-filexfer-02 (https://datatracker.ietf.org/doc/html/draft-ietf-secsh-filexfer-02); the
extensions are OpenSSH's (its PROTOCOL file, section 4). One thread uses a wire at a time.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from eft.domain.names import display
from eft.errors import Transient
from eft.ports import Bytes

LARGEST_PACKET = 1 << 20
"""Bytes of a reply beyond which the other side is not speaking SFTP; OpenSSH sends at most 256 KiB."""
FLUSH_AT = 128 * 1024
"""Bytes of queued requests that are sent without waiting for more."""


class Kind(IntEnum):
    """Packet types."""

    INIT = 1
    VERSION = 2
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    LSTAT = 7
    FSTAT = 8
    OPENDIR = 11
    READDIR = 12
    REMOVE = 13
    MKDIR = 14
    REALPATH = 16
    STAT = 17
    RENAME = 18
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105
    EXTENDED = 200
    EXTENDED_REPLY = 201


class Code(IntEnum):
    """Status codes: 0 to 8 are version 3's; some servers send those of later versions all the same."""

    OK = 0
    EOF = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4
    BAD_MESSAGE = 5
    NO_CONNECTION = 6
    CONNECTION_LOST = 7
    OP_UNSUPPORTED = 8
    INVALID_HANDLE = 9
    NO_SUCH_PATH = 10
    FILE_ALREADY_EXISTS = 11
    WRITE_PROTECT = 12
    NO_SPACE_ON_FILESYSTEM = 14
    QUOTA_EXCEEDED = 15
    NOT_A_DIRECTORY = 19
    INVALID_FILENAME = 20
    LINK_LOOP = 21


class Refused(Exception):
    """The server answered a request with an error status. Never leaves this package: the store translates it by its code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Pipe(Protocol):
    """An ordered stream of bytes to a server's SFTP subsystem. `until` is a time of `time.monotonic()`.

    Raises:
        TimeoutError: nothing could be sent or received until then.
        ConnectionError: the stream is cut.
    """

    def send(self, pieces: Sequence[Bytes], *, until: float) -> None:
        """Sends all bytes of the pieces, in order; they may be reused afterwards."""

    def receive(self, wanted: int, *, until: float) -> Bytes:
        """Returns at least one byte, waiting for it; a pipe may wait for the `wanted` ones, and may return more."""

    def rest(self) -> None:
        """Gives back memory: the pipe is not used for a while."""

    def drop(self) -> None:
        """Gives back memory: the pipe is not used any more."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a server tells of a file; None for what it leaves out."""

    size: int | None
    mode: int | None
    modified: int | None
    """Seconds since 1970."""


class Reply:
    """One reply and a place in it, from which its fields are read one after the other. It lies in one piece, or in two."""

    __slots__ = ("_at", "_body", "_tail", "_wire", "kind")

    def __init__(self, wire: Wire, packet: memoryview, tail: memoryview) -> None:
        self._wire = wire
        self.kind: int = packet[0]
        self._body = packet
        self._tail = tail
        self._at = 1

    @property
    def more(self) -> bool:
        """Whether fields are left."""
        return self._at < len(self._body) + len(self._tail)

    def uint32(self) -> int:
        """Reads a number."""
        return int.from_bytes(self.raw(4), "big")

    def uint64(self) -> int:
        """Reads a number."""
        return int.from_bytes(self.raw(8), "big")

    def string(self) -> memoryview:
        """Reads a string of bytes."""
        return self.raw(self.uint32())

    def pieces(self) -> list[memoryview]:
        """Reads a string of bytes as it lies, in one piece or two."""
        end = self.uint32() + self._at
        if not self._at < len(self._body) < end:
            return [self.raw(end - self._at)]
        head, beyond = self._body[self._at :], end - len(self._body)
        self._see_that_it_holds(end)
        self._at = end
        return [head, self._tail[:beyond]]

    def raw(self, size: int) -> memoryview:
        """Reads bytes, without copying them unless they lie in two pieces.

        Raises:
            Transient: `protocol_error` when the reply is too short.
        """
        end = self._at + size
        if end > len(self._body):
            self._see_that_it_holds(end)
            self._body, self._tail = memoryview(b"".join((self._body, self._tail))), memoryview(b"")
        field = self._body[self._at : end]
        self._at = end
        return field

    def _see_that_it_holds(self, end: int) -> None:
        if end > len(self._body) + len(self._tail):
            raise self._wire.broke("a reply ends too early", reason="protocol_error")

    def attributes(self) -> Attributes:
        """Reads file attributes."""
        flags = self.uint32()
        size = self.uint64() if flags & 0x1 else None
        if flags & 0x2:
            self.raw(8)
        mode = self.uint32() if flags & 0x4 else None
        modified = None
        if flags & 0x8:
            self.raw(4)
            modified = self.uint32()
        if flags & 0x80000000:
            for _ in range(self.uint32()):
                self.string()
                self.string()
        return Attributes(size=size, mode=mode, modified=modified)

    def expect(self, kind: Kind) -> Reply:
        """Returns the reply if it is of a kind.

        Raises:
            Refused: it is an error status.
            Transient: `protocol_error` when it is anything else.
        """
        if self.kind == Kind.STATUS:
            code = self.uint32()
            if code != Code.OK:
                # Some servers leave message and language out.
                raise Refused(code, display(bytes(self.string())) if self.more else "")
            if kind == Kind.STATUS:
                return self
        elif self.kind == kind:
            return self
        raise self._wire.broke(f"expected a reply of type {kind}, got {self.kind}", reason="protocol_error")


def string(held: bytes) -> bytes:
    """Returns a field that holds bytes."""
    return struct.pack(">I", len(held)) + held


def uint32(number: int) -> bytes:
    """Returns a field that holds a number."""
    return struct.pack(">I", number)


def uint64(number: int) -> bytes:
    """Returns a field that holds a number."""
    return struct.pack(">Q", number)


class Wire:
    """Requests and their replies. `patience` is how many seconds may pass until the next whole reply, or until a request is sent."""

    def __init__(self, pipe: Pipe, *, endpoint: str, patience: float) -> None:
        self._pipe = pipe
        self._endpoint = endpoint
        self._patience = patience
        self._queued: list[Bytes] = []
        self._queued_size = 0
        self._last = 0
        self._awaited: set[int] = set()
        self._forgotten: set[int] = set()
        self._arrived: dict[int, Reply] = {}
        self._rest = memoryview(b"")
        self.broken = False
        """Whether the stream is unusable: cut, stalled or out of step."""

    def greet(self) -> dict[bytes, bytes]:
        """Opens the protocol and returns the server's extensions with their values.

        Raises:
            Transient: `protocol_error` when the other side speaks no SFTP, or only a version before 3.
        """
        self._send([struct.pack(">IBI", 5, Kind.INIT, 3)])
        reply = self._receive_packet()
        if reply.kind != Kind.VERSION or reply.uint32() < 3:  # noqa: PLR2004 - the version spoken here
            raise self.broke("the other side does not speak SFTP version 3", reason="protocol_error")
        extensions: dict[bytes, bytes] = {}
        while reply.more:
            name = bytes(reply.string())
            extensions[name] = bytes(reply.string())
        return extensions

    def post(self, kind: Kind, *fields: Bytes) -> int:
        """Queues a request and returns its id; it is sent when enough are queued, or when a reply is awaited."""
        self._last = (self._last + 1) & 0xFFFFFFFF
        ident = self._last
        size = sum(len(field) for field in fields)
        self._queued.append(struct.pack(">IBI", 5 + size, kind, ident))
        self._queued.extend(fields)
        self._queued_size += 9 + size
        self._awaited.add(ident)
        if self._queued_size >= FLUSH_AT:
            self._flush()
        return ident

    def take(self, ident: int, *, patience: float | None = None) -> Reply:
        """Returns the reply to a request, waiting for it.

        Raises:
            Transient: `stalled`, `connection_lost`, `protocol_error`; the wire is broken then.
        """
        self._flush()
        while ident not in self._arrived:
            self._pump(patience)
        return self._arrived.pop(ident)

    def call(self, kind: Kind, *fields: Bytes, patience: float | None = None) -> Reply:
        """Sends a request and returns its reply."""
        return self.take(self.post(kind, *fields), patience=patience)

    def forget(self, ident: int) -> None:
        """Gives up a request: its reply is dropped when it comes."""
        if self._arrived.pop(ident, None) is None and ident in self._awaited:
            self._forgotten.add(ident)

    def rest(self) -> None:
        """Gives back memory: the wire is not used for a while."""
        if not isinstance(self._rest.obj, bytes):
            self._rest = memoryview(bytes(self._rest))
        if self._queued:
            self._queued = [b"".join(self._queued)]
        self._pipe.rest()

    def drop(self) -> None:
        """Gives back memory: the connection under the wire is over."""
        self._rest = memoryview(b"")
        self._arrived.clear()
        self._queued.clear()
        self._pipe.drop()

    def broke(self, message: str, *, reason: str) -> Transient:
        """Returns the error of a wire that is unusable from now on."""
        self.broken = True
        return Transient(f"the SFTP connection failed: {message}", reason=reason, endpoint=self._endpoint)

    def _pump(self, patience: float | None) -> None:
        reply = self._receive_packet(patience)
        ident = reply.uint32()
        if ident not in self._awaited:
            raise self.broke("a reply to no request", reason="protocol_error")
        self._awaited.remove(ident)
        if ident in self._forgotten:
            self._forgotten.remove(ident)
        else:
            self._arrived[ident] = reply

    def _flush(self) -> None:
        if self._queued:
            queued, self._queued, self._queued_size = self._queued, [], 0
            self._send(queued)

    def _send(self, pieces: Sequence[Bytes]) -> None:
        try:
            self._pipe.send(pieces, until=time.monotonic() + self._patience)
        except TimeoutError:
            raise self._stalled(self._patience) from None
        except ConnectionError:
            raise self.broke("it was cut", reason="connection_lost") from None

    def _receive_packet(self, patience: float | None = None) -> Reply:
        # One deadline for the whole packet: a server that trickles bytes does not push it on.
        patience = patience or self._patience
        until = time.monotonic() + patience
        try:
            size = int.from_bytes(self._exactly(4, until=until), "big")
            if not 5 <= size <= LARGEST_PACKET:  # noqa: PLR2004 - type and id
                raise self.broke("the other side does not speak SFTP", reason="protocol_error")
            return Reply(self, *self._together(size, until=until))
        except TimeoutError:
            raise self._stalled(patience) from None
        except ConnectionError:
            raise self.broke("it was cut", reason="connection_lost") from None

    def _stalled(self, patience: float) -> Transient:
        return self.broke(f"no progress for {patience:g} seconds", reason="stalled")

    def _exactly(self, size: int, *, until: float) -> memoryview:
        head, tail = self._together(size, until=until)
        return memoryview(b"".join((head, tail))) if tail else head

    def _together(self, size: int, *, until: float) -> tuple[memoryview, memoryview]:
        """Returns so many bytes in the two pieces that they came in, the second one empty most often; in more they are put together."""
        head = self._take_rest(size) or self._received(size, until=until)
        if len(head) == size:
            return head, memoryview(b"")
        tail = self._received(size - len(head), until=until)
        if len(head) + len(tail) == size:
            return head, tail
        whole, got = memoryview(bytearray(size)), 0
        for piece in (head, tail):
            whole[got : got + len(piece)] = piece
            got += len(piece)
        while got < size:
            piece = self._received(size - got, until=until)
            whole[got : got + len(piece)] = piece
            got += len(piece)
        return whole, memoryview(b"")

    def _received(self, most: int, *, until: float) -> memoryview:
        self._rest = memoryview(self._pipe.receive(most, until=until))
        return self._take_rest(most)

    def _take_rest(self, most: int) -> memoryview:
        """Returns what has come and was not taken, no more than so many bytes."""
        rest = self._rest
        # Whoever keeps a buffer of the pipe's, be it nothing of it, keeps it from being used again.
        self._rest = rest[most:] if len(rest) > most else memoryview(b"")
        return rest[:most]
