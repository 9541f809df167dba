"""Switches of regions met halfway: each a case that the simulation of the engine has found."""

from __future__ import annotations

import pytest

from eft.domain.ownership import Partition
from eft.domain.transfer import State, Transfer
from eft.errors import Conflict, Permanent, Transient
from eft.journey.messages import next_message
from eft.journey.operate import redrive, run_flow
from eft.regions.orders import Order
from eft.regions.rejoin import rejoin
from eft.regions.strays import return_strays
from eft.regions.switch import drain, hand_over, promote, solo, undrain
from tests.crashes import watch
from tests.fake_regions import Pair, home_of
from tests.world import SMALL, TENANT

ORDER = Order(by="op@example.org", why="test", ticket="T-1")


@pytest.fixture
def pair() -> Pair:
    """Two regions, and a file at a customer's."""
    made = Pair()
    made.west.server("s3-a").put("in/a.bin", b"x")
    return made


def test_a_promoted_home_hands_over_only_after_rejoining(pair: Pair) -> None:
    """The old home's table, which has not heard of the promotion, does not take the partition back; no region_epoch ever falls."""
    number, _, other = home_of(pair, "sftp-b")
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    for step in (lambda: None, lambda: drain(other.engine, number, ORDER)):
        step()
        with pytest.raises(Permanent) as error:
            hand_over(other.engine, number, ORDER)
        assert error.value.reason == "not_rejoined"
        assert pair.tables[other.engine.ownership.region].partition(number).region_epoch == 2
    rejoin(other.engine, number, ORDER)
    assert hand_over(other.engine, number, ORDER).region_epoch == 3


def test_a_solo_home_hands_over_only_after_rejoining(pair: Pair) -> None:
    """What was delivered alone is unknown to the peer, which would deliver it again from its journal."""
    number, home, _ = home_of(pair, "sftp-b")
    solo(home.engine, number, ORDER)
    drain(home.engine, number, ORDER)
    with pytest.raises(Permanent) as error:
        hand_over(home.engine, number, ORDER)
    assert error.value.reason == "not_rejoined"


def test_a_switch_takes_reservations_along(pair: Pair) -> None:
    """Neither a transfer that has left, nor a reservation that a crash left behind, keeps a path from others when the home is back."""
    number, home, other = home_of(pair, "sftp-b")
    home.server("s3-a").put("in/large.bin", b"z" * 9000)
    first = home.submit("s3-a", "sftp-b", path="in/large.bin")
    home.deliver_message(home.queue.popleft())
    assert home.ledger.holder("sftp-b", "out/a.bin") == first.id
    for _ in range(9):
        # More claims than it will take in the other region, whose ledger counts them anew; each lapses at once.
        home.ledger.claim(first.id, worker="w", now=home.clock.now(), lease=-SMALL.lease, force=True)
    drain(home.engine, number, ORDER)
    hand_over(home.engine, number, ORDER)
    assert home.ledger.holder("sftp-b", "out/a.bin") is None
    home.ledger.reserve(endpoint="sftp-b", path=first.destination.path, transfer=first.id, claim=first.claim, source="left behind", order=0)
    other.queue += next_message(other.ledger.load(first.id))
    other.until_rest(first)
    assert other.ledger.holder("sftp-b", "out/a.bin") is None
    home.server("sftp-b").files.clear()
    drain(other.engine, number, ORDER)
    hand_over(other.engine, number, ORDER)
    second = home.submit("s3-a", "sftp-b")
    assert home.until_rest(second).state is State.SETTLED


def test_a_switch_leaves_a_path_to_the_worker_that_was_faster(pair: Pair) -> None:
    """Between a row's arrival and its reservation it was claimed there, and the path reserved: the switch goes on."""
    number, home, other = home_of(pair, "sftp-b")
    home.server("s3-a").put("in/large.bin", b"z" * 9000)
    first = home.submit("s3-a", "sftp-b", path="in/large.bin")
    home.deliver_message(home.queue.popleft())
    path, engine, arrives = first.destination.path, other.engine, other.ledger.adopt

    def faster(transfer: Transfer) -> bool:
        done = arrives(transfer)
        now = engine.ledger.claim(transfer.id, worker="w", now=engine.clock.now(), lease=engine.tuning.lease)
        assert now is not None
        engine.ledger.reserve(endpoint="sftp-b", path=path, transfer=transfer.id, claim=now.claim, source="s", order=0)
        return done

    other.ledger.adopt = faster  # type: ignore[method-assign]
    drain(home.engine, number, ORDER)
    hand_over(home.engine, number, ORDER)
    assert other.until_rest(first).state is State.SETTLED
    assert other.ledger.holder("sftp-b", "out/a.bin") is None


def test_a_hand_over_once_begun_is_not_taken_back(pair: Pair) -> None:
    """What was carried over already would be nobody's: a released partition goes on, or the other region is promoted."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    drain(home.engine, number, ORDER)
    pair.tables[other.engine.ownership.region].change = refuse  # type: ignore[method-assign]
    with pytest.raises(Transient):
        hand_over(home.engine, number, ORDER)
    del pair.tables[other.engine.ownership.region].change
    for order in (undrain, solo, drain):
        with pytest.raises(Permanent) as error:
            order(home.engine, number, ORDER)
        assert error.value.reason == "released"
    hand_over(home.engine, number, ORDER)
    assert other.until_rest(transfer).state is State.SETTLED


def refuse(*_: object, **__: object) -> bool:
    """A table that does not answer."""
    raise Transient("the peer region does not answer", reason="peer_unreachable")


def test_what_arrives_in_a_hand_over_is_not_sent_back(pair: Pair) -> None:
    """The coming home's upkeep, which runs between a row's arrival and the partition's, leaves the row; nothing goes astray."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    drain(home.engine, number, ORDER)
    table = pair.tables[other.engine.ownership.region]
    change = table.change

    def upkeep_first(new: Partition, *, seen: Partition) -> bool:
        return_strays(other.engine, number)
        return change(new, seen=seen)

    table.change = upkeep_first  # type: ignore[method-assign]
    hand_over(home.engine, number, ORDER)
    assert other.until_rest(transfer).state is State.SETTLED


def test_a_switch_that_slept_through_another_moves_nothing(pair: Pair) -> None:
    """A rejoin that wakes after its partition has come back to the old home leaves the rows of the later era where they are."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    claim = home.ledger.claim

    def slept(*args: object, **named: object) -> Transfer | None:
        home.ledger.claim = claim  # type: ignore[method-assign]
        rejoin(other.engine, number, ORDER)
        drain(other.engine, number, ORDER)
        hand_over(other.engine, number, ORDER)
        return claim(*args, **named)  # type: ignore[arg-type]

    home.ledger.claim = slept  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        rejoin(other.engine, number, ORDER)
    assert home.ledger.load(transfer.id).elsewhere is None
    assert home.until_rest(transfer).state is State.SETTLED


def test_what_is_redriven_while_its_partition_is_on_its_way_is_recovered_in_the_next_home(pair: Pair) -> None:
    """A held transfer that goes back to committing between two homes does not keep the partition from arriving."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    server = home.server("sftp-b")
    watch(home, lambda label: server.files.clear() if label == "sftp-b.commit:before" else None)
    assert home.until_rest(transfer).reason == "token_gone"
    drain(home.engine, number, ORDER)
    table = pair.tables[other.engine.ownership.region]
    table.change = refuse  # type: ignore[method-assign]
    ledger, other.ledger.adopt = other.ledger.adopt, refuse  # type: ignore[method-assign]
    with pytest.raises(Transient):
        hand_over(home.engine, number, ORDER)
    del table.change
    other.ledger.adopt = ledger  # type: ignore[method-assign]
    redrive(home.engine, TENANT, transfer.id, "op")
    assert home.ledger.load(transfer.id).state is State.COMMITTING
    pair.west.clock.advance(SMALL.lease)
    assert hand_over(home.engine, number, ORDER).home == other.engine.ownership.region
    row = other.until_rest(transfer)
    assert (row.state, row.reason) == (State.HELD, "token_gone")


def test_a_rejoin_that_died_at_its_last_step_is_ended_by_the_next(pair: Pair) -> None:
    """A promoted region that held for want of evidence has it after the rejoin is ordered again."""
    number, home, other = home_of(pair, "sftp-b")
    solo(home.engine, number, ORDER)
    promote(other.engine, number, ORDER, old_home_may_be_solo=True)
    table = pair.tables[other.engine.ownership.region]
    change = table.change
    table.change = lambda new, *, seen: refuse() if new.evidence else change(new, seen=seen)  # type: ignore[method-assign]
    with pytest.raises(Transient):
        rejoin(other.engine, number, ORDER)
    del table.change
    assert rejoin(other.engine, number, ORDER).evidence


def test_what_one_region_accepted_alone_is_known_to_the_other_before_it_appears(pair: Pair) -> None:
    """A file found while the link was cut is not found anew by the next home, though nothing but the commit reached that."""
    number, home, other = home_of(pair, "sftp-b")
    flow = home.flow("s3-a", "sftp-b", selection={"directory": "in"})
    if home is not pair.west:
        pair.west.registry.add_flow(flow)
    pair.link.cut = True
    home.queue += home.deliver_message(run_flow(home.engine, flow)[0])
    pair.link.cut = False
    (found,) = home.ledger.rows()
    assert found.durability == "single-region"
    assert home.until_rest(found).state is State.SETTLED
    drain(home.engine, number, ORDER)
    hand_over(home.engine, number, ORDER)
    other.run(flow)
    assert other.ledger.rows() == []
