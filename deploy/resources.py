"""What the engine needs of AWS, as data: the local stack's provisioner, the tests and the infrastructure code read it.

Names are suffixes: a stack puts its prefix in front (`eft-ledger`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

AttributeType = Literal["S", "N"]
Projection = Literal["ALL", "KEYS_ONLY"]

DEFAULT_PREFIX: Final = "eft-"
DEAD_LETTER_SUFFIX: Final = "-dlq"
STAGING_SUFFIX: Final = "staging"
# Giving a message back on shutdown counts as a receive, hence no small number.
MAX_RECEIVES: Final = 10
# Workers extend it while they work; it is how long a dead worker's message rests.
VISIBILITY: Final = timedelta(seconds=120)
# SQS's longest: a queue that nobody reads for a weekend loses nothing.
RETENTION: Final = timedelta(days=14)
STALE_UPLOAD: Final = timedelta(days=7)


@dataclass(frozen=True)
class Key:
    """One attribute of a key: DynamoDB's S (string) or N (number)."""

    name: str
    type: AttributeType = "S"


@dataclass(frozen=True)
class IndexSpec:
    """A global secondary index; an item without its keys is not in it."""

    name: str
    hash: Key
    range: Key
    projection: Projection = "ALL"


@dataclass(frozen=True)
class TableSpec:
    """A table, billed per request. Items go once the time in the `expires` attribute has passed, where one is named."""

    suffix: str
    hash: Key
    range: Key | None = None
    indexes: tuple[IndexSpec, ...] = ()
    expires: str | None = None

    def name(self, prefix: str) -> str:
        """Returns the table's name in a stack."""
        return f"{prefix}{self.suffix}"


@dataclass(frozen=True)
class QueueSpec:
    """A standard queue with a dead-letter queue of its own."""

    suffix: str
    visibility: timedelta = VISIBILITY

    def name(self, prefix: str) -> str:
        """Returns the queue's name in a stack."""
        return f"{prefix}{self.suffix}"

    def dead_letter_name(self, prefix: str) -> str:
        """Returns the name of its dead-letter queue in a stack."""
        return f"{prefix}{self.suffix}{DEAD_LETTER_SUFFIX}"


TABLES: Final = (
    TableSpec(
        "ledger",
        Key("pk"),
        Key("sk"),
        (
            IndexSpec("by_tenant", Key("tenant"), Key("created"), "KEYS_ONLY"),
            IndexSpec("by_state", Key("tenant_state"), Key("created"), "KEYS_ONLY"),
            IndexSpec("by_flow", Key("tenant_flow"), Key("created"), "KEYS_ONLY"),
            IndexSpec("by_flow_state", Key("tenant_flow_state"), Key("created"), "KEYS_ONLY"),
            IndexSpec("due", Key("due_shard"), Key("due_at", "N"), "KEYS_ONLY"),
            IndexSpec("outbox", Key("outbox"), Key("outbox_at", "N"), "KEYS_ONLY"),
        ),
        expires="expires",
    ),
    TableSpec(
        "registry",
        Key("pk"),
        Key("sk"),
        (IndexSpec("scheduled", Key("scheduled"), Key("pk")), IndexSpec("arrivals", Key("arrivals"), Key("pk"))),
    ),
    TableSpec("ownership", Key("pk"), Key("sk"), (IndexSpec("open_journals", Key("open"), Key("sk")),)),
)

CELERY_QUEUES: Final = tuple(QueueSpec(suffix) for suffix in ("discover", "stage", "deliver", "parts", "settle", "upkeep", "announce"))
"""Workers take from these."""
ARRIVALS: Final = QueueSpec("arrivals", visibility=timedelta(seconds=30))
"""Ingress takes events of buckets from it."""
REQUESTS: Final = QueueSpec("requests", visibility=timedelta(seconds=30))
"""Ingress takes from it what state machines ask for. Whoever may send to it asks for any tenant: its policy names those state machines."""
QUEUES: Final = (*CELERY_QUEUES, ARRIVALS, REQUESTS)
