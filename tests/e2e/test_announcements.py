"""What happens is told through the running stack, to a real HTTP server that fails at first."""

from __future__ import annotations

import json
import socket
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier

from deploy.local.customer import Customer, Refused
from deploy.local.stack import LocalStack
from tests.running import PATIENCE, Crew, Shop, eventually

EVENTS = {"transfer.accepted", "transfer.started", "transfer.delivered"}


class Hook:
    """A receiver that checks signatures, and answers what it is told to."""

    def __init__(self) -> None:
        self.secret = ""
        self.statuses: list[int] = []
        """Of the next answers; then 204."""
        self.heard: list[tuple[str, str]] = []
        """Type and id of what was taken."""
        self.refused = 0
        self.forged = 0
        hook = self

        class Answering(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = hook.take(body, dict(self.headers.items()))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def take(self, body: bytes, headers: dict[str, str]) -> int:
        """Returns the status of the answer to an event."""
        with self._lock:
            try:
                event: Any = Verifier(self.secret).verify(body, headers)
            except Exception:  # noqa: BLE001 - whatever the library says of what is not ours
                self.forged += 1
                return 401
            if self.statuses:
                self.refused += 1
                return self.statuses.pop(0)
            self.heard.append((event["type"], event["id"]))
            return 204

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A receiver on this machine."""
    with closing(Hook()) as made:
        yield made


def subscribed(customer: Customer, hook: Hook) -> str:
    """Returns the id of a webhook of the customer's at the receiver."""
    made = customer.post("/webhooks", {"name": "hook", "url": hook.url})
    hook.secret = made["secret"]
    return str(made["id"])


def test_a_receiver_that_fails_at_first_hears_everything(shop: Shop, customer: Customer, hook: Hook) -> None:
    """Accepted, started and delivered of each file, each signed, whatever was answered before; in the end nothing waits."""
    webhook = subscribed(customer, hook)
    hook.statuses = [500, 503, 429, 301]
    source, target = shop.place("sftp"), shop.place("s3")
    source.fill({"a": 10, "b": 20})
    ids = [customer.submit((source.endpoint, name), (target.endpoint, name)) for name in ("a", "b")]
    for one in ids:
        assert customer.rested(one, limit=PATIENCE)["state"] == "settled"
    wanted = {(kind, f"{one}-{kind.partition('.')[2]}") for one in ids for kind in EVENTS}
    eventually(lambda: set(hook.heard) >= wanted)
    assert set(hook.heard) == wanted
    assert (hook.refused, hook.forged) == (4, 0)
    eventually(lambda: customer.get(f"/webhooks/{webhook}/deliveries")["items"] == [])


def test_workers_that_die_lose_no_event(shop: Shop, customer: Customer, crew: Crew, hook: Hook) -> None:
    """Killed while they move files and tell of them, others tell everything: at least once, under the same ids."""
    subscribed(customer, hook)
    source, target = shop.place("s3"), shop.place("s3")
    names = {f"{number:02d}": 100 for number in range(12)}
    source.fill(names)
    ids = [customer.submit((source.endpoint, name), (target.endpoint, name)) for name in names]
    eventually(lambda: hook.heard)
    crew.dismiss()
    crew.hire("after")
    for one in ids:
        assert customer.rested(one, limit=PATIENCE)["state"] == "settled"
    wanted = {(kind, f"{one}-{kind.partition('.')[2]}") for one in ids for kind in EVENTS}
    # A dead worker's lease of the outbox runs out first.
    eventually(lambda: set(hook.heard) >= wanted, timedelta(seconds=240))
    assert set(Counter(hook.heard)) == wanted


def test_dead_letters_are_sent_again(shop: Shop, customer: Customer, hook: Hook) -> None:
    """What a receiver says it will never take is listed, and taken when a person sends it again."""
    webhook = subscribed(customer, hook)
    hook.statuses = [410] * 3
    source, target = shop.place("s3"), shop.place("s3")
    source.fill({"a": 10})
    moved = customer.submit((source.endpoint, "a"), (target.endpoint, "a"))
    customer.rested(moved, limit=PATIENCE)
    eventually(lambda: len(customer.get(f"/webhooks/{webhook}/deliveries", state="dead")["items"]) == 3)
    first = customer.get(f"/webhooks/{webhook}/deliveries", state="dead")["items"][0]
    assert json.loads(json.dumps(first["event"]))["data"]["transfer"] == moved
    customer.post(f"/webhooks/{webhook}/deliveries/{first['id']}/resend")
    assert customer.post(f"/webhooks/{webhook}/deliveries/resend")["resent"] in {2, 3}
    eventually(lambda: {kind for kind, _ in hook.heard} == EVENTS)


def test_a_receiver_that_never_answers_harms_nobody(stack: LocalStack, shop: Shop, customer: Customer, hook: Hook) -> None:
    """While one customer's receiver swallows every event, another's hears all of its own; the swallowed ones wait, and say why."""
    subscribed(customer, hook)
    with socket.create_server(("127.0.0.1", 0)) as swallowing, stack.customer(f"t{uuid.uuid4().hex[:8]}") as other:
        silent = other.post("/webhooks", {"name": "silent", "url": f"http://127.0.0.1:{swallowing.getsockname()[1]}/"})["id"]
        theirs = Shop(stack, other)
        moved: dict[str, list[str]] = {}
        for each in (theirs, shop):
            source, target = each.place("s3"), each.place("s3")
            names = {f"{number:02d}": 50 for number in range(8)}
            source.fill(names)
            moved[each.customer.tenant] = [each.customer.submit((source.endpoint, name), (target.endpoint, name)) for name in names]
        ours = {(kind, f"{one}-{kind.partition('.')[2]}") for one in moved[customer.tenant] for kind in EVENTS}
        eventually(lambda: set(hook.heard) >= ours)
        eventually(lambda: len(other.get(f"/webhooks/{silent}/deliveries")["items"]) == 3 * 8)
        waiting = other.get(f"/webhooks/{silent}/deliveries")["items"]
        assert {one["reason"] for one in waiting} <= {"webhook_timeout", "webhook_silent"}
        assert set(hook.heard) == ours


def test_nobody_is_told_inward(customer: Customer) -> None:
    """An address that leads into a network of ours is refused when it is given."""
    for url in ("http://169.254.169.254/latest/meta-data", "https://10.0.0.1/", "https://[fd00:ec2::254]/"):
        with pytest.raises(Refused) as told:
            customer.post("/webhooks", {"name": "inward", "url": url})
        assert told.value.status == 422
        assert [error["field"] for error in told.value.problem["errors"]] == ["/url"]
