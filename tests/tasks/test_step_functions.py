"""The sample state machine of `deploy/step-functions`, executed by the emulator: a file is moved, and it goes on with its receipt.

The emulator sends the message, waits with the token and takes the outcome as Step Functions does; the engine's side is the real one.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from deploy.local import places
from eft.bootstrap import build_engine
from eft.domain.asking import NoRequest, TransferAsked, request_in
from eft.domain.endpoint import S3Endpoint
from eft.domain.names import partition_of, transfer_id
from eft.errors import NotFound, Transient
from eft.journey.advance import advance
from eft.journey.announce import announce
from eft.journey.work import Slice
from eft.ports import Engine
from eft.settings import Settings
from tasks import requests
from tasks.endings import Ending
from tasks.requests import carry_requests
from tests.fake_announcing import Told
from tests.servers import Aws
from tests.tasks.conftest import eventually
from tests.world import TENANT, World

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

DEFINITION: Final = places.ROOT / "deploy" / "step-functions" / "transfer.asl.json"


@dataclass
class Orchestra:
    """A state machine, the queue that it asks through, and an engine that answers."""

    aws: Aws
    engine: Engine
    bucket: str
    machine: str
    states: Any
    sqs: SQSClient

    def begin(self, path: str, **more: object) -> str:
        """Starts an execution that moves an object and returns its ARN."""
        asked = {
            "tenant": TENANT,
            "source": {"endpoint": "here", "path": path},
            "destination": {"endpoint": "there", "path": f"copied/{path}"},
            **more,
        }
        started: Any = self.states.start_execution(stateMachineArn=self.machine, input=json.dumps(asked))
        return str(started["executionArn"])

    def carry(self) -> list[str]:
        """Does what ingress and the workers do, until something was asked for; returns the texts of what was."""
        url = self.aws.resources.queue_urls["requests"]
        bodies: list[str] = []

        def received() -> bool:
            messages = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", [])
            bodies.extend(message["Body"] for message in messages)
            for message in messages:
                self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            return bool(bodies)

        eventually(received)
        # Queues deliver twice.
        assert carry_requests(self.engine, bodies * 2) == [Ending.DONE] * 2 * len(bodies)
        return bodies

    def work(self, body: str) -> None:
        """Moves the file that was asked for, and tells how that ended."""
        row = self.engine.ledger.load(transfer_of(body))
        advance(self.engine, row.id, self.slice())
        for shard in range(self.engine.announcing.outbox.shards if self.engine.announcing else 0):
            announce(self.engine, shard, self.slice())

    def slice(self) -> Slice:
        """Returns a worker's slice."""
        return Slice(worker=uuid.uuid4().hex, clock=self.engine.clock, length=self.engine.tuning.slice, limits=self.engine.limits)

    def ended(self, execution: str) -> Any:  # noqa: ANN401 - the service's answer
        """Returns an execution once it has ended."""
        eventually(lambda: self.states.describe_execution(executionArn=execution)["status"] != "RUNNING")
        return self.states.describe_execution(executionArn=execution)


def transfer_of(body: str) -> str:
    """Returns the id of the transfer that a message asks for."""
    return transfer_id(TENANT, "idempotency", request_in(body).key, partition=partition_of(TENANT, request_in(body).destination.endpoint))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What would be sent to the workers."""
    found: list[object] = []
    monkeypatch.setattr(requests, "forward", found.extend)
    return found


@pytest.fixture
def orchestra(aws: Aws, monkeypatch: pytest.MonkeyPatch, sent: list[object], tmp_path: Path) -> Orchestra:
    """One on tables, queues and a bucket of its own."""
    own = aws.fresh()
    for name, value in own.environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings(
        region=own.region,
        prefix=own.resources.prefix,
        staging_bucket=own.resources.staging_bucket,
        aws_endpoint=own.url,
        s3_full_checksums=False,
    )
    engine = build_engine(settings)
    bucket = own.bucket()
    for name, prefix in (("here", "in"), ("there", "out")):
        engine.registry.add_endpoint(
            S3Endpoint(
                id=name,
                tenant=TENANT,
                name=name,
                bucket=bucket,
                prefix=prefix,
                region=own.region,
                endpoint_url=own.url,
                created=engine.clock.now(),
            )
        )
    states: Any = own.session().client("stepfunctions", endpoint_url=own.url)
    text = DEFINITION.read_text().replace("${Partition}", "aws").replace("${RequestsQueueUrl}", own.resources.queue_urls["requests"])
    role = f"arn:aws:iam::000000000000:role/{tmp_path.name}"
    machine = states.create_state_machine(name=f"move-{uuid.uuid4().hex[:8]}", definition=text, roleArn=role)["stateMachineArn"]
    return Orchestra(own, engine, bucket, machine, states, own.sqs)


def test_the_sample_moves_a_file_and_goes_on_with_its_receipt(orchestra: Orchestra, sent: list[object]) -> None:
    """The execution waits until the file is delivered, and ends with the receipt; asked twice it is moved once."""
    orchestra.aws.s3.put_object(Bucket=orchestra.bucket, Key="in/a.csv", Body=b"hello")
    execution = orchestra.begin("a.csv")
    (body,) = orchestra.carry()
    assert len(sent) == 1
    assert orchestra.states.describe_execution(executionArn=execution)["status"] == "RUNNING"
    orchestra.work(body)
    ended = orchestra.ended(execution)
    assert ended["status"] == "SUCCEEDED", ended
    receipt = json.loads(ended["output"])
    assert (receipt["path"], receipt["size"]) == ("copied/a.csv", 5)
    assert orchestra.aws.s3.get_object(Bucket=orchestra.bucket, Key="out/copied/a.csv")["Body"].read() == b"hello"


def test_the_sample_learns_why_a_file_did_not_arrive(orchestra: Orchestra) -> None:
    """A transfer that fails fails the task with its reason, which a Catch can name."""
    execution = orchestra.begin("missing.csv")
    (body,) = orchestra.carry()
    orchestra.work(body)
    ended = orchestra.ended(execution)
    assert (ended["status"], ended["error"]) == ("FAILED", "TransferFailed")
    history = orchestra.states.get_execution_history(executionArn=execution)["events"]
    assert "eft.source_missing" in json.dumps(history, default=str)


def test_a_reason_can_be_caught_by_its_name(orchestra: Orchestra) -> None:
    """What stands at the destination already is no failure for this state machine."""
    orchestra.aws.s3.put_object(Bucket=orchestra.bucket, Key="in/b.csv", Body=b"new")
    orchestra.aws.s3.put_object(Bucket=orchestra.bucket, Key="out/copied/b.csv", Body=b"old")
    execution = orchestra.begin("b.csv")
    (body,) = orchestra.carry()
    orchestra.work(body)
    assert orchestra.ended(execution)["status"] == "SUCCEEDED"
    assert orchestra.aws.s3.get_object(Bucket=orchestra.bucket, Key="out/copied/b.csv")["Body"].read() == b"old"


def test_a_request_that_makes_no_sense_fails_at_once(orchestra: Orchestra) -> None:
    """An unknown endpoint, or a field that is missing, ends the wait without a transfer."""
    for more in ({"destination": {"endpoint": "nowhere"}}, {"source": {"path": "a.csv"}}, {"source": {"endpoint": "here"}}):
        execution = orchestra.begin("a.csv", **more)
        orchestra.carry()
        assert orchestra.ended(execution)["status"] == "FAILED"
    assert orchestra.engine.ledger.page(TENANT).items == []


# -- in memory -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def world(sent: list[object]) -> tuple[World, Told]:
    """An engine over fakes, and who is told."""
    assert sent == []
    made = World()
    made.server("sftp-a").put("in/a.bin", b"x")
    told = Told(made.ledger)
    made.engine = replace(made.engine, announcing=told.ports())
    told.callbacks.waiting = {"token"}
    return made, told


def asked(**fields: object) -> str:
    """Returns a message's text."""
    whole = {
        "tenant": TENANT,
        "source": {"endpoint": "sftp-a", "path": "in/a.bin"},
        "destination": {"endpoint": "s3-b", "path": "out/a.bin"},
        "task_token": "token",
        **fields,
    }
    return json.dumps({name: value for name, value in whole.items() if value is not None})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (asked(source={"endpoint": "nowhere", "path": "a"}), "eft.endpoint_unknown"),
        (asked(tenant="other"), "eft.endpoint_unknown"),
        (asked(source={"endpoint": "sftp-a", "path": "../a"}), "eft.name_invalid"),
        (asked(policy={"conflict": "pray"}), "eft.request_invalid"),
        (asked(surprise=1), "eft.request_invalid"),
        (asked(format=2), "eft.request_invalid"),
    ],
)
def test_a_refusal_names_its_reason(world: tuple[World, Told], body: str, reason: str) -> None:
    """The state machine learns what is wrong with its request, in words without its token."""
    assert carry_requests(world[0].engine, [body]) == [Ending.DONE]
    error, cause = world[1].callbacks.ended["token"]
    assert error == reason
    assert "token" not in cause.replace("task_token", "")
    assert world[0].ledger.rows() == []


@pytest.mark.parametrize(
    "body", ["", "no JSON", "[]", "7", asked(task_token=None), asked(task_token=""), asked(task_token="x" * 2049), '{"a":' + "[" * 100_000]
)
def test_a_message_that_names_nobody_is_broken(world: tuple[World, Told], body: str) -> None:
    """It stays in the queue until it is a dead letter: nobody could be told."""
    assert carry_requests(world[0].engine, [body]) == [Ending.BROKEN]
    with pytest.raises(NoRequest):
        request_in(body)


def failing(world: World, told: Told) -> list[Callable[[], None]]:
    """Returns what may be out of order when a request comes."""
    down = Transient("down", reason="aws_unavailable")
    return [
        lambda: world.registry.trip("endpoint", down),
        lambda: world.ledger.trip("create", down),
        lambda: world.ledger.trip("create", RuntimeError("unforeseen")),
        lambda: told.callbacks.trip("fail", down),
    ]


@pytest.mark.parametrize("trouble", range(4))
def test_what_cannot_be_taken_now_comes_again(world: tuple[World, Told], trouble: int) -> None:
    """Nothing is lost while a table or Step Functions does not answer."""
    engine = world[0].engine
    failing(*world)[trouble]()
    body = asked() if trouble < 3 else asked(surprise=1)
    assert carry_requests(engine, [body]) == [Ending.AGAIN]
    assert carry_requests(engine, [body]) == [Ending.DONE]
    assert len(world[0].ledger.rows()) == (1 if trouble < 3 else 0)


def test_nobody_waits_for_a_refused_request(world: tuple[World, Told]) -> None:
    """A state machine that has given up is no reason to keep the message."""
    world[1].callbacks.waiting = set()
    assert carry_requests(world[0].engine, [asked(surprise=1)]) == [Ending.DONE]


def test_a_token_is_shown_nowhere() -> None:
    """Neither the request nor its transfer's representation holds it."""
    request = TransferAsked.model_validate_json(asked(task_token="hidden-token"))
    assert "hidden-token" not in repr(request)
    with pytest.raises(NotFound, match="waits"):
        Told(World().ledger).callbacks.succeed("hidden-token", output="{}")
