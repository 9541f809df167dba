"""What goes wrong on the way, and what becomes of the row: at the commit, at the destination, in staging, in a lane, in the queue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from eft.domain.flow import Priority
from eft.domain.transfer import State, Step, Transfer
from eft.errors import LostOwnership, NotFound, Permanent, Transient
from eft.journey import deliver as delivering
from eft.journey.held import Decision, decide
from eft.journey.messages import Message
from eft.journey.operate import cancel, redrive, run_flow, take
from eft.journey.sweep import sweep
from tests.crashes import watch
from tests.fake_store import CHUNK
from tests.fakes import START
from tests.world import SMALL, TENANT, World

LARGE = 9 * SMALL.part_size


@pytest.fixture
def world() -> World:
    """An engine over fakes, with a small file and a large one."""
    made = World()
    for server in ("sftp-a", "s3-a"):
        made.server(server).put("in/a.bin", b"x")
        made.server(server).put("in/big.bin", b"x" * LARGE)
    return made


def once(world: World, label: str, act: Callable[[], object], *, times: int = 1) -> None:
    """Does something at the first passings of a point."""
    left = times

    def hook(passed: str) -> None:
        nonlocal left
        if passed == label and left:
            left -= 1
            act()

    watch(world, hook)


# -- at the commit -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("destination", ["sftp-b", "s3-b"])
def test_a_file_that_stood_in_the_way_for_a_moment_delays_the_commit(world: World, destination: str) -> None:
    """It was there at the rename and gone at the look: the same token is committed at the next try."""
    server = world.server(destination)

    def meddle(label: str) -> None:
        if label == f"{destination}.commit:before" and server.calls["commit"] == 1:
            server.put("out/a.bin", b"theirs")
        elif label == f"{destination}.commit:after" and server.calls["commit"] == 1:
            del server.files["out/a.bin"]

    watch(world, meddle)
    row = world.until_rest(world.submit("s3-a", destination))
    assert (row.state, row.attempt) == (State.SETTLED, 1)
    assert (server.get("out/a.bin"), server.calls["commit"], server.appeared["out/a.bin"]) == (b"x", 2, 1)
    assert "destination_exists" in {event.reason for event in row.timeline}


def test_an_equal_file_that_is_not_ours_is_a_persons_to_judge(world: World) -> None:
    """By its bytes it may be ours; but our rename was never tried, and our token is still there."""
    server = world.server("sftp-b")
    once(world, "sftp-b.commit:before", lambda: server.put("out/a.bin", b"x"))
    row = world.until_rest(world.submit("s3-a", "sftp-b"))
    assert (row.state, row.reason) == (State.HELD, "destination_exists")
    assert row.commit is not None
    assert row.commit.token in server.files


def test_a_committing_row_without_a_commit_is_held(world: World) -> None:
    """Nobody can know what it was to commit."""
    transfer = world.submit("s3-a", "sftp-b")
    broken = world.ledger.load(transfer.id).to(State.DELIVERING, now=START).to(State.COMMITTING, now=START)
    world.ledger.save(broken, was=State.ACCEPTED)
    row = world.until_rest(transfer)
    assert (row.state, row.reason) == (State.HELD, "internal_error")


def test_what_was_delivered_without_a_trace_is_settled_on_the_operators_word(world: World) -> None:
    """Held without a commit there is no receipt to write."""
    transfer = world.submit("s3-a", "sftp-b")
    world.ledger.save(transfer.to(State.HELD, now=START, reason="source_changed"), was=State.ACCEPTED)
    done = decide(world.engine, TENANT, transfer.id, Decision.ACCEPT, by="op", why="the partner has it")
    assert (done.state, done.receipt) == (State.DELIVERED, None)
    world.queue.append(Message(step=Step.SETTLE, ids=(transfer.id,)))
    assert world.until_rest(done).state is State.SETTLED


# -- at the destination ------------------------------------------------------------------------------------------------


def test_a_directory_full_of_the_name_buries(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Conflict mode rename ends somewhere."""
    monkeypatch.setattr(delivering, "MAX_RENAMES", 3)
    for name in ("a.bin", "a.1.bin", "a.2.bin"):
        world.server("sftp-b").put(f"out/{name}", b"theirs")
    row = world.until_rest(world.submit("s3-a", "sftp-b", conflict="rename"))
    assert (row.state, row.reason) == (State.DEAD, "destination_exists")
    assert world.ledger.holder("sftp-b", "out/a.bin") is None


def test_a_path_that_others_take_over_again_and_again_is_waited_for(world: World) -> None:
    """Twice a dead transfer's reservation is freed and another's found in its place: the third look is the next try's."""
    others = [world.submit("s3-a", "sftp-b", to=f"out/other{n}.bin") for n in range(3)]
    world.queue.clear()
    dead = [world.ledger.load(one.id).to(State.DEAD, now=START, reason="x") for one in others]
    for one in dead:
        world.ledger.save(one, was=State.ACCEPTED)
    path: Any = "out/a.bin"
    taken = iter(dead)

    def take_it() -> None:
        holder = next(taken)
        world.ledger.reserve(endpoint="sftp-b", path=path, transfer=holder.id, claim=holder.claim, source="s", order=1)

    take_it()
    once(world, "ledger.release:after", take_it, times=2)
    transfer = world.submit("s3-a", "sftp-b")
    world.queue += world.deliver_message(world.queue.popleft())
    row = world.ledger.load(transfer.id)
    assert (row.state, row.reason, row.tries) == (State.ACCEPTED, "destination_reserved", 0)
    assert world.until_rest(transfer).state is State.SETTLED


@pytest.mark.parametrize("destination", ["sftp-b", "s3-b"])
def test_a_redriven_transfer_goes_on_with_the_upload_that_it_had(world: World, destination: str) -> None:
    """Buried in the middle of a large file, it copies what is missing, under the same token."""
    server = world.server(destination)
    transfer = world.submit("sftp-a", destination, path="in/big.bin", staging=False, retry={"tries": 1})
    lanes = world.deliver_message(world.queue.popleft())
    assert len(lanes) == 3
    world.in_one_lane(lanes[0])
    upload = world.ledger.load(transfer.id).upload

    def fail() -> None:
        raise Transient("gone", reason="unreachable")

    once(world, f"{destination}.write:before", fail)
    world.deliver_message(lanes[1])
    assert world.ledger.load(transfer.id).state is State.DEAD
    writes = server.calls["write"]
    world.queue.append(Message(step=Step.DELIVER, ids=(redrive(world.engine, TENANT, transfer.id, "op").id,)))
    row = world.until_rest(transfer)
    assert (row.state, row.attempt) == (State.SETTLED, 1)
    assert upload is not None
    assert row.commit is not None
    assert row.commit.token == upload.token
    assert server.calls["write"] - writes == 6
    assert server.get("out/a.bin") == b"x" * LARGE


@pytest.mark.parametrize(("redriven", "state"), [(False, State.DEAD), (True, State.HELD)])
def test_a_source_that_was_replaced_before_its_journey_is_not_delivered(world: World, state: State, *, redriven: bool) -> None:
    """On a first journey the transfer is buried, for the new version is another transfer; a re-driven one waits for a person."""
    flow = world.flow("sftp-a", "s3-b", selection={"glob": "a.bin"}, retry={"tries": 1})
    world.queue += run_flow(world.engine, flow)
    world.queue += world.deliver_message(world.queue.popleft())
    (transfer,) = world.ledger.rows()
    if redriven:
        world.server("s3-b").put("out/a.bin", b"theirs")
        assert world.until_rest(transfer).state is State.DEAD
        del world.server("s3-b").files["out/a.bin"]
        world.queue.append(Message(step=Step.DELIVER, ids=(redrive(world.engine, TENANT, transfer.id, "op").id,)))
    world.clock.advance(5)
    world.server("sftp-a").put("in/a.bin", b"newer")
    row = world.until_rest(transfer)
    assert (row.state, row.reason) == (state, "source_changed")
    assert world.server("s3-b").finals() == {}


def test_an_abandoned_token_that_cannot_be_removed_stays_named_on_the_row(world: World) -> None:
    """The file is delivered and settled all the same; who cleans up finds what is left."""
    server = world.server("sftp-b")
    transfer = world.submit("s3-a", "sftp-b", path="in/big.bin")
    lanes = world.deliver_message(world.queue.popleft())
    server.files.clear()
    for lane in lanes:
        world.queue += world.deliver_message(lane)

    def fail() -> None:
        raise Transient("denied", reason="permission_denied")

    once(world, "sftp-b.consume:before", fail, times=9)
    row = world.until_rest(transfer)
    assert (row.state, row.attempt) == (State.SETTLED, 2)
    assert [upload.attempt for upload in row.abandoned] == [1]


# -- in staging --------------------------------------------------------------------------------------------------------


def test_a_staged_copy_that_is_not_what_was_frozen_is_made_again(world: World) -> None:
    """Parts that changed in staging are not completed; the next try copies them anew."""
    staging = world.stores.staging_server

    def spoil() -> None:
        next(iter(staging.uploads.values())).parts[1] = b"?"

    once(world, "staging.commit:before", spoil)
    row = world.until_rest(world.submit("sftp-a", "sftp-b", retry={"tries": 2}))
    assert "part_differs" in {event.reason for event in row.timeline}
    assert (row.state, world.server("sftp-b").get("out/a.bin")) == (State.SETTLED, b"x")


def test_a_staged_copy_that_vanished_is_made_again(world: World) -> None:
    """Completed and not there: a new attempt, and what is delivered is whole."""
    once(world, "staging.commit:after", world.stores.staging_server.files.clear)
    row = world.until_rest(world.submit("sftp-a", "sftp-b"))
    assert (row.state, row.attempt) == (State.SETTLED, 3)
    assert world.server("sftp-b").get("out/a.bin") == b"x"


# -- in a lane ---------------------------------------------------------------------------------------------------------


def lanes_of(world: World, destination: str = "sftp-b") -> tuple[Transfer, list[Message]]:
    """Returns a large file's transfer and its lanes' messages."""
    transfer = world.submit("s3-a", destination, path="in/big.bin")
    return transfer, world.deliver_message(world.queue.popleft())


def test_a_lane_that_is_out_of_time_sends_itself_on(world: World) -> None:
    """What it copied is kept; its message names the same lane."""
    transfer, lanes = lanes_of(world)
    once(world, "sftp-b.write:after", lambda: world.clock.advance(SMALL.slice))
    assert world.deliver_message(lanes[1]) == [lanes[1]]
    assert set(world.ledger.parts(transfer.id, attempt=1)) == {4}
    world.queue += lanes
    assert world.until_rest(transfer).state is State.SETTLED
    assert world.server("sftp-b").calls["write"] == 9


def test_a_lane_keeps_its_place_while_bytes_arrive() -> None:
    """Through a part that takes longer than its lease nobody else takes it, and the sweep stays away."""
    world = World(tuning=replace(SMALL, part_size=4 * CHUNK))
    world.server("s3-a").put("in/big.bin", b"x" * (9 * 4 * CHUNK))
    transfer, lanes = lanes_of(world)
    second: list[Message] = []

    def another() -> None:
        world.clock.advance(SMALL.lease * 0.9)
        second.extend([*sweep(world.engine), *world.in_one_lane(lanes[0])])

    once(world, "s3-a.read:chunk", another, times=4)
    assert world.deliver_message(lanes[0]) == [lanes[0]]
    assert second == []
    assert world.server("sftp-b").calls["write"] == 1
    assert set(world.ledger.parts(transfer.id, attempt=1)) == {1}


def test_a_worker_that_lost_its_lane_while_it_stood_still_records_nothing_more(world: World) -> None:
    """Another one has sent the same part since: what the first noted of it would not be what stands there."""
    transfer, lanes = lanes_of(world)

    def stall() -> None:
        if world.server("sftp-b").calls["write"] < 3:  # the first part is noted at once, the second waits
            return
        world.clock.advance(SMALL.lease * 2)
        assert world.limits.acquire(f"lane:{transfer.id}:1:1", limit=1, holder="other", lease=SMALL.lease)

    once(world, "sftp-b.write:after", stall, times=3)
    assert world.deliver_message(lanes[0]) == [lanes[0]]
    assert list(world.ledger.parts(transfer.id, attempt=1)) == [1]


def test_a_part_that_was_sent_again_abandons_the_attempt(world: World) -> None:
    """Its etag is not the one on record, whoever sent it: another attempt is made before anything is decided."""
    server = world.server("s3-b")

    def again() -> None:
        next(iter(server.uploads.values())).parts[2] = b"?" * SMALL.part_size

    once(world, "s3-b.verify:before", again)
    row = world.until_rest(world.submit("s3-a", "s3-b", path="in/big.bin"))
    assert "part_differs" in {event.reason for event in row.timeline}
    assert (row.state, row.attempt) == (State.SETTLED, 2)
    assert server.get("out/a.bin") == b"x" * LARGE


@pytest.mark.parametrize("meanwhile", ["nothing", "taken", "cancelled"])
def test_a_lanes_error_is_written_by_whoever_has_the_transfer(world: World, meanwhile: str) -> None:
    """Under a claim of its own; where another worker has it, or it has moved on, the lane's error is nobody's."""
    transfer, lanes = lanes_of(world)

    def fail() -> None:
        if meanwhile == "taken":
            assert world.ledger.claim(transfer.id, worker="w2", now=world.clock.now(), lease=SMALL.lease) is not None
        if meanwhile == "cancelled":
            cancel(world.engine, TENANT, transfer.id, "op")
        raise Transient("gone", reason="unreachable")

    once(world, "sftp-b.write:before", fail)
    follow = world.deliver_message(lanes[0])
    row = world.ledger.load(transfer.id)
    assert [message.step for message in follow] == ([Step.DELIVER] if meanwhile == "nothing" else [])
    assert (row.reason, row.tries) == {"nothing": ("unreachable", 1), "taken": (None, 0), "cancelled": ("cancelled", 0)}[meanwhile]
    assert row.state is (State.CANCELLED if meanwhile == "cancelled" else State.DELIVERING)


# -- what an operator meets --------------------------------------------------------------------------------------------


def test_a_cancel_that_comes_while_the_commit_is_decided_is_too_late(world: World) -> None:
    """It was cancellable when it was looked at; the file is delivered."""
    transfer = world.submit("s3-a", "sftp-b")
    message = world.queue.popleft()
    once(world, "ledger.load:after", lambda: world.deliver_message(message))
    with pytest.raises(Permanent) as late:
        cancel(world.engine, TENANT, transfer.id, "op")
    assert late.value.reason == "too_late"
    row = world.ledger.load(transfer.id)
    assert (row.state, row.claim_until) == (State.SETTLED, None)
    assert world.server("sftp-b").get("out/a.bin") == b"x"


def test_what_is_held_where_it_may_have_been_delivered_is_not_cancelled(world: World) -> None:
    """Its fate is a person's decision, not a cancellation; a second cancel of a cancelled one changes nothing."""
    once(world, "sftp-b.commit:before", world.server("sftp-b").files.clear)
    row = world.until_rest(world.submit("s3-a", "sftp-b"))
    assert (row.state, row.held_from) == (State.HELD, State.COMMITTING)
    with pytest.raises(Permanent) as late:
        cancel(world.engine, TENANT, row.id, "op")
    assert late.value.reason == "too_late"
    stands = world.ledger.load(row.id)
    assert (stands.state, stands.claim_until, stands.timeline) == (State.HELD, None, row.timeline)


@pytest.mark.parametrize("answers", [True, False])
def test_a_cancel_removes_what_staging_and_destination_hold(world: World, *, answers: bool) -> None:
    """As far as they answer: a dead endpoint keeps its temporary file, and the transfer is cancelled all the same."""
    transfer = world.submit("sftp-a", "sftp-b", path="in/big.bin")
    world.deliver_message(world.queue.popleft())
    staging = world.stores.staging_server
    assert len(staging.uploads) == 1

    def fail() -> None:
        raise Transient("gone", reason="unreachable")

    if not answers:
        once(world, "staging.consume:before", fail)
    assert cancel(world.engine, TENANT, transfer.id, "op").state is State.CANCELLED
    assert len(staging.uploads) == (0 if answers else 1)


def test_an_operator_does_not_take_what_the_other_region_carries_on(world: World) -> None:
    """He is told where to ask."""
    transfer = world.submit("s3-a", "sftp-b")
    dead = transfer.to(State.DEAD, now=START, reason="x").with_(elsewhere="us-gov-east-1")
    world.ledger.save(dead, was=State.ACCEPTED)
    with pytest.raises(LostOwnership, match="us-gov-east-1"):
        redrive(world.engine, TENANT, transfer.id, "op")


def test_an_operator_that_another_one_is_ahead_of_asks_again(world: World) -> None:
    """A claim that is not given, even by force, is said to be another's."""
    transfer = world.submit("s3-a", "sftp-b")
    world.ledger.claim = lambda *_, **__: None  # type: ignore[method-assign]
    with pytest.raises(LostOwnership):
        take(world.engine, transfer.id)


# -- queue and sweep ---------------------------------------------------------------------------------------------------


def test_of_two_workers_with_one_message_the_second_does_nothing(world: World) -> None:
    """Between its look and its claim the other one claimed."""
    transfer = world.submit("s3-a", "sftp-b")
    message = world.queue.popleft()
    once(
        world,
        "ledger.load:after",
        lambda: world.ledger.claim(transfer.id, worker="w1", now=world.clock.now(), lease=SMALL.lease),
    )
    assert world.deliver_message(message) == []
    assert world.server("sftp-b").calls.total() == 0


def test_a_transfer_that_waits_outside_its_tenants_window_is_not_swept_meanwhile(world: World) -> None:
    """Its message comes again in seconds; its due time moves on with it."""
    for n in range(SMALL.tenant_window):
        assert world.limits.acquire(f"tenant:{TENANT}", limit=99, holder=f"w{n}", lease=timedelta(hours=1))
    transfer = world.submit("s3-a", "sftp-b", priority=Priority.BULK)
    message = world.queue.popleft()
    world.clock.advance(SMALL.stall * 0.9)
    (again,) = world.deliver_message(message)
    assert (again.step, again.ids) == (message.step, message.ids)
    assert timedelta(seconds=2) <= again.delay <= timedelta(seconds=6)
    world.clock.advance(SMALL.stall / 4)
    assert list(sweep(world.engine)) == []
    assert world.ledger.load(transfer.id).claim_until is None


def test_the_sweep_passes_over_what_is_gone(world: World) -> None:
    """An index may still name a row that no longer exists."""
    transfer = world.submit("s3-a", "sftp-b")
    world.clock.advance(SMALL.stall * 2)
    world.ledger.trip("load", NotFound("gone", reason="transfer_unknown"))
    assert list(sweep(world.engine)) == []
    world.clock.advance(SMALL.stall * 2)
    assert [message.ids for message in sweep(world.engine)] == [(transfer.id,)]
