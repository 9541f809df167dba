"""Crashing a worker at any call of a port, on fakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.world import World

SILENT = frozenset({"now", "monotonic", "jitter", "nonce"})


class Crash(BaseException):
    """The worker is gone: nothing that runs after it may be seen."""


class Watched:
    """Passes every call of a port through and tells `hook` of it, before and after its effect."""

    def __init__(self, port: object, name: str, hook: Callable[[str], None]) -> None:
        self._port, self._name, self._hook = port, name, hook

    def __getattr__(self, call: str) -> Any:  # noqa: ANN401 - a port's method
        found = getattr(self._port, call)
        if call in SILENT or call.startswith("_") or not callable(found):
            return found

        def passed(*args: object, **named: object) -> object:
            self._hook(f"{self._name}.{call}:before")
            result = found(*args, **named)
            self._hook(f"{self._name}.{call}:after")
            return result

        return passed


class CrashPoint:
    """Counts the points passed and, at number `at` (from 1), ends the worker once."""

    def __init__(self, at: int = 0) -> None:
        self.at, self.passed, self.label = at, 0, ""
        self.labels: list[str] = []

    def __call__(self, label: str) -> None:
        self.passed += 1
        self.labels.append(label)
        if self.passed == self.at:
            self.label = label
            raise Crash(label)


def watch(world: World, hook: Callable[[str], None]) -> None:
    """Puts the hook at every call of ledger, limits and ownership and at every call and chunk of the stores."""
    world.engine = replace(
        world.engine,
        ledger=Watched(world.ledger, "ledger", hook),
        limits=Watched(world.limits, "limits", hook),
        ownership=Watched(world.ownership, "ownership", hook),
    )
    for name, server in {**world.stores.servers, "staging": world.stores.staging_server}.items():
        server.watch = lambda label, name=name: hook(f"{name}.{label}")  # type: ignore[misc]


def survive(world: World, transfer_id: str, *, rounds: int = 40) -> None:
    """Drains and sweeps, as if each crash ended one worker and its message came again, until the transfer rests or time is up."""
    for _ in range(rounds):
        while world.queue:
            message = world.queue.popleft()
            world.clock.advance(message.delay)
            try:
                world.queue += world.deliver_message(message)
            except Crash:
                world.clock.advance(world.tuning.lease * 1.5)
                world.queue.append(message)
        if world.ledger.load(transfer_id).next_step is None:
            return
        try:
            world.sweep()
        except Crash:
            continue
