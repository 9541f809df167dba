"""Ownership of partitions by regions (DESIGN 6)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """Whether a commit needs the peer's ack."""

    DUAL = "dual"
    SOLO = "solo"


@dataclass(frozen=True, slots=True)
class Standing:
    """This region's right to a partition, as its own ownership table says now."""

    partition: int
    home: str
    region_epoch: int
    mode: Mode


@dataclass(frozen=True, slots=True)
class Intent:
    """What is announced before a commit: this attempt of this transfer will consume this token."""

    partition: int
    transfer: str
    attempt: int
    token: str
    region_epoch: int
