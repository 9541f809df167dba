"""Recover: a transfer found `committing` is brought to delivered or held, with the token it has; nothing is uploaded again."""

from __future__ import annotations

from eft.journey.committing import commit_once
from eft.journey.messages import Message, next_message
from eft.journey.opening import destination
from eft.journey.reserve import reserve, reserved_by_another
from eft.journey.work import Work


def recover(work: Work) -> list[Message]:
    """Repeats D5 … D7 from the row alone; returns what goes on with the transfer.

    A row that came from another region brings no reservation of its path: it gets one first, as at D1.

    Raises:
        Transient: `destination_reserved`; Permanent: `superseded`; and what `commit_once` raises.
    """
    work.engine.ownership.standing(work.transfer.partition)
    if work.transfer.commit is not None and not reserve(work, work.transfer.commit.path):
        raise reserved_by_another(work.transfer.commit.path)
    with destination(work.engine, work.transfer) as sink:
        commit_once(work, sink)
    return next_message(work.transfer)
