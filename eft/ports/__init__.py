"""What the journey asks of the outside world. Small protocols; adapters and fakes implement them and raise only `eft.errors`.

One contract suite (`tests/contract/`) runs on the fake and on the real adapter of each.
"""

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
)
from eft.ports.regions import Durability, Lease, Ownership, OwnershipTable, Remembered
from eft.ports.rows import Due, Ledger, Limits, Page, Registry, Reservation, Secrets

__all__ = [
    "Bytes",
    "Check",
    "Clock",
    "CommitOutcome",
    "Committed",
    "Due",
    "Durability",
    "Engine",
    "Lease",
    "Ledger",
    "Limits",
    "MoveOutcome",
    "Ownership",
    "OwnershipTable",
    "Page",
    "Peer",
    "ProbeReport",
    "Registry",
    "Remembered",
    "Reservation",
    "Secrets",
    "Sink",
    "Source",
    "Staging",
    "Store",
    "Stores",
    "Tuning",
    "Uploading",
]
