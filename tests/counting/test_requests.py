"""What a file costs, counted instead of timed: the guard against one request more per file.

Each bound is today's figure, rounded up where a flow's own few requests are spread over its files. Where the target of issue 5 is
not reached, it stands in a test of its own that is expected to fail, and that turns red once it is reached.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

import boto3
import pytest

from eft.domain.parts import MIB
from tests.counting.conftest import REGION, Shop

FILES = 32
SMALL = 10 * 1024
LARGE = 40 * MIB
PARTS = 5


@dataclass(frozen=True)
class Cost:
    """What a flow's run cost: all counts are those of the run, `files` says how many files share them."""

    files: int
    messages: int
    item_writes: int
    items_read: int
    dynamodb: Counter[str]
    s3: Counter[str]
    other: Counter[str]
    sent: int
    sftp: Counter[str]
    logins: int
    read: int
    written: int

    def each(self, count: int) -> float:
        """Returns a count per file."""
        return count / self.files


def filled(shop: Shop, endpoint: str, directory: str, sizes: list[int]) -> None:
    """Lays files into a directory of an endpoint."""
    if endpoint == "sftp":
        (shop.directory / directory).mkdir()
    for number, size in enumerate(sizes):
        name, content = f"{directory}/{number:02}.bin", os.urandom(size)
        if endpoint == "sftp":
            (shop.directory / name).write_bytes(content)
        else:
            boto3.client("s3", region_name=REGION).put_object(Bucket=f"bucket-{endpoint}", Key=name, Body=content)


def moved(shop: Shop, source: str, destination: str, sizes: list[int], *, keeps: bool = False) -> Cost:
    """Moves files by a run of a new flow and returns its cost; `pytest -s` shows it."""
    directory = f"{source}-{destination}-{len(sizes)}" + ("-kept" if keeps else "")
    filled(shop, source, directory, sizes)
    flow = shop.flow(source, destination, directory, keeps=keeps)
    shop.forget()
    assert shop.run(flow) == len(sizes)
    aws, sftp = shop.aws, shop.sftp
    cost = Cost(
        files=len(sizes),
        messages=len(shop.messages),
        item_writes=aws.item_writes,
        # The test's own look at the rows.
        items_read=aws.items_read - 2 * len(sizes),
        dynamodb=aws.of("dynamodb") - Counter(Query=1, BatchGetItem=1),
        s3=aws.of("s3"),
        other=Counter({name: count for name, count in aws.requests.items() if not name.startswith(("dynamodb.", "s3."))}),
        sent=aws.sent,
        sftp=sftp.requests.copy(),
        logins=sftp.logins,
        read=sftp.read,
        written=sftp.written,
    )
    shop.drop_connections()
    print(f"\n{len(sizes)} files of {sizes[0]} bytes, {directory}: {cost}")  # noqa: T201 - the true figures
    return cost


@pytest.fixture(scope="module")
def small(shop: Shop) -> Cost:
    """Thirty-two small files, SFTP → S3."""
    return moved(shop, "sftp", "s3", [SMALL] * FILES)


@pytest.fixture(scope="module")
def small_kept(shop: Shop) -> Cost:
    """Thirty-two small files, SFTP → S3, where the receiver keeps them."""
    return moved(shop, "sftp", "s3", [SMALL] * FILES, keeps=True)


@pytest.fixture(scope="module")
def large(shop: Shop) -> Cost:
    """One file of five parts, SFTP → S3."""
    return moved(shop, "sftp", "s3", [LARGE])


@pytest.fixture(scope="module")
def small_back(shop: Shop) -> Cost:
    """Thirty-two small files, S3 → SFTP."""
    return moved(shop, "s3", "sftp", [SMALL] * FILES)


@pytest.fixture(scope="module")
def large_back(shop: Shop) -> Cost:
    """One file of five parts, S3 → SFTP."""
    return moved(shop, "s3", "sftp", [LARGE])


@pytest.fixture(scope="module")
def across(shop: Shop) -> Cost:
    """One file of five parts between two buckets of the same service and principal."""
    return moved(shop, "s3", "s3-too", [LARGE])


def test_rows_of_a_small_file(small: Cost) -> None:
    """A small file of a bundle costs at most eight item writes, its share of the flow's run and of the admission window included."""
    assert small.each(small.item_writes) <= 7.4
    assert small.each(small.items_read) <= 2.5


def test_messages_of_small_files(small: Cost, small_back: Cost) -> None:
    """Small files travel in bundles of sixteen, all steps in one trip: a message per bundle and one for the run."""
    assert small.messages == small_back.messages == 1 + FILES // 16


def test_nothing_else_is_asked_per_file(small: Cost, large: Cost, small_back: Cost, large_back: Cost, across: Cost) -> None:
    """Secrets, STS and other services are asked for connections, not for files."""
    for cost in (small, large, small_back, large_back, across):
        assert sum(cost.other.values()) <= cost.logins


def test_objects_of_a_small_file(small: Cost) -> None:
    """A small file costs three requests to AWS: begin, part, complete. Its name is looked at only where it turns out to be taken."""
    assert small.s3 == Counter(CreateMultipartUpload=FILES, UploadPart=FILES, CompleteMultipartUpload=FILES)


def test_one_request_where_the_receiver_keeps_it(small_kept: Cost) -> None:
    """A small file is one object put; it costs a row's write less as well."""
    assert small_kept.s3 == Counter(PutObject=FILES)
    assert small_kept.each(small_kept.item_writes) <= 6.5
    assert small_kept.sent == FILES * SMALL


def test_sftp_requests_of_a_small_file(small: Cost, small_back: Cost) -> None:
    """A small file is looked at twice, opened, read and closed; written, it is synced and renamed besides: one connection for all."""
    assert small.each(sum(small.sftp.values())) <= 5.5
    assert small_back.each(sum(small_back.sftp.values())) <= 9.5
    assert small.logins == small_back.logins == 1


def test_objects_read_for_a_small_file(small_back: Cost) -> None:
    """A small object is read once, and what is known of it comes with its bytes."""
    assert small_back.each(sum(small_back.s3.values())) <= 1.1


@pytest.mark.parametrize("which", ["small", "large", "small_back", "large_back"])
def test_each_byte_moves_once(which: str, request: pytest.FixtureRequest) -> None:
    """Whatever the size and direction, each byte is read once and written once: nothing is fetched or sent again to be checked."""
    cost: Cost = request.getfixturevalue(which)
    whole = LARGE if cost.files == 1 else FILES * SMALL
    assert (cost.written if which.endswith("back") else cost.read) == whole
    if not which.endswith("back"):
        # Beside the bytes there is only the list of parts.
        assert whole <= cost.sent <= whole + 1000 * cost.files


def test_a_large_file_in_lanes(large: Cost) -> None:
    """A file of five parts costs each part once, a request list per lane, and 255 KiB per request at the SFTP server.

    Messages count here that a worker goes on with itself.
    """
    assert large.s3["UploadPart"] == PARTS
    assert sum(large.s3.values()) <= 2 * PARTS + 3
    assert large.sftp["read"] <= PARTS * (8 * MIB // (255 * 1024) + 1)
    assert sum((large.sftp - Counter(read=large.sftp["read"])).values()) <= 30
    assert large.item_writes <= 40
    assert large.messages <= 10


def test_a_large_file_back(large_back: Cost) -> None:
    """A large object is read in one request, for one worker has it alone here, and written in requests of 255 KiB at the most."""
    assert large_back.s3["GetObject"] == 1
    assert sum(large_back.s3.values()) <= 3
    assert large_back.sftp["write"] <= PARTS * 40
    assert sum((large_back.sftp - Counter(write=large_back.sftp["write"])).values()) <= 15
    assert large_back.item_writes <= 24


def test_buckets_of_one_service_copy_by_themselves(across: Cost) -> None:
    """Between two buckets of one principal no byte passes through a worker."""
    assert across.s3["UploadPartCopy"] == PARTS
    assert across.s3["GetObject"] == 0
    assert across.sent <= 2000
    assert sum(across.s3.values()) <= 2 * PARTS + 3
