"""Slots and breakers in DynamoDB, one item each, in the ledger's table.

    pk              sk   what
    S#<key>         S    slots: {holder: until}; where fewer are allowed than the limit: allowed, eased (when that changed)
    B#<endpoint>    B    a breaker that is not closed, or counts failures; a closed one has no item

All writes are conditional, so that nobody waits for a lock.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from eft.adapters.aws import AwsSession
from eft.adapters.table import Outcome, Row, Table, Value
from eft.domain.breaker import Breaker
from eft.domain.congestion import EASES, WIDENS
from eft.domain.instants import instant, millis
from eft.ports import Clock, Slots

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

    def acquire(self, key: str, *, limit: int, holder: str, lease: timedelta) -> Slots | None:
        """One request while slots are free and where all are taken; two where one has run out, or for the first of several slots.

        Where others keep changing the item meanwhile, the answer is None.
        """
        now = self._clock.now()
        until = millis(now + lease)
        for _ in range(ROUNDS):
            done, row = self._renewed(key, limit=limit, holder=holder, until=until, expires=_expires(now + lease))
            seen: dict[str, int] = {} if row is None else row["slots"]
            alive = {one: end for one, end in seen.items() if end >= millis(now)}
            if done:
                return Slots(len(alive), _allowed(row, limit))
            allowed, changed = _allowed(row, limit), {}
            if holder not in alive and len(alive) >= allowed:
                if row is None or len(alive) >= limit or now < instant(row["eased"]) + WIDENS:
                    return None
                allowed += 1
                changed = {"allowed": allowed, "eased": millis(now)}
            slots = {**alive, holder: until}
            if self._replace(key, row, slots, expires=_expires(now + lease), more=changed):
                return Slots(len(slots), allowed)
        return None

    def release(self, key: str, *, holder: str) -> None:
        """One request."""
        self._table.update(
            *_slots_key(key),
            "REMOVE #slots.#holder",
            condition="attribute_exists(#slots.#holder)",
            names={"#holder": holder},
        )

    def ease(self, key: str, *, to: int) -> bool:
        """One request."""
        now = self._clock.now()
        done, _ = self._table.update(
            *_slots_key(key),
            "SET #allowed = :to, #eased = :now",
            condition="attribute_exists(#slots) AND (attribute_not_exists(#allowed) OR (#allowed > :to AND #eased < :before))",
            values={":to": to, ":now": millis(now), ":before": millis(now - EASES)},
        )
        return done

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
            few = "size(#slots) < :limit AND (attribute_not_exists(#allowed) OR size(#slots) < #allowed)"
            free = f"attribute_exists(#slots.#holder) OR (attribute_exists(#slots) AND {few})"
        return self._table.update(
            *_slots_key(key), f"SET {change}, #expires = :expires", condition=free, values=values, names={"#holder": holder}
        )

    def _replace(self, key: str, seen: Row | None, slots: dict[str, int], *, expires: int, more: Mapping[str, int]) -> bool:
        """Puts slots, and `more`, in place of what was seen; returns whether that was still so."""
        values: dict[str, Value] = {":slots": dict(slots), ":expires": expires, **{f":{name}": value for name, value in more.items()}}
        condition = "attribute_not_exists(#slots)"
        if seen is not None:
            values[":seen"], condition = dict(seen["slots"]), "#slots = :seen"
        if seen is not None and more:
            values[":was"], condition = seen["eased"], "#slots = :seen AND #eased = :was"
        changes = ", ".join(f"#{name} = :{name}" for name in ("slots", "expires", *more))
        done, _ = self._table.update(*_slots_key(key), f"SET {changes}", condition=condition, values=values)
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


def _allowed(row: Row | None, limit: int) -> int:
    allowed: int = limit if row is None else row.get("allowed", limit)
    return min(limit, allowed)


def _expires(until: datetime) -> int:
    return int((until + KEPT).timestamp())


def _slots_key(key: str) -> tuple[str, str]:
    return f"S#{key}", "S"


def _breaker_key(endpoint: str) -> tuple[str, str]:
    return f"B#{endpoint}", "B"
