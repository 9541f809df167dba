"""Chores: upkeep of staging, fires of flows, and who does them."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest

from beat_schedules.fires import due_fires
from eft.domain.flow import Flow, Interval
from eft.domain.names import remote_path
from eft.domain.transfer import State, Step
from eft.errors import Transient
from eft.journey.reconcile import reconcile
from eft.journey.upkeep import abort_stale_uploads, expire_staging
from eft.regions.adoption import adopt
from eft.regions.chores import LEASE, Chores
from tests.crashes import Crash, watch
from tests.fake_regions import Pair, home_of
from tests.world import World


def scheduled(world: World) -> Flow:
    """Returns a flow that fires every minute."""
    flow = world.flow("sftp-a", "s3-b").model_copy(update={"trigger": Interval(every=timedelta(minutes=1)), "revision": 2})
    world.registry.change_flow(flow)
    return flow


def test_any_number_of_beats_fire_once() -> None:
    """Each fire is claimed once; a beat that comes later finds nothing to do."""
    world = World()
    flow = scheduled(world)
    world.server("sftp-a").put("in/a.csv", b"x")
    world.clock.advance(90)
    first, second = list(due_fires(world.engine, range(64))), list(due_fires(world.engine, range(64)))
    assert [m.step for m in first] == [Step.DISCOVER]
    assert first[0].ids[0].startswith(f"acme/{flow.id}/")
    assert second == []
    world.queue += first
    world.drain()
    assert world.server("s3-b").get("out/a.csv") == b"x"


def test_one_flows_trouble_leaves_the_others_alone() -> None:
    """A flow that cannot be fired now is tried again at the next look; the others fire."""
    world = World()
    scheduled(world)
    scheduled(world)
    world.clock.advance(90)
    world.ledger.trip("last_fire", Transient("throttled", reason="throttled"))
    assert len(list(due_fires(world.engine, range(64)))) == 1
    assert len(list(due_fires(world.engine, range(64)))) == 1


def test_a_paused_flow_and_another_regions_do_not_fire() -> None:
    """Only enabled flows of partitions at home here fire."""
    world = World()
    flow = scheduled(world)
    world.registry.change_flow(flow.model_copy(update={"enabled": False, "revision": 3}))
    other = scheduled(world)
    world.clock.advance(90)
    for number in range(64):
        world.ownership.promote(number, home="elsewhere")
    assert list(due_fires(world.engine, range(64))) == []
    assert other.enabled


def test_staged_copies_go_when_nobody_needs_them() -> None:
    """After the retention a settled transfer's copy goes; a dead one's stays for its re-drive."""
    world = World()
    world.server("sftp-a").put("in/a.bin", b"x")
    world.server("sftp-a").put("in/b.bin", b"y")
    done = world.until_rest(world.submit("sftp-a", "sftp-b"))
    world.server("sftp-b").put("out/b.bin", b"theirs")
    dead = world.until_rest(world.submit("sftp-a", "sftp-b", path="in/b.bin", to="out/b.bin"))
    assert (done.state, dead.state) == (State.SETTLED, State.DEAD)
    assert expire_staging(world.engine) == 0
    world.stores.staging_server.put("acme/notatransfer/1", b"orphan")
    world.clock.advance(world.tuning.staging_retention + timedelta(days=1))
    assert expire_staging(world.engine) == 2
    assert len(world.stores.staging_server.files) == 1


def test_stale_uploads_to_staging_are_aborted_unless_a_live_transfer_names_them() -> None:
    """What a crash left between minting and the row goes; what goes on stays."""
    world = World()
    world.server("sftp-a").put("in/a.bin", b"x" * 9000)
    transfer = world.submit("sftp-a", "sftp-b")
    world.deliver_message(world.queue.popleft())
    orphan = world.stores.staging_server
    with world.stores.staging() as staging:
        path = next(iter(orphan.uploads.values())).path
        staging.mint(type(transfer.source.path)(path), token=transfer.source.path, transfer=transfer.id, size=1, create_directories=True)
    assert len(orphan.uploads) == 2
    world.clock.advance(world.tuning.stale_upload_age + timedelta(hours=1))
    assert abort_stale_uploads(world.engine) == 1
    named = world.ledger.load(transfer.id).staging
    assert named is not None
    assert set(orphan.uploads) == {named.token}


def test_one_region_needs_no_lease() -> None:
    """Every process does all chores; conditional writes decide."""
    assert len(Chores(World().engine, "a").mine()) == 64


def test_a_partitions_chores_are_one_process_at_a_time() -> None:
    """The first has them while it renews; a waiter takes over once the lease stood still on its own clock."""
    pair = Pair()
    first, second = Chores(pair.west.engine, "a"), Chores(pair.west.engine, "b")
    mine = set(first.mine())
    assert len(mine) == 32
    assert list(second.mine()) == []
    for _ in range(6):
        pair.west.clock.advance(LEASE / 2)
        assert set(first.mine()) == mine
        assert list(second.mine()) == []
    pair.west.clock.advance(LEASE * 1.1)
    assert set(second.mine()) == mine
    assert list(first.mine()) == []


def test_a_renewal_that_fails_ends_at_two_thirds() -> None:
    """A holder that cannot renew stops by itself before anybody may take over."""
    pair = Pair()
    first = Chores(pair.west.engine, "a")
    assert first.mine()
    table = pair.tables["us-gov-west-1"]
    kept = table.renew_lease

    def fail(number: int, *, owner: str, lease_epoch: int) -> bool:
        raise Transient(f"throttled {number} {owner} {lease_epoch}", reason="throttled")

    table.renew_lease = fail  # type: ignore[method-assign]
    pair.west.clock.advance(LEASE / 2)
    assert first.mine()
    pair.west.clock.advance(LEASE / 4)
    assert list(first.mine()) == []
    table.renew_lease = kept  # type: ignore[method-assign]
    assert first.mine()


def test_a_sound_region_reconciles_clean() -> None:
    """Transfers in every state add up, and nothing is found."""
    world = World()
    world.server("s3-a").put("in/a.bin", b"x")
    world.until_rest(world.submit("s3-a", "sftp-b"))
    world.until_rest(world.submit("s3-a", "sftp-b", path="in/none.bin"))
    world.submit("s3-a", "sftp-b", to="out/c.bin")
    found = reconcile(world.engine)
    assert found.clean
    assert (found.accepted, found.by_state[State.SETTLED], found.by_state[State.DEAD]) == (3, 1, 1)


def test_reconciliation_finds_what_must_not_be() -> None:
    """A row that no sweep moved, a commit older than its bound, and paths that a settled transfer, or none at all, still holds."""
    world = World()
    world.server("s3-a").put("in/a.bin", b"x")
    done = world.until_rest(world.submit("s3-a", "sftp-b"))
    world.ledger.reserve(endpoint="sftp-b", path=done.destination.path, transfer=done.id, claim=done.claim, source="s", order=0)
    nobody = f"{done.id[:2]}{'0' * 30}"
    world.ledger.reserve(endpoint="sftp-b", path=remote_path("out/c.bin"), transfer=nobody, claim=done.claim, source="s", order=0)
    world.ownership.trip("ack", Transient("the peer is gone", reason="peer_unreachable", counts=False), times=99)
    stuck = world.submit("s3-a", "sftp-b", to="out/b.bin")
    world.deliver_message(world.queue.popleft())
    world.clock.advance(timedelta(hours=2))
    found = reconcile(world.engine)
    assert not found.clean
    assert sorted(found.freed) == ["sftp-b/out/a.bin", "sftp-b/out/c.bin"]
    assert {world.ledger.holder("sftp-b", path) for path in ("out/a.bin", "out/c.bin")} == {None}
    assert found.overdue == found.committing_late == (stuck.id,)


@pytest.mark.parametrize("readable", [True, False])
def test_reconciliation_finds_what_was_accepted_away_from_home_and_never_adopted(readable: bool) -> None:
    """It is in the journal alone: no row of the ledger tells of it."""
    pair = Pair()
    pair.west.server("s3-a").put("in/a.bin", b"x")
    number, home, other = home_of(pair, "sftp-b")
    transfer = other.submit("s3-a", "sftp-b")
    table = pair.tables[home.engine.ownership.region]
    if readable:
        assert reconcile(home.engine).clean
        pair.west.clock.advance(timedelta(minutes=16))
    else:
        table.entries[transfer.id] = table.entries[transfer.id].model_copy(update={"row": '{"new": 1}'})
    found = reconcile(home.engine)
    assert (found.clean, found.unadopted) == (False, (transfer.id,))
    assert reconcile(other.engine).clean
    assert len(list(adopt(home.engine, number))) == readable
    assert reconcile(home.engine).clean is readable


def test_reconciliation_finds_a_row_that_the_ledger_has_lost() -> None:
    """The other region has it on record as accepted here: the sum over the states still adds up, and says nothing."""
    pair = Pair()
    pair.west.server("s3-a").put("in/a.bin", b"x")
    _, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    pair.west.clock.advance(timedelta(minutes=16))
    assert not reconcile(home.engine).lost
    del home.ledger._rows[transfer.id]
    found = reconcile(home.engine)
    assert (found.clean, found.lost, found.unadopted) == (False, (transfer.id,), ())
    assert sum(found.by_state.values()) == found.accepted
    pair.link.cut = True
    assert not reconcile(home.engine).lost
    assert reconcile(other.engine).clean


def test_reconciliation_finds_what_kills_each_worker_that_takes_it() -> None:
    """It is swept in time, so never overdue, and no worker lives to say why it stands still."""
    world = World()
    world.server("s3-a").put("in/a.bin", b"x")
    transfer = world.submit("s3-a", "sftp-b")

    def die(label: str) -> None:
        if label == "sftp-b.mint:before":
            raise Crash(label)

    watch(world, die)
    for _ in range(60):
        while world.queue:
            message = world.queue.popleft()
            world.clock.advance(message.delay)
            with suppress(Crash):
                world.queue += world.deliver_message(message)
        world.sweep(after=timedelta(minutes=2))
    found = reconcile(world.engine)
    assert (found.clean, found.fruitless, found.overdue) == (False, (transfer.id,), ())
