"""Two regions over fakes: one home a partition, whatever is cut, promoted or rejoined."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from eft.domain.names import partition_of
from eft.domain.ownership import Mode, Phase
from eft.domain.transfer import State, Transfer
from eft.errors import LostOwnership, Permanent, Transient
from eft.journey.accept import Submission, accept, first_message
from eft.journey.held import Decision, decide
from eft.journey.messages import Message
from eft.journey.operate import cancel
from eft.regions.adoption import adopt
from eft.regions.orders import Order
from eft.regions.rejoin import rejoin
from eft.regions.strays import return_strays
from eft.regions.switch import drain, hand_over, promote, solo, undrain, will_be_held
from tests.crashes import watch
from tests.fake_regions import EAST, WEST, Pair
from tests.world import TENANT, World

ORDER = Order(by="op@example.org", why="test", ticket="T-1")


@pytest.fixture
def pair() -> Pair:
    """Two regions, and a file at a customer's."""
    made = Pair()
    made.west.server("s3-a").put("in/a.bin", b"x")
    return made


def home_of(pair: Pair, destination: str) -> tuple[int, World, World]:
    """Returns the partition of a destination, its home's world and the other."""
    number = partition_of(TENANT, destination)
    at_west = pair.tables[WEST].partition(number).home == WEST
    return number, *((pair.west, pair.east) if at_west else (pair.east, pair.west))


def at_rest(pair: Pair, world: World, transfer: Transfer) -> Transfer:
    """Sweeps, adopts and drains one region until it has the transfer at rest."""
    table = pair.tables[world.engine.ownership.region]
    for _ in range(20):
        world.drain()
        if table.journalled([transfer.id]) and table.entries[transfer.id].closed:
            break
        for number in world.engine.ownership.owned():
            world.queue += adopt(world.engine, number)
        world.drain()
        if transfer.id in world.ledger.known([transfer.id]):
            row = world.ledger.load(transfer.id)
            if row.next_step is None:
                return row
        world.clock = pair.west.clock
        world.sweep()
    for one in (world, pair.east, pair.west):
        for row in one.ledger.rows():
            if row.id == transfer.id and row.state is State.SETTLED:
                return row
    row = world.ledger.load(transfer.id)
    raise AssertionError(f"does not rest: {row.state} {row.reason} {row.error} {row.tries}")


def test_the_home_delivers_after_two_acks(pair: Pair) -> None:
    """Both tables have the intent, and the peer's journal the transfer, before the file appears."""
    _, home, other = home_of(pair, "sftp-b")
    seen: list[bool] = []
    transfer = home.submit("s3-a", "sftp-b")
    home.server("sftp-b").receiver = lambda _: seen.append(all(t.intent(transfer.id) for t in pair.tables.values()))
    assert at_rest(pair, home, transfer).state is State.SETTLED
    assert seen == [True]
    assert transfer.durability == "both-regions"
    assert other.engine.peer is not None
    assert other.engine.peer.own.journalled([transfer.id]) == {transfer.id}


def test_any_region_accepts_and_the_home_executes(pair: Pair) -> None:
    """A request to the other region is journalled in both, and adopted by its home."""
    _, home, other = home_of(pair, "sftp-b")
    transfer = other.submit("s3-a", "sftp-b")
    other.drain()
    assert other.ledger.rows() == []
    assert at_rest(pair, home, transfer).state is State.SETTLED


def test_without_the_peer_nothing_is_committed_but_staging_goes_on(pair: Pair) -> None:
    """With the link cut the answer says single-region, and the transfer waits committing without losing a try."""
    _, home, _ = home_of(pair, "sftp-b")
    home.server("sftp-a").put("in/a.bin", b"y")
    pair.link.cut = True
    transfer = home.submit("sftp-a", "sftp-b")
    assert transfer.durability == "single-region"
    for _ in range(12):
        message = home.queue.popleft()
        pair.west.clock.advance(message.delay)
        home.queue += home.deliver_message(message)
    row = home.ledger.load(transfer.id)
    assert (row.state, row.reason) == (State.COMMITTING, "peer_unreachable")
    assert home.server("sftp-b").finals() == {}
    pair.link.cut = False
    assert at_rest(pair, home, transfer).state is State.SETTLED


def test_a_tenant_may_demand_both_regions(pair: Pair) -> None:
    """With the link cut such a request is refused, and nothing is left behind."""
    pair.link.cut = True
    for world in (pair.west, pair.east):
        with pytest.raises(Transient) as error:
            world.submit("s3-a", "sftp-b", both_regions=True)
        assert error.value.reason == "peer_unreachable"
    assert pair.west.ledger.rows() == pair.east.ledger.rows() == []
    assert not pair.tables[WEST].entries
    assert not pair.tables[EAST].entries


def test_a_promoted_peer_delivers_what_the_old_home_had_not_begun(pair: Pair) -> None:
    """After a forced promotion the new home adopts the journal; the old one can commit nothing however late it wakes."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    stale = home.queue.popleft()
    pair.link.cut = True
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    assert at_rest(pair, other, transfer).state is State.SETTLED
    pair.link.cut = False
    for _ in range(3):
        home.queue += home.deliver_message(stale)
    assert home.server("sftp-b").appeared["out/a.bin"] == 1
    assert home.ledger.load(transfer.id).receipt is None


class PromotePoint:
    """Promotes the other region at one call of the home's ports, while the home sleeps in it."""

    def __init__(self, at: int, pair: Pair, other: World, transfer: Transfer, number: int) -> None:
        self.at, self.pair, self.other, self.transfer, self.number = at, pair, other, transfer, number
        self.passed = 0

    def __call__(self, label: str) -> None:
        self.passed += bool(label)
        if self.passed == self.at:
            self.pair.link.cut = True
            promote(self.other.engine, self.number, ORDER, old_home_may_be_solo=False)
            at_rest(self.pair, self.other, self.transfer)
            self.pair.link.cut = False


@pytest.mark.parametrize("consumes", [False, True])
@pytest.mark.parametrize("destination", ["sftp-b", "s3-b"])
def test_a_promotion_at_any_call_delivers_once(destination: str, consumes: bool) -> None:
    """Wherever the old home is when its peer is promoted, asleep or awake, the file appears exactly once, or is held."""
    at = 0
    while True:
        at += 1
        pair = Pair()
        pair.west.server("s3-a").put("in/a.bin", b"x")
        number, home, other = home_of(pair, destination)
        server = home.server(destination)
        if consumes:
            server.receiver = lambda path, server=server: server.files.pop(path)
        transfer = home.submit("s3-a", destination, receiver_removes=consumes)

        point = PromotePoint(at, pair, other, transfer, number)
        watch_region(home, point)
        home.drain()
        if point.passed < at:
            return
        row = at_rest(pair, other, transfer)
        if row.state is State.HELD:
            assert server.appeared["out/a.bin"] <= 1, (at, row.reason)
            continue
        assert (row.state, server.appeared["out/a.bin"]) == (State.SETTLED, 1), (at, row.reason)


def watch_region(world: World, hook: Callable[[str], None]) -> None:
    """Puts a hook at every call of a region's ports, but for those that the hook itself uses."""
    inside = False

    def outside(label: str) -> None:
        nonlocal inside
        if not inside:
            inside = True
            try:
                hook(label)
            finally:
                inside = False

    kept = world.engine.ownership
    world.ownership = kept  # type: ignore[assignment]
    watch(world, outside)


def test_a_planned_switch_moves_what_is_under_way(pair: Pair) -> None:
    """Drained and handed over, a half-copied large file goes on in the other region from its last part."""
    number, home, other = home_of(pair, "sftp-b")
    home.server("s3-a").put("in/a.bin", b"z" * 9000)
    transfer = home.submit("s3-a", "sftp-b")
    lanes = home.deliver_message(home.queue.popleft())
    home.in_one_lane(lanes[0])
    writes = home.server("sftp-b").calls["write"]
    drain(home.engine, number, ORDER)
    moved = hand_over(home.engine, number, ORDER)
    assert (moved.home, moved.region_epoch, moved.mode) == (other.engine.ownership.region, 2, Mode.DUAL)
    assert home.ledger.load(transfer.id).elsewhere == other.engine.ownership.region
    assert at_rest(pair, other, transfer).state is State.SETTLED
    assert home.server("sftp-b").calls["write"] - writes == 6
    assert home.server("sftp-b").appeared["out/a.bin"] == 1
    drain(other.engine, number, ORDER)
    back = hand_over(other.engine, number, ORDER)
    assert (back.home, back.region_epoch) == (home.engine.ownership.region, 3)


def test_a_draining_partition_begins_nothing(pair: Pair) -> None:
    """New work waits while a partition drains, and goes on when the drain is taken back."""
    number, home, _ = home_of(pair, "sftp-b")
    drain(home.engine, number, ORDER)
    with pytest.raises(LostOwnership):
        home.engine.ownership.standing(number, begin=True)
    transfer = home.submit("s3-a", "sftp-b")
    home.drain()
    assert home.ledger.load(transfer.id).state is State.ACCEPTED
    assert undrain(home.engine, number, ORDER).phase is Phase.ACTIVE
    pair.west.clock.advance(200)
    assert at_rest(pair, home, transfer).state is State.SETTLED


def test_a_hand_over_waits_for_what_is_committing(pair: Pair) -> None:
    """A committing transfer is settled at home before its partition leaves."""
    number, home, _ = home_of(pair, "sftp-b")
    pair.link.cut = True
    home.submit("s3-a", "sftp-b")
    home.queue += home.deliver_message(home.queue.popleft())
    pair.link.cut = False
    drain(home.engine, number, ORDER)
    with pytest.raises(Transient) as error:
        hand_over(home.engine, number, ORDER)
    assert error.value.reason == "still_busy"


def test_a_solo_home_commits_alone_and_rejoin_tells_the_peer(pair: Pair) -> None:
    """Under solo files move without the peer; rejoin copies what it missed and ends dual."""
    number, home, other = home_of(pair, "sftp-b")
    pair.link.cut = True
    solo(home.engine, number, ORDER)
    transfer = home.submit("s3-a", "sftp-b")
    assert at_rest(pair, home, transfer).state is State.SETTLED
    pair.link.cut = False
    table = pair.tables[other.engine.ownership.region]
    assert not table.intent(transfer.id)
    assert rejoin(home.engine, number, ORDER).mode is Mode.DUAL
    assert table.intent(transfer.id)
    assert table.partition(number).evidence


def test_promoting_away_from_a_solo_home_holds_until_rejoin(pair: Pair) -> None:
    """What a solo home may have delivered is held at the promoted one, shown beforehand, and decided by the old home's rows."""
    number, home, other = home_of(pair, "sftp-b")
    home.server("s3-a").put("in/b.bin", b"y")
    first = home.submit("s3-a", "sftp-b")
    second = home.submit("s3-a", "sftp-b", path="in/b.bin", to="out/b.bin")
    second_message = home.queue.pop()
    pair.link.cut = True
    solo(home.engine, number, ORDER)
    assert at_rest(pair, home, first).state is State.SETTLED
    home.queue.clear()
    home.ledger.postpone  # noqa: B018 - the second waits in its queue
    assert {entry.transfer for entry in will_be_held(other.engine, number, old_home_may_be_solo=True)} >= {second.id}
    promote(other.engine, number, ORDER, old_home_may_be_solo=True)
    other.queue += adopt(other.engine, number)
    assert {row.reason for row in other.ledger.rows()} == {"no_evidence"}
    pair.link.cut = False
    rejoin(other.engine, number, ORDER)
    assert home.deliver_message(second_message) == []
    assert at_rest(pair, other, second).state is State.SETTLED
    assert home.server("sftp-b").appeared == {"out/a.bin": 1, "out/b.bin": 1}
    assert all(row.state is State.SETTLED for row in other.ledger.rows())


def test_a_switch_is_ordered_at_home(pair: Pair) -> None:
    """Drain, solo and rejoin at the wrong region say where to ask."""
    number, home, other = home_of(pair, "sftp-b")
    for order in (drain, solo, rejoin):
        with pytest.raises(Permanent) as error:
            order(other.engine, number, ORDER)
        assert error.value.reason == "not_home"
    with pytest.raises(Permanent) as error:
        hand_over(home.engine, number, ORDER)
    assert error.value.reason == "not_draining"


def test_one_region_has_nobody_to_switch_to() -> None:
    """With one region configured a switch says so."""
    with pytest.raises(Permanent) as error:
        drain(World().engine, 1, ORDER)
    assert error.value.reason == "no_peer"


def test_discover_after_a_promotion_knows_what_the_old_home_accepted(pair: Pair) -> None:
    """A file that the old home delivered is not discovered anew."""
    number, home, other = home_of(pair, "sftp-b")
    flow = home.flow("s3-a", "sftp-b", selection={"directory": "in"})
    pair.west.registry.flows(TENANT)
    if home is not pair.west:
        pair.west.registry.add_flow(flow)
    home.run(flow)
    assert home.server("sftp-b").appeared["out/a.bin"] == 1
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    other.run(flow)
    for _ in range(3):
        other.queue += adopt(other.engine, number)
        other.drain()
        other.sweep()
    assert home.server("sftp-b").appeared["out/a.bin"] == 1


def test_the_same_request_in_both_regions_is_one_transfer(pair: Pair) -> None:
    """An idempotency key holds across regions."""
    request = Submission(
        tenant=TENANT, source_endpoint="s3-a", source_path="in/a.bin", destination_endpoint="sftp-b", idempotency_key="k", request_hash="1"
    )
    ids = {accept(world.engine, request).id for world in (pair.west, pair.east, pair.west)}
    assert len(ids) == 1
    _, home, _ = home_of(pair, "sftp-b")
    message: Message = first_message(home.ledger.load(ids.pop()))
    home.queue.append(message)
    home.drain()
    assert home.server("sftp-b").appeared["in/a.bin"] == 1


def test_a_request_repeated_after_a_promotion_is_the_transfer_that_the_old_home_had(pair: Pair) -> None:
    """The new home neither makes a second row of it nor delivers it again: its journal and the acked intent know it."""
    number, home, other = home_of(pair, "sftp-b")
    request = Submission(
        tenant=TENANT,
        source_endpoint="s3-a",
        source_path="in/a.bin",
        destination_endpoint="sftp-b",
        destination_path="out/a.bin",
        idempotency_key="k",
        request_hash="1",
    )
    first = accept(home.engine, request)
    home.queue += [first_message(first)]
    forget = pair.tables[other.engine.ownership.region].close_journal
    pair.tables[other.engine.ownership.region].close_journal = lambda transfer: None  # type: ignore[method-assign]
    home.drain()
    pair.tables[other.engine.ownership.region].close_journal = forget  # type: ignore[method-assign]
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    again = accept(other.engine, request)
    assert (again.id, again.next_step, other.ledger.rows()) == (first.id, None, [])
    assert at_rest(pair, other, again).state is State.SETTLED
    assert home.server("sftp-b").appeared["out/a.bin"] == 1
    assert accept(other.engine, request).receipt is not None


def test_what_was_cancelled_is_not_delivered_after_a_promotion(pair: Pair) -> None:
    """A customer's cancel closes the journals, so that no new home takes the transfer up again."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    cancel(home.engine, TENANT, transfer.id, "ada")
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    assert list(adopt(other.engine, number)) == []
    assert other.ledger.rows() == []


def test_what_an_operator_abandoned_is_not_delivered_after_a_promotion(pair: Pair) -> None:
    """A held transfer that was given up is closed in both journals."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    server = home.server("sftp-b")

    def lose_it(label: str) -> None:
        if label == "sftp-b.commit:before":
            server.files.clear()

    watch_region(home, lose_it)
    home.drain()
    assert home.ledger.load(transfer.id).state is State.HELD
    decide(home.engine, TENANT, transfer.id, Decision.ABANDON, by="op", why="not wanted")
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    assert list(adopt(other.engine, number)) == []


def test_a_draining_partition_gives_its_claims_back(pair: Pair) -> None:
    """A worker that meets the drain in the middle of its work lets the transfer go, so that the hand-over need not wait for the lease."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")

    def drain_now(label: str) -> None:
        if label == "ledger.claim:after" and pair.tables[home.engine.ownership.region].partition(number).phase is Phase.ACTIVE:
            drain(home.engine, number, ORDER)

    watch_region(home, drain_now)
    home.drain()
    assert home.ledger.load(transfer.id).claim_until is None
    assert hand_over(home.engine, number, ORDER).home == other.engine.ownership.region
    assert at_rest(pair, other, transfer).state is State.SETTLED


def test_what_was_accepted_away_from_home_without_the_link_reaches_its_home(pair: Pair) -> None:
    """With the link cut the other region journals it alone and says so; once the link is back the home learns of it and delivers."""
    number, home, other = home_of(pair, "sftp-b")
    pair.link.cut = True
    transfer = other.submit("s3-a", "sftp-b")
    assert transfer.durability == "single-region"
    with pytest.raises(Transient):
        return_strays(other.engine, number)
    pair.link.cut = False
    assert return_strays(other.engine, number) == 1
    assert return_strays(other.engine, number) == 0
    assert at_rest(pair, home, transfer).state is State.SETTLED
    assert home.server("sftp-b").appeared["out/a.bin"] == 1


@pytest.mark.parametrize("comes", [True, False])
def test_a_staged_copy_that_is_still_on_its_way_is_waited_for(comes: bool) -> None:
    """After a switch a transfer reads the replica of its staged copy: S3 takes its time, and the row says so; after a day it is buried."""
    pair = Pair()
    pair.west.server("sftp-a").put("in/a.bin", b"x" * 9000)
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("sftp-a", "sftp-b")
    while home.ledger.load(transfer.id).state is not State.STAGED:
        home.queue += home.deliver_message(home.queue.popleft())
    drain(home.engine, number, ORDER)
    hand_over(home.engine, number, ORDER)
    home.queue.clear()
    for _ in range(12):
        pair.west.clock.advance(600)
        other.sweep()
        other.deliver_message(other.queue.popleft())
        other.queue.clear()
    waiting = other.ledger.load(transfer.id)
    assert (waiting.state, waiting.reason, waiting.tries) == (State.STAGED, "replica_pending", 0)
    if comes:
        other.stores.staging_server.files |= home.stores.staging_server.files
        other.stores.staging_server.versions |= home.stores.staging_server.versions
    pair.west.clock.advance(86_400)
    other.sweep()
    other.drain()
    ended = other.ledger.load(transfer.id)
    assert ended.state is (State.SETTLED if comes else State.DEAD)
    assert other.server("sftp-b").appeared.total() == (1 if comes else 0)
