"""A whole engine over fakes, with its queue: what the journey's tests play in."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta

from eft.domain.endpoint import HostKey, S3Endpoint, SftpEndpoint
from eft.domain.flow import Flow, Policy, Selection
from eft.domain.transfer import RESTING, Step, Transfer
from eft.errors import EftError
from eft.journey.accept import Submission, accept
from eft.journey.advance import advance
from eft.journey.discover import after_failed_discover, discover
from eft.journey.lane import copy_lanes
from eft.journey.messages import Message, next_message
from eft.journey.operate import run_flow
from eft.journey.sweep import sweep
from eft.journey.work import Slice
from eft.ports import Engine, Tuning
from tests.fake_store import FakeServer, FakeStores
from tests.fakes import FakeClock, FakeLedger, FakeLimits, FakeOwnership, FakeRegistry, FakeSecrets

TENANT = "acme"
KEY = HostKey(algorithm="ssh-ed25519", key="AAAA")
SMALL = Tuning(part_size=1000, lane_threshold=3, lane_width=3, inline_size=1500)
"""Parts of a thousand bytes: what fakes move need not be large."""


@dataclass
class World:
    """Ports in memory, two servers of each kind, and a queue that tests drain."""

    tuning: Tuning = SMALL
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.ledger = FakeLedger()
        self.limits = FakeLimits(self.clock)
        self.registry = FakeRegistry()
        self.secrets = FakeSecrets()
        self.ownership = FakeOwnership()
        self.stores = FakeStores(self.clock)
        self.engine = Engine(
            clock=self.clock,
            ledger=self.ledger,
            limits=self.limits,
            registry=self.registry,
            secrets=self.secrets,
            stores=self.stores,
            ownership=self.ownership,
            tuning=self.tuning,
        )
        self.queue: deque[Message] = deque()
        for name in ("sftp-a", "sftp-b"):
            endpoint = SftpEndpoint(
                id=name, tenant=TENANT, name=name, host=f"{name}.test", username="u", host_keys=(KEY,), created=self.clock.now()
            )
            self.registry.add_endpoint(endpoint)
            self.stores.servers[name] = FakeServer(self.clock)
        one_service = FakeServer(self.clock, kind="s3")
        for name, server in (("s3-a", one_service), ("s3-b", FakeServer(self.clock, kind="s3"))):
            self.registry.add_endpoint(
                S3Endpoint(id=name, tenant=TENANT, name=name, bucket=f"bucket-{name}", region="us-gov-west-1", created=self.clock.now())
            )
            self.stores.servers[name] = server

    def server(self, endpoint: str) -> FakeServer:
        """Returns the server behind an endpoint."""
        return self.stores.servers[endpoint]

    def submit(self, source: str, destination: str, path: str = "in/a.bin", *, to: str | None = "out/a.bin", **policy: object) -> Transfer:
        """Accepts an ad-hoc transfer and queues it."""
        request = Submission(
            tenant=TENANT,
            source_endpoint=source,
            source_path=path,
            destination_endpoint=destination,
            destination_path=to,
            policy=Policy.model_validate(policy),
        )
        transfer = accept(self.engine, request)
        self.queue += next_message(transfer)
        return transfer

    def flow(self, source: str, destination: str, *, selection: dict[str, object] | None = None, **policy: object) -> Flow:
        """Creates a flow."""
        flow = Flow(
            id=f"flow-{self.clock.nonce()[:8]}",
            tenant=TENANT,
            name="f",
            source=source,
            destination=destination,
            destination_directory="out",
            selection=Selection.model_validate({"directory": "in", **(selection or {})}),
            policy=Policy.model_validate(policy),
            created=self.clock.now(),
        )
        self.registry.add_flow(flow)
        return flow

    def run(self, flow: Flow) -> None:
        """Fires a flow now and drains the queue."""
        self.queue += run_flow(self.engine, flow)
        self.drain()

    def slice(self, *, worker: str | None = None, leaving: bool = False) -> Slice:
        """Returns a worker's slice."""
        name = worker or f"w-{self.clock.nonce()[:6]}"
        return Slice(worker=name, clock=self.clock, length=self.tuning.slice, leaving=lambda: leaving, limits=self.limits)

    def deliver_message(self, message: Message, piece: Slice | None = None) -> list[Message]:
        """Does what a worker does with one message and returns what it would send."""
        piece = piece or self.slice()
        follow: list[Message] = []
        for one in message.ids:
            if message.step is Step.DISCOVER:
                try:
                    follow += discover(self.engine, one, piece)
                except EftError as error:
                    follow += after_failed_discover(self.engine, one, error)
            elif message.step is Step.PARTS:
                follow += copy_lanes(self.engine, one, message.part or 0, piece)
            else:
                follow += advance(self.engine, one, piece)
        piece.end()
        return follow

    def drain(self, *, rounds: int = 200) -> None:
        """Carries out messages, each after its delay, until the queue is empty."""
        for _ in range(rounds):
            if not self.queue:
                return
            message = self.queue.popleft()
            self.clock.advance(message.delay)
            self.queue += self.deliver_message(message)
        raise AssertionError(f"still {len(self.queue)} messages after {rounds} rounds: {self.queue[0]}")

    def sweep(self, *, after: timedelta | None = None) -> None:
        """Lets time pass and the sweep run."""
        self.clock.advance(after or self.tuning.stall * 2)
        self.queue += sweep(self.engine)

    def in_one_lane(self, message: Message) -> list[Message]:
        """Carries out one lane of a large file and no other: those are in another worker's hands meanwhile."""
        upload = self.ledger.load(message.ids[0]).upload
        assert upload is not None
        keys = [f"lane:{message.ids[0]}:{upload.attempt}:{lane.start}" for lane in upload.lane_ranges() if message.part not in lane]
        for key in keys:
            assert self.limits.acquire(key, limit=1, holder="other", lease=self.tuning.lease)
        try:
            return self.deliver_message(message)
        finally:
            for key in keys:
                self.limits.release(key, holder="other")

    def until_rest(self, transfer: Transfer) -> Transfer:
        """Sweeps and drains until a transfer rests, and returns it."""
        row = transfer
        for _ in range(30):
            self.drain()
            row = self.ledger.load(transfer.id)
            if row.state in RESTING:
                return row
            self.sweep()
        raise AssertionError(f"does not rest: {row.state} {row.reason} {row.error}")
