"""Cursors of listings: opaque to clients, and good only for the listing that gave them.

A cursor names the last thing shown. It needs no signature: whose rows are read is decided by the request, never by the
cursor, so a forged one can only begin a client's own listing elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from datetime import datetime

from eft.domain.instants import sortable
from eft.errors import Permanent


def cursor_after(last: str, *, scope: tuple[str | None, ...]) -> str:
    """Returns the cursor of what follows `last` in the listing that `scope` (tenant and filters) describes."""
    payload = json.dumps([_digest(scope), last], separators=(",", ":"))
    return base64.urlsafe_b64encode(payload.encode()).decode().rstrip("=")


def read_cursor(cursor: str, *, scope: tuple[str | None, ...]) -> str:
    """Returns the `last` that a cursor names.

    Raises:
        Permanent: `cursor_invalid`: garbled, or given by another listing.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        match json.loads(base64.b64decode(padded, altchars=b"-_", validate=True)):
            case [str(digest), str(last)] if digest == _digest(scope) and last:
                return last
    except (UnicodeError, binascii.Error, ValueError, RecursionError):
        pass
    raise Permanent("the cursor does not belong to this listing; begin again without it", reason="cursor_invalid")


def listing_scope(tenant: str, *, state: str | None, flow: str | None) -> tuple[str | None, ...]:
    """Returns the scope of a tenant's listing of transfers: the same in every region, and so its cursors."""
    return ("transfers", tenant, state, flow)


def listing_key(created: datetime, transfer: str) -> str:
    """Returns what transfers are listed by: newest last."""
    return f"{sortable(created)}#{transfer}"


def _digest(scope: tuple[str | None, ...]) -> str:
    return hashlib.sha256(json.dumps(scope).encode()).hexdigest()[:16]
