"""A worker that dies at any call of a port: the file arrives exactly once, and nothing is held that could have been decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest

from eft.domain.transfer import State
from eft.journey.recording import TOGETHER
from tests.crashes import Crash, CrashPoint, survive, watch
from tests.world import SMALL, World

KINDS = [("sftp-a", "s3-a"), ("s3-a", "sftp-b"), ("sftp-a", "sftp-b"), ("s3-a", "s3-b"), ("s3-a", "s3-a")]
PART = SMALL.part_size
KILLED_AFTER = 4
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Played:
    """How one transfer ended."""

    world: World
    point: CrashPoint
    state: State
    reason: str | None


def play(kind: tuple[str, str], size: int, *, at: int, rename: str = "posix", policy: Mapping[str, Any] = NOTHING) -> Played:
    """Plays one transfer with a crash at one point."""
    source, destination = kind
    world = World()
    for server in world.stores.servers.values():
        server.rename = "plain" if rename == "plain" else "posix"
    world.server(source).put("in/a.bin", b"x" * size)
    transfer = world.submit(source, destination, **policy)
    point = CrashPoint(at)
    watch(world, point)
    survive(world, transfer.id)
    row = world.ledger.load(transfer.id)
    return Played(world, point, row.state, row.reason)


def points(kind: tuple[str, str], size: int, *, rename: str = "posix", policy: Mapping[str, Any] = NOTHING) -> int:
    """Returns how many points one undisturbed transfer passes after it is accepted."""
    return play(kind, size, at=0, rename=rename, policy=policy).point.passed


@pytest.mark.parametrize("rename", ["posix", "plain"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda k: f"{k[0]}-{k[1]}")
@pytest.mark.parametrize("size", [10, 3 * PART + 1])
def test_a_crash_anywhere_delivers_exactly_once(kind: tuple[str, str], size: int, rename: str) -> None:
    """Killed at any call, the next worker completes the transfer, and its file has appeared exactly once."""
    expected = b"x" * size
    for at in range(1, points(kind, size, rename=rename) + 1):
        played = play(kind, size, at=at, rename=rename)
        server, label = played.world.server(kind[1]), played.point.label
        if rename == "plain" and played.state is State.HELD:
            assert played.reason == "rename_half_done", (label, played.reason)
            assert server.appeared["out/a.bin"] == 0, label
            continue
        assert (played.state, server.appeared["out/a.bin"]) == (State.SETTLED, 1), (at, label, played.reason)
        assert server.get("out/a.bin") == expected, label


@pytest.mark.parametrize("kind", [("sftp-a", "s3-a"), ("s3-b", "sftp-b"), ("sftp-a", "sftp-b")], ids=lambda k: f"{k[0]}-{k[1]}")
def test_a_receiver_that_takes_files_at_once_gets_each_once(kind: tuple[str, str]) -> None:
    """Where the receiver removes files as they appear, a crash anywhere never makes the file appear again."""
    for at in range(1, points(kind, 10, policy={"receiver_removes": True}) + 1):
        source, destination = kind
        world = World()
        world.server(source).put("in/a.bin", b"y" * 10)
        server = world.server(destination)
        server.receiver = lambda path, server=server: server.files.pop(path)
        transfer = world.submit(source, destination, receiver_removes=True)
        point = CrashPoint(at)
        watch(world, point)
        survive(world, transfer.id)
        row = world.ledger.load(transfer.id)
        assert row.state is State.SETTLED, (at, point.label, row.state, row.reason)
        assert server.appeared["out/a.bin"] == 1, point.label


@pytest.mark.parametrize("disposition", ["delete", "archive"])
@pytest.mark.parametrize("source", ["sftp-a", "s3-a"])
def test_a_crash_anywhere_disposes_of_the_source_once(source: str, disposition: str) -> None:
    """Killed at any call, the source ends where its disposition says, and the delivery is not repeated."""
    policy = {"disposition": disposition}
    if disposition == "archive":
        policy["archive_directory"] = "done"
    for at in range(1, points((source, "s3-b"), 10, policy=policy) + 1):
        played = play((source, "s3-b"), 10, at=at, policy=policy)
        label, appeared = played.point.label, played.world.server("s3-b").appeared["out/a.bin"]
        assert (played.state, appeared) == (State.SETTLED, 1), (label, played.reason)
        left = {path for path in played.world.server(source).files if path.startswith(("in/", "done/"))}
        assert left == ({"done/a.bin"} if disposition == "archive" else set()), label


def test_a_crash_costs_at_most_the_part_in_hand() -> None:
    """A worker killed in the middle of a large file sends its one part again, and no other."""
    world = World()
    world.server("sftp-a").put("in/a.bin", b"z" * (8 * PART))
    written = 0

    def kill_once(label: str) -> None:
        nonlocal written
        if label == "s3-a.write:after":
            written += 1
            world.clock.advance(timedelta(seconds=TOGETHER))
            if written == KILLED_AFTER:
                raise Crash(label)

    watch(world, kill_once)
    transfer = world.submit("sftp-a", "s3-a")
    survive(world, transfer.id)
    assert world.ledger.load(transfer.id).state is State.SETTLED
    assert written == 8 + 1
