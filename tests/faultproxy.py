"""A proxy between a client and an AWS endpoint that misbehaves on command.

    with FaultProxy("http://127.0.0.1:4566") as proxy:
        proxy.inject("DeleteMessageBatch", THROTTLED, times=3)
        client = boto3.client("sqs", endpoint_url=proxy.url)

It understands the AWS JSON protocols, whose X-Amz-Target header names the operation; requests without it are the
operation "". Faults are consumed in the order in which they were injected.
"""

import json
import socket
import threading
from collections import Counter
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Fault:
    """What the proxy does to one request."""

    name: str
    status: int = 0
    body: bytes = b""
    hangs: bool = False
    forwards: bool = False
    """The server gets the request all the same; the client does not get its answer."""


def _error(status: int, code: str) -> Fault:
    return Fault(code, status, json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": "injected"}).encode())


UNAVAILABLE: Final = _error(503, "ServiceUnavailable")
INTERNAL: Final = _error(500, "InternalFailure")
THROTTLED: Final = _error(400, "RequestThrottled")
EXPIRED: Final = _error(403, "ExpiredTokenException")
DENIED: Final = _error(403, "AccessDeniedException")
DROPPED: Final = Fault("dropped")
LOST_REPLY: Final = Fault("lost reply", forwards=True)
HANGING: Final = Fault("hanging", hangs=True)
RUBBISH: Final = Fault("rubbish", 200, b"<html>not what you asked for")
SHAPELESS: Final = Fault("shapeless", 200, b'{"Messages": [{"nothing": "that one knows"}], "Successful": 7}')

ALL: Final = (UNAVAILABLE, INTERNAL, THROTTLED, EXPIRED, DROPPED, LOST_REPLY, HANGING, RUBBISH, SHAPELESS)


class FaultProxy:
    """Listens on a free port of 127.0.0.1 and forwards to `upstream` what is not told otherwise."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._changed = threading.Condition()
        self._faults: list[tuple[str, Fault]] = []
        self._open: set[socket.socket] = set()
        self._server: _Server | None = None
        self._port = 0
        self._forwarding = 0
        self.forwarded: Counter[str] = Counter()
        """Requests that went through, by operation."""
        self.expired_keys: set[str] = set()
        """Access key ids that are refused from now on."""

    @property
    def url(self) -> str:
        """The address to give to the client."""
        return f"http://127.0.0.1:{self._port}"

    def inject(self, operation: str, fault: Fault, times: int = 1) -> None:
        """The next requests of the operation meet the fault."""
        with self._changed:
            self._faults += [(operation, fault)] * times

    def wait_until_met(self, timeout: float) -> None:
        """Returns when every injected fault has met its request; raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._faults, timeout):
                raise TimeoutError(f"not met: {self._faults}")

    def stop(self) -> None:
        """The endpoint is dead: nobody listens, and whoever was connected is cut off.

        Returns when the server has answered what had been forwarded, so that none of it takes effect later.
        """
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        with self._changed:
            for connection in self._open:
                _cut(connection)
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._forwarding, timeout=30)

    def start(self) -> None:
        """The endpoint lives, on the same port as before."""
        self._server = _Server(("127.0.0.1", self._port), self)
        self._port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="fault-proxy", daemon=True).start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def opened(self, connection: socket.socket) -> None:
        """A client connected."""
        with self._changed:
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        """A client left."""
        with self._changed:
            self._open.discard(connection)

    def fault_for(self, operation: str, authorization: str) -> Fault | None:
        """Returns what the request meets; an injected fault is taken off the list."""
        with self._changed:
            if any(f"Credential={key}/" in authorization for key in self.expired_keys):
                return EXPIRED
            for n, (wanted, fault) in enumerate(self._faults):
                if wanted == operation:
                    del self._faults[n]
                    self._changed.notify_all()
                    return fault
            return None

    def hang(self) -> None:
        """Waits until the endpoint is stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._server is None, timeout=60)

    def forward(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, list[tuple[str, str]], bytes]:
        """Returns the server's answer."""
        host, port = self._upstream
        upstream = HTTPConnection(host, port, timeout=60)
        with self._changed:
            self._forwarding += 1
        try:
            upstream.request(method, path, body, headers)
            answer = upstream.getresponse()
            content = answer.read()
            return answer.status, answer.getheaders(), content
        finally:
            upstream.close()
            with self._changed:
                self._forwarding -= 1
                self._changed.notify_all()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], proxy: FaultProxy) -> None:
        self.proxy = proxy
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves early is what faults are for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _answer(self) -> None:
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        fault = proxy.fault_for(operation, self.headers.get("Authorization", ""))
        if fault is None:
            proxy.forwarded[operation] += 1
        if fault is None or fault.forwards:
            try:
                status, headers, content = proxy.forward(self.command, self.path, body, dict(self.headers.items()))
            except (OSError, HTTPException):
                status, headers, content = 502, [], b""
        elif fault.hangs:
            proxy.hang()
            status, headers, content = 0, [], b""
        else:
            status, headers, content = fault.status, [("Content-Type", "application/x-amz-json-1.0")], fault.body
        if status == 0 or (fault is not None and fault.forwards):
            _cut(self.connection)
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in {"transfer-encoding", "content-length", "connection"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    # http.server looks these names up.
    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _answer  # noqa: N815

    def setup(self) -> None:
        super().setup()
        self.server.proxy.opened(self.connection)

    def finish(self) -> None:
        self.server.proxy.closed(self.connection)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
        """The test speaks."""


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
