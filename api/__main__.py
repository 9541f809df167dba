"""`python -m api`: serves the API on the settings' host and port, in threads, until it is told to stop.

TLS ends before it. Waitress reads slow requests without holding a thread for each, and gives those under way five seconds on SIGTERM.
"""

from __future__ import annotations

import logging
import signal
from types import FrameType

import waitress
from flask import Flask

from api.operation import MAX_BODY
from api.wsgi import application
from eft.settings import Settings
from eft.telemetry import log_to_stderr

THREADS = 16
log = logging.getLogger(__name__)


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    settings = Settings()
    log_to_stderr(settings.log_level)
    serve(application(settings), host=settings.api_host, port=settings.api_port)


def serve(app: Flask, *, host: str, port: int) -> None:
    """Serves an app until SIGTERM or SIGINT."""
    signal.signal(signal.SIGTERM, _leave)
    log.info("listening", extra={"host": host, "port": port})
    waitress.serve(
        app,
        host=host,
        port=port,
        threads=THREADS,
        ident=None,
        # Above the app's own limit, so that the app tells of a body that is too large in its own words.
        max_request_body_size=8 * MAX_BODY,
        max_request_header_size=32 * 1024,
        clear_untrusted_proxy_headers=True,
        _quiet=True,
    )


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    main()
