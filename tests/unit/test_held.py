"""What a person decides about held transfers."""

from __future__ import annotations

import pytest

from eft.domain.transfer import State, Transfer
from eft.errors import NotFound, Permanent
from eft.journey.held import Decision, decide
from eft.journey.messages import next_message
from tests.crashes import watch
from tests.world import TENANT, World


@pytest.fixture
def world() -> World:
    """An engine over fakes."""
    return World()


def held(world: World, *, lose: str = "both", source: str = "s3-a") -> Transfer:
    """Returns a transfer held in mid-commit: its token (and its final file) lost, or a foreign file in its place."""
    world.server(source).put("in/a.bin", b"x")
    server = world.server("sftp-b")

    def meddle(label: str) -> None:
        if label == "sftp-b.commit:before" and server.calls["commit"] == 1:
            if lose == "both":
                server.files.clear()
            else:
                server.put("out/a.bin", b"theirs")

    watch(world, meddle)
    row = world.until_rest(world.submit(source, "sftp-b"))
    assert row.state is State.HELD
    return row


def go_on(world: World, row: Transfer) -> Transfer:
    """Carries a decided transfer on to rest."""
    world.queue += next_message(row)
    return world.until_rest(row)


def test_deliver_makes_a_new_attempt_with_a_new_token(world: World) -> None:
    """Nothing is found at the destination: the file is uploaded again, on the operator's word."""
    row = held(world)
    again = decide(world.engine, TENANT, row.id, Decision.DELIVER, by="op", why="the partner says nothing came")
    assert again.state is State.ACCEPTED
    done = go_on(world, again)
    assert done.state is State.SETTLED
    assert done.attempt == 2
    assert world.server("sftp-b").get("out/a.bin") == b"x"
    assert any(event.by == "op" and event.error == "the partner says nothing came" for event in done.timeline)


def test_deliver_finds_what_was_delivered_already(world: World) -> None:
    """Where our file stands at the destination it is not sent again, whatever was decided."""
    row = held(world)
    world.server("sftp-b").put("out/a.bin", b"x")
    writes = world.server("sftp-b").calls["write"]
    assert go_on(world, decide(world.engine, TENANT, row.id, Decision.DELIVER, by="op", why="again")).state is State.SETTLED
    assert world.server("sftp-b").calls["write"] == writes


def test_a_late_worker_cannot_commit_what_was_written_off(world: World) -> None:
    """Before a new attempt the old token is consumed."""
    row = held(world, lose="final")
    assert row.commit is not None
    server = world.server("sftp-b")
    assert row.commit.token in server.files
    del server.files["out/a.bin"]
    decide(world.engine, TENANT, row.id, Decision.DELIVER, by="op", why="theirs is gone")
    assert row.commit.token not in server.files
    assert row.commit.token in world.ownership.abandoned


def test_accept_settles_without_a_file(world: World) -> None:
    """The operator's word stands for the evidence; the timeline says whose."""
    row = held(world)
    done = go_on(world, decide(world.engine, TENANT, row.id, Decision.ACCEPT, by="op", why="the partner confirmed it"))
    assert done.state is State.SETTLED
    assert done.receipt is not None
    assert world.server("sftp-b").finals() == {}
    assert world.ledger.holder("sftp-b", "out/a.bin") is None


def test_abandon_cancels(world: World) -> None:
    """The transfer is given up, its token consumed, its path free."""
    row = held(world, lose="final")
    done = decide(world.engine, TENANT, row.id, Decision.ABANDON, by="op", why="not wanted any more")
    assert done.state is State.CANCELLED
    assert world.server("sftp-b").finals() == {"out/a.bin": b"theirs"}
    assert len(world.server("sftp-b").files) == 1
    assert world.ledger.holder("sftp-b", "out/a.bin") is None


def test_only_held_transfers_of_ones_own_are_decided(world: World) -> None:
    """Others are unknown, and what is not held needs no word."""
    row = held(world)
    with pytest.raises(NotFound):
        decide(world.engine, "other", row.id, Decision.ABANDON, by="op", why="w")
    decide(world.engine, TENANT, row.id, Decision.ABANDON, by="op", why="w")
    with pytest.raises(Permanent) as error:
        decide(world.engine, TENANT, row.id, Decision.ABANDON, by="op", why="w")
    assert error.value.reason == "not_held"


def test_a_source_that_was_replaced_is_decided_without_touching_the_delivery(world: World) -> None:
    """Held after the delivery, `accept` goes on to settle it."""
    world.server("sftp-a").put("in/a.bin", b"x")

    def replace_it(label: str) -> None:
        if label in {"sftp-b.commit:after", "sftp-a.move:after"}:
            world.clock.advance(5)
            world.server("sftp-a").put("in/a.bin", label.encode())

    watch(world, replace_it)
    row = world.until_rest(world.submit("sftp-a", "sftp-b", disposition="delete", staging=False))
    assert (row.state, row.held_from) == (State.HELD, State.DELIVERED)
    watch(world, lambda _: None)
    world.server("sftp-a").files.pop("in/a.bin")
    done = go_on(world, decide(world.engine, TENANT, row.id, Decision.ACCEPT, by="op", why="sorted out"))
    assert done.state is State.SETTLED
    assert world.server("sftp-b").appeared["out/a.bin"] == 1


@pytest.mark.parametrize("decision", [Decision.DELIVER, Decision.ABANDON])
def test_what_was_delivered_after_the_receiver_was_asked_is_not_decided_unasked(world: World, decision: Decision) -> None:
    """A late request of ours renames the token, and the receiver takes the file, between the person's question and the decision: it is
    held for that, and asked again. On the answer to that the decision is carried out.
    """
    row = held(world, lose="final")
    server = world.server("sftp-b")
    del server.files["out/a.bin"]
    (token,) = server.files
    del server.files[token]
    with pytest.raises(Permanent, match="ask the receiver again") as refused:
        decide(world.engine, TENANT, row.id, decision, by="op", why="the partner says nothing came")
    assert refused.value.reason == "token_gone"
    again = world.ledger.load(row.id)
    assert (again.state, again.reason, again.timeline[-1].by) == (State.HELD, "token_gone", "op")
    assert decide(world.engine, TENANT, row.id, Decision.ACCEPT, by="op", why="they have it").state is State.DELIVERED


def test_that_a_token_is_gone_is_decided_once_it_was_told(world: World) -> None:
    """The word of a person who knew it is carried out."""
    row = held(world, lose="final")
    world.server("sftp-b").files.clear()
    with pytest.raises(Permanent):
        decide(world.engine, TENANT, row.id, Decision.ABANDON, by="op", why="nothing came")
    assert decide(world.engine, TENANT, row.id, Decision.ABANDON, by="op", why="nothing came").state is State.CANCELLED
