"""What the queues cost through the whole engine, counted on the way to SQS."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.samples import KIB, in_directory, many
from deploy.local.servers import AwsEmulator
from deploy.local.stack import FIGURES, LocalStack
from tests.faultproxy import FaultProxy
from tests.running import PATIENCE

FILES = 64


class Count(FaultProxy):
    """Passes everything on and tells polls that brought a message from those that found none."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.used: Counter[str] = Counter()
        """Requests that something came of; polls of empty queues are the price of waiting, whatever the number of files."""

    def forward(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, list[tuple[str, str]], bytes]:
        """As the proxy does."""
        status, answered, content = super().forward(method, path, body, headers)
        operation = {name.lower(): value for name, value in headers.items()}.get("x-amz-target", "").rpartition(".")[2]
        if operation != "ReceiveMessage" or json.loads(content).get("Messages"):
            self.used[operation] += 1
        return status, answered, content


@pytest.fixture
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalStack, Count]]:
    """A stack of its own with one worker, whose API and worker reach SQS through the counter; beat stands still."""
    directory: Path = tmp_path_factory.mktemp("counted")
    ways: list[Count] = []

    def way(aws: AwsEmulator) -> str:
        if not ways:
            ways.append(Count(aws.url))
            ways[0].start()
        return ways[0].url

    # Nothing comes into the queues by the clock while the test looks.
    figures = {**FIGURES, "EFT_SWEEP_EVERY": "3600", "EFT_LOOK_EVERY": "3600"}
    with LocalStack(directory, workers=1, figures=figures, sqs_endpoint=way, monitored=False) as stack:
        yield stack, ways[0]
        # Before the stack, which would wait for answers that do not come.
    ways[0].stop()


def test_requests_per_small_file(counted: tuple[LocalStack, Count]) -> None:
    """Sixty-four small files of one flow cost less than half a request to SQS each: sent in bundles, received, deleted."""
    stack, way = counted
    account, bucket = stack.account("from"), stack.bucket("to-bucket")
    in_directory(account.directory, many("file", FILES, size=10 * KIB))
    with stack.customer("counted") as customer:
        flow = customer.add_flow("bundles", customer.add_sftp("from", account), customer.add_s3("to", bucket))
        way.used.clear()
        customer.run(flow)
        seen = customer.flow_rested(flow, count=FILES, limit=PATIENCE)
    assert {one["state"] for one in seen} == {"settled"}
    requests = Counter(way.used)
    print(requests)  # noqa: T201 - the true figures
    assert requests["SendMessage"] + requests["SendMessageBatch"] >= 2, "the counter stands beside the way"
    assert sum(requests.values()) / FILES <= 0.5
