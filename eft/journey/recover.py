"""Recover: a transfer found `committing` is brought to delivered or held, with the token it has; nothing is uploaded again."""

from __future__ import annotations

from eft.journey.committing import commit_once
from eft.journey.messages import Message, next_message
from eft.journey.opening import destination
from eft.journey.work import Work


def recover(work: Work) -> list[Message]:
    """Repeats D5 … D7 from the row alone; returns what goes on with the transfer."""
    work.engine.ownership.standing(work.transfer.partition)
    with destination(work.engine, work.transfer) as sink:
        commit_once(work, sink)
    return next_message(work.transfer)
