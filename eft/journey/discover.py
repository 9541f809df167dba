"""Discover: list a flow's source, select, and create each found version's transfer once."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TypeVar

from eft.domain.endpoint import Endpoint
from eft.domain.fingerprint import RefusedName, RemoteFile
from eft.domain.flow import Flow
from eft.domain.instants import fire_time
from eft.domain.schedule import coming_fires
from eft.domain.transfer import Step, Transfer
from eft.domain.trigger import Misfire, Schedule
from eft.errors import EftError, Permanent, Transient
from eft.journey.accept import found_id, found_transfer, put_on_record, refuse_unpinned, refused_transfer
from eft.journey.disposal import take_up_disposals
from eft.journey.looking import Looking, Seen, Verdict, Window
from eft.journey.messages import ARRIVED, FIRE_AGAIN, Message, next_message
from eft.journey.work import Slice
from eft.ports import Engine, Run

log = logging.getLogger(__name__)
AT_LEAST = 1000
"""Files that a slice takes even if it has used its time: each slice lists anew."""
RUNS_AT_MOST = 100
"""Runs of a fire in which it waits for files to settle: some eight hours."""
LONGEST_PAUSE = timedelta(minutes=5)
BUNDLE = 16
"""Small transfers that travel in one message and share a worker's connections."""
LOOK_UP = 100
LATEST = 10
"""Fires among which a later one is looked for."""
T = TypeVar("T")


def discover(engine: Engine, fire_id: str, piece: Slice) -> list[Message]:
    """Carries one fire of a flow through; returns the messages of the transfers that it created, and its own if it is to go on.

    A crash before the end leaves the fire due: it is carried through again, and what is created already is known.

    Raises:
        NotFound: `flow_unknown`; EftError: the source cannot be listed now; the fire stays due.
    """
    tenant, flow_id, name = fire_id.split("/", 2)
    flow = engine.registry.flow(tenant, flow_id)
    if not _admitted(engine, tenant, piece):
        return [Message(step=Step.DISCOVER, ids=(fire_id,), delay=timedelta(seconds=2 + 4 * engine.clock.jitter()))]
    run = engine.ledger.begin_fire(flow, name=name, until=engine.clock.now() + FIRE_AGAIN * engine.tuning.stall)
    if run is None:
        return []
    if _superseded(engine, flow, name, run):
        engine.ledger.fire_done(flow, name=name, outcome={"superseded": 1})
        log.info("superseded by a later fire", extra={"tenant": tenant, "flow": flow_id, "fire": name})
        return []
    source = engine.registry.endpoint(tenant, flow.source)
    destination = engine.registry.endpoint(tenant, flow.destination)
    for endpoint in (source, destination):
        refuse_unpinned(endpoint)
    _refuse_shut(engine, source)
    memory = engine.ledger.memory(flow)
    looking = Looking(engine, flow, source, memory, window=window_of(name))
    counts: Counter[str] = Counter(listed=0, selected=0, created=0, refused=0)
    messages: list[Message] = []
    complete = True
    for batch in batched(_wanted(looking, counts, piece), LOOK_UP):
        messages += bundled(engine, list(_create(engine, flow, batch, looking, counts, ends=(source, destination))))
        if piece.leaving() or (piece.over() and counts["selected"] >= AT_LEAST):
            complete = False
            break
    complete = complete and not piece.leaving()
    engine.limits.succeeded(source.id)
    if looking.disposals and not piece.leaving():
        # What comes back is found by the next run.
        counts.update(take_up_disposals(engine, source, looking.disposals))
    remembered = looking.memory(complete=complete)
    if not remembered.same_as(memory):
        # Somebody else's is as good: it costs questions and looks.
        engine.ledger.remember(flow, remembered)
    # Where the flow was paused meanwhile a run ends here, unless a person asked for it: it would go on taking what comes.
    lasts = flow.enabled or _asked_for(name)
    pause = timedelta(0) if not complete else _next_look(engine, flow, looking, run.number) if lasts else None
    if pause is not None:
        engine.ledger.fire_goes_on(flow, name=name, created=counts["created"], refused=counts["refused"])
        return [*messages, Message(step=Step.DISCOVER, ids=(fire_id,), delay=pause)]
    counts.update(created=run.created, refused=run.refused)
    engine.ledger.fire_done(flow, name=name, outcome=dict(counts))
    log.info("discovered", extra={"tenant": tenant, "flow": flow_id, "fire": name, "files": dict(counts)})
    return messages


def _admitted(engine: Engine, tenant: str, piece: Slice) -> bool:
    """Takes one of the slots in which a tenant's flows may list at a time: slow servers of one customer do not hold everybody's threads."""
    key, most = f"discover:{tenant}", max(1, engine.tuning.tenant_window // 2)
    if engine.limits.acquire(key, limit=most, holder=piece.worker, lease=engine.tuning.admission_lease):
        piece.admitted.add(key)
    return key in piece.admitted


def _refuse_shut(engine: Engine, source: Endpoint) -> None:
    until = engine.limits.shut_until(source.id)
    if until is not None:
        msg = f"endpoint {source.id} has failed repeatedly; it is tried again at {until:%H:%M:%S} UTC"
        raise Transient(msg, reason="breaker_open", retry_after=until - engine.clock.now())


def _superseded(engine: Engine, flow: Flow, name: str, run: Run) -> bool:
    """Returns whether a fire that nobody asked for comes again with empty hands, where a later one of its kind lists the same anew.

    Else each fire of an outage would list the whole source at its end. The latest is never superseded, so one of them lists.
    """
    if run.number == 1 or run.created or run.refused or _asked_for(name):
        return False
    planned = fire_time(name)
    if planned is None:
        # Names of arrivals' fires sort as their minutes do.
        return any(fire.name > name for fire in engine.ledger.fires(flow, limit=LATEST) if fire.name.endswith(ARRIVED))
    if isinstance(flow.trigger, Schedule) and flow.trigger.misfire is Misfire.ALL:
        return False
    last = engine.ledger.last_fire(flow)
    return last is not None and last > planned


def _asked_for(name: str) -> bool:
    """Returns whether a person asked for a fire, rather than a schedule or an arrival."""
    return fire_time(name) is None and not name.endswith(ARRIVED)


def window_of(name: str) -> Window | None:
    """Returns the time of modification that a fire asks for (`past-<asked>-<from>-<until>-…`), if it asks for one."""
    kind, *times = name.split("-")[:4]
    if kind != "past" or len(times) < 3:  # noqa: PLR2004 - asked, from, until
        return None
    begin, end = (datetime.strptime(time, "%Y%m%dT%H%M%S").replace(tzinfo=UTC) for time in times[1:])
    return begin, end


def bundled(engine: Engine, transfers: list[Transfer]) -> list[Message]:
    """Returns the first messages of new transfers: small ones of the same step together, large ones alone."""
    messages: list[Message] = []
    small: dict[Step, list[str]] = {}
    for transfer in transfers:
        if (transfer.size or 0) > engine.tuning.inline_size // 4:
            messages += next_message(transfer)
        elif transfer.next_step is not None:
            small.setdefault(transfer.next_step, []).append(transfer.id)
    for step, ids in small.items():
        messages += [Message(step=step, ids=bundle) for bundle in batched(ids, BUNDLE)]
    return messages


def _wanted(looking: Looking, counts: Counter[str], piece: Slice) -> Iterator[Seen]:
    """Yields what is to get a transfer, until the process is to leave."""
    for seen in looking.names():
        counts["listed"] += 1
        if seen.verdict is Verdict.WAITS:
            counts["waiting"] += 1
        if seen.verdict in {Verdict.TAKEN, Verdict.REFUSED}:
            counts["selected"] += seen.verdict is Verdict.TAKEN
            yield seen
        if counts["listed"] % LOOK_UP == 0 and piece.leaving():
            return


def _create(
    engine: Engine, flow: Flow, batch: Sequence[Seen], looking: Looking, counts: Counter[str], *, ends: tuple[Endpoint, Endpoint]
) -> Iterator[Transfer]:
    ids = [found_id(flow, seen.entry) for seen in batch if isinstance(seen.entry, RemoteFile)]
    known = engine.ledger.known(ids) | engine.ownership.known(ids) if ids else set()
    for seen in batch:
        if isinstance(seen.entry, RefusedName):
            _refuse(engine, flow, seen.entry, counts, ends)
        elif found_id(flow, seen.entry) not in known:
            try:
                transfer = found_transfer(engine, flow, seen.entry, source=ends[0], destination=ends[1])
            except Permanent as error:
                # Not decided: another template may make a name of it.
                _refuse(engine, flow, RefusedName(seen.entry.path, str(error), seen.entry.fingerprint), counts, ends)
                continue
            transfer, existing = put_on_record(engine, transfer)
            if existing is None:
                counts["created"] += 1
                yield transfer
        looking.decide(seen)


def _refuse(engine: Engine, flow: Flow, entry: RefusedName, counts: Counter[str], ends: tuple[Endpoint, Endpoint]) -> None:
    counts["refused"] += 1
    engine.ledger.create(refused_transfer(engine, flow, entry, kinds=ends))


def _next_look(engine: Engine, flow: Flow, looking: Looking, run: int) -> timedelta | None:
    """Returns when this fire looks again at what has not settled; None if all has, if the next fire looks as soon, or if it is enough."""
    if not looking.begun or run > RUNS_AT_MOST:
        return None
    pause: timedelta = min(flow.selection.stability.apart * 1.25 ** min(run - 1, 40), LONGEST_PAUSE)
    pause = max(pause, flow.selection.stability.apart)
    now = engine.clock.now()
    upcoming = next(coming_fires(flow, now=now), None) if flow.enabled else None
    return None if upcoming is not None and upcoming <= now + pause else pause


def after_failed_discover(engine: Engine, fire_id: str, error: EftError) -> list[Message]:
    """Returns the next try of a fire whose source could not be listed; a permanent error ends the fire, visibly."""
    tenant, flow_id, name = fire_id.split("/", 2)
    if error.endpoint is not None:
        engine.limits.failed(error.endpoint, reason=error.reason)
    log.warning("discover failed", extra={"tenant": tenant, "flow": flow_id, "reason": error.reason, "error": str(error)})
    if isinstance(error, Transient):
        pause = timedelta(seconds=15 + 30 * engine.clock.jitter())
        return [Message(step=Step.DISCOVER, ids=(fire_id,), delay=max(pause, error.retry_after or pause))]
    try:
        flow = engine.registry.flow(tenant, flow_id)
    except Permanent:
        engine.ledger.end_fire(fire_id)
        return []
    engine.ledger.fire_done(flow, name=name, outcome={"failed": 1}, why=error)
    return []


def batched(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Yields tuples of at most `size` items (itertools has it from Python 3.12 on)."""
    rest = iter(items)
    while batch := tuple(islice(rest, size)):
        yield batch
