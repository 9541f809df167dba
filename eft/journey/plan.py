"""Plan: what a run of a flow would do now with each name that its source shows, and why. Nothing is changed by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import chain

from eft.domain.endpoint import Endpoint
from eft.domain.fingerprint import RefusedName
from eft.domain.flow import ConflictMode, Flow
from eft.domain.names import RemotePath
from eft.domain.transfer import State, Transfer
from eft.errors import EftError, NotFound, Permanent
from eft.journey.accept import found_id, found_transfer, refuse_unpinned
from eft.journey.discover import LOOK_UP, batched
from eft.journey.looking import Looking, Seen, Verdict
from eft.ports import Engine, Store

LOOKS = 50
"""Files whose names at the destination are looked at."""
NAMES = 200_000
"""Names after which a plan ends."""
PATIENCE = timedelta(seconds=20)


class Outlook(StrEnum):
    """What would happen to a file."""

    MOVE = "move"
    WAIT = "wait"
    REFUSE = "refuse"
    KNOWN = "known"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What would happen to one name, in words for a customer."""

    path: str
    size: int
    modified: datetime | None
    outlook: Outlook
    why: str
    destination: str | None = None
    transfer: str | None = None
    """The transfer that this version has, or would have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would do."""

    forecasts: Sequence[Forecast]
    """Those that would move first, then those that wait or are refused, then those that are known or skipped."""
    counts: dict[Outlook, int]
    """Of all names listed, by outlook."""
    complete: bool
    """Whether the listing was read to its end."""
    destination_trouble: str | None = None
    """Why the destination could not be looked at."""


_OUTLOOKS = {
    Verdict.TAKEN: Outlook.MOVE,
    Verdict.WAITS: Outlook.WAIT,
    Verdict.REFUSED: Outlook.REFUSE,
    Verdict.KNOWN: Outlook.KNOWN,
    Verdict.LEFT: Outlook.SKIP,
}
_CONFLICTS = {
    ConflictMode.FAIL: "would fail: '{path}' exists at the destination",
    ConflictMode.OVERWRITE: "would move to {path}, overwriting what is there",
    ConflictMode.SKIP: "would be skipped: '{path}' exists at the destination",
    ConflictMode.RENAME: "would move to {path} under a numbered name, because that exists",
}


def plan(engine: Engine, flow: Flow, *, limit: int) -> Plan:
    """Connects, lists, and returns at most `limit` forecasts; where there are more, some of each outlook in the order of interest.

    Raises:
        NotFound: `directory_missing`, `endpoint_unknown`; EftError: the source cannot be listed now.
    """
    source = engine.registry.endpoint(flow.tenant, flow.source)
    destination = engine.registry.endpoint(flow.tenant, flow.destination)
    refuse_unpinned(source)
    until = engine.clock.monotonic() + PATIENCE.total_seconds()
    looking = Looking(engine, flow, source, engine.ledger.memory(flow))
    counts: Counter[Outlook] = Counter()
    kept: dict[Outlook, list[tuple[Seen, str]]] = {outlook: [] for outlook in Outlook}
    complete = True
    for batch in batched(looking.names(), LOOK_UP):
        for outlook, seen, version in _compared(engine, flow, batch):
            counts[outlook] += 1
            if len(kept[outlook]) < limit:
                kept[outlook].append((seen, version))
        if counts.total() >= NAMES or engine.clock.monotonic() >= until:
            complete = False
            break
    shown = [(outlook, *one) for outlook, one in chain.from_iterable(((o, one) for one in kept[o]) for o in Outlook)][:limit]
    forecasts, trouble = _told(engine, flow, shown, ends=(source, destination))
    return Plan(forecasts=forecasts, counts=dict(counts), complete=complete, destination_trouble=trouble)


def warnings_about(engine: Engine, flow: Flow) -> list[str]:
    """Returns what its owner should know of a flow that has just been made or changed: above all that nothing matches it."""
    try:
        source = engine.registry.endpoint(flow.tenant, flow.source)
        refuse_unpinned(source)
        if engine.limits.shut_until(source.id) is not None:
            return [f"endpoint {source.id} has failed repeatedly, so the source was not looked at"]
        return _matching(engine, flow, source)
    except EftError as error:
        return [f"the source could not be listed: {error}"]


def _matching(engine: Engine, flow: Flow, source: Endpoint) -> list[str]:
    until = engine.clock.monotonic() + PATIENCE.total_seconds() / 4
    selection, number = flow.selection, 0
    with engine.stores.open(source) as store:
        for number, entry in enumerate(store.list(selection.directory, recursive=selection.recursive), start=1):
            if selection.names(selection.below(entry.shown if isinstance(entry, RefusedName) else entry.path)):
                return []
            if number >= NAMES or engine.clock.monotonic() >= until:
                return [f"none of the first {number} files of the source matches the pattern"]
    where = f"'{selection.directory}'" if selection.directory else "the source's root"
    return [f"nothing in {where} matches the pattern: it holds {number} file{'' if number == 1 else 's'} now"]


def _compared(engine: Engine, flow: Flow, batch: Sequence[Seen]) -> Iterator[tuple[Outlook, Seen, str]]:
    """Yields names with their outlook and their version's id, after asking the ledger for those that it may know."""
    ids = {id(seen): found_id(flow, seen.entry) for seen in batch if not isinstance(seen.entry, RefusedName)}
    asked = [ids[id(seen)] for seen in batch if seen.verdict is Verdict.TAKEN]
    known = engine.ledger.known(asked) | engine.ownership.known(asked) if asked else set()
    for seen in batch:
        version = ids.get(id(seen), "")
        yield Outlook.KNOWN if version in known else _OUTLOOKS[seen.verdict], seen, version


def _told(
    engine: Engine, flow: Flow, shown: Sequence[tuple[Outlook, Seen, str]], *, ends: tuple[Endpoint, Endpoint]
) -> tuple[list[Forecast], str | None]:
    """Returns the forecasts, those that would move compared with what stands at the destination."""
    forecasts = [_forecast(engine, flow, *one, ends=ends) for one in shown]
    moving = [n for n, one in enumerate(forecasts) if one.outlook is Outlook.MOVE]
    if not moving:
        return forecasts, None
    try:
        refuse_unpinned(ends[1])
        with ExitStack() as stack:
            store = stack.enter_context(engine.stores.open(ends[1]))
            for n in moving[:LOOKS]:
                forecasts[n] = _against(store, flow, forecasts[n])
    except EftError as error:
        return forecasts, str(error)
    return forecasts, None


def _forecast(engine: Engine, flow: Flow, outlook: Outlook, seen: Seen, version: str, *, ends: tuple[Endpoint, Endpoint]) -> Forecast:
    if isinstance(seen.entry, RefusedName):
        print_ = seen.entry.fingerprint
        return Forecast(
            path=seen.entry.shown, size=print_.size, modified=print_.modified, outlook=outlook, why=f"cannot be moved: {seen.why}"
        )
    file = seen.entry
    made = Forecast(path=file.path, size=file.size, modified=file.modified, outlook=outlook, why="", transfer=version)
    match outlook:
        case Outlook.MOVE:
            try:
                path = found_transfer(engine, flow, file, source=ends[0], destination=ends[1]).destination.path
            except Permanent as error:
                return replace(made, outlook=Outlook.REFUSE, why=f"cannot be moved: {error}")
            return replace(made, why=f"would move to {path}", destination=path)
        case Outlook.KNOWN:
            return replace(made, why=_history(engine, version))
        case Outlook.WAIT:
            return replace(made, why=f"waits: {seen.why}", transfer=None)
        case _:
            return replace(made, why=f"skipped: {seen.why}", transfer=None)


def _history(engine: Engine, version: str) -> str:
    try:
        transfer = engine.ledger.load(version)
    except NotFound:
        return "already accepted, by the other region"
    return _since(transfer)


def _since(transfer: Transfer) -> str:
    if transfer.receipt is not None:
        return f"already delivered on {transfer.receipt.at:%Y-%m-%d at %H:%M} UTC to {transfer.receipt.path}"
    if transfer.state in {State.DEAD, State.HELD, State.CANCELLED}:
        because = f": {transfer.error or transfer.reason}" if transfer.error or transfer.reason else ""
        return f"already {transfer.state} since {transfer.since:%Y-%m-%d %H:%M} UTC{because}"
    return f"already under way: {transfer.state}"


def _against(store: Store, flow: Flow, forecast: Forecast) -> Forecast:
    path = RemotePath(forecast.destination or "")
    if store.look(path) is None:
        return forecast
    return replace(forecast, why=_CONFLICTS[flow.policy.conflict].format(path=path))
