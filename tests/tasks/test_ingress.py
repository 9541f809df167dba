"""The process of ingress against the emulator's own path: bucket → EventBridge → SQS."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deploy.local import places
from deploy.local.process import Child
from deploy.local.provision import watch_bucket
from deploy.local.servers import passed_on
from deploy.local.stack import command, says
from eft.bootstrap import build_engine
from eft.domain.endpoint import S3Endpoint
from eft.domain.flow import Arrival, Flow, Selection
from eft.journey.discover import discover
from eft.journey.operate import run_flow
from eft.journey.work import Slice
from eft.ports import Engine
from eft.settings import Settings
from tasks.sqs.health import silent_queues
from tests.servers import Aws
from tests.tasks.conftest import eventually

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

TENANT = "acme"
PATIENT = timedelta(seconds=60)


@dataclass
class Landing:
    """A watched bucket, a flow that waits for its arrivals, and whoever takes them."""

    aws: Aws
    directory: Path
    bucket: str
    engine: Engine
    flow: Flow
    visibility: int = 20
    began: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(minutes=1))

    @cached_property
    def sqs(self) -> SQSClient:
        """One client for all looks."""
        return self.aws.sqs

    @property
    def queue(self) -> str:
        """The queue's URL."""
        return self.aws.resources.queue_urls["arrivals"]

    @property
    def environment(self) -> dict[str, str]:
        """What the process is told."""
        return (
            passed_on()
            | {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
            | self.aws.environment
            | {
                "EFT_REGION": self.aws.region,
                "EFT_PREFIX": self.aws.resources.prefix,
                "EFT_STAGING_BUCKET": self.aws.resources.staging_bucket,
                "EFT_AWS_ENDPOINT": self.aws.url,
                "EFT_QUEUE_BASE": self.queue[: self.queue.rindex("/") + 1],
                "EFT_POLL_WAIT": "1",
                "EFT_ARRIVAL_VISIBILITY": str(self.visibility),
                "EFT_HEALTH_FILE": str(self.directory / "health"),
            }
        )

    @contextmanager
    def ingress(self) -> Iterator[Child]:
        """Runs the image's role."""
        log = self.directory / "ingress.log"
        ready = says(log, "takes arrivals")
        child = Child("ingress", command("ingress"), log=log, environment=self.environment, directory=places.ROOT, ready=ready)
        try:
            yield child.start()
        finally:
            child.stop()

    def put(self, count: int) -> list[str]:
        """Puts so many objects and returns their keys."""
        keys = [f"in/{number:03d} ü+.csv" for number in range(count)]
        s3 = self.aws.s3
        for key in keys:
            s3.put_object(Bucket=self.bucket, Key=key, Body=key.encode())
        return keys

    def transfers(self) -> int:
        """Returns how many there are."""
        return self.engine.ledger.count(TENANT, since=self.began)

    def messages(self, url: str | None = None) -> tuple[int, int]:
        """Returns how many messages of a queue are visible and hidden."""
        names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found: Any = self.sqs.get_queue_attributes(QueueUrl=url or self.queue, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])

    def listed(self) -> int:
        """Lists the source as the flow's schedule does, and returns how many transfers there are then."""
        (message,) = run_flow(self.engine, self.flow)
        piece = Slice(worker="w", clock=self.engine.clock, length=timedelta(minutes=5), leaving=lambda: False, limits=self.engine.limits)
        discover(self.engine, message.ids[0], piece)
        piece.end()
        return self.transfers()


@pytest.fixture
def landing(aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Landing:
    """One on tables, queues and a bucket of its own."""
    own = aws.fresh()
    for name, value in own.environment.items():
        monkeypatch.setenv(name, value)
    return landing_on(own, tmp_path)


def landing_on(own: Aws, directory: Path) -> Landing:
    """Returns one on these tables and queues, whose environment this process has."""
    bucket = own.bucket()
    watch_bucket(own.session(), bucket, own.resources.queue_urls["arrivals"], endpoint_url=own.url)
    prefix, staging = own.resources.prefix, own.resources.staging_bucket
    engine = build_engine(Settings(region=own.region, prefix=prefix, staging_bucket=staging, aws_endpoint=own.url))
    now = datetime.now(UTC)
    for name, below in (("from", ""), ("to", "there")):
        endpoint = S3Endpoint(id=name, tenant=TENANT, name=name, bucket=bucket, prefix=below, region=own.region, created=now)
        engine.registry.add_endpoint(endpoint)
    flow = Flow(
        id=f"fl-{uuid.uuid4().hex[:8]}",
        tenant=TENANT,
        name="f",
        source="from",
        destination="to",
        selection=Selection(directory="in"),
        trigger=Arrival(),
        created=now,
    )
    engine.registry.add_flow(flow)
    return Landing(own, directory, bucket, engine, flow)


def test_objects_become_transfers_once(landing: Landing) -> None:
    """Through EventBridge, with duplicates, deletes and other prefixes between; the listing finds nothing that is new."""
    with landing.ingress() as ingress:
        keys = landing.put(30)
        landing.aws.s3.put_object(Bucket=landing.bucket, Key="elsewhere/x.csv", Body=b"x")
        record = {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put"}
        again = {**record, "s3": {"bucket": {"name": landing.bucket}, "object": {"key": "in/000+%C3%BC%2B.csv"}}}
        gone = {**record, "s3": {"bucket": {"name": landing.bucket}, "object": {"key": "in/gone.csv"}}}
        landing.aws.sqs.send_message(QueueUrl=landing.queue, MessageBody=json.dumps({"Records": [again, gone, again]}))
        landing.aws.sqs.send_message(QueueUrl=landing.queue, MessageBody=json.dumps({"Event": "s3:TestEvent"}))
        eventually(lambda: landing.transfers() == len(keys) and landing.messages() == (0, 0))
        assert silent_queues(landing.directory / "health", older_than=PATIENT.total_seconds(), now=time.time()) == []
        ingress.signal(signal.SIGTERM)
        assert ingress.wait(PATIENT) == 0
    assert landing.listed() == len(keys)
    said = [json.loads(line) for line in (landing.directory / "ingress.log").read_text().splitlines() if line.startswith("{")]
    counted = [line["counts"] for line in said if "counts" in line]
    assert sum(counts.get("created", 0) for counts in counted) == len(keys)
    assert sum(counts.get("vanished", 0) for counts in counted) == 1
    assert sum(counts.get("test_event", 0) for counts in counted) == 1


def test_a_kill_in_the_middle_loses_nothing(landing: Landing) -> None:
    """What the killed process held comes again, and what it had put on record is known."""
    landing.visibility = 3
    keys = landing.put(60)
    with landing.ingress() as first:
        eventually(lambda: landing.transfers() > 0)
        first.signal(signal.SIGKILL)
        first.wait(PATIENT)
    with landing.ingress():
        eventually(lambda: landing.transfers() == len(keys) and landing.messages() == (0, 0))
    assert landing.listed() == len(keys)


def test_a_broken_message_goes_to_the_dead_letter_queue(landing: Landing) -> None:
    """After its receives, while the others are carried."""
    landing.visibility = 1
    policy: Any = landing.aws.sqs.get_queue_attributes(QueueUrl=landing.queue, AttributeNames=["RedrivePolicy"])["Attributes"]
    policy = json.loads(policy["RedrivePolicy"])
    landing.aws.sqs.set_queue_attributes(QueueUrl=landing.queue, Attributes={"RedrivePolicy": json.dumps({**policy, "maxReceiveCount": 2})})
    dead = landing.aws.resources.dead_letter_urls["arrivals"]
    with landing.ingress():
        landing.aws.sqs.send_message(QueueUrl=landing.queue, MessageBody="broken")
        keys = landing.put(3)
        eventually(lambda: landing.messages(dead)[0] == 1 and landing.transfers() == len(keys))
        eventually(lambda: landing.messages() == (0, 0))


def test_lambda_leaves_only_what_is_not_done(landing: Landing) -> None:
    """A broken record of a batch is named, the others are done."""
    (key,) = landing.put(1)
    event = {"source": "aws.s3", "detail-type": "Object Created", "detail": {"bucket": {"name": landing.bucket}, "object": {"key": key}}}
    bodies = {"m1": json.dumps(event), "m2": "broken", "m3": json.dumps({"Event": "s3:TestEvent"})}
    batch = {"Records": [{"messageId": one, "body": body} for one, body in bodies.items()]}
    code = "import json, sys\nfrom tasks.ingress import handler\nprint(json.dumps(handler(json.load(sys.stdin), None)))"
    told = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(batch),
        env=landing.environment,
        cwd=places.ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENT.total_seconds(),
        check=True,
    )
    assert json.loads(told.stdout) == {"batchItemFailures": [{"itemIdentifier": "m2"}]}
    assert landing.transfers() == 1
