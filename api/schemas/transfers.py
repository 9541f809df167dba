"""Transfers as the API takes and shows them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from api.schemas.base import Asked, FilePath, Id, PageAsked, Shown
from eft.domain.fingerprint import Fingerprint
from eft.domain.flow import Policy
from eft.domain.transfer import State, Step
from eft.journey.held import Decision


class PlaceNew(Asked):
    """One end of a transfer: an endpoint and a file's path below its root."""

    endpoint: Id
    path: FilePath


class DestinationNew(Asked):
    """The receiving end; without a path, the policy's `name_template` makes one of the source's."""

    endpoint: Id
    path: FilePath | None = None


class TransferNew(Asked):
    """One file to move, once."""

    source: PlaceNew
    destination: DestinationNew
    policy: Policy = Policy()
    expected_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    """What the file's SHA-256 must be, in lower-case hex; anything else is not delivered."""


class PlaceShown(Shown):
    """One end of a transfer."""

    endpoint: str
    kind: Literal["sftp", "s3"]
    path: str


class TransferSummary(Shown):
    """A transfer, in a list."""

    id: str
    state: State
    flow: str | None
    source: PlaceShown
    destination: PlaceShown
    size: int | None
    reason: str | None
    error: str | None
    created: AwareDatetime
    since: AwareDatetime


class Progress(Shown):
    """How far the present upload has come, in bytes that are durable where they go."""

    into: Literal["staging", "destination"] | None
    bytes_done: int
    bytes_total: int | None
    parts_done: int
    parts_total: int | None


class EventShown(Shown):
    """One line of a timeline."""

    at: AwareDatetime
    state: State
    attempt: int
    bytes: int | None
    reason: str | None
    error: str | None
    by: str | None


class ReceiptShown(Shown):
    """Evidence of a delivery; `checksum` names its algorithm."""

    path: str
    size: int
    checksum: str
    etag: str | None
    version: str | None
    at: AwareDatetime


class TransferShown(TransferSummary):
    """A transfer, whole."""

    fingerprint: Fingerprint | None
    """Identity of the source's version that is moved, once looked at."""
    policy: Policy
    expected_sha256: str | None
    durability: str | None
    """`both-regions` or `single-region`: where it was on record when it was accepted."""
    elsewhere: str | None
    """The region that carries it out, where this one does not."""
    next_step: Step | None
    next_try: AwareDatetime | None
    """When it is looked at again if nothing moves it before."""
    attempt: int
    tries: int
    redrives: int
    held_from: State | None
    staged: bool
    """Whether our own copy exists, from which it can be re-driven without the source."""
    progress: Progress
    receipt: ReceiptShown | None
    timeline: tuple[EventShown, ...]


class TransferPage(Shown):
    """Transfers, newest first; `next_cursor` asks for the next page, null at the end.

    `missing` names the region that does not answer: what is carried out there is not among the items.
    """

    items: tuple[TransferSummary, ...]
    next_cursor: str | None
    missing: str | None = None


class RedriveAsked(Asked):
    """Which transfers to re-drive: those of a state, of one flow if given, at most `limit` looked at."""

    state: Literal[State.DEAD, State.HELD]
    flow: Id | None = None
    limit: int = Field(default=100, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=2048)


class Refusal(Shown):
    """A transfer that was not re-driven, and why."""

    id: str
    reason: str
    message: str


class RedriveShown(Shown):
    """What a re-drive by filter did; ask again with `next_cursor` as `cursor` until it is null."""

    seen: int
    redriven: int
    refused: tuple[Refusal, ...]
    next_cursor: str | None


class TransfersAsked(PageAsked):
    """Which transfers."""

    state: State | None = None
    flow: Id | None = None


class DecisionAsked(Asked):
    """An operator's word about a held transfer."""

    decision: Decision
    """`deliver`: anyway, with a new token; `accept`: it has been delivered; `abandon`: give it up."""
    why: str = Field(min_length=3, max_length=500)
