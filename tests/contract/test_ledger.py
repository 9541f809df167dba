"""The ledger's contract: the fake and the adapter of DynamoDB keep it alike."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest

from eft.domain.names import RemotePath
from eft.domain.parts import PartDone
from eft.domain.transfer import Claim, Commit, State, Transfer
from eft.errors import LostOwnership, NotFound, Permanent
from eft.ports import Due
from tests.contract.rows import LEASE, Rows, at_once, upload

PATH = RemotePath("out/report.csv")
FIRST = Claim(0, 1)
SECOND = timedelta(seconds=1)
MILLISECOND = timedelta(milliseconds=1)


# -- create, load, known -----------------------------------------------------------------------------------------------


def test_a_created_transfer_is_loaded_as_it_was(rows: Rows) -> None:
    """A row gives back every field, whatever its kind."""
    rich = rows.transfer(
        flow="daily",
        upload=upload(),
        abandoned=(upload(2), upload(3)),
        checksum="sha256:00",
        commit=Commit(
            attempt=1,
            token="token-1",
            path=PATH,
            overwrite=True,
            rename="posix",
            parts=(PartDone(number=1, size=9, crc64nvme=None), PartDone(number=2, size=0, crc64nvme=2**64 - 1, etag="e")),
            size=9,
            checksum="sha256:00",
            region_epoch=1,
        ),
    ).noted(now=rows.clock.now(), error="Zeitüberschreitung ☃", by="w1")
    assert rows.ledger.create(rich) is None
    assert rows.ledger.load(rich.id) == rich


def test_a_transfer_is_created_once(rows: Rows) -> None:
    """The second creator gets the row that stands there, and changes nothing."""
    first = rows.created(flow="daily")
    assert rows.ledger.create(first.with_(flow="weekly")) == first
    assert rows.ledger.load(first.id) == first


def test_of_sixteen_creators_one_creates(rows: Rows) -> None:
    """Creators of the very same row at the same moment: one is told that it created it."""
    transfer = rows.transfer()
    answers = at_once(lambda _: rows.ledger.create(transfer))
    assert answers.count(None) == 1
    assert answers.count(transfer) == 15


def test_an_unknown_transfer_is_said_to_be_unknown(rows: Rows) -> None:
    """Loading and claiming name the reason."""
    with pytest.raises(NotFound) as loading:
        rows.ledger.load("nobody")
    with pytest.raises(NotFound) as claiming:
        rows.ledger.claim("nobody", worker="w1", now=rows.clock.now(), lease=LEASE)
    assert loading.value.reason == claiming.value.reason == "transfer_unknown"


def test_claiming_an_unknown_transfer_creates_nothing(rows: Rows) -> None:
    """Neither a claim nor a forced one leaves a phantom row."""
    for force in (False, True):
        with pytest.raises(NotFound):
            rows.ledger.claim("nobody", worker="w1", now=rows.clock.now(), lease=LEASE, force=force)
    assert rows.ledger.known(["nobody"]) == set()


def test_known_ids_are_those_with_a_row(rows: Rows) -> None:
    """More ids than one request takes, some twice, some without a row."""
    have = [rows.created(n).id for n in range(3)]
    asked = [rows.transfer(n).id for n in range(250)] + have
    assert rows.ledger.known(asked) == set(have)
    assert rows.ledger.known([]) == set()


# -- claim, renew, save ------------------------------------------------------------------------------------------------


def test_a_claim_raises_the_fence_and_the_times(rows: Rows) -> None:
    """A claim gives the whole row with fence + 1, claimed until the lease ends, and due then."""
    transfer = rows.created()
    until = rows.clock.now() + LEASE
    claimed = rows.claimed(transfer)
    assert claimed == transfer.with_(fence=1, claim_until=until, due_at=until)
    assert rows.ledger.load(transfer.id) == claimed


def test_a_live_claim_refuses_another_worker(rows: Rows) -> None:
    """Until the lease has ended, another worker gets None and the fence stays."""
    transfer = rows.created()
    rows.claimed(transfer)
    rows.clock.advance(LEASE)
    assert rows.ledger.claim(transfer.id, worker="w2", now=rows.clock.now(), lease=LEASE) is None
    assert rows.ledger.load(transfer.id).fence == 1


def test_an_expired_claim_is_taken_over(rows: Rows) -> None:
    """Once the lease has ended, another worker has the transfer and the first one's fence is stale."""
    transfer = rows.created()
    rows.claimed(transfer)
    rows.clock.advance(LEASE + MILLISECOND)
    assert rows.claimed(transfer, worker="w2").fence == 2


def test_a_worker_claims_again_what_it_holds(rows: Rows) -> None:
    """A worker's own live claim is no obstacle to it."""
    transfer = rows.created()
    rows.claimed(transfer)
    assert rows.claimed(transfer).fence == 2


def test_force_takes_a_live_claim(rows: Rows) -> None:
    """An operator's claim does not wait for the lease."""
    transfer = rows.created()
    rows.claimed(transfer)
    assert rows.claimed(transfer, worker="operator", force=True).fence == 2


def test_of_sixteen_claimers_one_wins(rows: Rows) -> None:
    """Workers claiming at the same moment: one has the transfer, the fence rose once."""
    transfer = rows.created()
    now = rows.clock.now()
    answers = at_once(lambda n: rows.ledger.claim(transfer.id, worker=f"w{n}", now=now, lease=LEASE))
    assert [answer.fence for answer in answers if answer is not None] == [1]
    assert rows.ledger.load(transfer.id).fence == 1


def test_forced_claims_at_once_get_different_fences(rows: Rows) -> None:
    """No two claims ever share a fence."""
    transfer = rows.created()
    fences = at_once(lambda n: rows.claimed(transfer, worker=f"w{n}", force=True).fence)
    assert sorted(fences) == list(range(1, 17))


def test_a_saved_row_is_loaded_as_it_was(rows: Rows) -> None:
    """A save replaces every field, and takes away those that are None again."""
    claimed = rows.claimed(rows.created(upload=upload()))
    changed = claimed.to(State.DELIVERING, now=rows.clock.now()).with_(upload=None, attempt=2)
    rows.ledger.save(changed, was=State.ACCEPTED)
    assert rows.ledger.load(claimed.id) == changed


def test_a_stale_fence_saves_nothing(rows: Rows) -> None:
    """A worker that was overtaken cannot write, though the state is the one it knows."""
    transfer = rows.created()
    stale = rows.claimed(transfer)
    rows.clock.advance(LEASE + SECOND)
    current = rows.claimed(transfer, worker="w2")
    with pytest.raises(LostOwnership):
        rows.ledger.save(stale.with_(attempt=9), was=State.ACCEPTED)
    assert rows.ledger.load(transfer.id) == current


def test_a_state_that_moved_on_saves_nothing(rows: Rows) -> None:
    """The right fence with the wrong former state is refused."""
    claimed = rows.claimed(rows.created())
    moved = rows.moved(claimed, State.DELIVERING)
    with pytest.raises(LostOwnership):
        rows.ledger.save(claimed.with_(attempt=9), was=State.ACCEPTED)
    assert rows.ledger.load(claimed.id) == moved


def test_saving_an_unknown_transfer_creates_nothing(rows: Rows) -> None:
    """A save of a transfer without a row is refused."""
    transfer = rows.transfer()
    with pytest.raises(LostOwnership):
        rows.ledger.save(transfer, was=State.ACCEPTED)
    assert rows.ledger.known([transfer.id]) == set()


def test_of_sixteen_savers_with_one_fence_one_moves_the_state(rows: Rows) -> None:
    """Threads of one claim that all move the state differently: one of them is written."""
    claimed = rows.claimed(rows.created())

    def save(number: int) -> bool:
        changed = claimed.with_(attempt=number + 1).to(State.DELIVERING, now=rows.clock.now())
        try:
            rows.ledger.save(changed, was=State.ACCEPTED)
        except LostOwnership:
            return False
        return True

    saved = at_once(save)
    assert saved.count(True) == 1
    assert rows.ledger.load(claimed.id).attempt == saved.index(True) + 1


def test_a_save_without_claim_releases(rows: Rows) -> None:
    """Once a save gave the claim back, another worker may claim at once."""
    claimed = rows.claimed(rows.created())
    rows.ledger.save(claimed.with_(claim_until=None), was=State.ACCEPTED)
    assert rows.ledger.load(claimed.id).claim_until is None
    assert rows.claimed(claimed, worker="w2").fence == 2


def test_a_save_with_claim_keeps_the_claimant(rows: Rows) -> None:
    """A save in the midst of a slice leaves the claim with its worker, and only with it."""
    claimed = rows.moved(rows.claimed(rows.created()), State.DELIVERING)
    assert rows.ledger.claim(claimed.id, worker="w2", now=rows.clock.now(), lease=LEASE) is None
    assert rows.claimed(claimed, worker="w1").fence == 2


def test_a_renewal_extends_claim_and_due_time(rows: Rows) -> None:
    """A renewed claim refuses others until its new end."""
    claimed = rows.claimed(rows.created())
    until = rows.clock.now() + 2 * LEASE
    rows.ledger.renew(claimed, until=until)
    assert rows.ledger.load(claimed.id) == claimed.with_(claim_until=until, due_at=until)
    rows.clock.advance(LEASE + SECOND)
    assert rows.ledger.claim(claimed.id, worker="w2", now=rows.clock.now(), lease=LEASE) is None


def test_a_stale_fence_renews_nothing(rows: Rows) -> None:
    """A worker that was overtaken learns it when it renews."""
    transfer = rows.created()
    stale = rows.claimed(transfer)
    current = rows.claimed(transfer, worker="w2", force=True)
    with pytest.raises(LostOwnership):
        rows.ledger.renew(stale, until=rows.clock.now() + 3 * LEASE)
    assert rows.ledger.load(transfer.id) == current


def test_a_late_renewal_does_not_raise_a_released_claim(rows: Rows) -> None:
    """A renewal that arrives after the claim was given back is refused and leaves the due time alone."""
    claimed = rows.claimed(rows.created())
    released = claimed.with_(claim_until=None)
    rows.ledger.save(released, was=State.ACCEPTED)
    with pytest.raises(LostOwnership):
        rows.ledger.renew(claimed, until=rows.clock.now() + 3 * LEASE)
    assert rows.ledger.load(claimed.id) == released


def test_renewing_an_unknown_transfer_is_refused(rows: Rows) -> None:
    """A renewal creates nothing."""
    transfer = rows.transfer(fence=1, claim_until=rows.clock.now())
    with pytest.raises(LostOwnership):
        rows.ledger.renew(transfer, until=rows.clock.now())
    assert rows.ledger.known([transfer.id]) == set()


# -- rows that move between regions ------------------------------------------------------------------------------------


def test_a_row_is_adopted_once_for_each_era(rows: Rows) -> None:
    """Where there is none, or one of an earlier region_epoch; a row of the same or a later one stays."""
    first = rows.transfer(region_epoch=2, fence=3)
    assert rows.ledger.adopt(first)
    assert rows.ledger.load(first.id) == first
    for epoch in (1, 2):
        assert not rows.ledger.adopt(first.with_(region_epoch=epoch, attempt=9))
    assert rows.ledger.load(first.id) == first
    later = first.with_(region_epoch=3, fence=0, upload=upload())
    assert rows.ledger.adopt(later)
    assert rows.ledger.load(first.id) == later


def test_a_created_row_gives_way_to_a_later_era_and_an_adopted_one_stops_creators(rows: Rows) -> None:
    """Accepting again what came from the other region finds its row."""
    created = rows.created(region_epoch=1)
    adopted = created.with_(region_epoch=2, attempt=4)
    assert rows.ledger.adopt(adopted)
    assert rows.ledger.create(created) == adopted


def test_an_adopted_row_belongs_to_no_worker(rows: Rows) -> None:
    """It is free to be claimed, also by another worker than the one before."""
    claimed = rows.claimed(rows.created(region_epoch=1))
    assert rows.ledger.adopt(claimed.with_(region_epoch=2, claim_until=None, fence=0))
    assert rows.claimed(claimed, worker="w2").fence == 1


def test_a_fence_of_an_earlier_era_saves_and_renews_nothing(rows: Rows) -> None:
    """A worker that slept while its row went away and came back is refused, though the fences' numbers agree again."""
    asleep = rows.claimed(rows.created(region_epoch=1))
    assert rows.ledger.adopt(asleep.with_(region_epoch=3, claim_until=None, fence=0))
    current = rows.claimed(asleep, worker="w2")
    assert (current.fence, current.state) == (asleep.fence, asleep.state)
    with pytest.raises(LostOwnership):
        rows.ledger.save(asleep.with_(attempt=9), was=asleep.state)
    with pytest.raises(LostOwnership):
        rows.ledger.renew(asleep, until=rows.clock.now() + 3 * LEASE)
    assert rows.ledger.load(asleep.id) == current


def test_a_save_may_take_a_row_into_a_later_era(rows: Rows) -> None:
    """Whoever has the row's fence may raise its region_epoch."""
    claimed = rows.claimed(rows.created(region_epoch=1))
    raised = claimed.with_(region_epoch=2)
    rows.ledger.save(raised, was=claimed.state)
    assert rows.ledger.load(claimed.id) == raised


def test_unsettled_rows_of_a_partition_are_found(rows: Rows) -> None:
    """Under way, held and dead; not settled, cancelled, carried on elsewhere or of another partition."""
    accepted = rows.created(1)
    rows.created(2, partition=rows.partition + 1)
    held, dead = (rows.moved(rows.claimed(rows.created(n)), state) for n, state in ((3, State.HELD), (4, State.DEAD)))
    rows.moved(rows.claimed(rows.created(5)), State.CANCELLED)
    rows.created(6, elsewhere="us-gov-east-1")
    gone = rows.created(7)
    rows.ledger.save(rows.claimed(gone).with_(elsewhere="us-gov-east-1"), was=gone.state)
    rows.ledger.fire(rows.flow(), at=rows.clock.now(), name="asked", partition=rows.partition)
    found = list(rows.ledger.unsettled(rows.partition))
    assert sorted(one.id for one in found) == sorted(one.id for one in (accepted, held, dead))
    assert held in found


def test_what_is_carried_on_elsewhere_is_not_due(rows: Rows) -> None:
    """The other region's sweep looks after it."""
    transfer = rows.created()
    rows.ledger.save(rows.claimed(transfer).with_(elsewhere="us-gov-east-1"), was=transfer.state)
    rows.clock.advance(10 * LEASE)
    assert _due_ids(rows) == []
    assert rows.ledger.load(transfer.id).due_at is None


# -- due ---------------------------------------------------------------------------------------------------------------


def _due_ids(rows: Rows, *, partition: int | None = None) -> list[str]:
    partition = rows.partition if partition is None else partition
    return [due.id for due in rows.ledger.due(partition, before=rows.clock.now())]


def test_what_is_past_its_time_is_due_oldest_first(rows: Rows) -> None:
    """Only what is due now, only in its partition, in order of due times."""
    now = rows.clock.now()
    late = rows.created(1, due_at=now - SECOND)
    later = rows.created(2, due_at=now - 2 * SECOND)
    rows.created(3, due_at=now + MILLISECOND)
    exact = rows.created(4, due_at=now)
    elsewhere = rows.created(6, due_at=now - SECOND, partition=rows.partition + 1)
    assert _due_ids(rows) == [later.id, late.id, exact.id]
    assert _due_ids(rows, partition=rows.partition + 1) == [elsewhere.id]


def test_a_page_of_due_is_bounded(rows: Rows) -> None:
    """No more than `limit`, the oldest."""
    for n in range(4):
        rows.created(n, due_at=rows.clock.now() - n * SECOND)
    found = rows.ledger.due(rows.partition, before=rows.clock.now(), limit=3)
    assert [due.id for due in found] == [rows.transfer(n).id for n in (3, 2, 1)]


@pytest.mark.parametrize("state", [State.HELD, State.DEAD, State.CANCELLED])
def test_what_rests_is_never_due(rows: Rows, state: State) -> None:
    """A resting row has no due time, and a claim of it gives it none."""
    resting = rows.moved(rows.claimed(rows.created()).with_(claim_until=None), state)
    rows.clock.advance(10 * LEASE)
    assert rows.ledger.load(resting.id).due_at is None
    assert _due_ids(rows) == []
    assert rows.claimed(resting).due_at is None
    assert not rows.ledger.postpone(Due("transfer", resting.id, rows.clock.now() + LEASE), until=rows.clock.now())
    rows.clock.advance(10 * LEASE)
    assert _due_ids(rows) == []


def test_what_is_sent_round_again_becomes_due_again(rows: Rows) -> None:
    """A re-driven row is back under the sweep's eyes."""
    dead = rows.moved(rows.claimed(rows.created()), State.DEAD)
    rows.moved(rows.claimed(dead).with_(claim_until=None, due_at=None), State.ACCEPTED)
    assert _due_ids(rows) == [dead.id]


def test_a_claimed_transfer_is_due_when_its_lease_ends(rows: Rows) -> None:
    """A worker that dies is noticed when its claim runs out, not before."""
    transfer = rows.created(due_at=rows.clock.now())
    rows.claimed(transfer)
    rows.clock.advance(LEASE - SECOND)
    assert _due_ids(rows) == []
    rows.clock.advance(SECOND)
    assert _due_ids(rows) == [transfer.id]


def test_a_due_time_is_moved_by_one_sweep(rows: Rows) -> None:
    """Of sweeps that saw the same due time one moves it, and the row says so."""
    now = rows.clock.now()
    transfer = rows.created(due_at=now)
    seen = Due("transfer", transfer.id, now)
    answers = at_once(lambda n: rows.ledger.postpone(seen, until=now + (n + 1) * SECOND))
    assert answers.count(True) == 1
    assert rows.ledger.load(transfer.id).due_at == now + (answers.index(True) + 1) * SECOND


def test_what_has_moved_on_is_not_postponed(rows: Rows) -> None:
    """Neither a row at rest nor one that is not there gets a due time."""
    now = rows.clock.now()
    resting = rows.moved(rows.claimed(rows.created()), State.HELD)
    for due_at in (now, now + LEASE):
        assert not rows.ledger.postpone(Due("transfer", resting.id, due_at), until=now)
    assert not rows.ledger.postpone(Due("transfer", "nobody", now), until=now)
    assert rows.ledger.load(resting.id).due_at is None
    assert rows.ledger.known(["nobody"]) == set()


# -- listings ----------------------------------------------------------------------------------------------------------


def test_a_tenants_transfers_come_newest_first_page_by_page(rows: Rows) -> None:
    """All of them, each once, and none of another tenant's; the last page has no cursor."""
    made = []
    for n in range(7):
        made.append(rows.created(n))
        rows.clock.advance(n % 2)
    rows.created(99, tenant=f"{rows.tenant}-other")
    seen: list[Transfer] = []
    cursor = None
    sizes = []
    while True:
        page = rows.ledger.page(rows.tenant, limit=3, cursor=cursor)
        seen += page.items
        sizes.append(len(page.items))
        cursor = page.cursor
        if cursor is None:
            break
    assert sizes == [3, 3, 1]
    assert [one.created for one in seen] == sorted((one.created for one in made), reverse=True)
    assert {one.id for one in seen} == {one.id for one in made}
    assert len(seen) == len(made)


def test_a_page_that_is_just_full_ends_the_listing(rows: Rows) -> None:
    """No cursor leads to an empty page."""
    for n in range(3):
        rows.created(n)
    page = rows.ledger.page(rows.tenant, limit=3)
    assert (len(page.items), page.cursor) == (3, None)


def test_a_tenant_without_transfers_has_an_empty_page(rows: Rows) -> None:
    """Nothing is there, and nothing follows."""
    page = rows.ledger.page(rows.tenant)
    assert (list(page.items), page.cursor) == ([], None)


def test_listings_are_filtered_by_state_and_flow(rows: Rows) -> None:
    """Each filter and both together, also after states have changed."""
    plain = rows.created(1)
    daily = rows.created(2, flow="daily")
    held = rows.moved(rows.claimed(rows.created(3, flow="daily")), State.HELD)
    other = rows.moved(rows.claimed(rows.created(4, flow="weekly")), State.HELD)

    def listed(**filters: object) -> set[str]:
        return {one.id for one in rows.ledger.page(rows.tenant, **filters).items}  # type: ignore[arg-type]

    assert listed() == {plain.id, daily.id, held.id, other.id}
    assert listed(state=State.ACCEPTED) == {plain.id, daily.id}
    assert listed(state=State.HELD) == {held.id, other.id}
    assert listed(flow="daily") == {daily.id, held.id}
    assert listed(flow="daily", state=State.HELD) == {held.id}
    assert listed(flow="monthly") == set()


def test_a_listed_transfer_is_the_row_as_it_is_now(rows: Rows) -> None:
    """Not the row as it was when it entered the listing."""
    moved = rows.moved(rows.claimed(rows.created()), State.DELIVERING)
    assert list(rows.ledger.page(rows.tenant).items) == [moved]


def test_a_cursor_serves_only_its_own_listing(rows: Rows) -> None:
    """Another tenant's, another filter's, a registry's, a garbled and a forged cursor are refused alike."""
    for n in range(2):
        rows.created(n, flow="daily")
        rows.registry.add_flow(rows.flow(f"f{n}"))
    cursor = rows.ledger.page(rows.tenant, limit=1).cursor
    assert cursor is not None
    foreign = rows.registry.flows(rows.tenant, limit=1).cursor
    assert foreign is not None
    attempts: list[tuple[str, dict[str, object], str]] = [
        ("somebody-else", {}, cursor),
        (rows.tenant, {"state": State.ACCEPTED}, cursor),
        (rows.tenant, {"flow": "daily"}, cursor),
        (rows.tenant, {}, foreign),
        (rows.tenant, {}, cursor[:-3]),
        (rows.tenant, {}, "bm90IGpzb24"),
        (rows.tenant, {}, "WzEsMl0"),
        (rows.tenant, {}, "§"),
        (rows.tenant, {}, ""),
    ]
    for tenant, filters, wrong in attempts:
        with pytest.raises(Permanent) as refused:
            rows.ledger.page(tenant, cursor=wrong, **filters)  # type: ignore[arg-type]
        assert refused.value.reason == "cursor_invalid"
    assert len(rows.ledger.page(rows.tenant, cursor=cursor).items) == 1


# -- parts -------------------------------------------------------------------------------------------------------------


def test_parts_are_kept_by_attempt_and_number(rows: Rows) -> None:
    """Attempts do not mix, not even 1 and 11, and numbers come in order."""
    transfer = rows.created()
    for attempt, number in ((1, 10), (1, 2), (11, 3), (1, 10_000)):
        rows.ledger.record_parts(
            transfer.id, attempt=attempt, done=[PartDone(number=number, size=attempt, crc64nvme=2**64 - number, etag="e")]
        )
    parts = rows.ledger.parts(transfer.id, attempt=1)
    assert list(parts) == [2, 10, 10_000]
    assert parts[10] == PartDone(number=10, size=1, crc64nvme=2**64 - 10, etag="e")
    assert list(rows.ledger.parts(transfer.id, attempt=11)) == [3]
    assert rows.ledger.parts(transfer.id, attempt=2) == {}


def test_the_first_note_of_a_part_stays(rows: Rows) -> None:
    """A late writer of the same part changes nothing."""
    transfer = rows.created()
    first, late = (PartDone(number=1, size=5, crc64nvme=None, etag=etag) for etag in ("first", "late"))
    rows.ledger.record_parts(transfer.id, attempt=1, done=[first])
    rows.ledger.record_parts(transfer.id, attempt=1, done=[late])
    assert rows.ledger.parts(transfer.id, attempt=1) == {1: first}


def test_parts_noted_together_are_all_there(rows: Rows) -> None:
    """In any order, with gaps, and more than one row may hold; runs of two workers that overlap leave nothing out."""
    transfer = rows.created()
    part = {n: PartDone(number=n, size=n, crc64nvme=n, etag=None) for n in range(1, 2500)}
    rows.ledger.record_parts(transfer.id, attempt=1, done=[part[9], part[2], part[3], part[1]])
    rows.ledger.record_parts(transfer.id, attempt=1, done=[part[1], part[2], part[3], part[4]])
    assert rows.ledger.parts(transfer.id, attempt=1) == {n: part[n] for n in (1, 2, 3, 4, 9)}
    rows.ledger.record_parts(transfer.id, attempt=1, done=list(part.values()))
    assert rows.ledger.parts(transfer.id, attempt=1) == part
    rows.ledger.record_parts(transfer.id, attempt=2, done=[])
    assert rows.ledger.parts(transfer.id, attempt=2) == {}


# -- reservations ------------------------------------------------------------------------------------------------------


def _reserve(
    rows: Rows, transfer: str, *, claim: Claim = FIRST, order: int = 1, source: str = "a:1", path: RemotePath = PATH
) -> tuple[str, str | None]:
    answer = rows.ledger.reserve(endpoint=rows.tenant, path=path, transfer=transfer, claim=claim, source=source, order=order)
    return answer.outcome, answer.holder


def _release(rows: Rows, transfer: str, *, claim: Claim = FIRST, delivered: bool) -> None:
    rows.ledger.release(endpoint=rows.tenant, path=PATH, transfer=transfer, claim=claim, delivered=delivered)


def test_a_path_is_reserved_for_one_transfer(rows: Rows) -> None:
    """Another transfer is told who holds it; the holder may ask again; other paths are free."""
    assert _reserve(rows, "t1") == ("mine", "t1")
    assert _reserve(rows, "t2", order=2) == ("busy", "t1")
    assert _reserve(rows, "t1") == ("mine", "t1")
    assert _reserve(rows, "t2", path=RemotePath("out/other.csv")) == ("mine", "t2")


def test_of_sixteen_transfers_one_reserves_a_path(rows: Rows) -> None:
    """All others learn its name."""
    answers = at_once(lambda n: _reserve(rows, f"t{n}", order=n))
    winners = [holder for outcome, holder in answers if outcome == "mine"]
    assert len(winners) == 1
    assert {holder for outcome, holder in answers if outcome == "busy"} == set(winners)


def test_a_released_path_is_free(rows: Rows) -> None:
    """Given up without delivery, it leaves no trace: even an older version may go there."""
    _reserve(rows, "t1", order=5)
    _release(rows, "t1", delivered=False)
    assert _reserve(rows, "t2", order=4) == ("mine", "t2")


@pytest.mark.parametrize("delivered", [True, False])
def test_only_the_holder_releases(rows: Rows, *, delivered: bool) -> None:
    """A stranger's release, or one of a path that nobody holds, does nothing."""
    _release(rows, "t2", delivered=delivered)
    _reserve(rows, "t1", order=5)
    _release(rows, "t2", delivered=delivered)
    assert _reserve(rows, "t3", order=1) == ("busy", "t1")


LATE = [Claim(2, 9), Claim(1, 99)]
"""Claims before the tenth of the third era: of the same era, and of an earlier one in which the fence had come further."""


@pytest.mark.parametrize("late", LATE)
def test_a_late_claim_does_not_reserve_again(rows: Rows, late: Claim) -> None:
    """What a later claim of the same transfer has reserved stays that one's; the late one learns that it is lost."""
    now = Claim(2, 10)
    assert _reserve(rows, "t1", claim=late) == ("mine", "t1")
    assert _reserve(rows, "t1", claim=now) == ("mine", "t1")
    with pytest.raises(LostOwnership):
        _reserve(rows, "t1", claim=late)
    assert _reserve(rows, "t1", claim=now) == ("mine", "t1")
    assert _reserve(rows, "t2", claim=Claim(3, 1)) == ("busy", "t1")


@pytest.mark.parametrize("delivered", [True, False])
@pytest.mark.parametrize("late", LATE)
def test_a_late_claim_releases_nothing(rows: Rows, late: Claim, *, delivered: bool) -> None:
    """The path stays the later claim's until that one releases it, and nothing is on record as delivered."""
    now = Claim(2, 10)
    _reserve(rows, "t1", claim=now, order=5)
    _release(rows, "t1", claim=late, delivered=delivered)
    assert _reserve(rows, "t2", order=4) == ("busy", "t1")
    _release(rows, "t1", claim=now, delivered=False)
    assert _reserve(rows, "t2", order=4) == ("mine", "t2")


@pytest.mark.parametrize("later", [Claim(0, 2), Claim(1, 0)])
def test_a_later_claim_releases_what_an_earlier_one_reserved(rows: Rows, later: Claim) -> None:
    """One worker reserves and another ends the transfer; what is free then is free for an earlier claim as well."""
    _reserve(rows, "t1", claim=FIRST, order=5)
    _release(rows, "t1", claim=later, delivered=True)
    assert _reserve(rows, "t2", order=4) == ("superseded", "t1")
    assert _reserve(rows, "t1", claim=FIRST, order=5) == ("mine", "t1")


def test_of_sixteen_claims_of_a_transfer_the_latest_keeps_the_path(rows: Rows) -> None:
    """In whatever order they come."""

    def reserve(fence: int) -> None:
        with suppress(LostOwnership):
            _reserve(rows, "t1", claim=Claim(0, fence))

    at_once(reserve)
    with pytest.raises(LostOwnership):
        _reserve(rows, "t1", claim=Claim(0, 14))
    assert _reserve(rows, "t1", claim=Claim(0, 15)) == ("mine", "t1")


def test_a_version_of_the_same_order_is_told_of(rows: Rows) -> None:
    """Who reserves after another's delivery of the same order learns whose it was; who delivered it himself, or a newer one, does not."""

    def level(transfer: str, order: int) -> str | None:
        answer = rows.ledger.reserve(endpoint=rows.tenant, path=PATH, transfer=transfer, claim=FIRST, source="a:1", order=order)
        assert answer.outcome == "mine"
        _release(rows, transfer, delivered=False)
        return answer.level

    assert level("t1", 5) is None
    _reserve(rows, "t1", order=5)
    _release(rows, "t1", delivered=True)
    assert [level("t2", 5), level("t1", 5), level("t2", 6)] == ["t1", None, None]


def test_an_older_version_does_not_follow_a_newer(rows: Rows) -> None:
    """After a delivery, older versions of the same source are superseded; the same and newer ones are not."""
    _reserve(rows, "new", order=5)
    _release(rows, "new", delivered=True)
    assert _reserve(rows, "old", order=4) == ("superseded", "new")
    assert _reserve(rows, "same", order=5) == ("mine", "same")
    _release(rows, "same", delivered=False)
    assert _reserve(rows, "newer", order=6) == ("mine", "newer")
    _release(rows, "newer", delivered=True)
    assert _reserve(rows, "same", order=5) == ("superseded", "newer")


def test_what_another_region_delivered_supersedes_as_well(rows: Rows) -> None:
    """On a path that has no row yet, and on one that has; the newest delivery counts, in whatever order they are told."""

    def remember(transfer: str, order: int, path: RemotePath = PATH) -> None:
        rows.ledger.remember_delivered(endpoint=rows.tenant, path=path, transfer=transfer, source="a:1", order=order)

    remember("new", 5)
    remember("old", 3)
    assert _reserve(rows, "older", order=4) == ("superseded", "new")
    assert _reserve(rows, "newer", order=6) == ("mine", "newer")
    remember("newest", 7)
    assert _reserve(rows, "newer", order=6) == ("superseded", "newest")
    assert _reserve(rows, "another", order=1, source="b:1", path=RemotePath("out/other.csv")) == ("mine", "another")
    remember("beside", 2, RemotePath("out/other.csv"))
    assert _reserve(rows, "another", order=1, source="b:1", path=RemotePath("out/other.csv")) == ("mine", "another")


def test_a_superseded_transfer_does_not_wait_for_the_holder(rows: Rows) -> None:
    """It learns that it is superseded even while another holds the path."""
    _reserve(rows, "new", order=5)
    _release(rows, "new", delivered=True)
    _reserve(rows, "newer", order=6)
    assert _reserve(rows, "old", order=4) == ("superseded", "new")


def test_versions_of_different_sources_do_not_compare(rows: Rows) -> None:
    """Each source has its own order at a path, and keeps it when another delivers in between."""
    _reserve(rows, "a5", source="a:1", order=5)
    _release(rows, "a5", delivered=True)
    assert _reserve(rows, "b1", source="b:1", order=1) == ("mine", "b1")
    _release(rows, "b1", delivered=True)
    assert _reserve(rows, "a4", source="a:1", order=4) == ("superseded", "a5")
    assert _reserve(rows, "b0", source="b:1", order=0) == ("superseded", "b1")


def test_a_path_remembers_a_bounded_number_of_sources(rows: Rows) -> None:
    """The 65th source makes the path forget the one that was delivered longest ago, and no other."""
    for n in (*range(64), 0, 64):
        _reserve(rows, f"t{n}", source=f"s{n}", order=5)
        _release(rows, f"t{n}", delivered=True)
    assert _reserve(rows, "x", source="s1", order=4)[0] == "mine"
    _release(rows, "x", delivered=False)
    assert {n: _reserve(rows, "x", source=f"s{n}", order=4)[0] for n in (0, 2, 63, 64)} == dict.fromkeys((0, 2, 63, 64), "superseded")


# -- fires -------------------------------------------------------------------------------------------------------------


def test_a_fire_is_claimed_once(rows: Rows) -> None:
    """Of sixteen beats one fires; another fire of the same flow is another claim."""
    flow, now = rows.flow(), rows.clock.now()
    answers = at_once(lambda _: rows.ledger.fire(flow, at=now, name=now.isoformat(), partition=rows.partition))
    assert answers.count(True) == 1
    assert rows.ledger.fire(flow, at=now, name="asked", partition=rows.partition)


def test_a_fire_is_due_until_it_is_done(rows: Rows) -> None:
    """It shows among what is due from its time on, can be postponed once per sighting, and goes when noted as done."""
    flow, now = rows.flow(), rows.clock.now()
    name = now.isoformat()
    due_id = f"{rows.tenant}/daily/{name}"
    rows.ledger.fire(flow, at=now + SECOND, name=name, partition=rows.partition)
    assert _due_ids(rows) == []
    rows.clock.advance(SECOND)
    assert _due_ids(rows) == [due_id]
    seen = Due("fire", due_id, now + SECOND)
    assert rows.ledger.postpone(seen, until=now + LEASE)
    assert not rows.ledger.postpone(seen, until=now + 2 * LEASE)
    assert _due_ids(rows) == []
    rows.clock.advance(LEASE)
    assert _due_ids(rows) == [due_id]
    rows.ledger.fire_done(flow, name=name, outcome={"created": 3})
    assert _due_ids(rows) == []
    assert not rows.ledger.postpone(Due("fire", due_id, now + LEASE), until=now)
    assert not rows.ledger.fire(flow, at=now, name=name, partition=rows.partition)
    assert _due_ids(rows) == []


def test_a_requested_fire_is_due_under_its_name(rows: Rows) -> None:
    """The id of a fire carries its name back, slashes and all."""
    rows.ledger.fire(rows.flow(), at=rows.clock.now(), name="now-1/2#3", partition=rows.partition)
    assert _due_ids(rows) == [f"{rows.tenant}/daily/now-1/2#3"]
    rows.ledger.fire_done(rows.flow(), name="now-1/2#3", outcome={})
    assert _due_ids(rows) == []


def test_noting_a_fire_that_is_not_there_does_nothing(rows: Rows) -> None:
    """Neither is a fire created, nor is the postponing of one that is not there a success."""
    rows.ledger.fire_done(rows.flow(), name="asked", outcome={})
    now = rows.clock.now()
    assert not rows.ledger.postpone(Due("fire", f"{rows.tenant}/daily/asked", now), until=now)
    assert rows.ledger.fire(rows.flow(), at=now, name="asked", partition=rows.partition)


def test_the_last_fire_of_a_schedule_is_told(rows: Rows) -> None:
    """The latest planned time that fired, requests and other flows left aside, whatever order they came in."""
    flow, now = rows.flow(), rows.clock.now()
    assert rows.ledger.last_fire(flow) is None
    rows.ledger.fire(flow, at=now, name="now-20990101T000000-ff", partition=rows.partition)
    assert rows.ledger.last_fire(flow) is None
    for minutes in (2, 10, 9):
        planned = now + timedelta(minutes=minutes)
        rows.ledger.fire(flow, at=planned + LEASE, name=planned.isoformat(), partition=rows.partition)
    rows.ledger.fire(rows.flow("hourly"), at=now, name=(now + timedelta(hours=1)).isoformat(), partition=rows.partition)
    assert rows.ledger.last_fire(flow) == now + timedelta(minutes=10)
