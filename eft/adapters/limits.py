"""Slots and breakers in DynamoDB, one item each, in the ledger's table.

    pk              sk   what
    S#<key>         S    slots: {holder: until}
    B#<endpoint>    B    a breaker that is not closed, or counts failures; a closed one has no item

All writes are conditional, so that nobody waits for a lock.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Final

from eft.adapters.aws import AwsSession
from eft.adapters.table import Outcome, Row, Table, Value
from eft.domain.breaker import Breaker
from eft.domain.instants import instant, millis
from eft.ports import Clock

KEPT: Final = timedelta(days=1)
"""How long the item of a key outlives its last lease."""
ROUNDS: Final = 8
"""Looks at an item that others change meanwhile, before a caller goes without."""


class DynamoLimits:
    """`ports.Limits` in a DynamoDB table."""

    def __init__(self, session: AwsSession, *, table: str, clock: Clock, trust_closed: timedelta = timedelta(0)) -> None:
        self._table = Table(session, table, what="the ledger")
        self._clock = clock
        self._closed: dict[str, float] = {}
        """Endpoints whose breaker was closed at this process's last look, and when that was; trusted for `trust_closed`."""
        self._trust_closed = trust_closed.total_seconds()
        self._lock = threading.Lock()

    def acquire(self, key: str, *, limit: int, holder: str, lease: timedelta) -> int:
        """One request while slots are free and where all are taken; two where one has run out, or for the first of several slots.

        Leases that have run out count until somebody needs their slot. Where others keep changing the item meanwhile, the answer is 0.
        """
        now = self._clock.now()
        until = millis(now + lease)
        for _ in range(ROUNDS):
            done, row = self._renewed(key, limit=limit, holder=holder, until=until, expires=_expires(now + lease))
            seen: dict[str, int] | None = None if row is None else row["slots"]
            if done:
                return len(seen or {})
            alive = {one: end for one, end in (seen or {}).items() if end >= millis(now)}
            if len(alive) >= limit and holder not in alive:
                return 0
            slots = {**alive, holder: until}
            if self._replace(key, seen, slots, expires=_expires(now + lease)):
                return len(slots)
        return 0

    def release(self, key: str, *, holder: str) -> None:
        """One request."""
        self._table.update(
            *_slots_key(key),
            "REMOVE #slots.#holder",
            condition="attribute_exists(#slots.#holder)",
            names={"#holder": holder},
        )

    def shut_until(self, endpoint: str) -> datetime | None:
        """One request while the breaker is closed or shut; two for the caller that probes."""
        looked = self._clock.monotonic()
        if looked - self._closed.get(endpoint, -self._trust_closed) < self._trust_closed:
            return None
        for _ in range(ROUNDS):
            row = self._table.get(*_breaker_key(endpoint))
            with self._lock:
                if row is None:
                    self._closed[endpoint] = looked
                else:
                    self._closed.pop(endpoint, None)
            if row is None:
                return None
            breaker = _breaker(row)
            probing = breaker.probed(self._clock.now())
            if probing is None:
                return breaker.shut_until
            if self._store(endpoint, probing, seen=row, reason=row["reason"]):
                return None
        # Others change it all the time, so one of them is probing.
        return self._clock.now()

    def failed(self, endpoint: str, *, reason: str) -> None:
        """Two requests. A count lost because many others count at the same time is no loss."""
        with self._lock:
            self._closed.pop(endpoint, None)
        for _ in range(ROUNDS):
            row = self._table.get(*_breaker_key(endpoint))
            breaker = (Breaker() if row is None else _breaker(row)).failed(self._clock.now())
            if self._store(endpoint, breaker, seen=row, reason=reason):
                return

    def succeeded(self, endpoint: str) -> None:
        """No request where `shut_until` has just found the breaker closed; else one, and one more to close it."""
        with self._lock:
            if endpoint in self._closed:
                if not self._trust_closed:
                    del self._closed[endpoint]
                return
        for _ in range(ROUNDS):
            row = self._table.get(*_breaker_key(endpoint))
            if row is None:
                return
            done, _ = self._table.delete(*_breaker_key(endpoint), condition="#version = :seen", values={":seen": row["version"]})
            if done:
                return

    def inconclusive(self, endpoint: str) -> None:
        """No request where `shut_until` has just found the breaker closed; else one, and one more to give a probe back."""
        with self._lock:
            if endpoint in self._closed:
                return
        row = self._table.get(*_breaker_key(endpoint))
        given_back = None if row is None else _breaker(row).inconclusive(self._clock.now())
        if row is not None and given_back is not None:
            # Changed meanwhile, it is not this caller's probe any more.
            self._store(endpoint, given_back, seen=row, reason=row["reason"])

    def _renewed(self, key: str, *, limit: int, holder: str, until: int, expires: int) -> Outcome:
        """Takes a slot that is seen to be free, or the holder's own, without a look before."""
        values: dict[str, Value] = {":limit": limit, ":expires": expires}
        if limit == 1:
            # Whole, so that the key's first holder needs no second request.
            change, values[":slots"], values[":none"] = "#slots = :slots", {holder: until}, {}
            free = "attribute_not_exists(#slots) OR #slots = :none OR (attribute_exists(#slots.#holder) AND size(#slots) = :limit)"
        else:
            change, values[":until"] = "#slots.#holder = :until", until
            free = "attribute_exists(#slots.#holder) OR (attribute_exists(#slots) AND size(#slots) < :limit)"
        return self._table.update(
            *_slots_key(key), f"SET {change}, #expires = :expires", condition=free, values=values, names={"#holder": holder}
        )

    def _replace(self, key: str, seen: dict[str, int] | None, slots: dict[str, int], *, expires: int) -> bool:
        """Puts slots in place of those seen; returns whether they were still those."""
        values: dict[str, Value] = {":slots": dict(slots), ":expires": expires}
        if seen is not None:
            values[":seen"] = dict(seen)
        done, _ = self._table.update(
            *_slots_key(key),
            "SET #slots = :slots, #expires = :expires",
            condition="attribute_not_exists(#slots)" if seen is None else "#slots = :seen",
            values=values,
        )
        return done

    def _store(self, endpoint: str, breaker: Breaker, *, seen: Row | None, reason: str) -> bool:
        pk, sk = _breaker_key(endpoint)
        row: Row = {
            "pk": pk,
            "sk": sk,
            "version": 1 if seen is None else seen["version"] + 1,
            "failures": breaker.failures,
            "opened": breaker.opened,
            "probing": breaker.probing,
            "reason": reason,
        }
        if breaker.shut_until is not None:
            row["shut_until"] = millis(breaker.shut_until)
        if seen is None:
            return self._table.put(row, condition="attribute_not_exists(#pk)").done
        return self._table.put(row, condition="#version = :seen", values={":seen": seen["version"]}).done


def _breaker(row: Row) -> Breaker:
    shut = instant(row["shut_until"]) if "shut_until" in row else None
    return Breaker(failures=row["failures"], opened=row["opened"], shut_until=shut, probing=row["probing"])


def _expires(until: datetime) -> int:
    return int((until + KEPT).timestamp())


def _slots_key(key: str) -> tuple[str, str]:
    return f"S#{key}", "S"


def _breaker_key(endpoint: str) -> tuple[str, str]:
    return f"B#{endpoint}", "B"
