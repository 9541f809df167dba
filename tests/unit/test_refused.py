"""Names that are assumed free: no look where the store refuses taken ones, and the same end where one is taken."""

from __future__ import annotations

from typing import Any

import pytest

from eft.domain.transfer import Commit, State, Transfer
from eft.errors import Transient
from eft.journey.accept import first_message
from eft.journey.held import Decision, decide
from eft.journey.operate import redrive
from eft.ports import CommitOutcome, Committed
from tests.crashes import Crash, CrashPoint, survive, watch
from tests.fake_store import FakeServer, FakeStore
from tests.unit.test_journey_sleepers import HOUR, crash, once_at
from tests.world import SMALL, TENANT, World

TAKEN = "destination_exists"


@pytest.fixture
def world() -> World:
    """An engine over fakes, with a small file to move."""
    world = World()
    world.server("sftp-a").put("in/a.bin", b"ours")
    return world


def bucket(world: World) -> FakeServer:
    """The destination."""
    return world.server("s3-b")


def test_a_small_file_is_delivered_without_a_look(world: World) -> None:
    """Begin, part and commit are all that its destination is asked."""
    assert world.until_rest(world.submit("sftp-a", "s3-b")).state is State.SETTLED
    assert bucket(world).calls["look"] == 0


def test_a_taken_name_buries_as_after_a_look(world: World) -> None:
    """One upload finds out, and no second one. The other's file stands, the path is free; once the name is, a re-drive delivers."""
    server = bucket(world)
    server.put("out/a.bin", b"theirs")

    def count(label: str) -> None:
        assert server.calls["mint"] <= 1, label

    server.watch = count
    row = world.until_rest(world.submit("sftp-a", "s3-b"))
    assert (row.state, row.reason, row.commit, row.upload) == (State.DEAD, TAKEN, None, None)
    assert State.HELD not in {event.state for event in row.timeline}
    assert (server.get("out/a.bin"), server.uploads, world.ledger.holder("s3-b", "out/a.bin")) == (b"theirs", {}, None)
    del server.files["out/a.bin"]
    server.watch = lambda _: None
    world.queue.append(first_message(redrive(world.engine, TENANT, row.id, "op")))
    assert world.until_rest(row).state is State.SETTLED
    assert (server.get("out/a.bin"), server.appeared["out/a.bin"]) == (b"ours", 1)


@pytest.mark.parametrize(
    ("ignores", "size", "policy"),
    [
        (True, 4, {}),
        (False, SMALL.part_size + 1, {}),
        (False, 4, {"conflict": "skip"}),
        (False, 4, {"conflict": "rename"}),
        (False, 4, {"conflict": "overwrite"}),
        (False, 4, {"staging": True}),
    ],
    ids=["a store that is not known to refuse", "several parts", "skip", "rename", "overwrite", "staged"],
)
def test_everything_else_looks_before_it_sends(world: World, *, ignores: bool, size: int, policy: dict[str, Any]) -> None:
    """Where the store may not refuse, where much would be sent in vain, and where a taken name is nothing unusual."""
    server = bucket(world)
    server.refuses_taken = not ignores
    world.server("sftp-a").put("in/a.bin", b"x" * size)
    seen: list[str] = []
    watch(world, lambda label: seen.append(label) if label in {"s3-b.look:before", "s3-b.mint:before"} else None)
    assert world.until_rest(world.submit("sftp-a", "s3-b", **policy)).state is State.SETTLED
    assert seen == ["s3-b.look:before", "s3-b.mint:before"]


def test_a_crash_anywhere_leaves_a_taken_name_alone() -> None:
    """Killed at any call the transfer is buried, or held where its token was removed and nobody noted it; nothing of it ever appears."""
    held: list[str] = []
    at = passed = 1
    while at <= passed:
        world = World()
        world.server("sftp-a").put("in/a.bin", b"ours")
        bucket(world).put("out/a.bin", b"theirs")
        transfer = world.submit("sftp-a", "s3-b")
        point = CrashPoint(at)
        watch(world, point)
        survive(world, transfer.id)
        passed, at = point.passed, at + 1
        row = world.ledger.load(transfer.id)
        assert (bucket(world).get("out/a.bin"), bucket(world).appeared["out/a.bin"]) == (b"theirs", 0), point.label
        if (row.state, row.reason) == (State.HELD, "token_gone"):
            held.append(point.label)
        else:
            assert (row.state, row.reason) == (State.DEAD, TAKEN), point.label
    assert held == ["s3-b.consume:after", "ledger.save:before"]


def test_our_own_commit_is_not_taken_for_anothers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to a commit is lost, and the store refuses its repetition: what stands there is ours, and delivered once."""
    real = FakeStore._complete

    def complete(self: FakeStore, commit: Commit) -> Committed:
        if commit.path in self.server.files:
            return Committed(CommitOutcome.EXISTS)
        real(self, commit)
        raise Transient("the answer is lost", reason="unreachable")

    monkeypatch.setattr(FakeStore, "_complete", complete)
    row = world.until_rest(world.submit("sftp-a", "s3-b"))
    assert (row.state, row.attempt, bucket(world).appeared["out/a.bin"]) == (State.SETTLED, 1, 1)


def test_a_token_that_was_given_up_never_commits(world: World) -> None:
    """A worker that wakes after another one gave its token up finds it consumed, though the name is free by then."""
    server = bucket(world)
    transfer = world.submit("sftp-a", "s3-b")

    def overtake(label: str) -> None:
        if label == "s3-b.commit:before" and server.calls["commit"] == 1:
            server.put("out/a.bin", b"theirs")
            world.clock.advance(world.tuning.lease * 2)
            world.queue.append(first_message(transfer))
            assert world.until_rest(transfer).state is State.DEAD
            del server.files["out/a.bin"]

    watch(world, overtake)
    row = world.until_rest(transfer)
    assert (row.state, row.reason, server.finals(), server.appeared["out/a.bin"]) == (State.DEAD, TAKEN, {}, 0)


def test_a_token_that_was_committed_after_all_is_delivered(world: World) -> None:
    """Its refusal is on record, and a commit that was on its way has arrived meanwhile: evidence decides."""
    server = bucket(world)
    server.put("out/a.bin", b"theirs")

    def arrive(label: str) -> None:
        row = world.ledger.load(transfer.id)
        if label == "s3-b.consume:before" and row.commit is not None:
            del server.files["out/a.bin"]
            assert FakeStore(server)._complete(row.commit).outcome is CommitOutcome.DONE

    transfer = world.submit("sftp-a", "s3-b")
    watch(world, arrive)
    assert world.until_rest(transfer).state is State.SETTLED
    assert (server.get("out/a.bin"), server.appeared["out/a.bin"]) == (b"ours", 1)


def test_an_object_of_an_earlier_life_is_another_one(world: World) -> None:
    """A row that was forgotten is made again: what stands there bears its id, but was made by another token."""
    transfer = world.submit("sftp-a", "s3-b")
    bucket(world).put("out/a.bin", b"ours", transfer=transfer.id)
    row = world.until_rest(transfer)
    assert (row.state, row.reason, bucket(world).uploads) == (State.DEAD, TAKEN, {})


def test_a_refusal_waits_for_the_peer(world: World) -> None:
    """The token is given up with the peer's ack; until then the transfer waits, and nothing is held."""
    server = bucket(world)
    server.put("out/a.bin", b"theirs")
    transfer = world.submit("sftp-a", "s3-b")
    asked: list[str] = []

    def lose_sight(label: str) -> None:
        if label == "ownership.abandon:before":
            asked.append(label)
            if len(asked) == 1:
                raise Transient("the peer region does not answer", reason="peer_unreachable")

    watch(world, lose_sight)
    row = world.until_rest(transfer)
    assert (row.state, row.reason, len(asked), server.uploads) == (State.DEAD, TAKEN, 2, {})


def test_a_name_taken_after_a_look_is_a_persons_to_decide(world: World) -> None:
    """The second attempt looks, so a refusal of it is a rare race: it is held with its token, as ever."""
    server = bucket(world)
    server.put("out/a.bin", b"theirs")
    row = world.until_rest(world.submit("sftp-a", "s3-b"))
    del server.files["out/a.bin"]

    def intrude(label: str) -> None:
        if label == "s3-b.commit:before":
            server.put("out/a.bin", b"theirs")

    watch(world, intrude)
    world.queue.append(first_message(redrive(world.engine, TENANT, row.id, "op")))
    row = world.until_rest(row)
    assert (row.state, row.reason, len(server.uploads)) == (State.HELD, TAKEN, 1)


def held_after_the_abort(world: World, size: int) -> Transfer:
    """A worker gives its token up for an object of an earlier life, and dies before it notes that the token was consumed."""
    transfer = world.submit("sftp-a", "s3-b")
    bucket(world).put("out/a.bin", b"x" * size, transfer=transfer.id)
    engine = world.engine
    watch(world, once_at("s3-b.consume:after", crash))
    with pytest.raises(Crash):
        world.drain()
    world.engine = engine
    world.clock.advance(HOUR)
    world.queue.append(first_message(transfer))
    return world.until_rest(transfer)


def test_an_object_of_another_size_is_no_delivery_of_a_token_that_is_gone(world: World) -> None:
    """It bears the transfer's id, and nothing else speaks for it: a person decides."""
    row = held_after_the_abort(world, size=5)
    assert (row.state, row.reason, row.receipt) == (State.HELD, "token_gone", None)


def test_a_persons_word_ends_the_rule_of_the_refused(world: World) -> None:
    """A decision that breaks off leaves a token that a person gave up; nobody goes on with it by rule."""
    row = held_after_the_abort(world, size=5)
    assert row.commit is not None
    assert row.commit.refused
    watch(world, once_at("s3-b.consume:before", crash))
    with pytest.raises(Crash):
        decide(world.engine, TENANT, row.id, Decision.ABANDON, by="op", why="nothing came")
    row = world.ledger.load(row.id)
    assert row.commit is not None
    assert (row.state, row.commit.abandoned, row.commit.refused) == (State.HELD, True, False)
