"""The contract of what reconciliation counts and looks up: tenants, their transfers, and reserved paths."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from eft.adapters.registry import DynamoRegistry
from eft.adapters.table import Table
from eft.domain.names import RemotePath, partition_of_id
from eft.domain.transfer import ROW_FORMAT, Claim, State
from eft.ports import Watch
from tests.contract.rows import DynamoRows, Rows

PATH = RemotePath("out/report.csv")
HOUR = timedelta(hours=1)
FIRST = Claim(0, 1)


def test_transfers_are_counted_by_tenant_time_and_state(rows: Rows) -> None:
    """Those accepted from a moment on, that moment included; the states' counts add up to the whole."""
    before = rows.created(1)
    rows.clock.advance(HOUR)
    since = rows.clock.now()
    accepted = [rows.created(n) for n in range(2, 5)]
    rows.moved(rows.claimed(accepted[0]), State.DEAD)
    rows.moved(rows.claimed(accepted[1]), State.HELD)
    rows.created(9, tenant=f"{rows.tenant}-other")
    count = rows.ledger.count
    assert count(rows.tenant, since=since) == 3
    assert count(rows.tenant, since=before.created) == 4
    assert count(rows.tenant, since=since + timedelta(milliseconds=1)) == 0
    each = {state: count(rows.tenant, since=since, state=state) for state in State}
    assert each == dict.fromkeys(State, 0) | {State.DEAD: 1, State.HELD: 1, State.ACCEPTED: 1}
    assert count(rows.tenant, since=before.created, state=State.ACCEPTED) == 2


def test_reserved_paths_are_found_by_their_holders_partition(rows: Rows) -> None:
    """While they are held: taken over, they are the new holder's; given up or delivered, nobody's."""
    one, two, three = (rows.transfer(n) for n in range(3))
    number = partition_of_id(one.id)

    def reserve(transfer: str, path: RemotePath = PATH) -> None:
        held = rows.ledger.reserve(endpoint=rows.tenant, path=path, transfer=transfer, claim=FIRST, source="a:1", order=1)
        assert held.outcome == "mine"

    def found() -> set[tuple[str, str]]:
        return {(path, holder) for endpoint, path, holder in rows.ledger.reservations(number) if endpoint == rows.tenant}

    reserve(one.id)
    reserve(two.id, RemotePath("out/Zürich.csv"))
    assert found() == {(PATH, one.id), ("out/Zürich.csv", two.id)}
    assert not {each for each in rows.ledger.reservations(number + 1) if each[0] == rows.tenant}
    rows.ledger.release(endpoint=rows.tenant, path=PATH, transfer=one.id, claim=FIRST, delivered=True)
    assert found() == {("out/Zürich.csv", two.id)}
    reserve(three.id)
    rows.ledger.release(endpoint=rows.tenant, path=RemotePath("out/Zürich.csv"), transfer=two.id, claim=FIRST, delivered=False)
    assert found() == {(PATH, three.id)}


def test_tenants_are_those_with_an_endpoint_or_a_flow(rows: Rows) -> None:
    """Each once; one whose last endpoint was removed is none any more."""
    names = [f"{rows.tenant}-{n}" for n in range(3)]
    rows.registry.add_endpoint(rows.endpoint("a", tenant=names[0]))
    rows.registry.add_endpoint(rows.endpoint("b", tenant=names[0]))
    rows.registry.add_flow(rows.flow("f", tenant=names[0]))
    rows.registry.add_flow(rows.flow("f", tenant=names[1]))
    rows.registry.add_endpoint(rows.endpoint("a", tenant=names[2]))
    assert [one for one in rows.registry.tenants() if one in names] == names
    rows.registry.remove_endpoint(names[2], "a", revision=1)
    assert [one for one in rows.registry.tenants() if one in names] == names[:2]


@pytest.mark.parametrize("operation", ["count", "scan"])
def test_what_takes_several_answers_is_whole(moto_rows: DynamoRows, operation: str) -> None:
    """A count and a scan go on after each megabyte."""
    for n in range(5):
        moto_rows.registry.add_endpoint(moto_rows.endpoint(f"e{n}"))
        moto_rows.created(n)
    client = moto_rows.session.dynamodb()
    events: Any = client.meta.events
    asked = 0

    def two_at_a_time(params: dict[str, Any], **_: object) -> None:
        nonlocal asked
        asked += 1
        params["Limit"] = 2

    name = "Query" if operation == "count" else "Scan"
    events.register(f"before-parameter-build.dynamodb.{name}", two_at_a_time)
    if operation == "count":
        assert moto_rows.ledger.count(moto_rows.tenant, since=moto_rows.clock.now()) == 5
    else:
        table = Table(moto_rows.session, moto_rows.registry_table, what="the registry")
        assert len(list(table.scan_keys())) == 5
        assert list(DynamoRegistry(moto_rows.session, table=moto_rows.registry_table).tenants()) == [moto_rows.tenant]
    assert asked >= 3


def test_a_directory_is_watched_until_it_is_forgotten(rows: Rows) -> None:
    """Noted again it is watched for longer, never for less; who saw an earlier time does not end it."""
    first = Watch(rows.tenant, "from", "in/Zürich", rows.clock.now() + HOUR)
    later, other = replace(first, until=first.until + HOUR), replace(first, directory="")

    def mine() -> set[Watch]:
        return {one for one in rows.ledger.watched() if one.tenant == rows.tenant}

    for watch in (later, first, other, other):
        rows.ledger.watch(watch)
    assert mine() == {later, other}
    rows.ledger.unwatch(first)
    assert mine() == {later, other}
    rows.ledger.unwatch(later)
    rows.ledger.unwatch(later)
    assert mine() == {other}


def test_a_watch_of_a_later_release_keeps_no_other_waiting(moto_rows: DynamoRows) -> None:
    """It is passed over: the release that wrote it looks after it."""
    now = moto_rows.clock.now()
    for directory in ("in", "other"):
        moto_rows.ledger.watch(Watch(moto_rows.tenant, "from", directory, now))
    table = Table(moto_rows.session, moto_rows.ledger_table, what="the ledger")
    (key, _) = table.query("#due_shard = :shard", values={":shard": "watched"}, index="due")
    table.update(key["pk"], key["sk"], "SET #format = :format", condition="attribute_exists(#pk)", values={":format": ROW_FORMAT + 1})
    assert len(list(moto_rows.ledger.watched())) == 1
