"""In-memory fakes of the ports that keep rows; `tests/contract/` holds them to the conditions of the real ones.

Each is safe for threads, counts its calls by name in `calls`, and raises what `trip` queued instead of doing what was
asked, or after it. None reads the machine's clock.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeGuard, TypeVar

from eft.domain.announcement import news
from eft.domain.breaker import Breaker
from eft.domain.congestion import EASES, WIDENS
from eft.domain.cursor import cursor_after, read_cursor
from eft.domain.endpoint import Credential, Endpoint, S3Endpoint, SecretRef
from eft.domain.flow import Arrival, Flow, Manual
from eft.domain.instants import fire_moment, fire_time, instant, millis, sortable
from eft.domain.memory import Memory, chunks_of, memory_of
from eft.domain.names import PARTITIONS, RemotePath
from eft.domain.ownership import Intent, Mode, Standing
from eft.domain.parts import PartDone
from eft.domain.transfer import FINAL, RESTING, Claim, State, Transfer
from eft.errors import Conflict, EftError, LostOwnership, NotFound, Permanent, Transient
from eft.ports import Due, Durability, Fire, Page, Remembered, Reservation, Run, Slots, Watch
from eft.ports.announcing import Listening

START: Final = datetime(2025, 1, 6, 9, 0, tzinfo=UTC)
DELIVERIES_KEPT: Final = 64
"""Sources whose newest delivery a path remembers."""
V = TypeVar("V", Endpoint, Flow)


class FakeClock:
    """A clock that moves when told, and by `tick` with each look; randomness from a seed."""

    def __init__(self, start: datetime = START, *, tick: timedelta = timedelta(0), seed: int = 1) -> None:
        self._now = start
        self._start = start
        self._tick = tick
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def now(self) -> datetime:
        with self._lock:
            self._now += self._tick
            return self._now

    def monotonic(self) -> float:
        return (self.now() - self._start).total_seconds()

    def jitter(self) -> float:
        with self._lock:
            return self._random.random()

    def nonce(self) -> str:
        with self._lock:
            return f"{self._random.getrandbits(64):016x}"

    def advance(self, by: timedelta | float) -> datetime:
        """Moves the clock forward by a duration (a number means seconds) and returns the new time."""
        step = by if isinstance(by, timedelta) else timedelta(seconds=by)
        assert step >= timedelta(0), "time does not go back"
        with self._lock:
            self._now += step
            return self._now


@dataclass(frozen=True, slots=True)
class _Trip:
    error: Exception
    after: bool


class _Fake:
    """One lock, a count per call, and errors on demand."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._trips: defaultdict[str, deque[_Trip]] = defaultdict(deque)

    def trip(self, call: str, error: Exception, *, after: bool = False, times: int = 1) -> None:
        """Makes the next calls raise `error`: before anything is done, or `after` it (a lost answer)."""
        assert callable(getattr(self, call)), call
        with self._lock:
            self._trips[call].extend([_Trip(error, after)] * times)

    @contextmanager
    def _called(self, call: str) -> Iterator[None]:
        with self._lock:
            self.calls[call] += 1
            trip = self._trips[call].popleft() if self._trips[call] else None
            if trip is not None and not trip.after:
                raise trip.error
            yield
            if trip is not None:
                raise trip.error


class _Row:
    """A row as it was written last, its times as rows keep them."""

    def __init__(self, transfer: Transfer, *, anew: bool) -> None:
        self._anew = anew
        self.claimant: str | None = None
        self._read: tuple[Transfer, Transfer] | None = None
        """What was written, and as it reads."""
        self.write(transfer)

    def write(self, transfer: Transfer) -> None:
        self.written = cut(transfer)

    @property
    def transfer(self) -> Transfer:
        """What comes back from the row: validated anew, once somebody wants it. Until then nobody changes it: transfers are frozen."""
        if not self._anew:
            return self.written
        read, written = self._read, self.written
        if read is None or read[0] is not written:
            read = self._read = written, Transfer.model_validate_json(written.model_dump_json())
        return read[1]


@dataclass
class _Path:
    holder: str | None = None
    claim: Claim = field(default=Claim(0, 0))
    source: str = ""
    order: int = 0
    delivered: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Newest delivered order and its transfer, by source; least recently delivered first."""


@dataclass
class _Fire:
    partition: int
    due_at: datetime | None
    outcome: dict[str, int] | None = None
    why: EftError | None = None
    run: Run = field(default_factory=lambda: Run(0))


class FakeLedger(_Fake):
    """`ports.Ledger` in memory."""

    def __init__(self, *, anew: bool = True) -> None:
        """Takes whether what is read is validated anew, as what a database keeps as text."""
        super().__init__()
        self._anew = anew
        self._rows: dict[str, _Row] = {}
        self._parts: dict[tuple[str, int], dict[int, PartDone]] = defaultdict(dict)
        self._paths: dict[tuple[str, str], _Path] = defaultdict(_Path)
        self._fires: dict[tuple[str, str, str], _Fire] = {}
        self._watches: dict[tuple[str, str, str], datetime] = {}
        self.listening: Listening | None = None
        self.outbox: set[str] = set()
        """Transfers that others are to be told of."""
        self._memories: dict[tuple[str, str], tuple[int, datetime | None, dict[str, bytes]]] = {}

    def create(self, transfer: Transfer) -> Transfer | None:
        with self._called("create"):
            if transfer.id in self._rows:
                return self._rows[transfer.id].transfer
            if self._post(transfer, since=None):
                transfer = transfer.with_(announced=0)
            self._rows[transfer.id] = _Row(transfer, anew=self._anew)
            return None

    def load(self, transfer_id: str) -> Transfer:
        with self._called("load"):
            row = self._row(transfer_id)
        return row.transfer

    def known(self, transfer_ids: Sequence[str]) -> set[str]:
        with self._called("known"):
            return {one for one in transfer_ids if one in self._rows}

    def claim(self, transfer_id: str, *, worker: str, now: datetime, lease: timedelta, force: bool = False) -> Transfer | None:
        with self._called("claim"):
            row = self._row(transfer_id)
            standing = row.written.claim_until
            if not (force or standing is None or standing < _cut(now) or row.claimant == worker):
                return None
            until = now + lease
            row.claimant = worker
            row.write(row.written.with_(fence=row.written.fence + 1, claim_until=until, due_at=until))
        return row.transfer

    def renew(self, transfer: Transfer, *, until: datetime) -> None:
        with self._called("renew"):
            row = self._rows.get(transfer.id)
            if not _holds(row, transfer) or row.written.claim_until is None:
                raise LostOwnership("another worker has the transfer, or it was released")
            row.write(row.written.with_(claim_until=until, due_at=until))

    def save(self, transfer: Transfer, *, was: State) -> None:
        with self._called("save"):
            row = self._rows.get(transfer.id)
            if not _holds(row, transfer) or row.written.state is not was:
                raise LostOwnership("another worker has the transfer")
            self._post(transfer, since=was)
            if transfer.announced != row.written.announced:
                transfer = transfer.with_(announced=row.written.announced)
            row.write(transfer)
            if transfer.claim_until is None:
                row.claimant = None

    def adopt(self, transfer: Transfer) -> bool:
        with self._called("adopt"):
            stands = self._rows.get(transfer.id)
            if stands is not None and stands.transfer.region_epoch >= transfer.region_epoch:
                return False
            self._post(transfer, since=None)
            self._rows[transfer.id] = _Row(transfer, anew=self._anew)
            return True

    def unsettled(self, partition: int) -> Iterator[Transfer]:
        with self._called("unsettled"):
            found = [
                row.transfer
                for row in self._rows.values()
                if row.transfer.partition == partition and row.transfer.state not in FINAL and not row.transfer.elsewhere
            ]
        yield from found

    def page(
        self,
        tenant: str,
        *,
        state: State | None = None,
        flow: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[Transfer]:
        with self._called("page"):
            scope = ("transfers", tenant, state, flow)
            after = None if cursor is None else read_cursor(cursor, scope=scope)
            shown = {
                f"{sortable(row.transfer.created)}#{one}": row.transfer
                for one, row in self._rows.items()
                if row.transfer.tenant == tenant and state in {None, row.transfer.state} and flow in {None, row.transfer.flow}
            }
            keys = sorted((key for key in shown if after is None or key < after), reverse=True)
            more = cursor_after(keys[limit - 1], scope=scope) if len(keys) > limit else None
            return Page([shown[key] for key in keys[:limit]], more)

    def record_parts(self, transfer_id: str, *, attempt: int, done: Sequence[PartDone]) -> None:
        with self._called("record_parts"):
            for part in done:
                self._parts[transfer_id, attempt].setdefault(part.number, part)

    def parts(self, transfer_id: str, *, attempt: int) -> dict[int, PartDone]:
        with self._called("parts"):
            return dict(sorted(self._parts[transfer_id, attempt].items()))

    def reserve(self, *, endpoint: str, path: RemotePath, transfer: str, claim: Claim, source: str, order: int) -> Reservation:
        with self._called("reserve"):
            held = self._paths[endpoint, path]
            newest, by = held.delivered.get(source, (order, transfer))
            if newest > order:
                return Reservation("superseded", by)
            if held.holder not in {None, transfer}:
                return Reservation("busy", held.holder)
            if held.holder == transfer and held.claim > claim:
                raise LostOwnership("a later claim of the transfer has reserved the path")
            held.holder, held.claim, held.source, held.order = transfer, claim, source, order
            return Reservation("mine", transfer, by if newest == order and by != transfer else None)

    def release(self, *, endpoint: str, path: RemotePath, transfer: str, claim: Claim, delivered: bool) -> None:
        with self._called("release"):
            held = self._paths[endpoint, path]
            if held.holder != transfer or held.claim > claim:
                return
            held.holder = None
            if delivered:
                held.delivered.pop(held.source, None)
                held.delivered[held.source] = (held.order, transfer)
                while len(held.delivered) > DELIVERIES_KEPT:
                    held.delivered.pop(next(iter(held.delivered)))

    def remember_delivered(self, *, endpoint: str, path: RemotePath, transfer: str, source: str, order: int) -> None:
        with self._called("remember_delivered"):
            held = self._paths[endpoint, path]
            newest, _ = held.delivered.get(source, (order - 1, transfer))
            if newest < order:
                held.delivered.pop(source, None)
                held.delivered[source] = (order, transfer)

    def reservations(self, partition: int) -> Iterator[tuple[str, str, str]]:
        with self._called("reservations"):
            held = [(endpoint, path, one.holder) for (endpoint, path), one in self._paths.items() if one.holder is not None]
        yield from [one for one in held if int(one[2][:2], 16) == partition]

    def forget(self, flow: Flow) -> None:
        with self._called("forget"):
            self._memories.pop((flow.tenant, flow.id), None)

    def watch(self, watch: Watch) -> None:
        with self._called("watch"):
            key = (watch.tenant, watch.endpoint, watch.directory)
            self._watches[key] = max(self._watches.get(key, watch.until), watch.until)

    def watched(self) -> Iterator[Watch]:
        with self._called("watched"):
            found = [Watch(*key, until) for key, until in self._watches.items()]
        yield from found

    def unwatch(self, watch: Watch) -> None:
        with self._called("unwatch"):
            key = (watch.tenant, watch.endpoint, watch.directory)
            if self._watches.get(key) == watch.until:
                del self._watches[key]

    def count(self, tenant: str, *, since: datetime, state: State | None = None) -> int:
        with self._called("count"):
            rows = [row.transfer for row in self._rows.values() if row.transfer.tenant == tenant and row.transfer.created >= since]
            return sum(state in {None, one.state} for one in rows)

    def due(self, partition: int, *, before: datetime, limit: int = 100) -> Sequence[Due]:
        with self._called("due"):
            found = [
                Due("transfer", row.transfer.id, row.transfer.due_at)
                for row in self._rows.values()
                if row.transfer.partition == partition and row.transfer.due_at is not None
            ] + [
                Due("fire", "/".join(key), fire.due_at)
                for key, fire in self._fires.items()
                if fire.partition == partition and fire.due_at is not None
            ]
            past = [one for one in found if one.due_at <= before]
            return sorted(past, key=lambda one: one.due_at)[:limit]

    def postpone(self, due: Due, *, until: datetime) -> bool:
        with self._called("postpone"):
            if due.kind == "transfer":
                row = self._rows.get(due.id)
                if row is None or row.transfer.due_at is None or row.transfer.due_at != _cut(due.due_at):
                    return False
                row.write(row.written.with_(due_at=until))
                return True
            tenant, flow, name = due.id.split("/", 2)
            fire = self._fires.get((tenant, flow, name))
            if fire is None or fire.due_at is None or fire.due_at != _cut(due.due_at):
                return False
            fire.due_at = _cut(until)
            return True

    def fire(self, flow: Flow, *, at: datetime, name: str, partition: int, outcome: dict[str, int] | None = None) -> bool:
        with self._called("fire"):
            key = (flow.tenant, flow.id, name)
            if key in self._fires:
                return False
            self._fires[key] = _Fire(partition=partition, due_at=_cut(at) if outcome is None else None, outcome=outcome)
            return True

    def begin_fire(self, flow: Flow, *, name: str, until: datetime) -> Run | None:
        with self._called("begin_fire"):
            fire = self._fires.get((flow.tenant, flow.id, name))
            if fire is None:
                return Run()
            if fire.outcome is not None:
                return None
            fire.run, fire.due_at = replace(fire.run, number=fire.run.number + 1), _cut(until)
            return fire.run

    def fire_goes_on(self, flow: Flow, *, name: str, created: int, refused: int) -> None:
        with self._called("fire_goes_on"):
            fire = self._fires.get((flow.tenant, flow.id, name))
            if fire is not None and fire.outcome is None:
                fire.run = replace(fire.run, created=fire.run.created + created, refused=fire.run.refused + refused)

    def fire_done(self, flow: Flow, *, name: str, outcome: dict[str, int], why: EftError | None = None) -> None:
        with self._called("fire_done"):
            fire = self._fires.get((flow.tenant, flow.id, name))
            if fire is not None and fire.outcome is None:
                fire.outcome, fire.due_at, fire.why = dict(outcome), None, why

    def end_fire(self, fire_id: str) -> None:
        with self._called("end_fire"):
            tenant, flow, name = fire_id.split("/", 2)
            fire = self._fires.get((tenant, flow, name))
            if fire is not None and fire.outcome is None:
                fire.outcome, fire.due_at = {"failed": 1}, None

    def last_fire(self, flow: Flow) -> datetime | None:
        with self._called("last_fire"):
            names = [name for tenant, one, name in self._fires if (tenant, one) == (flow.tenant, flow.id)]
            last = max((name for name in names if fire_time(name) is not None), default=None)
            return None if last is None else fire_time(last)

    def untold(self) -> list[Transfer]:
        """Returns the transfers that others are to be told of, oldest first."""
        with self._lock:
            return [one for one in self.rows() if one.id in self.outbox]

    def announced(self, transfer_id: str, *, milestones: int) -> None:
        """Notes how many milestones were told; with more of them by now the row stays in the outbox."""
        with self._lock:
            row = self._row(transfer_id)
            row.write(row.written.with_(announced=max(milestones, row.written.announced or 0)))
            if not news(row.transfer, since=None):
                self.outbox.discard(transfer_id)

    def _post(self, transfer: Transfer, *, since: State | None) -> bool:
        if transfer.elsewhere is not None:
            self.outbox.discard(transfer.id)
        if self.listening is None or transfer.elsewhere is not None or not news(transfer, since=since):
            return False
        if transfer.announced is None and transfer.task_token is None and not self.listening.wanted(transfer.tenant):
            return False
        self.outbox.add(transfer.id)
        return True

    def fires(self, flow: Flow, *, limit: int) -> Sequence[Fire]:
        with self._called("fires"):
            found = [
                Fire(name, fire.outcome, *((fire.why.reason, str(fire.why)) if fire.why else ()))
                for (*owner, name), fire in self._fires.items()
                if owner == [flow.tenant, flow.id]
            ]
            return sorted(found, key=lambda fire: fire_moment(fire.name), reverse=True)[:limit]

    def memory(self, flow: Flow) -> Memory:
        with self._called("memory"):
            revision, watermark, chunks = self._memories.get((flow.tenant, flow.id), (0, None, {}))
            return memory_of(chunks, revision=revision, watermark=watermark) if revision else Memory()

    def remember(self, flow: Flow, memory: Memory) -> bool:
        with self._called("remember"):
            if self._memories.get((flow.tenant, flow.id), (0, None, {}))[0] != memory.revision:
                return False
            watermark = None if memory.watermark is None else _cut(memory.watermark)
            self._memories[flow.tenant, flow.id] = (memory.revision + 1, watermark, chunks_of(memory))
            return True

    # -- for tests to look at ------------------------------------------------------------------------------------------

    def rows(self) -> list[Transfer]:
        """Returns all transfers, oldest first."""
        with self._lock:
            return sorted((row.transfer for row in self._rows.values()), key=lambda one: (one.created, one.id))

    def holder(self, endpoint: str, path: str) -> str | None:
        """Returns the transfer that has reserved a destination path."""
        with self._lock:
            return self._paths[endpoint, path].holder

    def outcome(self, flow: Flow, name: str) -> dict[str, int] | None:
        """Returns what `fire_done` noted."""
        with self._lock:
            return self._fires[flow.tenant, flow.id, name].outcome

    def _row(self, transfer_id: str) -> _Row:
        if transfer_id not in self._rows:
            raise NotFound(f"there is no transfer '{transfer_id}'", reason="transfer_unknown")
        return self._rows[transfer_id]


class FakeLimits(_Fake):
    """`ports.Limits` in memory."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock
        self._slots: dict[str, dict[str, datetime]] = defaultdict(dict)
        self._eased: dict[str, tuple[int, datetime]] = {}
        """Keys of which fewer slots are allowed: how many, and since when."""
        self._breakers: dict[str, Breaker] = {}

    def acquire(self, key: str, *, limit: int, holder: str, lease: timedelta) -> Slots | None:
        with self._called("acquire"):
            now = self._clock.now()
            slots = {one: until for one, until in self._slots[key].items() if one == holder or until >= now}
            allowed, eased = self._eased.get(key, (limit, now))
            if holder not in slots and len(slots) >= min(limit, allowed):
                if len(slots) >= limit or now < eased + WIDENS:
                    return None
                allowed += 1
                self._eased[key] = (allowed, now)
            self._slots[key] = {**slots, holder: now + lease}
            return Slots(len(self._slots[key]), min(limit, allowed))

    def ease(self, key: str, *, to: int) -> bool:
        with self._called("ease"):
            now = self._clock.now()
            allowed, eased = self._eased.get(key, (None, now))
            if key not in self._slots or (allowed is not None and (allowed <= to or eased >= now - EASES)):
                return False
            self._eased[key] = (to, now)
            return True

    def release(self, key: str, *, holder: str) -> None:
        with self._called("release"):
            self._slots[key].pop(holder, None)

    def shut_until(self, endpoint: str) -> datetime | None:
        with self._called("shut_until"):
            breaker = self._breakers.get(endpoint, Breaker())
            probed = breaker.probed(self._clock.now())
            if probed is None:
                return breaker.shut_until
            self._breakers[endpoint] = probed
            return None

    def failed(self, endpoint: str, *, reason: str) -> None:
        with self._called("failed"):
            self._breakers[endpoint] = self._breakers.get(endpoint, Breaker()).failed(self._clock.now())

    def succeeded(self, endpoint: str) -> None:
        with self._called("succeeded"):
            self._breakers.pop(endpoint, None)

    def inconclusive(self, endpoint: str) -> None:
        with self._called("inconclusive"):
            given_back = self._breakers.get(endpoint, Breaker()).inconclusive(self._clock.now())
            if given_back is not None:
                self._breakers[endpoint] = given_back

    # -- for tests to look at ------------------------------------------------------------------------------------------

    def holders(self, key: str) -> set[str]:
        """Returns who has a slot that is not yet given back, expired or not."""
        with self._lock:
            return set(self._slots[key])


class FakeRegistry(_Fake):
    """`ports.Registry` in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._endpoints: dict[tuple[str, str], Endpoint] = {}
        self._flows: dict[tuple[str, str], Flow] = {}

    def add_endpoint(self, endpoint: Endpoint) -> None:
        with self._called("add_endpoint"):
            _add(self._endpoints, endpoint, "endpoint")

    def change_endpoint(self, endpoint: Endpoint) -> None:
        with self._called("change_endpoint"):
            _change(self._endpoints, endpoint)

    def endpoint(self, tenant: str, endpoint_id: str) -> Endpoint:
        with self._called("endpoint"):
            return _get(self._endpoints, (tenant, endpoint_id), "endpoint")

    def endpoints(self, tenant: str, *, limit: int = 50, cursor: str | None = None) -> Page[Endpoint]:
        with self._called("endpoints"):
            return _list(self._endpoints, ("endpoints", tenant), limit=limit, cursor=cursor)

    def remove_endpoint(self, tenant: str, endpoint_id: str, *, revision: int) -> None:
        with self._called("remove_endpoint"):
            _remove(self._endpoints, (tenant, endpoint_id), revision=revision)

    def add_flow(self, flow: Flow) -> None:
        with self._called("add_flow"):
            _add(self._flows, flow, "flow")

    def change_flow(self, flow: Flow) -> None:
        with self._called("change_flow"):
            _change(self._flows, flow)

    def flow(self, tenant: str, flow_id: str) -> Flow:
        with self._called("flow"):
            return _get(self._flows, (tenant, flow_id), "flow")

    def flows(self, tenant: str, *, limit: int = 50, cursor: str | None = None) -> Page[Flow]:
        with self._called("flows"):
            return _list(self._flows, ("flows", tenant), limit=limit, cursor=cursor)

    def remove_flow(self, tenant: str, flow_id: str, *, revision: int) -> None:
        with self._called("remove_flow"):
            _remove(self._flows, (tenant, flow_id), revision=revision)

    def tenants(self) -> Sequence[str]:
        with self._called("tenants"):
            return sorted({tenant for tenant, _ in {*self._endpoints, *self._flows}})

    def scheduled_flows(self) -> Iterator[Flow]:
        with self._called("scheduled_flows"):
            enabled = [flow for flow in self._flows.values() if flow.enabled]
        yield from [flow for flow in enabled if flow.expected is not None or not isinstance(flow.trigger, Manual)]

    def arrival_flows(self, bucket: str) -> Iterator[tuple[Flow, S3Endpoint]]:
        with self._called("arrival_flows"):
            waiting = [flow for flow in self._flows.values() if flow.enabled and isinstance(flow.trigger, Arrival)]
            found = [(flow, self._endpoints.get((flow.tenant, flow.source))) for flow in waiting]
        yield from [(flow, source) for flow, source in found if isinstance(source, S3Endpoint) and source.bucket == bucket]


class FakeSecrets(_Fake):
    """`ports.Secrets` in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._credentials: dict[str, Credential] = {}

    def get(self, ref: SecretRef) -> Credential:
        with self._called("get"):
            if ref.name not in self._credentials:
                raise Permanent(f"there is no secret '{ref.name}'", reason="secret_missing")
            return self._credentials[ref.name]

    def forget(self, ref: SecretRef) -> None:
        with self._called("forget"):
            return

    def put(self, *, tenant: str, endpoint: str, credential: Credential) -> SecretRef:
        with self._called("put"):
            ref = SecretRef(name=f"eft/{tenant}/{endpoint}")
            self._credentials[ref.name] = credential
            return ref

    def remove(self, ref: SecretRef) -> None:
        with self._called("remove"):
            self._credentials.pop(ref.name, None)


class FakeOwnership(_Fake):
    """`ports.Ownership` in memory; also refuses what no correct journey does: an intent beside one not abandoned."""

    def __init__(self, *, region: str = "us-gov-west-1", mode: Mode = Mode.SOLO) -> None:
        super().__init__()
        self.region = region
        self.mode = mode
        self.peer_reachable = True
        self.intents: dict[str, Intent] = {}
        """The last one acknowledged, by transfer."""
        self.abandoned: set[str] = set()
        """Tokens."""
        self._homes: dict[int, tuple[str, int]] = {}

    def promote(self, partition: int, *, home: str) -> int:
        """Gives a partition to a region and returns the raised region_epoch, which fences the one before."""
        with self._lock:
            epoch = self._home(partition)[1] + 1
            self._homes[partition] = (home, epoch)
            return epoch

    def remember(self, transfer: Transfer, *, demand_both: bool = False) -> Remembered:
        with self._called("remember"):
            assert demand_both is transfer.policy.both_regions
            return Remembered(durability=Durability.ONE, home=self.region, region_epoch=self._home(transfer.partition)[1])

    def known(self, transfers: Sequence[str]) -> set[str]:
        with self._called("known"):
            assert transfers
            return set()

    def forget(self, transfer: Transfer) -> None:
        with self._called("forget"):
            assert transfer.state in FINAL

    def standing(self, partition: int, *, begin: bool = False) -> Standing:
        assert begin in {True, False}
        with self._called("standing"):
            home, epoch = self._home(partition)
            if home != self.region:
                raise LostOwnership(f"the home of partition {partition} is {home}")
            return Standing(partition=partition, home=home, region_epoch=epoch, mode=self.mode)

    def owned(self) -> Sequence[int]:
        with self._called("owned"):
            return [one for one in range(PARTITIONS) if self._home(one)[0] == self.region]

    def ack(self, intent: Intent) -> None:
        with self._called("ack"):
            self._admit(intent)
            before = self.intents.get(intent.transfer)
            if before is not None and before.token != intent.token and before.token not in self.abandoned:
                raise LostOwnership(f"attempt {before.attempt} may have been committed and was never abandoned")
            self.intents[intent.transfer] = intent

    def abandon(self, intent: Intent) -> None:
        with self._called("abandon"):
            self._admit(intent)
            self.abandoned.add(intent.token)

    def renounce(self, transfer: Transfer) -> None:
        with self._called("renounce"):
            self._admit(transfer)

    def _home(self, partition: int) -> tuple[str, int]:
        return self._homes.get(partition, (self.region, 1))

    def _admit(self, intent: Intent | Transfer) -> None:
        home, epoch = self._home(intent.partition)
        if home != self.region or intent.region_epoch < epoch:
            raise LostOwnership(f"partition {intent.partition} is at region_epoch {epoch}, home {home}")
        if self.mode is Mode.DUAL and not self.peer_reachable:
            raise Transient("the peer region does not answer", reason="peer_unreachable")


def _cut(at: datetime) -> datetime:
    """Times on rows are whole milliseconds."""
    return instant(millis(at))


def _holds(row: _Row | None, transfer: Transfer) -> TypeGuard[_Row]:
    """Whether the row's fence is the transfer's, of the same era or a later one of the transfer's."""
    return row is not None and row.written.fence == transfer.fence and row.written.region_epoch <= transfer.region_epoch


def cut(transfer: Transfer) -> Transfer:
    """Returns a transfer as a row keeps it: claim and due time in whole milliseconds, nothing due at rest."""
    claim, due = transfer.claim_until, transfer.due_at
    return transfer.with_(
        claim_until=None if claim is None else _cut(claim),
        due_at=None if due is None or transfer.state in RESTING or transfer.elsewhere is not None else _cut(due),
    )


def _add(values: dict[tuple[str, str], V], value: V, what: Literal["endpoint", "flow"]) -> None:
    if (value.tenant, value.id) in values:
        raise Conflict(f"{what} '{value.id}' exists", reason=f"{what}_exists")
    values[value.tenant, value.id] = value


def _change(values: dict[tuple[str, str], V], value: V) -> None:
    stands = values.get((value.tenant, value.id))
    if stands is None or stands.revision != value.revision - 1:
        raise Conflict(f"'{value.id}' has changed meanwhile", reason="revision_differs")
    values[value.tenant, value.id] = value


def _get(values: Mapping[tuple[str, str], V], key: tuple[str, str], what: Literal["endpoint", "flow"]) -> V:
    if key not in values:
        raise NotFound(f"there is no {what} '{key[1]}'", reason=f"{what}_unknown")
    return values[key]


def _list(values: Mapping[tuple[str, str], V], scope: tuple[str, str], *, limit: int, cursor: str | None) -> Page[V]:
    after = "" if cursor is None else read_cursor(cursor, scope=scope)
    ids = sorted(one for tenant, one in values if tenant == scope[1] and one > after)
    more = cursor_after(ids[limit - 1], scope=scope) if len(ids) > limit else None
    return Page([values[scope[1], one] for one in ids[:limit]], more)


def _remove(values: dict[tuple[str, str], V], key: tuple[str, str], *, revision: int) -> None:
    if key not in values or values[key].revision != revision:
        raise Conflict(f"'{key[1]}' has changed meanwhile", reason="revision_differs")
    del values[key]
