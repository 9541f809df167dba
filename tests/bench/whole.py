"""The whole engine as a tool: API → SQS → workers → receipt, on the local stack, measured from the first request to the last receipt."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from deploy.local.customer import Customer, JsonObject
from deploy.local.process import Stack
from deploy.local.sftp import SftpAccount
from deploy.local.stack import LocalStack
from tests.bench.gauge import cpu_seconds, forget_peak, peak_bytes
from tests.bench.measured import Measured
from tests.bench.outside import Outside, Place
from tests.bench.peers import Case, PeerFailed

FEW: Final = 8
"""Files that are asked for one by one; more are a flow's."""
SLOTS: Final = 32
PATIENCE: Final = timedelta(minutes=10)
MOVING: Final = ("accepted", "staging", "staged", "delivering", "committing", "delivered", "held", "dead")


class WholeEngine:
    """API, workers and beat, beside an AWS emulator that holds rows, queues and secrets, but no file."""

    def __init__(self, directory: Path, stack: Stack, *, workers: int, concurrency: int, settings: Mapping[str, str]) -> None:
        """Starts everything with the engine's own settings, but for those given. Monitoring is off: Flower has no part in a transfer."""
        self._stack = stack.start(_Local(directory, workers=workers, concurrency=concurrency, settings=settings))
        self._customer = Customer("bench", self._stack.local.client("bench"))
        stack.call_at_end(self._customer.http.close)
        self._endpoints: dict[Place, str] = {}

    def __call__(self, outside: Outside, case: Case, **policy: object) -> Measured:
        """Moves a case's files and returns what it took.

        Raises:
            PeerFailed: a transfer did not end with a receipt, or files differ in size.
        """
        ends = [self._endpoint(place) for place in (case.source, case.target)]
        workers, clients, emulator = self._processes()
        forget_peak(workers)
        before = [cpu_seconds(one) for one in (clients, outside.servers, emulator, outside.distances)]
        began = time.time()
        rows = self._ask(case, ends, policy) if len(case.workload.sizes) <= FEW else self._run(case, ends, policy)
        used = [cpu_seconds(one) - held for one, held in zip((clients, outside.servers, emulator, outside.distances), before, strict=True)]
        last = max(datetime.fromisoformat(row["since"]).timestamp() for row in rows)
        wrong = [row for row in rows if row["state"] != "settled"]
        if wrong or sum(row["size"] for row in rows) != case.workload.bytes or len(rows) != len(case.workload.sizes):
            raise PeerFailed(f"{len(rows)} transfers, {len(wrong)} not settled: {wrong[:1]}")
        return Measured(
            seconds=last - began,
            bytes=case.workload.bytes,
            files=len(rows),
            client_cpu=used[0],
            server_cpu=used[1],
            emulator_cpu=used[2],
            distance_cpu=used[3],
            peak=peak_bytes(workers),
        )

    def add_worker(self, name: str) -> None:
        """One more worker."""
        self._stack.local.add_worker(name)

    def times(self, case: Case) -> tuple[float, list[float]]:
        """Asks for each file of a case by itself; returns the seconds that all took, and of each those from claim to receipt."""
        ends = [self._endpoint(place) for place in (case.source, case.target)]
        began = time.time()
        ids = [self._submit(case, ends, path, {}) for path in case.workload.paths]
        seen = [self._customer.rested(one, limit=PATIENCE) for one in ids]
        if any(one["state"] != "settled" for one in seen):
            raise PeerFailed(f"not settled: {[one['error'] for one in seen if one['state'] != 'settled'][:1]}")
        last = max(datetime.fromisoformat(one["since"]).timestamp() for one in seen)
        return last - began, [_seconds_in_work(one) for one in seen]

    def _processes(self) -> tuple[list[int], list[int], list[int]]:
        local = self._stack.local
        workers = [pid for name in local.workers for pid in local.worker_pids(name)]
        engine = [child.pid for child in local._engine.values()]
        return workers, [child.pid for child in local.workers.values()] + engine, [local.aws.child.pid]

    def _endpoint(self, place: Place) -> str:
        if place not in self._endpoints:
            name = f"end-{len(self._endpoints)}"
            if isinstance(place, SftpAccount):
                made = self._customer.add_sftp(name, place, max_connections=SLOTS)
            else:
                credential = {"access_key_id": place.access_key, "secret_access_key": place.secret_key}
                made = self._customer.add_s3(name, place.name, endpoint_url=place.url, credential=credential, max_connections=SLOTS)
            self._endpoints[place] = made
        return self._endpoints[place]

    def _ask(self, case: Case, ends: list[str], policy: Mapping[str, object]) -> list[JsonObject]:
        ids = [self._submit(case, ends, path, policy) for path in case.workload.paths]
        # What is measured is on the rows; each look is a request to the API, and by it to the emulator.
        return [self._customer.rested(one, limit=PATIENCE, every=1) for one in ids]

    def _submit(self, case: Case, ends: list[str], path: str, policy: Mapping[str, object]) -> str:
        more: dict[str, Any] = {"policy": dict(policy)} if policy else {}
        return self._customer.submit((ends[0], path), (ends[1], f"{case.into}/{Path(path).name}"), **more)

    def _run(self, case: Case, ends: list[str], policy: Mapping[str, object]) -> list[JsonObject]:
        flow = self._customer.add_flow(
            case.into,
            ends[0],
            ends[1],
            selection={"directory": case.workload.name},
            destination_directory=case.into,
            policy=dict(policy),
        )
        self._customer.run(flow)
        until = time.monotonic() + PATIENCE.total_seconds()
        while time.monotonic() < until:
            # One page of one row per state: listing thousands of rows would be most of the emulator's work.
            over = any(fire["ended"] for fire in self._customer.get(f"/flows/{flow}/fires")["latest"])
            if over and not any(self._customer.get("/transfers", flow=flow, state=state, limit=1)["items"] for state in MOVING[:-2]):
                return list(self._customer.transfers(flow=flow))
            time.sleep(0.5)
        raise PeerFailed(f"the flow was not done after {PATIENCE.total_seconds():g} s")


class _Local:
    """The stack with production's settings instead of the short ones of tests."""

    def __init__(self, directory: Path, *, workers: int, concurrency: int, settings: Mapping[str, str]) -> None:
        figures = {"EFT_POLL_WAIT": "2", **settings}
        self.local = LocalStack(directory, workers=workers, concurrency=concurrency, figures=figures, monitored=False)

    def start(self) -> _Local:
        self.local.start()
        return self

    def stop(self) -> None:
        self.local.stop()


def _seconds_in_work(shown: JsonObject) -> float:
    """From the first event after acceptance to the last."""
    moments = [datetime.fromisoformat(event["at"]) for event in shown["timeline"]]
    return (moments[-1] - moments[1]).total_seconds()
