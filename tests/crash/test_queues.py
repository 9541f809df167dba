"""Queues and Redis fail as they like: nothing is lost, nothing comes twice."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx
import pytest

from deploy.local.customer import JsonObject
from deploy.local.samples import KIB, many
from deploy.local.stack import FLOWER_USER, LocalStack
from tests.faultproxy import ALL, FaultProxy
from tests.running import PATIENCE, Crew, Place, Shop, eventually, waiting

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

FILES = many("file", 30, size=10 * KIB)
CALLS = ("ReceiveMessage", "DeleteMessageBatch", "SendMessage")


@pytest.fixture
def sqs(stack: LocalStack) -> "SQSClient":
    """SQS itself."""
    client: SQSClient = stack.aws.client("sqs")
    return client


@pytest.fixture
def way(stack: LocalStack) -> Iterator[FaultProxy]:
    """A way to SQS that fails on command."""
    with FaultProxy(stack.aws.url) as proxy:
        yield proxy


def all_arrived(shop: Shop, flow: str, target: Place, expected: dict[str, object], *, limit: timedelta = PATIENCE) -> list[JsonObject]:
    """Waits until a flow's files rest and proves that they stand there, once and whole."""
    shop.customer.flow_rested(flow, count=len(expected), limit=limit)
    seen = [shop.customer.transfer(one["id"]) for one in shop.customer.transfers(flow=flow)]
    assert [one for one in seen if one["state"] != "settled"] == []
    found = target.findings(expected, seen)  # type: ignore[arg-type]
    assert found.clean, str(found)
    return seen


def test_one_message_delivered_ten_times(shop: Shop, crew: Crew, sqs: "SQSClient") -> None:
    """The same message handed out ten times at once leads to one delivery, to S3 and to SFTP."""
    source, targets = shop.place("s3"), [shop.place("s3"), shop.place("sftp")]
    expected = source.fill({"once.bin": 300 * KIB})
    crew.dismiss()
    # A dead worker's last poll would take a message along.
    time.sleep(2 * float(shop.stack.figures["EFT_POLL_WAIT"]))
    transfers = [shop.customer.submit((source.endpoint, "once.bin"), (target.endpoint, None)) for target in targets]
    queue = shop.stack.resources.queue_urls["deliver"]
    bodies: set[str] = set()
    while not all(any(transfer in body for body in bodies) for transfer in transfers):
        received = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=0, WaitTimeSeconds=1)
        bodies |= {message["Body"] for message in received.get("Messages", [])}
    for body in bodies:
        for _ in range(9):
            sqs.send_message(QueueUrl=queue, MessageBody=body)
    crew.hire("worker-1", "worker-2", concurrency=5)
    for transfer, target in zip(transfers, targets, strict=True):
        shop.customer.rested(transfer, limit=PATIENCE)
        eventually(lambda: waiting(shop.stack, queue) == 0)
        seen = shop.customer.transfer(transfer)
        assert Counter(event["state"] for event in seen["timeline"]) == dict.fromkeys(
            ("accepted", "delivering", "committing", "delivered", "settled"), 1
        )
        found = target.findings(expected, [seen])
        assert found.clean, str(found)


@pytest.mark.parametrize("pool", ["threads", pytest.param("prefork", marks=pytest.mark.slow)])
def test_sqs_fails_in_every_way(shop: Shop, crew: Crew, way: FaultProxy, pool: str) -> None:
    """Errors, throttles, expired credentials, cut, lost, hung and rubbish answers on every call lose nothing and stop nobody."""
    source, target = shop.place("sftp"), shop.place("s3")
    expected = source.fill(FILES)
    crew.dismiss()
    workers = crew.hire("faulty", pool="prefork" if pool == "prefork" else "threads", settings={"EFT_SQS_ENDPOINT": way.url})
    for fault in ALL:
        for call in CALLS:
            way.inject(call, fault, times=1)
    flow = shop.customer.add_flow("faults", source.endpoint, target.endpoint)
    shop.customer.run(flow)
    all_arrived(shop, flow, target, dict(expected), limit=2 * PATIENCE)
    assert all(worker.running for worker in workers)
    assert way.forwarded["DeleteMessageBatch"] > 0


@pytest.mark.parametrize("seconds", [5, pytest.param(30, marks=pytest.mark.slow)])
def test_sqs_is_away(shop: Shop, crew: Crew, way: FaultProxy, seconds: int) -> None:
    """While nobody listens at the queues' address work waits; when they are back it goes on by itself."""
    source, target = shop.place("sftp"), shop.place("s3")
    expected = source.fill(FILES)
    crew.dismiss()
    crew.hire("cut-off", settings={"EFT_SQS_ENDPOINT": way.url})
    flow = shop.customer.add_flow("away", source.endpoint, target.endpoint)
    shop.customer.run(flow)
    eventually(lambda: any(shop.customer.transfers(flow=flow)))
    way.stop()
    time.sleep(seconds)
    way.start()
    all_arrived(shop, flow, target, dict(expected), limit=2 * PATIENCE)


def test_redis_dies_and_comes_back(shop: Shop) -> None:
    """Without Redis files move as ever; when it is back, Flower sees both workers again."""
    stack = shop.stack
    source, target = shop.place("sftp"), shop.place("sftp")
    expected = source.fill(FILES)
    stack.redis.stop()
    try:
        flow = shop.customer.add_flow("blind", source.endpoint, target.endpoint)
        shop.customer.run(flow)
        all_arrived(shop, flow, target, dict(expected))
    finally:
        stack.redis.start()
    with httpx.Client(base_url=stack.flower_url, auth=(FLOWER_USER, stack.flower_password), trust_env=False, timeout=30) as flower:
        eventually(lambda: {"worker-1@local", "worker-2@local"} <= _seen_by(flower))
        assert httpx.get(stack.flower_url, trust_env=False).status_code == 401


def test_broken_messages_end_as_dead_letters(shop: Shop, sqs: "SQSClient") -> None:
    """What is no message of ours, or asks for something unknown, goes to the dead-letter queue; the worker goes on."""
    resources = shop.stack.resources
    queue, dead = resources.queue_urls["settle"], resources.dead_letter_urls["settle"]
    policy = json.loads(sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["RedrivePolicy"])["Attributes"]["RedrivePolicy"])
    # Its tenth look would come minutes later.
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"RedrivePolicy": json.dumps({**policy, "maxReceiveCount": 1})})
    try:
        for body in ("{", "not json", json.dumps({"body": "?", "headers": {}}), json.dumps([])):
            sqs.send_message(QueueUrl=queue, MessageBody=body)
        source, target = shop.place("s3"), shop.place("s3")
        expected = source.fill({"after": 10})
        transfer = shop.customer.submit((source.endpoint, "after"), (target.endpoint, None))
        seen = shop.customer.rested(transfer, limit=PATIENCE)
        found = target.findings(expected, [seen])
        assert found.clean, str(found)
        eventually(lambda: waiting(shop.stack, dead) == 4)
        assert waiting(shop.stack, queue) == 0
    finally:
        sqs.set_queue_attributes(QueueUrl=queue, Attributes={"RedrivePolicy": json.dumps(policy)})


def _seen_by(flower: httpx.Client) -> set[str]:
    """Returns the workers that answered Flower just now."""
    try:
        answer = flower.get("/api/workers", params={"refresh": "1"})
    except httpx.HTTPError:
        return set()
    return set(answer.json()) if answer.status_code == 200 else set()
