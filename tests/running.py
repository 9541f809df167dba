"""The running stack for tests that go through it: one for all, with a customer of its own for each test.

`tests/conftest.py` names this module in `pytest_plugins`.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from deploy.local import evidence, samples
from deploy.local.customer import Customer, JsonObject
from deploy.local.evidence import Findings
from deploy.local.process import Child
from deploy.local.samples import Sample
from deploy.local.sftp import PasswordSftpServer, Quirks, SftpAccount
from deploy.local.stack import LocalStack, Pool

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

PATIENCE: Final = timedelta(seconds=120)
"""For what must come; no test is decided by a time near it."""
USUAL: Final = ("worker-1", "worker-2")


def eventually(what: Callable[[], object], limit: timedelta = PATIENCE) -> None:
    """Waits until it is true."""
    until = time.monotonic() + limit.total_seconds()
    while not what():
        assert time.monotonic() < until, f"did not come true within {limit.total_seconds():g} s"
        time.sleep(0.05)


def waiting(stack: LocalStack, queue: str | None = None) -> int:
    """Returns how many messages a queue, or all of them, hold: visible, held by a worker or delayed."""
    sqs: SQSClient = stack.aws.client("sqs")
    urls = [queue] if queue else stack.resources.queue_urls.values()
    found = [sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"] for url in urls]
    return sum(int(value) for attributes in found for name, value in attributes.items() if name.startswith("ApproximateNumberOfMessages"))


class Crew:
    """The stack's workers; a test may dismiss them and hire others, the next test finds the usual two."""

    def __init__(self, stack: LocalStack) -> None:
        self.stack = stack
        self._unusual = False

    def dismiss(self) -> None:
        """Ends all workers, as a crash does."""
        self._unusual = True
        for worker in self.stack.workers.values():
            worker.kill()
        self.stack.workers.clear()

    def hire(self, *names: str, pool: Pool = "threads", concurrency: int = 4, settings: Mapping[str, str] | None = None) -> list[Child]:
        """Starts workers beside those that run, and returns them once they take tasks."""
        self._unusual = True
        with ThreadPoolExecutor() as starts:
            return list(starts.map(lambda name: self.stack.add_worker(name, pool=pool, concurrency=concurrency, settings=settings), names))

    def be_as_usual(self) -> None:
        """Sees that the usual two run and nobody else."""
        missing = [name for name in USUAL if name not in self.stack.workers or not self.stack.workers[name].running]
        if self._unusual or missing:
            self.dismiss()
            self.hire(*USUAL)
            self._unusual = False


class Shop:
    """A customer's places to move files between, made as a test asks for them; names never clash between tests."""

    def __init__(self, stack: LocalStack, customer: Customer) -> None:
        self.stack = stack
        self.customer = customer
        self.s3: S3Client = stack.aws.client("s3")
        self._made = 0

    def bucket(self) -> str:
        """Returns a new, versioned bucket."""
        return self.stack.bucket(self._name())

    def account(self) -> SftpAccount:
        """Returns a new account of the SFTP server (sshd where there is one)."""
        return self.stack.account(self._name())

    def quirky_account(self) -> SftpAccount:
        """Returns a new password account of the server that can misbehave."""
        return self.stack.password_sftp.account(self._name())

    def _name(self) -> str:
        self._made += 1
        return f"{self.customer.tenant}-{self._made}"

    def place(self, kind: str) -> Place:
        """Returns a new bucket or account, onboarded."""
        if kind == "s3":
            bucket = self.bucket()
            return Place(self, "s3", self.customer.add_s3(bucket, bucket), bucket=bucket)
        account = self.account()
        return Place(self, "sftp", self.customer.add_sftp(account.name, account), directory=account.directory)


class Place:
    """One onboarded endpoint, and a way behind it."""

    def __init__(self, shop: Shop, kind: str, endpoint: str, *, bucket: str = "", directory: Path = Path()) -> None:
        self.shop = shop
        self.kind = kind
        self.endpoint = endpoint
        self.bucket = bucket
        self.directory = directory

    def fill(self, sizes: Mapping[str, int]) -> dict[str, Sample]:
        """Makes files and returns what they hold."""
        if self.kind == "s3":
            return samples.in_bucket(self.shop.s3, self.bucket, sizes)
        return samples.in_directory(self.directory, sizes)

    def findings(self, expected: Mapping[str, Sample], transfers: list[JsonObject]) -> Findings:
        """Compares what stands here with what should."""
        if self.kind == "s3":
            return evidence.in_bucket(self.shop.s3, self.bucket, expected, transfers=transfers)
        return evidence.in_directory(self.directory, expected, transfers=transfers)


@pytest.fixture(scope="session")
def stack() -> Iterator[LocalStack]:
    """The whole engine, running; shared, so that a test puts back what it changes."""
    directory = Path(tempfile.mkdtemp(prefix="eft-stack-"))
    # Other local users' sshd sessions must reach their directories.
    directory.chmod(0o755)
    with LocalStack(directory) as running:
        yield running
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def _crew(stack: LocalStack) -> Crew:
    return Crew(stack)


@pytest.fixture
def crew(_crew: Crew) -> Crew:
    """The workers: the usual two."""
    _crew.be_as_usual()
    return _crew


@pytest.fixture
def customer(stack: LocalStack, crew: Crew) -> Iterator[Customer]:
    """A new tenant; the usual workers run."""
    with stack.customer(f"t{uuid.uuid4().hex[:8]}") as new:
        yield new


@pytest.fixture
def shop(stack: LocalStack, customer: Customer) -> Shop:
    """The new tenant's places."""
    return Shop(stack, customer)


@pytest.fixture
def quirky(stack: LocalStack) -> Iterator[PasswordSftpServer]:
    """The SFTP server that misbehaves on command; well-behaved again after the test."""
    yield stack.password_sftp
    stack.password_sftp.behave(Quirks())


@pytest.fixture
def without_beat(stack: LocalStack) -> Iterator[None]:
    """Beat stands still, so that nothing comes into the queues but what the test sends."""
    assert stack.beat is not None
    stack.beat.signal(signal.SIGSTOP)
    yield
    stack.beat.signal(signal.SIGCONT)
