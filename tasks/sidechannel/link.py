"""The connection to Redis: its address, its timeouts, and the pauses between attempts."""

import random
from typing import Any, Final
from weakref import WeakKeyDictionary

from celery import Celery
from kombu import Connection

TRANSPORT_OPTIONS: Final[dict[str, Any]] = {
    # fanout_prefix and fanout_patterns decide the channels' names: whoever takes part needs the same values.
    "fanout_prefix": True,
    "fanout_patterns": True,
    "socket_timeout": 3,
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
    "retry_on_timeout": False,
    # kombu would wait for Redis without end; whoever asks here waits in a loop of its own.
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0,
    "health_check_interval": 10,
}

LONGEST_PAUSE: Final = 5.0

# Not in app.conf: `inspect conf` shows that to everyone, and the address may carry a password.
_URLS: "Final[WeakKeyDictionary[Celery, str]]" = WeakKeyDictionary()


def remember(app: Celery, redis_url: str | None) -> None:
    """Notes the app's side channel."""
    if redis_url is None:
        _URLS.pop(app, None)
    else:
        _URLS[app] = redis_url


def attached(app: Celery) -> bool:
    """Returns whether the app has a side channel."""
    return app in _URLS


def connect(app: Celery) -> Connection:
    """Returns a connection that is not yet opened; each use fails within seconds when Redis is not there."""
    return Connection(_URLS[app], transport_options=TRANSPORT_OPTIONS, connect_timeout=2)


def pause(failures: int) -> float:
    """Returns the seconds to wait after this many failures in a row."""
    return min(LONGEST_PAUSE, 0.2 * 2.0 ** min(failures - 1, 10)) * random.uniform(0.6, 1.0)  # noqa: S311 - jitter
