"""What the model of the protocol found: decisions that broke off, and workers that slept through more than one takeover."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from eft.domain.ownership import Intent, may_replace
from eft.domain.transfer import State, Step
from eft.errors import Permanent
from eft.journey.held import Decision, decide
from eft.journey.messages import Message
from eft.journey.operate import redrive
from tests.crashes import Crash, watch
from tests.world import TENANT, World

HOUR = timedelta(hours=1)


def once_at(label: str, then: Callable[[], object]) -> Callable[[str], None]:
    """Returns an observer of calls that does something at the first one of a name."""
    left = [then]

    def observe(here: str) -> None:
        if here == label and left:
            left.pop()()

    return observe


def crash() -> None:
    """Ends the worker."""
    raise Crash("here")


def refuse() -> None:
    """The server's answer."""
    raise Permanent("nothing may be written there now", reason="denied")


def test_a_token_that_was_given_up_is_never_taken_for_a_delivery() -> None:
    """A decision breaks off after the token was consumed: the transfer is not sent round again, for its absence is no evidence."""
    world = World()
    world.server("sftp-a").put("in/a.bin", b"x")
    engine = world.engine
    transfer = world.submit("sftp-a", "sftp-b", receiver_removes=True)
    watch(world, once_at("sftp-b.commit:before", refuse))
    assert world.until_rest(transfer).state is State.HELD
    world.engine = engine
    watch(world, once_at("sftp-b.consume:after", crash))
    with pytest.raises(Crash):
        decide(world.engine, TENANT, transfer.id, Decision.DELIVER, by="op", why="the receiver has nothing")
    world.engine = engine
    world.clock.advance(HOUR)
    with pytest.raises(Permanent) as refused:
        redrive(world.engine, TENANT, transfer.id, "op")
    assert refused.value.reason == "undecided"
    decide(world.engine, TENANT, transfer.id, Decision.DELIVER, by="op", why="the receiver has nothing")
    world.clock.advance(HOUR)
    world.queue.append(Message(step=Step.DELIVER, ids=(transfer.id,)))
    assert world.until_rest(transfer).state is State.SETTLED
    assert world.server("sftp-b").appeared["out/a.bin"] == 1


def test_a_worker_that_slept_removes_no_newer_source() -> None:
    """A sleeps before it removes; B removes and dies; a newer file comes; C renames that to its own token; A wakes: the newer one stays."""
    world = World()
    server = world.server("sftp-a")
    server.put("in/a.bin", b"old")
    engine = world.engine
    transfer = world.submit("sftp-a", "sftp-b", disposition="delete")
    message = Message(step=Step.DELIVER, ids=(transfer.id,))

    def meanwhile() -> None:
        for label, newer in (("sftp-a.remove:after", None), ("sftp-a.move:after", b"a newer one")):
            if newer is not None:
                server.put("in/a.bin", newer)
            world.clock.advance(HOUR)
            world.engine = engine
            watch(world, once_at(label, crash))
            with pytest.raises(Crash):
                world.deliver_message(message)

    watch(world, once_at("sftp-a.remove:before", meanwhile))
    world.drain()
    world.engine = engine
    world.clock.advance(HOUR)
    world.queue.append(message)
    world.until_rest(transfer)
    assert b"a newer one" in [bytes(content.data) for content in server.files.values()]


def test_abandon_is_final() -> None:
    """The same token may be announced again and again until it was given up; then only as given up, or a later attempt's."""
    live = Intent(partition=1, transfer="t", attempt=1, token="a", region_epoch=1)
    gone = live.model_copy(update={"abandoned": True})
    later = live.model_copy(update={"attempt": 2, "token": "b"})
    assert may_replace(live, live)
    assert may_replace(live, gone)
    assert may_replace(gone, gone)
    assert may_replace(gone, later)
    assert not may_replace(gone, live)
    assert not may_replace(live, later)
