"""`eft webhook` against the real API."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from eft.domain.announcement import late
from eft.domain.webhook import Delivery, DeliveryState, Webhook
from eft.errors import Permanent, Transient
from eft.journey.announce import announce, catch_up
from eft.ports import Answer
from tests.cli.conftest import Desk
from tests.fake_announcing import SHARDS, Told
from tests.world import TENANT

URL = "https://hooks.test/eft"
ADD = ("webhook", "add", "orders", URL)


@pytest.fixture
def told(desk: Desk) -> Told:
    """Who is told by the desk's engine."""
    made = Told(desk.world.ledger)
    ports = made.ports()
    # The API has the engine already.
    object.__setattr__(desk.world.engine, "announcing", ports)
    assert replace(desk.world.engine).announcing is ports
    desk.world.server("sftp-a").put("in/a.bin", b"x")
    return made


def moved(desk: Desk) -> None:
    """Moves a file and tells of it."""
    desk.world.until_rest(desk.world.submit("sftp-a", "s3-b"))
    for shard in range(SHARDS):
        announce(desk.world.engine, shard, desk.world.slice())


def only(told: Told) -> Webhook:
    """Returns the tenant's only webhook."""
    (found,) = told.subscriptions.of(TENANT)
    return found


def test_adds_a_webhook_and_prints_its_secret_once(desk: Desk, told: Told) -> None:
    """For people and for programs; no later command shows it."""
    made: Any = desk.json(*ADD, "--event", "transfer.delivered", "--event", "transfer.held")
    assert made["secret"].startswith("whsec_")
    assert (only(told).url, sorted(only(told).events)) == (URL, ["transfer.delivered", "transfer.held"])
    for words in (("list",), ("show", "orders"), ("show", made["id"])):
        shown = desk.run("webhook", *words)
        assert shown.exit_code == 0
        assert URL in shown.stdout
        assert "transfer.held" in shown.stdout
        assert made["secret"] not in shown.output
    said = desk.run("webhook", "add", "all", URL)
    assert "Secret: whsec_" in said.stdout
    assert "not shown again" in said.stderr


def test_an_address_that_is_refused_is_a_usage_error(desk: Desk, told: Told) -> None:
    """It says why."""
    told.receiver.refused[URL] = Permanent("it resolves to 10.0.0.1", reason="webhook_address_refused")
    refused = desk.run(*ADD)
    assert refused.exit_code == 2
    assert "10.0.0.1" in refused.stderr
    assert desk.run("webhook", "add", "x", URL, "--event", "transfer.lost").exit_code == 2
    assert told.subscriptions.of(TENANT) == []


def test_removes_a_webhook_when_told_to(desk: Desk, told: Told) -> None:
    """Not without a word."""
    desk.run(*ADD)
    assert desk.run("webhook", "remove", "orders").exit_code != 0
    assert only(told).name == "orders"
    assert desk.run("webhook", "remove", "orders", "--yes").exit_code == 0
    assert told.subscriptions.of(TENANT) == []
    assert desk.run("webhook", "show", "orders").exit_code == 3
    assert "No webhooks yet" in desk.run("webhook", "list").stdout


def test_a_test_ends_with_what_the_receiver_said(desk: Desk, told: Told) -> None:
    """Exit code 0 if it took it, else 1 and the reason."""
    desk.run(*ADD)
    told.receiver.answers[URL] = [Answer(202), Transient("hooks.test did not answer in time", reason="webhook_timeout")]
    good, bad = desk.run("webhook", "test", "orders"), desk.run("webhook", "test", "orders")
    assert (good.exit_code, "answered 202" in good.stdout) == (0, True)
    assert (bad.exit_code, "did not answer in time (webhook_timeout)" in bad.stdout) == (1, True)
    assert desk.json("webhook", "test", "orders", code=1)["delivered"] is False


def test_rotates_a_secret(desk: Desk, told: Told) -> None:
    """Another one is printed, once."""
    first = desk.json(*ADD)["secret"]
    second = desk.json("webhook", "rotate", "orders")["secret"]
    assert second not in {first, None}
    assert "has a new secret" in desk.run("webhook", "rotate", "orders").stdout
    assert only(told).revision == 3


def test_lists_deliveries_and_sends_them_again(desk: Desk, told: Told) -> None:
    """One by its id, or all that were given up."""
    desk.run(*ADD)
    told.receiver.answers[URL] = [Answer(410)]
    moved(desk)
    listed = desk.run("webhook", "deliveries", "orders", "--state", "dead")
    assert listed.stdout.count("410") == 3
    some = desk.json("webhook", "deliveries", "orders", "--limit", "1")
    assert len(some["items"]) == 1
    rest = desk.json("webhook", "deliveries", "orders", "--cursor", some["next_cursor"])
    assert len(rest["items"]) == 2
    told.receiver.answers[URL] = [Answer(200)]
    again = desk.run("webhook", "resend", "orders", some["items"][0]["id"])
    assert (again.exit_code, "is sent again" in again.stdout) == (0, True)
    assert desk.json("webhook", "resend", "orders", "--dead") == {"resent": 2}
    for shard in range(SHARDS):
        catch_up(desk.world.engine, shard, desk.world.slice())
    assert "Nothing waits" in desk.run("webhook", "deliveries", "orders").stdout
    assert desk.run("webhook", "resend", "orders", some["items"][0]["id"]).exit_code == 3


@pytest.mark.parametrize("words", [("resend", "orders"), ("resend", "orders", "x", "--dead"), ("deliveries", "orders", "--state", "lost")])
def test_refuses_what_makes_no_sense(desk: Desk, told: Told, words: tuple[str, ...]) -> None:
    """A usage error, before anything is sent again."""
    desk.run(*ADD)
    assert desk.run("webhook", *words).exit_code == 2
    assert told.receiver.posted == []


def test_many_dead_letters_are_sent_again_page_by_page(desk: Desk, told: Told) -> None:
    """However many there are."""
    desk.run(*ADD)
    now = desk.world.clock.now()
    for number in range(120):
        alarm = late(tenant=TENANT, flow=f"fl-{number}", name="daily", level="late", expected_by=now, now=now)
        letter = Delivery(
            destination=only(told).id, tenant=TENANT, announcement=alarm, first_at=now, due_at=now, reason="webhook_refused", error="500"
        )
        told.outbox.park(letter.model_copy(update={"state": DeliveryState.DEAD}))
    assert desk.json("webhook", "resend", "orders", "--dead") == {"resent": 120}
    assert told.outbox.deliveries(only(told).id, state=DeliveryState.DEAD).items == []
