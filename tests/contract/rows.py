"""The three places that the contracts of the row ports run on, and the rows that they are played with."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import boto3
import pytest
from botocore.awsrequest import AWSResponse

from eft.adapters.aws import AwsSession
from eft.adapters.aws_direct import Direct
from eft.adapters.aws_http import Answer
from eft.adapters.ledger import DynamoLedger
from eft.adapters.limits import DynamoLimits
from eft.adapters.registry import DynamoRegistry
from eft.domain.endpoint import SftpEndpoint
from eft.domain.flow import Flow, Interval
from eft.domain.names import PARTITIONS, RemotePath, transfer_id
from eft.domain.parts import PartPlan
from eft.domain.transfer import Place, State, Transfer, Upload
from eft.ports import Ledger, Limits, Registry
from tests.fakes import START, FakeClock, FakeLedger, FakeLimits, FakeRegistry

LEASE = timedelta(seconds=75)
T = TypeVar("T")


@dataclass
class Rows:
    """The row ports on one backend, a clock that they share, and a tenant and a partition that no other test has."""

    clock: FakeClock
    ledger: Ledger
    limits: Limits
    registry: Registry
    tenant: str = field(default_factory=lambda: f"acme-{uuid.uuid4().hex[:8]}")
    partition: int = field(default_factory=lambda: uuid.uuid4().int % 10**9)

    def transfer(self, number: int = 1, **fields: Any) -> Transfer:  # noqa: ANN401 - any field of the model
        """Returns an accepted transfer, not created yet; its number makes its id."""
        now = self.clock.now()
        path = RemotePath(f"in/{number}.csv")
        return Transfer(
            **{
                "id": transfer_id(self.tenant, str(number), partition=self.partition % PARTITIONS),
                "tenant": self.tenant,
                "partition": self.partition,
                "source": Place(endpoint="from", kind="sftp", path=path),
                "destination": Place(endpoint="to", kind="s3", path=path),
                "created": now,
                "since": now,
                "due_at": now + LEASE,
                **fields,
            }
        )

    def created(self, number: int = 1, **fields: Any) -> Transfer:  # noqa: ANN401 - any field of the model
        """Returns a transfer that has a row."""
        transfer = self.transfer(number, **fields)
        assert self.ledger.create(transfer) is None
        return transfer

    def claimed(self, transfer: Transfer, *, worker: str = "w1", force: bool = False) -> Transfer:
        """Claims a transfer that can be claimed."""
        claimed = self.ledger.claim(transfer.id, worker=worker, now=self.clock.now(), lease=LEASE, force=force)
        assert claimed is not None
        return claimed

    def moved(self, transfer: Transfer, *states: State) -> Transfer:
        """Saves a claimed transfer through the states in turn."""
        for state in states:
            changed = transfer.to(state, now=self.clock.now())
            self.ledger.save(changed, was=transfer.state)
            transfer = changed
        return transfer

    def flow(self, name: str = "daily", **fields: Any) -> Flow:  # noqa: ANN401 - any field of the model
        """Returns a flow of the tenant, by default one with a schedule."""
        return Flow(
            **{
                "id": name,
                "tenant": self.tenant,
                "name": name,
                "source": "from",
                "destination": "to",
                "trigger": Interval(every=timedelta(minutes=5)),
                "created": self.clock.now(),
                **fields,
            }
        )

    def endpoint(self, name: str = "from", **fields: Any) -> SftpEndpoint:  # noqa: ANN401 - any field of the model
        """Returns an endpoint of the tenant."""
        return SftpEndpoint(
            **{
                "id": name,
                "tenant": self.tenant,
                "name": name,
                "host": "sftp.test",
                "username": "u",
                "created": self.clock.now(),
                **fields,
            }
        )


@dataclass
class DynamoRows(Rows):
    """Rows in DynamoDB, with what tests of the adapters need beside the ports."""

    session: AwsSession = field(kw_only=True)
    ledger_table: str = field(kw_only=True)
    registry_table: str = field(kw_only=True)
    ownership_table: str = field(kw_only=True)

    @contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        """Counts requests by operation during the block."""
        sent: Counter[str] = Counter()

        def count(event_name: str, **_: object) -> None:
            sent[event_name.rpartition(".")[2]] += 1

        events = self.session.dynamodb().meta.events
        events.register("before-send.dynamodb", count)
        try:
            yield sent
        finally:
            events.unregister("before-send.dynamodb", count)

    @contextmanager
    def losing_answers(self, operation: str) -> Iterator[None]:
        """Has each such request sent a second time, as it is when the first one's answer is lost."""

        def lost(direct: Direct, asked: str, *where: str, **what: Any) -> Answer | AWSResponse | None:  # noqa: ANN401 - passed on
            answer = ask(direct, asked, *where, **what)
            return None if asked == operation else answer

        ask = Direct.ask
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Direct, "ask", lost)
            yield

    @contextmanager
    def interfering(self, *, pk: str, sk: str, attribute: str) -> Iterator[None]:
        """Has somebody else raise a number in an item directly before each of our writes."""
        other = boto3.Session("testing", "testing", region_name=self.session.region).client("dynamodb")
        names = {f"#n{n}": name for n, name in enumerate(attribute.split("."))}

        def raise_number(**_: object) -> None:
            other.update_item(
                TableName=self.ledger_table,
                Key={"pk": {"S": pk}, "sk": {"S": sk}},
                UpdateExpression=f"SET {'.'.join(names)} = {'.'.join(names)} + :one",
                ExpressionAttributeNames=names,
                ExpressionAttributeValues={":one": {"N": "1"}},
            )

        events = self.session.dynamodb().meta.events
        written = [f"before-send.dynamodb.{operation}" for operation in ("PutItem", "UpdateItem", "DeleteItem")]
        for event in written:
            events.register(event, raise_number)
        try:
            yield
        finally:
            for event in written:
                events.unregister(event, raise_number)

    def item(self, pk: str, sk: str, *, table: str | None = None) -> dict[str, Any]:
        """Returns an item of the ledger or another table as DynamoDB has it."""
        key = {"pk": {"S": pk}, "sk": {"S": sk}}
        answer: Any = self.session.dynamodb().get_item(TableName=table or self.ledger_table, Key=key, ConsistentRead=True)
        item: dict[str, Any] = answer["Item"]
        return item


def fake_rows() -> Rows:
    """Returns empty fakes."""
    clock = FakeClock()
    return Rows(clock, FakeLedger(), FakeLimits(clock), FakeRegistry())


def dynamo_rows(session: AwsSession, tables: dict[str, str]) -> DynamoRows:
    """Returns the adapters on provisioned tables."""
    # Tables that live by real time remove what has expired by it.
    week = timedelta(weeks=1)
    clock = FakeClock(START + week * ((datetime.now(UTC) - START) // week + 1), seed=uuid.uuid4().int)
    ledger, registry = tables["ledger"], tables["registry"]
    return DynamoRows(
        clock,
        DynamoLedger(session, table=ledger, clock=clock),
        DynamoLimits(session, table=ledger, clock=clock),
        DynamoRegistry(session, table=registry),
        session=session,
        ledger_table=ledger,
        registry_table=registry,
        ownership_table=tables["ownership"],
    )


def upload(attempt: int = 1) -> Upload:
    """Returns an attempt at an upload."""
    return Upload(attempt=attempt, token=f"token-{attempt}", path=RemotePath("in/1.csv"), plan=PartPlan(size=9, part_size=3))


def at_once(act: Callable[[int], T], *, threads: int = 16) -> list[T]:
    """Returns what `act` returns in each of the threads, which all begin together."""
    begin = threading.Barrier(threads)
    results: dict[int, T] = {}
    failures: list[BaseException] = []

    def run(number: int) -> None:
        begin.wait(timeout=60)
        try:
            results[number] = act(number)
        except BaseException as error:  # noqa: BLE001 - raised below, in the test's own thread
            failures.append(error)

    running = [threading.Thread(target=run, args=(n,)) for n in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(timeout=120)
    if failures:
        raise failures[0]
    return [results[n] for n in range(threads)]
