"""Announcements: what others are told of transfers and flows, in one versioned form (docs/events.md).

A transfer's come from its timeline, which is written with its state: what is to be told is never written apart from what happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from eft.domain.instants import millis
from eft.domain.transfer import Event, State, Transfer

FORM: Final = "1.0"
"""Of announcements. The minor number rises with a new field or type, the major one with a change that breaks a reader."""


class EventType(StrEnum):
    """What is told."""

    ACCEPTED = "transfer.accepted"
    STARTED = "transfer.started"
    DELIVERED = "transfer.delivered"
    FAILED = "transfer.failed"
    HELD = "transfer.held"
    CANCELLED = "transfer.cancelled"
    LATE = "flow.late"
    TEST = "webhook.test"


ENDINGS: Final = frozenset({EventType.DELIVERED, EventType.FAILED, EventType.CANCELLED})
"""After these a state machine waits for a transfer no longer."""
_ONCE: Final = {State.ACCEPTED: EventType.ACCEPTED, State.DELIVERED: EventType.DELIVERED, State.CANCELLED: EventType.CANCELLED}
_STARTED: Final = frozenset({State.STAGING, State.DELIVERING})
_EACH_TIME: Final = {State.DEAD: EventType.FAILED, State.HELD: EventType.HELD}


class Told(BaseModel):
    """A value that others read; a reader ignores fields that it does not know."""

    model_config = ConfigDict(frozen=True)


class PlaceTold(Told):
    """One end of a transfer: an endpoint's id and a path below its root."""

    endpoint: str
    path: str


class ReceiptTold(Told):
    """Evidence of a delivery."""

    path: str
    size: int
    checksum: str
    """`sha256:<hex>`, `crc64nvme:<hex>`, or `etag:<value>`."""
    etag: str | None = None
    version: str | None = None
    at: AwareDatetime


class TransferTold(Told):
    """What happened to a transfer."""

    kind: Literal["transfer"] = "transfer"
    transfer: str
    flow: str | None = None
    state: State
    """That it came to; it may have moved on since."""
    source: PlaceTold
    destination: PlaceTold
    size: int | None = None
    attempt: int = 0
    reason: str | None = None
    """For programs; stable."""
    error: str | None = None
    """For people."""
    receipt: ReceiptTold | None = None
    """Of `transfer.delivered`."""


class FlowTold(Told):
    """What happened to a flow."""

    kind: Literal["flow"] = "flow"
    flow: str
    name: str
    level: Literal["warning", "late"]
    """`warning`: the deadline comes near; `late`: it has passed."""
    expected_by: AwareDatetime
    message: str


class WebhookTold(Told):
    """A test that was asked for."""

    kind: Literal["webhook"] = "webhook"
    webhook: str
    message: str


class Announcement(Told):
    """One event. Told again it has the same id: a reader that remembers ids hears of each event once."""

    form: str = FORM
    id: str
    type: EventType
    timestamp: AwareDatetime
    """When it happened."""
    tenant: str
    data: Annotated[TransferTold | FlowTold | WebhookTold, Field(discriminator="kind")]


def schema() -> dict[str, Any]:
    """Returns the JSON schema of announcements, which `docs/events.schema.json` holds for readers."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:eft:event:{FORM}",
        **Announcement.model_json_schema(mode="serialization"),
    }


def milestones(transfer: Transfer) -> list[tuple[EventType, Event]]:
    """Returns what there is to tell of a transfer so far, oldest first. What was returned once stays where it is in the list."""
    return [(kind, transfer.timeline[n]) for n, kind in _numbered(transfer.timeline)]


def news(transfer: Transfer, *, since: State | None) -> bool:
    """Returns whether there is something to tell that was not when the transfer was last in a state; None: since it was told of."""
    found = _numbered(transfer.timeline)
    if since is None:
        return len(found) > (transfer.announced or 0)
    last = max((n for n, event in enumerate(transfer.timeline) if event.state is since), default=-1)
    return any(n > last for n, _ in found)


def announcements(transfer: Transfer) -> list[Announcement]:
    """Returns every milestone of a transfer as an announcement, oldest first."""
    return [_announcement(transfer, kind, event) for kind, event in milestones(transfer)]


def late(*, tenant: str, flow: str, name: str, level: Literal["warning", "late"], expected_by: datetime, now: datetime) -> Announcement:
    """Returns the announcement of a flow whose file is expected; for one level and deadline it always has the same id."""
    when = f"{expected_by:%Y-%m-%d %H:%M:%S %Z}"
    message = f"no file has come yet; one is expected by {when}" if level == "warning" else f"no file has come by {when}"
    return Announcement(
        id=f"{flow}-{level}-{millis(expected_by)}",
        type=EventType.LATE,
        timestamp=now,
        tenant=tenant,
        data=FlowTold(flow=flow, name=name, level=level, expected_by=expected_by, message=message),
    )


def _numbered(timeline: Sequence[Event]) -> list[tuple[int, EventType]]:
    """Returns the milestones by their place in a timeline: each change to a state that is told, some of them only the first time."""
    found: list[tuple[int, EventType]] = []
    for n, event in enumerate(timeline):
        if n and timeline[n - 1].state is event.state:
            continue
        kind = _EACH_TIME.get(event.state)
        once = EventType.STARTED if event.state in _STARTED else _ONCE.get(event.state)
        if kind is None and once is not None and all(once is not other for _, other in found):
            kind = once
        if kind is not None:
            found.append((n, kind))
    return found


def _announcement(transfer: Transfer, kind: EventType, event: Event) -> Announcement:
    again = f"-{millis(event.at)}" if event.state in _EACH_TIME else ""
    receipt = transfer.receipt if kind is EventType.DELIVERED else None
    return Announcement(
        id=f"{transfer.id}-{kind.partition('.')[2]}{again}",
        type=kind,
        timestamp=event.at,
        tenant=transfer.tenant,
        data=TransferTold(
            transfer=transfer.id,
            flow=transfer.flow,
            state=event.state,
            source=PlaceTold(endpoint=transfer.source.endpoint, path=transfer.source.path),
            destination=PlaceTold(
                endpoint=transfer.destination.endpoint, path=transfer.destination.path if receipt is None else receipt.path
            ),
            size=event.bytes if event.bytes is not None else transfer.size,
            attempt=event.attempt,
            reason=event.reason,
            error=event.error,
            receipt=None if receipt is None else ReceiptTold.model_validate(receipt.model_dump()),
        ),
    )
