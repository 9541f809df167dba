"""What the journey asks of the outside world. Small protocols; adapters and fakes implement them and raise only `eft.errors`.

One contract suite (`tests/contract/`) runs on the fake and on the real adapter of each.
"""

from eft.ports.announcing import Announcing, Answer, Bus, Callbacks, Listening, Outbox, Receiver, Subscriptions, Untold
from eft.ports.engine import Clock, Engine, Peer, Tuning
from eft.ports.files import (
    Bytes,
    Check,
    CommitOutcome,
    Committed,
    MoveOutcome,
    ProbeReport,
    Sink,
    Source,
    Staging,
    Store,
    Stores,
    Uploading,
    Whole,
)
from eft.ports.regions import Durability, Lease, Ownership, OwnershipTable, Remembered
from eft.ports.rows import Due, Fire, Ledger, Limits, Page, Registry, Reservation, Run, Secrets, Slots, Watch

__all__ = [
    "Announcing",
    "Answer",
    "Bus",
    "Bytes",
    "Callbacks",
    "Check",
    "Clock",
    "CommitOutcome",
    "Committed",
    "Due",
    "Durability",
    "Engine",
    "Fire",
    "Lease",
    "Ledger",
    "Limits",
    "Listening",
    "MoveOutcome",
    "Outbox",
    "Ownership",
    "OwnershipTable",
    "Page",
    "Peer",
    "ProbeReport",
    "Receiver",
    "Registry",
    "Remembered",
    "Reservation",
    "Run",
    "Secrets",
    "Sink",
    "Slots",
    "Source",
    "Staging",
    "Store",
    "Stores",
    "Subscriptions",
    "Tuning",
    "Untold",
    "Uploading",
    "Watch",
    "Whole",
]
