"""Where a worker may be stopped: before and after every call of every port, found from the ports' own protocols.

A label is `<what>.<call>:before` or `:after`; what a call gives to be used (a store, an open upload, chunks of bytes) is watched in its
turn. The n-th passing of a label is a point of one worker's life: `destination.commit:after#1`. Between those lie, where they are wanted,
the requests that a call makes: `destination.commit/sftp.rename:before#1`.
"""

from __future__ import annotations

import inspect
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from types import UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

from eft.adapters.sftp.session import Session
from eft.domain.endpoint import EndpointFields
from eft.ports import Engine, Ledger, Limits, Ownership, Registry, Secrets, Staging, Store, Stores, Uploading

Hook = Callable[[str], None]

PORTS: Final[dict[str, type]] = {
    "ledger": Ledger,
    "limits": Limits,
    "registry": Registry,
    "secrets": Secrets,
    "ownership": Ownership,
    "stores": Stores,
}
"""The fields of `Engine` that speak with the world. Clock and peer aside: a clock has no effect, and one region has no peer."""
GIVEN: Final = frozenset({Store, Staging, Uploading})
"""Ports that other ports give out."""
ELSEWHERE: Final[dict[type, frozenset[str]]] = {
    # API, operators, discovery and upkeep; the peer's and the adoption's.
    Ledger: frozenset(
        {
            *("create", "known", "adopt", "unsettled", "page", "due", "postpone", "fire", "fire_done", "last_fire"),
            *("count", "reservations", "begin_fire", "fire_goes_on", "end_fire", "fires", "memory", "remember", "remember_delivered"),
            *("watched", "unwatch", "forget"),
        }
    ),
    Registry: frozenset(
        {
            *("add_endpoint", "change_endpoint", "endpoints", "remove_endpoint", "add_flow", "change_flow", "flow", "flows"),
            *("remove_flow", "scheduled_flows", "arrival_flows", "tenants"),
        }
    ),
    # The pools use them on their own account, inside `stores.open`.
    Secrets: frozenset({"get", "forget", "put", "remove"}),
    Ownership: frozenset({"owned", "abandon", "renounce", "remember", "known"}),
    Stores: frozenset({"permit", "probe"}),
    Store: frozenset({"list"}),
    # It pins versions and holds what nobody disposes of; its parts come from elsewhere, and the copy is looked at, not verified. Small
    # copies, as all that are staged here, are read whole.
    Staging: frozenset(
        {
            *("list", "stale_uploads", "stale_objects", "move", "remove", "remove_version", "copy_version", "copy_part"),
            *("verify", "consume", "token_exists", "read_back", "put", "stat"),
        }
    ),
}
"""Calls that are no part of one transfer's way from accepted to settled."""
AFTERWARDS: Final = frozenset(
    {"ledger.renew", "ledger.watch", "limits.failed", "limits.ease", "store.consume", "store.token_exists", "store.read_back"}
)
"""Calls of that way which only a worker makes that is slow, or that comes after another."""
WIRE: Final = ("lstat", "stat", "rename", "posix_rename", "remove", "mkdir", "open", "close", "fsync", "drop", "post_write", "ask_lstat")
"""Requests of an SFTP session, for points between the requests of one call of a port."""
REMOTE: Final = ("dynamodb", "s3")
REQUESTS: Final = frozenset({"sftp", *REMOTE})


class Passed:
    """Counts the passing of labels, in order, and tells `at` of each point."""

    def __init__(self, at: Hook) -> None:
        self.points: list[str] = []
        self._times: Counter[str] = Counter()
        self._within: list[str] = []
        self._at = at

    def __call__(self, label: str) -> None:
        call, _, side = label.rpartition(":")
        if is_request(label):
            # Threads of an adapter's own send while the worker's does something else.
            within = self._within[-1] if self._within and threading.current_thread() is threading.main_thread() else "aside"
            label = f"{within}/{label}"
        elif side == "before":
            self._within.append(call)
        elif call in self._within:
            del self._within[self._within.index(call) :]
        self._times[label] += 1
        point = f"{label}#{self._times[label]}"
        self.points.append(point)
        self._at(point)


def label_of(point: str) -> str:
    """Returns a point's label, without which passing it was."""
    return point.partition("#")[0]


def request_of(label: str) -> str | None:
    """Returns the request that a label is about, without its side; None for a call of a port."""
    request = label.rpartition("/")[2].rpartition(":")[0]
    return request if request.partition(".")[0] in REQUESTS else None


def is_request(label: str) -> bool:
    """Returns whether a label is about a request."""
    return request_of(label) is not None


def watched_engine(engine: Engine, hook: Hook) -> Engine:
    """Returns the engine with every port watched."""
    return replace(engine, **{name: watched(getattr(engine, name), protocol, name, hook) for name, protocol in PORTS.items()})


def watched(port: object, protocol: type, name: str, hook: Hook) -> Any:  # noqa: ANN401 - any port
    """Returns a port whose calls, those of its protocol, tell the hook before and after."""
    return _Watched(port, calls_of(protocol), name, hook)


def calls_of(protocol: type) -> dict[str, Any]:
    """Returns what each call of a protocol gives on a transfer's way: the type that its signature declares."""
    return {
        name: get_type_hints(call)["return"]
        for name, call in inspect.getmembers(protocol, inspect.isfunction)
        if not name.startswith("_") and name not in ELSEWHERE.get(protocol, frozenset())
    }


def every_label() -> dict[str, type]:
    """Returns every `<protocol>.<call>` that one transfer's way may lead over, and its protocol."""
    protocols = {**PORTS, "store": Store, "staging": Staging, "uploading": Uploading}
    return {f"{name}.{call}": protocol for name, protocol in protocols.items() for call in calls_of(protocol)}


class _Watched:
    def __init__(self, port: object, calls: dict[str, Any], name: str, hook: Hook) -> None:
        self.port, self._calls, self._name, self._hook = port, calls, name, hook

    def __getattr__(self, call: str) -> Any:  # noqa: ANN401 - a port's method or figure
        found = getattr(self.port, call)
        if call not in self._calls:
            return found
        label, gives, hook = f"{self._name}.{call}", self._calls[call], self._hook

        def passed(*given: object, **named: object) -> object:
            bare = [one.port if isinstance(one, _Watched) else one for one in given]
            bare_named = {name: one.port if isinstance(one, _Watched) else one for name, one in named.items()}
            hook(f"{label}:before")
            try:
                result = found(*bare, **bare_named)
            except Exception:
                hook(f"{label}:after")
                raise
            if get_origin(gives) is AbstractContextManager:
                return _block(result, get_args(gives)[0], label, _role(self._name, call, bare), hook)
            hook(f"{label}:after")
            return _chunks(result, label, hook) if _is_iterator(gives) and result is not None else result

        return passed


@contextmanager
def _block(block: AbstractContextManager[object], gives: type, label: str, name: str, hook: Hook) -> Iterator[object]:
    """What is given for a while: it is opened when the block begins, and left at its end."""
    with block as port:
        hook(f"{label}:after")
        yield watched(port, gives, name, hook)
        hook(f"{label}.end:before")
    hook(f"{label}.end:after")


def _chunks(chunks: Iterator[object], label: str, hook: Hook) -> Iterator[object]:
    for chunk in chunks:
        hook(f"{label}.chunk:after")
        yield chunk


def _role(name: str, call: str, given: list[object]) -> str:
    """What is opened is called by the endpoint's own name: `source`, `destination`."""
    if name == "stores":
        return "staging" if call == "staging" else str(next(one.name for one in given if isinstance(one, EndpointFields)))
    return f"{name}.{call}ing"


def _is_iterator(gives: object) -> bool:
    if isinstance(gives, UnionType):
        return any(_is_iterator(one) for one in get_args(gives))
    return get_origin(gives) is Iterator


# -- between the requests of one call ----------------------------------------------------------------------------------


def watch_sftp(hook: Hook) -> None:
    """Has the requests of all SFTP sessions of this process tell the hook."""

    def watch(name: str) -> None:
        request = getattr(Session, name)

        def passed(session: Session, *given: object) -> object:
            hook(f"sftp.{name}:before")
            try:
                return request(session, *given)
            finally:
                hook(f"sftp.{name}:after")

        setattr(Session, name, passed)

    for name in WIRE:
        watch(name)


def watch_aws(client: Any, hook: Hook) -> None:  # noqa: ANN401 - botocore makes its classes at run time
    """Has the requests of a client tell the hook: before they are sent, and once the answer is read."""
    service = client.meta.service_model.service_name

    def before(event_name: str, **_: object) -> None:
        hook(f"{service}.{event_name.rpartition('.')[2]}:before")

    def after(event_name: str, **_: object) -> None:
        hook(f"{service}.{event_name.rpartition('.')[2]}:after")

    client.meta.events.register("before-send", before)
    client.meta.events.register("response-received", after)
