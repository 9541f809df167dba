"""A worker is killed, or told to leave, in the middle of a file: the file arrives once, whole, and little is sent twice."""

import os
import random
import signal
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from deploy.local.customer import JsonObject
from deploy.local.samples import KIB, MIB, many
from tests.crash.part_counter import PartCounter
from tests.running import PATIENCE, Crew, Place, Shop

LARGE = 256 * MIB
PART = 8 * MIB
PARTS = LARGE // PART
SETTINGS = {"EFT_PART_SIZE": str(PART)}
SLOTS = 4
"""The victim's threads; each has one part on its way."""
DONE = 12


@pytest.fixture
def counter(shop: Shop) -> Iterator[PartCounter]:
    """A slow way to the customer's S3."""
    with PartCounter(shop.stack.aws.url, pace=0.5) as way:
        yield way


def begin_large(shop: Shop, crew: Crew, way: PartCounter) -> tuple[str, Place, dict[str, object]]:
    """Starts one large file on one worker, `victim`, and returns in the middle of it."""
    source, bucket = shop.place("sftp"), shop.bucket()
    expected = source.fill({"large.bin": LARGE})
    target = Place(shop, "s3", shop.customer.add_s3(bucket, bucket, endpoint_url=way.url), bucket=bucket)
    crew.dismiss()
    crew.hire("victim", settings=SETTINGS)
    transfer = shop.customer.submit((source.endpoint, "large.bin"), (target.endpoint, None))
    seen = shop.customer.wait(transfer, until=lambda one: one["progress"]["parts_done"] >= DONE, limit=PATIENCE)
    assert seen["state"] == "delivering"
    return transfer, target, dict(expected)


def overload() -> float:
    """Returns how many times as long as alone a process takes now, because others want the same cores; 1 on a calm machine."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def arrived(shop: Shop, transfer: str, target: Place, expected: dict[str, object]) -> JsonObject:
    """Waits until the transfer has settled and proves that its file stands there once, whole."""
    seen = shop.customer.rested(transfer, limit=PATIENCE)
    assert seen["state"] == "settled", seen
    found = target.findings(expected, [seen])  # type: ignore[arg-type]
    assert found.clean, str(found)
    return seen


def test_killed_in_mid_file(shop: Shop, crew: Crew, counter: PartCounter) -> None:
    """After a kill -9 in the middle of 256 MiB another worker goes on: at most one part per slot in flight is sent again."""
    transfer, target, expected = begin_large(shop, crew, counter)
    crew.stack.workers["victim"].kill()
    done = shop.customer.transfer(transfer)["progress"]["parts_done"]
    assert DONE <= done < PARTS
    crew.hire("heir", settings=SETTINGS)
    seen = arrived(shop, transfer, target, expected)
    assert seen["attempt"] == 1
    assert len(counter.uploads) == 1
    assert sorted(counter.sent) == list(range(1, PARTS + 1))
    assert counter.sent_again <= SLOTS


def test_told_to_leave_in_mid_file(shop: Shop, crew: Crew, counter: PartCounter) -> None:
    """After SIGTERM in the middle of 256 MiB the worker is gone within 5 s and another goes on from the last part."""
    transfer, target, expected = begin_large(shop, crew, counter)
    victim = crew.stack.workers["victim"]
    victim.signal(signal.SIGTERM)
    victim.wait(timedelta(seconds=5) * overload())
    assert shop.customer.transfer(transfer)["state"] == "delivering"
    crew.hire("heir", settings=SETTINGS)
    seen = arrived(shop, transfer, target, expected)
    assert seen["attempt"] == 1
    assert len(counter.uploads) == 1
    assert counter.sent_again <= SLOTS


@pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_again_and_again(shop: Shop, crew: Crew, rounds: int) -> None:
    """Whatever moves while workers are killed and replaced arrives once and whole, on every kind of flow."""
    sizes = {"empty": 0, **many("small", 8 * rounds, size=10 * KIB), "large.bin": 40 * MIB}
    flows = []
    for origin, to in (("sftp", "s3"), ("s3", "sftp"), ("sftp", "sftp"), ("s3", "s3")):
        source, target = shop.place(origin), shop.place(to)
        expected = source.fill(sizes)
        flows.append((shop.customer.add_flow(f"{origin}-{to}", source.endpoint, target.endpoint), target, expected))
    for flow, _, _ in flows:
        shop.customer.run(flow)
    for _ in range(rounds):
        for name in ("worker-1", "worker-2"):
            time.sleep(random.uniform(0.5, 2.5))
            crew.stack.workers[name].kill()
            crew.hire(name)
    for flow, target, expected in flows:
        shop.customer.flow_rested(flow, count=len(sizes), limit=2 * PATIENCE)
        seen = [shop.customer.transfer(one["id"]) for one in shop.customer.transfers(flow=flow)]
        assert [one for one in seen if one["state"] != "settled"] == []
        found = target.findings(expected, seen)
        # Killed between S3's answer and its note on the row, an upload is known to nobody: the bucket's lifecycle rule takes it.
        assert len(found.unfinished) <= 2 * rounds
        found.unfinished.clear()
        assert found.clean, str(found)
