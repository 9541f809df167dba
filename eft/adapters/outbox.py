"""The outbox in the ledger's table: transfers that others are to be told of, announcements of flows, and deliveries that did not succeed.

    pk                    sk                 what                              sparse
    T#<transfer>          T                  the transfer (`ledger`)           in `outbox` while there is something to tell
    A#<announcement>      A                  an announcement of a flow         in `outbox` until it is told
    D#<destination>       <announcement>     a delivery                        in `due`, shard `parked-<n>`, while it waits

A transfer's announcements are made of its timeline. `milestones`, written with each save, counts those that there are, and
`announced`, written here alone, those that were told:

    worker     save delivered        milestones 3, in the outbox
    teller     reads the row, tells 2 and 3
    worker     save held             milestones 4
    teller     told                  out of the outbox IF milestones = 3       refused: announced 3, and the row stays to be told of
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from eft.adapters.aws import AwsSession
from eft.adapters.ledger_rows import OUTBOX_SHARDS, checked, transfer_key, transfer_of
from eft.adapters.table import Row, Table
from eft.domain.announcement import Announcement, announcements
from eft.domain.cursor import cursor_after, read_cursor
from eft.domain.instants import instant, millis
from eft.domain.names import shard_of
from eft.domain.transfer import ROW_FORMAT
from eft.domain.webhook import Delivery, DeliveryState
from eft.errors import NotFound, Permanent
from eft.ports import Clock, Page, Untold

log = logging.getLogger(__name__)

KEPT: Final = timedelta(days=30)
"""How long a dead letter can be sent again, and how long an announcement that was told is remembered as such."""


class DynamoOutbox:
    """`ports.Outbox` in the ledger's table, with its indexes `outbox` and `due`."""

    shards = OUTBOX_SHARDS

    def __init__(self, session: AwsSession, *, table: str, clock: Clock) -> None:
        self._table = Table(session, table, what="the outbox")
        self._clock = clock

    def add(self, announcement: Announcement) -> bool:
        """One request. Our own row, met again after a lost answer, counts as one that was there."""
        row: Row = {
            "pk": f"A#{announcement.id}",
            "sk": "A",
            "format": ROW_FORMAT,
            "body": announcement.model_dump_json(),
            "outbox": str(shard_of(announcement.tenant, announcement.id, shards=OUTBOX_SHARDS)),
            "outbox_at": millis(announcement.timestamp),
        }
        return self._table.put(row, condition="attribute_not_exists(#pk)").done

    def untold(self, shard: int, *, limit: int) -> Sequence[Untold]:
        """One request, to an index that lags by moments, and one more per 100 rows."""
        keys = list(self._table.query("#outbox = :shard", values={":shard": str(shard)}, index="outbox", limit=limit))
        rows = self._table.get_many([(key["pk"], key["sk"]) for key in keys])
        # A row without the attribute has been told of, and the index has not heard of that yet.
        found = [rows[key["pk"]] for key in keys if "outbox" in rows.get(key["pk"], {})]
        return [one for row in found if (one := _readable(row)) is not None]

    def told(self, untold: Untold) -> None:
        """One request; one more where something was added meanwhile."""
        if untold.kind == "announcement":
            self._table.update(
                f"A#{untold.id}",
                "A",
                "SET #expires = :expires REMOVE #outbox, #outbox_at",
                condition="attribute_exists(#pk)",
                values={":expires": self._expires()},
            )
            return
        key, values = transfer_key(untold.id), {":told": untold.milestones}
        out = "SET #announced = :told REMOVE #outbox, #outbox_at"
        if not self._table.update(*key, out, condition="#milestones = :told", values=values).done:
            self._table.update(*key, "SET #announced = :told", condition="#milestones > :told", values=values)

    def park(self, delivery: Delivery) -> None:
        """One request."""
        self._table.put(self._row(delivery), condition="attribute_not_exists(#pk)")

    def due(self, shard: int, *, before: datetime, limit: int) -> Sequence[Delivery]:
        """One request, to an index that lags by moments, and one more per 100 deliveries."""
        keys = self._table.query(
            "#due_shard = :shard AND #due_at <= :before",
            values={":shard": _parked(shard), ":before": millis(before)},
            index="due",
            limit=limit,
        )
        rows = self._table.each([(key["pk"], key["sk"]) for key in keys])
        found = [_delivery(row) for row in rows if row.get("due_shard") == _parked(shard)]
        return sorted((one for one in found if one.due_at <= before), key=lambda one: (one.due_at, one.id))

    def change(self, delivery: Delivery, *, seen: Delivery) -> bool:
        """One request. Our own change, met again after a lost answer, counts as made."""
        row = self._row(delivery)
        done, stands = self._table.put(
            row,
            condition="#state = :state AND #due_at = :due_at",
            values={":state": seen.state.value, ":due_at": millis(seen.due_at)},
        )
        return done or stands == row

    def done(self, delivery: Delivery) -> None:
        """One request."""
        self._table.delete(*_key(delivery.destination, delivery.id), condition="attribute_exists(#pk)")

    def delivery(self, destination: str, delivery_id: str) -> Delivery:
        """One request, consistent."""
        row = self._table.get(*_key(destination, delivery_id))
        if row is None:
            msg = f"there is no delivery '{delivery_id}' that waits or was given up"
            raise NotFound(msg, reason="delivery_unknown")
        return _delivery(row)

    def deliveries(
        self, destination: str, *, state: DeliveryState | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[Delivery]:
        """One request per MB that is looked through, consistent."""
        scope = ("deliveries", destination, state)
        pk = f"D#{destination}"
        after = None if cursor is None else (pk, read_cursor(cursor, scope=scope))
        found: list[Delivery] = []
        for row in self._table.query("#pk = :pk", values={":pk": pk}, after=after):
            if state in {None, row["state"]}:
                found.append(_delivery(row))
            if len(found) > limit:
                break
        return Page(found[:limit], cursor_after(found[limit - 1].id, scope=scope) if len(found) > limit else None)

    def _row(self, delivery: Delivery) -> Row:
        pk, sk = _key(delivery.destination, delivery.id)
        row: Row = {
            "pk": pk,
            "sk": sk,
            "format": ROW_FORMAT,
            "state": delivery.state.value,
            "due_at": millis(delivery.due_at),
            "body": delivery.model_dump_json(exclude={"state", "due_at"}),
        }
        if delivery.state is DeliveryState.WAITING:
            row["due_shard"] = _parked(shard_of(delivery.destination, shards=OUTBOX_SHARDS))
        else:
            row["expires"] = self._expires()
        return row

    def _expires(self) -> int:
        """Returns when DynamoDB may remove a row: seconds since 1970 (Amazon DynamoDB Developer Guide, "Using time to live")."""
        return millis(self._clock.now() + KEPT) // 1000


def _key(destination: str, delivery_id: str) -> tuple[str, str]:
    return f"D#{destination}", delivery_id


def _parked(shard: int) -> str:
    return f"parked-{shard}"


def _readable(row: Row) -> Untold | None:
    """Returns what a row tells; None for one of a later release, which keeps nobody else waiting until that release tells it."""
    try:
        return _untold(row)
    except Permanent as error:
        log.warning("a row is left to a later release", extra={"row": row["pk"], "reason": error.reason})
        return None


def _untold(row: Row) -> Untold:
    if row["pk"].startswith("A#"):
        announcement = Announcement.model_validate_json(checked(row)["body"])
        return Untold("announcement", announcement.id, (announcement,))
    transfer = transfer_of(row)
    found = announcements(transfer)
    return Untold("transfer", transfer.id, tuple(found[row.get("announced", 0) :]), row["milestones"], transfer.task_token)


def _delivery(row: Row) -> Delivery:
    fields = json.loads(checked(row)["body"])
    return Delivery.model_validate({**fields, "state": row["state"], "due_at": instant(row["due_at"])})
