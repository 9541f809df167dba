"""The form of what others are told, as readers know it: docs/events.md and its schema."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonschema
import pytest

from eft.domain.announcement import (
    FORM,
    Announcement,
    EventType,
    WebhookTold,
    announcements,
    late,
    milestones,
    news,
    schema,
)
from eft.domain.names import RemotePath
from eft.domain.transfer import TIMELINE_LIMIT, Place, Receipt, State, Transfer
from eft.domain.webhook import BUS, PAUSES, Delivery, DeliveryState
from tests.architecture.project import ROOT

NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)
DOCUMENT = (ROOT / "docs" / "events.md").read_text()
PUBLISHED: dict[str, Any] = json.loads((ROOT / "docs" / "events.schema.json").read_text())


def row() -> Transfer:
    """Returns an accepted transfer."""
    place = Place(endpoint="ep", kind="s3", path=RemotePath("in/a.csv"))
    made = Transfer(id="07" + "a" * 30, tenant="acme", partition=7, source=place, destination=place, created=NOW, since=NOW)
    return made.noted(now=NOW)


def through(transfer: Transfer, *states: State) -> Transfer:
    """Returns a transfer after these states, a second after each other."""
    for state in states:
        now = transfer.timeline[-1].at + timedelta(seconds=1)
        if state is State.DELIVERED:
            transfer = transfer.with_(receipt=Receipt(path=RemotePath("in/a.csv"), size=1, checksum="sha256:00", at=now))
        transfer = transfer.to(state, now=now, reason="why", error="words")
    return transfer


def types(transfer: Transfer) -> list[str]:
    """Returns what there is to tell."""
    return [kind.value.partition(".")[2] for kind, _ in milestones(transfer)]


def test_the_published_schema_is_the_codes() -> None:
    """A change of the form is seen here; with it `form` rises, docs/events.md says so, and the file is written anew from `schema()`."""
    assert schema() == PUBLISHED
    assert PUBLISHED["$id"].endswith(FORM)
    jsonschema.Draft202012Validator.check_schema(PUBLISHED)


@pytest.mark.parametrize(
    "told",
    [
        *announcements(through(row(), State.DELIVERING, State.COMMITTING, State.DELIVERED, State.SETTLED)),
        *announcements(through(row(), State.DELIVERING, State.DEAD, State.CANCELLED)),
        *announcements(through(row(), State.STAGING, State.HELD)),
        late(tenant="acme", flow="fl-1", name="daily", level="late", expected_by=NOW, now=NOW),
        Announcement(
            id="wh-1-test-1", type=EventType.TEST, timestamp=NOW, tenant="acme", data=WebhookTold(webhook="wh-1", message="a test")
        ),
    ],
    ids=lambda told: told.id.partition("-")[2],
)
def test_every_event_has_the_published_form(told: Announcement) -> None:
    """Whatever is told, a reader's validator takes it; and the document names its type."""
    validator = jsonschema.Draft202012Validator(PUBLISHED, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    validator.validate(json.loads(told.model_dump_json()))
    assert f"`{told.type}`" in DOCUMENT
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", told.id), "an address of the API holds it"


def test_the_document_names_every_type() -> None:
    """And no other, in its table."""
    assert set(re.findall(r"^\| `([a-z.]+)` \|", DOCUMENT, flags=re.MULTILINE)) == {kind.value for kind in EventType}


def test_the_schema_refuses_what_is_no_event() -> None:
    """It is not one that takes everything."""
    good = json.loads(announcements(row())[0].model_dump_json())
    for bad in ({**good, "type": "transfer.lost"}, {**good, "timestamp": 7}, {name: good[name] for name in good if name != "id"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, PUBLISHED)


def test_what_happens_once_is_told_once() -> None:
    """Delivered, held and released: it is delivered once; each time that it is held is told."""
    moved = through(row(), State.DELIVERING, State.COMMITTING, State.HELD, State.COMMITTING, State.DELIVERED, State.HELD, State.DELIVERED)
    assert types(moved) == ["accepted", "started", "held", "delivered", "held"]
    assert len({told.id for told in announcements(moved)}) == 5


def test_a_transfer_through_staging_starts_once() -> None:
    """Staging and delivering are both work on one file."""
    assert types(through(row(), State.STAGING, State.STAGED, State.DELIVERING)) == ["accepted", "started"]


def test_a_redriven_transfer_fails_again() -> None:
    """Each failure is told, with its own id; it starts once."""
    again = through(row(), State.DELIVERING, State.DEAD, State.ACCEPTED, State.DELIVERING, State.DEAD)
    assert types(again) == ["accepted", "started", "failed", "failed"]


def test_news_are_what_was_not_there_in_the_state_before() -> None:
    """A save says which state it leaves: only what came since is news."""
    started = through(row(), State.DELIVERING)
    assert news(started, since=State.ACCEPTED)
    assert not news(started.noted(now=NOW, reason="unreachable"), since=State.DELIVERING)
    committing = through(started, State.COMMITTING)
    assert not news(committing, since=State.DELIVERING)
    settled = through(committing, State.DELIVERED, State.SETTLED)
    assert news(settled, since=State.COMMITTING)
    assert not news(settled, since=State.DELIVERED)
    assert news(settled, since=None)
    assert not news(settled.with_(announced=3), since=None)


def test_a_long_timeline_keeps_what_is_told() -> None:
    """Notes of failed tries go, oldest first; every change of state stays, and so does its place among the milestones."""
    moved = through(row(), State.DELIVERING)
    for number in range(3 * TIMELINE_LIMIT):
        moved = moved.noted(now=NOW + timedelta(minutes=number), reason="unreachable")
    assert len(moved.timeline) == TIMELINE_LIMIT
    ended = through(moved, State.DEAD, State.ACCEPTED, State.DELIVERING, State.DEAD)
    assert types(ended) == ["accepted", "started", "failed", "failed"]
    assert ended.timeline[2].at > NOW + timedelta(minutes=100)


def test_a_timeline_of_changes_alone_loses_none() -> None:
    """However often people send a transfer round."""
    moved = row()
    for _ in range(TIMELINE_LIMIT):
        moved = through(moved, State.DELIVERING, State.DEAD, State.ACCEPTED)
    assert types(moved).count("failed") == TIMELINE_LIMIT


@pytest.mark.parametrize(("destination", "dies"), [("wh-1", True), (BUS, False)])
def test_a_webhooks_tries_end_and_the_buss_do_not(destination: str, dies: bool) -> None:
    """Pauses grow up to half a day; our own bus is asked every ten minutes for ever."""
    one = Delivery(
        destination=destination,
        tenant="acme",
        announcement=announcements(row())[0],
        first_at=NOW,
        due_at=NOW,
        reason="webhook_refused",
        error="500",
    )
    pauses = []
    for _ in range(len(PAUSES) + 1):
        before = one
        one = one.failed(now=NOW, reason="webhook_refused", error="500", jitter=0)
        pauses.append(one.due_at - NOW)
        assert before.state is DeliveryState.WAITING
    assert (one.state is DeliveryState.DEAD) == dies
    assert pauses[:4] == list(PAUSES[:4])
    assert max(pauses) == (PAUSES[-1] if dies else PAUSES[3])
