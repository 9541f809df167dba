"""The ownership table's rows in DynamoDB: lost answers, how large they get, transactions, and a peer that cannot be reached."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from eft.adapters.aws import AwsSession, StaticKeys
from eft.adapters.ownership_table import DynamoOwnershipTable
from eft.adapters.table import Check, Link, Table
from eft.domain.names import RemotePath, transfer_id
from eft.domain.ownership import Intent, IntentAnswer, JournalEntry, Mode, Partition, PeerLoss, Proposal
from eft.domain.parts import MAX_PARTS, PartDone, PartPlan
from eft.domain.transfer import TIMELINE_LIMIT, Commit, Event, State, Transfer, Upload
from eft.errors import EftError, Transient
from eft.ports import Lease, OwnershipTable
from tests.contract.rows import DynamoRows, at_once
from tests.fake_regions import EAST, WEST
from tests.fakes import START, FakeClock

KEYS = StaticKeys("testing", "testing")
ITEM_LIMIT = 400 * 1024
"""Bytes in an item (Amazon DynamoDB Developer Guide, "Quotas"): names and values, keys included."""
MIB = 1024 * 1024


def new_partition(rows: DynamoRows) -> Partition:
    """Returns a partition that no other test has, at home in the west under region_epoch 5."""
    partition = Partition(number=rows.partition, home=WEST, region_epoch=5)
    own(rows).add(partition)
    return partition


def own(rows: DynamoRows) -> DynamoOwnershipTable:
    """Returns the table as its own region has it."""
    return DynamoOwnershipTable(rows.session, table=rows.ownership_table)


def id_of(rows: DynamoRows, number: int = 1) -> str:
    """Returns a transfer's id."""
    return transfer_id(rows.tenant, str(number), partition=3)


# -- lost answers ------------------------------------------------------------------------------------------------------


def test_a_change_whose_answer_was_lost_is_made(dynamo: DynamoRows) -> None:
    """It is sent again and meets the change itself."""
    first = new_partition(dynamo)
    new = first.model_copy(update={"home": EAST, "region_epoch": 6, "changed_by": "ann", "changed_at": START})
    with dynamo.losing_answers("PutItem"), dynamo.counted() as sent:
        assert own(dynamo).change(new, seen=first)
    assert sent == {"PutItem": 2}
    assert own(dynamo).partition(first.number) == new


def test_an_intent_whose_answer_was_lost_is_acknowledged(dynamo: DynamoRows) -> None:
    """Its own token stands there; an abandonment's as well."""
    first = new_partition(dynamo)
    for abandoned in (False, True):
        intent = Intent(
            partition=first.number, transfer=id_of(dynamo), attempt=1, token="token-1", region_epoch=5, row="{}", abandoned=abandoned
        )
        with dynamo.losing_answers("TransactWriteItems"):
            assert own(dynamo).intend(intent, home=WEST, mode=Mode.DUAL) is IntentAnswer.ACKED
        assert list(own(dynamo).intents(first.number)) == [intent]


def test_an_entry_whose_answer_was_lost_is_put(dynamo: DynamoRows) -> None:
    """Its writer is the first; who puts an equal one later is not."""
    entry = JournalEntry(partition=3, transfer=id_of(dynamo), row="{}")
    with dynamo.losing_answers("PutItem"):
        assert own(dynamo).journal(entry) is None
        assert own(dynamo).journal(entry) == entry


def test_of_sixteen_entries_whose_answers_are_lost_one_is_put(dynamo: DynamoRows) -> None:
    """A repeated request never takes another's entry for its own."""
    entry = JournalEntry(partition=3, transfer=id_of(dynamo), row="{}")
    with dynamo.losing_answers("PutItem"):
        answers = at_once(lambda _: own(dynamo).journal(entry))
    assert answers.count(None) == 1
    assert answers.count(entry) == 15


def test_a_lease_whose_answer_was_lost_is_taken(dynamo: DynamoRows) -> None:
    """From nobody and from another; a renewal raises rvn once more, which harms nobody."""
    table, number = own(dynamo), dynamo.partition
    with dynamo.losing_answers("PutItem"):
        first = table.lease(number, owner="a", seen=None)
        second = table.lease(number, owner="b", seen=first)
    assert (first, second) == (Lease(owner="a", lease_epoch=1, rvn=1), Lease(owner="b", lease_epoch=2, rvn=2))
    with dynamo.losing_answers("UpdateItem"):
        assert table.renew_lease(number, owner="b", lease_epoch=2)
    assert table.leases()[number] == Lease(owner="b", lease_epoch=2, rvn=4)


def test_a_close_whose_answer_was_lost_is_done(dynamo: DynamoRows) -> None:
    """Closing twice is closing."""
    entry = JournalEntry(partition=3, transfer=id_of(dynamo), row="{}")
    own(dynamo).journal(entry)
    with dynamo.losing_answers("UpdateItem"):
        own(dynamo).close_journal(entry.transfer)
    assert own(dynamo).journal_entry(entry.transfer) == entry.model_copy(update={"closed": True})


# -- requests and sizes ------------------------------------------------------------------------------------------------


def test_each_call_is_one_request(dynamo: DynamoRows) -> None:
    """An ack costs one write at home and one at the peer."""
    first, table = new_partition(dynamo), own(dynamo)
    intent = Intent(partition=first.number, transfer=id_of(dynamo), attempt=1, token="token-1", region_epoch=5)
    calls: list[tuple[str, Callable[[], object]]] = [
        ("GetItem", lambda: table.partition(first.number)),
        ("Query", table.partitions),
        ("TransactWriteItems", lambda: table.intend(intent, home=WEST, mode=Mode.DUAL)),
        ("GetItem", lambda: table.intent(intent.transfer)),
        ("PutItem", lambda: table.journal(JournalEntry(partition=3, transfer=id_of(dynamo), row="{}"))),
        ("UpdateItem", lambda: table.close_journal(id_of(dynamo))),
        (
            "TransactWriteItems",
            lambda: table.renounce(
                JournalEntry(partition=first.number, transfer=id_of(dynamo), row="{}"), home=WEST, region_epoch=5, mode=Mode.DUAL
            ),
        ),
        ("BatchGetItem", lambda: table.journalled([id_of(dynamo, n) for n in range(100)])),
        ("Query", table.leases),
    ]
    for operation, call in calls:
        with dynamo.counted() as sent:
            call()
        assert sent == {operation: 1}


def largest_row() -> Transfer:
    """Returns a committing transfer with as many parts, and as long a history and names, as one can have; nothing in it repeats."""
    chance = random.Random(7)

    def noise(length: int) -> str:
        return "".join(chance.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .:/", k=length))

    parts = tuple(
        PartDone(number=n, size=16 * MIB, crc64nvme=chance.getrandbits(64), etag=f'"{chance.getrandbits(128):032x}"')
        for n in range(1, MAX_PARTS + 1)
    )
    path = RemotePath(noise(1000))
    place: Any = {"endpoint": noise(40), "kind": "s3", "path": path}
    plan = PartPlan(size=MAX_PARTS * 16 * MIB, part_size=16 * MIB)
    events = tuple(Event(at=START, state=State.DELIVERING, error=noise(300), by=noise(60)) for _ in range(TIMELINE_LIMIT))
    upload = Upload(attempt=1, token=noise(1000), path=path, plan=plan, lanes=64)
    return Transfer(
        id=transfer_id("acme", "1", partition=3),
        tenant="acme",
        partition=3,
        source=place,
        destination=place,
        created=START,
        since=START,
        state=State.COMMITTING,
        upload=upload,
        commit=Commit(
            attempt=1,
            token=upload.token,
            path=path,
            overwrite=False,
            parts=parts,
            size=plan.size,
            checksum="crc64nvme:00",
            region_epoch=5,
        ),
        timeline=events,
    )


def test_the_intent_of_the_largest_file_fits_into_an_item(dynamo: DynamoRows) -> None:
    """S3's 10,000 parts with their checksums and etags, a full timeline and long names: it is written and comes back."""
    first, row = new_partition(dynamo), largest_row()
    assert row.commit is not None
    intent = Intent(
        partition=first.number,
        transfer=id_of(dynamo),
        attempt=1,
        token=row.commit.token,
        region_epoch=5,
        row=row.model_dump_json(exclude_defaults=True),
    )
    assert own(dynamo).intend(intent, home=WEST, mode=None) is IntentAnswer.ACKED
    (stands,) = own(dynamo).intents(first.number)
    assert Transfer.model_validate_json(stands.row) == row
    item = dynamo.item(f"I#{first.number:02d}", id_of(dynamo), table=dynamo.ownership_table)
    assert sum(len(name) + sum(map(len, value.values())) for name, value in item.items() if "BOOL" not in value) < ITEM_LIMIT


# -- transactions and batches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stands", "seen", "failed"),
    [("open", "new", None), ("shut", "new", "check"), ("open", "old", "put"), ("shut", "old", "check"), (None, "new", "check")],
)
def test_a_put_says_which_condition_it_failed(
    dynamo: DynamoRows, stands: str | None, seen: str, failed: Literal["put", "check"] | None
) -> None:
    """The other row's first; where either fails nothing is written."""
    table = Table(dynamo.session, dynamo.ownership_table, what="the table")
    gate, row = (f"{dynamo.tenant}-gate", "1"), {"pk": f"{dynamo.tenant}-row", "sk": "1"}
    if stands is not None:
        table.put({"pk": gate[0], "sk": gate[1], "state": stands}, condition="attribute_not_exists(#pk)")
    if seen == "old":
        table.put(row | {"size": 1}, condition="attribute_not_exists(#pk)")
    check = Check(pk=gate[0], sk=gate[1], condition="#state = :open", values={":open": "open"})
    answer = table.put_if(row | {"size": 2}, condition="attribute_not_exists(#pk) OR #size > :n", values={":n": 1}, check=check)
    assert answer == failed
    there = table.get(row["pk"], "1")
    assert there == (row | {"size": 2} if failed is None else row | {"size": 1} if seen == "old" else None)


@pytest.mark.parametrize(
    ("causes", "reason"),
    [
        (["TransactionConflict", "None"], "contended"),
        (["None", "ThrottlingError"], "throttled"),
        (["None", "ValidationError"], "aws_refused"),
    ],
)
def test_a_transaction_cancelled_for_another_cause_is_no_failed_condition(moto_rows: DynamoRows, causes: list[str], reason: str) -> None:
    """Two writers of one partition at once, or a throttled one: an error, from which nobody concludes that he is fenced."""
    session = AwsSession(region=moto_rows.session.region, keys=KEYS, tries=1)
    answering(session, "TransactionCanceledException", CancellationReasons=[{"Code": cause} for cause in causes])
    intent = Intent(partition=3, transfer=id_of(moto_rows), attempt=1, token="t", region_epoch=1)
    with pytest.raises(EftError) as cancelled:
        DynamoOwnershipTable(session, table=moto_rows.ownership_table).intend(intent, home=WEST, mode=None)
    assert cancelled.value.reason == reason


def answering(session: AwsSession, code: str, **body: object) -> None:
    """Has DynamoDB refuse whatever the session sends."""
    said = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", **body}).encode()
    headers = HTTPHeaders()
    headers["content-type"] = "application/x-amz-json-1.0"
    events: Any = session.dynamodb().meta.events
    events.register_first("before-send.dynamodb", lambda **_: AWSResponse("https://dynamodb.test/", 400, headers, _Raw(said)))


class _Raw:
    """The body of an answer, as urllib3 gives it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: object) -> list[bytes]:
        return [self._body]


def test_existing_rows_are_asked_for_a_hundred_at_a_time(dynamo: DynamoRows) -> None:
    """Of 250 keys, those that have a row, by their sort keys; of none, none and without a request."""
    table = Table(dynamo.session, dynamo.ownership_table, what="the table")
    keys = [(f"{dynamo.tenant}-{n % 2}", str(n)) for n in range(250)]
    for pk, sk in (keys[0], keys[120], keys[249]):
        table.put({"pk": pk, "sk": sk, "body": "x"}, condition="attribute_not_exists(#pk)")
    with dynamo.counted() as sent:
        assert table.existing(keys) == {"0", "120", "249"}
        assert table.existing([]) == set()
    assert sent == {"BatchGetItem": 3}


# -- a peer that cannot be reached -------------------------------------------------------------------------------------

ID = transfer_id("acme", "1", partition=3)
HERE = Partition(number=3, home=WEST, region_epoch=5)
CALLS: dict[str, Callable[[OwnershipTable], object]] = {
    "partitions": lambda table: table.partitions(),
    "partition": lambda table: table.partition(3),
    "change": lambda table: table.change(HERE, seen=HERE),
    "add": lambda table: table.add(HERE),
    "intend": lambda table: table.intend(Intent(partition=3, transfer=ID, attempt=1, token="t", region_epoch=5), home=WEST, mode=None),
    "intent": lambda table: table.intent(ID),
    "intents": lambda table: list(table.intents(3)),
    "journal": lambda table: table.journal(JournalEntry(partition=3, transfer=ID, row="{}")),
    "close_journal": lambda table: table.close_journal(ID),
    "renounce": lambda table: table.renounce(JournalEntry(partition=3, transfer=ID, row="{}"), home=WEST, region_epoch=5, mode=None),
    "journals": lambda table: list(table.journals(3)),
    "journalled": lambda table: table.journalled([ID]),
    "journal_entry": lambda table: table.journal_entry(ID),
    "propose": lambda table: table.propose(
        Proposal(id="p", action="solo", partition=3, by="ann", why="outage", ticket="INC-1", expires=START)
    ),
    "proposal": lambda table: table.proposal("p"),
    "lease": lambda table: table.lease(3, owner="a", seen=None),
    "renew_lease": lambda table: table.renew_lease(3, owner="a", lease_epoch=1),
    "leases": lambda table: table.leases(),
    "declare": lambda table: table.declare(PeerLoss.OPERATOR),
    "declared": lambda table: table.declared(),
}


def test_every_call_of_the_port_is_tried_against_a_dead_peer() -> None:
    """The list below leaves none out."""
    assert set(CALLS) == {name for name in vars(OwnershipTable) if not name.startswith("_")}


@pytest.fixture
def dead_end() -> Iterator[str]:
    """An address that nobody listens on, and that nobody else gets."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_dead_peer_is_unreachable_and_costs_no_try(call: Callable[[OwnershipTable], object], dead_end: str) -> None:
    """Whatever was asked of it."""
    session = AwsSession(region=EAST, keys=KEYS, endpoint_url=dead_end, tries=1)
    with pytest.raises(Transient) as unreachable:
        call(DynamoOwnershipTable(session, table="eft-ownership", link=Link(FakeClock())))
    assert (unreachable.value.reason, unreachable.value.counts) == ("peer_unreachable", False)


@pytest.mark.parametrize(
    "code", ["ExpiredTokenException", "AccessDeniedException", "ResourceNotFoundException", "ThrottlingException", "InternalServerError"]
)
def test_a_peer_that_refuses_is_unreachable(moto_rows: DynamoRows, code: str) -> None:
    """A wrong policy, a missing table or a throttle over there is nothing that a transfer here is buried for."""
    session = AwsSession(region=EAST, keys=KEYS, tries=1)
    answering(session, code)
    table = DynamoOwnershipTable(session, table="eft-ownership", link=Link(moto_rows.clock))
    with pytest.raises(Transient) as unreachable:
        table.intent(ID)
    assert (unreachable.value.reason, unreachable.value.counts) == ("peer_unreachable", False)
