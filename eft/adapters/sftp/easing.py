"""What a process sees of how many connections an endpoint stands, and how the fleet hears of it (ADR 0022)."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import Final
from weakref import WeakKeyDictionary

from eft.adapters.sftp.session import Session
from eft.domain.congestion import Gradient, after_cut, after_refusal
from eft.domain.endpoint import SftpEndpoint
from eft.errors import EftError
from eft.ports import Limits

LOG = logging.getLogger(__name__)

REFUSALS: Final = frozenset({"unreachable", "connect_timeout", "connection_lost", "login_cut", "session_refused"})
"""What a server that has enough connections does with one more."""
LONGEST: Final = 2.0
"""Seconds between two comparisons beyond which it is not known when the bytes moved."""
InUse = tuple[SftpEndpoint, Session, int]
"""A connection: to which endpoint, its session, and how many of the endpoint's slots were taken when its own was acquired or renewed."""


def slots_key(endpoint: SftpEndpoint) -> str:
    """Returns the key of an endpoint's slots."""
    return f"endpoint:{endpoint.id}"


class Easing:
    """Gives endpoints fewer connections where that is better. Thread-safe but for `compare`, which is one thread's."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._gradients: defaultdict[tuple[str, str], Gradient] = defaultdict(Gradient)
        """By endpoint and way."""
        self._streamed: WeakKeyDictionary[Session, dict[str, int]] = WeakKeyDictionary()
        """What each session had moved at the last comparison."""
        self._compared = 0.0

    def refused(self, endpoint: SftpEndpoint, *, taken: int) -> None:
        """One connection more than others that live was refused."""
        self._ease(endpoint, to=after_refusal(taken))

    def cut(self, endpoint: SftpEndpoint, *, taken: int) -> None:
        """A connection was cut in use while others live."""
        self._ease(endpoint, to=after_cut(taken))

    def compare(self, used: Iterable[InUse], *, now: float) -> None:
        """Looks how much large files moved since the last time, and eases what clearly moves more with fewer connections."""
        seconds, self._compared = now - self._compared, now
        moved: defaultdict[tuple[str, str], list[tuple[SftpEndpoint, int, int]]] = defaultdict(list)
        for endpoint, session, taken in used:
            before, streamed = self._streamed.get(session, {}), dict(session.streamed)
            self._streamed[session] = streamed
            for way, total in streamed.items():
                if came := total - before.get(way, 0):
                    moved[endpoint.id, way].append((endpoint, taken, came))
        if not 0 < seconds <= LONGEST:
            return
        for key, busy in moved.items():
            fewer = self._gradients[key].note(len(busy), sum(came for _, _, came in busy) / seconds, now=now)
            if fewer is not None:
                # Others' connections are not compared: they keep theirs.
                most = max(taken for _, taken, _ in busy)
                self._ease(busy[0][0], to=max(1, most - len(busy) + fewer))

    def _ease(self, endpoint: SftpEndpoint, *, to: int) -> None:
        # What cannot be written down now is found anew.
        with suppress(EftError):
            if self._limits.ease(slots_key(endpoint), to=to):
                LOG.warning("an endpoint is given fewer connections", extra={"endpoint": endpoint.id, "allowed": to})
