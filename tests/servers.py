"""Real servers for tests, one set per test process, started when first asked for and stopped at the end.

`tests/conftest.py` names this module in `pytest_plugins`. Each server is the local stack's own (`deploy.local`).
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest

from deploy.local.process import Stack
from deploy.local.provision import Provisioned, make_bucket, provision
from deploy.local.servers import AwsEmulator, RedisServer, S3Server
from deploy.local.sftp import PasswordSftpServer, Quirks, SftpServer

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sqs import SQSClient


@dataclass(frozen=True)
class Aws:
    """The emulator and a set of provisioned resources in it, under a prefix of their own."""

    server: AwsEmulator
    resources: Provisioned

    @property
    def url(self) -> str:
        """The endpoint of every service."""
        return self.server.url

    @property
    def region(self) -> str:
        """The region of the resources."""
        return self.server.region

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment for boto3 to end up here."""
        return self.server.environment

    def session(self) -> boto3.Session:
        """Returns a session with the emulator's credential; each client still needs `endpoint_url=aws.url`."""
        return self.server.session()

    @property
    def dynamodb(self) -> DynamoDBClient:
        """A new client."""
        return self.session().client("dynamodb", endpoint_url=self.url)

    @property
    def s3(self) -> S3Client:
        """A new client."""
        return self.session().client("s3", endpoint_url=self.url)

    @property
    def sqs(self) -> SQSClient:
        """A new client."""
        return self.session().client("sqs", endpoint_url=self.url)

    @property
    def secrets(self) -> SecretsManagerClient:
        """A new client."""
        return self.session().client("secretsmanager", endpoint_url=self.url)

    def fresh(self) -> Aws:
        """Returns the same emulator with new, empty tables, queues and staging bucket."""
        return Aws(self.server, provision(self.session(), endpoint_url=self.url, prefix=_prefix()))

    def bucket(self, *, versioned: bool = True) -> str:
        """Returns a new, empty bucket."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        if versioned:
            return make_bucket(self.s3, name)
        self.s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "us-gov-west-1"})
        return name


def _prefix() -> str:
    return f"t{uuid.uuid4().hex[:8]}-"


@pytest.fixture(scope="session")
def servers_directory() -> Iterator[Path]:
    """A directory that other local users can reach: pytest's own are closed to them, and so to their sshd sessions."""
    directory = Path(tempfile.mkdtemp(prefix="eft-servers-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def servers() -> Iterator[Stack]:
    """What the tests have started, to be stopped in reverse order."""
    with Stack() as stack:
        yield stack


@pytest.fixture(scope="session")
def emulator(servers: Stack, servers_directory: Path) -> AwsEmulator:
    """The AWS emulator, empty."""
    return servers.start(AwsEmulator(servers_directory / "aws"))


@pytest.fixture(scope="session")
def aws(emulator: AwsEmulator) -> Aws:
    """The AWS emulator with provisioned tables, queues and staging bucket; shared, so tests use keys of their own."""
    return Aws(emulator, provision(emulator.session(), endpoint_url=emulator.url, prefix=_prefix()))


@pytest.fixture(scope="session")
def redis_server(servers: Stack, servers_directory: Path) -> RedisServer:
    """The Redis-compatible server; a test that stops it starts it again."""
    return servers.start(RedisServer(servers_directory / "redis"))


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    """The address of a Redis-compatible server."""
    return redis_server.url


@pytest.fixture(scope="session")
def sshd(servers: Stack, servers_directory: Path) -> SftpServer:
    """OpenSSH's sshd; each test makes accounts of its own (`sshd.account(name)`). Skips where there is no sshd."""
    if not SftpServer.available():
        pytest.skip("this machine has no sshd")
    return servers.start(SftpServer(servers_directory / "sshd"))


@pytest.fixture(scope="session")
def _password_sftp_server(servers: Stack, servers_directory: Path) -> PasswordSftpServer:
    return servers.start(PasswordSftpServer(servers_directory / "sftp"))


@pytest.fixture
def password_sftp(_password_sftp_server: PasswordSftpServer) -> Iterator[PasswordSftpServer]:
    """The SFTP server in Python for passwords, questions and quirks (`behave`); well-behaved again after each test."""
    yield _password_sftp_server
    _password_sftp_server.behave(Quirks())


@pytest.fixture(scope="session")
def seaweed(servers: Stack, servers_directory: Path) -> S3Server:
    """SeaweedFS, an S3 server of another make."""
    return servers.start(S3Server(servers_directory / "seaweed"))
