"""A transfer: its state, its moves, and everything that a worker needs to go on where another stopped."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal, NamedTuple, Self

from pydantic import AwareDatetime, Field

from eft.domain.endpoint import Frozen
from eft.domain.fingerprint import Fingerprint
from eft.domain.flow import Policy
from eft.domain.names import RemotePath
from eft.domain.parts import PartDone, PartPlan, lanes

ROW_FORMAT = 1
TIMELINE_LIMIT = 100
"""Events kept on a row; beyond it the oldest that repeat the state before are dropped. Changes of state stay: others are told of them."""


class State(StrEnum):
    """Where a transfer stands."""

    ACCEPTED = "accepted"
    STAGING = "staging"
    STAGED = "staged"
    DELIVERING = "delivering"
    COMMITTING = "committing"
    DELIVERED = "delivered"
    SETTLED = "settled"
    HELD = "held"
    DEAD = "dead"
    CANCELLED = "cancelled"


class Step(StrEnum):
    """A stage of the journey, run as one Celery task on the queue of the same name; `parts` carries lanes of a large file."""

    DISCOVER = "discover"
    STAGE = "stage"
    DELIVER = "deliver"
    PARTS = "parts"
    SETTLE = "settle"


MOVES: dict[State, frozenset[State]] = {
    State.ACCEPTED: frozenset({State.STAGING, State.DELIVERING, State.DEAD, State.HELD, State.CANCELLED}),
    State.STAGING: frozenset({State.STAGED, State.DEAD, State.HELD, State.CANCELLED}),
    State.STAGED: frozenset({State.DELIVERING, State.DEAD, State.HELD, State.CANCELLED}),
    State.DELIVERING: frozenset({State.COMMITTING, State.DEAD, State.HELD, State.CANCELLED}),
    State.COMMITTING: frozenset({State.DELIVERED, State.HELD, State.DELIVERING}),
    State.DELIVERED: frozenset({State.SETTLED, State.HELD}),
    State.SETTLED: frozenset(),
    State.HELD: frozenset({State.ACCEPTED, State.STAGED, State.COMMITTING, State.DELIVERED, State.CANCELLED}),
    State.DEAD: frozenset({State.ACCEPTED, State.STAGED, State.CANCELLED}),
    State.CANCELLED: frozenset(),
}
"""Every move that exists. `committing` leads only to `delivered` or `held`: what may have been committed is never given up or redone.
Back to `delivering` leads only the refusal of a token that was seen consumed afterwards (journey/refused.py)."""

NEXT_STEP: dict[State, Step] = {
    State.STAGING: Step.STAGE,
    State.STAGED: Step.DELIVER,
    State.DELIVERING: Step.DELIVER,
    State.COMMITTING: Step.DELIVER,
    State.DELIVERED: Step.SETTLE,
}
"""The step that advances a state, for `forward()` and the sweep alike; `accepted` asks `Transfer.next_step`."""

RESTING = frozenset({State.SETTLED, State.HELD, State.DEAD, State.CANCELLED})
"""States in which nothing happens by itself."""


FINAL = frozenset({State.SETTLED, State.CANCELLED})
"""States that nothing leaves."""


class Place(Frozen):
    """One end of a transfer: an endpoint and a path below its root."""

    endpoint: str
    kind: Literal["sftp", "s3"]
    path: RemotePath


class StagedObject(Frozen):
    """Our durable copy in the staging bucket, pinned."""

    path: RemotePath
    fingerprint: Fingerprint
    region: str | None = None
    """Whose bucket it was written to; elsewhere its replica is read."""


class Upload(Frozen):
    """One attempt at an upload: its token is on the row before the first byte."""

    attempt: int
    token: str
    path: RemotePath
    """The final name that the token becomes."""
    plan: PartPlan
    lanes: int = 1
    """Workers that copy parts at a time, each in a lane of its own."""

    def lane_ranges(self) -> list[range]:
        """Returns the part numbers of each lane: as many as workers, or more."""
        return lanes(self.plan, width=self.lanes)


PUT_ARRIVES_WITHIN: Final = timedelta(minutes=15)
"""After it was signed S3 refuses a request (Amazon S3 API, error RequestTimeTooSkewed)."""
CLOCKS_DIFFER: Final = timedelta(minutes=15)
"""Of S3, and of who compares times later: by as much as S3 lets pass."""


class Commit(Frozen):
    """What D4 froze: which bytes become visible under which name. Recovery repeats it and nothing else."""

    attempt: int
    token: str
    path: RemotePath
    overwrite: bool
    rename: Literal["posix", "plain"] | None = None
    """For SFTP, how the token is renamed."""
    parts: tuple[PartDone, ...]
    size: int
    checksum: str
    """`sha256:<hex>`, `crc64nvme:<hex>`, or `etag:<value>` of a server-side copy whose server tells no checksum."""
    region_epoch: int
    asked_at: AwareDatetime | None = None
    """Of a put: when it was decided, and as of when its request is signed."""
    attempted: bool = False
    """D6 is noted as attempted; recorded where recovery would ask for it."""
    abandoned: bool = False
    """It was decided to do without this token; it may be removed already, so its absence says nothing any more."""
    refused: bool = False
    """Decided by rule, because the store refused the token or never saw it; else by a person."""


class Receipt(Frozen):
    """Evidence of a delivery."""

    path: RemotePath
    size: int
    checksum: str
    etag: str | None = None
    version: str | None = None
    at: AwareDatetime


class Event(Frozen):
    """One line of a timeline."""

    at: AwareDatetime
    state: State
    attempt: int = 0
    bytes: int | None = None
    reason: str | None = None
    error: str | None = None
    by: str | None = None


class Claim(NamedTuple):
    """Which of a transfer's claims one is: in one region's ledger, each is greater than those before it."""

    region_epoch: int
    """Compared first: a row that comes back from another region counts its fence anew."""
    fence: int


LAST_CLAIM: Final = Claim(region_epoch=10**9, fence=10**9)
"""Of a transfer that has none any more, for it has no row."""


class Transfer(Frozen):
    """One fingerprint moved along one flow, or one ad-hoc request. State is written only through `to()`."""

    format: int = ROW_FORMAT
    id: str
    tenant: str
    flow: str | None = None
    partition: int
    source: Place
    fingerprint: Fingerprint | None = None
    """None until first looked at, for an ad-hoc transfer."""
    destination: Place
    policy: Policy = Policy()
    expected_sha256: str | None = None
    request_hash: str | None = None
    """Of the request body under an Idempotency-Key."""
    created: AwareDatetime

    state: State = State.ACCEPTED
    since: AwareDatetime
    fence: int = 0
    claim_until: AwareDatetime | None = None
    due_at: AwareDatetime | None = None
    """When the sweep looks, if nothing has moved by then; None in a resting state."""
    retry_at: AwareDatetime | None = None
    """After a failed try: when the next may begin."""
    region_epoch: int = 0
    """Of the era in which this region carries the row; another era's row is nobody's to advance."""
    elsewhere: str | None = None
    """The region that carries the transfer on, once it is not this one."""
    durability: str | None = None
    """In how many regions it was on record when it was accepted."""
    attempt: int = 0
    """Uploads begun so far, to staging and destination together."""
    tries: int = 0
    """Failed tries of the present step."""
    redrives: int = 0
    reason: str | None = None
    error: str | None = None
    held_from: State | None = None

    staging: Upload | None = None
    staged: StagedObject | None = None
    upload: Upload | None = None
    checksum: str | None = None
    """Of all bytes, once one worker has seen them in order (`sha256:…`), else combined at D4."""
    commit: Commit | None = None
    receipt: Receipt | None = None
    disposal_tokens: tuple[RemotePath, ...] = ()
    """Names that the source was renamed to before its removal: one a claim, noted before it is used."""
    abandoned: tuple[Upload, ...] = ()
    """Attempts given up whose tokens are yet to be removed (D8)."""
    timeline: tuple[Event, ...] = ()
    announced: int | None = None
    """How many of its milestones others have been told; None: when it was accepted nobody listened."""
    task_token: str | None = Field(default=None, repr=False)
    """Of the state machine that waits for its end."""

    @property
    def claim(self) -> Claim:
        """The claim under which the row is as it is here."""
        return Claim(self.region_epoch, self.fence)

    @property
    def via_staging(self) -> bool:
        """Whether the bytes go through the staging bucket."""
        if self.policy.staging is not None:
            return self.policy.staging
        return self.source.kind == "sftp" and self.destination.kind == "sftp"

    @property
    def next_step(self) -> Step | None:
        """The step that advances this transfer now; None in a resting state."""
        if self.elsewhere is not None:
            return None
        if self.state is State.ACCEPTED:
            return Step.STAGE if self.via_staging and self.staged is None else Step.DELIVER
        return NEXT_STEP.get(self.state)

    @property
    def size(self) -> int | None:
        """Bytes, once known."""
        return None if self.fingerprint is None else self.fingerprint.size

    def to(self, state: State, *, now: datetime, reason: str | None = None, error: str | None = None, by: str | None = None) -> Self:
        """Returns this transfer in another state, with the event on its timeline.

        Raises:
            ValueError: the move is not in MOVES; a bug, never an input.
        """
        if state not in MOVES[self.state]:
            msg = f"a transfer does not go from {self.state} to {state}"
            raise ValueError(msg)
        changed = self.model_copy(
            update={
                "state": state,
                "since": now,
                "tries": 0,
                "retry_at": None,
                "reason": reason,
                "error": error,
                "held_from": self.state if state is State.HELD else None,
                "due_at": None if state in RESTING else self.due_at or now,
            }
        )
        return changed.noted(now=now, reason=reason, error=error, by=by)

    def noted(self, *, now: datetime, reason: str | None = None, error: str | None = None, by: str | None = None) -> Self:
        """Returns this transfer with one more event of its present state on the timeline."""
        event = Event(at=now, state=self.state, attempt=self.attempt, bytes=self.size, reason=reason, error=error, by=by)
        kept = self.timeline
        if len(kept) >= TIMELINE_LIMIT:
            repeated = next((n for n in range(1, len(kept)) if kept[n].state is kept[n - 1].state), None)
            kept = kept if repeated is None else (*kept[:repeated], *kept[repeated + 1 :])
        return self.model_copy(update={"timeline": (*kept, event)})

    def with_(self, **changes: object) -> Self:
        """Returns a copy with other fields changed; the state is none of them.

        Raises:
            ValueError: `state` is among the changes.
        """
        if "state" in changes:
            msg = "state changes through to()"
            raise ValueError(msg)
        return self.model_copy(update=changes)
