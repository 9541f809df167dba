"""Events of buckets become transfers: each version once, whatever order they come in and however often."""

from __future__ import annotations

import json
import random
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from eft.domain.arrival import Arrived, Passed, events_in
from eft.domain.fingerprint import Fingerprint
from eft.domain.flow import Arrival, ConflictMode, Flow, Selection
from eft.domain.transfer import State
from eft.errors import Permanent, Transient
from eft.journey.arrive import arrive
from eft.journey.discover import bundled
from eft.journey.sweep import sweep
from tests.world import World

BUCKET = "bucket-s3-a"


def _event(key: str = "in/a.csv", *, kind: str = "Object Created", **fields: Any) -> str:  # noqa: ANN401 - any part of it
    """An event as EventBridge sends it."""
    told = {
        "version": "0",
        "id": "e1",
        "detail-type": kind,
        "source": "aws.s3",
        "account": "000000000000",
        "time": "2025-03-30T12:00:00Z",
        "region": "us-gov-west-1",
        "resources": [f"arn:aws-us-gov:s3:::{BUCKET}"],
        "detail": {
            "version": "0",
            "bucket": {"name": BUCKET},
            "object": {"key": key, "size": 3, "etag": "e", "version-id": "v1", "sequencer": "0055"},
            "request-id": "r",
            "reason": "PutObject",
        },
    }
    return json.dumps({**told, **fields})


def _record(key: str = "in/a.csv", name: str = "ObjectCreated:Put") -> dict[str, Any]:
    """A record as S3 sends it."""
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventName": name,
        "s3": {"bucket": {"name": BUCKET}, "object": {"key": key, "size": 3, "eTag": "e", "versionId": "v1"}},
    }


# -- what is told ------------------------------------------------------------------------------------------------------


def test_an_event_of_eventbridge_has_its_key_as_it_is() -> None:
    """Signs that look encoded are part of the name."""
    assert events_in(_event("in/a+b %41.csv")) == [Arrived(bucket=BUCKET, key="in/a+b %41.csv", version="v1", etag="e", size=3)]


def test_a_notification_has_records_with_encoded_keys() -> None:
    """Several in one message, in order; deletes and others among them are passed."""
    records = [_record("in/a+b+%C3%BC.csv"), _record(name="ObjectRemoved:Delete"), _record("in/c%2Bd.csv", "s3:ObjectCreated:Copy")]
    told = events_in(json.dumps({"Records": records}))
    assert told == [
        Arrived(bucket=BUCKET, key="in/a b ü.csv", version="v1", etag="e", size=3),
        Passed("other_event"),
        Arrived(bucket=BUCKET, key="in/c+d.csv", version="v1", etag="e", size=3),
    ]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": BUCKET}), "test_event"),
        (_event(kind="Object Deleted"), "other_event"),
        (_event(kind="Object Tags Added", detail=None), "other_event"),
        (_event(source="custom.app"), "other_event"),
    ],
)
def test_other_events_are_passed(body: str, why: str) -> None:
    """Tests, deletes, and what is no event of S3."""
    assert events_in(body) == [Passed(why)]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "7",
        "{}",
        "[" * 100_000,
        _event(""),
        _event(detail={}),
        _event(detail=None),
        _event(detail={"bucket": {"name": BUCKET}, "object": {"key": 5}}),
        _event(detail={"bucket": {"name": ""}, "object": {"key": "a"}}),
        json.dumps({"Records": [5]}),
        json.dumps({"Records": [_record(), {**_record(), "s3": None}]}),
        json.dumps({"Records": [_record("%FF")]}),
    ],
)
def test_a_malformed_message_is_refused(body: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(Permanent) as refused:
        events_in(body)
    assert refused.value.reason == "event_malformed"


# -- what becomes of it ------------------------------------------------------------------------------------------------


def _waiting(world: World, destination: str = "sftp-b", *, source: str = "s3-a", **selection: object) -> Flow:
    """A flow that waits for arrivals."""
    flow = world.flow(source, destination, selection=selection)
    changed = flow.model_copy(update={"trigger": Arrival(), "revision": flow.revision + 1})
    world.registry.change_flow(changed)
    return changed


def _arrive(world: World, *keys: str, bucket: str = BUCKET) -> Counter[str]:
    """Carries events through, queues what follows, and returns the counts."""
    counts: Counter[str] = Counter()
    for key in keys:
        taken = arrive(world.engine, Arrived(bucket=bucket, key=key), counts)
        assert taken.trouble is None
        world.queue += bundled(world.engine, list(taken.created))
    return counts


def test_an_arrival_is_delivered() -> None:
    """From the event to the file at the destination."""
    world = World()
    _waiting(world)
    world.server("s3-a").put("in/a.csv", b"abc")
    assert _arrive(world, "in/a.csv") == {"created": 1}
    world.drain()
    assert world.server("sftp-b").finals() == {"out/a.csv": b"abc"}
    assert [row.state for row in world.ledger.rows()] == [State.SETTLED]


def test_each_version_moves_once_however_events_come() -> None:
    """Duplicates, shuffled order and the listing besides make one transfer of each version; a new version is a new one."""
    world = World()
    flow = _waiting(world)
    keys = [f"in/{number}.csv" for number in range(40)]
    for key in keys:
        world.server("s3-a").put(key, key.encode())
    events = keys + keys[::3]
    random.Random(4).shuffle(events)
    counts = _arrive(world, *events)
    assert counts == {"created": 40, "known": 14}
    world.run(flow)
    assert len(world.ledger.rows()) == 40
    world.clock.advance(timedelta(seconds=5))
    world.server("s3-a").put("in/0.csv", b"new")
    assert _arrive(world, "in/0.csv", "in/0.csv") == {"created": 1, "known": 1}


@pytest.mark.parametrize("conflict", ["rename", "overwrite"])
def test_a_version_that_was_written_over_before_its_event_was_read_moves_too(conflict: str) -> None:
    """Whichever event comes first, and each once; an older one that comes after the newer was delivered is superseded, visibly."""
    for order in ((0, 1), (1, 0), (0,)):
        world = World()
        flow = _waiting(world)
        policy = flow.policy.model_copy(update={"conflict": ConflictMode(conflict)})
        world.registry.change_flow(flow.model_copy(update={"policy": policy, "revision": flow.revision + 1}))
        versions = []
        for data in (b"one", b"two"):
            versions.append(world.server("s3-a").put("in/a.csv", data).version)
            world.clock.advance(timedelta(seconds=5))
        counts: Counter[str] = Counter()
        for which in (*order, *order):
            taken = arrive(world.engine, Arrived(bucket=BUCKET, key="in/a.csv", version=versions[which]), counts)
            world.queue += bundled(world.engine, list(taken.created))
            world.drain()
        assert counts["created"] == 2
        finals = world.server("sftp-b").finals()
        if conflict == "rename" and order != (1, 0):
            assert sorted(finals.values()) == [b"one", b"two"]
        else:
            assert finals == {"out/a.csv": b"two"}
        assert [row.reason for row in world.ledger.rows() if row.state is not State.SETTLED] == ["superseded"] * (order == (1, 0))


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 2, 0), (2, 1, 0), (2, 0, 1)])
def test_of_versions_of_one_second_the_newest_stays(order: tuple[int, ...], *, staged: bool) -> None:
    """A bucket's times do not tell which is newer, so what stands under the key does; all others end, delivered before or superseded."""
    world = World()
    flow = _waiting(world)
    policy = flow.policy.model_copy(update={"conflict": ConflictMode.OVERWRITE, "staging": staged})
    world.registry.change_flow(flow.model_copy(update={"policy": policy, "revision": flow.revision + 1}))
    versions = [world.server("s3-a").put("in/a.csv", data).version for data in (b"one", b"two", b"three")]
    for which in order:
        taken = arrive(world.engine, Arrived(bucket=BUCKET, key="in/a.csv", version=versions[which]), Counter())
        for transfer in taken.created:
            world.queue += bundled(world.engine, [transfer])
            world.drain()
    assert world.server("sftp-b").finals() == {"out/a.csv": b"three"}
    assert [row.reason for row in world.ledger.rows() if row.state is not State.SETTLED] in ([], ["superseded"], ["superseded"] * 2)
    assert len(world.ledger.rows()) == 3


def test_the_last_of_a_second_that_its_owner_removed_comes_over_no_other() -> None:
    """Nothing tells then which was newer; it ends visibly."""
    world = World()
    flow = _waiting(world)
    policy = flow.policy.model_copy(update={"conflict": ConflictMode.OVERWRITE})
    world.registry.change_flow(flow.model_copy(update={"policy": policy, "revision": flow.revision + 1}))
    for data in (b"one", b"two"):
        world.server("s3-a").put("in/a.csv", data)
        _arrive(world, "in/a.csv")
    first = world.queue.popleft()
    world.drain()
    del world.server("s3-a").files["in/a.csv"]
    world.queue.append(first)
    world.drain()
    assert world.server("sftp-b").finals() == {"out/a.csv": b"two"}
    assert [row.reason for row in world.ledger.rows() if row.state is State.DEAD] == ["superseded"]
    assert list(world.ledger.reservations(world.ledger.rows()[0].partition)) == []


def test_a_version_is_delivered_though_it_is_written_over_meanwhile() -> None:
    """It was accepted, and its store keeps it."""
    world = World()
    _waiting(world)
    world.server("s3-a").put("in/a.csv", b"one")
    _arrive(world, "in/a.csv")
    world.server("s3-a").put("in/a.csv", b"another")
    world.drain()
    assert world.server("sftp-b").finals() == {"out/a.csv": b"one"}


def test_what_its_owner_has_removed_is_not_taken() -> None:
    """Though a bucket with versions keeps it, and its event comes."""
    world = World()
    _waiting(world)
    version = world.server("s3-a").put("in/a.csv", b"one").version
    del world.server("s3-a").files["in/a.csv"]
    counts: Counter[str] = Counter()
    assert not arrive(world.engine, Arrived(bucket=BUCKET, key="in/a.csv", version=version), counts).created
    world.server("s3-a").put("in/a.csv", b"two")
    gone = arrive(world.engine, Arrived(bucket=BUCKET, key="in/a.csv", version="000999"), counts)
    assert (len(gone.created), counts) == (1, {"vanished": 1, "created": 1})


def test_a_fault_of_ours_on_one_flow_keeps_no_other_waiting(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the flow's source is listed soon; the event does not go round for all."""
    world = World()
    for _ in range(2):
        _waiting(world)
    world.server("s3-a").put("in/a.csv", b"abc")
    world.ledger.trip("create", ValueError("a bug"))
    assert _arrive(world, "in/a.csv") == {"to_be_listed": 1, "created": 1}
    assert "a bug" in caplog.text


@pytest.mark.parametrize("trips", [("create", "fire"), ("failed",), ("selection",)])
def test_a_fault_of_ours_wherever_it_is_keeps_no_other_waiting(trips: tuple[str, ...]) -> None:
    """Nor that the trouble itself cannot be noted: then the event comes again, for what is created already is known."""

    class Broken(Selection):
        def names(self, path: str) -> bool:
            raise ValueError(path)

    world = World()
    flow, other = _waiting(world), _waiting(world)
    world.server("s3-a").put("in/a.csv", b"abc")
    if "create" in trips:
        world.ledger.trip("create", ValueError("a bug"))
        world.ledger.trip("fire", ValueError("another"))
    elif "failed" in trips:
        world.ledger.trip("create", Transient("away", reason="unreachable", endpoint="s3-a"))
        world.limits.trip("failed", Transient("throttled", reason="throttled"))
    else:
        broken = Broken(**flow.selection.model_dump())
        world.registry.change_flow(flow.model_copy(update={"selection": broken, "revision": flow.revision + 1}))
    counts: Counter[str] = Counter()
    taken = arrive(world.engine, Arrived(bucket=BUCKET, key="in/a.csv"), counts)
    assert [one.flow in {flow.id, other.id} for one in taken.created] == [True]
    assert counts == {"created": 1, "again" if "fire" in trips else "to_be_listed": 1}
    assert (taken.trouble is not None) == ("fire" in trips)


def test_what_the_listing_found_first_is_known_to_its_event() -> None:
    """Listings of S3 show no version ids, events do: both see the same."""
    world = World()
    flow = _waiting(world)
    world.server("s3-a").put("in/a.csv", b"abc")
    world.run(flow)
    assert _arrive(world, "in/a.csv") == {"known": 1}


def test_a_prefix_with_many_flows_serves_each() -> None:
    """Every flow whose directory and pattern take the key, at the price of one look at the object."""
    world = World()
    for pattern in ("*.csv", "*", "a.*", "*.txt"):
        _waiting(world, glob=pattern)
    _waiting(world, directory="other")
    _waiting(world, directory="", recursive=True)
    _waiting(world, directory="")
    world.server("s3-a").put("in/a.csv", b"abc")
    assert _arrive(world, "in/a.csv") == {"created": 4}
    assert world.server("s3-a").calls["stat"] == 1


def test_a_subdirectory_is_taken_only_by_recursive_flows() -> None:
    """As a listing has it."""
    world = World()
    _waiting(world)
    _waiting(world, recursive=True)
    world.server("s3-a").put("in/sub/a.csv", b"abc")
    assert _arrive(world, "in/sub/a.csv") == {"created": 1}


@pytest.mark.parametrize(
    ("key", "bucket", "why"),
    [
        ("in/folder/", BUCKET, "no_file"),
        ("in/.x.part", BUCKET, "no_file"),
        ("in/gone.csv", BUCKET, "vanished"),
        ("elsewhere/a.csv", BUCKET, "no_flow"),
        ("inside.csv", BUCKET, "no_flow"),
        ("in/a.csv", "bucket-s3-b", "unknown_bucket"),
        ("in/small.csv", BUCKET, "not_selected"),
    ],
)
def test_what_is_not_taken_is_counted(key: str, bucket: str, why: str) -> None:
    """Folder markers, our own temporary names, deleted objects, other prefixes and buckets, and what the selection leaves out."""
    world = World()
    _waiting(world, min_size=2)
    world.server("s3-a").put("in/small.csv", b"x")
    assert _arrive(world, key, bucket=bucket) == {why: 1}
    assert world.ledger.rows() == []


def test_a_paused_flow_takes_nothing() -> None:
    """Its bucket is no longer waited for."""
    world = World()
    flow = _waiting(world)
    world.registry.change_flow(flow.model_copy(update={"enabled": False, "revision": flow.revision + 1}))
    world.server("s3-a").put("in/a.csv", b"abc")
    assert _arrive(world, "in/a.csv") == {"unknown_bucket": 1}


def test_a_name_that_cannot_be_moved_is_shown_to_its_customer() -> None:
    """A dead transfer says why, once."""
    world = World()
    _waiting(world, recursive=True)
    world.server("s3-a").put("in//a.csv", b"abc")
    assert _arrive(world, "in//a.csv", "in//a.csv") == {"refused_name": 2}
    (row,) = world.ledger.rows()
    assert (row.state, row.reason) == (State.DEAD, "name_invalid")


def _other_tenants(world: World) -> Flow:
    """A flow of another tenant that waits for arrivals in the same bucket, by an endpoint that is down."""
    flow = _waiting(world)
    source, destination = (world.registry.endpoint(flow.tenant, name) for name in (flow.source, flow.destination))
    world.registry.add_endpoint(source.model_copy(update={"id": "s3-down", "tenant": "other"}))
    world.registry.add_endpoint(destination.model_copy(update={"tenant": "other"}))
    theirs = flow.model_copy(update={"id": "flow-other", "tenant": "other", "source": "s3-down"})
    world.registry.add_flow(theirs)
    return theirs


@pytest.mark.parametrize("shut", [False, True])
def test_another_tenants_trouble_keeps_no_event_going_round(shut: bool) -> None:
    """The event is done with for its owner; the other tenant's source is listed soon, whether it fails or its breaker is open."""
    world = World()
    theirs = _other_tenants(world)
    for _ in range(5 if shut else 0):
        world.limits.failed("s3-down", reason="unreachable")
    world.server("s3-a").put("in/a.csv", b"abc")
    assert _arrive(world, "in/a.csv", "in/a.csv") == {"created": 1, "known": 1, "to_be_listed": 2}
    world.stores.servers["s3-down"] = world.server("s3-a")
    world.sweep(after=timedelta(minutes=6))
    world.drain()
    assert {row.tenant for row in world.ledger.rows()} == {"acme", "other"}
    (fire,) = world.ledger.fires(theirs, limit=9)
    assert fire.outcome is not None
    assert fire.outcome["created"] == 1


def test_an_event_comes_again_where_nothing_of_it_could_be_noted() -> None:
    """The ledger takes neither the transfer nor the fire of a listing."""
    world = World()
    _waiting(world)
    world.server("s3-a").put("in/a.csv", b"abc")
    for call in ("create", "fire"):
        world.ledger.trip(call, Transient("throttled", reason="throttled"))
    counts: Counter[str] = Counter()
    assert isinstance(arrive(world.engine, Arrived(bucket=BUCKET, key="in/a.csv"), counts).trouble, Transient)
    assert counts == {"again": 1}
    assert _arrive(world, "in/a.csv") == {"created": 1}


def test_one_listing_follows_an_outage_in_which_much_arrived() -> None:
    """Each minute's listing but the latest ends as superseded, and that one takes all."""
    world = World()
    theirs = _other_tenants(world)
    for n in range(12):
        world.server("s3-a").put(f"in/{n}.csv", b"abc")
        assert _arrive(world, f"in/{n}.csv")["to_be_listed"] == 1
        world.clock.advance(timedelta(minutes=6))
        world.drain()
        for again in sweep(world.engine):
            world.deliver_message(again)
    world.stores.servers["s3-down"] = world.server("s3-a")
    world.sweep(after=timedelta(hours=1))
    world.drain()
    latest, *before = [fire.outcome for fire in world.ledger.fires(theirs, limit=99)]
    assert latest is not None
    assert latest["created"] == 12
    assert before == [{"superseded": 1}] * 11


def test_the_fingerprint_of_an_event_is_that_of_a_listing() -> None:
    """The version id does not enter a transfer's id."""
    seen = Fingerprint(size=3, etag="e", version="v1")
    assert seen.key() == Fingerprint(size=3, etag="e").key()


@pytest.mark.parametrize("asked", [{"stability": {"done_marker": "{name}.done"}}, {"stability": {"looks": 2, "apart": "PT1S"}}])
def test_a_flow_that_waits_for_more_than_an_object_is_listed_at_the_end_of_the_minute(asked: dict[str, Any]) -> None:
    """A file without its marker is not taken; all that arrives within a minute makes one listing."""
    world = World()
    flow = _waiting(world, **asked)
    for key in ("in/a.csv", "in/a.csv.done", "in/b.csv"):
        world.server("s3-a").put(key, b"abc")
    assert _arrive(world, "in/a.csv", "in/a.csv.done", "in/b.csv") == {"to_be_listed": 3}
    assert world.ledger.rows() == []
    assert len(world.ledger.fires(flow, limit=9)) == 1
    world.sweep(after=timedelta(minutes=2))
    world.drain()
    taken = {"out/a.csv"} if "done_marker" in str(asked) else {"out/a.csv", "out/a.csv.done", "out/b.csv"}
    assert set(world.server("sftp-b").finals()) == taken


def test_a_sidecar_that_arrives_makes_a_listing() -> None:
    """And the file is taken with it."""
    world = World()
    flow = _waiting(world)
    policy = flow.policy.model_copy(update={"sidecar": True})
    world.registry.change_flow(flow.model_copy(update={"policy": policy, "revision": flow.revision + 1}))
    world.server("s3-a").put("in/a.csv", b"1")
    world.server("s3-a").put("in/a.csv.sha256", b"6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b")
    assert _arrive(world, "in/a.csv.sha256") == {"to_be_listed": 1}
    world.sweep(after=timedelta(minutes=2))
    world.drain()
    assert world.server("sftp-b").finals() == {"out/a.csv": b"1"}
