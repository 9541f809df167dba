"""What the model of the protocol found: decisions that broke off, and workers that slept through more than one takeover."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from eft.domain.ownership import Intent, may_replace
from eft.domain.transfer import State, Step, Transfer
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
    with pytest.raises(Permanent, match="decide again"):
        decide(world.engine, TENANT, transfer.id, Decision.DELIVER, by="op", why="the receiver has nothing")
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


def both(*hooks: Callable[[str], None]) -> Callable[[str], None]:
    """Returns an observer that is several."""

    def observe(here: str) -> None:
        for hook in hooks:
            hook(here)

    return observe


def an_older_version(world: World, *, conflict: str = "overwrite") -> tuple[Transfer, Message]:
    """Submits one and returns it, with the message of its delivery."""
    world.server("sftp-a").put("in/a.bin", b"old")
    older = world.submit("sftp-a", "sftp-b", conflict=conflict)
    return older, Message(step=Step.DELIVER, ids=(older.id,))


def begins_and_dies(world: World, message: Message) -> None:
    """A worker reserves the path, puts its token on the row, and is gone."""
    watch(world, once_at("ledger.save:after", crash))
    with pytest.raises(Crash):
        world.deliver_message(message)


def then_the_newer_one(world: World, older: Transfer, message: Message, submitted: Transfer | None = None) -> None:
    """A newer version comes, or has come, and the older one's message again: what is at the destination in the end is the newer one."""
    newer = submitted or world.submit("sftp-a", "sftp-b", conflict="overwrite")
    if submitted is None:
        world.queue += world.deliver_message(world.queue.popleft())
    world.clock.advance(HOUR)
    world.queue.appendleft(message)
    assert {world.until_rest(one).state for one in (older, newer)} == {State.SETTLED}
    assert world.server("sftp-b").finals() == {"out/a.bin": b"newer"}


def test_a_worker_that_slept_frees_no_path_that_a_later_claim_holds() -> None:
    """A sleeps before it frees what it buried; sent round again, B reserves the path and dies; A wakes: a newer version waits for B."""
    world = World()
    engine = world.engine
    older, message = an_older_version(world)

    def meanwhile() -> None:
        world.engine = engine
        redrive(engine, TENANT, older.id, "op")
        begins_and_dies(world, message)

    watch(world, both(once_at("sftp-b.mint:before", refuse), once_at("ledger.release:before", meanwhile)))
    world.drain()
    world.engine = engine
    world.clock.advance(HOUR)
    world.server("sftp-a").put("in/a.bin", b"newer")
    then_the_newer_one(world, older, message)


def test_a_path_is_not_taken_over_from_a_claim_that_was_not_seen() -> None:
    """A newer version finds the holder dead, and sleeps; sent round again, B reserves the path and dies: it is B's, not the newer one's."""
    world = World()
    engine = world.engine
    older, message = an_older_version(world)
    watch(world, both(once_at("sftp-b.mint:before", refuse), once_at("ledger.release:before", crash)))
    with pytest.raises(Crash):
        world.drain()
    assert world.ledger.load(older.id).state is State.DEAD
    world.engine = engine
    world.clock.advance(HOUR)
    world.server("sftp-a").put("in/a.bin", b"newer")

    def meanwhile() -> None:
        world.engine = engine
        redrive(engine, TENANT, older.id, "op")
        begins_and_dies(world, message)

    watch(world, once_at("ledger.release:before", meanwhile))
    newer = world.submit("sftp-a", "sftp-b", conflict="overwrite")
    world.queue += world.deliver_message(world.queue.popleft())
    world.engine = engine
    then_the_newer_one(world, older, message, newer)


def test_a_worker_that_slept_takes_no_path_that_a_later_claim_holds() -> None:
    """A sleeps before it reserves; B reserves the path and dies; another file shows for a moment; A wakes: the path stays B's."""
    world = World()
    engine = world.engine
    older, message = an_older_version(world, conflict="fail")

    def meanwhile() -> None:
        world.engine = engine
        world.clock.advance(HOUR)
        begins_and_dies(world, message)
        world.server("sftp-b").put("out/a.bin", b"another")

    watch(world, once_at("ledger.reserve:before", meanwhile))
    world.drain()
    assert world.ledger.holder("sftp-b", "out/a.bin") == older.id
    del world.server("sftp-b").files["out/a.bin"]
    world.engine = engine
    world.clock.advance(HOUR)
    world.queue.append(message)
    assert world.until_rest(older).state is State.SETTLED


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
