"""The registry's contract: the fake and the adapter of DynamoDB keep it alike."""

from __future__ import annotations

from datetime import timedelta

import pytest

from eft.domain.endpoint import HostKey, S3Endpoint, SecretRef
from eft.domain.flow import Arrival, Cron, Disposition, Flow, Interval, Manual, Policy, Selection
from eft.errors import Conflict, NotFound, Permanent
from tests.contract.rows import DynamoRows, Rows, at_once


def _bucket(rows: Rows, name: str = "to", **fields: object) -> S3Endpoint:
    return S3Endpoint.model_validate(
        {
            "id": name,
            "tenant": rows.tenant,
            "name": "Zürich",
            "bucket": "a-bucket",
            "prefix": "in/x",
            "region": "us-gov-west-1",
            "secret": SecretRef(name="eft/x"),
            "created": rows.clock.now(),
            **fields,
        }
    )


# -- endpoints ---------------------------------------------------------------------------------------------------------


def test_endpoints_of_both_kinds_come_back_as_they_were(rows: Rows) -> None:
    """Kind, keys, secret reference and all."""
    key = HostKey(algorithm="ssh-ed25519", key="AAAA")
    sftp, s3 = rows.endpoint(host_keys=(key, key), root="/data"), _bucket(rows)
    rows.registry.add_endpoint(sftp)
    rows.registry.add_endpoint(s3)
    assert rows.registry.endpoint(rows.tenant, "from") == sftp
    assert rows.registry.endpoint(rows.tenant, "to") == s3


def test_an_endpoint_is_added_once(rows: Rows) -> None:
    """Of sixteen that add different ones under one id, one does; the others learn that it exists."""

    def add(number: int) -> str:
        try:
            rows.registry.add_endpoint(rows.endpoint(port=number + 1))
        except Conflict as error:
            return error.reason
        return "added"

    answers = at_once(add)
    assert (answers.count("added"), answers.count("endpoint_exists")) == (1, 15)
    stored = rows.registry.endpoint(rows.tenant, "from")
    assert stored == rows.endpoint(port=answers.index("added") + 1)


def test_an_endpoint_changes_from_the_revision_that_was_read(rows: Rows) -> None:
    """Of sixteen that change revision 1 to different ones, one does; the others learn that it differs."""
    rows.registry.add_endpoint(rows.endpoint())

    def change(number: int) -> str:
        try:
            rows.registry.change_endpoint(rows.endpoint(port=number + 100, revision=2))
        except Conflict as error:
            return error.reason
        return "changed"

    answers = at_once(change)
    assert (answers.count("changed"), answers.count("revision_differs")) == (1, 15)
    with pytest.raises(Conflict):
        rows.registry.change_endpoint(rows.endpoint(port=9, revision=4))
    stored = rows.registry.endpoint(rows.tenant, "from")
    assert stored == rows.endpoint(port=answers.index("changed") + 100, revision=2)


def test_what_is_not_there_cannot_be_changed(rows: Rows) -> None:
    """Neither an endpoint nor a flow comes to be by a change."""
    with pytest.raises(Conflict):
        rows.registry.change_endpoint(rows.endpoint(revision=2))
    with pytest.raises(Conflict):
        rows.registry.change_flow(rows.flow(revision=2))
    assert list(rows.registry.endpoints(rows.tenant).items) == []
    assert list(rows.registry.flows(rows.tenant).items) == []


def test_an_endpoint_is_removed_at_its_revision(rows: Rows) -> None:
    """Another revision stays; what is gone cannot be removed."""
    rows.registry.add_endpoint(rows.endpoint())
    with pytest.raises(Conflict) as refused:
        rows.registry.remove_endpoint(rows.tenant, "from", revision=2)
    assert refused.value.reason == "revision_differs"
    assert rows.registry.endpoint(rows.tenant, "from").revision == 1
    rows.registry.remove_endpoint(rows.tenant, "from", revision=1)
    with pytest.raises(NotFound) as missing:
        rows.registry.endpoint(rows.tenant, "from")
    assert missing.value.reason == "endpoint_unknown"
    with pytest.raises(Conflict):
        rows.registry.remove_endpoint(rows.tenant, "from", revision=1)


def test_tenants_do_not_see_each_other(rows: Rows) -> None:
    """The same id is another endpoint for another tenant."""
    rows.registry.add_endpoint(rows.endpoint())
    rows.registry.add_flow(rows.flow())
    stranger = f"{rows.tenant}-other"
    with pytest.raises(NotFound):
        rows.registry.endpoint(stranger, "from")
    with pytest.raises(NotFound):
        rows.registry.flow(stranger, "daily")
    assert list(rows.registry.endpoints(stranger).items) == []
    assert list(rows.registry.flows(stranger).items) == []


def test_endpoints_are_listed_by_id_page_by_page(rows: Rows) -> None:
    """Flows are not among them; the listing goes on where it was though what it showed last is gone."""
    names = ["a", "b", "b-1", "c", "d"]
    for name in reversed(names):
        rows.registry.add_endpoint(rows.endpoint(name))
        rows.registry.add_flow(rows.flow(name))
    first = rows.registry.endpoints(rows.tenant, limit=2)
    assert [one.id for one in first.items] == ["a", "b"]
    rows.registry.remove_endpoint(rows.tenant, "b", revision=1)
    second = rows.registry.endpoints(rows.tenant, limit=2, cursor=first.cursor)
    assert [one.id for one in second.items] == ["b-1", "c"]
    third = rows.registry.endpoints(rows.tenant, limit=2, cursor=second.cursor)
    assert ([one.id for one in third.items], third.cursor) == (["d"], None)
    assert rows.registry.endpoints(rows.tenant, limit=4).cursor is None


def test_a_cursor_of_another_listing_is_refused(rows: Rows) -> None:
    """Endpoints' cursor is no flows' cursor, and no other tenant's."""
    for name in ("a", "b"):
        rows.registry.add_endpoint(rows.endpoint(name))
    cursor = rows.registry.endpoints(rows.tenant, limit=1).cursor
    for tenant, listing in ((rows.tenant, rows.registry.flows), ("other", rows.registry.endpoints)):
        with pytest.raises(Permanent) as refused:
            listing(tenant, cursor=cursor)
        assert refused.value.reason == "cursor_invalid"


# -- flows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trigger", [Manual(), Interval(every=timedelta(minutes=5)), Cron(cron="0 6 * * 1-5", timezone="Europe/Berlin")])
def test_a_flow_comes_back_as_it_was(rows: Rows, trigger: Manual | Interval | Cron) -> None:
    """Trigger of any kind, selection and policy."""
    flow = rows.flow(
        trigger=trigger,
        selection=Selection(directory="in", glob="*.csv", min_age=timedelta(seconds=90)),
        policy=Policy(disposition=Disposition.ARCHIVE, archive_directory="done", staging=False),
    )
    rows.registry.add_flow(flow)
    assert rows.registry.flow(rows.tenant, "daily") == flow


def test_a_flow_is_added_changed_and_removed_under_the_same_conditions(rows: Rows) -> None:
    """Exists, differs, unknown: each with its reason."""
    rows.registry.add_flow(rows.flow())
    with pytest.raises(Conflict) as exists:
        rows.registry.add_flow(rows.flow(enabled=False))
    assert exists.value.reason == "flow_exists"
    changed = rows.flow(enabled=False, revision=2)
    rows.registry.change_flow(changed)
    with pytest.raises(Conflict) as differs:
        rows.registry.change_flow(rows.flow(revision=2))
    assert differs.value.reason == "revision_differs"
    assert rows.registry.flow(rows.tenant, "daily") == changed
    with pytest.raises(Conflict):
        rows.registry.remove_flow(rows.tenant, "daily", revision=1)
    rows.registry.remove_flow(rows.tenant, "daily", revision=2)
    with pytest.raises(NotFound) as unknown:
        rows.registry.flow(rows.tenant, "daily")
    assert unknown.value.reason == "flow_unknown"


def test_flows_are_listed_by_id_page_by_page(rows: Rows) -> None:
    """Endpoints are not among them."""
    for name in ("c", "a", "b"):
        rows.registry.add_flow(rows.flow(name))
        rows.registry.add_endpoint(rows.endpoint(name))
    first = rows.registry.flows(rows.tenant, limit=2)
    second = rows.registry.flows(rows.tenant, limit=2, cursor=first.cursor)
    assert [one.id for page in (first, second) for one in page.items] == ["a", "b", "c"]
    assert second.cursor is None


def _scheduled(rows: Rows) -> list[Flow]:
    return [flow for flow in rows.registry.scheduled_flows() if flow.tenant.startswith(rows.tenant)]


def test_enabled_flows_with_a_schedule_are_found(rows: Rows) -> None:
    """Those of all tenants, each once, as they are now; manual and disabled ones are not among them."""
    wanted = [rows.flow(f"f{n}") for n in range(9)]
    wanted.append(rows.flow(trigger=Cron(cron="* * * * *")).model_copy(update={"tenant": f"{rows.tenant}-other"}))
    for flow in (*wanted, rows.flow("manual", trigger=Manual()), rows.flow("disabled", enabled=False)):
        rows.registry.add_flow(flow)
    found = _scheduled(rows)
    assert len(found) == len(wanted)
    assert {(one.tenant, one.id) for one in found} == {(one.tenant, one.id) for one in wanted}


def test_a_flow_leaves_and_enters_the_schedule_as_it_changes(rows: Rows) -> None:
    """Disabled, made manual, enabled again, removed."""
    rows.registry.add_flow(rows.flow())
    for revision, (enabled, trigger, found) in enumerate(
        [
            (False, Interval(every=timedelta(minutes=5)), 0),
            (True, Interval(every=timedelta(minutes=9)), 1),
            (True, Manual(), 0),
            (True, Cron(cron="* * * * *"), 1),
        ],
        start=2,
    ):
        changed = rows.flow(enabled=enabled, trigger=trigger, revision=revision)
        rows.registry.change_flow(changed)
        assert _scheduled(rows) == [changed] * found
    rows.registry.remove_flow(rows.tenant, "daily", revision=5)
    assert _scheduled(rows) == []


def _arrivals(rows: Rows, bucket: str) -> set[tuple[str, str, str]]:
    return {(flow.tenant, flow.id, source.prefix) for flow, source in rows.registry.arrival_flows(bucket)}


def test_flows_that_wait_for_arrivals_are_found_by_bucket(rows: Rows) -> None:
    """Those of all tenants and of every endpoint in the bucket, with their source; none that is paused or has another trigger."""
    bucket = f"{rows.tenant}-landing"
    other = f"{rows.tenant}-other"
    rows.registry.add_endpoint(_bucket(rows, "a", bucket=bucket, prefix="a"))
    rows.registry.add_endpoint(_bucket(rows, "b", bucket=bucket, prefix="b"))
    rows.registry.add_endpoint(_bucket(rows, "c", bucket=f"{bucket}-2", prefix="c"))
    rows.registry.add_endpoint(_bucket(rows, "a", bucket=bucket, prefix="theirs", tenant=other))
    for flow in (
        rows.flow("f1", source="a", trigger=Arrival()),
        rows.flow("f2", source="a", trigger=Arrival()),
        rows.flow("f3", source="b", trigger=Arrival()),
        rows.flow("elsewhere", source="c", trigger=Arrival()),
        rows.flow("paused", source="a", trigger=Arrival(), enabled=False),
        rows.flow("scheduled", source="a"),
        rows.flow("manual", source="a", trigger=Manual()),
        rows.flow("f1", source="a", trigger=Arrival(), tenant=other),
    ):
        rows.registry.add_flow(flow)
    tenant = rows.tenant
    assert _arrivals(rows, bucket) == {(tenant, "f1", "a"), (tenant, "f2", "a"), (tenant, "f3", "b"), (other, "f1", "theirs")}
    assert _arrivals(rows, f"{bucket}-2") == {(tenant, "elsewhere", "c")}
    assert _arrivals(rows, f"{bucket}-3") == set()


def test_a_waiting_flow_follows_its_changes_and_its_endpoints(rows: Rows) -> None:
    """Paused, resumed, its endpoint moved to another bucket, removed."""
    here, there = f"{rows.tenant}-here", f"{rows.tenant}-there"
    rows.registry.add_endpoint(_bucket(rows, "a", bucket=here))
    rows.registry.add_flow(rows.flow("f", source="a", trigger=Arrival()))
    found = {(rows.tenant, "f", "in/x")}
    assert _arrivals(rows, here) == found
    rows.registry.change_flow(rows.flow("f", source="a", trigger=Arrival(), enabled=False, revision=2))
    assert _arrivals(rows, here) == set()
    rows.registry.change_flow(rows.flow("f", source="a", trigger=Arrival(), revision=3))
    rows.registry.change_endpoint(_bucket(rows, "a", bucket=there, revision=2))
    assert (_arrivals(rows, here), _arrivals(rows, there)) == (set(), found)
    rows.registry.remove_flow(rows.tenant, "f", revision=3)
    assert _arrivals(rows, there) == set()


def test_waiting_flows_are_listed_besides(rows: Rows) -> None:
    """What no event told of is found by the schedule."""
    rows.registry.add_flow(rows.flow("f", source="a", trigger=Arrival()))
    assert [flow.id for flow in _scheduled(rows)] == ["f"]


# -- the adapter -------------------------------------------------------------------------------------------------------


def test_the_registry_costs_one_request_each(dynamo: DynamoRows) -> None:
    """Only the schedule of all tenants takes four, arrivals one more than endpoints in the bucket, and none of them scans."""
    with dynamo.counted() as sent:
        dynamo.registry.add_flow(dynamo.flow())
        dynamo.registry.flow(dynamo.tenant, "daily")
        dynamo.registry.flows(dynamo.tenant)
        dynamo.registry.change_flow(dynamo.flow(revision=2))
        dynamo.registry.remove_flow(dynamo.tenant, "daily", revision=2)
    assert sent == {"PutItem": 2, "GetItem": 1, "Query": 1, "DeleteItem": 1}
    with dynamo.counted() as sent:
        list(dynamo.registry.scheduled_flows())
    assert sent == {"Query": 4}
    dynamo.registry.add_endpoint(_bucket(dynamo, "a", bucket=f"{dynamo.tenant}-b"))
    dynamo.registry.add_flow(dynamo.flow("f", source="a", trigger=Arrival()))
    with dynamo.counted() as sent:
        assert _arrivals(dynamo, f"{dynamo.tenant}-b")
    assert sent == {"Query": 2}


def test_our_own_row_met_after_a_lost_answer_is_a_success(dynamo: DynamoRows) -> None:
    """Neither an addition nor a change reports a conflict with itself."""
    with dynamo.losing_answers("PutItem"):
        dynamo.registry.add_endpoint(dynamo.endpoint())
        dynamo.registry.change_endpoint(dynamo.endpoint(port=23, revision=2))
    assert dynamo.registry.endpoint(dynamo.tenant, "from").revision == 2


def test_a_row_of_a_later_release_is_not_misread(dynamo: DynamoRows) -> None:
    """Its format is refused, and the reason says so."""
    dynamo.registry.add_flow(dynamo.flow())
    dynamo.session.dynamodb().update_item(
        TableName=dynamo.registry_table,
        Key={"pk": {"S": f"N#{dynamo.tenant}"}, "sk": {"S": "F#daily"}},
        UpdateExpression="SET #f = :two REMOVE scheduled",
        ExpressionAttributeNames={"#f": "format"},
        ExpressionAttributeValues={":two": {"N": "2"}},
    )
    with pytest.raises(Permanent) as refused:
        dynamo.registry.flow(dynamo.tenant, "daily")
    assert refused.value.reason == "row_format_unknown"


@pytest.mark.parametrize(("field", "value"), [("format", {"N": "2"}), ("body", {"S": "{}"})])
def test_a_row_that_cannot_be_read_keeps_no_other_flow_from_its_schedule(
    dynamo: DynamoRows, field: str, value: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither from its times nor from its arrivals; the log names the row."""
    bucket = f"{dynamo.tenant}-b"
    dynamo.registry.add_endpoint(_bucket(dynamo, "a", bucket=bucket))
    for name in ("good", "odd", "other"):
        dynamo.registry.add_flow(dynamo.flow(name, source="a", trigger=Arrival()))
    dynamo.session.dynamodb().update_item(
        TableName=dynamo.registry_table,
        Key={"pk": {"S": f"N#{dynamo.tenant}"}, "sk": {"S": "F#odd"}},
        UpdateExpression="SET #f = :value",
        ExpressionAttributeNames={"#f": field},
        ExpressionAttributeValues={":value": value},
    )
    assert {flow.id for flow in _scheduled(dynamo)} == {"good", "other"}
    assert {flow for _, flow, _ in _arrivals(dynamo, bucket)} == {"good", "other"}
    assert "cannot be read" in caplog.text
