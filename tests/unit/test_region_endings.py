"""What one region gave up, delivered or left behind, and what the other makes of it: cases that the simulation of the engine has found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from eft.domain.ownership import Intent, JournalEntry, Mode
from eft.domain.transfer import State, Step, Transfer
from eft.errors import LostOwnership, Permanent, Transient
from eft.journey.held import Decision, decide
from eft.journey.messages import next_message
from eft.journey.operate import cancel, redrive, run_flow, take
from eft.journey.reserve import version_of
from eft.journey.upkeep import expire_staging
from eft.regions.adoption import adopt
from eft.regions.orders import Order
from eft.regions.rejoin import rejoin
from eft.regions.routing import find
from eft.regions.strays import return_strays
from eft.regions.switch import drain, hand_over, promote, solo
from tests.fake_regions import Pair, home_of
from tests.world import SMALL, TENANT, World

ORDER = Order(by="op@example.org", why="test", ticket="T-1")


@pytest.fixture
def pair() -> Pair:
    """Two regions, and a file at a customer's."""
    made = Pair()
    made.west.server("s3-a").put("in/a.bin", b"x")
    return made


# -- giving up is as final as committing -------------------------------------------------------------------------------


def work_on(world: World, number: int) -> None:
    """Adopts, sweeps and drains one region for a while."""
    for _ in range(6):
        world.queue += adopt(world.engine, number)
        world.drain()
        world.sweep()


def appeared(world: World) -> int:
    """Returns how often the file has appeared at its destination."""
    return world.server("sftp-b").appeared["out/a.bin"]


def test_a_fenced_home_cancels_nothing(pair: Pair) -> None:
    """A customer is not told that a transfer is cancelled which the promoted region delivers."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    with pytest.raises(LostOwnership):
        cancel(home.engine, TENANT, transfer.id, "customer")
    assert home.ledger.load(transfer.id).state is State.ACCEPTED
    work_on(other, number)
    assert other.ledger.load(transfer.id).state is State.SETTLED


def test_a_home_that_cannot_ask_its_peer_cancels_nothing(pair: Pair) -> None:
    """Whether it was promoted is not known; the transfer goes on, and may be cancelled when the peer answers again."""
    _, home, _ = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    pair.link.cut = True
    with pytest.raises(Transient) as error:
        cancel(home.engine, TENANT, transfer.id, "customer")
    assert error.value.reason == "peer_unreachable"
    row = home.ledger.load(transfer.id)
    assert (row.state, row.claim_until) == (State.ACCEPTED, None)
    pair.link.cut = False
    assert cancel(home.engine, TENANT, transfer.id, "customer").state is State.CANCELLED


@pytest.mark.parametrize("decide_by", ["customer", "conflict mode"])
def test_what_a_home_gave_up_is_not_taken_up_by_the_next(pair: Pair, decide_by: str) -> None:
    """The peer knows of it before it is called cancelled, though nothing that came after reached the peer."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b", conflict="skip")
    home.engine.ownership.forget = lambda transfer: None  # type: ignore[method-assign]
    if decide_by == "customer":
        cancel(home.engine, TENANT, transfer.id, "customer")
    else:
        home.server("sftp-b").put("out/a.bin", b"another's")
        assert home.until_rest(transfer).state is State.CANCELLED
        home.server("sftp-b").files.clear()
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    work_on(other, number)
    assert other.ledger.rows() == []
    assert appeared(home) == 0


def test_a_fenced_home_skips_nothing(pair: Pair) -> None:
    """What stands at the destination is the file itself, delivered by the promoted region: that is no reason to call it skipped."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b", conflict="skip")
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    work_on(other, number)
    home.drain()
    assert (home.ledger.load(transfer.id).state, appeared(home)) == (State.ACCEPTED, 1)


def test_a_cancel_in_the_middle_of_a_hand_over_is_refused(pair: Pair) -> None:
    """A partition on its way has taken the transfer along: the next home delivers it."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    drain(home.engine, number, ORDER)
    write = other.ledger.adopt

    def cancelled_first(transfer: Transfer) -> bool:
        with pytest.raises(LostOwnership):
            cancel(home.engine, TENANT, transfer.id, "customer")
        return write(transfer)

    other.ledger.adopt = cancelled_first  # type: ignore[method-assign]
    hand_over(home.engine, number, ORDER)
    other.ledger.adopt = write  # type: ignore[method-assign]
    return_strays(home.engine, number)
    assert other.until_rest(transfer).state is State.SETTLED


def held_without_evidence(pair: Pair) -> tuple[int, World, World, Transfer]:
    """Returns a partition whose solo home has a transfer that the promoted region holds."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    solo(home.engine, number, ORDER)
    promote(other.engine, number, ORDER, old_home_may_be_solo=True)
    assert list(adopt(other.engine, number)) == []
    assert other.ledger.load(transfer.id).reason == "no_evidence"
    return number, home, other, transfer


@pytest.mark.parametrize(("ask", "reason"), [(cancel, "too_late"), (redrive, "no_evidence")])
def test_what_the_other_region_may_have_delivered_is_neither_cancelled_nor_redriven(pair: Pair, ask: object, reason: str) -> None:
    """The rejoin decides, or an operator who has asked the receiver; the solo home delivers it meanwhile."""
    _, home, other, transfer = held_without_evidence(pair)
    assert callable(ask)
    with pytest.raises(Permanent) as error:
        ask(other.engine, TENANT, transfer.id, "somebody")
    assert error.value.reason == reason
    row = other.ledger.load(transfer.id)
    assert (row.state, row.reason, row.claim_until) == (State.HELD, "no_evidence", None)
    assert home.until_rest(transfer).state is State.SETTLED


def test_what_a_solo_home_cancelled_stays_cancelled_after_the_rejoin(pair: Pair) -> None:
    """The promoted region, which held it for want of evidence, learns what the customer was told."""
    number, home, other, transfer = held_without_evidence(pair)
    cancel(home.engine, TENANT, transfer.id, "customer")
    rejoin(other.engine, number, ORDER)
    work_on(other, number)
    assert (other.ledger.load(transfer.id).state, appeared(home)) == (State.CANCELLED, 0)


# -- rows of another era -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("evidence", [True, False])
def test_a_row_of_an_earlier_era_goes_on_when_its_region_is_home_again(pair: Pair, evidence: bool) -> None:
    """Nobody told the region of the time between: its row is taken up anew, or held where the other may have delivered alone."""
    number, home, _ = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    table = pair.tables[home.engine.ownership.region]
    seen = table.partition(number)
    table.change(seen.model_copy(update={"region_epoch": 3, "evidence": evidence, "mode": Mode.SOLO}), seen=seen)
    work_on(home, number)
    row = home.ledger.load(transfer.id)
    assert (row.state, row.region_epoch) == (State.SETTLED if evidence else State.HELD, 3)


def test_a_row_of_an_earlier_era_that_has_ended_elsewhere_stays_so(pair: Pair) -> None:
    """What the region between cancelled is not revived by the row that was left here."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    work_on(other, number)
    table = pair.tables[home.engine.ownership.region]
    table.journal(JournalEntry(partition=number, transfer=transfer.id, row="{}", closed=True))
    seen = table.partition(number)
    table.change(seen.model_copy(update={"region_epoch": 3, "mode": Mode.SOLO}), seen=seen)
    work_on(home, number)
    assert home.ledger.load(transfer.id).elsewhere == other.engine.ownership.region
    assert appeared(home) == 1


def test_a_region_that_rejoins_knows_by_rows_what_ended_without_it(pair: Pair) -> None:
    """An adoption that slept through the rejoin writes nothing over what the solo home had delivered."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    solo(home.engine, number, ORDER)
    assert home.until_rest(transfer).state is State.SETTLED
    promote(other.engine, number, ORDER, old_home_may_be_solo=True)
    known = other.ledger.known

    def slept(ids: list[str]) -> set[str]:
        found = known(ids)
        other.ledger.known = known  # type: ignore[method-assign]
        rejoin(other.engine, number, ORDER)
        return found

    other.ledger.known = slept  # type: ignore[method-assign, assignment]
    assert list(adopt(other.engine, number)) == []
    row = other.ledger.load(transfer.id)
    assert (row.state, row.receipt is not None, row.region_epoch) == (State.SETTLED, True, 2)


def test_of_two_tokens_the_one_that_is_carried_on_stands(pair: Pair) -> None:
    """A promoted region's own old announcement, which nobody acknowledged, is written off for the one that it takes over."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    pair.link.cut = True
    home.deliver_message(home.queue.popleft())
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    other.queue += adopt(other.engine, number)
    home.server("sftp-b").watch = refuse_commits
    other.deliver_message(other.queue.popleft())
    theirs = other.ledger.load(transfer.id)
    assert theirs.state is State.COMMITTING
    table = pair.tables[home.engine.ownership.region]
    seen = table.partition(number)
    table.change(seen.model_copy(update={"region_epoch": 3, "evidence": False, "mode": Mode.SOLO}), seen=seen)
    pair.link.cut = False
    home.server("sftp-b").watch = lambda _: None
    rejoin(home.engine, number, ORDER)
    pair.west.clock.advance(SMALL.lease)
    assert home.until_rest(transfer).state is State.SETTLED
    intents = [one.intent(transfer.id) for one in pair.tables.values()]
    assert [intent is not None and intent.token for intent in intents] == [theirs.commit and theirs.commit.token] * 2


def refuse_commits(label: str) -> None:
    """A destination that does not answer when it comes to the commit."""
    if label == "commit:before":
        raise Transient("the connection was lost", reason="connection_lost", endpoint="sftp-b")


def refuse_consuming(label: str) -> None:
    """A destination that does not answer when a token is to be removed."""
    if label == "consume:before":
        raise Transient("the connection was lost", reason="connection_lost", endpoint="sftp-b")


# -- paths -------------------------------------------------------------------------------------------------------------


def committing(pair: Pair, *, conflict: str = "fail") -> tuple[int, World, World, Transfer]:
    """Returns a transfer that its home announced, and could not commit, before the other region was promoted."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b", conflict=conflict)
    home.server("sftp-b").watch = refuse_commits
    home.deliver_message(home.queue.popleft())
    home.server("sftp-b").watch = lambda _: None
    assert home.ledger.load(transfer.id).state is State.COMMITTING
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    return number, home, other, transfer


def test_what_is_recovered_in_another_region_waits_for_its_path(pair: Pair) -> None:
    """While another transfer has the path there, the token is not committed."""
    number, _, other, transfer = committing(pair)
    another = transfer.with_(id=f"{transfer.id[:2]}{'0' * 30}", region_epoch=2)
    other.ledger.create(another)
    path = transfer.destination.path
    other.ledger.reserve(endpoint="sftp-b", path=path, transfer=another.id, claim=another.claim, source="another", order=0)
    other.queue += adopt(other.engine, number)
    assert [message.step for message in other.deliver_message(other.queue.popleft())] == [Step.DELIVER]
    row = other.ledger.load(transfer.id)
    assert (row.state, row.reason, appeared(other)) == (State.COMMITTING, "destination_reserved", 0)


def test_an_older_version_recovered_in_another_region_overwrites_no_newer_one(pair: Pair) -> None:
    """Where a newer version was delivered, a person decides what becomes of the older one."""
    number, _, other, transfer = committing(pair, conflict="overwrite")
    other.queue += adopt(other.engine, number)
    later = version_of(transfer) | {"transfer": "newer", "order": version_of(transfer)["order"] + 1}
    other.ledger.remember_delivered(path=transfer.destination.path, **later)
    row = other.until_rest(transfer)
    assert (row.state, row.reason, appeared(other)) == (State.HELD, "superseded", 0)


def test_a_decision_that_broke_off_is_a_persons_in_the_next_home_as_well(pair: Pair) -> None:
    """ABANDON may be written before anybody sees that the token was committed: it is no leave to deliver once more."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    server = home.server("sftp-b")
    passed: list[str] = []

    def taken(label: str) -> None:
        if label == "commit:after" and not passed:
            passed.append(label)
            server.files.clear()
            raise Transient("the connection was lost", reason="connection_lost", endpoint="sftp-b")

    server.watch = taken
    held = home.until_rest(transfer)
    assert (held.state, held.reason, appeared(home)) == (State.HELD, "token_gone", 1)
    server.watch = refuse_consuming
    with pytest.raises(Transient):
        decide(home.engine, TENANT, transfer.id, Decision.ACCEPT, by="op", why="the receiver has it")
    server.watch = lambda _: None
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    work_on(other, number)
    assert (other.ledger.load(transfer.id).state, appeared(home)) == (State.HELD, 1)
    decide(other.engine, TENANT, transfer.id, Decision.ACCEPT, by="op", why="the receiver has it")
    assert other.until_rest(transfer).state is State.SETTLED


def test_what_an_operator_abandoned_is_not_taken_up_by_the_next_home(pair: Pair) -> None:
    """The peer knows of it before the operator is told that it is done."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    server = home.server("sftp-b")
    server.watch = lambda label: server.files.clear() if label == "commit:before" else None
    assert home.until_rest(transfer).reason == "token_gone"
    server.watch = lambda _: None
    home.engine.ownership.forget = lambda transfer: None  # type: ignore[method-assign]
    decide(home.engine, TENANT, transfer.id, Decision.ABANDON, by="op", why="not needed")
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    work_on(other, number)
    assert (other.ledger.rows(), appeared(home)) == ([], 0)


def test_a_replica_is_kept_as_long_as_the_other_region_needs_the_copy(pair: Pair) -> None:
    """A region that has no row of a transfer asks the other before it removes what was staged there, and keeps what it cannot ask for."""
    _, home, other = home_of(pair, "sftp-b")
    home.server("s3-a").put("in/large.bin", b"x" * 2000)
    transfer = home.submit("s3-a", "sftp-b", path="in/large.bin", staging=True)
    (again,) = home.deliver_message(home.queue.popleft())
    ours, replicas = (world.stores.staging_server for world in (home, other))
    replicas.files |= ours.files
    replicas.versions |= ours.versions
    pair.west.clock.advance(SMALL.staging_retention * 2)
    assert expire_staging(other.engine) == 0
    home.queue.append(again)
    assert home.until_rest(transfer).state is State.SETTLED
    pair.link.cut = True
    assert expire_staging(other.engine) == 0
    pair.link.cut = False
    assert expire_staging(other.engine) == 1


def test_two_regions_that_stage_the_same_transfer_do_not_overwrite_each_others_copy(pair: Pair) -> None:
    """Their staging buckets replicate to each other: what a fenced home staged last lies beside what the new home delivers."""
    number, home, other = home_of(pair, "sftp-b")
    home.server("s3-a").put("in/large.bin", b"x" * 2000)
    transfer = home.submit("s3-a", "sftp-b", path="in/large.bin", staging=True)
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    other.queue += adopt(other.engine, number)
    for world in (home, other):
        world.deliver_message(world.queue.popleft())
    first, second = (world.ledger.load(transfer.id).staged for world in (home, other))
    assert first is not None
    assert second is not None
    assert first.path != second.path


def test_an_index_that_lags_revives_nothing_that_was_given_up(pair: Pair) -> None:
    """A promoted region's list of open entries may be a moment old: each is read as it stands before it is taken up."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    table = pair.tables[other.engine.ownership.region]
    seen = list(table.journals(number))
    cancel(home.engine, TENANT, transfer.id, "customer")
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    table.journals = lambda number, *, open_only=True: iter(seen)  # type: ignore[method-assign, assignment]
    assert list(adopt(other.engine, number)) == []
    assert other.ledger.rows() == []


# -- what was delivered, and in which order ----------------------------------------------------------------------------


def versions(home: World, *, watch: Callable[[str], None] = lambda _: None) -> tuple[Transfer, Transfer]:
    """Has home deliver the second version of a file before its first, which the bucket shows again once the second is disposed of."""
    server = home.server("s3-a")
    flow = home.flow("s3-a", "sftp-b", conflict="overwrite", disposition="delete")
    first = server.files["in/a.bin"]
    (older,) = home.deliver_message(run_flow(home.engine, flow)[0])
    home.clock.advance(10)
    server.put("in/a.bin", b"newer")
    (newer,) = home.deliver_message(run_flow(home.engine, flow)[0])
    home.server("sftp-b").watch = watch
    home.deliver_message(newer)
    home.server("sftp-b").watch = lambda _: None
    server.files["in/a.bin"] = first
    return home.ledger.load(older.ids[0]), home.ledger.load(newer.ids[0])


@pytest.mark.parametrize("way", ["promote", "hand over", "promote, rejoin"])
def test_an_older_version_does_not_follow_a_newer_one_into_another_region(pair: Pair, way: str) -> None:
    """The next home knows what was delivered where, by the intents that both regions have."""
    number, home, other = home_of(pair, "sftp-b")
    older, _ = versions(home)
    if way == "hand over":
        drain(home.engine, number, ORDER)
        hand_over(home.engine, number, ORDER)
    else:
        promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    if way == "promote, rejoin":
        rejoin(other.engine, number, ORDER)
    work_on(other, number)
    row = other.ledger.load(older.id)
    assert (row.state, row.reason) == (State.DEAD, "superseded")
    assert appeared(home) == 1


def test_a_promoted_region_learns_only_what_may_be_overwritten_and_is_new_to_it(pair: Pair) -> None:
    """However much was delivered before: a flow that overwrites nothing costs nothing, and what is known is not learnt again."""
    number, home, other = home_of(pair, "sftp-b")
    learnt: list[str] = []

    def noting(remember: Callable[..., None]) -> Callable[..., None]:
        def noted(**told: Any) -> None:  # noqa: ANN401 - whatever the port takes
            learnt.append(told["path"])
            remember(**told)

        return noted

    for world in (home, other):
        world.ledger.remember_delivered = noting(world.ledger.remember_delivered)  # type: ignore[method-assign]
    home.until_rest(home.submit("s3-a", "sftp-b"))
    for _ in range(3):
        home.until_rest(home.submit("s3-a", "sftp-b", to="out/b.bin", conflict="overwrite"))
    for here, there in ((home, other), (other, home), (home, other)):
        drain(here.engine, number, ORDER)
        hand_over(here.engine, number, ORDER)
        work_on(there, number)
    assert learnt == ["out/b.bin"] * 2


def test_nothing_begins_in_a_promoted_region_before_it_knows_what_was_delivered(pair: Pair) -> None:
    """What is accepted between the promotion and the region's first chores waits for them."""
    number, home, other = home_of(pair, "sftp-b")
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    transfer = other.submit("s3-a", "sftp-b")
    other.drain()
    assert (other.ledger.load(transfer.id).state, appeared(home)) == (State.ACCEPTED, 0)
    work_on(other, number)
    assert (other.ledger.load(transfer.id).state, appeared(home)) == (State.SETTLED, 1)


def test_an_older_version_waits_for_a_newer_one_that_may_have_been_delivered(pair: Pair) -> None:
    """What the lost home had announced is settled first, by its token; then the older version is superseded."""
    number, home, other = home_of(pair, "sftp-b")
    older, newer = versions(home, watch=refuse_commits)
    assert home.ledger.load(newer.id).state is State.COMMITTING
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    other.queue += [message for message in adopt(other.engine, number) if message.ids == (older.id,)]
    other.deliver_message(other.queue.popleft())
    assert other.ledger.load(older.id).reason == "destination_reserved"
    work_on(other, number)
    assert other.ledger.load(newer.id).state is State.SETTLED
    assert other.ledger.load(older.id).reason == "superseded"
    assert appeared(home) == 1


def test_an_older_version_does_not_follow_what_the_old_home_delivered_alone(pair: Pair) -> None:
    """A rejoin learns of it by the old home's row: no intent of it came over."""
    number, home, other = home_of(pair, "sftp-b")
    pair.link.cut = True
    solo(home.engine, number, ORDER)
    older, _ = versions(home)
    promote(other.engine, number, ORDER, old_home_may_be_solo=True)
    assert list(adopt(other.engine, number)) == []
    pair.link.cut = False
    rejoin(other.engine, number, ORDER)
    work_on(other, number)
    assert other.ledger.load(older.id).reason == "superseded"
    assert appeared(home) == 1


# -- decisions of a person, and both regions ---------------------------------------------------------------------------


def held_before_its_commit(pair: Pair) -> tuple[int, World, World, Transfer]:
    """Returns a transfer that its home holds before it has a token, with the link cut."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    work = take(home.engine, transfer.id)
    work.save(work.transfer.to(State.HELD, now=work.now(), reason="source_changed"))
    home.queue.clear()
    pair.link.cut = True
    return number, home, other, transfer


def test_what_is_accepted_as_delivered_is_not_delivered_after_a_promotion(pair: Pair) -> None:
    """The receiver has it by another way. The home says so only once the peer knows it, which then takes it up no more."""
    number, home, other, transfer = held_before_its_commit(pair)
    with pytest.raises(Transient) as error:
        decide(home.engine, TENANT, transfer.id, Decision.ACCEPT, by="op", why="they have it by mail")
    assert (error.value.reason, home.ledger.load(transfer.id).state) == ("peer_unreachable", State.HELD)
    pair.link.cut = False
    decide(home.engine, TENANT, transfer.id, Decision.ACCEPT, by="op", why="they have it by mail")
    pair.link.cut = True
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    work_on(other, number)
    assert (other.ledger.rows(), appeared(home)) == ([], 0)
    home.ledger._rows.clear()
    pair.link.cut = False
    assert find(other.engine, TENANT, transfer.id).state is State.DELIVERED


def test_a_fenced_home_accepts_nothing_as_delivered(pair: Pair) -> None:
    """The promoted region decides; who asks the old home is told."""
    number, home, other, transfer = held_before_its_commit(pair)
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    pair.link.cut = False
    with pytest.raises(LostOwnership):
        decide(home.engine, TENANT, transfer.id, Decision.ACCEPT, by="op", why="they have it by mail")


def announced_and_held(pair: Pair) -> tuple[int, World, World, Transfer]:
    """Returns a transfer whose token both tables know, held in the promoted region, for the old home may be solo."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    home.server("sftp-b").watch = refuse_commits
    home.deliver_message(home.queue.popleft())
    home.server("sftp-b").watch = lambda _: None
    home.queue.clear()
    pair.link.cut = True
    promote(other.engine, number, ORDER, old_home_may_be_solo=True)
    assert list(adopt(other.engine, number)) == []
    row = other.ledger.load(transfer.id)
    assert (row.state, row.reason, row.held_from) == (State.HELD, "no_evidence", State.COMMITTING)
    return number, home, other, transfer


@pytest.mark.parametrize("decision", list(Decision))
def test_what_is_held_without_evidence_can_be_decided_though_its_token_was_announced(pair: Pair, decision: Decision) -> None:
    """The old token is consumed first: it stands in nobody's way, before the rejoin and after it."""
    number, home, other, transfer = announced_and_held(pair)
    token = other.ledger.load(transfer.id).commit
    assert token is not None
    decided = decide(other.engine, TENANT, transfer.id, decision, by="op", why="they say that nothing came")
    other.queue += next_message(decided)
    state = State.CANCELLED if decision is Decision.ABANDON else State.SETTLED
    assert other.until_rest(transfer).state is state
    assert token.token not in home.server("sftp-b").files
    pair.link.cut = False
    rejoin(other.engine, number, ORDER)
    work_on(other, number)
    assert other.ledger.load(transfer.id).state is state
    assert appeared(home) == (1 if decision is Decision.DELIVER else 0)


def test_what_is_held_without_evidence_goes_on_by_its_token_after_the_rejoin(pair: Pair) -> None:
    """Nobody decided: the rejoin does, and nothing is uploaded again."""
    number, home, other, transfer = announced_and_held(pair)
    pair.link.cut = False
    rejoin(other.engine, number, ORDER)
    work_on(other, number)
    row = other.ledger.load(transfer.id)
    assert (row.state, row.attempt, appeared(home)) == (State.SETTLED, 1, 1)


def test_an_intent_that_cannot_be_read_keeps_no_other_from_being_adopted(pair: Pair) -> None:
    """A later release may have written it."""
    number, home, other = home_of(pair, "sftp-b")
    strange, plain = home.submit("s3-a", "sftp-b"), home.submit("s3-a", "sftp-b", to="out/b.bin")
    table = pair.tables[other.engine.ownership.region]
    table.written[strange.id] = Intent(partition=number, transfer=strange.id, attempt=1, token="t", region_epoch=1, row='{"new": 1}')
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    work_on(other, number)
    assert [row.id for row in other.ledger.rows()] == [plain.id]


def test_a_fenced_home_does_not_go_on_alone_where_its_peer_answers(pair: Pair) -> None:
    """Solo there would deliver what the promoted region delivers; that nobody may order it is checked as far as the peer can be asked."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b", receiver_removes=True)
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    with pytest.raises(Permanent) as error:
        solo(home.engine, number, ORDER)
    assert error.value.reason == "both_home"
    work_on(other, number)
    home.server("sftp-b").files.clear()
    work_on(home, number)
    assert (other.ledger.load(transfer.id).state, appeared(home)) == (State.SETTLED, 1)


def test_what_each_region_takes_for_the_others_is_carried_on(pair: Pair) -> None:
    """A cancellation that broke off let the next home believe that the transfer had ended: what the old one has takes that row's place."""
    number, home, other = home_of(pair, "sftp-b")
    transfer = home.submit("s3-a", "sftp-b")
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    mistaken = transfer.with_(region_epoch=2, elsewhere=home.engine.ownership.region, fence=0, claim_until=None, due_at=None)
    assert other.ledger.adopt(mistaken)
    rejoin(other.engine, number, ORDER)
    assert other.ledger.load(transfer.id).elsewhere is None
    work_on(other, number)
    assert (other.ledger.load(transfer.id).state, appeared(home)) == (State.SETTLED, 1)
