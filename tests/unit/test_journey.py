"""One file's journey over fakes: every kind, policy and error."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from eft.domain.fingerprint import Fingerprint, RefusedName
from eft.domain.flow import Flow
from eft.domain.names import remote_path
from eft.domain.parts import PartDone
from eft.domain.transfer import State, Step, Transfer
from eft.errors import Conflict, LostOwnership, NotFound, Permanent, Transient
from eft.journey.accept import Submission, accept, first_message
from eft.journey.messages import Message, next_message
from eft.journey.operate import cancel, redrive, run_flow
from tests.crashes import watch
from tests.world import SMALL, TENANT, World

KINDS = [("sftp-a", "s3-b"), ("s3-a", "sftp-b"), ("sftp-a", "sftp-b"), ("s3-a", "s3-b"), ("s3-a", "s3-a")]
SIZES = [0, 1, SMALL.part_size, SMALL.part_size + 1, 10 * SMALL.part_size + 7]


def content(size: int) -> bytes:
    """Returns bytes that repeat nowhere near a part's length."""
    return bytes(i * 7 % 251 for i in range(size))


def slow_writes(world: World) -> Callable[[str], None]:
    """Returns a hook with which each part takes half a minute."""

    def wait(label: str) -> None:
        if label.endswith("write:after"):
            world.clock.advance(30)

    return wait


@pytest.fixture
def world() -> World:
    """An engine over fakes."""
    return World()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda k: f"{k[0]}-{k[1]}")
def test_a_file_arrives_whole_once(world: World, kind: tuple[str, str], size: int) -> None:
    """Every kind moves files of every size, byte for byte, with a receipt that names its checksum."""
    source, destination = kind
    world.server(source).put("in/a.bin", content(size))
    row = world.until_rest(world.submit(source, destination))
    assert row.state is State.SETTLED
    assert world.server(destination).get("out/a.bin") == content(size)
    assert world.server(destination).appeared["out/a.bin"] == 1
    assert row.receipt is not None
    assert row.receipt.size == size
    algorithm, _, value = row.receipt.checksum.partition(":")
    if algorithm == "sha256":
        assert value == hashlib.sha256(content(size)).hexdigest()
    assert world.ledger.holder(destination, "out/a.bin") is None
    assert not world.server(destination).uploads


def test_small_files_make_one_trip_through_the_queue(world: World) -> None:
    """All steps of a small file run in the slice of its first message."""
    world.server("sftp-a").put("in/a.bin", b"x")
    transfer = world.submit("sftp-a", "sftp-b")
    assert world.deliver_message(world.queue.popleft()) == []
    assert world.ledger.load(transfer.id).state is State.SETTLED


def test_requests_of_a_small_file_are_counted(world: World) -> None:
    """A small SFTP → S3 file costs seven item writes and one lease of the admission window."""
    world.server("sftp-a").put("in/a.bin", b"x")
    world.until_rest(world.submit("sftp-a", "s3-b"))
    calls = world.ledger.calls
    assert sum(calls[c] for c in ("create", "claim", "save", "reserve", "release", "record_parts", "renew", "postpone")) == 7
    assert world.limits.calls["acquire"] == 1


def test_large_files_travel_in_lanes(world: World) -> None:
    """A large file is copied by as many lanes as the tuning says, and each part once."""
    world.server("sftp-a").put("in/a.bin", content(9 * SMALL.part_size))
    transfer = world.submit("sftp-a", "s3-b")
    lanes = world.deliver_message(world.queue.popleft())
    assert [m.part for m in lanes] == [1, 4, 7]
    world.queue += lanes
    assert world.until_rest(transfer).state is State.SETTLED
    assert world.server("s3-b").calls["write"] == 9


@pytest.mark.parametrize(("far", "parallel", "messages"), [("sftp-a", 64, 6), ("s3-b", 64, 6), ("s3-b", 3, 3), ("s3-a", 64, 3)])
def test_a_large_file_has_more_lanes_where_an_end_is_far_away(world: World, far: str, parallel: int, messages: int) -> None:
    """A stream mostly waits there, so twice as many are worth it, if the destination takes as many writers."""
    world.server("sftp-a").put("in/a.bin", content(24 * SMALL.part_size))
    world.server(far).far = True
    world.server("s3-b").parallel = parallel
    world.submit("sftp-a", "s3-b")
    assert len(world.deliver_message(world.queue.popleft())) == messages


def test_a_lane_is_one_workers(world: World) -> None:
    """What another worker has in hand is left to it; whoever comes takes what is free, and the last one sends the transfer on."""
    world.server("sftp-a").put("in/a.bin", content(9 * SMALL.part_size))
    transfer = world.submit("sftp-a", "s3-b")
    lane = world.deliver_message(world.queue.popleft())[0]
    world.limits.acquire(f"lane:{transfer.id}:1:1", limit=1, holder="other", lease=timedelta(minutes=1))
    for _ in range(2):
        assert world.deliver_message(lane) == []
        assert list(world.ledger.parts(transfer.id, attempt=1)) == [4, 5, 6, 7, 8, 9]
        assert world.server("s3-b").calls["write"] == 6
    world.limits.release(f"lane:{transfer.id}:1:1", holder="other")
    assert world.deliver_message(lane) == next_message(world.ledger.load(transfer.id))
    assert world.server("s3-b").calls["write"] == 9


def test_lanes_that_others_have_done_are_looked_at_and_not_tried(world: World) -> None:
    """Where one lane is refused, one look says which of the others are worth a try."""
    world.server("sftp-a").put("in/a.bin", content(9 * SMALL.part_size))
    transfer = world.submit("sftp-a", "s3-b")
    last = world.deliver_message(world.queue.popleft())[2]
    done = [PartDone(number=n, size=SMALL.part_size, crc64nvme=n, etag="e") for n in (4, 5, 6)]
    world.limits.acquire(f"lane:{transfer.id}:1:1", limit=1, holder="other", lease=timedelta(minutes=1))

    def others(label: str) -> None:
        if label == "s3-b.write:after" and not set(world.ledger.parts(transfer.id, attempt=1)) & {4}:
            world.ledger.record_parts(transfer.id, attempt=1, done=done)

    watch(world, others)
    tried = world.limits.calls["acquire"]
    assert world.deliver_message(last) == []
    # Its own, and the first.
    assert world.limits.calls["acquire"] - tried == 2
    assert list(world.ledger.parts(transfer.id, attempt=1)) == [4, 5, 6, 7, 8, 9]


def test_a_lane_that_its_worker_gives_up_is_looked_at_again(world: World) -> None:
    """Whoever was refused it and copies on comes back to it: nobody waits for the sweep."""
    world.server("sftp-a").put("in/a.bin", content(9 * SMALL.part_size))
    transfer = world.submit("sftp-a", "s3-b")
    lane = world.deliver_message(world.queue.popleft())[1]
    other = f"lane:{transfer.id}:1:4"
    world.limits.acquire(other, limit=1, holder="other", lease=timedelta(minutes=1))

    def give_up(label: str) -> None:
        if label == "s3-b.write:after":
            world.limits.release(other, holder="other")

    watch(world, give_up)
    assert world.deliver_message(lane) == next_message(world.ledger.load(transfer.id))
    assert len(world.ledger.parts(transfer.id, attempt=1)) == 9


def test_a_lane_that_fails_is_free_at_once(world: World) -> None:
    """Whoever comes next need not wait for a lease to end."""
    world.server("sftp-a").put("in/a.bin", content(9 * SMALL.part_size))
    transfer = world.submit("sftp-a", "s3-b")
    lane = world.deliver_message(world.queue.popleft())[1]
    writes = 0

    def fail(label: str) -> None:
        nonlocal writes
        if label != "s3-b.write:before":
            return
        writes += 1
        if writes == 2:
            raise Transient("gone", reason="unreachable")

    watch(world, fail)
    world.deliver_message(lane)
    assert len(world.ledger.parts(transfer.id, attempt=1)) < 3
    assert world.limits.acquire(f"lane:{transfer.id}:1:4", limit=1, holder="other", lease=timedelta(minutes=1))


def test_a_message_for_a_part_that_is_none_does_nothing(world: World) -> None:
    """A lane's message after its attempt ended, or with a part beyond the plan, changes nothing."""
    world.server("sftp-a").put("in/a.bin", content(9 * SMALL.part_size))
    transfer = world.submit("sftp-a", "s3-b")
    world.deliver_message(world.queue.popleft())
    assert world.deliver_message(Message(step=Step.PARTS, ids=(transfer.id,), part=10)) == []
    assert world.deliver_message(Message(step=Step.PARTS, ids=(transfer.id,), part=0)) == []


def test_a_worker_that_leaves_keeps_what_it_did(world: World) -> None:
    """A drained slice gives its transfer back at once, and the next worker goes on from the last part."""
    server = world.server("sftp-b")
    server.parallel = 1
    world.server("s3-a").put("in/a.bin", content(6 * SMALL.part_size))
    transfer = world.submit("s3-a", "sftp-b")
    leaving = False
    piece = world.slice()
    piece.leaving = lambda: leaving

    def leave_after_three(label: str) -> None:
        nonlocal leaving
        leaving = leaving or (server.calls["write"] == 3 and label.endswith("read:chunk"))

    watch(world, leave_after_three)
    follow = world.deliver_message(world.queue.popleft(), piece)
    assert [m.step for m in follow] == [Step.DELIVER]
    row = world.ledger.load(transfer.id)
    assert (row.state, row.claim_until) == (State.DELIVERING, None)
    assert set(world.ledger.parts(transfer.id, attempt=1)) == {1, 2}
    world.queue += follow
    assert world.until_rest(transfer).state is State.SETTLED
    assert server.calls["write"] == 3 + 4


def test_a_slice_ends_between_parts(world: World) -> None:
    """A slice that has used its time forwards itself after the part in hand."""
    world.server("sftp-b").parallel = 1
    world.server("s3-a").put("in/a.bin", content(5 * SMALL.part_size))
    transfer = world.submit("s3-a", "sftp-b")
    watch(world, slow_writes(world))
    follow = world.deliver_message(world.queue.popleft())
    assert [m.step for m in follow] == [Step.DELIVER]
    assert set(world.ledger.parts(transfer.id, attempt=1)) == {1, 2}


def test_a_long_part_keeps_its_claim(world: World) -> None:
    """While bytes arrive slowly, the claim is renewed, and no other worker takes the transfer."""
    world.server("s3-a").put("in/a.bin", content(10))
    transfer = world.submit("s3-a", "sftp-b")

    def slow(label: str) -> None:
        if label == "s3-a.read:chunk":
            world.clock.advance(world.tuning.lease / 2)

    watch(world, slow)
    world.drain()
    assert world.ledger.load(transfer.id).state is State.SETTLED
    assert world.ledger.calls["renew"] == 1


# -- conflict modes ----------------------------------------------------------------------------------------------------


def test_conflict_fail_buries_and_names_the_way_out(world: World) -> None:
    """An existing destination is left alone; a re-drive after it is removed delivers."""
    world.server("s3-a").put("in/a.bin", b"new")
    world.server("sftp-b").put("out/a.bin", b"old")
    row = world.until_rest(world.submit("s3-a", "sftp-b"))
    assert (row.state, row.reason) == (State.DEAD, "destination_exists")
    assert world.server("sftp-b").get("out/a.bin") == b"old"
    assert world.ledger.holder("sftp-b", "out/a.bin") is None
    del world.server("sftp-b").files["out/a.bin"]
    world.queue.append(first_message(redrive(world.engine, TENANT, row.id, "op")))
    assert world.until_rest(row).state is State.SETTLED


def test_conflict_overwrite_replaces(world: World) -> None:
    """The newer bytes stand there afterwards."""
    world.server("s3-a").put("in/a.bin", b"new")
    world.server("sftp-b").put("out/a.bin", b"old")
    assert world.until_rest(world.submit("s3-a", "sftp-b", conflict="overwrite")).state is State.SETTLED
    assert world.server("sftp-b").get("out/a.bin") == b"new"


def test_conflict_skip_rests_with_its_reason(world: World) -> None:
    """A skipped transfer is cancelled and says why; nothing is written."""
    world.server("s3-a").put("in/a.bin", b"new")
    world.server("sftp-b").put("out/a.bin", b"old")
    row = world.until_rest(world.submit("s3-a", "sftp-b", conflict="skip"))
    assert (row.state, row.reason) == (State.CANCELLED, "skipped_destination_exists")
    assert world.server("sftp-b").get("out/a.bin") == b"old"


def test_conflict_rename_finds_the_next_free_name(world: World) -> None:
    """The file arrives under the first free number, and the receipt says which."""
    world.server("s3-a").put("in/a.bin", b"new")
    for taken in ("out/a.bin", "out/a.1.bin"):
        world.server("sftp-b").put(taken, b"old")
    row = world.until_rest(world.submit("s3-a", "sftp-b", conflict="rename"))
    assert row.receipt is not None
    assert row.receipt.path == "out/a.2.bin"
    assert world.server("sftp-b").get("out/a.2.bin") == b"new"


def test_a_later_transfer_to_one_path_waits_visibly(world: World) -> None:
    """While a path is reserved, another transfer to it waits without using up tries, and goes on afterwards."""
    world.server("s3-a").put("in/a.bin", b"one")
    world.server("s3-a").put("in/b.bin", b"two")
    first = world.submit("s3-a", "sftp-b", conflict="overwrite")
    world.ledger.reserve(endpoint="sftp-b", path=remote_path("out/a.bin"), transfer=first.id, claim=first.claim, source="s", order=0)
    world.queue.clear()
    second = world.submit("s3-a", "sftp-b", path="in/b.bin", conflict="overwrite")
    world.queue += world.deliver_message(world.queue.popleft())
    waiting = world.ledger.load(second.id)
    assert (waiting.state, waiting.reason, waiting.tries) == (State.ACCEPTED, "destination_reserved", 0)
    world.queue.appendleft(first_message(first))
    assert world.until_rest(second).state is State.SETTLED
    assert world.server("sftp-b").get("out/a.bin") == b"two"


def test_an_older_version_never_overwrites_a_newer(world: World) -> None:
    """A version that comes late, after a newer one of the same file was delivered, is buried as superseded."""
    flow = world.flow("sftp-a", "sftp-b", conflict="overwrite")
    world.server("sftp-a").put("in/a.bin", b"old")
    world.queue += _fire(world, flow)
    world.queue += world.deliver_message(world.queue.popleft())
    late = world.queue.popleft()
    old = late.ids[0]
    world.clock.advance(60)
    world.server("sftp-a").put("in/a.bin", b"newer")
    world.run(flow)
    assert world.server("sftp-b").get("out/a.bin") == b"newer"
    world.server("sftp-a").files["in/a.bin"].data[:] = b"old"
    world.server("sftp-a").files["in/a.bin"].modified = world.ledger.load(old).fingerprint.modified  # type: ignore[union-attr, assignment]
    world.queue.append(late)
    world.drain()
    assert (world.ledger.load(old).state, world.ledger.load(old).reason) == (State.DEAD, "superseded")
    assert world.server("sftp-b").get("out/a.bin") == b"newer"


def test_a_reservation_of_a_dead_transfer_is_taken_over(world: World) -> None:
    """A crash between burying a transfer and freeing its path blocks nobody."""
    world.server("s3-a").put("in/a.bin", b"x")
    dead = world.until_rest(world.submit("s3-a", "sftp-b", path="in/none.bin"))
    assert dead.state is State.DEAD
    world.ledger.reserve(endpoint="sftp-b", path=remote_path("out/a.bin"), transfer=dead.id, claim=dead.claim, source="s", order=0)
    assert world.until_rest(world.submit("s3-a", "sftp-b")).state is State.SETTLED


# -- checksums ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("destination", ["sftp-b", "s3-b"])
def test_sha256_on_demand_for_a_large_file(world: World, destination: str) -> None:
    """A flow that demands SHA-256 gets it for any size and after any interruption, by reading back."""
    data = content(5 * SMALL.part_size + 1)
    world.server("s3-a").put("in/a.bin", data)
    transfer = world.submit("s3-a", destination, checksum="sha256")
    watch(world, slow_writes(world))
    row = world.until_rest(transfer)
    assert row.receipt is not None
    assert row.receipt.checksum == f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_an_expected_checksum_that_differs_buries(world: World) -> None:
    """A wrong SHA-256 in the request keeps the file from its destination."""
    world.server("sftp-a").put("in/a.bin", b"x")
    request = Submission(
        tenant=TENANT, source_endpoint="sftp-a", source_path="in/a.bin", destination_endpoint="s3-b", expected_sha256="0" * 64
    )
    transfer = accept(world.engine, request)
    world.queue.append(first_message(transfer))
    row = world.until_rest(transfer)
    assert (row.state, row.reason) == (State.DEAD, "checksum_mismatch")
    assert world.server("s3-b").finals() == {}


@pytest.mark.parametrize(
    ("sidecar", "reason"),
    [(None, "source_missing"), (b"nonsense", "sidecar_malformed"), (b"0" * 64 + b"  a.bin\n", "checksum_mismatch")],
)
def test_a_sidecar_that_is_missing_or_wrong_buries(world: World, sidecar: bytes | None, reason: str) -> None:
    """Where a flow asks for a sidecar, only a file that agrees with it is delivered."""
    world.server("sftp-a").put("in/a.bin", b"x")
    if sidecar is not None:
        world.server("sftp-a").put("in/a.bin.sha256", sidecar)
    row = world.until_rest(world.submit("sftp-a", "sftp-b", sidecar=True))
    assert (row.state, row.reason) == (State.DEAD, reason)
    assert world.server("sftp-b").finals() == {}


def test_a_sidecar_that_agrees_delivers(world: World) -> None:
    """The first word of `<file>.sha256` is compared with the bytes that passed."""
    world.server("sftp-a").put("in/a.bin", b"x")
    world.server("sftp-a").put("in/a.bin.sha256", hashlib.sha256(b"x").hexdigest().encode() + b"  a.bin\n")
    assert world.until_rest(world.submit("sftp-a", "sftp-b", sidecar=True)).state is State.SETTLED


# -- disposition -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["sftp-a", "s3-a"])
def test_delete_removes_the_version_delivered(world: World, source: str) -> None:
    """The source goes once its bytes are delivered."""
    world.server(source).put("in/a.bin", b"x")
    assert world.until_rest(world.submit(source, "sftp-b", disposition="delete")).state is State.SETTLED
    assert world.server(source).get("in/a.bin") is None


@pytest.mark.parametrize("source", ["sftp-a", "s3-a"])
def test_archive_moves_the_version_delivered(world: World, source: str) -> None:
    """The source goes to the archive directory; a file there before is not overwritten on SFTP."""
    world.server(source).put("in/a.bin", b"x")
    row = world.until_rest(world.submit(source, "sftp-b", disposition="archive", archive_directory="done"))
    assert row.state is State.SETTLED
    assert world.server(source).get("in/a.bin") is None
    assert world.server(source).get("done/a.bin") == b"x"


@pytest.mark.parametrize("source", ["sftp-a", "s3-a"])
def test_archive_keeps_an_earlier_file_of_the_name(world: World, source: str) -> None:
    """Two versions of one name both stand in the archive."""
    world.server(source).put("in/a.bin", b"x")
    world.server(source).put("done/a.bin", b"earlier")
    row = world.until_rest(world.submit(source, "s3-b", disposition="archive", archive_directory="done"))
    assert row.state is State.SETTLED
    assert world.server(source).get("done/a.bin") == b"earlier"
    assert world.server(source).get(f"done/a.bin.{row.id}") == b"x"


def test_a_new_file_in_the_sources_place_is_not_deleted(world: World) -> None:
    """A file that took the delivered one's name before the source was disposed of gets its name back."""
    world.server("sftp-a").put("in/a.bin", b"x")

    def replace_it(label: str) -> None:
        if label == "s3-b.commit:after":
            world.clock.advance(5)
            world.server("sftp-a").put("in/a.bin", b"another")

    watch(world, replace_it)
    row = world.until_rest(world.submit("sftp-a", "s3-b", disposition="delete"))
    assert (row.state, row.reason) == (State.SETTLED, "source_replaced")
    assert world.server("sftp-a").get("in/a.bin") == b"another"


def test_two_new_files_in_the_sources_place_are_a_persons_to_sort_out(world: World) -> None:
    """Where the file cannot get its name back, the transfer is held and neither file is lost."""
    server = world.server("sftp-a")
    server.put("in/a.bin", b"x")

    def replace_it(label: str) -> None:
        if label in {"s3-b.commit:after", "sftp-a.move:after"}:
            world.clock.advance(5)
            server.put("in/a.bin", label.encode())

    watch(world, replace_it)
    row = world.until_rest(world.submit("sftp-a", "s3-b", disposition="delete"))
    assert (row.state, row.reason) == (State.HELD, "source_replaced")
    assert {bytes(c.data) for p, c in server.files.items() if p.startswith("in/")} >= {b"s3-b.commit:after", b"sftp-a.move:after"}


@pytest.mark.parametrize("source", ["sftp-a", "s3-a"])
@pytest.mark.parametrize("disposition", ["delete", "archive"])
def test_a_source_that_is_gone_already_is_settled(world: World, source: str, disposition: str) -> None:
    """Somebody removed the source after the delivery: that is noted, not an error."""
    world.server(source).put("in/a.bin", b"x")

    def take_it(label: str) -> None:
        if label == "sftp-b.commit:after":
            world.server(source).files.pop("in/a.bin")
            world.server(source).versions.clear()

    watch(world, take_it)
    archive = {"archive_directory": "done"} if disposition == "archive" else {}
    row = world.until_rest(world.submit(source, "sftp-b", disposition=disposition, **archive))
    assert (row.state, row.reason) == (State.SETTLED, "source_gone")


@pytest.mark.parametrize(
    ("reason", "ends"), [("source_changed", (State.SETTLED, "source_gone")), ("permission_denied", (State.HELD, "permission_denied"))]
)
def test_a_version_that_cannot_be_archived(world: World, reason: str, ends: tuple[State, str]) -> None:
    """One that is another by now is gone; anything else is told. What was delivered stays delivered, and nothing is removed."""
    world.server("s3-a").put("in/a.bin", b"x")

    def refuse(label: str) -> None:
        if label == "s3-a.copy_version:before":
            raise Permanent("it cannot be copied", reason=reason)

    watch(world, refuse)
    row = world.until_rest(world.submit("s3-a", "sftp-b", disposition="archive", archive_directory="done"))
    assert (row.state, row.reason) == ends
    assert world.server("sftp-b").get("out/a.bin") == b"x"
    assert world.server("s3-a").get("in/a.bin") == b"x"


# -- trouble -----------------------------------------------------------------------------------------------------------


def test_a_dead_endpoint_is_tried_again_then_buried_and_redriven_from_staging(world: World) -> None:
    """A failed delivery of a staged flow is re-driven from staging: the source is not read again, nor needed."""
    world.server("sftp-a").put("in/a.bin", b"x")
    server = world.stores.servers.pop("sftp-b")
    row = world.until_rest(world.submit("sftp-a", "sftp-b", retry={"tries": 3}))
    assert (row.state, row.reason) == (State.DEAD, "unreachable")
    assert row.staged is not None
    del world.stores.servers["sftp-a"]
    world.stores.servers["sftp-b"] = server
    world.clock.advance(600)
    world.queue.append(first_message(redrive(world.engine, TENANT, row.id, "op")))
    assert world.until_rest(row).state is State.SETTLED
    assert server.get("out/a.bin") == b"x"


def test_tries_back_off_and_are_on_the_timeline(world: World) -> None:
    """Each failed try is on the timeline with its reason, and the pauses grow."""
    del world.stores.servers["sftp-b"]
    world.server("s3-a").put("in/a.bin", b"x")
    row = world.until_rest(world.submit("s3-a", "sftp-b", retry={"tries": 4}))
    failures = [event for event in row.timeline if event.reason == "unreachable"]
    assert len(failures) == 4
    pauses = [b.at - a.at for a, b in pairwise(failures)]
    assert pauses == sorted(pauses)


def test_the_breaker_spares_a_dead_endpoint(world: World) -> None:
    """After five failures in a row an endpoint is left alone; waiting for it uses up no tries."""
    del world.stores.servers["sftp-b"]
    world.server("s3-a").put("in/a.bin", b"x")
    for _ in range(5):
        world.limits.failed("sftp-b", reason="unreachable")
    transfer = world.submit("s3-a", "sftp-b")
    world.queue += world.deliver_message(world.queue.popleft())
    row = world.ledger.load(transfer.id)
    assert (row.reason, row.tries) == ("breaker_open", 0)


@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite", "vanish"])
@pytest.mark.parametrize("parts", [1, 5])
def test_a_source_that_changes_while_read_is_not_delivered(world: World, change: str, parts: int) -> None:
    """The attempt is abandoned, nothing appears, and the transfer says what happened."""
    server = world.server("sftp-a")
    server.put("in/a.bin", content(parts * SMALL.part_size))

    def meddle(label: str) -> None:
        if label in {"sftp-a.read:chunk", "sftp-a.whole:chunk"} and server.calls["read"] + server.calls["whole"] == parts:
            world.clock.advance(5)
            if change == "vanish":
                server.files.pop("in/a.bin", None)
            else:
                size = {"grow": 1, "shrink": -1, "rewrite": 0}[change] + parts * SMALL.part_size
                server.put("in/a.bin", b"!" * size)

    watch(world, meddle)
    row = world.until_rest(world.submit("sftp-a", "s3-b"))
    assert row.state is State.DEAD
    assert row.reason == ("source_missing" if change == "vanish" else "source_changed")
    assert world.server("s3-b").finals() == {}


def test_an_unexpected_error_is_retried_then_buried(world: World) -> None:
    """A bug in our own code costs tries, never a file, and its details stay out of the row."""
    world.server("s3-a").put("in/a.bin", b"x")

    def break_down(label: str) -> None:
        if label == "sftp-b.mint:before":
            raise ZeroDivisionError("secret detail")

    watch(world, break_down)
    row = world.until_rest(world.submit("s3-a", "sftp-b", retry={"tries": 2}))
    assert (row.state, row.reason) == (State.DEAD, "internal_error")
    assert "secret" not in row.model_dump_json()


def test_a_lost_upload_is_begun_again(world: World) -> None:
    """An upload that vanished before its commit was decided is replaced by a new attempt."""
    world.server("s3-a").put("in/a.bin", content(5 * SMALL.part_size))
    server = world.server("sftp-b")
    server.parallel = 1
    transfer = world.submit("s3-a", "sftp-b")

    def lose_it(label: str) -> None:
        if label == "sftp-b.verify:before" and server.calls["verify"] == 1:
            server.files.pop(world.ledger.load(transfer.id).upload.token)  # type: ignore[union-attr]

    watch(world, lose_it)
    row = world.until_rest(transfer)
    assert (row.state, row.attempt) == (State.SETTLED, 2)
    assert server.get("out/a.bin") == content(5 * SMALL.part_size)


def test_an_abandoned_token_is_removed_once_the_file_is_delivered(world: World) -> None:
    """What an abandoned attempt left at the destination is gone when the transfer is settled."""
    world.server("s3-a").put("in/a.bin", b"xyz")
    server = world.server("sftp-b")
    transfer = world.submit("s3-a", "sftp-b")

    def spoil(label: str) -> None:
        if label == "sftp-b.verify:before" and server.calls["verify"] == 1:
            server.files[world.ledger.load(transfer.id).upload.token].data.pop()  # type: ignore[union-attr]

    watch(world, spoil)
    assert world.until_rest(transfer).state is State.SETTLED
    assert set(server.files) == {"out/a.bin"}


def test_ten_equal_messages_deliver_once(world: World) -> None:
    """Duplicates find the row settled or in another worker's hands."""
    world.server("s3-a").put("in/a.bin", b"x")
    transfer = world.submit("s3-a", "sftp-b")
    world.queue.extend([world.queue[0]] * 9)
    world.drain()
    assert world.ledger.load(transfer.id).state is State.SETTLED
    assert world.server("sftp-b").appeared["out/a.bin"] == 1


def test_a_paused_worker_writes_nothing_when_it_wakes(world: World) -> None:
    """A worker that slept through its lease finds its fence lowered by another's claim and drops its work."""
    world.server("s3-a").put("in/a.bin", b"x")
    transfer = world.submit("s3-a", "sftp-b")
    slept = False

    def sleep(label: str) -> None:
        nonlocal slept
        if label == "ownership.ack:before" and not slept:
            slept = True
            world.clock.advance(world.tuning.lease * 2)
            world.queue += world.deliver_message(Message(step=Step.DELIVER, ids=(transfer.id,)))

    watch(world, sleep)
    assert world.until_rest(transfer).state is State.SETTLED
    assert world.server("sftp-b").appeared["out/a.bin"] == 1


def test_a_lost_region_drops_its_work(world: World) -> None:
    """A worker whose region no longer owns the partition commits nothing."""
    world.server("s3-a").put("in/a.bin", b"x")
    transfer = world.submit("s3-a", "sftp-b")
    world.ownership.promote(transfer.partition, home="elsewhere")
    world.drain()
    assert world.server("sftp-b").finals() == {}


def test_tenants_wait_outside_a_full_window_without_a_claim(world: World) -> None:
    """Beyond its admission window a tenant's transfers wait in the queue; urgent ones have the last slot."""
    for n in range(world.tuning.tenant_window - 1):
        world.limits.acquire(f"tenant:{TENANT}", limit=99, holder=f"h{n}", lease=timedelta(hours=1))
    world.server("s3-a").put("in/a.bin", b"x")
    transfer = world.submit("s3-a", "sftp-b")
    follow = world.deliver_message(world.queue.popleft())
    assert follow[0].delay > timedelta(seconds=1)
    assert world.ledger.load(transfer.id).fence == 0
    urgent = world.submit("s3-a", "sftp-b", to="out/u.bin", priority="urgent")
    assert world.until_rest(urgent).state is State.SETTLED


# -- recovery ----------------------------------------------------------------------------------------------------------


def test_a_vanished_token_and_final_are_held(world: World) -> None:
    """Where neither the token nor the file is found, a person decides; nothing is uploaded again."""
    world.server("s3-a").put("in/a.bin", b"x")
    server = world.server("sftp-b")

    def lose_it(label: str) -> None:
        if label == "sftp-b.commit:before":
            server.files.clear()

    watch(world, lose_it)
    row = world.until_rest(world.submit("s3-a", "sftp-b"))
    assert (row.state, row.reason, row.held_from) == (State.HELD, "token_gone", State.COMMITTING)
    assert server.calls["write"] == 1
    server.put("out/a.bin", b"x")
    watch(world, lambda _: None)
    world.queue.append(first_message(redrive(world.engine, TENANT, row.id, "op")))
    assert world.until_rest(row).state is State.SETTLED


@pytest.mark.parametrize("destination", ["sftp-b", "s3-b"])
def test_a_foreign_file_that_appears_before_the_commit_is_not_overwritten(world: World, destination: str) -> None:
    """Where the name was looked at before, the transfer is held, and the foreign file stands."""
    world.server("s3-a").put("in/a.bin", b"x")
    server = world.server(destination)
    server.refuses_taken = False

    def intrude(label: str) -> None:
        if label == f"{destination}.commit:before":
            server.put("out/a.bin", b"theirs")

    watch(world, intrude)
    row = world.until_rest(world.submit("s3-a", destination))
    assert (row.state, row.reason) == (State.HELD, "destination_exists")
    assert server.get("out/a.bin") == b"theirs"


def test_a_part_that_differs_is_held(world: World) -> None:
    """Parts that are no longer those frozen are never completed."""
    world.server("sftp-a").put("in/a.bin", b"x")
    server = world.server("s3-b")

    def spoil(label: str) -> None:
        if label == "s3-b.commit:before":
            next(iter(server.uploads.values())).parts[1] = b"?"

    watch(world, spoil)
    row = world.until_rest(world.submit("sftp-a", "s3-b"))
    assert (row.state, row.reason) == (State.HELD, "part_differs")
    assert server.finals() == {}


# -- operators ---------------------------------------------------------------------------------------------------------


def test_cancel_ends_a_transfer_and_removes_its_upload(world: World) -> None:
    """A cancelled transfer's reservation and temporary file are gone, and its worker is fenced."""
    world.server("s3-a").put("in/a.bin", content(9 * SMALL.part_size))
    world.server("sftp-b").parallel = 2
    transfer = world.submit("s3-a", "sftp-b")
    lanes = world.deliver_message(world.queue.popleft())
    assert cancel(world.engine, TENANT, transfer.id, "op").state is State.CANCELLED
    assert cancel(world.engine, TENANT, transfer.id, "op").state is State.CANCELLED
    assert world.server("sftp-b").files == {}
    assert world.ledger.holder("sftp-b", "out/a.bin") is None
    world.queue += lanes
    world.drain()
    assert world.server("sftp-b").files == {}


def test_cancel_after_the_commit_is_decided_says_too_late(world: World) -> None:
    """A settled transfer is not cancelled."""
    world.server("s3-a").put("in/a.bin", b"x")
    row = world.until_rest(world.submit("s3-a", "sftp-b"))
    with pytest.raises(Permanent) as error:
        cancel(world.engine, TENANT, row.id, "op")
    assert error.value.reason == "too_late"


def test_operators_see_their_own_tenant_only(world: World) -> None:
    """Another tenant's transfer is unknown."""
    world.server("s3-a").put("in/a.bin", b"x")
    transfer = world.submit("s3-a", "sftp-b")
    for call in (cancel, redrive):
        with pytest.raises(NotFound):
            call(world.engine, "other", transfer.id, "op")
    with pytest.raises(Permanent) as error:
        redrive(world.engine, TENANT, transfer.id, "op")
    assert error.value.reason == "not_resting"


def test_an_idempotency_key_makes_one_transfer(world: World) -> None:
    """The same key and body is the same transfer; another body is refused."""
    request = Submission(
        tenant=TENANT, source_endpoint="s3-a", source_path="a", destination_endpoint="s3-b", idempotency_key="k", request_hash="1"
    )
    assert accept(world.engine, request).id == accept(world.engine, request).id
    with pytest.raises(Conflict):
        accept(world.engine, Submission(**{**_fields(request), "request_hash": "2"}))


# -- discover ----------------------------------------------------------------------------------------------------------


def _fire(world: World, flow: Flow) -> list[Message]:
    return run_flow(world.engine, flow)


def _fields(request: Submission) -> dict[str, Any]:
    return {name: getattr(request, name) for name in request.__slots__}


def test_a_flow_moves_each_version_once(world: World) -> None:
    """A second run finds nothing new; a new version of an old name is a new transfer."""
    flow = world.flow("sftp-a", "s3-b", conflict="overwrite")
    for n in range(40):
        world.server("sftp-a").put(f"in/{n}.csv", str(n).encode())
    world.run(flow)
    world.run(flow)
    assert len(world.ledger.rows()) == 40
    assert set(world.server("s3-b").appeared.values()) == {1}
    world.clock.advance(60)
    world.server("sftp-a").put("in/7.csv", b"new")
    world.run(flow)
    assert len(world.ledger.rows()) == 41
    assert world.server("s3-b").get("out/7.csv") == b"new"


def test_small_finds_travel_in_bundles(world: World) -> None:
    """Forty small files take three messages."""
    flow = world.flow("sftp-a", "s3-b")
    for n in range(40):
        world.server("sftp-a").put(f"in/{n}.csv", b"x")
    follow = world.deliver_message(_fire(world, flow)[0])
    assert [len(m.ids) for m in follow] == [16, 16, 8]


def test_a_name_that_cannot_be_moved_is_shown_dead_once(world: World) -> None:
    """Hostile names and symbolic links become dead transfers with their reason; the others move."""
    flow = world.flow("sftp-a", "s3-b")
    server = world.server("sftp-a")
    server.put("in/good.csv", b"x")
    server.refused = [
        RefusedName("in/bad\\n.csv", "contains a control character", Fingerprint(size=1)),
        RefusedName("in/link", "is a symbolic link", Fingerprint(size=1)),
    ]
    world.run(flow)
    world.run(flow)
    reasons = sorted((row.state.value, row.reason or "") for row in world.ledger.rows())
    assert reasons == [("dead", "is_symlink"), ("dead", "name_invalid"), ("settled", "")]
    dead = next(row for row in world.ledger.rows() if row.reason == "name_invalid")
    with pytest.raises(Permanent):
        redrive(world.engine, TENANT, dead.id, "op")


def test_a_source_that_cannot_be_listed_keeps_its_fire(world: World) -> None:
    """An unreachable source is asked again later; a directory that is not there ends the fire with its reason in the log."""
    flow = world.flow("sftp-a", "s3-b")
    kept = world.stores.servers.pop("sftp-a")
    message = _fire(world, flow)[0]
    follow = world.deliver_message(message)
    assert [m.ids for m in follow] == [message.ids]
    assert follow[0].delay > timedelta(seconds=10)
    world.stores.servers["sftp-a"] = kept
    kept.files.clear()
    assert world.deliver_message(message) == []
    assert world.ledger.outcome(flow, message.ids[0].split("/")[2]) == {"failed": 1}


def test_a_lost_discover_message_is_sent_again_by_the_sweep(world: World) -> None:
    """A fire whose message was lost is due, and the sweep sends it."""
    flow = world.flow("sftp-a", "s3-b")
    world.server("sftp-a").put("in/a.csv", b"x")
    _fire(world, flow)
    world.sweep()
    world.drain()
    assert world.server("s3-b").get("out/a.csv") == b"x"
    world.sweep()
    assert not world.queue


def test_a_transfer_whose_message_was_lost_is_sent_again_by_one_sweep(world: World) -> None:
    """Of two sweeps one re-queues it."""
    world.server("s3-a").put("in/a.bin", b"x")
    transfer = world.submit("s3-a", "sftp-b")
    world.queue.clear()
    world.sweep()
    assert len(world.queue) == 1
    world.sweep(after=timedelta(seconds=1))
    assert len(world.queue) == 1
    assert world.until_rest(transfer).state is State.SETTLED


def test_a_message_for_an_unknown_transfer_is_an_error(world: World) -> None:
    """The task layer sends such a message to the dead letters."""
    with pytest.raises(NotFound):
        world.deliver_message(Message(step=Step.DELIVER, ids=("0" * 32,)))


def test_an_unpinned_endpoint_moves_nothing(world: World) -> None:
    """Without a pinned host key a request is refused and says what to do."""
    endpoint = world.registry.endpoint(TENANT, "sftp-a")
    world.registry.change_endpoint(endpoint.model_copy(update={"host_keys": (), "revision": 2}))
    with pytest.raises(Permanent) as error:
        world.submit("sftp-a", "s3-b")
    assert error.value.reason == "host_key_unpinned"


def test_errors_carry_their_fields_through_pickle() -> None:
    """Celery pickles errors between processes."""
    for error in (Transient("m", reason="r", endpoint="e"), LostOwnership("m"), NotFound("m", reason="x")):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_a_transfer_moves_by_its_table_only(world: World) -> None:
    """A move that is not in MOVES is a bug, and so is a state set past `to()`."""
    transfer: Transfer = world.submit("s3-a", "sftp-b")
    with pytest.raises(ValueError, match="does not go"):
        transfer.to(State.SETTLED, now=world.clock.now())
    with pytest.raises(ValueError, match="through to"):
        transfer.with_(state=State.DEAD)
