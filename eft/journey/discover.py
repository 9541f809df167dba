"""Discover: list a flow's source, select, and create each found version's transfer once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import islice
from typing import TypeVar

from eft.domain.endpoint import Endpoint
from eft.domain.fingerprint import RefusedName, RemoteFile
from eft.domain.flow import Flow
from eft.domain.transfer import Step, Transfer
from eft.errors import EftError, Permanent, Transient
from eft.journey.accept import found_id, found_transfer, put_on_record, refuse_unpinned, refused_transfer
from eft.journey.messages import Message, next_message
from eft.journey.work import Slice
from eft.ports import Engine

log = logging.getLogger(__name__)
BUNDLE = 16
"""Small transfers that travel in one message and share a worker's connections."""
LOOK_UP = 100
T = TypeVar("T")


def discover(engine: Engine, fire_id: str, piece: Slice) -> list[Message]:
    """Carries one fire of a flow through; returns the messages of the transfers that it created, and its own if the slice ended first.

    A crash before the end leaves the fire due: it is carried through again, and what is created already is known.

    Raises:
        NotFound: `flow_unknown`; EftError: the source cannot be listed now; the fire stays due.
    """
    tenant, flow_id, name = fire_id.split("/", 2)
    flow = engine.registry.flow(tenant, flow_id)
    source = engine.registry.endpoint(tenant, flow.source)
    destination = engine.registry.endpoint(tenant, flow.destination)
    for endpoint in (source, destination):
        refuse_unpinned(endpoint)
    until = engine.limits.shut_until(source.id)
    if until is not None:
        msg = f"endpoint {source.id} has failed repeatedly; it is tried again at {until:%H:%M:%S} UTC"
        raise Transient(msg, reason="breaker_open", retry_after=until - engine.clock.now())
    counts = {"listed": 0, "selected": 0, "created": 0, "refused": 0}
    created: list[Transfer] = []
    for batch in batched(_selected(engine, flow, source, counts), LOOK_UP):
        ids = [found_id(flow, file) for file in batch]
        known = engine.ledger.known(ids) | engine.ownership.known(ids)
        created += _create(engine, flow, [f for f in batch if found_id(flow, f) not in known], counts, ends=(source, destination))
        if piece.over():
            return [*bundled(engine, created), Message(step=Step.DISCOVER, ids=(fire_id,))]
    engine.limits.succeeded(source.id)
    engine.ledger.fire_done(flow, name=name, outcome=counts)
    log.info("discovered", extra={"tenant": tenant, "flow": flow_id, "files": counts})
    return bundled(engine, created)


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


def _selected(engine: Engine, flow: Flow, source: Endpoint, counts: dict[str, int]) -> Iterator[RemoteFile]:
    """Yields what the flow takes; names that cannot be moved become dead transfers that say why."""
    now = engine.clock.now()
    with engine.stores.open(source) as store:
        for entry in store.list(flow.selection.directory, recursive=flow.selection.recursive):
            counts["listed"] += 1
            if isinstance(entry, RefusedName):
                _refuse(engine, flow, entry, counts, source)
            elif flow.selection.why_not(entry, now=now) is None:
                counts["selected"] += 1
                yield entry


def _refuse(engine: Engine, flow: Flow, entry: RefusedName, counts: dict[str, int], source: Endpoint) -> None:
    if not flow.selection.names(flow.selection.below(entry.shown)):
        return
    counts["refused"] += 1
    destination = engine.registry.endpoint(flow.tenant, flow.destination)
    unique = f"{entry.shown}|{entry.fingerprint.key()}"
    engine.ledger.create(refused_transfer(engine, flow, shown=entry.shown, why=entry.why, unique=unique, kinds=(source, destination)))


def _create(
    engine: Engine, flow: Flow, files: list[RemoteFile], counts: dict[str, int], *, ends: tuple[Endpoint, Endpoint]
) -> Iterator[Transfer]:
    for file in files:
        try:
            transfer = found_transfer(engine, flow, file, source=ends[0], destination=ends[1])
        except Permanent as error:
            entry = RefusedName(shown=file.path, why=str(error), fingerprint=file.fingerprint)
            _refuse(engine, flow, entry, counts, ends[0])
            continue
        transfer, existing = put_on_record(engine, transfer)
        if existing is None:
            counts["created"] += 1
            yield transfer


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
        return []
    engine.ledger.fire_done(flow, name=name, outcome={"failed": 1})
    return []


def batched(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Yields tuples of at most `size` items (itertools has it from Python 3.12 on)."""
    rest = iter(items)
    while batch := tuple(islice(rest, size)):
        yield batch
