"""Tenants' webhooks in the registry's table.

    pk            sk            what
    N#<tenant>    W#<id>        a webhook

`revision` is an attribute, for conditions read it; the rest is the JSON text `body`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from eft.adapters.aws import AwsSession
from eft.adapters.table import Row, Table
from eft.domain.webhook import Webhook
from eft.errors import Conflict, EftError, NotFound, Permanent
from eft.ports import Clock

WEBHOOK_FORMAT: Final = 1
RECENT: Final = 10_000
"""Tenants remembered at most."""


class DynamoSubscriptions:
    """`ports.Subscriptions`, and `ports.Listening` where the event bus does not want everything anyway. Thread-safe."""

    def __init__(self, session: AwsSession, *, table: str, clock: Clock, remember: timedelta = timedelta(0)) -> None:
        self._table = Table(session, table, what="the registry")
        self._clock = clock
        self._remember = remember.total_seconds()
        """How long `wanted` answers from memory: it is asked with most writes of a transfer that nobody listened to at first."""
        self._recent: dict[str, tuple[float, bool]] = {}
        self._lock = threading.Lock()

    def add(self, webhook: Webhook) -> None:
        """One request. Our own row, met again after a lost answer, counts as added."""
        row = _row(webhook)
        done, stands = self._table.put(row, condition="attribute_not_exists(#pk)")
        if not done and stands != row:
            msg = f"the webhook '{webhook.id}' exists"
            raise Conflict(msg, reason="webhook_exists")

    def change(self, webhook: Webhook) -> None:
        """One request. Our own change, met again after a lost answer, counts as made."""
        row = _row(webhook)
        done, stands = self._table.put(row, condition="#revision = :before", values={":before": webhook.revision - 1})
        if not done and stands != row:
            raise _changed(webhook.id)

    def webhook(self, tenant: str, webhook_id: str) -> Webhook:
        """One request, consistent."""
        row = self._table.get(*_key(tenant, webhook_id))
        if row is None:
            msg = f"there is no webhook '{webhook_id}'"
            raise NotFound(msg, reason="webhook_unknown")
        return _webhook(row)

    def of(self, tenant: str) -> Sequence[Webhook]:
        """One request, consistent."""
        pk, prefix = _key(tenant, "")
        return [_webhook(row) for row in self._table.query("#pk = :pk AND begins_with(#sk, :sk)", values={":pk": pk, ":sk": prefix})]

    def remove(self, tenant: str, webhook_id: str, *, revision: int) -> None:
        """One request. A removal repeated after a lost answer finds nothing and says so."""
        if not self._table.delete(*_key(tenant, webhook_id), condition="#revision = :seen", values={":seen": revision}).done:
            raise _changed(webhook_id)

    def wanted(self, tenant: str) -> bool:
        """One request, or none within `remember` of the last."""
        now = self._clock.monotonic()
        recent = self._recent.get(tenant)
        if recent is not None and now - recent[0] < self._remember:
            return recent[1]
        try:
            found = bool(self.of(tenant))
        except EftError:
            # Telling nobody of it later costs one write; not telling somebody would be a loss.
            return True
        if self._remember:
            with self._lock:
                if len(self._recent) >= RECENT:
                    self._recent.clear()
                self._recent[tenant] = (now, found)
        return found


class Everything:
    """`ports.Listening` of an engine with an event bus: it wants to hear of everything."""

    def wanted(self, tenant: str) -> bool:  # noqa: ARG002 - any tenant
        """Returns True."""
        return True


def _key(tenant: str, webhook_id: str) -> tuple[str, str]:
    return f"N#{tenant}", f"W#{webhook_id}"


def _row(webhook: Webhook) -> Row:
    pk, sk = _key(webhook.tenant, webhook.id)
    body = webhook.model_copy(update={"events": sorted(webhook.events)}).model_dump_json(warnings=False)
    return {"pk": pk, "sk": sk, "format": WEBHOOK_FORMAT, "revision": webhook.revision, "body": body}


def _webhook(row: Row) -> Webhook:
    if row["format"] > WEBHOOK_FORMAT:
        msg = f"this row has format {row['format']} and this release knows up to {WEBHOOK_FORMAT}; update the engine"
        raise Permanent(msg, reason="row_format_unknown")
    return Webhook.model_validate_json(row["body"])


def _changed(webhook_id: str) -> Conflict:
    return Conflict(f"'{webhook_id}' has changed meanwhile; read it again", reason="revision_differs")
