"""The contract of a region's ownership table: the fake and the adapter of DynamoDB keep it alike, at home and over the link."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from deploy.local.provision import make_table
from deploy.resources import TABLES
from eft.adapters.ownership_table import DynamoOwnershipTable
from eft.adapters.table import Link
from eft.domain.names import transfer_id
from eft.domain.ownership import Intent, IntentAnswer, JournalEntry, Mode, Partition, PeerLoss, Phase, Proposal
from eft.errors import Permanent
from eft.ports import Lease, OwnershipTable
from tests.contract.rows import DynamoRows, at_once
from tests.fake_regions import EAST, WEST, FakeOwnershipTable
from tests.fakes import START, FakeClock
from tests.servers import Aws

NUMBER = 3
FIRST = Partition(number=NUMBER, home=WEST, region_epoch=5)
SECOND = timedelta(seconds=1)


@pytest.fixture(params=["fake", "moto", "moto over the link", "ministack"])
def table(request: pytest.FixtureRequest) -> OwnershipTable:
    """Each implementation in turn, with one partition, at home in the west under region_epoch 5."""
    made: OwnershipTable
    if request.param == "fake":
        made = FakeOwnershipTable()
    elif request.param == "ministack":
        rows: DynamoRows = request.getfixturevalue("ministack_rows")
        aws: Aws = request.getfixturevalue("aws")
        (spec,) = (each for each in TABLES if each.suffix == "ownership")
        made = DynamoOwnershipTable(rows.session, table=make_table(aws.dynamodb, spec, f"{rows.tenant}-"))
    else:
        rows = request.getfixturevalue("moto_rows")
        link = Link(FakeClock()) if "link" in request.param else None
        made = DynamoOwnershipTable(rows.session, table=rows.ownership_table, link=link)
    made.add(FIRST)
    return made


def id_of(number: int, *, partition: int = NUMBER) -> str:
    """Returns a transfer's id in a partition."""
    return transfer_id("acme", str(number), partition=partition)


def intent(number: int = 1, **fields: Any) -> Intent:  # noqa: ANN401 - any field of the model
    """Returns an intent of the partition's present home."""
    values = {"partition": NUMBER, "transfer": id_of(number), "attempt": 1, "token": "token-1", "region_epoch": 5, "row": '{"a": "☃"}'}
    return Intent.model_validate(values | fields)


def entry(number: int = 1, **fields: Any) -> JournalEntry:  # noqa: ANN401 - any field of the model
    """Returns a journal entry."""
    values = {"partition": NUMBER, "transfer": id_of(number), "row": '{"path": "in/Zürich.csv"}'}
    return JournalEntry.model_validate(values | fields)


# -- partitions --------------------------------------------------------------------------------------------------------


def test_partitions_come_by_number_as_they_were_put(table: OwnershipTable) -> None:
    """Put once: a second time nothing happens, for the first may have been changed since."""
    others = [Partition(number=n, home=EAST, region_epoch=1) for n in (40, 0, 7)]
    for other in others:
        table.add(other)
    table.add(FIRST.model_copy(update={"home": EAST, "region_epoch": 1}))
    assert list(table.partitions()) == [others[1], FIRST, others[2], others[0]]
    assert table.partition(NUMBER) == FIRST


def test_a_partition_that_was_never_set_up_is_an_error(table: OwnershipTable) -> None:
    """Nobody takes an empty table for one in which nobody is home; a change of it creates nothing."""
    with pytest.raises(Permanent) as unknown:
        table.partition(9)
    assert unknown.value.reason == "partition_unknown"
    nowhere = FIRST.model_copy(update={"number": 9})
    assert not table.change(nowhere.model_copy(update={"mode": Mode.SOLO}), seen=nowhere)
    assert list(table.partitions()) == [FIRST]


def test_a_change_writes_who_why_and_when(table: OwnershipTable) -> None:
    """Every field comes back; the next change does not depend on who made the last."""
    by: dict[str, object] = {"changed_by": "ann", "why": "Störung", "ticket": "INC-1", "changed_at": START}
    changed = FIRST.model_copy(
        update={"home": EAST, "region_epoch": 6, "mode": Mode.SOLO, "phase": Phase.DRAINING, "evidence": False, **by}
    )
    assert table.change(changed, seen=FIRST)
    assert table.partition(NUMBER) == changed
    seen = changed.model_copy(update={"changed_by": "bob", "changed_at": None})
    assert table.change(FIRST, seen=seen)
    assert table.partition(NUMBER) == FIRST


@pytest.mark.parametrize(
    "outdated", [{"home": EAST}, {"region_epoch": 4}, {"mode": Mode.SOLO}, {"phase": Phase.DRAINING}, {"evidence": False}]
)
def test_a_change_of_what_stands_no_longer_so_is_refused(table: OwnershipTable, outdated: dict[str, object]) -> None:
    """Each of home, region_epoch, mode, phase and evidence is a condition."""
    new = FIRST.model_copy(update={"region_epoch": 6, "changed_by": "ann"})
    assert not table.change(new, seen=FIRST.model_copy(update=outdated))
    assert table.partition(NUMBER) == FIRST


def test_a_change_made_again_counts_as_made(table: OwnershipTable) -> None:
    """Who repeats his own change is told that it stands; another's that looks like it in all but name is refused."""
    new = FIRST.model_copy(update={"region_epoch": 6, "changed_by": "ann", "changed_at": START})
    assert table.change(new, seen=FIRST)
    assert table.change(new, seen=FIRST)
    assert not table.change(new.model_copy(update={"changed_at": START + SECOND}), seen=FIRST)


def test_of_sixteen_changes_at_once_one_is_made(table: OwnershipTable) -> None:
    """Operators who saw the same partition: one promotes it, under one region_epoch."""
    news = [FIRST.model_copy(update={"region_epoch": 6, "changed_by": f"operator-{n}"}) for n in range(16)]
    made = at_once(lambda n: table.change(news[n], seen=FIRST))
    assert made.count(True) == 1
    assert table.partition(NUMBER) == news[made.index(True)]


# -- intents -----------------------------------------------------------------------------------------------------------


def test_an_intent_comes_back_as_it_was(table: OwnershipTable) -> None:
    """By its transfer and by its partition; another's has none."""
    one, two = intent(1), intent(2, attempt=7, abandoned=True)
    assert table.intend(one, home=WEST, mode=Mode.DUAL) is IntentAnswer.ACKED
    assert table.intend(two, home=WEST, mode=None) is IntentAnswer.ACKED
    assert (table.intent(one.transfer), table.intent(two.transfer), table.intent(id_of(3))) == (one, two, None)
    assert sorted(table.intents(NUMBER), key=lambda each: each.attempt) == [one, two]
    assert list(table.intents(NUMBER + 1)) == []


@pytest.mark.parametrize("abandoned", [False, True])
@pytest.mark.parametrize(
    ("region_epoch", "home", "mode"),
    [
        (5, EAST, None),
        (4, WEST, None),
        (4, WEST, Mode.DUAL),
        (6, WEST, Mode.DUAL),
        (5, WEST, Mode.SOLO),
        (5, EAST, Mode.DUAL),
    ],
)
def test_an_intent_of_another_home_era_or_mode_is_fenced(
    table: OwnershipTable, region_epoch: int, home: str, mode: Mode | None, *, abandoned: bool
) -> None:
    """Nothing is written, be it a commit's or an abandonment's."""
    asked = intent(region_epoch=region_epoch, abandoned=abandoned)
    assert table.intend(asked, home=home, mode=mode) is IntentAnswer.FENCED
    assert table.intent(asked.transfer) is None


def test_a_peer_that_is_behind_acknowledges_a_later_era(table: OwnershipTable) -> None:
    """Its gate is a least region_epoch: the home's own table decides the rest."""
    assert table.intend(intent(region_epoch=6), home=WEST, mode=None) is IntentAnswer.ACKED


def test_an_intent_in_a_partition_that_was_never_set_up_is_fenced(table: OwnershipTable) -> None:
    """A table that knows no home acknowledges nobody."""
    asked = intent(partition=9, transfer=id_of(1, partition=9))
    assert table.intend(asked, home=WEST, mode=None) is IntentAnswer.FENCED
    assert list(table.intents(9)) == []


def test_the_same_token_is_acknowledged_as_often_as_asked(table: OwnershipTable) -> None:
    """Recovery repeats D5 with what it adds to the row."""
    table.intend(intent(), home=WEST, mode=None)
    again = intent(row="{}", region_epoch=6)
    assert table.intend(again, home=WEST, mode=None) is IntentAnswer.ACKED
    assert table.intent(again.transfer) == again


@pytest.mark.parametrize("attempt", [1, 2])
def test_another_token_is_refused_while_the_first_is_not_abandoned(table: OwnershipTable, attempt: int) -> None:
    """However late its attempt: the first one may have been committed."""
    first = intent()
    table.intend(first, home=WEST, mode=None)
    assert table.intend(intent(attempt=attempt, token="token-2"), home=WEST, mode=None) is IntentAnswer.OTHER_TOKEN
    assert table.intent(first.transfer) == first


def test_only_a_later_attempt_follows_an_abandoned_one(table: OwnershipTable) -> None:
    """The same attempt or an earlier one under another token is a straggler's."""
    abandoned = intent(attempt=2, abandoned=True)
    table.intend(abandoned, home=WEST, mode=None)
    for attempt in (1, 2):
        assert table.intend(intent(attempt=attempt, token="token-2"), home=WEST, mode=None) is IntentAnswer.OTHER_TOKEN
    assert table.intent(abandoned.transfer) == abandoned
    later = intent(attempt=3, token="token-2")
    assert table.intend(later, home=WEST, mode=None) is IntentAnswer.ACKED
    assert table.intent(later.transfer) == later


def test_being_fenced_outweighs_a_strange_token(table: OwnershipTable) -> None:
    """A region that lost the partition learns that, rather than holding what another region carries on."""
    table.intend(intent(), home=WEST, mode=None)
    assert table.intend(intent(token="token-2"), home=EAST, mode=None) is IntentAnswer.FENCED


def test_of_sixteen_tokens_at_once_one_is_acknowledged(table: OwnershipTable) -> None:
    """Attempts that know nothing of each other: one may be committed."""
    answers = at_once(lambda n: table.intend(intent(attempt=n, token=f"token-{n}"), home=WEST, mode=None))
    assert answers.count(IntentAnswer.ACKED) == 1
    assert answers.count(IntentAnswer.OTHER_TOKEN) == 15
    stands = table.intent(id_of(1))
    assert stands is not None
    assert stands.attempt == answers.index(IntentAnswer.ACKED)


def test_an_intent_is_acknowledged_before_a_promotion_or_not_at_all(table: OwnershipTable) -> None:
    """While intents of sixteen transfers arrive the gate rises: what was acknowledged is there, all else is fenced from then on."""
    promoted = FIRST.model_copy(update={"home": EAST, "region_epoch": 6, "mode": Mode.SOLO})

    def act(number: int) -> IntentAnswer | bool:
        if number == 7:
            return table.change(promoted, seen=FIRST)
        return table.intend(intent(number), home=WEST, mode=None)

    answers = at_once(act)
    assert answers[7] is True
    acked = {id_of(n) for n, answer in enumerate(answers) if answer is IntentAnswer.ACKED}
    assert {each.transfer for each in table.intents(NUMBER)} == acked
    assert table.intend(intent(99), home=WEST, mode=None) is IntentAnswer.FENCED


# -- journals ----------------------------------------------------------------------------------------------------------


def test_an_entry_is_put_once(table: OwnershipTable) -> None:
    """The second one to put it gets what stands there."""
    first = entry()
    assert table.journal(first) is None
    assert table.journal(entry(row="{}")) == first
    assert table.journal(first) == first
    assert table.journal_entry(first.transfer) == first
    assert table.journal_entry(id_of(2)) is None


def test_of_sixteen_equal_entries_at_once_one_is_put(table: OwnershipTable) -> None:
    """One accepter is told that it was the first, the others get its entry."""
    one = entry()
    answers = at_once(lambda _: table.journal(entry()))
    assert answers.count(None) == 1
    assert answers.count(one) == 15


def test_a_closed_entry_stays_but_is_not_among_the_open(table: OwnershipTable) -> None:
    """It is known for good, for its source may still show the file; a partition's new home need not look at it."""
    entries = [entry(n) for n in range(3)]
    for one in [*entries, entry(9, partition=NUMBER + 1, transfer=id_of(9, partition=NUMBER + 1))]:
        table.journal(one)
    for _ in range(2):
        table.close_journal(entries[1].transfer)
    closed = entries[1].model_copy(update={"closed": True})
    assert {one.transfer for one in table.journals(NUMBER)} == {entries[0].transfer, entries[2].transfer}
    assert {one.transfer: one for one in table.journals(NUMBER, open_only=False)} == {
        one.transfer: one for one in (entries[0], closed, entries[2])
    }
    assert table.journal(entries[1]) == closed
    assert table.journalled([closed.transfer]) == {closed.transfer}


def test_an_entry_that_is_put_closed_is_not_among_the_open(table: OwnershipTable) -> None:
    """So a rejoin copies it."""
    closed = entry(closed=True)
    assert table.journal(closed) is None
    assert list(table.journals(NUMBER)) == []
    assert list(table.journals(NUMBER, open_only=False)) == [closed]


def test_closing_what_was_never_journalled_writes_nothing(table: OwnershipTable) -> None:
    """No phantom entry makes a file look known."""
    table.close_journal(id_of(1))
    assert table.journal_entry(id_of(1)) is None
    assert table.journalled([id_of(1)]) == set()


def test_what_is_given_up_is_closed_whatever_stood_there(table: OwnershipTable) -> None:
    """Journalled before or not; asked again it stays so."""
    table.journal(entry(1))
    for number in (1, 2, 1):
        assert table.renounce(entry(number, row="{}"), home=WEST, region_epoch=5, mode=Mode.DUAL)
        assert table.journal_entry(id_of(number)) == entry(number, row="{}", closed=True)
    assert list(table.journals(NUMBER)) == []


@pytest.mark.parametrize(
    ("region_epoch", "home", "mode"), [(4, WEST, None), (6, WEST, Mode.DUAL), (5, EAST, None), (5, WEST, Mode.SOLO), (4, WEST, Mode.DUAL)]
)
def test_another_home_era_or_mode_gives_nothing_up(table: OwnershipTable, region_epoch: int, home: str, mode: Mode | None) -> None:
    """The conditions are those of an intent; the entry stays open."""
    table.journal(entry())
    assert not table.renounce(entry(), home=home, region_epoch=region_epoch, mode=mode)
    assert list(table.journals(NUMBER)) == [entry()]


def test_a_peer_that_is_behind_lets_a_later_era_give_up(table: OwnershipTable) -> None:
    """Its gate is a least region_epoch."""
    assert table.renounce(entry(), home=WEST, region_epoch=6, mode=None)


def test_journalled_ids_are_those_with_an_entry(table: OwnershipTable) -> None:
    """More ids than one request takes, of several partitions, some of them twice."""
    have = [entry(n) for n in range(3)] + [entry(7, partition=8, transfer=id_of(7, partition=8))]
    for one in have:
        table.journal(one)
    asked = [id_of(n) for n in range(230)] + [one.transfer for one in have]
    assert table.journalled(asked) == {one.transfer for one in have}
    assert table.journalled([]) == set()


# -- proposals ---------------------------------------------------------------------------------------------------------


def test_a_proposal_stays_as_it_was_put(table: OwnershipTable) -> None:
    """What the second operator confirms is what the first proposed."""
    proposal = Proposal(id="p1", action="promote", partition=NUMBER, by="ann", why="outage", ticket="INC-1", expires=START)
    table.propose(proposal)
    table.propose(proposal.model_copy(update={"by": "bob", "old_home_may_be_solo": True}))
    assert table.proposal("p1") == proposal
    assert table.proposal("p2") is None


# -- leases ------------------------------------------------------------------------------------------------------------


def test_a_lease_is_taken_from_nobody_or_from_the_one_seen(table: OwnershipTable) -> None:
    """Each taking raises the lease_epoch; who saw another lease than the one that stands takes nothing."""
    first = table.lease(NUMBER, owner="a", seen=None)
    assert first == Lease(owner="a", lease_epoch=1, rvn=1)
    assert table.lease(NUMBER, owner="b", seen=None) is None
    for outdated in (replace(first, owner="c"), replace(first, lease_epoch=9), replace(first, rvn=9)):
        assert table.lease(NUMBER, owner="b", seen=outdated) is None
    assert table.leases() == {NUMBER: first}
    second = table.lease(NUMBER, owner="b", seen=first)
    assert second == Lease(owner="b", lease_epoch=2, rvn=2)
    assert table.lease(7, owner="a", seen=None) is not None
    assert table.leases() == {NUMBER: second, 7: first}


def test_a_lease_that_nobody_has_is_not_taken_from_somebody(table: OwnershipTable) -> None:
    """A lease that was seen and is gone is refused."""
    assert table.lease(NUMBER, owner="a", seen=Lease(owner="b", lease_epoch=1, rvn=1)) is None
    assert table.leases() == {}


def test_a_renewal_is_its_owners_under_its_lease_epoch(table: OwnershipTable) -> None:
    """It raises rvn, and nothing for anybody else; a waiter that saw the lease before it does not take over."""
    first = table.lease(NUMBER, owner="a", seen=None)
    assert first is not None
    assert table.renew_lease(NUMBER, owner="a", lease_epoch=1)
    renewed = replace(first, rvn=2)
    assert not table.renew_lease(NUMBER, owner="b", lease_epoch=1)
    assert not table.renew_lease(NUMBER, owner="a", lease_epoch=2)
    assert not table.renew_lease(9, owner="a", lease_epoch=1)
    assert table.leases() == {NUMBER: renewed}
    assert table.lease(NUMBER, owner="b", seen=first) is None
    assert table.lease(NUMBER, owner="b", seen=renewed) == Lease(owner="b", lease_epoch=2, rvn=3)
    assert not table.renew_lease(NUMBER, owner="a", lease_epoch=1)


def test_of_sixteen_waiters_one_takes_over(table: OwnershipTable) -> None:
    """Waiters who saw the same lease stand still: the chores are one process's."""
    stands = table.lease(NUMBER, owner="gone", seen=None)
    taken = at_once(lambda n: table.lease(NUMBER, owner=f"w{n}", seen=stands))
    (lease,) = [one for one in taken if one is not None]
    assert table.leases() == {NUMBER: lease}
    assert lease.lease_epoch == 2


def test_the_last_policy_declared_stands(table: OwnershipTable) -> None:
    """Nobody declared: a person acts. Declaring the same again changes nothing."""
    assert table.declared() is PeerLoss.OPERATOR
    for policy in (PeerLoss.HOME_SOLOS, PeerLoss.HOME_SOLOS, PeerLoss.PEER_PROMOTES):
        table.declare(policy)
        assert table.declared() is policy
