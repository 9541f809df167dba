"""Orders given twice or at once, switches that a crash cut short, and what a region finds that its peer left behind."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from eft.domain.names import partition_of, transfer_id
from eft.domain.ownership import Intent, JournalEntry, Mode, Partition, Phase
from eft.domain.transfer import State, Transfer
from eft.errors import Conflict, LostOwnership, NotFound, Permanent, Transient, Undecidable
from eft.journey.held import Decision, decide
from eft.regions.adoption import adopt, adopt_row
from eft.regions.chores import LEASE, Chores
from eft.regions.orders import Order
from eft.regions.rejoin import rejoin
from eft.regions.routing import find
from eft.regions.switch import drain, hand_over, promote, solo, undrain
from tests.fake_regions import WEST, FakeOwnershipTable, Pair
from tests.fakes import START
from tests.world import TENANT, World

ANN, BOB = (Order(by=name, why="test", ticket="T-1") for name in ("ann", "bob"))


@pytest.fixture
def pair() -> Pair:
    """Two regions, and a file at a customer's."""
    made = Pair()
    made.west.server("s3-a").put("in/a.bin", b"x")
    return made


def home_of(pair: Pair) -> tuple[int, World, World]:
    """Returns the partition of `sftp-b`, its home's world and the other."""
    number = partition_of(TENANT, "sftp-b")
    at_west = pair.tables[WEST].partition(number).home == WEST
    return number, *((pair.west, pair.east) if at_west else (pair.east, pair.west))


def table_of(pair: Pair, world: World) -> FakeOwnershipTable:
    """Returns a region's own table."""
    return pair.tables[world.engine.ownership.region]


# -- orders ------------------------------------------------------------------------------------------------------------


def test_an_order_given_again_changes_nothing(pair: Pair) -> None:
    """Each returns what stands, and who ordered it first stays on record."""
    number, home, other = home_of(pair)
    own = table_of(pair, home)
    assert undrain(home.engine, number, BOB).changed_by is None
    orders: list[Callable[[Order], Partition]] = [
        lambda order: drain(home.engine, number, order),
        lambda order: undrain(home.engine, number, order),
        lambda order: solo(home.engine, number, order),
        lambda order: rejoin(home.engine, number, order),
    ]
    for order in orders:
        stands = order(ANN)
        assert order(BOB) == stands == own.partition(number)
        assert stands.changed_by == "ann"
    promoted = promote(other.engine, number, ANN, old_home_may_be_solo=False)
    assert promote(other.engine, number, BOB, old_home_may_be_solo=True) == promoted
    assert (promoted.region_epoch, promoted.evidence) == (2, True)


def test_of_two_operators_at_once_the_second_is_told_to_look_again(pair: Pair) -> None:
    """His order was about a partition that is no longer so."""
    number, home, _ = home_of(pair)
    own = table_of(pair, home)
    change = own.change

    def after_bob(new: Partition, *, seen: Partition) -> bool:
        own.change = change  # type: ignore[method-assign]
        solo(home.engine, number, BOB)
        return change(new, seen=seen)

    own.change = after_bob  # type: ignore[method-assign]
    with pytest.raises(Conflict) as refused:
        drain(home.engine, number, ANN)
    assert refused.value.reason == "partition_changed"
    stands = own.partition(number)
    assert (stands.mode, stands.phase, stands.changed_by) == (Mode.SOLO, Phase.ACTIVE, "bob")


@pytest.mark.parametrize("crash_at", [1, 2, 3])
def test_a_hand_over_that_was_cut_short_is_ended_by_its_repetition(pair: Pair, crash_at: int) -> None:
    """Before or after the peer became home: in between the partition is nobody's, and afterwards the other's, with all its rows."""
    number, home, other = home_of(pair)
    transfer = home.submit("s3-a", "sftp-b")
    drain(home.engine, number, ANN)
    writes = 0

    def cut(table: FakeOwnershipTable) -> None:
        change = table.change

        def perhaps(new: Partition, *, seen: Partition) -> bool:
            nonlocal writes
            writes += 1
            if writes == crash_at:
                raise Transient("nothing comes back", reason="aws_unavailable")
            return change(new, seen=seen)

        table.change = perhaps  # type: ignore[method-assign]

    for table in pair.tables.values():
        cut(table)
    with pytest.raises(Transient):
        hand_over(home.engine, number, ANN)
    homes = {region for region, table in pair.tables.items() if table.partition(number).home == region}
    assert len(homes - {r for r in homes if pair.tables[r].partition(number).phase is Phase.RELEASED}) <= 1
    moved = hand_over(home.engine, number, ANN)
    assert (moved.home, moved.region_epoch, moved.phase) == (other.engine.ownership.region, 2, Phase.ACTIVE)
    assert table_of(pair, home).partition(number).decisive == table_of(pair, other).partition(number).decisive
    with pytest.raises(Permanent) as done:
        hand_over(home.engine, number, BOB)
    assert done.value.reason == "not_home"
    assert other.until_rest(transfer).state is State.SETTLED


def test_a_rejoin_is_ordered_where_the_later_home_is(pair: Pair) -> None:
    """Of two regions that both call themselves home the one with the later region_epoch is."""
    number, home, other = home_of(pair)
    promote(other.engine, number, ANN, old_home_may_be_solo=False)
    with pytest.raises(Permanent) as refused:
        rejoin(home.engine, number, ANN)
    assert refused.value.reason == "both_home"
    assert rejoin(other.engine, number, ANN).mode is Mode.DUAL
    assert table_of(pair, home).partition(number).home == other.engine.ownership.region


# -- acks --------------------------------------------------------------------------------------------------------------


def test_an_intent_of_an_earlier_era_gets_no_ack(pair: Pair) -> None:
    """A worker that slept through two switches is refused before it writes anything."""
    number, home, other = home_of(pair)
    intent = Intent(partition=number, transfer=transfer_id("x", partition=number), attempt=1, token="t", region_epoch=1)
    for world in (home, other):
        drain(world.engine, number, ANN)
        hand_over(world.engine, number, ANN)
    for act in (home.engine.ownership.ack, home.engine.ownership.abandon):
        with pytest.raises(LostOwnership):
            act(intent)
    assert all(table.intent(intent.transfer) is None for table in pair.tables.values())


@pytest.mark.parametrize("at_peer", [False, True])
def test_another_token_that_was_never_abandoned_is_undecidable(pair: Pair, *, at_peer: bool) -> None:
    """Wherever it is found: it may have been committed."""
    number, home, other = home_of(pair)
    intent = Intent(partition=number, transfer=transfer_id("x", partition=number), attempt=1, token="t", region_epoch=1)
    table_of(pair, other if at_peer else home).intend(intent, home=home.engine.ownership.region, mode=None)
    with pytest.raises(Undecidable) as refused:
        home.engine.ownership.ack(intent.model_copy(update={"attempt": 2, "token": "u"}))
    assert refused.value.reason == "other_token"


# -- adoption ----------------------------------------------------------------------------------------------------------


def test_one_unreadable_entry_keeps_no_other_from_being_adopted(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """It is told in the log and stays in the journal."""
    number, home, other = home_of(pair)
    good = other.submit("s3-a", "sftp-b")
    bad = JournalEntry(partition=number, transfer=transfer_id("bad", partition=number), row='{"format": 99}')
    table_of(pair, home).journal(bad)
    assert [message.ids for message in adopt(home.engine, number)] == [(good.id,)]
    assert [vars(line)["transfer"] for line in caplog.records if line.levelno == logging.ERROR] == [bad.transfer]
    assert table_of(pair, home).journal_entry(bad.transfer) == bad


def test_a_row_that_cannot_be_read_now_is_not_adopted_over(pair: Pair) -> None:
    """It is there, though an index that lags leaves it out: whether it is of an earlier era is looked at the next time."""
    number, home, other = home_of(pair)
    transfer = other.submit("s3-a", "sftp-b")
    assert len(list(adopt(home.engine, number))) == 1
    adopted = home.ledger.load(transfer.id)
    home.ledger.unsettled = lambda partition: iter(())  # type: ignore[method-assign]
    home.ledger.trip("load", Transient("throttled", reason="throttled"))
    assert list(adopt(home.engine, number)) == []
    assert home.ledger.load(transfer.id) == adopted


def test_one_region_adopts_nothing() -> None:
    """There is no journal."""
    assert list(adopt(World().engine, 1)) == []


def held_without_evidence(pair: Pair) -> tuple[World, Transfer]:
    """Returns a transfer that a promoted region holds because the old home may have delivered it alone."""
    number, home, other = home_of(pair)
    transfer = home.submit("s3-a", "sftp-b")
    pair.link.cut = True
    promote(other.engine, number, ANN, old_home_may_be_solo=True)
    assert list(adopt(other.engine, number)) == []
    held = other.ledger.load(transfer.id)
    assert (held.state, held.reason) == (State.HELD, "no_evidence")
    return other, held


def test_an_announced_commit_is_recovered_by_its_token(pair: Pair) -> None:
    """Evidence that the old home had announced it, and no more: the held row becomes that commit, as if it had been tried."""
    world, held = held_without_evidence(pair)
    _, home, _ = home_of(pair)
    home.deliver_message(home.queue.popleft())
    announced = home.ledger.load(held.id)
    assert announced.state is State.COMMITTING
    intent = table_of(pair, home).intent(held.id)
    adopt_row(world.engine, held, evidence=announced, intent=intent)
    row = world.ledger.load(held.id)
    assert row.commit is not None
    assert announced.commit is not None
    assert (row.state, row.region_epoch, row.commit.token) == (State.COMMITTING, 2, announced.commit.token)
    assert (row.commit.attempted, row.commit.region_epoch, row.claim_until) == (True, 2, None)


@pytest.mark.parametrize("when", ["before its claim", "after its claim"])
def test_what_a_person_decided_meanwhile_stands(pair: Pair, when: str) -> None:
    """Evidence that comes later, or at the same moment, does not undo the decision."""
    world, held = held_without_evidence(pair)

    def decided() -> None:
        decide(world.engine, TENANT, held.id, Decision.ABANDON, by="op", why="not wanted any more")

    if when == "before its claim":
        decided()
    else:
        claim = world.ledger.claim

        def then_decided(*args: Any, **named: Any) -> Transfer | None:  # noqa: ANN401 - a claim's
            world.ledger.claim = claim  # type: ignore[method-assign]
            claimed = claim(*args, **named)
            decided()
            return claimed

        world.ledger.claim = then_decided  # type: ignore[method-assign]
    adopt_row(world.engine, held, evidence=None, intent=None)
    row = world.ledger.load(held.id)
    assert (row.state, row.reason) == (State.CANCELLED, "operator_abandon")


# -- where to ask ------------------------------------------------------------------------------------------------------


def test_a_transfer_is_found_wherever_it_is_known(pair: Pair) -> None:
    """In its home's ledger; before its home has it, in the journal; never another tenant's."""
    number, home, other = home_of(pair)
    transfer = other.submit("s3-a", "sftp-b")
    for world in (home, other):
        assert find(world.engine, TENANT, transfer.id).id == transfer.id
        with pytest.raises(NotFound):
            find(world.engine, "other", transfer.id)
        with pytest.raises(NotFound):
            find(world.engine, TENANT, transfer_id("nothing", partition=number))
    home.queue += adopt(home.engine, number)
    for world in (home, other):
        assert find(world.engine, TENANT, transfer.id) == home.ledger.load(transfer.id)


def test_with_one_region_an_unknown_transfer_is_unknown() -> None:
    """There is no other place to look."""
    world = World()
    transfer = world.submit("s3-a", "sftp-b")
    assert find(world.engine, TENANT, transfer.id) == transfer
    with pytest.raises(NotFound):
        find(world.engine, TENANT, transfer_id("nothing", partition=1))


def test_a_closed_entry_without_an_announcement_was_cancelled(pair: Pair) -> None:
    """Its row went with its region: it had come to rest, and nobody had announced a commit."""
    number, home, other = home_of(pair)
    transfer = other.submit("s3-a", "sftp-b")
    for table in pair.tables.values():
        table.close_journal(transfer.id)
    found = find(home.engine, TENANT, transfer.id)
    assert (found.state, found.reason) == (State.CANCELLED, "known_from_journal")
    announced = transfer.to(State.DELIVERING, now=START)
    intent = Intent(
        partition=number, transfer=transfer.id, attempt=1, token="t", region_epoch=1, row=announced.model_dump_json(exclude_defaults=True)
    )
    table_of(pair, home).intend(intent, home=home.engine.ownership.region, mode=None)
    assert find(home.engine, TENANT, transfer.id) == announced


# -- chores ------------------------------------------------------------------------------------------------------------


def test_a_holder_renews_no_more_often_than_it_must(pair: Pair) -> None:
    """Looks within a third of the lease cost no write."""
    chores = Chores(pair.west.engine, "a")
    mine = list(chores.mine())
    before = pair.tables[WEST].leases()
    pair.west.clock.advance(LEASE / 3 - timedelta(seconds=1))
    assert list(chores.mine()) == mine
    assert pair.tables[WEST].leases() == before
    pair.west.clock.advance(2)
    assert list(chores.mine()) == mine
    assert {lease.rvn for lease in pair.tables[WEST].leases().values()} == {2}


def test_a_waiter_waits_a_whole_lease_on_its_own_clock(pair: Pair) -> None:
    """A lease that it has seen stand for less is left alone; a renewal makes it wait anew."""
    assert Chores(pair.west.engine, "a").mine()
    waiter = Chores(pair.west.engine, "b")
    assert list(waiter.mine()) == []
    pair.west.clock.advance(LEASE * 0.9)
    assert list(waiter.mine()) == []
    for number, lease in pair.tables[WEST].leases().items():
        pair.tables[WEST].renew_lease(number, owner="a", lease_epoch=lease.lease_epoch)
    pair.west.clock.advance(LEASE * 0.9)
    assert list(waiter.mine()) == []
    pair.west.clock.advance(LEASE * 0.9)
    assert list(waiter.mine()) == []
    pair.west.clock.advance(LEASE * 0.2)
    assert len(waiter.mine()) == 32
