"""The customers' side of the drill: places of every kind in partitions of both homes, and files that are sent through both APIs."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self

import httpx

from deploy.local import samples
from deploy.local.customer import Customer, JsonObject, Refused
from deploy.local.regions import EAST, REGIONS, WEST, TwoRegions, other
from deploy.local.samples import KIB, MIB, Sample
from eft.domain.names import partition_of
from tests.drill.receiver import BucketInbox, Inbox, Receiver

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

TENANT: Final = "acme"
SENDERS: Final = 6
PAUSE_SECONDS: Final = 0.3
ACCEPT_SECONDS: Final = 120.0
Kind = Literal["sftp", "s3"]


@dataclass(frozen=True)
class Target:
    """One destination."""

    name: str
    endpoint: str
    consumes: bool = False
    inbox: Inbox | None = None
    bucket: BucketInbox | None = None

    @property
    def partition(self) -> int:
        """Of every transfer that goes there."""
        return partition_of(TENANT, self.endpoint)


@dataclass
class File:
    """One file on its way."""

    name: str
    sample: Sample
    target: Target
    source: Kind
    flow: str | None = None
    first_asked: str = WEST
    id: str | None = None
    durability: str | None = None
    acknowledged_at: datetime | None = None
    shown: JsonObject = field(default_factory=dict)
    """Its transfer, as last seen."""


class Shop:
    """Endpoints and flows, onboarded once, in the west; the replication brings them to the east."""

    def __init__(self, pair: TwoRegions) -> None:
        self.pair = pair
        self.s3: S3Client = pair.customers_s3.client("s3")
        self._ends = ExitStack()
        self.at: dict[str, Customer] = {}
        self.sources: dict[Kind, str] = {}
        self.targets: list[Target] = []
        self.flows: dict[str, tuple[str, Path, Target]] = {}
        """By the first home of its destination: the flow, the directory that it watches, and where it delivers."""
        self.receiver = Receiver([])

    def __enter__(self) -> Self:
        for region in REGIONS:
            self.at[region] = self._ends.enter_context(self.pair.customer(TENANT, region))
        west = self.at[WEST]
        self.outbox = self.pair.account("outbox")
        self.source_bucket = self.pair.bucket("outbox")
        self.sources = {"sftp": west.add_sftp("outbox", self.outbox), "s3": self._add_s3("outbox", self.source_bucket)}
        for number, region in enumerate(REGIONS):
            place = "west" if region == WEST else "east"
            inbox, taken = self.pair.account(f"inbox-{place}"), self.pair.account(f"taken-{place}")
            kept = self.pair.directory / f"taken-by-{place}"
            kept.mkdir()
            consumed = Inbox(taken.directory, taken_to=kept)
            landing = self.pair.bucket(f"landing-{place}")
            parity = number
            self.targets += [
                Target(f"inbox-{place}", self._in(parity, lambda a=inbox: west.add_sftp("inbox", a)), inbox=Inbox(inbox.directory)),
                Target(
                    f"landing-{place}", self._in(parity, lambda b=landing: self._add_s3("landing", b)), bucket=BucketInbox(self.s3, landing)
                ),
                Target(f"taken-{place}", self._in(parity, lambda a=taken: west.add_sftp("taken", a)), consumes=True, inbox=consumed),
            ]
            watched = self.pair.account(f"watched-{place}")
            flow = west.add_flow(
                f"pull-{place}",
                west.add_sftp(f"watched-{place}", watched),
                self.targets[-1].endpoint,
                policy={"receiver_removes": True, "disposition": "delete" if number else "keep"},
                trigger={"kind": "interval", "every": "PT3S"},
            )
            self.flows[region] = (flow, watched.directory, self.targets[-1])
        self._await_replicated()
        self.receiver = Receiver([target.inbox for target in self.targets if target.inbox is not None])
        self.receiver.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ends.close()
        self.receiver.stop()

    def rows(self, region: str, *, since: datetime) -> Iterator[JsonObject]:
        """Yields the transfers of a region's own ledger that were created since then, newest first."""
        for row in self.at[region].transfers():
            if datetime.fromisoformat(row["created"]) < since:
                return
            yield row

    def _add_s3(self, name: str, bucket: str) -> str:
        return self.at[WEST].add_s3(name, bucket, endpoint_url=self.pair.customers_s3.url)

    @staticmethod
    def _in(parity: int, add: object) -> str:
        """Returns an endpoint whose partition is even or odd: at home in the first or the second region to begin with."""
        assert callable(add)
        while True:
            endpoint = str(add())
            if partition_of(TENANT, endpoint) % 2 == parity:
                return endpoint

    def _await_replicated(self) -> None:
        ends = time.monotonic() + ACCEPT_SECONDS
        for flow, _, target in self.flows.values():
            for path in (f"/flows/{flow}", f"/endpoints/{target.endpoint}"):
                while True:
                    try:
                        self.at[EAST].get(path)
                        break
                    except Refused:
                        if time.monotonic() > ends:
                            raise
                        time.sleep(PAUSE_SECONDS)


class Traffic:
    """One run's files: sent over some seconds, each until one of the two regions has acknowledged it."""

    def __init__(self, shop: Shop, *, run: str, count: int, spread: timedelta, random_: random.Random) -> None:
        self.shop = shop
        self.run = run
        self.spread = spread
        self.began = datetime.now(UTC)
        self.files: list[File] = []
        self.errors: list[str] = []
        self._moments: list[float] = []
        self._random = random_
        self._give_up = 0.0
        self._thread = threading.Thread(target=self._send_all, name="traffic", daemon=True)
        self._make(count)

    def start(self) -> None:
        """Begins to send."""
        self.began = datetime.now(UTC)
        self._thread.start()

    def finish(self) -> None:
        """Waits until everything is sent."""
        self._thread.join()
        if self.errors:
            raise AssertionError("\n".join(self.errors))

    def _make(self, count: int) -> None:
        combinations = [(source, target) for target in self.shop.targets for source in ("sftp", "s3")]
        sizes: dict[str, int] = {}
        for number in range(count):
            source, target = combinations[number % len(combinations)]
            name = f"{self.run}-{number:03}.bin"
            sizes[name] = 11 * MIB if number % 24 == 5 else self._random.choice([0, 1, 700, 9 * KIB, 60 * KIB])
            self.files.append(File(name, Sample(0, ""), target, "sftp" if source == "sftp" else "s3", first_asked=REGIONS[number % 2]))
        for kind in ("sftp", "s3"):
            mine = {file.name: sizes[file.name] for file in self.files if file.source == kind}
            if kind == "sftp":
                made = samples.in_directory(self.shop.outbox.directory, mine)
            else:
                made = samples.in_bucket(self.shop.s3, self.shop.source_bucket, mine)
            for file in self.files:
                file.sample = made.get(file.name, file.sample)
        self._random.shuffle(self.files)
        for region in REGIONS:
            flow, _, target = self.shop.flows[region]
            for number in range(max(1, count // 12)):
                self.files.append(File(f"{self.run}-{target.name}-{number:03}.bin", Sample(0, ""), target, "sftp", flow=flow))
        self._moments = sorted(self._random.uniform(0, self.spread.total_seconds()) for _ in self.files)
        submitted = [file for file in self.files if file.flow is None]
        dropped = [file for file in self.files if file.flow is not None]
        # Those of the flows come in between.
        for file in dropped:
            submitted.insert(self._random.randrange(len(submitted)), file)
        self.files = submitted

    def _send_all(self) -> None:
        begun = time.monotonic()
        self._give_up = begun + ACCEPT_SECONDS
        with ThreadPoolExecutor(max_workers=SENDERS) as senders:
            for moment, file in zip(self._moments, self.files, strict=True):
                time.sleep(max(0.0, begun + moment - time.monotonic()))
                senders.submit(self._sent, file)

    def _sent(self, file: File) -> None:
        try:
            if file.flow is None:
                self._submit(file)
            else:
                directory = next(watched for flow, watched, _ in self.shop.flows.values() if flow == file.flow)
                file.sample = samples.in_directory(directory, {file.name: 5 * KIB})[file.name]
        except Exception as error:  # noqa: BLE001 - told by finish()
            self.errors.append(f"{file.name}: {type(error).__name__}: {error}")

    def _submit(self, file: File) -> None:
        """Asks one region, then the other, in turns: the key makes one transfer of it."""
        policy = {"receiver_removes": True} if file.target.consumes else {}
        region = file.first_asked
        while True:
            try:
                answer = self.shop.at[region].post(
                    "/transfers",
                    {
                        "source": {"endpoint": self.shop.sources[file.source], "path": file.name},
                        "destination": {"endpoint": file.target.endpoint, "path": file.name},
                        "policy": policy,
                    },
                    key=file.name,
                )
            except (Refused, httpx.TransportError) as error:
                if isinstance(error, Refused) and error.status < 500:
                    raise
                if time.monotonic() > self._give_up:
                    raise
                region = other(region)
                time.sleep(PAUSE_SECONDS)
            else:
                file.id, file.durability, file.acknowledged_at = str(answer["id"]), answer["durability"], datetime.now(UTC)
                return
