"""Backends of the contract suites."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest
from moto import mock_aws
from moto.core.botocore_stubber import BotocoreStubber
from moto.dynamodb.responses import DynamoHandler

from deploy.local.provision import provision
from eft.adapters.aws import AwsSession, StaticKeys
from tests.contract.rows import DynamoRows, Rows, dynamo_rows, fake_rows
from tests.servers import Aws

REGION = "us-gov-west-1"


@pytest.fixture(autouse=True)
def _moto_takes_any_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large bodies are buffers in a list; moto in this process, which no HTTP client stands before, takes bytes alone."""
    process = BotocoreStubber.process_request

    def process_request(stubber: BotocoreStubber, request: AWSPreparedRequest) -> object:
        if isinstance(request.body, list):
            request.body = b"".join(request.body)
        return process(stubber, request)

    monkeypatch.setattr(BotocoreStubber, "process_request", process_request)


@pytest.fixture(params=["fake", "moto", "ministack"])
def rows(request: pytest.FixtureRequest) -> Rows:
    """The row ports on each backend in turn."""
    backend: Rows = request.getfixturevalue(f"{request.param}_rows")
    return backend


@pytest.fixture(params=["moto", "ministack"])
def dynamo(request: pytest.FixtureRequest) -> DynamoRows:
    """The row ports on DynamoDB, for what only concerns the adapters."""
    backend: DynamoRows = request.getfixturevalue(f"{request.param}_rows")
    return backend


@pytest.fixture(name="fake_rows")
def _fake_rows() -> Rows:
    """In memory."""
    return fake_rows()


@pytest.fixture
def moto_rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[DynamoRows]:
    """DynamoDB as moto does it, in this process, empty; one request at a time, since moto's own writes are not atomic."""
    one_at_a_time = threading.Lock()
    act = DynamoHandler.call_action

    def call_action(handler: DynamoHandler) -> object:
        with one_at_a_time:
            return act(handler)

    monkeypatch.setattr(DynamoHandler, "call_action", call_action)
    with mock_aws():
        keys = StaticKeys("testing", "testing")
        tables = provision(boto3.Session("testing", "testing", region_name=REGION)).tables
        yield dynamo_rows(AwsSession(region=REGION, keys=keys), dict(tables))


@pytest.fixture
def ministack_rows(aws: Aws) -> DynamoRows:
    """DynamoDB as the emulator does it, shared with other tests."""
    credentials = aws.session().get_credentials()
    assert credentials is not None
    keys = StaticKeys(str(credentials.access_key), str(credentials.secret_key))
    return dynamo_rows(AwsSession(region=aws.region, endpoint_url=aws.url, keys=keys), dict(aws.resources.tables))
