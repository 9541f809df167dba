"""HTTP/1.1 over kept connections for the short way to AWS (aws_direct.py)."""

from __future__ import annotations

import socket
import threading
import time
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from botocore.awsrequest import AWSPreparedRequest, HeadersDict
from botocore.httpsession import create_urllib3_context

from eft.adapters.aws_connection import Connection, Reply
from eft.adapters.aws_signature import PORTS, host, parted
from eft.ports import Bytes

if TYPE_CHECKING:
    import ssl

SOCKET: Final = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))
"""Options of every connection."""

ORIGINS: Final = 16
"""Hosts to which connections are kept: on AWS each bucket is one."""


FRESH: Final = 2.0
"""Seconds of rest after which a connection is not trusted with what is sent once: the other side may be about to close it."""


class NotSent(OSError):
    """No connection could be made: nothing has left."""


class Request(AWSPreparedRequest):
    """A request as botocore's hooks know it. Its headers become botocore's once somebody looks at them: hooks are rare."""

    def __init__(
        self, method: str, url: str, *, headers: dict[str, str], body: bytes | list[Bytes], streamed: bool, once: bool = False
    ) -> None:
        self.once = once
        """Whether sending it anew is no way out of a connection that was closed meanwhile."""
        self.method = method
        self.url = url
        self.body: Any = body
        self.streamed = self.stream_output = streamed
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
        self._each = kept
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def send(self, request: Request) -> Answer:
        """Returns the answer to a request, without its body where that is to be streamed.

        Raises:
            NotSent: it never left; another OSError: it may have arrived.
        """
        origin, path, query = parted(request.url)
        kept = self._kept_to(origin)
        connection = _standing(kept, rested=FRESH if request.once else None)
        try:
            connection = connection or self._made(origin)
            target = f"{path}?{query}" if query else path
            reply = connection.ask(request.method, target, headers=request.told, body=request.body)
            body = Body(connection, reply, kept)
            content = b"" if request.streamed else body.read()
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        return Answer(reply.status, reply.headers, content, body)

    def _kept_to(self, origin: str) -> _Kept:
        """Returns the connections to an origin; those of the origins that were asked least recently are dropped."""
        with self._lock:
            kept = self._kept.setdefault(origin, deque(maxlen=self._each))
            self._kept.move_to_end(origin)
            if len(self._kept) > ORIGINS:
                self._kept.popitem(last=False)
            return kept

    def _made(self, origin: str) -> Connection:
        try:
            return self._connected(origin)
        except (OSError, ValueError) as error:
            raise NotSent(str(error)) from error

    def _connected(self, origin: str) -> Connection:
        parts = urlsplit(origin)
        name = parts.hostname or ""
        connection = Connection(host=host(origin))
        tls = self._tls if parts.scheme == "https" else None
        connection.connect(name, parts.port or PORTS[parts.scheme], seconds=self._connect, options=SOCKET, tls=tls)
        connection.sock.settimeout(self._read)
        return connection

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        context: ssl.SSLContext = create_urllib3_context()
        # urllib3 compares the names itself.
        context.check_hostname = True
        context.load_verify_locations(self._bundle)
        return context


class Body:
    """An answer's body on its connection, which serves again once the body is read to its end."""

    def __init__(self, connection: Connection, reply: Reply, kept: _Kept) -> None:
        """Takes where the connection is kept then."""
        self._connection: Connection | None = connection
        self._reply = reply
        self._kept = kept
        self._end_if_read()

    def read(self, size: int | None = None) -> bytes:
        """Returns so many bytes, or all, and fewer at the end.

        Raises:
            ConnectionError: the body ends early, or is malformed.
        """
        found = self._reply.read(size)
        self._end_if_read()
        return found

    def readinto(self, view: memoryview) -> int:
        """Reads into a buffer and returns how many bytes; fewer than it takes at the end.

        Raises:
            ConnectionError: the body ends early, or is malformed.
        """
        found = self._reply.readinto(view)
        self._end_if_read()
        return found

    def close(self) -> None:
        """Drops the connection, unless the body was read to its end."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _end_if_read(self) -> None:
        if self._connection is None or not self._reply.ended:
            return
        if self._reply.kept:
            self._kept.append((self._connection, time.monotonic()))
        else:
            self._connection.close()
        self._connection = None


_Kept = deque[tuple[Connection, float]]
"""Connections, and since when they rest."""


def _standing(kept: _Kept, *, rested: float | None) -> Connection | None:
    """Takes a connection on which nothing is asked, which the other side has neither closed nor sends on, and not for too many seconds."""
    with suppress(IndexError):
        while True:
            connection, since = kept.pop()
            if connection.quiet and (rested is None or time.monotonic() - since <= rested):
                return connection
            connection.close()
    return None
