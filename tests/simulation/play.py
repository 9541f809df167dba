"""One seed, from an empty world to quiescence: who is there, what they want, what goes wrong, and when it ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from eft.domain.endpoint import HostKey, S3Endpoint, SftpEndpoint
from eft.domain.flow import Flow, Interval, Policy, Selection
from eft.domain.names import partition_of
from eft.domain.ownership import Partition
from eft.domain.transfer import Transfer
from eft.journey.accept import Submission
from eft.journey.operate import run_flow
from eft.ports import Tuning
from tests.fake_regions import EAST, WEST
from tests.simulation.kernel import SECOND, Kernel, TrueClock
from tests.simulation.people import TENANT, Books, Client, Desk, Switchboard
from tests.simulation.region import Link, Region
from tests.simulation.rows import SimRegistry
from tests.simulation.servers import Server
from tests.simulation.stores import SimStores
from tests.simulation.truth import Inode, Truth
from tests.simulation.weather import CALM, weather_of

MINUTE: Final = 60 * SECOND
PART: Final = 1000
TWO_REGIONS: Final = 0.75
"""Share of the seeds that have a pair of regions."""
PATIENCE: Final = 6 * 60 * MINUTE
"""Simulated time within which everything comes to rest once faults have stopped."""
KEY: Final = HostKey(algorithm="ssh-ed25519", key="AAAA")


class _Unexpected(logging.Handler):
    """Errors that the journey met and no rule of it knows: in a simulation each is a finding."""

    def __init__(self, play: Play) -> None:
        super().__init__(logging.ERROR)
        self.play = play

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            where = ""
            at = error.__traceback__
            while at is not None:
                where = f"{at.tb_frame.f_code.co_filename.rpartition('/')[2]}:{at.tb_lineno} in {at.tb_frame.f_code.co_name}"
                at = at.tb_next
            self.play.kernel.broken.append(f"unexpected {type(error).__name__}: {error} ({where})")


@contextmanager
def hushed(play: Play) -> Iterator[None]:
    """Keeps the engine's log lines to those that are findings of a play."""
    unexpected = _Unexpected(play)
    logs = [logging.getLogger(name) for name in ("eft", "beat_schedules")]
    before = [(log, log.level, log.propagate) for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
        log.propagate = False
        log.addHandler(unexpected)
    try:
        yield
    finally:
        for log, level, propagate in before:
            log.removeHandler(unexpected)
            log.setLevel(level)
            log.propagate = propagate


@dataclass(slots=True)
class Play:
    """A seed's world."""

    seed: int
    calm: bool = False
    """Without faults: what a seed would do on a good day."""
    kernel: Kernel = field(init=False)
    truth: Truth = field(init=False)
    servers: dict[str, Server] = field(init=False)
    regions: list[Region] = field(init=False)
    count: int = 1
    """Regions."""
    partitions: tuple[int, ...] = ()
    """Those that have transfers in this seed."""
    link: Link = field(default_factory=Link)
    books: Books = field(default_factory=Books)
    desk: Desk = field(init=False)
    switchboard: Switchboard = field(init=False)
    flows: list[Flow] = field(default_factory=list)
    submissions: list[Submission] = field(default_factory=list)
    _numbers: int = 0
    _written: int = 0

    def __post_init__(self) -> None:
        self.kernel, self.truth = Kernel(self.seed), Truth()
        random = self.kernel.random
        self.kernel.weather = CALM if self.calm else weather_of(random)
        self.desk, self.switchboard = Desk(self), Switchboard(self)
        self.count = 2 if random.random() < TWO_REGIONS else 1
        self._set_up_servers()
        self._plan_files()
        self._set_up_regions()

    # -- looking ---------------------------------------------------------------------------------------------------

    def number(self) -> int:
        """Returns the next number for a process's name."""
        self._numbers += 1
        return self._numbers

    def home(self, partition: int) -> Region:
        """Returns the region that has a partition: of those that believe it, the one of the latest era."""
        if len(self.regions) == 1:
            return self.regions[0]
        believers = [region for region in self.regions if region.table.rows[partition].home == region.name]
        return max(believers, key=lambda region: region.table.rows[partition].region_epoch)

    def pick_region(self) -> Region | None:
        """Returns a region that answers, by chance."""
        alive = [region for region in self.regions if region.alive]
        return self.kernel.random.choice(alive) if alive else None

    def rows(self) -> Iterable[tuple[Region, Transfer]]:
        """Yields every row that its region carries, with the region."""
        for region in self.regions:
            for row in region.ledger.rows():
                if row.elsewhere is None:
                    yield region, row

    def waiting(self) -> bool:
        """Returns whether somebody is still at work for a person."""
        return any(actor.name.startswith(("api", "desk", "ops", "late")) for actor in self.kernel.living())

    def fire_by_hand(self, flow: Flow) -> None:
        """Runs a flow now, at its home."""
        region = self.home(partition_of(TENANT, flow.destination))

        def serve() -> None:
            region.forward(run_flow(region.engine, flow))

        self.kernel.spawn(f"desk{self.number()}@{region.name[7:11]}", region.name, serve)

    # -- setting up ------------------------------------------------------------------------------------------------

    def _set_up_servers(self) -> None:
        random, kernel, truth = self.kernel.random, self.kernel, self.truth
        self.servers = {
            name: Server(
                kernel,
                truth,
                name,
                "sftp" if name.startswith("sftp") else "s3",
                rename=random.choice(["posix", "plain"]),
                parallel=random.choice([1, 4]),
                versioned=random.random() < 0.7,
                consumes=random.choice(["never", "never", "at_once", "later"]) if name.endswith("b") else "never",
            )
            for name in ("sftp-a", "sftp-b", "s3-a", "s3-b")
        }

    def _set_up_regions(self) -> None:
        random, kernel, count = self.kernel.random, self.kernel, self.count
        clock = TrueClock(kernel)
        registry = SimRegistry()
        for name in self.servers:
            if name.startswith("sftp"):
                registry.add_endpoint(
                    SftpEndpoint(
                        id=name, tenant=TENANT, name=name, host=f"{name}.test", username="u", host_keys=(KEY,), created=clock.now()
                    )
                )
            else:
                registry.add_endpoint(
                    S3Endpoint(id=name, tenant=TENANT, name=name, bucket=f"bucket-{name}", region=WEST, created=clock.now())
                )
        for flow in self.flows:
            registry.add_flow(flow)
        wanted = {request.destination_endpoint for request in self.submissions} | {flow.destination for flow in self.flows}
        self.partitions = tuple(sorted({partition_of(TENANT, name) for name in wanted}))
        tuning = Tuning(
            part_size=PART,
            lane_threshold=3,
            lane_width=3,
            inline_size=random.choice([1500, 1500, 100_000]),
            tenant_window=random.choice([2, 16, 16]),
            staging_retention=timedelta(minutes=random.choice([5, 600])),
            stale_upload_age=timedelta(minutes=random.choice([3, 600])),
        )
        self.regions = []
        for name in (WEST, EAST)[:count]:
            staging = Server(kernel, self.truth, f"staging-{name[7:11]}", "s3", staging=True)
            region = Region(kernel, name, registry, SimStores(kernel, self.servers, staging), tuning, self.partitions)
            self.regions.append(region)
        if count == 2:
            west, east = self.regions
            west.tie(east, self.link)
            east.tie(west, self.link)
            for one, other in ((west, east), (east, west)):
                one.stores.staging_server.copied = self._replicate(other.stores.staging_server)
            for number in self.partitions:
                home = random.choice([WEST, EAST])
                for region in self.regions:
                    region.table.add(Partition(number=number, home=home, region_epoch=1))
        for region in self.regions:
            region.queue.max_receives = random.choice([2, 10, 10])
            region.start(workers=random.choice([2, 3, 4]), beats=random.choice([1, 1, 2]))

    def _replicate(self, to: Server) -> Callable[[str, Inode], None]:
        def copied(path: str, inode: Inode) -> None:
            def arrive() -> None:
                to.files[path] = inode
                if inode.version is not None:
                    to.versions[path, inode.version] = inode

            self.kernel.at(self.kernel.now + self.kernel.random.choice([300, 5 * SECOND, MINUTE]), arrive)

        return copied

    def _plan_files(self) -> None:
        random = self.kernel.random
        wanted = random.randrange(6, 15)
        found = random.choice([0, 0, 2, 4])
        for index in range(wanted - found):
            self._plan_submission(index)
        if found:
            self._plan_flow(found)

    def content(self, size: int | None = None) -> bytes:
        """Returns bytes like no others, of up to about eight parts."""
        random = self.kernel.random
        if size is None:
            size = random.choice([0, 1, 10, 500, PART, PART + 1, 2 * PART, random.randrange(1, 8 * PART), 8 * PART])
        self._written += 1
        mark = f"<{self.seed}.{self._written}>".encode()
        return (mark * (size // len(mark) + 1))[:size]

    def _policy(self, destination: Server, source: Server) -> Policy:
        random = self.kernel.random
        chosen: dict[str, Any] = {
            "conflict": random.choice(["fail", "fail", "overwrite", "rename", "skip"]),
            "disposition": random.choice(["keep", "keep", "delete", "archive"]),
            "checksum": random.choice(["auto", "auto", "sha256"]),
            "staging": random.choice([None, None, True, False]),
            "receiver_removes": random.choice([True, True, False]) if destination.consumes != "never" else random.random() < 0.1,
            "both_regions": self.count == 2 and random.random() < 0.2,
            "priority": random.choice(["bulk", "normal", "urgent"]),
            "create_directories": True,
            "retry": {"tries": random.choice([3, 8, 20]), "first": timedelta(seconds=2), "longest": timedelta(seconds=60)},
        }
        # Sources change, and what stands at a destination that is one may be disposed of.
        stays = destination.consumes == "never" and not chosen["receiver_removes"]
        chosen["receiver_keeps"] = stays and random.random() < 0.6
        if chosen["disposition"] == "archive":
            chosen["archive_directory"] = "done"
        if destination is source:
            chosen["disposition"] = "keep"
            chosen.pop("archive_directory", None)
        return Policy.model_validate(chosen)

    def _ends(self) -> tuple[Server, Server]:
        random = self.kernel.random
        source = self.servers[random.choice(["sftp-a", "s3-a", "s3-a", "sftp-a", "s3-b"])]
        destination = self.servers[random.choice(["sftp-b", "s3-b", "sftp-b", "s3-b", "s3-a"])]
        return source, destination

    def _plan_submission(self, index: int) -> None:
        random, kernel = self.kernel.random, self.kernel
        source, destination = self._ends()
        path = f"in/a{index}.bin"
        if source is destination and source.consumes != "never":
            destination = self.servers["s3-a"]
        source.customer_puts(path, self.content())
        to = f"out/a{index if random.random() < 0.8 else random.randrange(index + 1)}.bin"
        request = Submission(
            tenant=TENANT,
            source_endpoint=source.name,
            source_path=path,
            destination_endpoint=destination.name,
            destination_path=to,
            policy=self._policy(destination, source),
            idempotency_key=f"key-{index}" if random.random() < 0.8 else None,
            request_hash=str(index),
        )
        self.submissions.append(request)
        client = Client(self, request, tries=0 if request.idempotency_key else 5)
        kernel.at(random.randrange(0, 4 * MINUTE), client.ask)
        self._plan_changes(source, path)

    def _plan_changes(self, source: Server, path: str) -> None:
        """The owner of a source may write it again while it is on its way."""
        random, kernel = self.kernel.random, self.kernel
        if random.random() < 0.15 and not self.calm:
            kernel.at(random.randrange(1, 6 * MINUTE), lambda: self._change(source, path))

    def _change(self, source: Server, path: str) -> None:
        random = self.kernel.random
        stands = source.files.get(path)
        same = len(stands.data) if stands is not None and random.random() < 0.5 else None
        self.kernel.fire("source_replaced")
        source.customer_puts(path, self.content(same), in_place=random.random() < 0.5)

    def _plan_flow(self, files: int) -> None:
        random, kernel = self.kernel.random, self.kernel
        source, destination = self.servers[random.choice(["sftp-a", "s3-a"])], self.servers[random.choice(["sftp-b", "s3-b"])]
        flow = Flow(
            id="flow-1",
            tenant=TENANT,
            name="f",
            source=source.name,
            destination=destination.name,
            destination_directory="flow",
            selection=Selection(directory="found"),
            policy=self._policy(destination, source),
            trigger=Interval(every=timedelta(seconds=random.choice([30, 90]))),
            created=TrueClock(kernel).now(),
        )
        self.flows.append(flow)
        source.directories.add("found")
        for index in range(files):
            path = f"found/f{index}.bin"
            kernel.at(random.randrange(0, 5 * MINUTE), lambda path=path: source.customer_puts(path, self.content()))  # type: ignore[misc]
            if random.random() < 0.2 and not self.calm:
                kernel.at(random.randrange(5 * MINUTE, 8 * MINUTE), lambda path=path: self._change(source, path))  # type: ignore[misc]
