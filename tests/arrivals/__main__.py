"""`python -m tests.arrivals`: what buckets tell, in bulk, duplicated and shuffled; each line has a run's figures.

First 200,000 events through the ingress on fakes, whose ledger loses answers now and then; then 3,000 objects through the emulator's own
EventBridge and SQS to the real process, which is killed in the middle. Exit status 0 only if each version got one transfer.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote_plus

from deploy.local.process import Stack, stop_on_signals
from deploy.local.provision import provision
from deploy.local.servers import AwsEmulator
from eft.domain.flow import Arrival
from eft.domain.transfer import Transfer
from eft.errors import Transient
from eft.journey.messages import Message
from tasks import ingress
from tasks.endings import Ending
from tasks.ingress import carry_arrivals
from tests.fakes import FakeLedger
from tests.servers import Aws
from tests.tasks.test_ingress import TENANT, landing_on
from tests.world import World

BATCH: Final = 10
BUCKET: Final = "bucket-s3-a"
PATIENCE: Final = timedelta(minutes=10)


class IdsOnly(FakeLedger):
    """A ledger of ids, which now and then loses the answer to a write."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self.made: Counter[str] = Counter()
        self._dice = dice

    def create(self, transfer: Transfer) -> Transfer | None:
        """Makes the row, if there is none, and says so or fails."""
        with self._lock:
            there = transfer.id in self.made
            if not there:
                self.made[transfer.id] += 1
        if self._dice.random() < 0.001:
            raise Transient("the answer was lost", reason="aws_unavailable")
        return transfer if there else None

    def known(self, transfer_ids: object) -> set[str]:
        """Returns those that there are; each hundredth time it has not heard of them yet."""
        assert isinstance(transfer_ids, list)
        return set() if self._dice.random() < 0.01 else {one for one in transfer_ids if one in self.made}


def main() -> int:
    """Reads the command line, runs both, and prints the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, help="through fakes; 0 leaves them out")
    parser.add_argument("--objects", type=int, default=3_000, help="through the emulator; 0 leaves them out")
    parser.add_argument("--seed", type=int, default=4)
    chosen = parser.parse_args()
    dice = random.Random(chosen.seed)
    # Each answer that is lost on purpose would say so.
    logging.getLogger("eft").addHandler(logging.NullHandler())
    good = not chosen.events or _through_fakes(chosen.events, dice)
    if chosen.objects:
        good = _through_the_emulator(chosen.objects, dice) and good
    return 0 if good else 1


def event(bucket: str, key: str, *, raw: bool) -> str:
    """Returns what EventBridge tells of an object, or what S3 itself does."""
    if raw:
        record = {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put"}
        return json.dumps({"Records": [{**record, "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key)}}}]})
    detail = {"bucket": {"name": bucket}, "object": {"key": key}}
    return json.dumps({"source": "aws.s3", "detail-type": "Object Created", "detail": detail})


def _through_fakes(events: int, dice: random.Random) -> bool:
    world = World()
    ledger = IdsOnly(dice)
    world.engine = replace(world.engine, ledger=ledger)
    flow = world.flow("s3-a", "sftp-b")
    world.registry.change_flow(flow.model_copy(update={"trigger": Arrival(), "revision": 2}))
    versions = [f"in/{number:06d} ü+.csv" for number in range(round(events * 0.7))]
    for key in versions:
        world.server("s3-a").put(key, b"x")
    told = versions + dice.choices(versions, k=events - len(versions))
    dice.shuffle(told)
    waiting = [event(BUCKET, key, raw=dice.random() < 0.5) for key in told]
    sent: Counter[str] = Counter()

    def forward(messages: list[Message]) -> None:
        sent.update(one for message in messages for one in message.ids)

    vars(ingress)["forward"] = forward
    again, began = 0, time.monotonic()
    while waiting:
        batch, waiting = waiting[:BATCH], waiting[BATCH:]
        left = [body for body, ending in zip(batch, carry_arrivals(world.engine, batch), strict=True) if ending is Ending.AGAIN]
        again += len(left)
        waiting += left
    seconds = time.monotonic() - began
    once = len(ledger.made) == len(versions) and set(ledger.made.values()) == {1}
    sys.stdout.write(
        f"fakes: {events} events of {len(versions)} versions in {seconds:.0f} s, {events / seconds:.0f}/s; after a lost answer {again} "
        f"came again and {ledger.calls['fire']} were left to a listing; {len(ledger.made)} transfers, "
        f"{'each version once' if once else 'NOT each version once'}\n"
    )
    return once and max(sent.values()) == 1


def _through_the_emulator(objects: int, dice: random.Random) -> bool:
    directory = Path(tempfile.mkdtemp(prefix="eft-arrivals-"))
    try:
        with stop_on_signals(), Stack() as stack:
            emulator = stack.start(AwsEmulator(directory / "aws"))
            os.environ |= emulator.environment
            aws = Aws(emulator, provision(emulator.session(), endpoint_url=emulator.url, prefix=f"t{uuid.uuid4().hex[:6]}-"))
            return _landed(aws, directory, objects, dice)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _landed(aws: Aws, directory: Path, objects: int, dice: random.Random) -> bool:
    landing = landing_on(aws, directory)
    landing.visibility = 10
    s3, sqs = aws.s3, aws.sqs
    keys = [f"in/{number:05d} ü+.csv" for number in range(objects)]
    dice.shuffle(keys)
    with ThreadPoolExecutor(max_workers=4) as together:
        list(together.map(lambda key: s3.put_object(Bucket=landing.bucket, Key=key, Body=b"x"), keys))
    _until(lambda: sum(landing.messages()) == objects)
    # 30 % of what is in the queue then are duplicates; SQS's own order is none.
    for key in dice.choices(keys, k=round(objects * 0.3 / 0.7)):
        sqs.send_message(QueueUrl=landing.queue, MessageBody=event(landing.bucket, key, raw=dice.random() < 0.5))
    events = sum(landing.messages())
    began = time.monotonic()
    with landing.ingress() as first:
        _until(lambda: landing.transfers() > objects // 3)
        first.signal(signal.SIGKILL)
        first.wait(PATIENCE)
    with landing.ingress():
        _until(lambda: landing.messages() == (0, 0))
        seconds = time.monotonic() - began
        transfers = landing.transfers()
    listed = landing.listed()
    once = transfers == listed == objects
    sys.stdout.write(
        f"emulator: {events} events of {objects} versions through EventBridge and SQS in {seconds:.0f} s, {events / seconds:.0f}/s, with "
        f"one kill -9 and a visibility timeout in between; {transfers} transfers of {TENANT}, {listed} after a listing, "
        f"{'each version once' if once else 'NOT each version once'}\n"
    )
    return once


def _until(fact: object) -> None:
    assert callable(fact)
    end = time.monotonic() + PATIENCE.total_seconds()
    while not fact():
        if time.monotonic() > end:
            raise TimeoutError("it did not come about")
        time.sleep(0.3)


if __name__ == "__main__":
    sys.exit(main())
