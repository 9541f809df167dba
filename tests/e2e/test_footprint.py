"""What a worker takes of its machine: memory that does not grow with the file, and next to nothing while idle."""

import os
import time
from pathlib import Path

import pytest

from deploy.local.samples import MIB
from tests.running import PATIENCE, Crew, Shop, eventually, waiting

GIB = 1024 * MIB
MEMORY = 250 * 1000 * 1000
SHARE = 0.02
WATCHED = 10.0


@pytest.mark.parametrize(("origin", "to"), [("sftp", "s3"), ("s3", "sftp")])
@pytest.mark.parametrize("size", [512 * MIB, pytest.param(2 * GIB, marks=pytest.mark.slow)])
def test_memory_stays_bounded(shop: Shop, crew: Crew, origin: str, to: str, size: int) -> None:
    """A worker that moves a file of 512 MiB (slow: 2 GiB) alone never takes more than 250 MB."""
    source, target = shop.place("sftp"), shop.place(to)
    expected = source.fill({"huge.bin": size})
    crew.dismiss()
    if origin == "s3":
        # By way of S3, because a test should not hold an object of that size in its memory either.
        crew.hire("carrier")
        middle = shop.place("s3")
        carried = shop.customer.submit((source.endpoint, "huge.bin"), (middle.endpoint, None))
        assert shop.customer.rested(carried, limit=4 * PATIENCE)["state"] == "settled"
        crew.dismiss()
        source = middle
    crew.hire("strong")
    transfer = shop.customer.submit((source.endpoint, "huge.bin"), (target.endpoint, None))
    seen = shop.customer.rested(transfer, limit=4 * PATIENCE)
    assert seen["state"] == "settled", seen
    peak = peak_memory(shop.stack.worker_pids("strong")[0])
    found = target.findings(expected, [seen])
    assert found.clean, str(found)
    assert peak <= MEMORY


@pytest.mark.parametrize("pool", ["threads", "prefork"])
@pytest.mark.usefixtures("without_beat")
def test_an_idle_worker_is_idle(shop: Shop, crew: Crew, pool: str) -> None:
    """With empty queues a worker takes less than a fiftieth of a core."""
    crew.dismiss()
    # The settings' own long poll, not the local stack's short one.
    crew.hire("idle", pool="prefork" if pool == "prefork" else "threads", settings={"EFT_POLL_WAIT": "5"})
    pids = shop.stack.worker_pids("idle")
    eventually(lambda: waiting(shop.stack) == 0)
    calm = [cpu_seconds(pids)]

    def settled() -> bool:
        """Its start, and Flower's curiosity, are over."""
        time.sleep(2)
        calm.append(cpu_seconds(pids))
        return calm[-1] - calm[-2] < 2 * SHARE

    eventually(settled)
    before, since = cpu_seconds(pids), time.monotonic()
    time.sleep(WATCHED)
    assert (cpu_seconds(pids) - before) / (time.monotonic() - since) < SHARE


def peak_memory(pid: int) -> int:
    """Returns the most bytes that a process has had resident (Linux: VmHWM)."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def cpu_seconds(pids: list[int]) -> float:
    """Returns the processor time that processes have used."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")
