"""A scripted SFTP server in memory: it answers each request as a test says."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from uuid import uuid4

from eft.adapters.sftp.session import Session
from eft.adapters.sftp.store import SftpStore
from eft.adapters.sftp.wire import Code, Kind, string, uint32, uint64
from eft.domain.endpoint import SftpEndpoint
from eft.ports import Bytes
from tests.fakes import START

Answer = Callable[[int, int, bytes], bytes | None]


def packet(kind: int, body: bytes) -> bytes:
    """A whole packet."""
    return struct.pack(">IB", len(body) + 1, kind) + body


def status(ident: int, code: int, message: bytes = b"as scripted") -> bytes:
    """A status reply."""
    return packet(Kind.STATUS, uint32(ident) + uint32(code) + string(message) + string(b""))


def attributes(size: int | None = 3, mode: int | None = 0o100644, modified: int | None = 1_700_000_000) -> bytes:
    """File attributes; None leaves a field out."""
    flags = (1 if size is not None else 0) | (4 if mode is not None else 0) | (8 if modified is not None else 0) | 0x80000002
    held = uint32(flags)
    held += uint64(size) if size is not None else b""
    held += uint32(1000) + uint32(1000)
    held += uint32(mode) if mode is not None else b""
    held += uint32(5) + uint32(modified) if modified is not None else b""
    return held + uint32(1) + string(b"vendor@example") + string(b"value")


class Script:
    """A server in memory: it answers each request as `answer` says, and hands the bytes out in pieces of `piece`."""

    def __init__(self, answer: Answer | None = None, *, version: bytes | None = None, piece: int = 1 << 20) -> None:
        self.answer = answer or (lambda _kind, ident, _body: status(ident, Code.OP_UNSUPPORTED))
        self.version = packet(Kind.VERSION, uint32(3)) if version is None else version
        self.piece = piece
        self.requests: list[tuple[int, bytes]] = []
        self.sent: list[list[int]] = []
        """The kinds of requests that came together."""
        self.under_way = 0
        self.most_under_way = 0
        self._in = b""
        self._out: deque[bytes] = deque()

    def send(self, pieces: Sequence[Bytes], *, until: float) -> None:
        self._in += b"".join(pieces)
        self.sent.append([])
        while len(self._in) >= 4 and len(self._in) >= 4 + int.from_bytes(self._in[:4], "big"):
            end = 4 + int.from_bytes(self._in[:4], "big")
            whole, self._in = self._in[4:end], self._in[end:]
            if whole[0] == Kind.INIT:
                self._out.append(self.version)
                continue
            self.requests.append((whole[0], whole[5:]))
            self.sent[-1].append(whole[0])
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            if whole[0] == Kind.REALPATH:
                self._out.append(packet(Kind.NAME, whole[1:5] + uint32(1) + string(b"/") + string(b"") + uint32(0)))
            else:
                answered = self.answer(whole[0], int.from_bytes(whole[1:5], "big"), whole[5:])
                if answered is not None:
                    self._out.append(answered)

    def receive(self, wanted: int, *, until: float) -> bytes:
        if not self._out:
            raise TimeoutError
        held = self._out.popleft()
        if len(held) > self.piece:
            self._out.appendleft(held[self.piece :])
            return held[: self.piece]
        self.under_way -= 1
        return held

    def rest(self) -> None:
        """Keeps what it holds."""

    def drop(self) -> None:
        """Keeps what it holds, too."""

    def shuffled(self) -> None:
        """Reverses what waits to be handed out."""
        self._out = deque(list(self._out)[::-1])


def session_on(script: Script, *, version: str = "SSH-2.0-OpenSSH_9.2") -> Session:
    """A session with the scripted server."""
    return Session(script, endpoint="ep", version=version, patience=1, patience_for_disk=1)


def store_on(script: Script, *, version: str = "SSH-2.0-OpenSSH_9.2") -> SftpStore:
    """A store on the scripted server."""
    endpoint = SftpEndpoint(id=uuid4().hex, tenant="t1", name="scripted", created=START, host="h", username="u")
    return SftpStore(endpoint, session_on(script, version=version))


class File:
    """Answers OPEN, FSTAT, READ and CLOSE of one file."""

    def __init__(self, content: bytes, *, most: int = 1 << 20) -> None:
        self.content = content
        self.most = most

    def __call__(self, kind: int, ident: int, body: bytes) -> bytes | None:
        if kind == Kind.OPEN:
            return packet(Kind.HANDLE, uint32(ident) + string(b"h"))
        if kind in {Kind.LSTAT, Kind.FSTAT}:
            return packet(Kind.ATTRS, uint32(ident) + attributes(size=len(self.content)))
        if kind == Kind.READ:
            offset, length = struct.unpack(">QI", body[5:])
            held = self.content[offset : offset + min(length, self.most)]
            return packet(Kind.DATA, uint32(ident) + string(held)) if held else status(ident, Code.EOF)
        return status(ident, Code.OK)


def names(*entries: tuple[bytes, bytes]) -> Answer:
    """Answers OPENDIR and READDIR with entries (name, attributes), two to a reply."""
    left = [entries[i : i + 2] for i in range(0, len(entries), 2)]

    def answer(kind: int, ident: int, body: bytes) -> bytes | None:
        if kind == Kind.OPENDIR:
            return packet(Kind.HANDLE, uint32(ident) + string(b"d"))
        if kind == Kind.LSTAT:
            return packet(Kind.ATTRS, uint32(ident) + attributes(size=9))
        if kind == Kind.READDIR and left:
            some = left.pop(0)
            held = b"".join(string(name) + string(b"") + told for name, told in some)
            return packet(Kind.NAME, uint32(ident) + uint32(len(some)) + held)
        return status(ident, Code.EOF if kind == Kind.READDIR else Code.OK)

    return answer
