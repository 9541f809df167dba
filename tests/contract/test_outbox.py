"""The outbox and the subscriptions: what was written with what happened is told of, and nothing is forgotten that was not told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import boto3
import pytest
from moto import mock_aws

from deploy.local.provision import provision
from eft.adapters.ledger import DynamoLedger
from eft.adapters.outbox import DynamoOutbox
from eft.adapters.subscriptions import DynamoSubscriptions, Everything
from eft.bootstrap import build_engine
from eft.domain.announcement import Announcement, EventType, announcements, late
from eft.domain.endpoint import SecretRef
from eft.domain.names import RemotePath
from eft.domain.transfer import Place, State, Transfer
from eft.domain.webhook import Delivery, DeliveryState, Webhook
from eft.errors import Conflict, NotFound, Permanent, Transient
from eft.ports import Ledger, Outbox, Subscriptions, Untold
from eft.settings import Settings
from tests.contract.rows import LEASE, DynamoRows, Rows
from tests.fake_announcing import EVERYTHING, SHARDS, Told
from tests.fakes import FakeLedger


@dataclass
class Telling:
    """The ports on one backend; the ledger asks the subscriptions who listens."""

    rows: Rows
    ledger: Ledger
    outbox: Outbox
    subscriptions: Subscriptions

    def listen(self, name: str = "wh-1") -> Webhook:
        """Adds a webhook of the tenant."""
        made = Webhook(
            id=name,
            tenant=self.rows.tenant,
            name=name,
            url="https://hooks.test/",
            events=EVERYTHING,
            secret=SecretRef(name=f"eft/{self.rows.tenant}/{name}"),
            created=self.rows.clock.now(),
        )
        self.subscriptions.add(made)
        return made

    def untold(self) -> list[Untold]:
        """Returns what waits in all shards that is the tenant's."""
        found = [one for shard in range(self.outbox.shards) for one in self.outbox.untold(shard, limit=1000)]
        return [one for one in found if one.announcements[0].tenant == self.rows.tenant]

    def due(self) -> list[Delivery]:
        """Returns the deliveries of all shards that are the tenant's and whose time has come."""
        found = [one for shard in range(self.outbox.shards) for one in self.outbox.due(shard, before=self.rows.clock.now(), limit=1000)]
        return [one for one in found if one.tenant == self.rows.tenant]

    def delivery(self, number: int = 1, *, destination: str | None = None, after: float = 0) -> Delivery:
        """Returns a delivery that was not taken."""
        now = self.rows.clock.now()
        told = announcements(self.rows.transfer(number).noted(now=now))[0]
        return Delivery(
            destination=destination or f"wh-{self.rows.tenant}",
            tenant=self.rows.tenant,
            announcement=told,
            first_at=now,
            due_at=now + timedelta(seconds=after),
            reason="webhook_refused",
            error="the receiver answered 500",
        )


@pytest.fixture
def telling(rows: Rows) -> Telling:
    """The ports on each backend in turn."""
    if isinstance(rows, DynamoRows):
        subscriptions = DynamoSubscriptions(rows.session, table=rows.registry_table, clock=rows.clock)
        ledger = DynamoLedger(rows.session, table=rows.ledger_table, clock=rows.clock, listening=subscriptions)
        rows.ledger = ledger
        return Telling(rows, ledger, DynamoOutbox(rows.session, table=rows.ledger_table, clock=rows.clock), subscriptions)
    assert isinstance(rows.ledger, FakeLedger)
    told = Told(rows.ledger)
    return Telling(rows, rows.ledger, told.outbox, told.subscriptions)


def accepted(telling: Telling, number: int = 1) -> Transfer:
    """Returns a new row whose timeline says that it was accepted."""
    row = telling.rows.transfer(number)
    row = row.noted(now=row.created)
    assert telling.ledger.create(row) is None
    return row


def types(untold: Untold) -> list[EventType]:
    """Returns what there is to tell."""
    return [one.type for one in untold.announcements]


# -- transfers ---------------------------------------------------------------------------------------------------------


def test_a_row_that_nobody_wants_to_hear_of_is_not_in_the_outbox(telling: Telling) -> None:
    """Neither when it is created nor when its state changes."""
    row = accepted(telling)
    telling.rows.moved(telling.rows.claimed(row), State.DELIVERING)
    assert telling.untold() == []
    assert telling.ledger.load(row.id).announced is None


def test_a_row_is_in_the_outbox_with_the_write_that_makes_it(telling: Telling) -> None:
    """Created while somebody listens, it is to be told of; told, it is not."""
    telling.listen()
    row = accepted(telling)
    (untold,) = telling.untold()
    assert (untold.kind, untold.id, types(untold), untold.milestones) == ("transfer", row.id, [EventType.ACCEPTED], 1)
    telling.outbox.told(untold)
    assert telling.untold() == []
    assert telling.ledger.load(row.id).announced == 1


def test_a_change_puts_a_row_that_was_told_of_into_the_outbox_again(telling: Telling) -> None:
    """Only what is new is to be told then."""
    telling.listen()
    row = accepted(telling)
    telling.outbox.told(telling.untold()[0])
    telling.rows.moved(telling.rows.claimed(row), State.DELIVERING)
    (untold,) = telling.untold()
    assert (types(untold), untold.milestones) == ([EventType.STARTED], 2)


def test_a_change_that_is_not_told_leaves_the_outbox_alone(telling: Telling) -> None:
    """Committing is nobody's business; nor is a claim, a renewal, or a note of a failed try."""
    telling.listen()
    row = telling.rows.moved(telling.rows.claimed(accepted(telling)), State.DELIVERING)
    telling.outbox.told(telling.untold()[0])
    telling.ledger.renew(row, until=telling.rows.clock.now() + LEASE)
    noted = row.noted(now=telling.rows.clock.now(), reason="unreachable")
    telling.ledger.save(noted, was=State.DELIVERING)
    telling.rows.moved(noted, State.COMMITTING)
    assert telling.untold() == []


def test_what_happens_while_it_is_told_stays_to_be_told(telling: Telling) -> None:
    """A worker's write between the teller's read and its note is not lost."""
    telling.listen()
    row = accepted(telling)
    (seen,) = telling.untold()
    claimed = telling.rows.claimed(row)
    telling.rows.moved(claimed, State.DELIVERING)
    telling.outbox.told(seen)
    (left,) = telling.untold()
    assert types(left) == [EventType.STARTED]
    telling.outbox.told(left)
    assert telling.untold() == []


def test_a_workers_write_does_not_undo_what_was_told(telling: Telling) -> None:
    """A worker saves the row that it loaded before the telling; how far it was told of stays."""
    telling.listen()
    claimed = telling.rows.claimed(accepted(telling))
    telling.outbox.told(telling.untold()[0])
    assert claimed.announced == 0
    telling.rows.moved(claimed, State.DELIVERING)
    assert telling.ledger.load(claimed.id).announced == 1
    assert types(telling.untold()[0]) == [EventType.STARTED]


def test_a_row_accepted_before_anybody_listened_is_told_of_from_then_on(telling: Telling) -> None:
    """Its next change puts it into the outbox, with all its milestones: who wants which of them is the teller's to say."""
    row = accepted(telling)
    telling.listen()
    telling.rows.moved(telling.rows.claimed(row), State.DELIVERING, State.DEAD)
    assert types(telling.untold()[0]) == [EventType.ACCEPTED, EventType.STARTED, EventType.FAILED]


def test_a_row_that_a_state_machine_waits_for_is_told_of(telling: Telling) -> None:
    """Without any subscriber, and with its token."""
    row = telling.rows.transfer(task_token="token")
    telling.ledger.create(row.noted(now=row.created))
    (untold,) = telling.untold()
    assert untold.task_token == "token"


def test_a_row_that_leaves_for_the_other_region_is_told_of_there(telling: Telling) -> None:
    """The region that carries it on has what is still to be told; this one has not."""
    telling.listen()
    claimed = telling.rows.claimed(accepted(telling))
    telling.ledger.save(claimed.with_(elsewhere="us-gov-east-1", claim_until=None, due_at=None), was=State.ACCEPTED)
    assert telling.untold() == []
    assert telling.ledger.adopt(claimed.with_(region_epoch=claimed.region_epoch + 1, fence=0, claim_until=None, announced=0))
    assert types(telling.untold()[0]) == [EventType.ACCEPTED]


def test_a_row_that_was_told_of_elsewhere_is_not_told_of_again(telling: Telling) -> None:
    """An adopted row says how far it was told of."""
    telling.listen()
    row = telling.rows.transfer()
    assert telling.ledger.adopt(row.noted(now=row.created).with_(announced=1))
    assert telling.untold() == []
    assert telling.ledger.load(row.id).announced == 1


# -- announcements of flows --------------------------------------------------------------------------------------------


def alarm(telling: Telling) -> Announcement:
    """Returns a flow's alarm."""
    now = telling.rows.clock.now()
    return late(tenant=telling.rows.tenant, flow=f"fl-{telling.rows.tenant}", name="daily", level="late", expected_by=now, now=now)


def test_an_announcement_is_added_once(telling: Telling) -> None:
    """Before and after it is told."""
    assert telling.outbox.add(alarm(telling))
    assert not telling.outbox.add(alarm(telling))
    (untold,) = telling.untold()
    assert (untold.kind, untold.announcements) == ("announcement", (alarm(telling),))
    telling.outbox.told(untold)
    assert telling.untold() == []
    assert not telling.outbox.add(alarm(telling))


def test_a_shard_is_read_up_to_a_limit(telling: Telling) -> None:
    """No request grows with the outbox."""
    telling.listen()
    for number in range(12):
        accepted(telling, number)
    assert max(len(telling.outbox.untold(shard, limit=1)) for shard in range(SHARDS)) == 1
    assert telling.outbox.shards == SHARDS


# -- deliveries --------------------------------------------------------------------------------------------------------


def test_a_delivery_is_due_at_its_time(telling: Telling) -> None:
    """Not before; and no more when it is done."""
    one = telling.delivery(after=5)
    telling.outbox.park(one)
    assert telling.due() == []
    telling.rows.clock.advance(5)
    (due,) = telling.due()
    assert due == one
    telling.outbox.done(due)
    telling.outbox.done(due)
    assert telling.due() == []
    with pytest.raises(NotFound) as told:
        telling.outbox.delivery(one.destination, one.id)
    assert told.value.reason == "delivery_unknown"


def test_a_delivery_is_parked_once(telling: Telling) -> None:
    """Parked again after a crash, the first stays, with its tries."""
    telling.outbox.park(telling.delivery().failed(now=telling.rows.clock.now(), reason="a", error="a", jitter=0))
    telling.outbox.park(telling.delivery())
    assert telling.outbox.delivery(f"wh-{telling.rows.tenant}", telling.delivery().id).tries == 1


def test_a_delivery_is_changed_if_it_is_as_seen(telling: Telling) -> None:
    """Of two that saw the same one writes."""
    seen = telling.delivery()
    telling.outbox.park(seen)
    first = seen.failed(now=telling.rows.clock.now(), reason="a", error="a", jitter=0)
    second = seen.failed(now=telling.rows.clock.now(), reason="b", error="b", jitter=0.5)
    assert telling.outbox.change(first, seen=seen)
    assert not telling.outbox.change(second, seen=seen)
    assert telling.outbox.delivery(seen.destination, seen.id).reason == "a"
    telling.outbox.done(first)
    assert not telling.outbox.change(second, seen=first)


def test_a_dead_letter_is_never_due(telling: Telling) -> None:
    """It is listed, and due again once a person sends it again."""
    seen = telling.delivery()
    telling.outbox.park(seen)
    dead = seen.failed(now=telling.rows.clock.now(), reason="webhook_gone", error="410", jitter=0, final=True)
    assert telling.outbox.change(dead, seen=seen)
    telling.rows.clock.advance(timedelta(days=2))
    assert telling.due() == []
    assert [one.state for one in telling.outbox.deliveries(seen.destination).items] == [DeliveryState.DEAD]
    again = dead.model_copy(update={"state": DeliveryState.WAITING, "due_at": telling.rows.clock.now()})
    assert telling.outbox.change(again, seen=dead)
    assert len(telling.due()) == 1


def test_deliveries_are_listed_by_destination_and_state(telling: Telling) -> None:
    """Page after page, each once; another destination's are not among them."""
    telling.outbox.park(telling.delivery(99, destination=f"other-{telling.rows.tenant}"))
    for number in range(5):
        seen = telling.delivery(number)
        telling.outbox.park(seen)
        if number % 2:
            assert telling.outbox.change(seen.failed(now=seen.first_at, reason="a", error="a", jitter=0, final=True), seen=seen)
    where = f"wh-{telling.rows.tenant}"
    found: list[Delivery] = []
    cursor: str | None = None
    while True:
        page = telling.outbox.deliveries(where, limit=2, cursor=cursor)
        found += page.items
        cursor = page.cursor
        if cursor is None:
            break
    assert len({one.id for one in found}) == len(found) == 5
    assert len(telling.outbox.deliveries(where, state=DeliveryState.DEAD).items) == 2
    page = telling.outbox.deliveries(where, state=DeliveryState.WAITING, limit=2)
    assert len(telling.outbox.deliveries(where, state=DeliveryState.WAITING, cursor=page.cursor).items) == 1
    with pytest.raises(Permanent) as told:
        telling.outbox.deliveries(where, state=DeliveryState.DEAD, cursor=page.cursor)
    assert told.value.reason == "cursor_invalid"


# -- subscriptions -----------------------------------------------------------------------------------------------------


def test_a_webhook_is_added_changed_and_removed(telling: Telling) -> None:
    """Each change by whoever saw the version before."""
    made = telling.listen()
    assert telling.subscriptions.webhook(made.tenant, made.id) == made
    with pytest.raises(Conflict) as told:
        telling.subscriptions.add(made.model_copy(update={"name": "another"}))
    assert told.value.reason == "webhook_exists"
    changed = made.model_copy(update={"revision": 2, "rotated_at": telling.rows.clock.now()})
    telling.subscriptions.change(changed)
    with pytest.raises(Conflict):
        telling.subscriptions.change(changed.model_copy(update={"name": "late"}))
    assert telling.subscriptions.of(made.tenant) == [changed]
    with pytest.raises(Conflict):
        telling.subscriptions.remove(made.tenant, made.id, revision=1)
    telling.subscriptions.remove(made.tenant, made.id, revision=2)
    with pytest.raises(NotFound) as gone:
        telling.subscriptions.webhook(made.tenant, made.id)
    assert gone.value.reason == "webhook_unknown"


def test_webhooks_are_their_tenants(telling: Telling) -> None:
    """Another tenant sees none of them."""
    made = [telling.listen(f"wh-{number}") for number in range(3)]
    assert list(telling.subscriptions.of(telling.rows.tenant)) == made
    assert telling.subscriptions.of(f"{telling.rows.tenant}x") == []
    with pytest.raises(NotFound):
        telling.subscriptions.webhook(f"{telling.rows.tenant}x", "wh-1")


# -- the adapters ------------------------------------------------------------------------------------------------------


def test_an_answer_about_listeners_is_remembered_for_a_while(dynamo: DynamoRows) -> None:
    """Most writes of a transfer ask nobody; a registry that does not answer means that somebody may listen."""
    asked = DynamoSubscriptions(dynamo.session, table=dynamo.registry_table, clock=dynamo.clock, remember=timedelta(seconds=3))
    with dynamo.counted() as sent:
        assert not any(asked.wanted(dynamo.tenant) for _ in range(5))
    assert sent["Query"] == 1
    telling = Telling(dynamo, dynamo.ledger, DynamoOutbox(dynamo.session, table=dynamo.ledger_table, clock=dynamo.clock), asked)
    telling.listen()
    assert not asked.wanted(dynamo.tenant)
    dynamo.clock.advance(3)
    assert asked.wanted(dynamo.tenant)
    nowhere = DynamoSubscriptions(dynamo.session, table="no-such-table", clock=dynamo.clock)
    assert nowhere.wanted(dynamo.tenant)
    assert Everything().wanted(dynamo.tenant)


def test_writes_whose_answer_was_lost_count_as_done(dynamo: DynamoRows) -> None:
    """Sent a second time by the SDK they meet their own row."""
    outbox = DynamoOutbox(dynamo.session, table=dynamo.ledger_table, clock=dynamo.clock)
    telling = Telling(dynamo, dynamo.ledger, outbox, DynamoSubscriptions(dynamo.session, table=dynamo.registry_table, clock=dynamo.clock))
    with dynamo.losing_answers("PutItem"):
        made = telling.listen()
        telling.subscriptions.change(made.model_copy(update={"revision": 2}))
        seen = telling.delivery()
        outbox.park(seen)
        assert outbox.change(seen.failed(now=seen.first_at, reason="a", error="a", jitter=0), seen=seen)
    assert telling.subscriptions.webhook(made.tenant, made.id).revision == 2


def test_the_saves_of_a_listened_row_are_one_request_each(dynamo: DynamoRows) -> None:
    """The outbox is written with the state, and emptied by one request."""
    outbox = DynamoOutbox(dynamo.session, table=dynamo.ledger_table, clock=dynamo.clock)
    ledger = DynamoLedger(dynamo.session, table=dynamo.ledger_table, clock=dynamo.clock, listening=Everything())
    dynamo.ledger = ledger
    telling = Telling(dynamo, ledger, outbox, DynamoSubscriptions(dynamo.session, table=dynamo.registry_table, clock=dynamo.clock))
    with dynamo.counted() as sent:
        row = accepted(telling)
        dynamo.moved(dynamo.claimed(row), State.DELIVERING, State.COMMITTING, State.DELIVERED)
    assert sum(sent[one] for one in ("PutItem", "UpdateItem", "TransactWriteItems")) == 5
    with dynamo.counted() as sent:
        outbox.told(telling.untold()[0])
    assert sent["UpdateItem"] == 1


def test_a_row_of_a_later_release_keeps_nobody_waiting(dynamo: DynamoRows, caplog: pytest.LogCaptureFixture) -> None:
    """It stays in the outbox for whoever can read it; the others are told."""
    outbox = DynamoOutbox(dynamo.session, table=dynamo.ledger_table, clock=dynamo.clock)
    dynamo.ledger = DynamoLedger(dynamo.session, table=dynamo.ledger_table, clock=dynamo.clock, listening=Everything())
    subscriptions = DynamoSubscriptions(dynamo.session, table=dynamo.registry_table, clock=dynamo.clock)
    telling = Telling(dynamo, dynamo.ledger, outbox, subscriptions)
    rows = [accepted(telling, number) for number in range(2)]
    dynamo.session.dynamodb().update_item(
        TableName=dynamo.ledger_table,
        Key={"pk": {"S": f"T#{rows[0].id}"}, "sk": {"S": "T"}},
        UpdateExpression="SET #format = :later",
        ExpressionAttributeNames={"#format": "format"},
        ExpressionAttributeValues={":later": {"N": "99"}},
    )
    assert [one.id for one in telling.untold()] == [rows[1].id]
    assert "left to a later release" in caplog.text


def test_trouble_of_the_table_is_told_in_our_words(dynamo: DynamoRows) -> None:
    """The vendor's errors do not leave the adapter."""
    outbox = DynamoOutbox(dynamo.session, table="no-such-table", clock=dynamo.clock)
    with pytest.raises((Permanent, Transient)):
        outbox.untold(0, limit=1)


def test_what_is_carried_over_to_the_other_region_is_told_of_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that one region writes into the other's ledger is in that one's outbox, though only its own region is asked who listens."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    west, east = "us-gov-west-1", "us-gov-east-1"
    with mock_aws():
        for region in (west, east):
            provision(boto3.Session(region_name=region), staging_bucket=f"staging-{region}")
        here, there = (build_engine(Settings(region=one, peer_region=other)) for one, other in ((west, east), (east, west)))
        assert here.announcing is not None
        assert there.announcing is not None
        assert here.peer is not None
        now = here.clock.now()
        secret = SecretRef(name="eft/acme/wh-1")
        here.announcing.subscriptions.add(
            Webhook(id="wh-1", tenant="acme", name="w", url="https://hooks.test/", events=EVERYTHING, secret=secret, created=now)
        )
        place = Place(endpoint="ep", kind="s3", path=RemotePath("a"))
        row = Transfer(id="07" + "a" * 30, tenant="acme", partition=7, source=place, destination=place, created=now, since=now)
        assert here.peer.ledger.adopt(row.noted(now=now))
        outboxes = [each.announcing.outbox for each in (here, there) if each.announcing is not None]
        found = [[one.id for shard in range(SHARDS) for one in each.untold(shard, limit=10)] for each in outboxes]
    assert found == [[], [row.id]]
