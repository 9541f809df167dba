"""HTTP/1.1 over kept connections, as much of it as the short way to AWS needs (aws_direct.py)."""

from __future__ import annotations

import select
import socket
import weakref
from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from botocore.awsrequest import AWSPreparedRequest, HeadersDict
from botocore.httpsession import create_urllib3_context

from eft.adapters.aws_signature import PORTS, host, parted
from eft.ports import Bytes

if TYPE_CHECKING:
    import ssl

SOCKET: Final = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))
BLOCK: Final = 1 << 16
LARGEST_HEAD: Final = 1 << 18
OK: Final = 200
BODILESS: Final = frozenset({204, 304})
"""Statuses of answers that end with their head (RFC 9112, 6.3)."""


class Request(AWSPreparedRequest):
    """A request as botocore's hooks know it. Its headers become botocore's once somebody looks at them: hooks are rare."""

    def __init__(self, method: str, url: str, *, headers: dict[str, str], body: bytes | list[Bytes], streamed: bool) -> None:
        self.method = method
        self.url = url
        self.body: Any = body
        self.stream_output = streamed
        self.context: Any = None
        self._signed = headers

    @cached_property
    def headers(self) -> Any:  # type: ignore[override] # noqa: ANN401 - the stubs know of other headers
        """The headers, in whatever case they are asked for; they may be changed."""
        return HeadersDict(self._signed)

    @property
    def told(self) -> dict[str, str]:
        """The headers as they are sent."""
        return dict(self.headers) if "headers" in self.__dict__ else self._signed


@dataclass(frozen=True, slots=True)
class Answer:
    """A service's answer. Its body is `content`, or is read from `raw` where the request said so."""

    status_code: int
    headers: dict[str, str]
    """By names in lower case."""
    content: bytes
    raw: Body


class Connections:
    """Sends requests, each once, and keeps the connections, so many to each host. Thread-safe.

    An answer that breaks off, that is not HTTP, or that does not come in time is an `OSError`.
    """

    def __init__(self, *, bundle: str | None, timeout: tuple[float, float], kept: int) -> None:
        """Takes the file of certificates that are trusted, and the seconds to wait for a connection and for what comes over it."""
        self._bundle = bundle
        self._connect, self._read = timeout
        self._kept: defaultdict[str, _Kept] = defaultdict(lambda: deque(maxlen=kept))
        weakref.finalize(self, _close_all, self._kept)

    def send(self, request: Request) -> Answer:
        """Returns the answer to a request, without its body where that is to be streamed."""
        try:
            return self._sent(request)
        except ValueError as error:
            raise ConnectionError("this is not HTTP") from error

    def _sent(self, request: Request) -> Answer:
        origin, path, query = parted(request.url)
        head = _head(f"{request.method} {path}{'?' if query else ''}{query} HTTP/1.1", {"Host": host(origin), **request.told})
        kept = self._kept[origin]
        connection = self._standing(kept) or self._connected(origin)
        try:
            connection.send(head, request.body)
            return connection.answer(method=request.method, streamed=request.stream_output, kept=kept)
        except BaseException:
            connection.close()
            raise

    @staticmethod
    def _standing(kept: _Kept) -> _Connection | None:
        with suppress(IndexError):
            while not (connection := kept.pop()).stands():
                connection.close()
            return connection
        return None

    def _connected(self, origin: str) -> _Connection:
        parts = urlsplit(origin)
        name = parts.hostname or ""
        held = socket.create_connection((name, parts.port or PORTS[parts.scheme]), timeout=self._connect)
        try:
            for option in SOCKET:
                held.setsockopt(*option)
            if parts.scheme == "https":
                held = self._tls.wrap_socket(held, server_hostname=name)
            held.settimeout(self._read)
        except BaseException:
            held.close()
            raise
        return _Connection(held)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        context: ssl.SSLContext = create_urllib3_context()
        # urllib3 compares the names itself.
        context.check_hostname = True
        context.load_verify_locations(self._bundle)
        return context


class Body:
    """An answer's body on its connection, which serves again once the body is read to its end."""

    def __init__(self, connection: _Connection, left: int, kept: _Kept | None) -> None:
        """Takes the bytes that are to come, and where the connection is kept then; None: nowhere."""
        self._connection: _Connection | None = connection
        self._left = left
        self._kept = kept
        self._end_if_read()

    def read(self, size: int | None = None) -> Bytes:
        """Returns so many bytes, or all, and fewer at the end."""
        if self._connection is None:
            return b""
        wanted = self._left if size is None else min(size, self._left)
        found = self._connection.take(wanted)
        self._left -= len(found)
        if len(found) < wanted:
            self.close()
        self._end_if_read()
        return found

    def close(self) -> None:
        """Drops the connection, unless the body was read to its end."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _end_if_read(self) -> None:
        if self._left or self._connection is None:
            return
        if self._kept is not None and self._connection.is_read:
            self._kept.append(self._connection)
            self._connection = None
        self.close()


class _Connection:
    """One connection. Whoever drops it closes it."""

    def __init__(self, held: socket.socket) -> None:
        self._socket = held
        self._ahead = bytearray()
        """What was received and not taken."""

    def __del__(self) -> None:
        self.close()

    @property
    def is_read(self) -> bool:
        """Whether all that was received is taken."""
        return not self._ahead

    def stands(self) -> bool:
        """Returns whether a connection that nothing is asked on is neither closed by the other side nor sends."""
        heard = select.poll()
        heard.register(self._socket, select.POLLIN)
        return not heard.poll(0)

    def close(self) -> None:
        self._socket.close()

    def send(self, head: bytes, body: bytes | list[Bytes]) -> None:
        """Sends a request: in one packet, or a body of several buffers from where they are."""
        if isinstance(body, bytes):
            self._socket.sendall(head + body)
            return
        self._socket.sendall(head)
        for piece in body:
            self._socket.sendall(piece)

    def answer(self, *, method: str, streamed: bool, kept: _Kept) -> Answer:
        """Returns the answer to what was sent, without its body where that is streamed."""
        status, headers, keeps = self._told()
        while status < OK:
            status, headers, keeps = self._told()
        coded, length = headers.get("transfer-encoding"), headers.get("content-length")
        if method == "HEAD" or status in BODILESS:
            coded, length = None, "0"
        size = None if length is None or coded is not None else _number(length)
        if streamed:
            # A body of unknown length is nobody's, and takes its connection along.
            return Answer(status, headers, b"", Body(self, size or 0, kept if keeps and size is not None else None))
        content = self._content(size) if coded is None else self._chunks(coded)
        return Answer(status, headers, content, Body(self, 0, kept if keeps and (size, coded) != (None, None) else None))

    def _told(self) -> tuple[int, dict[str, str], bool]:
        """Returns the status and headers of an answer, and whether more may be asked after it (RFC 9112, 9.3)."""
        first, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status = first.split(" ", 2)[:2]
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise ValueError("a header has no name")
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if not version.startswith("HTTP/1."):
            raise ValueError("another protocol answers")
        return _number(status), headers, version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"

    def _content(self, size: int | None) -> bytes:
        if size is None:
            while more := self._socket.recv(BLOCK):
                self._ahead += more
        content = self.take(len(self._ahead) if size is None else size)
        if size is not None and len(content) < size:
            raise ConnectionError("the answer breaks off")
        return bytes(content)

    def _chunks(self, coded: str) -> bytes:
        """Returns a body that comes in chunks (RFC 9112, 7.1)."""
        if coded.lower() != "chunked":
            raise ValueError("the coding is not known")
        content = bytearray()
        while size := int(self._until(b"\r\n").partition(b";")[0], 16):
            content += self._content(size)
            if self._until(b"\r\n"):
                raise ValueError("a chunk is longer than it says")
        while self._until(b"\r\n"):
            pass
        return bytes(content)

    def _until(self, mark: bytes) -> bytes:
        while (end := self._ahead.find(mark)) < 0:
            more = self._socket.recv(BLOCK)
            if not more or len(self._ahead) > LARGEST_HEAD:
                raise ConnectionError("the answer breaks off")
            self._ahead += more
        found = bytes(self._ahead[:end])
        del self._ahead[: end + len(mark)]
        return found

    def take(self, size: int) -> Bytes:
        """Returns so many bytes, fewer where the connection ends."""
        got = min(size, len(self._ahead))
        taken, self._ahead = self._ahead[:got], self._ahead[got:]
        if got == size:
            return bytes(taken)
        found = memoryview(bytearray(size))
        found[:got] = taken
        while got < size and (more := self._socket.recv_into(found[got:])):
            got += more
        return found[:got]


_Kept = deque[_Connection]


def _close_all(kept: defaultdict[str, _Kept]) -> None:
    for connections in kept.values():
        for connection in connections:
            connection.close()


def _head(request: str, headers: dict[str, str]) -> bytes:
    lines = [request, *[f"{name}: {value}" for name, value in headers.items()], "Accept-Encoding: identity\r\n\r\n"]
    head = "\r\n".join(lines)
    if not head.count("\r") == head.count("\n") == len(lines) + 1:
        raise ValueError("a header has several lines")
    return head.encode("latin-1")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError("this is no number")
    return int(text)
