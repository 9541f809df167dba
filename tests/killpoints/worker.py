"""A worker's process: the engine as its settings make it, every port watched, one transfer at a time as the director orders.

It stops (SIGSTOP) or kills (SIGKILL) itself at the point that it was told, in the middle of whatever it does there.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

from eft.adapters.aws import AwsSession
from eft.bootstrap import build_engine
from eft.domain.transfer import State, Step, Transfer
from eft.errors import EftError
from eft.journey.advance import advance
from eft.journey.held import Decision, decide
from eft.journey.lane import copy_lanes
from eft.journey.messages import Message, next_message
from eft.journey.work import Slice
from eft.ports import Engine, Ledger
from eft.settings import Settings
from tests.killpoints.points import REMOTE, Passed, watch_aws, watch_sftp, watched_engine

log = logging.getLogger(__name__)

ROUNDS: Final = 40
"""Times that a worker looks for what stands still, as the sweep does, before it gives up."""
MOMENT: Final = timedelta(milliseconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one worker does with one transfer."""

    tenant: str
    transfer: str
    ahead: float
    """Seconds that this worker's clock is ahead of the machine's."""
    first_only: bool = False
    """It has the transfer's first message, and carries out what follows from it; otherwise it goes on until the transfer rests."""
    stop_at: str | None = None
    kill_at: str | None = None
    decision: str | None = None
    """An operator's word about a held transfer, carried out first."""
    wire: bool = False
    """Points are the requests between the calls of the ports, too."""
    figures: dict[str, Any] = field(default_factory=dict)
    """The journey's figures that are other than usual."""
    without: str | None = None
    """`fence`: whoever saves last is right, as if there were no claims."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of an order, as far as its worker knows."""

    points: list[str] = field(default_factory=list)
    ahead: float = 0
    trouble: str | None = None


class Worker:
    """An engine that has not connected to anything yet, to be forked, and what its process has been ordered to do."""

    def __init__(self, settings: Settings) -> None:
        self.bare = build_engine(settings)
        self._ahead = timedelta(0)
        # Every adapter asks this one clock. It is moved instead of waiting for claims to run out.
        vars(self.bare.clock)["now"] = lambda: datetime.now(UTC) + self._ahead
        self._passed: Passed | None = None
        self._wire = False
        self._watch_wire()
        self._build_clients()

    def carry_out(self, order: Order, tell: Callable[[str], None]) -> Report:
        """Does as told and returns what it passed; `tell` hears of a point to stop at, directly before."""

        def at(point: str) -> None:
            if point == order.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if point == order.stop_at:
                tell("stopping")
                os.kill(os.getpid(), signal.SIGSTOP)

        self._ahead = timedelta(seconds=order.ahead)
        passed = Passed(at)
        self._passed, self._wire = passed, order.wire
        engine = replace(self.bare, tuning=replace(self.bare.tuning, **order.figures))
        if order.without == "fence":
            engine = replace(engine, ledger=cast("Ledger", _Fenceless(engine.ledger)))
        engine = watched_engine(engine, passed)
        trouble = None
        try:
            self._play(engine, order)
        except Exception as error:
            log.exception("an order failed")
            trouble = f"{type(error).__name__}: {error}"
        self._passed = None
        return Report(points=passed.points, ahead=self._ahead.total_seconds(), trouble=trouble)

    def _play(self, engine: Engine, order: Order) -> None:
        if order.decision is not None:
            decide(engine, order.tenant, order.transfer, Decision(order.decision), by="operator", why="told so")
        row = self._load(order)
        for _ in range(ROUNDS):
            if not order.first_only:
                self._wait_for(row)
            self._drain(engine, deque(next_message(row)))
            if order.first_only:
                return
            row = self._load(order)
            if row.next_step is None:
                return
            # Nothing was sent: what stands in the way are leases of workers that are gone.
            self._ahead += self.bare.tuning.lease
        raise TimeoutError(f"still {row.state} after {ROUNDS} rounds: {row.reason} {row.error}")

    def _load(self, order: Order) -> Transfer:
        """Looks as the sweep does, which is no point of a worker's."""
        passed, self._passed = self._passed, None
        try:
            return self.bare.ledger.load(order.transfer)
        finally:
            self._passed = passed

    def _wait_for(self, row: Transfer) -> None:
        now = self.bare.clock.now()
        self._ahead += max([now, *(one + MOMENT for one in (row.claim_until, row.retry_at) if one is not None)]) - now

    def _drain(self, engine: Engine, queue: deque[Message]) -> None:
        while queue:
            message = queue.popleft()
            self._ahead += message.delay
            piece = Slice(
                worker=f"w-{os.getpid()}-{engine.clock.nonce()[:6]}", clock=engine.clock, length=engine.tuning.slice, limits=engine.limits
            )
            for one in message.ids:
                try:
                    parts = message.step is Step.PARTS
                    queue += copy_lanes(engine, one, message.part or 0, piece) if parts else advance(engine, one, piece)
                except EftError:
                    # As in a task: nothing could be written, and the message would come again. The next round is that.
                    log.warning("no row took it", exc_info=True)
            piece.end()

    def _watch_wire(self) -> None:
        """Has every request of this process tell whatever order is being carried out, if it wants to hear."""

        def hook(label: str) -> None:
            if self._wire and self._passed is not None:
                self._passed(label)

        watch_sftp(hook)
        client_of = AwsSession._client

        def watched_client(session: AwsSession, service: str) -> Any:  # noqa: ANN401 - as the original
            client = client_of(session, service)
            if service in REMOTE and not vars(client).get("_watched"):
                vars(client)["_watched"] = True
                watch_aws(client, hook)
            return client

        cast("Any", AwsSession)._client = watched_client

    def _build_clients(self) -> None:
        """Builds the clients that each process would build for itself in a tenth of a second. They have no connection to share."""
        with self.bare.stores.staging() as store:
            store_session = cast("Any", store).session
            ledger_session = cast("Any", self.bare.ledger)._table._session
        for session in (store_session, ledger_session):
            session.s3(), session.dynamodb(), session.secretsmanager()
        cast("Any", AwsSession)._after_fork = lambda _: None


class _Fenceless:
    """A ledger that lets a worker write whose claim is another's by now."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __getattr__(self, call: str) -> Any:  # noqa: ANN401 - a ledger's method
        return getattr(self._ledger, call)

    def save(self, transfer: Transfer, *, was: State) -> None:
        """Writes, whatever the row has become."""
        del was
        stands = self._ledger.load(transfer.id)
        self._ledger.save(transfer.with_(fence=stands.fence), was=stands.state)

    def renew(self, transfer: Transfer, *, until: datetime) -> None:
        """Believes that the claim is still its own."""


def serve(line: socket.socket, worker: Worker, *, log_file: Path) -> None:
    """Carries out orders, a line each, until the director hangs up."""
    with log_file.open("a") as stream:
        faulthandler.register(signal.SIGUSR1, file=stream)
        logging.basicConfig(filename=log_file, level=logging.INFO, force=True, format="%(asctime)s %(process)d %(levelname)s %(message)s")

        def tell(what: str, report: Report | None = None) -> None:
            line.sendall(json.dumps({"is": what, **(asdict(report) if report else {})}).encode() + b"\n")

        for text in line.makefile("r"):
            order = Order(**json.loads(text))
            log.info("%s", order)
            tell("done", worker.carry_out(order, tell))
