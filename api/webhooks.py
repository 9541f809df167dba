"""/v1/webhooks: who is told of a tenant's transfers and flows, and what could not be delivered."""

from __future__ import annotations

import secrets
from datetime import timedelta
from http import HTTPStatus
from typing import Final

from flask import Blueprint, url_for
from pydantic import SecretStr

from api.auth import Scope
from api.errors import FieldError, Problem
from api.operation import Answered, caller, engine, invalid, match_revision, operation, turn
from api.schemas.base import PageAsked
from api.schemas.webhooks import (
    DeliveriesAsked,
    DeliveryPage,
    DeliveryShown,
    ResendAsked,
    ResendShown,
    TestShown,
    WebhookMade,
    WebhookNew,
    WebhookPage,
    WebhookShown,
)
from eft.domain.announcement import Announcement, EventType, WebhookTold
from eft.domain.endpoint import Credential
from eft.domain.webhook import SECRET_BYTES, Delivery, DeliveryState, Webhook, secret_text
from eft.errors import EftError, NotFound, Permanent
from eft.journey.announce import announcing, resend
from eft.journey.telling import post
from eft.ports import Announcing

webhooks = Blueprint("webhooks", __name__, url_prefix="/v1/webhooks")

MOST: Final = 10
"""Webhooks of one tenant: each of its events is posted to all of them."""
TEST_WITHIN: Final = timedelta(seconds=5)
TESTS_AT_ONCE: Final = 2
"""Per tenant."""


@webhooks.post("")
@operation(summary="Create a webhook", scope=Scope.WEBHOOKS_WRITE, body=WebhookNew, answer=WebhookMade, status=201, etag=True, also=(409,))
def create(body: WebhookNew) -> Answered:
    """It hears of what happens from now on. The answer holds its secret, this once; `POST …/rotate` makes another.

    The address must be https and lead to the public internet.
    """
    core, ports = engine(), _announcing()
    _check_address(ports, body.url)
    if len(ports.subscriptions.of(caller().tenant)) >= MOST:
        raise Problem(f"You have {MOST} webhooks; delete one first.", status=HTTPStatus.CONFLICT, reason="webhook_limit")
    name, secret = f"wh-{core.clock.nonce()}", _new_secret()
    ref = core.secrets.put(tenant=caller().tenant, endpoint=name, credential=Credential(signing_secret=secret))
    made = Webhook(
        id=name,
        tenant=caller().tenant,
        name=body.name,
        url=body.url,
        events=frozenset(EventType(one) for one in body.events),
        secret=ref,
        created=core.clock.now(),
    )
    try:
        ports.subscriptions.add(made)
    except EftError:
        core.secrets.remove(ref)
        raise
    location = url_for("webhooks.show", webhook_id=made.id)
    return Answered(_made(made, secret), etag=made.revision, headers={"Location": location})


@webhooks.get("")
@operation(summary="List webhooks", scope=Scope.WEBHOOKS_READ, query=PageAsked, answer=WebhookPage)
def listing(query: PageAsked) -> WebhookPage:  # noqa: ARG001 - they all fit in one page
    """By id, all of them."""
    return WebhookPage(items=tuple(shown(one) for one in _announcing().subscriptions.of(caller().tenant)))


@webhooks.get("/<id:webhook_id>")
@operation(summary="Show a webhook", scope=Scope.WEBHOOKS_READ, answer=WebhookShown, etag=True)
def show(webhook_id: str) -> Answered:
    """Without its secret."""
    found = _announcing().subscriptions.webhook(caller().tenant, webhook_id)
    return Answered(shown(found), etag=found.revision)


@webhooks.delete("/<id:webhook_id>")
@operation(summary="Delete a webhook", scope=Scope.WEBHOOKS_WRITE, status=204, if_match="optional")
def remove(webhook_id: str) -> None:
    """With its secret, and with what still waits to be delivered to it."""
    ports = _announcing()
    present = ports.subscriptions.webhook(caller().tenant, webhook_id)
    match_revision(present.revision, required=False)
    ports.subscriptions.remove(present.tenant, present.id, revision=present.revision)
    engine().secrets.remove(present.secret)


@webhooks.post("/<id:webhook_id>/test")
@operation(summary="Send a test", scope=Scope.WEBHOOKS_WRITE, answer=TestShown, also=(429,))
def test(webhook_id: str) -> TestShown:
    """Posts an event `webhook.test` now, waits five seconds at most, and says what the receiver answered. It is not tried again."""
    core = engine()
    present = _announcing().subscriptions.webhook(caller().tenant, webhook_id)
    asked = Announcement(
        id=f"{present.id}-test-{core.clock.nonce()}",
        type=EventType.TEST,
        timestamp=core.clock.now(),
        tenant=present.tenant,
        data=WebhookTold(webhook=present.id, message=f"a test that {caller().subject} asked for"),
    )
    began = core.clock.monotonic()
    status, error = None, None
    with turn("test", limit=TESTS_AT_ONCE, lease=2 * TEST_WITHIN):
        try:
            status = post(core, present, asked, patience=TEST_WITHIN)
        except EftError as trouble:
            error = trouble
    return TestShown(
        delivered=error is None,
        status=status,
        milliseconds=round((core.clock.monotonic() - began) * 1000),
        reason=None if error is None else error.reason,
        error=None if error is None else str(error),
    )


@webhooks.post("/<id:webhook_id>/rotate")
@operation(summary="Rotate a webhook's secret", scope=Scope.WEBHOOKS_WRITE, answer=WebhookMade, if_match="optional", etag=True, also=(409,))
def rotate(webhook_id: str) -> Answered:
    """The answer holds the new secret, this once. For a day events are signed with the former one, too."""
    core, ports = engine(), _announcing()
    present = ports.subscriptions.webhook(caller().tenant, webhook_id)
    match_revision(present.revision, required=False)
    secret = _new_secret()
    changed = present.model_copy(update={"rotated_at": core.clock.now(), "revision": present.revision + 1})
    try:
        former = core.secrets.get(present.secret).signing_secret
    except Permanent as error:
        if error.reason not in {"secret_missing", "secret_malformed"}:
            raise
        former = None
    # The row first: of two who rotate at once one is told so before it changes the secret.
    ports.subscriptions.change(changed)
    kept = Credential(signing_secret=secret, former_signing_secret=former)
    core.secrets.put(tenant=present.tenant, endpoint=present.id, credential=kept)
    return Answered(_made(changed, secret), etag=changed.revision)


@webhooks.get("/<id:webhook_id>/deliveries")
@operation(summary="List deliveries that failed", scope=Scope.WEBHOOKS_READ, query=DeliveriesAsked, answer=DeliveryPage)
def deliveries(webhook_id: str, query: DeliveriesAsked) -> DeliveryPage:
    """Those that wait for their next try, and the dead letters of the last thirty days. What was taken at once leaves no row."""
    ports = _announcing()
    present = ports.subscriptions.webhook(caller().tenant, webhook_id)
    page = ports.outbox.deliveries(present.id, state=query.state, limit=query.limit, cursor=query.cursor)
    return DeliveryPage(items=tuple(_delivery(one) for one in page.items), next_cursor=page.cursor)


@webhooks.post("/<id:webhook_id>/deliveries/<id:delivery_id>/resend")
@operation(summary="Send a delivery again", scope=Scope.WEBHOOKS_WRITE, answer=DeliveryShown, status=202)
def resend_one(webhook_id: str, delivery_id: str) -> DeliveryShown:
    """Within seconds, with all its tries anew."""
    present = _announcing().subscriptions.webhook(caller().tenant, webhook_id)
    return _delivery(resend(engine(), present, delivery_id))


@webhooks.post("/<id:webhook_id>/deliveries/resend")
@operation(summary="Send dead letters again", scope=Scope.WEBHOOKS_WRITE, body=ResendAsked, answer=ResendShown)
def resend_dead(webhook_id: str, body: ResendAsked) -> ResendShown:
    """Up to `limit` of them; ask again with `next_cursor` as `cursor` until it is null."""
    ports = _announcing()
    present = ports.subscriptions.webhook(caller().tenant, webhook_id)
    page = ports.outbox.deliveries(present.id, state=DeliveryState.DEAD, limit=body.limit, cursor=body.cursor)
    resent = 0
    for one in page.items:
        try:
            resend(engine(), present, one.id)
        except NotFound:
            continue
        resent += 1
    return ResendShown(resent=resent, next_cursor=page.cursor)


def shown(webhook: Webhook) -> WebhookShown:
    """Returns a webhook as its owner sees it."""
    return WebhookShown(
        id=webhook.id,
        name=webhook.name,
        url=webhook.url,
        events=tuple(sorted(webhook.events)),
        rotated_at=webhook.rotated_at,
        revision=webhook.revision,
        created=webhook.created,
    )


def _made(webhook: Webhook, secret: SecretStr) -> WebhookMade:
    return WebhookMade(**shown(webhook).model_dump(), secret=secret.get_secret_value())


def _delivery(delivery: Delivery) -> DeliveryShown:
    return DeliveryShown(
        id=delivery.id,
        state=delivery.state,
        tries=delivery.tries,
        first_at=delivery.first_at,
        next_try=delivery.due_at if delivery.state is DeliveryState.WAITING else None,
        reason=delivery.reason,
        error=delivery.error,
        event=delivery.announcement,
    )


def _check_address(ports: Announcing, url: str) -> None:
    try:
        ports.receiver.check(url)
    except EftError as error:
        raise invalid(FieldError(field="/url", message=f"cannot be told: {error}")) from None


def _announcing() -> Announcing:
    return announcing(engine())


def _new_secret() -> SecretStr:
    return secret_text(secrets.token_bytes(SECRET_BYTES))
