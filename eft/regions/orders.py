"""What every order about a partition needs: who gives it, the rows it concerns, and the one conditional write that it makes."""

from __future__ import annotations

from dataclasses import dataclass

from eft.domain.ownership import Partition
from eft.errors import Conflict, Permanent
from eft.ports import Engine, OwnershipTable, Peer


@dataclass(frozen=True, slots=True)
class Order:
    """Who wants a change, why, and under which ticket."""

    by: str
    why: str
    ticket: str


def home_row(engine: Engine, number: int) -> Partition:
    """Returns this region's row of a partition that is at home here.

    Raises:
        Permanent: `not_home`.
    """
    row = own_table(engine).partition(number)
    if row.home != engine.ownership.region:
        msg = f"the home of partition {number} is {row.home}; ask there"
        raise Permanent(msg, reason="not_home")
    return row


def change(engine: Engine, table: OwnershipTable, seen: Partition, order: Order, **changes: object) -> Partition:
    """Changes a partition's row IF it is still the one seen, and returns the new one.

    Raises:
        Conflict: `partition_changed`.
    """
    who = {"changed_by": order.by, "why": order.why, "ticket": order.ticket, "changed_at": engine.clock.now()}
    new = seen.model_copy(update={**who, **changes})
    if not table.change(new, seen=seen):
        msg = f"partition {seen.number} was changed by somebody else meanwhile; look again"
        raise Conflict(msg, reason="partition_changed")
    return new


def own_table(engine: Engine) -> OwnershipTable:
    """Returns this region's ownership table."""
    return peer_of(engine).own


def peer_of(engine: Engine) -> Peer:
    """Returns the other region.

    Raises:
        Permanent: `no_peer`.
    """
    if engine.peer is None:
        msg = "one region is configured: there is no peer to switch to"
        raise Permanent(msg, reason="no_peer")
    return engine.peer
