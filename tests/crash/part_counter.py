"""A way to S3 that counts, part by part, what is sent over it, and takes its time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit


class PartCounter:
    """Listens on a free port of 127.0.0.1 and forwards everything; a part's upload waits for `pace` seconds."""

    def __init__(self, upstream: str, *, pace: float) -> None:
        parts = urlsplit(upstream)
        self.upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.pace = pace
        self.sent: Counter[int] = Counter()
        """How often each part, by number, came here whole."""
        self.uploads: set[str] = set()
        """Ids of the uploads that parts belonged to."""
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self)

    @property
    def url(self) -> str:
        """The address to give to the client."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def count(self, upload: str, part: int) -> None:
        """Notes a part that came whole."""
        with self._lock:
            self.uploads.add(upload)
            self.sent[part] += 1

    @property
    def sent_again(self) -> int:
        """How many uploads of parts were not the first of their part."""
        with self._lock:
            return sum(self.sent.values()) - len(self.sent)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="part-counter", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], counter: PartCounter) -> None:
        self.counter = counter
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is killed leaves early."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _forward(self) -> None:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size)
        if len(body) < size:
            self.close_connection = True
            return
        counter = self.server.counter
        asked = parse_qs(urlsplit(self.path).query)
        if self.command == "PUT" and "partNumber" in asked:
            counter.count(asked["uploadId"][0], int(asked["partNumber"][0]))
            time.sleep(counter.pace)
        host, port = counter.upstream
        upstream = HTTPConnection(host, port, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"transfer-encoding", "content-length", "connection"}:
                self.send_header(name, value)
        self.send_header("Content-Length", answer.getheader("Content-Length") or "0" if self.command == "HEAD" else str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    # http.server looks these names up.
    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _forward  # noqa: N815

    def handle_expect_100(self) -> bool:
        """Leaves the answer to the request's own turn."""
        return True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
        """The test speaks."""
