"""What really happened, as the parties at both ends saw it; no process of ours reads it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime

from eft.domain.names import basename


@dataclass(eq=False, slots=True)
class Inode:
    """A file's bytes and identity, whatever names it has."""

    data: bytearray
    modified: datetime
    etag: str | None = None
    version: str | None = None
    transfer: str | None = None
    origin: str = ""
    """Who wrote it: customer, foreign, or ours."""
    born: int = 0
    home: str = ""
    """Where its customer wrote it."""


@dataclass(frozen=True, slots=True)
class Version:
    """One state of a customer's source file."""

    number: int
    data: bytes
    modified: datetime
    etag: str | None
    at: int


@dataclass(frozen=True, slots=True)
class Appearance:
    """A file became visible under a final name."""

    at: int
    endpoint: str
    path: str
    transfer: str
    token: str
    data: bytes
    inode: Inode


@dataclass(slots=True)
class Truth:
    """The books of one seed."""

    appearances: dict[str, list[Appearance]] = field(default_factory=lambda: defaultdict(list))
    """By transfer, for each token names its own."""
    versions: dict[tuple[str, str], list[Version]] = field(default_factory=lambda: defaultdict(list))
    """By server and path, oldest first."""
    accepted: dict[str, str] = field(default_factory=dict)
    """Transfers that a customer was told of, and what was told."""
    words: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Decisions that an operator gave for a transfer."""
    cancelled: dict[str, int] = field(default_factory=dict)
    """Transfers that a customer was told to be cancelled, and when."""
    given_up: dict[str, int] = field(default_factory=dict)
    """Tokens that an operator was told to be consumed, and when."""
    disposed: list[tuple[str, str, bytes]] = field(default_factory=list)
    """Server, path and bytes of source files that our side removed for good."""
    violations: list[str] = field(default_factory=list)
    documented: int = 0
    """Foreign files overwritten in the gap that DESIGN 5 documents."""

    def appeared(self, transfer: str) -> int:
        """Returns how often a transfer's file became visible."""
        return len(self.appearances.get(transfer, ()))

    def violate(self, what: str) -> None:
        """Notes a broken promise."""
        self.violations.append(what)


def transfer_of(token: str) -> str:
    """Returns the transfer that a temporary name belongs to."""
    return basename(token)[1:].partition(".")[0]
