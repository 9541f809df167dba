"""The contract of slots and breakers: the fake and the adapter of DynamoDB keep it alike."""

from __future__ import annotations

from datetime import timedelta

from eft.adapters.aws import AwsSession, StaticKeys
from eft.adapters.limits import DynamoLimits
from eft.domain.breaker import PROBE
from eft.domain.congestion import EASES, WIDENS
from eft.ports import Slots
from tests.contract.rows import LEASE, DynamoRows, Rows, at_once

MILLISECOND = timedelta(milliseconds=1)


def _take(rows: Rows, holder: str, *, limit: int = 2) -> int:
    slots = rows.limits.acquire(f"tenant:{rows.tenant}", limit=limit, holder=holder, lease=LEASE)
    return 0 if slots is None else slots.taken


def _give(rows: Rows, holder: str) -> None:
    rows.limits.release(f"tenant:{rows.tenant}", holder=holder)


def _fail(rows: Rows, times: int = 1) -> None:
    for _ in range(times):
        rows.limits.failed(rows.tenant, reason="unreachable")


# -- slots -------------------------------------------------------------------------------------------------------------


def test_there_are_as_many_slots_as_the_limit_says(rows: Rows) -> None:
    """One more holder gets none, whoever has one may renew it, and another key has slots of its own. Each hears how many are taken."""
    assert [_take(rows, holder) for holder in ("a", "b", "c")] == [1, 2, 0]
    assert _take(rows, "a") == 2
    assert rows.limits.acquire(f"lane:{rows.tenant}", limit=1, holder="c", lease=LEASE)


def test_the_item_of_a_key_that_nobody_uses_goes(dynamo: DynamoRows) -> None:
    """A lane's key is used once: a day after its last lease its item may go, not sooner."""
    for _ in range(2):
        assert dynamo.limits.acquire(f"lane:{dynamo.tenant}", limit=1, holder="a", lease=LEASE)
        dynamo.clock.advance(LEASE)
    expires = int(dynamo.item(f"S#lane:{dynamo.tenant}", "S")["expires"]["N"])
    assert expires == int((dynamo.clock.now() + timedelta(days=1)).timestamp())


def test_of_sixteen_holders_as_many_as_the_limit_get_a_slot(rows: Rows) -> None:
    """However they race for a key that nobody has used yet, never more than the limit have one."""
    taken = at_once(lambda n: bool(_take(rows, f"w{n}", limit=3)))
    assert 1 <= taken.count(True) <= 3
    again = [bool(_take(rows, f"w{n}", limit=3)) for n in range(16)]
    assert again.count(True) == 3
    assert all(now for before, now in zip(taken, again, strict=True) if before)


def test_a_slot_given_back_is_free(rows: Rows) -> None:
    """Only its holder's release frees it; giving back twice, or what one never had, does nothing."""
    assert _take(rows, "a", limit=1)
    _give(rows, "b")
    assert not _take(rows, "b", limit=1)
    _give(rows, "a")
    _give(rows, "a")
    assert _take(rows, "b", limit=1)
    rows.limits.release(f"unused:{rows.tenant}", holder="a")


def test_a_crash_gives_a_slot_back(rows: Rows) -> None:
    """A slot is free once its lease has ended, not before."""
    assert _take(rows, "a", limit=1)
    rows.clock.advance(LEASE)
    assert not _take(rows, "b", limit=1)
    rows.clock.advance(MILLISECOND)
    assert _take(rows, "b", limit=1)
    assert not _take(rows, "a", limit=1)


def test_the_dead_are_not_counted(rows: Rows) -> None:
    """Who asks how many slots are taken hears of the living, also while the others' are not needed yet."""
    assert [_take(rows, holder, limit=9) for holder in ("a", "b", "c")] == [1, 2, 3]
    rows.clock.advance(LEASE + MILLISECOND)
    assert _take(rows, "d", limit=9) == 1


def test_a_renewal_extends_a_slot(rows: Rows) -> None:
    """The lease runs from the last time that the holder asked."""
    assert _take(rows, "a", limit=1)
    rows.clock.advance(LEASE)
    assert _take(rows, "a", limit=1)
    rows.clock.advance(LEASE)
    assert not _take(rows, "b", limit=1)


def test_of_sixteen_successors_one_takes_an_expired_slot(rows: Rows) -> None:
    """An expired lease is replaced once."""
    assert _take(rows, "dead", limit=1)
    rows.clock.advance(LEASE + MILLISECOND)
    assert at_once(lambda n: bool(_take(rows, f"w{n}", limit=1))).count(True) == 1


def test_fewer_are_let_in_once_eased(rows: Rows) -> None:
    """Whoever has a slot keeps and renews it; another one is let in a while after the last change, one each time, up to the limit."""
    assert [_take(rows, holder, limit=5) for holder in ("a", "b", "c", "d")] == [1, 2, 3, 4]
    assert rows.limits.ease(f"tenant:{rows.tenant}", to=2)
    assert not _take(rows, "e", limit=5)
    assert _take(rows, "a", limit=5) == 4
    for holder in ("b", "c", "d"):
        _give(rows, holder)
    assert _take(rows, "e", limit=5) == 2
    assert not _take(rows, "f", limit=5)
    rows.clock.advance(WIDENS)
    assert rows.limits.acquire(f"tenant:{rows.tenant}", limit=5, holder="a", lease=LEASE) == Slots(2, 2)
    assert rows.limits.acquire(f"tenant:{rows.tenant}", limit=5, holder="f", lease=LEASE) == Slots(3, 3)
    assert not _take(rows, "g", limit=5)
    for holder, taken in (("g", 4), ("h", 5), ("i", 0)):
        rows.clock.advance(WIDENS)
        assert _take(rows, "a", limit=5)
        assert _take(rows, holder, limit=5) == taken


def test_whoever_keeps_a_slot_counts_against_the_limit(rows: Rows) -> None:
    """Where all slots are taken nobody is let in beyond them, however long ago fewer were allowed."""
    assert [_take(rows, holder, limit=3) for holder in ("a", "b", "c")] == [1, 2, 3]
    assert rows.limits.ease(f"tenant:{rows.tenant}", to=1)
    for _ in range(3):
        rows.clock.advance(WIDENS)
        assert [_take(rows, holder, limit=3) for holder in ("a", "b", "c", "d")] == [3, 3, 3, 0]


def test_easing_goes_down_by_and_by(rows: Rows) -> None:
    """Not upwards, not twice within a few seconds, and not where nobody ever had a slot; the only slot cannot be fewer."""
    key = f"tenant:{rows.tenant}"
    assert not rows.limits.ease(key, to=3)
    _take(rows, "a", limit=9)
    assert rows.limits.ease(key, to=4)
    assert not rows.limits.ease(key, to=2)
    rows.clock.advance(EASES + MILLISECOND)
    assert not rows.limits.ease(key, to=4)
    assert rows.limits.ease(key, to=2)
    assert _take(rows, "b", limit=9) == 2
    assert not _take(rows, "c", limit=9)
    assert not _take(rows, "c", limit=1)


def test_of_sixteen_that_wait_one_is_let_in_beyond_what_is_allowed(rows: Rows) -> None:
    """However they race for it."""
    _take(rows, "a", limit=9)
    assert rows.limits.ease(f"tenant:{rows.tenant}", to=1)
    rows.clock.advance(WIDENS)
    assert at_once(lambda n: bool(_take(rows, f"w{n}", limit=9))).count(True) == 1


def test_a_lowered_limit_holds(rows: Rows) -> None:
    """Holders keep and renew their slots, newcomers wait until there are fewer than the new limit."""
    for holder in ("a", "b", "c"):
        assert _take(rows, holder, limit=3)
    assert not _take(rows, "d", limit=1)
    assert _take(rows, "a", limit=1) == 3
    for holder in ("a", "b"):
        _give(rows, holder)
    assert not _take(rows, "d", limit=1)
    _give(rows, "c")
    assert _take(rows, "d", limit=1)


def test_expired_slots_do_not_count_against_a_lowered_limit(rows: Rows) -> None:
    """All that have run out go at once."""
    for n in range(12):
        assert _take(rows, f"dead{n}", limit=12)
    rows.clock.advance(LEASE + MILLISECOND)
    assert _take(rows, "a", limit=1)
    assert not _take(rows, "b", limit=1)


# -- breakers ----------------------------------------------------------------------------------------------------------


def test_the_fifth_failure_in_a_row_opens_a_breaker(rows: Rows) -> None:
    """Four leave it closed; a success in between begins the row anew."""
    _fail(rows, 4)
    assert rows.limits.shut_until(rows.tenant) is None
    rows.limits.succeeded(rows.tenant)
    _fail(rows, 4)
    assert rows.limits.shut_until(rows.tenant) is None
    _fail(rows)
    assert rows.limits.shut_until(rows.tenant) == rows.clock.now() + timedelta(seconds=15)
    assert rows.limits.shut_until(f"{rows.tenant}-other") is None


def test_failures_at_once_all_count(rows: Rows) -> None:
    """Five workers that fail together open the breaker."""
    at_once(lambda _: _fail(rows), threads=5)
    assert rows.limits.shut_until(rows.tenant) is not None


def test_one_caller_probes_an_endpoint_that_was_shut(rows: Rows) -> None:
    """When the pause has passed one of sixteen goes through; the others wait for its outcome."""
    _fail(rows, 5)
    rows.clock.advance(15)
    answers = at_once(lambda _: rows.limits.shut_until(rows.tenant))
    assert answers.count(None) == 1
    assert set(answers) == {None, rows.clock.now() + PROBE}


def test_a_probe_that_never_ends_is_followed_by_another(rows: Rows) -> None:
    """A prober that died does not keep the endpoint shut."""
    _fail(rows, 5)
    rows.clock.advance(15)
    assert rows.limits.shut_until(rows.tenant) is None
    rows.clock.advance(PROBE)
    assert rows.limits.shut_until(rows.tenant) is None
    assert rows.limits.shut_until(rows.tenant) is not None


def test_each_failed_probe_doubles_the_pause_up_to_five_minutes(rows: Rows) -> None:
    """15 s, 30 s, … 300 s, 300 s."""
    _fail(rows, 5)
    pauses = []
    for _ in range(7):
        until = rows.limits.shut_until(rows.tenant)
        assert until is not None
        pauses.append((until - rows.clock.now()).total_seconds())
        rows.clock.advance(until - rows.clock.now())
        assert rows.limits.shut_until(rows.tenant) is None
        _fail(rows)
    assert pauses == [15, 30, 60, 120, 240, 300, 300]


def test_failures_under_way_when_it_opened_do_not_lengthen_the_pause(rows: Rows) -> None:
    """Ten more failures during the pause leave its end where it was."""
    _fail(rows, 5)
    until = rows.limits.shut_until(rows.tenant)
    rows.clock.advance(5)
    _fail(rows, 10)
    assert rows.limits.shut_until(rows.tenant) == until


def test_a_probe_that_learns_nothing_is_given_back(rows: Rows) -> None:
    """The next caller probes at once, and one alone; where nobody probes, nothing changes."""
    rows.limits.inconclusive(rows.tenant)
    _fail(rows, 5)
    shut = rows.limits.shut_until(rows.tenant)
    rows.limits.inconclusive(rows.tenant)
    assert rows.limits.shut_until(rows.tenant) == shut
    rows.clock.advance(15)
    assert rows.limits.shut_until(rows.tenant) is None
    rows.limits.inconclusive(rows.tenant)
    assert [rows.limits.shut_until(rows.tenant) for _ in range(2)] == [None, rows.clock.now() + PROBE]


def test_a_success_closes_a_breaker_for_good(rows: Rows) -> None:
    """After a successful probe it takes five failures again, and the first pause is the short one."""
    _fail(rows, 5)
    rows.clock.advance(15)
    assert rows.limits.shut_until(rows.tenant) is None
    rows.limits.succeeded(rows.tenant)
    assert rows.limits.shut_until(rows.tenant) is None
    _fail(rows, 4)
    assert rows.limits.shut_until(rows.tenant) is None
    _fail(rows)
    assert rows.limits.shut_until(rows.tenant) == rows.clock.now() + timedelta(seconds=15)


def test_success_on_a_closed_breaker_changes_nothing(rows: Rows) -> None:
    """Once or often."""
    for _ in range(3):
        rows.limits.succeeded(rows.tenant)
    assert rows.limits.shut_until(rows.tenant) is None


# -- the adapter's requests --------------------------------------------------------------------------------------------


def test_slots_cost_one_request_each_way(dynamo: DynamoRows) -> None:
    """To take, to renew, to be refused and to give back; the first of several slots costs two."""
    with dynamo.counted() as sent:
        _take(dynamo, "a", limit=2)
    assert sent == {"UpdateItem": 2}
    with dynamo.counted() as sent:
        _take(dynamo, "b", limit=2)
        _take(dynamo, "b", limit=2)
        _take(dynamo, "c", limit=2)
        _give(dynamo, "b")
    assert sent == {"UpdateItem": 4}


def test_the_only_slot_costs_one_request_each_way(dynamo: DynamoRows) -> None:
    """A lane's key is new most often, and given back to be taken again."""
    with dynamo.counted() as sent:
        for holder in ("a", "b"):
            assert _take(dynamo, holder, limit=1)
            assert _take(dynamo, holder, limit=1)
            assert not _take(dynamo, "c", limit=1)
            _give(dynamo, holder)
    assert sent == {"UpdateItem": 8}


def test_a_closed_breaker_costs_one_read(dynamo: DynamoRows) -> None:
    """Asking costs a read, and the success that follows it nothing at all."""
    with dynamo.counted() as sent:
        dynamo.limits.shut_until(dynamo.tenant)
        dynamo.limits.succeeded(dynamo.tenant)
    assert sent == {"GetItem": 1}
    with dynamo.counted() as sent:
        dynamo.limits.succeeded(dynamo.tenant)
    assert sent == {"GetItem": 1}


def test_a_failure_costs_a_read_and_a_write(dynamo: DynamoRows) -> None:
    """So does the success that ends a row of failures, though this process had seen the breaker closed before."""
    dynamo.limits.shut_until(dynamo.tenant)
    with dynamo.counted() as sent:
        _fail(dynamo)
        dynamo.limits.succeeded(dynamo.tenant)
    assert sent == {"GetItem": 2, "PutItem": 1, "DeleteItem": 1}


def test_a_slot_taken_is_taken_though_the_answer_was_lost(dynamo: DynamoRows) -> None:
    """The request that the SDK repeats finds the holder's own slot and renews it."""
    _take(dynamo, "a", limit=2)
    with dynamo.losing_answers("UpdateItem"):
        assert _take(dynamo, "b", limit=2)
    assert not _take(dynamo, "c", limit=2)


def test_a_breaker_that_never_stands_still_lets_nobody_through(moto_rows: DynamoRows) -> None:
    """Callers that find the item changed at each write give up: one waits, a count and a close are left to the others."""
    _fail(moto_rows, 5)
    moto_rows.clock.advance(15)
    with moto_rows.interfering(pk=f"B#{moto_rows.tenant}", sk="B", attribute="version"):
        assert moto_rows.limits.shut_until(moto_rows.tenant) == moto_rows.clock.now()
        _fail(moto_rows)
        moto_rows.limits.succeeded(moto_rows.tenant)
    assert int(moto_rows.item(f"B#{moto_rows.tenant}", "B")["failures"]["N"]) == 5


def test_a_first_failure_does_not_hide_another(moto_rows: DynamoRows) -> None:
    """Two processes that both found the breaker without a count: the later one counts on from the earlier."""
    keys = StaticKeys("testing", "testing")
    session = AwsSession(region=moto_rows.session.region, keys=keys)
    other = DynamoLimits(session, table=moto_rows.ledger_table, clock=moto_rows.clock)
    events = moto_rows.session.dynamodb().meta.events

    def fail_first(**_: object) -> None:
        events.unregister("before-send.dynamodb.PutItem", fail_first)
        other.failed(moto_rows.tenant, reason="unreachable")

    events.register("before-send.dynamodb.PutItem", fail_first)
    _fail(moto_rows)
    assert moto_rows.item(f"B#{moto_rows.tenant}", "B")["failures"] == {"N": "2"}


def test_a_slot_that_cannot_be_settled_is_not_given(moto_rows: DynamoRows) -> None:
    """Where others change a key's expired slots at each try, the answer is no."""
    _take(moto_rows, "dead", limit=1)
    moto_rows.clock.advance(LEASE + timedelta(seconds=1))
    with moto_rows.interfering(pk=f"S#tenant:{moto_rows.tenant}", sk="S", attribute="slots.dead"):
        assert not _take(moto_rows, "a", limit=1)
    assert _take(moto_rows, "a", limit=1)
