"""/v1/health: for load balancers and container platforms; the only addresses beside the documentation that ask for no token."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from flask import Blueprint, current_app

from api.operation import Answered, operation
from api.schemas.health import Live, Ready
from eft.errors import EftError
from eft.ports import Engine

health = Blueprint("health", __name__, url_prefix="/v1/health")

KEPT_SECONDS: Final = 2.0
NOBODY: Final = "-"
"""No tenant is called so: a look at its rows costs next to nothing."""


class Readiness:
    """What is looked at, and the last answer: it is kept for two seconds, so that nobody without a token makes the tables work."""

    def __init__(self, core: Engine, keys_ready: Callable[[], bool]) -> None:
        self._core = core
        self._looks: dict[str, Callable[[], object]] = {
            "ledger": lambda: core.ledger.page(NOBODY, limit=1),
            "registry": lambda: core.registry.flows(NOBODY, limit=1),
        }
        self._keys_ready = keys_ready
        self._turn = threading.Lock()
        self._seen: tuple[float, dict[str, bool]] | None = None

    def checks(self) -> dict[str, bool]:
        """Returns each check by name."""
        # A table that hangs holds one request, not every one that asks.
        if not self._turn.acquire(blocking=self._seen is None):
            return self._last()
        try:
            now = self._core.clock.monotonic()
            if self._seen is None or now - self._seen[0] >= KEPT_SECONDS:
                found = {name: _answers(look) for name, look in self._looks.items()}
                self._seen = (self._core.clock.monotonic(), {**found, "token_keys": self._keys_ready()})
            return self._last()
        finally:
            self._turn.release()

    def _last(self) -> dict[str, bool]:
        return {} if self._seen is None else self._seen[1]


@health.get("/live")
@operation(summary="Whether the process answers", scope=None, answer=Live)
def live() -> Live:
    """Looks at nothing else: a process that is alive is not restarted because a table is down."""
    return Live()


@health.get("/ready")
@operation(summary="Whether requests can be served", scope=None, answer=Ready, also=(503,))
def ready() -> Answered:
    """Looks at the tables and at the keys that tokens are checked with; 503 with the same body when one fails.
    Queues do not count: accepting goes on without them.
    """
    readiness: Readiness = current_app.extensions["eft-readiness"]
    checks = readiness.checks()
    good = all(checks.values())
    return Answered(Ready(ready=good, checks=checks), status=200 if good else 503)


def _answers(look: Callable[[], object]) -> bool:
    try:
        look()
    except EftError:
        return False
    return True
