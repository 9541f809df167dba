"""Two regions that went on apart come together: what one of them did alone is known to both, and nothing is done twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from eft.domain.names import partition_of
from eft.domain.ownership import Intent, Mode, Partition, Phase
from eft.domain.transfer import State, Transfer
from eft.errors import Transient
from eft.journey.accept import Submission, accept
from eft.regions.adoption import adopt
from eft.regions.orders import Order
from eft.regions.rejoin import rejoin
from eft.regions.routing import find
from eft.regions.strays import return_strays
from eft.regions.switch import drain, hand_over, promote, solo, will_be_held
from tests.crashes import Watched
from tests.fake_regions import WEST, Pair
from tests.fakes import FakeLedger
from tests.world import TENANT, World

ORDER = Order(by="op@example.org", why="test", ticket="T-1")


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


def split(pair: Pair, *, solo_first: bool = False, asked_other: bool = False) -> tuple[int, World, World, Transfer]:
    """Cuts the link while the home commits, which it does where it is solo, and promotes the other region."""
    number, home, other = home_of(pair)
    transfer = (other if asked_other else home).submit("s3-a", "sftp-b")
    home.queue += adopt(home.engine, number)
    pair.link.cut = True
    if solo_first:
        solo(home.engine, number, ORDER)
        home.drain()
    else:
        home.deliver_message(home.queue.popleft())
    assert home.ledger.load(transfer.id).state is (State.SETTLED if solo_first else State.COMMITTING)
    promote(other.engine, number, ORDER, old_home_may_be_solo=solo_first)
    return number, home, other, transfer


def work_on(world: World, number: int) -> None:
    """Adopts, sweeps and drains one region for a while."""
    for _ in range(6):
        world.queue += adopt(world.engine, number)
        world.drain()
        world.sweep()


def test_what_the_old_home_could_not_commit_does_not_stand_in_the_way(pair: Pair) -> None:
    """Its intent, which nobody acknowledged, is written off: the new home delivers with a token of its own, acked by both."""
    number, home, other, transfer = split(pair)
    stale = pair.tables[home.engine.ownership.region].intent(transfer.id)
    assert stale is not None
    other.queue += adopt(other.engine, number)
    pair.link.cut = False
    rejoin(other.engine, number, ORDER)
    work_on(other, number)
    assert other.ledger.load(transfer.id).state is State.SETTLED
    assert home.server("sftp-b").appeared["out/a.bin"] == 1


def test_a_commit_during_a_rejoin_waits_for_its_end(pair: Pair) -> None:
    """A peer that still has the old home's token, and lacks evidence, costs a wait and no decision of a person's."""
    number, home, other, transfer = split(pair)
    there = pair.tables[home.engine.ownership.region]
    seen = there.partition(number)
    here = pair.tables[other.engine.ownership.region]
    own = here.partition(number)
    pair.link.cut = False
    there.change(seen.model_copy(update={"home": own.home, "region_epoch": own.region_epoch, "evidence": False}), seen=seen)
    here.change(own.model_copy(update={"mode": Mode.DUAL}), seen=own)
    intent = Intent(partition=number, transfer=transfer.id, attempt=1, token="another", region_epoch=own.region_epoch)
    with pytest.raises(Transient) as error:
        other.engine.ownership.ack(intent)
    assert (error.value.reason, error.value.counts) == ("rejoining", False)


@pytest.mark.parametrize("asked_other", [False, True])
def test_an_old_home_promoted_again_repeats_nothing(pair: Pair, asked_other: bool) -> None:
    """After the rejoin its table says what was delivered meanwhile: neither journal nor token leads to a second delivery."""
    number, home, other, transfer = split(pair, asked_other=asked_other)
    work_on(other, number)
    assert home.server("sftp-b").appeared["out/a.bin"] == 1
    home.server("sftp-b").files.pop("out/a.bin")
    pair.link.cut = False
    rejoin(other.engine, number, ORDER)
    promote(home.engine, number, ORDER, old_home_may_be_solo=False)
    work_on(home, number)
    assert home.server("sftp-b").appeared["out/a.bin"] == 1
    assert find(home.engine, TENANT, transfer.id).state is not State.HELD


def test_what_a_solo_home_may_have_delivered_is_held_where_it_is_discovered(pair: Pair) -> None:
    """A promoted region without evidence holds found files until the rejoin, which knows them as delivered."""
    number, home, other = home_of(pair)
    flow = home.flow("s3-a", "sftp-b", selection={"directory": "in"}, receiver_removes=True)
    pair.west.registry.flows(TENANT)
    if home is not pair.west:
        pair.west.registry.add_flow(flow)
    pair.link.cut = True
    solo(home.engine, number, ORDER)
    home.run(flow)
    home.server("sftp-b").files.pop("out/a.bin")
    promote(other.engine, number, ORDER, old_home_may_be_solo=True)
    other.run(flow)
    work_on(other, number)
    (row,) = other.ledger.rows()
    assert (row.state, row.reason) == (State.HELD, "no_evidence")
    pair.link.cut = False
    rejoin(other.engine, number, ORDER)
    work_on(other, number)
    assert other.ledger.load(row.id).state is State.SETTLED
    assert home.server("sftp-b").appeared["out/a.bin"] == 1


def test_what_a_solo_home_delivered_is_not_discovered_again_after_the_rejoin(pair: Pair) -> None:
    """The new home learns it from the old one's intents, though neither journal ever held it."""
    number, home, other = home_of(pair)
    flow = home.flow("s3-a", "sftp-b", selection={"directory": "in"}, receiver_removes=True)
    if home is not pair.west:
        pair.west.registry.add_flow(flow)
    pair.link.cut = True
    solo(home.engine, number, ORDER)
    home.run(flow)
    home.server("sftp-b").files.pop("out/a.bin")
    promote(other.engine, number, ORDER, old_home_may_be_solo=True)
    pair.link.cut = False
    rejoin(other.engine, number, ORDER)
    other.run(flow)
    work_on(other, number)
    assert home.server("sftp-b").appeared["out/a.bin"] == 1
    assert not any(row.state is State.HELD for row in other.ledger.rows())


def test_a_request_under_a_key_is_held_without_evidence_and_a_new_one_is_not(pair: Pair) -> None:
    """What may be a repetition of what the other region delivered waits; what cannot be goes on."""
    number, _, other, _ = split(pair, solo_first=True)
    request = Submission(
        tenant=TENANT, source_endpoint="s3-a", source_path="in/a.bin", destination_endpoint="sftp-b", destination_path="out/c.bin"
    )
    fresh = accept(other.engine, request)
    keyed = accept(other.engine, replace(request, destination_path="out/b.bin", idempotency_key="k", request_hash="1"))
    assert (keyed.state, keyed.reason, fresh.state) == (State.HELD, "no_evidence", State.ACCEPTED)
    pair.link.cut = False
    rejoin(other.engine, number, ORDER)
    work_on(other, number)
    assert {other.ledger.load(one.id).state for one in (keyed, fresh)} == {State.SETTLED}


def test_everything_that_is_open_is_shown_before_it_is_held(pair: Pair) -> None:
    """A promotion away from a home that may be solo holds what has an intent, too: it may have been given up there."""
    number, home, other, transfer = split(pair, solo_first=True)
    assert {entry.transfer for entry in will_be_held(other.engine, number, old_home_may_be_solo=True)} == {transfer.id}
    other.queue += adopt(other.engine, number)
    assert other.ledger.load(transfer.id).reason == "no_evidence"
    pair.link.cut = False
    rejoin(other.engine, number, ORDER)
    work_on(other, number)
    assert (other.ledger.load(transfer.id).state, home.server("sftp-b").appeared["out/a.bin"]) == (State.SETTLED, 1)


def test_a_transfer_whose_region_is_lost_is_shown_as_it_ended(pair: Pair) -> None:
    """Its row is gone with the region; the other region's journal and intent tell that it was delivered, or cancelled."""
    _, home, other = home_of(pair)
    delivered = home.submit("s3-a", "sftp-b")
    home.drain()
    assert other.engine.peer is not None
    other.engine = replace(other.engine, peer=replace(other.engine.peer, ledger=FakeLedger()))
    shown = find(other.engine, TENANT, delivered.id)
    assert (shown.state, shown.reason) == (State.SETTLED, "known_from_journal")
    assert shown.receipt is not None
    assert shown.receipt.path == "out/a.bin"


def test_two_who_carry_a_row_at_the_same_time_do_not_hinder_each_other(pair: Pair) -> None:
    """A rejoin, and the old home's own upkeep, meet at a row: both end well, and it is carried once."""
    number, home, other, transfer = split(pair)
    pair.link.cut = False
    inner = other.engine
    assert inner.peer is not None
    ledger = home.ledger

    def upkeep(label: str) -> None:
        if label == "peer ledger.claim:after":
            there = pair.tables[home.engine.ownership.region].partition(number)
            if there.home == other.engine.ownership.region:
                assert return_strays(home.engine, number) == 1

    watched: Any = Watched(ledger, "peer ledger", upkeep)
    other.engine = replace(inner, peer=replace(inner.peer, ledger=watched))
    assert rejoin(other.engine, number, ORDER).mode is Mode.DUAL
    other.engine = inner
    assert home.ledger.load(transfer.id).elsewhere == other.engine.ownership.region
    work_on(other, number)
    assert (other.ledger.load(transfer.id).state, home.server("sftp-b").appeared["out/a.bin"]) == (State.SETTLED, 1)


def test_what_is_accepted_while_a_partition_is_handed_over_goes_along(pair: Pair) -> None:
    """A row that comes between the look and the release is carried with the others."""
    number, home, other = home_of(pair)
    drain(home.engine, number, ORDER)
    table = pair.tables[home.engine.ownership.region]
    late: list[Transfer] = []
    change = table.change

    def accepting(new: Partition, *, seen: Partition) -> bool:
        if new.phase is Phase.RELEASED:
            late.append(home.submit("s3-a", "sftp-b"))
        return change(new, seen=seen)

    table.change = accepting  # type: ignore[method-assign]
    hand_over(home.engine, number, ORDER)
    assert home.ledger.load(late[0].id).elsewhere == other.engine.ownership.region
    work_on(other, number)
    assert other.ledger.load(late[0].id).state is State.SETTLED


@pytest.mark.parametrize("repeated", [False, True])
def test_what_comes_to_wait_for_evidence_during_a_rejoin_is_decided_too(pair: Pair, repeated: bool) -> None:
    """A file that is found in the middle of it is held as nobody can know of it yet; the rejoin's end decides, or the order given again."""
    number, home, other = home_of(pair)
    flow = home.flow("s3-a", "sftp-b")
    promote(other.engine, number, ORDER, old_home_may_be_solo=True)
    table = pair.tables[home.engine.ownership.region]
    journalled = table.journalled

    def found_meanwhile(transfers: list[str]) -> set[str]:
        table.journalled = journalled  # type: ignore[method-assign]
        other.run(flow)
        assert [row.reason for row in other.ledger.rows()] == ["no_evidence"]
        if repeated:
            # The index does not show it yet.
            unsettled = other.ledger.unsettled
            seen = iter([iter(())])
            other.ledger.unsettled = lambda partition: next(seen, None) or unsettled(partition)  # type: ignore[method-assign]
        return journalled(transfers)

    table.journalled = found_meanwhile  # type: ignore[method-assign, assignment]
    rejoin(other.engine, number, ORDER)
    if repeated:
        assert [row.reason for row in other.ledger.rows()] == ["no_evidence"]
        rejoin(other.engine, number, ORDER)
    work_on(other, number)
    assert [row.state for row in other.ledger.rows()] == [State.SETTLED]
