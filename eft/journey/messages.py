"""What travels through the queues: ids only, never paths, credentials or bytes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from eft.domain.transfer import Step, Transfer

MESSAGE_FORMAT = 1
ARRIVED = "-arrived"
"""How the name of a fire ends that an arrival asked for."""
FIRE_AGAIN = 5
"""Stall times until a fire whose discover has not ended is sent again."""


@dataclass(frozen=True, slots=True)
class Message:
    """A hint that the rows with these ids want this step. Delivering it twice, late or never is harmless."""

    step: Step
    ids: tuple[str, ...]
    """Transfer ids; for discover one `<tenant>/<flow>/<fire>`."""
    part: int | None = None
    """For step parts: the number of a part in the lane to go on with."""
    delay: timedelta = timedelta(0)


def next_message(transfer: Transfer, *, delay: timedelta = timedelta(0)) -> list[Message]:
    """Returns the message that advances a transfer, or none in a resting state. The happy path and the sweep both ask here."""
    step = transfer.next_step
    return [] if step is None else [Message(step=step, ids=(transfer.id,), delay=delay)]
