"""The queues: one per step, for upkeep and for announcing; those of ingress. Provisioner, image and infrastructure follow this list."""

from __future__ import annotations

from typing import Final

from eft.domain.transfer import Step

UPKEEP: Final = "upkeep"
ANNOUNCE: Final = "announce"
"""A queue of its own: whoever is told slowly keeps no file waiting."""
QUEUES: Final = (*(step.value for step in Step), UPKEEP, ANNOUNCE)
ARRIVALS: Final = "arrivals"
"""Events of buckets, for ingress; no worker reads it."""
REQUESTS: Final = "requests"
"""Transfers that state machines ask for, for ingress; no worker reads it."""
DEAD_LETTER_SUFFIX: Final = "-dlq"
MAX_RECEIVES: Final = 10
"""Receives after which SQS moves a message to the dead-letter queue; giving a message back counts, too."""


def queue_url(name: str, *, base: str, prefix: str) -> str:
    """Returns the URL of a queue."""
    return f"{base}{prefix}{name}"
