"""What the health checks answer."""

from __future__ import annotations

from api.schemas.base import Shown


class Live(Shown):
    """The process answers."""

    live: bool = True


class Ready(Shown):
    """Whether requests can be served, and what was looked at."""

    ready: bool
    checks: dict[str, bool]
