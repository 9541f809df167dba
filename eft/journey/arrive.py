"""Arrive: an object that its bucket told of becomes a transfer on each flow that waits for it, once.

The event says where to look, not what is there: a look at the object gives the fingerprint, the same one that a listing shows. So events
may come twice, late, in any order or not at all, and the listing of `Arrival.listed_every` meets what they made. Where the bucket keeps
versions, one that was written over before its event was read is taken, too.
"""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from eft.domain.arrival import Arrived
from eft.domain.endpoint import Endpoint, S3Endpoint
from eft.domain.fingerprint import RefusedName, RemoteFile
from eft.domain.flow import Flow
from eft.domain.names import RemotePath, display, is_token, partition_of, remote_path
from eft.domain.transfer import Transfer
from eft.errors import EftError, NotFound, Permanent, Transient
from eft.journey.accept import found_id, found_transfer, put_on_record, refuse_unpinned, refused_transfer
from eft.journey.messages import ARRIVED
from eft.ports import Engine

log = logging.getLogger(__name__)
LISTED_AFTER = timedelta(minutes=1, seconds=1)
"""From the beginning of the minute in which something arrived for a flow that must list to know what is finished."""
Seen = RemoteFile | RefusedName


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one event: the transfers that it created, and the error after which it must come again, if one was."""

    created: tuple[Transfer, ...] = ()
    trouble: EftError | None = None


def arrive(engine: Engine, event: Arrived, counts: Counter[str]) -> Taken:
    """Creates the event's transfers; `counts` gets what became of it on each flow, or why it concerned none.

    One flow's trouble leaves the others alone: the event comes again only where it could not even be noted that its source is to be
    listed. So nobody's broken endpoint keeps another tenant's events going round, whose bucket it names. Carried through again, what is
    created already is known.

    Raises:
        EftError: the registry cannot be read now.
    """
    if event.key.endswith("/") or is_token(event.key):
        counts["no_file"] += 1
        return Taken()
    pairs = list(engine.registry.arrival_flows(event.bucket))
    if not pairs:
        counts["unknown_bucket"] += 1
        log.warning("no flow waits for arrivals in this bucket", extra={"bucket": display(event.bucket)})
        return Taken()
    wanted = False
    created: list[Transfer] = []
    trouble: EftError | None = None
    seen: dict[tuple[str, str], list[Seen]] = {}
    for flow, source in pairs:
        try:
            taken = _take(engine, flow, source, event, seen=seen, counts=counts)
            wanted = wanted or taken is not None
            created += taken or ()
        except EftError as error:
            wanted = True
            trouble = _after(engine, flow, error, counts) or trouble
        except Exception as error:
            # A fault of ours on one flow keeps no other one waiting. Only the next listing can show that it is gone.
            wanted = True
            log.exception("arrival not taken", extra={"tenant": flow.tenant, "flow": flow.id})
            trouble = _after(engine, flow, Transient(str(error), reason="unexpected"), counts) or trouble
    if not wanted:
        counts["no_flow"] += 1
    return Taken(tuple(created), trouble)


def _take(
    engine: Engine, flow: Flow, source: S3Endpoint, event: Arrived, *, seen: dict[tuple[str, str], list[Seen]], counts: Counter[str]
) -> list[Transfer] | None:
    """Returns the transfers that one flow makes of an event, or None where it does not want the key; `seen` spares looks."""
    below = _wanted(flow, source, event.key)
    if below is None:
        return None
    if _needs_listing(flow):
        _list_soon(engine, flow, counts)
        return []
    if (source.tenant, source.id) not in seen:
        seen[source.tenant, source.id] = _look(engine, source, below, event.version)
    return [made for one in seen[source.tenant, source.id] for made in _create(engine, flow, source, one, counts)]


def _wanted(flow: Flow, source: S3Endpoint, key: str) -> str | None:
    """Returns the key's path below the endpoint where the flow's directory and pattern take it, else None."""
    root = f"{source.prefix}/" if source.prefix else ""
    if not key.startswith(root):
        return None
    below = key[len(root) :]
    selection = flow.selection
    directory = f"{selection.directory}/" if selection.directory else ""
    if not below.startswith(directory):
        return None
    rest = below[len(directory) :]
    if not rest or ("/" in rest and not selection.recursive):
        return None
    beside = flow.policy.sidecar or selection.is_marker(rest.rpartition("/")[2])
    return below if beside or selection.names(rest) else None


def _needs_listing(flow: Flow) -> bool:
    """Returns whether an object alone does not say that it is finished."""
    stability = flow.selection.stability
    return stability.looks > 1 or stability.done_marker is not None or flow.policy.sidecar


def _list_soon(engine: Engine, flow: Flow, counts: Counter[str]) -> None:
    """Fires the flow for all that arrives within this minute, at its end: the sweep sends it then."""
    begun = engine.clock.now().replace(second=0, microsecond=0)
    fired = engine.ledger.fire(
        flow, at=begun + LISTED_AFTER, name=f"now-{begun:%Y%m%dT%H%M%S}{ARRIVED}", partition=partition_of(flow.tenant, flow.destination)
    )
    counts["to_be_listed"] += 1
    if fired:
        log.info("the source is listed soon", extra={"tenant": flow.tenant, "flow": flow.id})


def _look(engine: Engine, source: S3Endpoint, below: str, version: str | None) -> list[Seen]:
    """Returns what stands under a key, after the version that the event tells of where it is another one and is kept.

    What its owner has removed is nobody's to take.
    """
    until = engine.limits.shut_until(source.id)
    if until is not None:
        msg = f"endpoint {source.id} has failed repeatedly; it is tried again at {until:%H:%M:%S} UTC"
        raise Transient(msg, reason="breaker_open", retry_after=until - engine.clock.now())
    with engine.stores.open(source) as store:
        files = [store.stat(RemotePath(below))]
        if version is not None and files[0].fingerprint.version not in {None, version}:
            with suppress(NotFound):
                files.insert(0, store.stat(RemotePath(below), version=version))
    engine.limits.succeeded(source.id)
    try:
        why = None if remote_path(below) == below else "has an empty component ('//')"
    except Permanent as error:
        why = str(error)
    return [file if why is None else RefusedName(shown=display(below), why=why, fingerprint=file.fingerprint) for file in files]


def _create(engine: Engine, flow: Flow, source: S3Endpoint, seen: Seen, counts: Counter[str]) -> list[Transfer]:
    destination = engine.registry.endpoint(flow.tenant, flow.destination)
    refuse_unpinned(destination)
    if isinstance(seen, RefusedName):
        return _refuse(engine, flow, seen, counts, ends=(source, destination))
    if flow.selection.why_not(seen, now=engine.clock.now()) is not None:
        counts["not_selected"] += 1
        return []
    ids = [found_id(flow, seen)]
    if engine.ledger.known(ids) | engine.ownership.known(ids):
        counts["known"] += 1
        return []
    try:
        transfer = found_transfer(engine, flow, seen, source=source, destination=destination)
    except Permanent as error:
        named = RefusedName(shown=seen.path, why=str(error), fingerprint=seen.fingerprint)
        return _refuse(engine, flow, named, counts, ends=(source, destination))
    transfer, existing = put_on_record(engine, transfer)
    counts["created" if existing is None else "known"] += 1
    return [transfer] if existing is None else []


def _refuse(engine: Engine, flow: Flow, name: RefusedName, counts: Counter[str], *, ends: tuple[Endpoint, Endpoint]) -> list[Transfer]:
    """A name that cannot be moved becomes the same dead transfer that a listing makes of it."""
    counts["refused_name"] += 1
    engine.ledger.create(refused_transfer(engine, flow, name, kinds=ends))
    return []


def _after(engine: Engine, flow: Flow, error: EftError, counts: Counter[str]) -> EftError | None:
    """Returns the error if the event must come again; what a listing can find is left to one, visibly."""
    if error.reason == "source_missing":
        counts["vanished"] += 1
        return None
    if error.endpoint is not None:
        # The breaker only spares the endpoint; that it cannot be told is no reason to stop here.
        with suppress(Exception):
            engine.limits.failed(error.endpoint, reason=error.reason)
    log.warning("arrival not taken", extra={"tenant": flow.tenant, "flow": flow.id, "reason": error.reason, "error": str(error)})
    if isinstance(error, Permanent):
        counts["refused"] += 1
        return None
    if isinstance(error, Transient):
        # Whatever keeps it from being noted: this event comes again, and the other flows are not kept waiting.
        with suppress(Exception):
            _list_soon(engine, flow, counts)
            return None
    counts["again"] += 1
    return error
