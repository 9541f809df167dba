"""Two regions on one machine: two whole stacks, each with an AWS of its own, and between them a link that can be cut.

    west ── link ──► east        ownership tables are written over it, one way by each region
    west ◄── link ── east        what AWS replicates (registry, secrets, staging) goes over it, too

The customers belong to neither region: SFTP servers and an S3 that both reach.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from deploy.local import places
from deploy.local.customer import Customer
from deploy.local.link import Link
from deploy.local.process import Child, Stack, StartFailed
from deploy.local.provision import make_bucket, provision
from deploy.local.servers import GOVCLOUD, AwsEmulator, passed_on
from deploy.local.sftp import SftpAccount, SftpServer
from deploy.local.stack import FIGURES, SCOPES, LocalStack, Pool, make_outside, says
from eft.adapters.aws import AwsSession, StaticKeys
from eft.adapters.clock import SystemClock
from eft.adapters.ledger import DynamoLedger
from eft.adapters.ownership_table import DynamoOwnershipTable
from eft.domain.names import PARTITIONS
from eft.domain.ownership import first_homes

WEST: Final = GOVCLOUD
EAST: Final = "us-gov-east-1"
REGIONS: Final = (WEST, EAST)
OPERATOR: Final = (*SCOPES, "operator")
"""What an operator's token allows, here where the operator is the customer, too."""


class TwoRegions:
    """Starts and stops the pair.

    ```python
    with TwoRegions(directory) as pair, pair.customer("acme", WEST) as acme:
        pair.cut()
    ```
    """

    def __init__(
        self,
        directory: Path,
        *,
        workers: int = 1,
        pool: Pool = "threads",
        api_ports: Mapping[str, int] | None = None,
        monitored: bool = False,
        figures: Mapping[str, str] = FIGURES,
    ) -> None:
        """Takes a directory of its own, made if missing, and the ports of the two APIs where they matter."""
        self.directory = directory.resolve()
        self.outside = make_outside(self.directory)
        self.customers_s3 = AwsEmulator(self.directory / "customers-s3")
        self.links = {WEST: Link(lambda: self.stacks[EAST].aws.port), EAST: Link(lambda: self.stacks[WEST].aws.port)}
        """By the region that they lead away from."""
        self.stacks: dict[str, LocalStack] = {
            region: LocalStack(
                self.directory / name,
                workers=workers,
                pool=pool,
                api_port=(api_ports or {}).get(region),
                figures={**figures, "EFT_PEER_REGION": other(region), "EFT_PEER_ENDPOINT": self.links[region].url},
                region=region,
                monitored=monitored,
                outside=self.outside,
            )
            for region, name in ((WEST, "west"), (EAST, "east"))
        }
        self.replication: Child | None = None
        self._stack = Stack()

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self, told: Callable[[str], object] = lambda _: None) -> Self:
        """Returns itself once both regions serve, know their homes and each other; raises `StartFailed`."""
        try:
            for link in self.links.values():
                self._stack.call_at_end(link.stop)
                link.start()
            with ThreadPoolExecutor(max_workers=4) as starts:
                outside = [starts.submit(self._stack.start, server) for server in (*self.outside.servers, self.customers_s3)]
                regions = [starts.submit(self._start_region, region, told) for region in REGIONS]
                for server in outside:
                    server.result()
                for region in regions:
                    region.result()
            self._start_replication()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends everything."""
        self.thaw()
        with ThreadPoolExecutor(max_workers=2) as ends:
            list(ends.map(LocalStack.stop, self.stacks.values()))
        self._stack.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    # -- for its users -------------------------------------------------------------------------------------------------

    def customer(self, tenant: str, region: str) -> Customer:
        """Returns a tenant's view through one region's API, with an operator's rights."""
        return self.stacks[region].customer(tenant, scopes=OPERATOR)

    def account(self, name: str, *, directory: Path | None = None) -> SftpAccount:
        """Returns a new account with a key on the customers' SFTP server."""
        if isinstance(self.outside.sftp, SftpServer):
            return self.outside.sftp.account(name, directory=directory)
        return self.outside.sftp.account(name, directory=directory, proofs=("publickey",))

    def bucket(self, name: str) -> str:
        """Returns a new, versioned bucket of a customer."""
        return make_bucket(self.customers_s3.client("s3"), name)

    def table(self, region: str) -> DynamoOwnershipTable:
        """Returns a region's ownership table, read where it is."""
        return DynamoOwnershipTable(self._session(region), table=self.stacks[region].resources.tables["ownership"])

    def ledger(self, region: str) -> DynamoLedger:
        """Returns a region's ledger, read where it is."""
        return DynamoLedger(self._session(region), table=self.stacks[region].resources.tables["ledger"], clock=SystemClock())

    # -- trouble -------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """The regions lose each other: connections drop, new ones are refused. Both live on."""
        for link in self.links.values():
            link.cut()

    def silence(self) -> None:
        """The regions lose each other without being told: nothing comes through."""
        for link in self.links.values():
            link.silence()

    def heal(self) -> None:
        """The link is there again."""
        for link in self.links.values():
            link.heal()

    def delay(self, each_way: timedelta) -> None:
        """What the regions send each other takes so much longer."""
        for link in self.links.values():
            link.delay = each_way

    def darken(self, region: str) -> None:
        """A whole region fails at once: its processes die (SIGKILL), its AWS answers nobody, and forgets nothing."""
        stack = self.stacks[region]
        stack.aws.child.signal(signal.SIGSTOP)
        stack.kill_engine()

    def lose(self, region: str) -> None:
        """A region fails for good: its processes die and what its AWS held is gone."""
        stack = self.stacks[region]
        stack.aws.child.kill()
        stack.kill_engine()
        # A replica that is gone is no replica that was emptied.
        if self.replication is not None:
            self.replication.stop()

    def bring_back(self, region: str) -> None:
        """A region that failed comes back: with all that it had, or, where that was lost, empty.

        An empty region's ownership table is set up from the other's, and known to lack evidence: `rejoin` brings it.
        """
        stack = self.stacks[region]
        if stack.aws.child.running:
            self.thaw()
        else:
            stack.aws.start()
            provision(stack.aws.session(), endpoint_url=stack.aws.url)
            for row in self.table(other(region)).partitions():
                self.table(region).add(row.model_copy(update={"evidence": False}))
            self._start_replication()
        stack.start_engine()

    def thaw(self) -> None:
        """Every AWS that had stopped to answer answers again."""
        for stack in self.stacks.values():
            try:
                stack.aws.child.signal(signal.SIGCONT)
            except StartFailed:
                continue

    # -- how it starts -------------------------------------------------------------------------------------------------

    def _session(self, region: str) -> AwsSession:
        aws = self.stacks[region].aws
        return AwsSession(region=region, endpoint_url=aws.url, keys=StaticKeys(aws.ACCESS_KEY, aws.SECRET_KEY))

    def _start_region(self, region: str, told: Callable[[str], object]) -> None:
        self.stacks[region].start(lambda what: told(f"{what} of {region}"), provisioned=lambda: self._set_homes(region))

    def _set_homes(self, region: str) -> None:
        table = self.table(region)
        for row in first_homes(REGIONS, PARTITIONS):
            table.add(row)

    def _start_replication(self) -> None:
        """Starts the replication; it remembers nothing, so that a region that lost everything is filled, not copied."""
        west, east = (self.stacks[region] for region in REGIONS)
        log = self.directory / "replication.log"
        words = [sys.executable, "-m", "deploy.local.replicate", "--near", WEST, west.aws.url, "--far", EAST, east.aws.url]
        words += ["--out", self.links[WEST].url, "--back", self.links[EAST].url]
        words += ["--prefix", west.resources.prefix, "--staging", west.resources.staging_bucket]
        self.replication = Child(
            "replication",
            words,
            log=log,
            environment=passed_on() | {"PYTHONUNBUFFERED": "1"},
            directory=places.ROOT,
            ready=says(log, "replicating"),
            grace=timedelta(seconds=2),
        )
        self._stack.start(self.replication)


def other(region: str) -> str:
    """Returns the region at the other end."""
    return EAST if region == WEST else WEST
