"""The queues: one per step, one for upkeep, and that of ingress. The provisioner, the image and the infrastructure follow this list."""

from __future__ import annotations

from typing import Final

from eft.domain.transfer import Step

UPKEEP: Final = "upkeep"
QUEUES: Final = (*(step.value for step in Step), UPKEEP)
ARRIVALS: Final = "arrivals"
"""Events of buckets, for ingress; no worker reads it."""
DEAD_LETTER_SUFFIX: Final = "-dlq"
MAX_RECEIVES: Final = 10
"""Receives after which SQS moves a message to the dead-letter queue; giving a message back counts, too."""


def queue_url(name: str, *, base: str, prefix: str) -> str:
    """Returns the URL of a queue."""
    return f"{base}{prefix}{name}"
