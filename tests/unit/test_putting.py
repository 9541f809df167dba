"""Small files in one request: sent once, found by its transfer's id, and never sent again where it may have arrived."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from eft.domain.transfer import CLOCKS_DIFFER, PUT_ARRIVES_WITHIN, Commit, State, Transfer
from eft.errors import EftError, Permanent, Transient, Undecidable
from eft.journey.accept import first_message
from eft.journey.held import Decision, decide
from eft.journey.messages import next_message
from eft.journey.operate import cancel, redrive
from eft.ports import Bytes, CommitOutcome, Committed
from tests.crashes import Crash, CrashPoint, survive, watch
from tests.fake_store import FakeStore
from tests.unit.test_journey_sleepers import HOUR, crash, once_at
from tests.unit.test_refused import bucket
from tests.world import SMALL, TENANT, World

OUT = "out/a.bin"
TOO_LATE = PUT_ARRIVES_WITHIN + CLOCKS_DIFFER + timedelta(seconds=1)


@pytest.fixture
def world() -> World:
    """An engine over fakes, with a small file to move."""
    world = World()
    world.server("sftp-a").put("in/a.bin", b"ours")
    return world


def submit(world: World, *, sidecar: bool = False) -> Transfer:
    """Asks for the file where the receiver keeps it."""
    return world.submit("sftp-a", "s3-b", receiver_keeps=True, sidecar=sidecar)


def lose_the_answer(monkeypatch: pytest.MonkeyPatch, *, stored: bool) -> None:
    """The connection is cut while a put is under way; it arrived, or never does."""
    real = FakeStore.put

    def put(self: FakeStore, commit: Commit, pieces: Sequence[Bytes], *, asked_at: datetime) -> Committed:
        if stored:
            real(self, commit, pieces, asked_at=asked_at)
        else:
            self.server.calls["put"] += 1
        raise Transient("the answer was lost", reason="answer_lost")

    monkeypatch.setattr(FakeStore, "put", put)


def test_one_request_delivers(world: World) -> None:
    """Nothing else is asked of the destination; the receipt has what its answer said."""
    row = world.until_rest(submit(world))
    assert (row.state, bucket(world).calls, bucket(world).get(OUT)) == (State.SETTLED, {"put": 1}, b"ours")
    assert row.receipt is not None
    assert row.receipt.version == bucket(world).files[OUT].version
    assert [event.state for event in row.timeline] == ["accepted", "delivering", "committing", "delivered", "settled"]


@pytest.mark.parametrize(
    ("size", "policy", "refuses"),
    [
        (4, {"receiver_keeps": False}, True),
        (4, {"receiver_keeps": True, "conflict": "overwrite"}, True),
        (4, {"receiver_keeps": True}, False),
        (SMALL.part_size + 1, {"receiver_keeps": True}, True),
        (4, {"receiver_keeps": True, "staging": True}, True),
    ],
    ids=["nobody says that the receiver keeps it", "overwriting", "a store that may ignore If-None-Match", "not small", "staged"],
)
def test_everything_else_is_uploaded(world: World, *, size: int, policy: dict[str, Any], refuses: bool) -> None:
    """A put that may have arrived cannot be taken back: where it could do harm there is none."""
    bucket(world).refuses_taken = refuses
    world.server("sftp-a").put("in/a.bin", b"x" * size)
    assert world.until_rest(world.submit("sftp-a", "s3-b", **policy)).state is State.SETTLED
    assert (bucket(world).calls["put"], bucket(world).calls["commit"]) == (0, 1)


def test_a_lost_answer_is_found_by_its_transfer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The object bears the transfer's id: delivered, and sent once."""
    lose_the_answer(monkeypatch, stored=True)
    row = world.until_rest(submit(world))
    assert (row.state, bucket(world).calls["put"], bucket(world).appeared[OUT]) == (State.SETTLED, 1, 1)


def test_what_is_not_there_is_never_sent_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may arrive yet: held, and a re-drive looks again and sends nothing. Once it is there a re-drive finds it."""
    lose_the_answer(monkeypatch, stored=False)
    row = world.until_rest(submit(world))
    assert (row.state, row.reason, row.error) == (
        State.HELD,
        "answer_lost",
        "the answer to the upload of 'out/a.bin' was lost and the file is not there; it may still arrive within minutes",
    )
    world.queue += next_message(redrive(world.engine, TENANT, row.id, "op"))
    row = world.until_rest(row)
    assert (row.state, bucket(world).calls["put"], bucket(world).calls["mint"]) == (State.HELD, 1, 0)
    bucket(world).put(OUT, b"ours", transfer=row.id)
    world.queue += next_message(redrive(world.engine, TENANT, row.id, "op"))
    assert world.until_rest(row).state is State.SETTLED
    assert bucket(world).calls["put"] == 1


def test_another_file_in_its_place_is_held(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no evidence of ours."""
    lose_the_answer(monkeypatch, stored=False)
    watch(world, once_at("s3-b.look:before", lambda: bucket(world).put(OUT, b"theirs")))
    row = world.until_rest(submit(world))
    assert (row.state, row.reason) == (State.HELD, "destination_exists")


@pytest.mark.parametrize("decision", [Decision.DELIVER, Decision.ABANDON])
def test_nobody_gives_up_what_may_still_arrive(world: World, monkeypatch: pytest.MonkeyPatch, decision: Decision) -> None:
    """Until the request is too old to be taken; after that it is given up, and one that comes all the same is refused."""
    with monkeypatch.context() as cut:
        lose_the_answer(cut, stored=False)
        row = world.until_rest(submit(world))
    assert row.commit is not None
    assert row.commit.asked_at is not None
    asked_at = row.commit.asked_at
    # A re-drive in between changes nothing.
    world.clock.advance(timedelta(minutes=10))
    world.queue += next_message(redrive(world.engine, TENANT, row.id, "op"))
    row = world.until_rest(row)
    world.clock.advance(asked_at + TOO_LATE - timedelta(minutes=1) - world.clock.now())
    with pytest.raises(Permanent) as error:
        decide(world.engine, TENANT, row.id, decision, by="op", why="nothing came")
    assert error.value.reason == "may_still_arrive"
    assert world.ledger.load(row.id).commit == row.commit
    world.clock.advance(60)
    decided = decide(world.engine, TENANT, row.id, decision, by="op", why="nothing came")
    assert row.commit is not None
    assert FakeStore(bucket(world)).put(row.commit, [b"ours"], asked_at=asked_at).outcome is CommitOutcome.NOT_STORED
    if decision is Decision.ABANDON:
        assert (decided.state, bucket(world).finals()) == (State.CANCELLED, {})
        return
    world.queue += next_message(decided)
    done = world.until_rest(row)
    assert (done.state, done.attempt, bucket(world).appeared[OUT]) == (State.SETTLED, 2, 1)


def test_accepting_needs_no_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever says that it has arrived gives nothing up."""
    lose_the_answer(monkeypatch, stored=False)
    row = world.until_rest(submit(world))
    world.queue += next_message(decide(world.engine, TENANT, row.id, Decision.ACCEPT, by="op", why="they have it"))
    assert world.until_rest(row).state is State.SETTLED


def test_a_decision_finds_what_has_arrived(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was decided: it is delivered."""
    lose_the_answer(monkeypatch, stored=False)
    row = world.until_rest(submit(world))
    bucket(world).put(OUT, b"ours", transfer=row.id)
    world.clock.advance(TOO_LATE)
    decided = decide(world.engine, TENANT, row.id, Decision.ABANDON, by="op", why="nothing came")
    assert (decided.state, decided.timeline[-1].reason) == (State.DELIVERED, "found_at_destination")


def test_a_taken_name_buries_as_after_a_look(world: World) -> None:
    """The store has refused it: nothing is held, nothing is sent but that one request."""
    bucket(world).put(OUT, b"theirs")
    row = world.until_rest(submit(world))
    assert (row.state, row.reason, row.commit) == (State.DEAD, "destination_exists", None)
    assert State.HELD not in {event.state for event in row.timeline}
    assert (bucket(world).get(OUT), bucket(world).calls["mint"]) == (b"theirs", 0)
    assert world.ledger.holder("s3-b", OUT) is None


@pytest.mark.parametrize(
    ("why", "end"),
    [
        (Transient("slow down", reason="throttled"), (State.SETTLED, 2, 1)),
        (Permanent("access is denied", reason="access_denied"), (State.DEAD, 1, 0)),
    ],
)
def test_what_was_turned_away_is_uploaded_next_time(
    world: World, monkeypatch: pytest.MonkeyPatch, why: EftError, end: tuple[State, int, int]
) -> None:
    """The store says that it has not stored it: an error as any other, and no second put."""

    def put(self: FakeStore, commit: Commit, pieces: Sequence[Bytes], *, asked_at: datetime) -> Committed:
        self.server.calls["put"] += 1
        return Committed(CommitOutcome.NOT_STORED, why=why)

    monkeypatch.setattr(FakeStore, "put", put)
    row = world.until_rest(submit(world))
    assert (row.state, row.attempt, bucket(world).appeared[OUT]) == end
    assert bucket(world).calls["put"] == 1
    assert why.reason in {event.reason for event in row.timeline}


def test_a_killed_worker_costs_no_second_delivery() -> None:
    """Killed at any call it settles, or is held where the put may have been under way; the file appears once at the most."""
    held: list[str] = []
    at = passed = 1
    while at <= passed:
        world = World()
        world.server("sftp-a").put("in/a.bin", b"ours")
        transfer = submit(world)
        point = CrashPoint(at)
        watch(world, point)
        survive(world, transfer.id)
        passed, at = point.passed, at + 1
        row = world.ledger.load(transfer.id)
        assert bucket(world).calls["put"] <= 1, point.label
        if row.state is State.HELD:
            held.append(point.label)
            assert (row.reason, bucket(world).appeared[OUT]) == ("answer_lost", 0), point.label
        else:
            assert (row.state, bucket(world).appeared[OUT]) == (State.SETTLED, 1), point.label
    assert held[-1] == "s3-b.put:before"
    assert {label.partition(".")[0] for label in held} <= {"ledger", "ownership", "s3-b"}


def test_a_worker_that_wakes_late_sends_what_nobody_repeats(world: World) -> None:
    """Held meanwhile, and found by a re-drive; one that slept for too long is refused."""
    transfer = submit(world)

    def overtake() -> None:
        world.clock.advance(world.tuning.lease * 2)
        world.queue.append(first_message(transfer))
        assert world.until_rest(transfer).reason == "answer_lost"

    watch(world, once_at("s3-b.put:before", overtake))
    row = world.until_rest(transfer)
    assert (row.state, bucket(world).appeared[OUT]) == (State.HELD, 1)
    world.queue += next_message(redrive(world.engine, TENANT, row.id, "op"))
    assert world.until_rest(row).state is State.SETTLED
    assert bucket(world).appeared[OUT] == 1


def test_a_request_is_as_old_as_its_decision(world: World) -> None:
    """A worker that sleeps between the two sends what its store refuses: by then it may have been given up."""
    transfer = submit(world)
    watch(world, once_at("s3-b.put:before", lambda: world.clock.advance(PUT_ARRIVES_WITHIN + timedelta(seconds=1))))
    row = world.until_rest(transfer)
    assert (row.state, row.attempt, bucket(world).appeared[OUT]) == (State.SETTLED, 2, 1)
    assert "clock_skewed" in {event.reason for event in row.timeline}


def test_it_is_too_late_to_cancel(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for every commit."""
    lose_the_answer(monkeypatch, stored=False)
    row = world.until_rest(submit(world))
    with pytest.raises(Permanent) as error:
        cancel(world.engine, TENANT, row.id, "acme")
    assert error.value.reason == "too_late"


def test_bytes_are_compared_before_they_are_sent(world: World) -> None:
    """The SHA-256 that a request demands."""
    world.server("sftp-a").put("in/a.bin.sha256", b"0" * 64 + b"  a.bin\n")
    row = world.until_rest(submit(world, sidecar=True))
    assert (row.state, row.reason, bucket(world).calls["put"]) == (State.DEAD, "checksum_mismatch", 0)


def test_an_empty_file_is_put(world: World) -> None:
    """It has no bytes, and appears all the same."""
    world.server("sftp-a").put("in/a.bin", b"")
    assert world.until_rest(submit(world)).state is State.SETTLED
    assert (bucket(world).get(OUT), bucket(world).calls["put"]) == (b"", 1)


def test_a_source_that_changes_while_it_is_read_is_not_sent(world: World) -> None:
    """Its bytes may be of two versions."""
    source = world.server("sftp-a")
    watch(world, once_at("sftp-a.whole:chunk", lambda: source.put("in/a.bin", b"other bytes")))
    row = world.until_rest(submit(world))
    assert (row.state, row.reason, bucket(world).calls["put"]) == (State.DEAD, "source_changed", 0)


def test_before_the_note_nothing_was_sent(world: World) -> None:
    """With a peer the note follows its ack: a worker that dies before it has sent nothing, and the file is uploaded."""
    transfer = submit(world)
    row = world.ledger.load(transfer.id)
    engine = world.engine
    watch(world, once_at("s3-b.put:before", crash))
    with pytest.raises(Crash):
        world.drain()
    world.engine = engine
    row = world.ledger.load(transfer.id)
    assert row.commit is not None
    assert row.commit.attempted
    world.ledger.save(row.with_(commit=row.commit.model_copy(update={"attempted": False})), was=State.COMMITTING)
    world.clock.advance(HOUR)
    world.queue.append(first_message(row))
    done = world.until_rest(row)
    assert (done.state, done.attempt, bucket(world).appeared[OUT]) == (State.SETTLED, 2, 1)
    assert "put_not_sent" in {event.reason for event in done.timeline}


@pytest.mark.parametrize("conflict", ["fail", "rename", "skip"])
def test_a_name_that_we_have_taken_ourselves_is_a_delivery(world: World, monkeypatch: pytest.MonkeyPatch, conflict: str) -> None:
    """Something between us and the store has repeated the request: its second answer is a refusal of our own file."""
    real = FakeStore.put

    def put(self: FakeStore, commit: Commit, pieces: Sequence[Bytes], *, asked_at: datetime) -> Committed:
        real(self, commit, pieces, asked_at=asked_at)
        return real(self, commit, pieces, asked_at=asked_at)

    monkeypatch.setattr(FakeStore, "put", put)
    row = world.until_rest(world.submit("sftp-a", "s3-b", receiver_keeps=True, conflict=conflict))
    assert (row.state, list(bucket(world).finals()), bucket(world).appeared[OUT]) == (State.SETTLED, [OUT], 1)


def test_a_refusal_with_nothing_there_is_held(world: World) -> None:
    """Whatever it was refused for has gone again; a repetition of the request may be on its way."""
    bucket(world).put(OUT, b"theirs")
    watch(world, once_at("s3-b.put:after", lambda: bucket(world).files.pop(OUT)))
    row = world.until_rest(submit(world))
    assert (row.state, row.reason, bucket(world).calls["mint"]) == (State.HELD, "answer_lost", 0)


def test_what_was_turned_away_and_stands_there_all_the_same_is_delivered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look that giving up takes finds it."""
    real = FakeStore.put

    def put(self: FakeStore, commit: Commit, pieces: Sequence[Bytes], *, asked_at: datetime) -> Committed:
        real(self, commit, pieces, asked_at=asked_at)
        return Committed(CommitOutcome.NOT_STORED, why=Transient("aws_unavailable", reason="aws_unavailable"))

    monkeypatch.setattr(FakeStore, "put", put)
    row = world.until_rest(submit(world))
    assert (row.state, row.attempt, bucket(world).appeared[OUT]) == (State.SETTLED, 1, 1)


def test_who_finds_the_row_gives_the_request_time(world: World) -> None:
    """The claim is renewed with the decision: a slow read takes nothing off the time that the answer has."""
    transfer = submit(world)

    def slow() -> None:
        world.clock.advance(timedelta(seconds=30))
        world.queue.append(first_message(transfer))
        world.drain()
        assert world.ledger.load(transfer.id).state is State.COMMITTING

    reading, sending = once_at("sftp-a.whole:chunk", lambda: world.clock.advance(timedelta(seconds=50))), once_at("s3-b.put:before", slow)

    def observe(label: str) -> None:
        reading(label)
        sending(label)

    watch(world, observe)
    assert world.until_rest(transfer).state is State.SETTLED


def test_what_is_held_after_its_delivery_is_decided_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has arrived: there is nothing to wait for."""

    def move(*_: object, **__: object) -> None:
        raise Undecidable("who knows", reason="disposal_undecided")

    monkeypatch.setattr(FakeStore, "move", move)
    row = world.until_rest(world.submit("sftp-a", "s3-b", receiver_keeps=True, disposition="delete"))
    assert (row.state, row.held_from) == (State.HELD, State.DELIVERED)
    decide(world.engine, TENANT, row.id, Decision.ABANDON, by="op", why="leave it")


def test_whoever_accepts_need_not_be_able_to_look(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential may write and not read."""
    lose_the_answer(monkeypatch, stored=False)
    row = world.until_rest(submit(world))

    def refused(*_: object, **__: object) -> None:
        raise Permanent("access is denied", reason="access_denied")

    monkeypatch.setattr(FakeStore, "look", refused)
    monkeypatch.setattr(FakeStore, "consume", refused)
    assert decide(world.engine, TENANT, row.id, Decision.ACCEPT, by="op", why="they have it").state is State.DELIVERED
