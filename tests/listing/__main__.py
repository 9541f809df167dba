"""`python -m tests.listing`: a directory of 100,000 names over a real sshd, polled; each line has a poll's figures.

Three polls of one flow: all but the new files for the first time, then with new ones among them, then with nothing new. Exit status 0 only
if each file got one transfer, and the last poll asked the ledger next to nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from botocore.awsrequest import AWSPreparedRequest

from deploy.local.process import Stack, stop_on_signals
from deploy.local.provision import make_bucket, provision
from deploy.local.servers import AwsEmulator
from deploy.local.sftp import SftpAccount, SftpServer
from eft.adapters.ledger import DynamoLedger
from eft.adapters.sftp.wire import Kind, Wire
from eft.bootstrap import build_engine
from eft.domain.endpoint import HostKey, S3Endpoint, SftpEndpoint
from eft.domain.flow import Flow, Selection
from eft.journey.discover import discover
from eft.journey.messages import Message
from eft.journey.operate import run_flow
from eft.journey.work import Slice
from eft.ports import Engine
from eft.settings import Settings
from tests.contract.sftp_bench import credential_of

TENANT: Final = "acme"
FEW: Final = 8
"""Requests to the ledger's table that a poll with nothing new may take."""


@dataclass(frozen=True)
class Poll:
    """What one poll took."""

    seconds: float
    cpu: float
    """Seconds of this process's."""
    grown: int
    """MiB by which this process was larger at its largest than before."""
    sftp: Counter[str]
    dynamodb: Counter[str]
    files: dict[str, int]
    runs: int

    def line(self, title: str) -> str:
        """Returns the figures."""
        asked = ", ".join(f"{count} {name}" for name, count in sorted(self.dynamodb.items()))
        files = ", ".join(f"{count} {what}" for what, count in self.files.items() if count)
        took = f"{self.seconds:.1f} s ({self.cpu:.1f} s of CPU) in {self.runs} slice(s), +{self.grown} MiB"
        sftp = f"{self.sftp['READDIR']} READDIR of {self.sftp.total()} SFTP requests"
        return f"{title}: {took}, {sftp}, {self.dynamodb.total()} to DynamoDB ({asked}); {files}\n"


def main() -> int:
    """Reads the command line, polls, and prints the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", type=int, default=100_000)
    parser.add_argument("--new", type=int, default=300, help="files that come between the first poll and the second")
    parser.add_argument("--old", action="store_true", help="the names that are there at first match and are taken, too")
    chosen = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="eft-listing-"))
    directory.chmod(0o755)
    try:
        with stop_on_signals(), Stack() as stack:
            emulator = stack.start(AwsEmulator(directory / "aws"))
            account = stack.start(SftpServer(directory / "sshd")).account("acme")
            os.environ |= emulator.environment
            engine, flow = _engine(emulator, account)
            return _polls(engine, flow, account.directory / "in", chosen)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _polls(engine: Engine, flow: Flow, inbox: Path, chosen: argparse.Namespace) -> int:
    inbox.mkdir()
    first = chosen.names - chosen.new
    for number in range(first):
        (inbox / f"invoice-2024-{number:06d}.{'csv' if chosen.old else 'old'}").touch()
    sys.stdout.write(_poll(engine, flow).line(f"{first} names, none seen before"))
    for number in range(chosen.new):
        (inbox / f"invoice-2025-{number:06d}.csv").touch()
    taking = _poll(engine, flow)
    sys.stdout.write(taking.line(f"{chosen.names} names, {chosen.new} of them new"))
    idle = _poll(engine, flow)
    sys.stdout.write(idle.line(f"{chosen.names} names, nothing new"))
    rows = engine.ledger.count(TENANT, since=flow.created)
    right = rows == chosen.new + (first if chosen.old else 0)
    right = right and taking.files["created"] == chosen.new and idle.files["listed"] == chosen.names and idle.files["created"] == 0
    return 0 if right and idle.dynamodb.total() <= FEW else 1


def _poll(engine: Engine, flow: Flow) -> Poll:
    with ExitStack() as counting:
        sftp = counting.enter_context(_sftp_counted())
        dynamodb = counting.enter_context(_dynamodb_counted(engine))
        message: Message | None = run_flow(engine, flow)[0]
        fire = message.ids[0].split("/", 2)[2] if message is not None else ""
        before, began, cpu, runs = _memory("VmRSS"), time.monotonic(), time.process_time(), 0
        Path("/proc/self/clear_refs").write_text("5")
        while message is not None:
            runs += 1
            piece = Slice(worker="w", clock=engine.clock, length=timedelta(seconds=45), limits=engine.limits)
            follow = discover(engine, message.ids[0], piece)
            message = next((one for one in follow if one.ids == message.ids), None)
        seconds, used, grown = time.monotonic() - began, time.process_time() - cpu, _memory("VmHWM") - before
    # By its name: of fires within one second the listing does not say which is the later.
    (outcome,) = [each.outcome for each in engine.ledger.fires(flow, limit=10) if each.name == fire]
    return Poll(seconds, used, grown // 1024, sftp, dynamodb, outcome or {}, runs)


@contextmanager
def _sftp_counted() -> Iterator[Counter[str]]:
    """Counts the requests to SFTP servers by kind."""
    sent: Counter[str] = Counter()
    post = Wire.post

    def counted(wire: Wire, kind: Kind, *fields: bytes) -> int:
        sent[kind.name] += 1
        return post(wire, kind, *fields)

    Wire.post = counted  # type: ignore[assignment, method-assign]
    try:
        yield sent
    finally:
        Wire.post = post  # type: ignore[method-assign]


@contextmanager
def _dynamodb_counted(engine: Engine) -> Iterator[Counter[str]]:
    """Counts the requests about the ledger's table by operation, those of slots and breakers among them."""
    sent: Counter[str] = Counter()

    def count(event_name: str, request: AWSPreparedRequest, **_: object) -> None:
        sent[event_name.rpartition(".")[2]] += isinstance(request.body, bytes) and b"ledger" in request.body

    assert isinstance(engine.ledger, DynamoLedger)
    events = engine.ledger._table._session.dynamodb().meta.events
    events.register("before-send.dynamodb", count)
    try:
        yield sent
    finally:
        events.unregister("before-send.dynamodb", count)


def _memory(which: str) -> int:
    """Returns KiB: `VmRSS`, or `VmHWM`, the most since that was reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{which}:"))


def _engine(emulator: AwsEmulator, account: SftpAccount) -> tuple[Engine, Flow]:
    """Returns an engine on the emulator, with a flow from the account to a bucket."""
    session = emulator.session()
    made = provision(session, endpoint_url=emulator.url, prefix="t-")
    bucket = make_bucket(session.client("s3", endpoint_url=emulator.url), "arrived")
    settings = Settings(region=emulator.region, prefix=made.prefix, staging_bucket=made.staging_bucket, aws_endpoint=emulator.url)
    engine = build_engine(settings)
    now = datetime.now(UTC)
    algorithm, key = account.host_key.split()[:2]
    ref = engine.secrets.put(tenant=TENANT, endpoint="from", credential=credential_of(account))
    source = SftpEndpoint(
        id="from",
        tenant=TENANT,
        name="from",
        host=account.host,
        port=account.port,
        username=account.username,
        secret=ref,
        root=str(account.directory),
        host_keys=(HostKey(algorithm=algorithm, key=key),),
        created=now,
    )
    engine.registry.add_endpoint(source)
    engine.registry.add_endpoint(S3Endpoint(id="to", tenant=TENANT, name="to", bucket=bucket, region=emulator.region, created=now))
    selection = Selection(directory="in", glob="*.csv")
    flow = Flow(id="fl-1", tenant=TENANT, name="f", source="from", destination="to", selection=selection, created=now)
    engine.registry.add_flow(flow)
    return engine, flow


if __name__ == "__main__":
    sys.exit(main())
