"""/v1/webhooks: subscriptions, their secrets, and what could not be delivered."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from standardwebhooks import Webhook as Verifier

from api.app import create_app
from api.auth import AuthSettings, Scope
from api.webhooks import MOST
from eft.domain.webhook import PAUSES
from eft.errors import NotFound, Permanent, Transient
from eft.journey.announce import announce, catch_up
from eft.ports import Answer
from tests.api.conftest import AUDIENCE, ISSUER, Client, Issuer, fields, problem
from tests.fake_announcing import SHARDS, Told
from tests.world import TENANT, World

HOOK = "https://hooks.test/eft?key=path-secret"
NEW = {"name": "orders", "url": HOOK, "events": ["transfer.delivered", "transfer.failed"]}
UNKNOWN = "/v1/webhooks/wh-0000000000000000"


@pytest.fixture
def world() -> World:
    """An engine over fakes that tells others, with a file to move."""
    made = World()
    made.server("sftp-a").put("in/a.bin", b"x")
    return made


@pytest.fixture
def told(world: World) -> Told:
    """Who is told."""
    return Told(world.ledger)


@pytest.fixture(autouse=True)
def _tells(world: World, told: Told) -> None:
    world.engine = replace(world.engine, announcing=told.ports())


def made(client: Client, **fields: object) -> dict[str, Any]:
    """Creates a webhook and returns it with its secret."""
    answer = client.post("/v1/webhooks", {**NEW, **fields})
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == f"/v1/webhooks/{answer.get_json()['id']}"
    assert answer.headers["ETag"] == '"1"'
    found: dict[str, Any] = answer.get_json()
    return found


def moved(world: World) -> None:
    """Moves a file and tells of it."""
    world.until_rest(world.submit("sftp-a", "s3-b"))
    for shard in range(SHARDS):
        announce(world.engine, shard, world.slice())


def test_a_webhook_is_made_with_a_secret_that_is_shown_once(world: World, told: Told, acme: Client) -> None:
    """The secret is the one that its events are signed with, lies in Secrets Manager, and is in no other answer."""
    world.clock.advance(datetime.now(UTC) - world.clock.now())
    new = made(acme)
    assert new["secret"].startswith("whsec_")
    assert sorted(new["events"]) == ["transfer.delivered", "transfer.failed"]
    moved(world)
    (posted,) = told.receiver.posted
    Verifier(new["secret"]).verify(posted.body, dict(posted.headers))
    shown = acme.get(f"/v1/webhooks/{new['id']}")
    listed = acme.get("/v1/webhooks")
    assert {**shown.get_json(), "secret": new["secret"]} == new
    assert listed.get_json() == {"items": [shown.json], "next_cursor": None}
    assert new["secret"] not in shown.text + listed.text
    assert new["secret"] not in told.subscriptions.webhook(TENANT, new["id"]).model_dump_json()


def test_without_events_it_hears_of_all(acme: Client) -> None:
    """All but tests, which are asked for."""
    assert len(acme.post("/v1/webhooks", {"name": "all", "url": HOOK}).get_json()["events"]) == 7


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": ""}, "/url"),
        ({"url": "x" * 2049}, "/url"),
        ({"url": None}, "/url"),
        ({"events": []}, "/events"),
        ({"events": ["transfer.lost"]}, "/events/0"),
        ({"events": ["webhook.test"]}, "/events/0"),
        ({"name": ""}, "/name"),
        ({"secret": "mine"}, "/secret"),
    ],
)
def test_what_makes_no_sense_is_refused(acme: Client, told: Told, change: dict[str, object], field: str) -> None:
    """Naming the field; no webhook is made."""
    assert fields(problem(acme.post("/v1/webhooks", {**NEW, **change}), 422, "request_invalid")) == [field]
    assert told.subscriptions.of(TENANT) == []


@pytest.mark.parametrize(
    "error",
    [Permanent("the address leads inward", reason="webhook_address_refused"), Transient("does not resolve", reason="dns_failed")],
)
def test_an_address_that_cannot_be_told_is_refused(acme: Client, told: Told, error: Permanent | Transient) -> None:
    """It says why, and nothing is kept."""
    told.receiver.refused[HOOK] = error
    refused = problem(acme.post("/v1/webhooks", NEW), 422, "request_invalid")
    assert fields(refused) == ["/url"]
    assert str(error) in refused["detail"]
    assert told.subscriptions.of(TENANT) == []


def test_a_tenant_has_so_many_at_most(acme: Client, other: Client) -> None:
    """Each event is posted to all of them; another tenant has as many of its own."""
    for number in range(MOST):
        made(acme, name=f"hook {number}")
    problem(acme.post("/v1/webhooks", NEW), 409, "webhook_limit")
    made(other)


def test_a_webhook_that_could_not_be_kept_leaves_no_secret(world: World, told: Told, acme: Client) -> None:
    """The secret is made first, and removed if the webhook is not."""
    told.subscriptions.trip("add", Transient("throttled", reason="throttled"))
    problem(acme.post("/v1/webhooks", NEW), 503, "throttled")
    assert (world.secrets.calls["put"], world.secrets.calls["remove"]) == (1, 1)


def test_a_deleted_webhook_hears_nothing_more(world: World, told: Told, acme: Client) -> None:
    """It and its secret are gone; a version that was not seen is not deleted."""
    new = made(acme)
    address = f"/v1/webhooks/{new['id']}"
    problem(acme.delete(address, If_Match='"7"'), 412, "revision_differs")
    assert acme.delete(address, If_Match='"1"').status_code == 204
    problem(acme.get(address), 404, "webhook_unknown")
    moved(world)
    assert told.receiver.posted == []
    assert world.secrets.calls["remove"] == 1


def test_a_test_says_what_the_receiver_answered(told: Told, acme: Client) -> None:
    """Delivered with its status, or why not; nothing is parked."""
    address = f"/v1/webhooks/{made(acme)['id']}"
    told.receiver.answers[HOOK] = [Answer(204), Answer(404), Transient("did not answer in time", reason="webhook_timeout"), Answer(200)]
    good = acme.post(f"{address}/test").get_json()
    assert (good["delivered"], good["status"], good["reason"]) == (True, 204, None)
    assert told.receiver.heard(HOOK) == ["webhook.test"]
    assert "ada" in told.receiver.posted[0].body.decode()
    bad, late = acme.post(f"{address}/test").get_json(), acme.post(f"{address}/test").get_json()
    assert (bad["delivered"], bad["status"], bad["reason"], bad["error"]) == (False, None, "webhook_refused", "the receiver answered 404")
    assert (late["delivered"], late["reason"]) == (False, "webhook_timeout")
    assert acme.get(f"{address}/deliveries").get_json()["items"] == []


def test_tests_are_bounded(world: World, acme: Client) -> None:
    """They wait for strangers' servers, and the API's threads are everybody's."""
    address = f"/v1/webhooks/{made(acme)['id']}/test"
    for holder in ("one", "two"):
        world.limits.acquire(f"test/{TENANT}", limit=2, holder=holder, lease=PAUSES[3])
    problem(acme.post(address), 429, "too_many_tests")


def test_a_rotated_secret_signs_with_the_former_for_a_while(world: World, told: Told, acme: Client) -> None:
    """Both verify what is sent; the row says when it was rotated."""
    world.clock.advance(datetime.now(UTC) - world.clock.now())
    new = made(acme)
    address = f"/v1/webhooks/{new['id']}"
    problem(acme.post(f"{address}/rotate", If_Match='"9"'), 412, "revision_differs")
    rotated = acme.post(f"{address}/rotate", If_Match='"1"')
    assert rotated.status_code == 200
    assert rotated.headers["ETag"] == '"2"'
    assert rotated.get_json()["secret"] not in {new["secret"], None}
    assert rotated.get_json()["rotated_at"] is not None
    moved(world)
    (posted,) = told.receiver.posted
    for secret in (new["secret"], rotated.get_json()["secret"]):
        Verifier(secret).verify(posted.body, dict(posted.headers))


def test_a_webhook_whose_secret_is_lost_is_rotated(world: World, told: Told, acme: Client) -> None:
    """Without a former secret there is only the new one."""
    new = made(acme)
    world.secrets.remove(told.subscriptions.webhook(TENANT, new["id"]).secret)
    assert acme.post(f"/v1/webhooks/{new['id']}/rotate").get_json()["secret"] != new["secret"]
    moved(world)
    assert len(told.receiver.posted[0].headers["webhook-signature"].split()) == 1


def test_dead_letters_are_listed_and_sent_again(world: World, told: Told, acme: Client) -> None:
    """With their event and the reason; one by its id, or all."""
    new = made(acme, events=["transfer.accepted", "transfer.started", "transfer.delivered"])
    address = f"/v1/webhooks/{new['id']}/deliveries"
    told.receiver.answers[HOOK] = [Answer(410)]
    moved(world)
    found = acme.get(f"{address}?state=dead&limit=2").get_json()
    assert len(found["items"]) == 2
    first = found["items"][0]
    assert (first["state"], first["tries"], first["next_try"], first["reason"]) == ("dead", 1, None, "webhook_gone")
    assert first["event"]["data"]["source"]["path"] == "in/a.bin"
    assert len(acme.get(f"{address}?state=dead&limit=2&cursor={found['next_cursor']}").get_json()["items"]) == 1
    assert acme.get(f"{address}?state=waiting").get_json()["items"] == []
    told.receiver.answers[HOOK] = [Answer(200)]
    again = acme.post(f"{address}/{first['id']}/resend")
    assert (again.status_code, again.get_json()["state"], again.get_json()["tries"]) == (202, "waiting", 0)
    assert acme.post(f"{address}/resend", {"limit": 1}).get_json()["resent"] == 1
    assert acme.post(f"{address}/resend", {}).get_json() == {"resent": 1, "next_cursor": None}
    for shard in range(SHARDS):
        catch_up(world.engine, shard, world.slice())
    assert acme.get(address).get_json()["items"] == []
    problem(acme.post(f"{address}/{first['id']}/resend"), 404, "delivery_unknown")


def test_a_letter_that_is_taken_meanwhile_is_no_trouble(world: World, told: Told, acme: Client) -> None:
    """Of several letters, one that is gone is left out."""
    new = made(acme, events=["transfer.started", "transfer.delivered"])
    told.receiver.answers[HOOK] = [Answer(410)]
    moved(world)
    told.outbox.trip("delivery", told_gone())
    assert acme.post(f"/v1/webhooks/{new['id']}/deliveries/resend", {}).get_json()["resent"] == 1


def told_gone() -> Exception:
    """Returns what a delivery that is gone raises."""
    return NotFound("it is gone", reason="delivery_unknown")


@pytest.mark.parametrize("path", ["", "/test", "/rotate", "/deliveries", "/deliveries/x/resend", "/deliveries/resend"])
def test_another_tenants_webhook_does_not_exist(acme: Client, other: Client, path: str) -> None:
    """404 for each of its addresses, as for one that nobody has."""
    address = f"/v1/webhooks/{made(acme)['id']}"
    method = "GET" if path in {"", "/deliveries"} else "POST"
    body: dict[str, object] | None = {} if path == "/deliveries/resend" else None
    for where in (address, UNKNOWN):
        problem(other.send(method, where + path, body), 404, "webhook_unknown")
    problem(other.delete(address), 404, "webhook_unknown")


def test_reading_does_not_allow_writing(app: Flask, issuer: Issuer, acme: Client) -> None:
    """A token for looking cannot subscribe, rotate or send."""
    reader = Client(app, issuer.token(scopes=[Scope.WEBHOOKS_READ]))
    address = f"/v1/webhooks/{made(acme)['id']}"
    assert reader.get(address).status_code == 200
    for path in ("", "/test", "/rotate"):
        problem(reader.post(address + path if path else "/v1/webhooks", None if path else NEW), 403, "scope_missing")


def test_no_secret_is_logged(world: World, told: Told, acme: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the signing secret nor what the address holds behind its host, whatever goes wrong."""
    caplog.set_level(logging.DEBUG)
    new = made(acme)
    told.receiver.answers[HOOK] = [Answer(500), Transient("hooks.test did not answer in time", reason="webhook_timeout"), Answer(410)]
    moved(world)
    rotated = acme.post(f"/v1/webhooks/{new['id']}/rotate").get_json()
    acme.post(f"/v1/webhooks/{new['id']}/test")
    lines = json.dumps([vars(record) for record in caplog.records], default=str)
    assert new["id"] in lines
    for secret in (new["secret"], rotated["secret"], new["secret"].removeprefix("whsec_"), "path-secret"):
        assert secret not in lines


def test_an_engine_that_tells_nobody_has_no_webhooks(world: World, issuer: Issuer) -> None:
    """It says so."""
    silent = create_app(
        replace(world.engine, announcing=None), lambda _: None, AuthSettings(issuer=ISSUER, audience=AUDIENCE, jwks=str(issuer.file))
    )
    problem(Client(silent, issuer.token()).get("/v1/webhooks"), 404, "not_announcing")
