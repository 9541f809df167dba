"""The engine as a worker builds it, on AWS as moto does it in this process: no endpoint of its own, so that S3 is AWS for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.dynamodb.responses import DynamoHandler
from pydantic import SecretStr

from deploy.local.process import LOOPBACK
from deploy.local.provision import Provisioned, make_bucket, provision
from eft.bootstrap import build_engine
from eft.domain.endpoint import Credential, HostKey, S3Endpoint, SftpEndpoint
from eft.domain.flow import Flow, Policy, Selection
from eft.domain.transfer import State, Step
from eft.journey.advance import advance
from eft.journey.discover import discover
from eft.journey.lane import copy_lanes
from eft.journey.messages import Message
from eft.journey.operate import run_flow
from eft.journey.work import Slice
from eft.ports import Engine
from eft.settings import Settings
from tests.counting.counting import PASSWORD, AwsCounted, SftpCounted, aws_counted, sftp_counted

REGION = "us-gov-west-1"
TENANT = "acme"
REMEMBER = timedelta(hours=1)
"""What a worker remembers for seconds is remembered for as long as a slow machine needs: no count is decided by time."""


@dataclass
class Shop:
    """A worker's engine, endpoints of both kinds, and a queue that counts its messages."""

    engine: Engine
    aws: AwsCounted
    sftp: SftpCounted
    resources: Provisioned
    directory: Path
    """The SFTP server's."""
    messages: list[Message] = field(default_factory=list)
    """All that were sent."""

    def forget(self) -> None:
        """Begins to count anew."""
        self.aws.requests.clear()
        self.aws.item_writes = self.aws.items_read = self.aws.sent = 0
        self.sftp.forget()
        self.messages.clear()

    def drop_connections(self) -> None:
        """Closes what is open: each run pays for its logins."""
        self.engine.stores._sftp.close_all()  # type: ignore[attr-defined]

    def flow(self, source: str, destination: str, directory: str, *, keeps: bool = False) -> Flow:
        """Returns a new flow from a directory to one of the same name."""
        flow = Flow(
            id=f"flow-{directory}",
            tenant=TENANT,
            name=directory,
            source=source,
            destination=destination,
            destination_directory=directory,
            selection=Selection(directory=directory),
            policy=Policy(receiver_keeps=keeps),
            created=self.engine.clock.now(),
        )
        self.engine.registry.add_flow(flow)
        return flow

    def run(self, flow: Flow) -> int:
        """Runs a flow to its end and returns how many transfers settled."""
        waiting = self._sent(run_flow(self.engine, flow))
        while waiting:
            waiting += self._sent(self._carry(waiting.pop(0)))
        rows = self.engine.ledger.page(TENANT, flow=flow.id, limit=200).items
        assert {row.state for row in rows} == {State.SETTLED}, [row.error for row in rows if row.error][:1]
        return len(rows)

    def _sent(self, messages: Sequence[Message]) -> list[Message]:
        self.messages += messages
        return list(messages)

    def _carry(self, message: Message) -> list[Message]:
        engine = self.engine
        piece = Slice(worker=f"w{len(self.messages)}", clock=engine.clock, length=engine.tuning.slice, limits=engine.limits)
        follow: list[Message] = []
        for one in message.ids:
            run: Callable[[Engine, str, Slice], list[Message]] = discover if message.step is Step.DISCOVER else advance
            follow += copy_lanes(engine, one, message.part or 0, piece) if message.step is Step.PARTS else run(engine, one, piece)
        piece.end()
        return follow


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    """A monkeypatch for a whole module."""
    with pytest.MonkeyPatch.context() as held:
        yield held


@pytest.fixture(scope="module")
def aws(patch: pytest.MonkeyPatch) -> Iterator[tuple[AwsCounted, Provisioned]]:
    """AWS in this process, provisioned, its requests counted."""
    one_at_a_time = threading.Lock()
    act = DynamoHandler.call_action

    def call_action(handler: DynamoHandler) -> object:
        with one_at_a_time:
            return act(handler)

    patch.setattr(DynamoHandler, "call_action", call_action)
    with mock_aws(), aws_counted(patch) as counted:
        yield counted, provision(boto3.Session("testing", "testing", region_name=REGION))


@pytest.fixture(scope="module")
def shop(aws: tuple[AwsCounted, Provisioned], patch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """An engine with the SFTP endpoint `sftp` and the buckets `s3` and `s3-too`, warm."""
    counted, resources = aws
    directory = tmp_path_factory.mktemp("sftp")
    settings: Any = {
        "region": REGION,
        "prefix": resources.prefix,
        "staging_bucket": resources.staging_bucket,
        "lent_buckets": {"*": ("*",)},
    }
    engine = build_engine(Settings(**settings), remember=REMEMBER)
    with sftp_counted(directory, patch) as server:
        algorithm, key = server.host_key.split()[:2]
        now = engine.clock.now()
        secret = engine.secrets.put(tenant=TENANT, endpoint="sftp", credential=Credential(password=SecretStr(PASSWORD)))
        engine.registry.add_endpoint(
            SftpEndpoint(
                id="sftp",
                tenant=TENANT,
                name="sftp",
                host=LOOPBACK,
                port=server.port,
                username="u",
                host_keys=(HostKey(algorithm=algorithm, key=key),),
                secret=secret,
                created=now,
            )
        )
        for name in ("s3", "s3-too"):
            bucket = make_bucket(boto3.client("s3", region_name=REGION), f"bucket-{name}")
            engine.registry.add_endpoint(S3Endpoint(id=name, tenant=TENANT, name=name, bucket=bucket, region=REGION, created=now))
        made = Shop(engine, counted, server, resources, directory)
        (directory / "warm").mkdir()
        (directory / "warm" / "one.bin").write_bytes(b"x")
        made.run(made.flow("sftp", "s3", "warm"))
        made.drop_connections()
        yield made
        made.drop_connections()
