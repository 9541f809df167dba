"""One connection of HTTP/1.1, asked and answered in turn. Heads and chunks are parsed by llhttp; bytes of a known length pass it by."""

from __future__ import annotations

import re
import select
import socket
import ssl
from collections import deque
from typing import TYPE_CHECKING, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from eft.ports import Bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

AT_ONCE: Final = 1 << 16
"""Bytes that are taken from the socket at a time, where they are parsed."""
LARGEST_HEAD: Final = 1 << 16
INTERIM: Final = 200
"""Answers with a lower status come before the one that counts."""
_NOT_IN_A_HEAD: Final = re.compile(r"[\x00\r\n]")


class NotHttp(ConnectionError):
    """What came is not HTTP, or ended early; or what is to be sent is none."""


class Connection:
    """A socket that is closed with the object; which is older than it, so that it is finalized first where both are of a cycle."""

    def __init__(self, *, host: str) -> None:
        """Takes what the header Host says."""
        self._host = host
        self._sock: socket.socket | None = None

    @property
    def sock(self) -> socket.socket:
        """The connected socket.

        Raises:
            ConnectionError: there is none.
        """
        if self._sock is None:
            raise ConnectionError("this connection was never made")
        return self._sock

    def connect(self, name: str, port: int, *, seconds: float, options: Sequence[tuple[int, int, int]], tls: ssl.SSLContext | None) -> None:
        """Connects.

        Raises:
            OSError: that failed.
        """
        self._sock = socket.create_connection((name, port), seconds)
        for option in options:
            self._sock.setsockopt(*option)
        if tls is not None:
            self._sock = tls.wrap_socket(self._sock, server_hostname=name)

    def ask(self, method: str, target: str, *, headers: Mapping[str, str], body: bytes | list[Bytes]) -> Reply:
        """Sends a request and returns the answer's head.

        Raises:
            NotHttp: a header cannot be sent, or there is no answer; another OSError: the connection fails.
        """
        told = [f"{method} {target} HTTP/1.1", f"Host: {self._host}", "Accept-Encoding: identity"]
        told += [f"{name}: {value}" for name, value in headers.items()]
        if any(_NOT_IN_A_HEAD.search(line) for line in told):
            raise NotHttp("this is not HTTP: a line of the head would be two")
        try:
            head = ("\r\n".join(told) + "\r\n\r\n").encode("latin-1")
        except UnicodeEncodeError as error:
            raise NotHttp("this is not HTTP: a header holds what none can hold") from error
        if isinstance(body, bytes):
            self.sock.sendall(head + body)
        else:
            self.sock.sendall(head)
            for piece in body:
                self.sock.sendall(piece)
        return Reply(self.sock, method=method)

    @property
    def quiet(self) -> bool:
        """Whether nothing came that nobody has asked for."""
        heard = select.poll()
        heard.register(self.sock, select.POLLIN)
        return not heard.poll(0) and not (isinstance(self.sock, ssl.SSLSocket) and self.sock.pending())

    def close(self) -> None:
        """Closes the socket."""
        if self._sock is not None:
            self._sock.close()

    def __del__(self) -> None:
        """Whoever drops a connection closes it."""
        self.close()


class Reply:
    """An answer: its status, its headers by names in lower case, and its body as it is read."""

    def __init__(self, sock: socket.socket, *, method: str) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = False
        """Whether the body was read to its end."""
        self.kept = False
        """Whether the connection serves on then."""
        self._sock = sock
        self._bodyless = method == "HEAD"
        self._headed = False
        self._size = 0
        """Bytes that were parsed since the last of a body."""
        self._left: int | None = None
        """Bytes of the body that are to come, where that is known."""
        self._parsed: deque[memoryview] = deque()
        self._over = False
        self._parser = HttpResponseParser(self)
        while not self._headed:
            self._parse()
        self._end_if_over()

    def read(self, size: int | None = None) -> bytes:
        """Returns so many bytes of the body, fewer at its end, or all of it.

        Raises:
            NotHttp: the body ends early, or is malformed.
        """
        pieces: list[bytes] = []
        left = size
        while (left is None or left) and not self.ended:
            buffer = memoryview(bytearray(min(AT_ONCE, left or AT_ONCE)))
            filled = self._some(buffer)
            pieces.append(bytes(buffer[:filled]))
            left = None if left is None else left - filled
        return b"".join(pieces)

    def readinto(self, view: memoryview) -> int:
        """Fills a buffer from the body and returns how many bytes came: fewer than it takes at the end.

        Raises:
            NotHttp: the body ends early, or is malformed.
        """
        filled = 0
        while filled < len(view) and not self.ended:
            filled += self._some(view[filled:])
        return filled

    def _some(self, view: memoryview) -> int:
        """Puts what is there of the body into a buffer, waiting for it; nothing came at its end alone."""
        if self._left and not self._parsed:
            filled = self._sock.recv_into(view[: self._left])
            if not filled:
                raise NotHttp("this is not HTTP: the body ends early")
            self._left -= filled
            self._over = not self._left
        else:
            while not self._parsed and not self._over:
                self._parse()
            filled = 0
            if self._parsed:
                piece = self._parsed.popleft()
                filled = min(len(piece), len(view))
                view[:filled] = piece[:filled]
                if filled < len(piece):
                    self._parsed.appendleft(piece[filled:])
        self._end_if_over()
        return filled

    def _parse(self) -> None:
        """Parses what came, waiting for it."""
        came = self._sock.recv(AT_ONCE)
        if not came:
            if self._headed and self._left is None and not self._chunked:
                self._over = True
                return
            raise NotHttp("this is not HTTP: the answer ends early")
        self._size += len(came)
        try:
            self._parser.feed_data(came)
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self._over:
                raise NotHttp("this is not HTTP") from error
            # Whatever follows the answer.
            self.kept = False
        if self._bodyless and self._headed and not came.endswith(b"\r\n\r\n"):
            # The parser holds the beginning of a body that should not be there.
            self.kept = False
        if self._size > LARGEST_HEAD and not self._over:
            raise NotHttp("this is not HTTP: a head, or what stands between two chunks, has no end")

    def _end_if_over(self) -> None:
        self.ended = self._over and not self._parsed

    @property
    def _chunked(self) -> bool:
        return self.headers.get("transfer-encoding", "").lower().endswith("chunked")

    # -- what the parser tells -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """An answer begins: after the one that counts it is nobody's."""
        if self._over:
            raise NotHttp("this is not HTTP: an answer to no request")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header came; one that came before is told with it."""
        if self._headed:
            # A trailer.
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        """The head is over."""
        self.status = self._parser.get_status_code()
        if self.status < INTERIM:
            self.headers = {}
            return
        self._headed = True
        self.kept = self._parser.should_keep_alive()
        if "content-length" in self.headers and not self._chunked:
            self._left = int(self.headers["content-length"])
        self._over = self._bodyless

    def on_body(self, piece: bytes) -> None:
        """Bytes of the body came."""
        if not self._headed:
            raise NotHttp("this is not HTTP: an interim answer has a body")
        if self._bodyless:
            self.kept = False
            return
        self._size = 0
        self._parsed.append(memoryview(piece))
        if self._left is not None:
            self._left -= len(piece)

    def on_message_complete(self) -> None:
        """The answer is over."""
        self._over = self._headed
