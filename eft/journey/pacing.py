"""Pacing: bytes of endpoints that have a bandwidth window pass no faster than it allows, whatever number of workers wants to move them.

While a window is on, one slice at a time uses the endpoint: it holds the endpoint's pace, a lease of the fleet, and moves at the whole
rate. The others wait their turn on the row, which uses up no try. Copies that a store makes by itself (S3 → S3) pass no worker and are not
bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Final

from eft.domain.endpoint import Endpoint
from eft.domain.transfer import Transfer
from eft.errors import NotFound, Transient
from eft.journey.work import Slice
from eft.ports import Bytes, Engine

LONGEST_PAUSE: Final = 0.5
"""Seconds without a look whether the process is to leave."""
TURN: Final = timedelta(seconds=10)
"""Until whoever did not get the pace asks again; half of it more, at random."""


class Pace:
    """One slice's pace between the two ends of a transfer."""

    def __init__(self, engine: Engine, transfer: Transfer, piece: Slice) -> None:
        self._engine = engine
        self._slice = piece
        self._bounded = bounded_ends(engine, transfer)
        self._free_at = dict.fromkeys((endpoint.id for endpoint in self._bounded), 0.0)
        self._renew_at: dict[str, float] = {}

    def kept(self, chunks: Iterable[Bytes]) -> Iterator[Bytes]:
        """Passes chunks through, no faster than the windows that are on allow.

        Raises:
            Transient: `bandwidth_busy`: it is another slice's turn; it uses up no try.
            SliceOver: the process is leaving.
        """
        if not self._bounded:
            yield from chunks
            return
        for chunk in chunks:
            for endpoint in self._bounded:
                rate = endpoint.bytes_per_second(self._engine.clock.now())
                if rate is not None:
                    self._take_turn(endpoint)
                    self._wait(endpoint, len(chunk) / rate)
            yield chunk

    def _take_turn(self, endpoint: Endpoint) -> None:
        now = self._engine.clock.monotonic()
        if now < self._renew_at.get(endpoint.id, now):
            return
        lease, key = self._engine.tuning.admission_lease, f"pace:{endpoint.id}"
        if not self._engine.limits.acquire(key, limit=1, holder=self._slice.worker, lease=lease):
            msg = f"endpoint {endpoint.id} has a bandwidth window, and another transfer uses it now"
            raise Transient(msg, reason="bandwidth_busy", retry_after=TURN * (1 + self._engine.clock.jitter() / 2), counts=False)
        self._slice.admitted.add(key)
        self._renew_at[endpoint.id] = now + lease.total_seconds() / 3

    def _wait(self, endpoint: Endpoint, seconds: float) -> None:
        """Lets the time pass that the bytes before these take."""
        until = self._free_at[endpoint.id]
        while (left := until - self._engine.clock.monotonic()) > 0:
            self._slice.check()
            self._engine.pause(min(left, LONGEST_PAUSE))
        self._free_at[endpoint.id] = max(until, self._engine.clock.monotonic()) + seconds


def bounded_ends(engine: Engine, transfer: Transfer) -> list[Endpoint]:
    """Returns the endpoints of a transfer that have bandwidth windows, on or off."""
    places = dict.fromkeys((transfer.source.endpoint, transfer.destination.endpoint))
    found = (_endpoint(engine, transfer.tenant, place) for place in places)
    return [endpoint for endpoint in found if endpoint is not None and endpoint.bandwidth]


def _endpoint(engine: Engine, tenant: str, endpoint: str) -> Endpoint | None:
    try:
        return engine.registry.endpoint(tenant, endpoint)
    except NotFound:
        # From staging its source is not needed.
        return None
