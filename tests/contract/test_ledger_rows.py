"""The ledger's rows in DynamoDB: what they cost, how large they get, lost answers, and rows of another release."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from eft.adapters.aws import AwsSession, StaticKeys
from eft.adapters.ledger import DynamoLedger
from eft.adapters.ledger_rows import path_key
from eft.domain.names import RemotePath
from eft.domain.parts import PartDone
from eft.domain.transfer import Claim, Commit, State, Transfer
from eft.errors import LostOwnership, Permanent, Transient
from tests.contract.rows import LEASE, DynamoRows, at_once, upload

PATH = RemotePath("out/report.csv")
LARGE = 10_000
FIRST = Claim(0, 1)


def _committing(rows: DynamoRows, *, parts: int) -> Transfer:
    """Returns a transfer at D4, with a part list as long as given and as full as S3's."""
    done = tuple(PartDone(number=n, size=16 * 1024 * 1024, crc64nvme=2**64 - n, etag=f'"{n:032x}"') for n in range(1, parts + 1))
    commit = Commit(
        attempt=1,
        token="t" * 120,
        path=PATH,
        overwrite=False,
        parts=done,
        size=parts * 16 * 1024 * 1024,
        checksum="crc64nvme:00",
        region_epoch=1,
    )
    delivering = rows.moved(rows.claimed(rows.created(flow="daily")), State.DELIVERING)
    committing = delivering.with_(commit=commit).to(State.COMMITTING, now=rows.clock.now())
    rows.ledger.save(committing, was=State.DELIVERING)
    return committing


# -- requests ----------------------------------------------------------------------------------------------------------


def test_each_write_of_a_transfer_is_one_request(dynamo: DynamoRows) -> None:
    """Create, load, claim, renew, save, postpone, a part, a fire: one each."""
    transfer = dynamo.transfer()
    flow = dynamo.flow()
    calls: list[tuple[str, Callable[[], object]]] = [
        ("PutItem", lambda: dynamo.ledger.create(transfer)),
        ("GetItem", lambda: dynamo.ledger.load(transfer.id)),
        ("UpdateItem", lambda: dynamo.claimed(transfer)),
        ("UpdateItem", lambda: dynamo.ledger.renew(transfer.with_(fence=1), until=dynamo.clock.now())),
        ("UpdateItem", lambda: dynamo.ledger.save(transfer.with_(fence=1), was=State.ACCEPTED)),
        ("Query", lambda: dynamo.ledger.due(dynamo.partition, before=dynamo.clock.now())),
        (
            "PutItem",
            lambda: dynamo.ledger.record_parts(transfer.id, attempt=1, done=[PartDone(number=1, size=1, crc64nvme=None)]),
        ),
        ("Query", lambda: dynamo.ledger.parts(transfer.id, attempt=1)),
        (
            "PutItem",
            lambda: dynamo.ledger.fire(flow, at=dynamo.clock.now(), name="asked", partition=dynamo.partition),
        ),
        ("UpdateItem", lambda: dynamo.ledger.fire_done(flow, name="asked", outcome={})),
        ("Query", lambda: dynamo.ledger.last_fire(flow)),
        ("BatchGetItem", lambda: dynamo.ledger.known([transfer.id])),
    ]
    for operation, call in calls:
        with dynamo.counted() as sent:
            call()
        assert sent == {operation: 1}


def test_a_page_costs_two_requests_wherever_it_begins(dynamo: DynamoRows) -> None:
    """However many transfers the tenant has, and however deep the page lies."""
    for n in range(30):
        dynamo.created(n)
    cursor = None
    for _ in range(3):
        with dynamo.counted() as sent:
            page = dynamo.ledger.page(dynamo.tenant, limit=10, cursor=cursor)
        assert sent == {"Query": 1, "BatchGetItem": 1}
        assert len(page.items) == 10
        cursor = page.cursor
    assert cursor is None


def test_a_reservation_costs_one_request_and_its_delivery_two(dynamo: DynamoRows) -> None:
    """Taken, refused and given up, in time or late: one each; the order of a delivery is read before it is noted."""
    place: Any = {"endpoint": dynamo.tenant, "path": PATH}
    with dynamo.counted() as sent:
        dynamo.ledger.reserve(**place, transfer="t1", claim=FIRST, source="a:1", order=1)
        dynamo.ledger.reserve(**place, transfer="t2", claim=FIRST, source="a:1", order=2)
        dynamo.ledger.release(**place, transfer="t1", claim=FIRST, delivered=False)
    assert sent == {"UpdateItem": 3}
    dynamo.ledger.reserve(**place, transfer="t1", claim=Claim(0, 2), source="a:1", order=1)
    with dynamo.counted() as sent:
        with pytest.raises(LostOwnership):
            dynamo.ledger.reserve(**place, transfer="t1", claim=FIRST, source="a:1", order=1)
        dynamo.ledger.release(**place, transfer="t1", claim=FIRST, delivered=False)
    assert sent == {"UpdateItem": 2}
    dynamo.ledger.release(**place, transfer="t1", claim=Claim(0, 2), delivered=False)
    dynamo.ledger.reserve(**place, transfer="t1", claim=FIRST, source="a:1", order=1)
    with dynamo.counted() as sent:
        dynamo.ledger.release(**place, transfer="t1", claim=FIRST, delivered=True)
    assert sent == {"GetItem": 1, "UpdateItem": 1}


def test_known_asks_for_a_hundred_ids_at_a_time(dynamo: DynamoRows) -> None:
    """250 ids are three requests."""
    with dynamo.counted() as sent:
        dynamo.ledger.known([str(n) for n in range(250)])
    assert sent == {"BatchGetItem": 3}


def test_what_dynamodb_leaves_over_is_asked_for_again(moto_rows: DynamoRows) -> None:
    """Keys that it did not get round to are not taken for missing rows; where it never does, the caller backs off."""
    made = [moto_rows.created(n).id for n in range(3)]
    events = moto_rows.session.dynamodb().meta.events
    answers = 0

    def leave_over(parsed: dict[str, Any], **_: object) -> None:
        nonlocal answers
        answers += 1
        ((table, items),) = parsed["Responses"].items()
        if len(items) > 1 or starving:
            left = items[0 if starving else 1 :]
            parsed["Responses"] = {table: items[: len(items) - len(left)]}
            keys = [{"pk": item["pk"], "sk": {"S": "T"}} for item in left]
            named = {"ProjectionExpression": "#pk", "ExpressionAttributeNames": {"#pk": "pk"}}
            parsed["UnprocessedKeys"] = {table: {"Keys": keys, **named}}

    starving = False
    events.register("after-call.dynamodb.BatchGetItem", leave_over)
    assert moto_rows.ledger.known(made) == set(made)
    assert answers == 3
    starving = True
    with pytest.raises(Transient) as refused:
        moto_rows.ledger.known(made)
    assert refused.value.reason == "throttled"


# -- lost answers ------------------------------------------------------------------------------------------------------


def test_a_creation_whose_answer_was_lost_is_a_creation(dynamo: DynamoRows) -> None:
    """The SDK's second request meets our own row."""
    with dynamo.losing_answers("PutItem"):
        assert dynamo.ledger.create(dynamo.transfer()) is None
        assert dynamo.ledger.create(dynamo.transfer()) is not None


def test_a_claim_whose_answer_was_lost_is_a_claim(dynamo: DynamoRows) -> None:
    """The fence rises once more, and the number returned is the one that stands."""
    transfer = dynamo.created()
    with dynamo.losing_answers("UpdateItem"):
        assert dynamo.claimed(transfer).fence == 2
    assert dynamo.ledger.load(transfer.id).fence == 2


def test_a_save_whose_answer_was_lost_is_a_save(dynamo: DynamoRows) -> None:
    """The refusal of the SDK's second request shows our own row; with a claim, and with one given back."""
    claimed = dynamo.claimed(dynamo.created(flow="daily"))
    with dynamo.losing_answers("UpdateItem"):
        delivering = dynamo.moved(claimed, State.DELIVERING)
        released = delivering.with_(claim_until=None).to(State.HELD, now=dynamo.clock.now())
        dynamo.ledger.save(released, was=State.DELIVERING)
    assert dynamo.ledger.load(claimed.id) == released


def test_another_row_with_our_fence_is_not_taken_for_our_own(dynamo: DynamoRows) -> None:
    """Same fence and same new state, but other content, claim or due time: refused."""
    claimed = dynamo.claimed(dynamo.created())
    delivering = dynamo.moved(claimed, State.DELIVERING)
    for other in (
        delivering.with_(attempt=7),
        delivering.with_(claim_until=dynamo.clock.now()),
        delivering.with_(claim_until=None),
        delivering.with_(due_at=None),
    ):
        with pytest.raises(LostOwnership):
            dynamo.ledger.save(other, was=State.ACCEPTED)
    assert dynamo.ledger.load(claimed.id) == delivering


def test_a_fire_whose_answer_was_lost_is_ours(dynamo: DynamoRows) -> None:
    """And nobody else's: the next one who claims it is refused, twice over."""
    with dynamo.losing_answers("PutItem"):
        fires = [dynamo.ledger.fire(dynamo.flow(), at=dynamo.clock.now(), name="asked", partition=1) for _ in range(2)]
    assert fires == [True, False]


# -- size --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [100, 101, LARGE])
def test_a_commit_comes_back_with_all_its_parts(dynamo: DynamoRows, parts: int) -> None:
    """However many: from a load, a claim, and a creation that meets the row."""
    committing = _committing(dynamo, parts=parts)
    assert dynamo.ledger.load(committing.id) == committing
    assert dynamo.ledger.create(committing) == committing
    claimed = dynamo.claimed(committing)
    assert claimed.commit == committing.commit


def test_a_long_part_list_stays_when_the_row_moves_on(dynamo: DynamoRows) -> None:
    """Later saves find it there already; a row that lost its commit names no list."""
    delivered = dynamo.moved(_committing(dynamo, parts=1001), State.DELIVERED)
    assert dynamo.ledger.load(delivered.id) == delivered
    dynamo.ledger.save(delivered.with_(commit=None), was=State.DELIVERED)
    assert dynamo.ledger.load(delivered.id).commit is None


def test_two_part_lists_of_a_transfer_do_not_mix(dynamo: DynamoRows) -> None:
    """Each row version names its own list."""
    first = _committing(dynamo, parts=1500)
    assert first.commit is not None
    second = first.with_(commit=first.commit.model_copy(update={"parts": first.commit.parts[:1200]}))
    dynamo.ledger.save(second, was=State.COMMITTING)
    assert dynamo.ledger.load(first.id) == second


def test_a_listing_does_not_read_long_part_lists(dynamo: DynamoRows) -> None:
    """It stays at two requests; all else of the commit is there."""
    committing = _committing(dynamo, parts=200)
    assert committing.commit is not None
    with dynamo.counted() as sent:
        page = dynamo.ledger.page(dynamo.tenant)
    assert sent == {"Query": 1, "BatchGetItem": 1}
    assert [one.commit for one in page.items] == [committing.commit.model_copy(update={"parts": ()})]


def test_the_largest_row_stays_far_below_dynamodbs_limit(moto_rows: DynamoRows) -> None:
    """10,000 parts, a full timeline with long errors, names as long as they get: each item below 100 KB."""
    large = _committing(moto_rows, parts=LARGE).with_(abandoned=tuple(upload(n) for n in range(20)))
    for _ in range(200):
        large = large.noted(now=moto_rows.clock.now(), reason="unreachable", error="ü" * 300, by="w" * 60)
    moto_rows.ledger.save(large, was=State.COMMITTING)
    client = moto_rows.session.dynamodb()
    items = client.query(
        TableName=moto_rows.ledger_table,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": f"T#{large.id}"}},
    )["Items"]
    assert len(items) == 11
    assert max(_bytes(item) for item in items) < 100_000


def _bytes(item: dict[str, Any]) -> int:
    values = [value for attribute in item.values() for value in attribute.values()]
    return sum(len(value if isinstance(value, bytes) else value.encode()) for value in values)


# -- other releases ----------------------------------------------------------------------------------------------------


def _age(rows: DynamoRows, pk: str, sk: str) -> None:
    """Makes a row one of a later release."""
    rows.session.dynamodb().update_item(
        TableName=rows.ledger_table,
        Key={"pk": {"S": pk}, "sk": {"S": sk}},
        UpdateExpression="SET #format = :next",
        ExpressionAttributeNames={"#format": "format"},
        ExpressionAttributeValues={":next": {"N": "2"}},
    )


def test_a_row_of_a_later_release_is_left_alone(dynamo: DynamoRows) -> None:
    """It is neither misread nor claimed, not even by force; its fence stays."""
    transfer = dynamo.created()
    _age(dynamo, f"T#{transfer.id}", "T")
    for act in (
        lambda: dynamo.ledger.load(transfer.id),
        lambda: dynamo.claimed(transfer),
        lambda: dynamo.claimed(transfer, force=True),
        lambda: dynamo.ledger.create(transfer),
        lambda: dynamo.ledger.page(dynamo.tenant),
    ):
        with pytest.raises(Permanent) as refused:
            act()
        assert refused.value.reason == "row_format_unknown"
    assert dynamo.item(f"T#{transfer.id}", "T")["fence"] == {"N": "0"}


def test_a_part_of_a_later_release_is_not_misread(dynamo: DynamoRows) -> None:
    """Its format is refused, and the reason says so."""
    transfer = dynamo.created()
    dynamo.ledger.record_parts(transfer.id, attempt=1, done=[PartDone(number=1, size=1, crc64nvme=None)])
    _age(dynamo, f"T#{transfer.id}", "P#1#00001-00001")
    with pytest.raises(Permanent) as refused:
        dynamo.ledger.parts(transfer.id, attempt=1)
    assert refused.value.reason == "row_format_unknown"


@pytest.mark.parametrize("mark", [None, "t9#0000000007#0000000007"])
def test_a_reservation_of_an_earlier_release_is_its_holders(dynamo: DynamoRows, mark: str | None) -> None:
    """It has no mark of a claim, or still that of a holder before: every claim of the holder may reserve it again, and release it."""
    place: Any = {"endpoint": dynamo.tenant, "path": PATH}
    key = dict(zip(("pk", "sk"), ({"S": one} for one in path_key(**place)), strict=True))

    def reserved_by_an_earlier_release() -> None:
        dynamo.ledger.reserve(**place, transfer="t1", claim=FIRST, source="a:1", order=1)
        marked: Any = {} if mark is None else {"ExpressionAttributeValues": {":mark": {"S": mark}}}
        dynamo.session.dynamodb().update_item(
            TableName=dynamo.ledger_table,
            Key=key,
            UpdateExpression="REMOVE #claim" if mark is None else "SET #claim = :mark",
            ExpressionAttributeNames={"#claim": "claim"},
            **marked,
        )

    reserved_by_an_earlier_release()
    assert dynamo.ledger.reserve(**place, transfer="t1", claim=FIRST, source="a:1", order=1).outcome == "mine"
    reserved_by_an_earlier_release()
    assert dynamo.ledger.reserve(**place, transfer="t2", claim=FIRST, source="a:1", order=2).outcome == "busy"
    dynamo.ledger.release(**place, transfer="t1", claim=FIRST, delivered=False)
    assert dynamo.ledger.reserve(**place, transfer="t2", claim=FIRST, source="a:1", order=2).outcome == "mine"


def test_an_agreed_policy_is_written_in_full(dynamo: DynamoRows) -> None:
    """So that a later release's other defaults leave accepted transfers as they were agreed."""
    transfer = dynamo.created()
    body = dynamo.item(f"T#{transfer.id}", "T")["body"]["S"]
    assert '"conflict":"fail"' in body
    assert '"tries":8' in body


# -- the index lags ----------------------------------------------------------------------------------------------------


def test_a_listing_leaves_out_what_the_index_has_not_noticed(moto_rows: DynamoRows) -> None:
    """A row that has left the state asked for since the index was written is not shown under it."""
    held = moto_rows.moved(moto_rows.claimed(moto_rows.created()), State.HELD)
    moto_rows.session.dynamodb().update_item(
        TableName=moto_rows.ledger_table,
        Key={"pk": {"S": f"T#{held.id}"}, "sk": {"S": "T"}},
        UpdateExpression="SET #state = :state",
        ExpressionAttributeNames={"#state": "state"},
        ExpressionAttributeValues={":state": {"S": "cancelled"}},
    )
    assert list(moto_rows.ledger.page(moto_rows.tenant, state=State.HELD).items) == []


# -- errors ------------------------------------------------------------------------------------------------------------


def test_a_table_that_is_not_there_is_a_permanent_error(dynamo: DynamoRows) -> None:
    """For reads and writes alike, as ours and not as botocore's."""
    ledger = DynamoLedger(dynamo.session, table="no-such-table", clock=dynamo.clock)
    transfer = dynamo.transfer()
    for act in (
        lambda: ledger.load(transfer.id),
        lambda: ledger.create(transfer),
        lambda: ledger.known([transfer.id]),
        lambda: ledger.due(1, before=dynamo.clock.now()),
        lambda: ledger.claim(transfer.id, worker="w1", now=dynamo.clock.now(), lease=LEASE),
    ):
        with pytest.raises(Permanent):
            act()


def test_a_dynamodb_that_asks_to_slow_down_is_a_transient_error(moto_rows: DynamoRows) -> None:
    """The row's own back-off takes over from the SDK's."""

    def throttle(**_: object) -> AWSResponse:
        body = b'{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"}'
        return AWSResponse("https://dynamodb.test/", 400, HTTPHeaders(), _Raw(body))

    keys = StaticKeys("testing", "testing")
    session = AwsSession(region=moto_rows.session.region, keys=keys, tries=1)
    events: Any = session.dynamodb().meta.events
    events.register_first("before-send.dynamodb", throttle)
    ledger = DynamoLedger(session, table=moto_rows.ledger_table, clock=moto_rows.clock)
    with pytest.raises(Transient) as refused:
        ledger.renew(moto_rows.transfer(), until=moto_rows.clock.now())
    assert refused.value.reason == "throttled"


class _Raw:
    """The body of an answer, as urllib3 gives it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: object) -> list[bytes]:
        return [self._body]


def test_sixteen_releases_of_one_delivery_note_it_once(dynamo: DynamoRows) -> None:
    """Workers that all end the same reservation leave one note, and the path free."""
    place: Any = {"endpoint": dynamo.tenant, "path": PATH}
    dynamo.ledger.reserve(**place, transfer="t1", claim=FIRST, source="a:1", order=5)
    at_once(lambda _: dynamo.ledger.release(**place, transfer="t1", claim=FIRST, delivered=True))
    assert dynamo.ledger.reserve(**place, transfer="t2", claim=FIRST, source="a:1", order=4).outcome == "superseded"
    assert dynamo.ledger.reserve(**place, transfer="t2", claim=FIRST, source="a:1", order=6).outcome == "mine"
