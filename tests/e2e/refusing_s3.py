"""Something at an S3 address that refuses every request in one and the same way."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


class RefusingS3:
    """Answers with an error of S3's: a status, a code, and headers if given."""

    def __init__(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        class Refuse(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _refuse(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = b"" if self.command == "HEAD" else f"<Error><Code>{code}</Code><Message>refused</Message></Error>".encode()
                self.send_response_only(status)
                for name, value in {**(headers or {}), "Content-Type": "application/xml", "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            # http.server looks these names up.
            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _refuse  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
                """The test speaks."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
        self._server.daemon_threads = True
        self._server.block_on_close = False

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
