"""What becomes of a message that ingress has taken."""

from __future__ import annotations

from enum import StrEnum


class Ending(StrEnum):
    """Deleted, shown again later, or left until SQS moves it to the dead-letter queue."""

    DONE = "done"
    AGAIN = "again"
    BROKEN = "broken"
