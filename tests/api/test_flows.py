"""Flows: created over endpoints that exist, changed by version, paused, resumed, run, deleted."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from api.app import create_app
from api.auth import AuthSettings
from eft.domain.flow import Cron, Disposition, Interval, Misfire
from eft.domain.memory import Memory
from eft.domain.transfer import Step
from eft.errors import Conflict, Transient
from eft.ports import Peer
from tests.api.conftest import AUDIENCE, ISSUER, Client, Issuer, Queue, fields, problem
from tests.fake_regions import FakeOwnershipTable
from tests.fakes import FakeLedger
from tests.world import World

PATH = "/v1/flows"


def flow(**changes: object) -> dict[str, Any]:
    """Returns a flow to create; a change of None leaves the field out."""
    whole = {"name": "Daily reports", "source": "sftp-a", "destination": "s3-a", **changes}
    return {name: value for name, value in whole.items() if value is not None}


def create(client: Client, **changes: object) -> dict[str, Any]:
    """Creates a flow and returns it."""
    answer = client.post(PATH, flow(**changes))
    assert answer.status_code == 201, answer.text
    shown: dict[str, Any] = answer.get_json()
    return shown


def test_a_flow_is_created_once_under_a_key(acme: Client, world: World) -> None:
    """Repeated while the flow is as asked for it is the same one; another body, or a change since, needs another key."""
    first = acme.post(PATH, flow(), Idempotency_Key="k1")
    world.clock.advance(timedelta(minutes=1))
    again = acme.post(PATH, flow(), Idempotency_Key="k1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.get_json()["id"] == first.get_json()["id"]
    problem(acme.post(PATH, flow(name="another"), Idempotency_Key="k1"), 422, "idempotency_mismatch")
    assert create(acme)["id"] != first.get_json()["id"] != acme.post(PATH, flow(), Idempotency_Key="k2").get_json()["id"]
    acme.patch(f"{PATH}/{first.get_json()['id']}", {"name": "changed"}, If_Match='"1"')
    problem(acme.post(PATH, flow(), Idempotency_Key="k1"), 422, "idempotency_mismatch")
    assert len(acme.get(PATH).get_json()["items"]) == 3
    problem(acme.post(PATH, flow(), Idempotency_Key="k" * 999), 422, "request_invalid")


def test_a_run_is_one_run_under_a_key(acme: Client, world: World) -> None:
    """A lost answer is asked for again; another key, or none, is another run."""
    base = f"{PATH}/{create(acme)['id']}"
    first = acme.post(f"{base}/run", Idempotency_Key="k1").get_json()["fire"]
    world.clock.advance(timedelta(minutes=1))
    assert acme.post(f"{base}/run", Idempotency_Key="k1").get_json()["fire"] == first
    others = {acme.post(f"{base}/run", **keys).get_json()["fire"] for keys in ({"Idempotency_Key": "k2"}, {}, {})}
    assert len({first, *others}) == 4
    past = {"modified_from": "2025-01-01T00:00:00Z", "modified_until": "2025-01-02T00:00:00Z"}
    fires = {acme.post(f"{base}/backfill", past, Idempotency_Key="k3").get_json()["fire"] for _ in range(2)}
    assert len(fires) == 1
    for path, body in (("run", None), ("backfill", past | {"modified_until": "2025-01-03T00:00:00Z"})):
        problem(acme.post(f"{base}/{path}", body, Idempotency_Key="k3"), 422, "idempotency_mismatch")
    problem(acme.post(f"{base}/backfill", past, Idempotency_Key="k1"), 422, "idempotency_mismatch")


def test_create(acme: Client, world: World) -> None:
    """A flow is kept with every field given, and shown as it is kept, defaults and all."""
    whole = {
        "destination_directory": "in/reports",
        "selection": {
            "directory": "outbox",
            "glob": "*.csv",
            "recursive": True,
            "min_size": 1,
            "max_size": 10**12,
            "min_age": "PT30S",
            "max_age": "P7D",
            "max_depth": 3,
            "exclude": ["*.tmp"],
            "forget_after": "P30D",
            "stability": {"looks": 3, "apart": "PT20S", "done_marker": "{name}.done"},
        },
        "policy": {
            "name_template": "{date:%Y/%m/%d}/{name}",
            "conflict": "rename",
            "disposition": "archive",
            "archive_directory": "outbox/done",
            "create_directories": False,
            "checksum": "sha256",
            "sidecar": True,
            "staging": True,
            "receiver_removes": True,
            "priority": "urgent",
            "retry": {"tries": 3, "first": "PT1S", "longest": "PT1M"},
        },
        "trigger": {
            "kind": "cron",
            "cron": "*/5 6-18 * * 1-5",
            "timezone": "Europe/Berlin",
            "calendar": {"weekdays": ["mon", "tue"], "holidays": "DE-BY", "closed": ["2025-12-24"], "open": ["2025-12-25"]},
            "blackouts": [
                {"kind": "daily", "begin": "22:00:00", "end": "04:00:00", "weekdays": ["mon"]},
                {"kind": "span", "begin": "2025-12-24T00:00:00Z", "end": "2025-12-27T00:00:00Z"},
            ],
            "misfire": "all",
            "jitter": "PT5M",
        },
        "expected": {
            "by": "0 6 * * *",
            "timezone": "America/New_York",
            "within": "PT6H",
            "files": 2,
            "warn_before": "PT1H",
            "calendar": None,
        },
        "enabled": False,
    }
    answer = acme.post(PATH, flow(**whole))
    assert answer.status_code == 201
    shown = answer.get_json()
    assert answer.headers["ETag"] == '"1"'
    assert answer.headers["Location"] == f"{PATH}/{shown['id']}"
    for field in ("destination_directory", "enabled"):
        assert shown[field] == whole[field]
    for field in ("selection", "policy", "trigger", "expected"):
        asked = whole[field]
        assert isinstance(asked, dict)
        assert {name: shown[field][name] for name in asked} == asked
    kept = world.registry.flow("acme", shown["id"])
    assert kept.policy.disposition is Disposition.ARCHIVE
    assert kept.selection.max_age == timedelta(days=7)
    assert isinstance(kept.trigger, Cron)
    assert (kept.trigger.misfire, kept.trigger.jitter, len(kept.trigger.blackouts)) == (Misfire.ALL, timedelta(minutes=5), 2)
    assert shown.pop("warnings") == ["the source could not be listed: no directory 'outbox'"]
    assert acme.get(answer.headers["Location"]).get_json() == shown


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": None}, "/name"),
        ({"source": None}, "/source"),
        ({"source": "sftp-x"}, "/source"),
        ({"destination": "../x"}, "/destination"),
        ({"destination": "ep-none"}, "/destination"),
        ({"destination_directory": "a/../b"}, "/destination_directory"),
        ({"selection": {"directory": ".."}}, "/selection/directory"),
        ({"selection": {"glob": "*", "regex": ".*"}}, "/selection"),
        ({"selection": {"regex": "("}}, "/selection/regex"),
        ({"selection": {"regex": "x" * 501}}, "/selection/regex"),
        ({"selection": {"min_size": -1}}, "/selection/min_size"),
        ({"selection": {"min_age": "-PT1S"}}, "/selection"),
        ({"selection": {"min_age": 30}}, "/selection/min_age"),
        ({"selection": {"min_age": "soon"}}, "/selection/min_age"),
        ({"selection": {"globs": "*"}}, "/selection/globs"),
        ({"selection": {"glob": "[" * 256}}, "/selection/glob"),
        ({"selection": {"regex": r"\pL{300}"}}, "/selection/regex"),
        ({"policy": {"name_template": "a" * 1025}}, "/policy/name_template"),
        ({"trigger": {"kind": "cron", "cron": ",".join(["1"] * 200) + " * * * *"}}, "/trigger/cron"),
        ({"selection": []}, "/selection"),
        ({"policy": {"conflict": "maybe"}}, "/policy/conflict"),
        ({"policy": {"name_template": "{nme}"}}, "/policy/name_template"),
        ({"policy": {"disposition": "archive"}}, "/policy"),
        ({"policy": {"disposition": "archive", "archive_directory": "../x"}}, "/policy/archive_directory"),
        ({"policy": {"retry": {"tries": 0}}}, "/policy/retry/tries"),
        ({"policy": {"retry": {"tries": "3"}}}, "/policy/retry/tries"),
        ({"policy": {"staging": "yes"}}, "/policy/staging"),
        ({"trigger": {"kind": "hourly"}}, "/trigger/kind"),
        ({"trigger": {"cron": "* * * * *"}}, "/trigger/kind"),
        ({"trigger": {"kind": "interval"}}, "/trigger/every"),
        ({"trigger": {"kind": "interval", "every": "PT0S"}}, "/trigger/every"),
        ({"trigger": {"kind": "interval", "every": 60}}, "/trigger/every"),
        ({"trigger": {"kind": "cron", "cron": 5}}, "/trigger/cron"),
        ({"trigger": {"kind": "cron", "cron": "* * * *"}}, "/trigger/cron"),
        ({"trigger": {"kind": "cron", "cron": "61 * * * *"}}, "/trigger/cron"),
        ({"trigger": {"kind": "cron", "cron": "* * * * *", "timezone": "Mars/Base"}}, "/trigger/timezone"),
        ({"trigger": {"kind": "manual", "cron": "* * * * *"}}, "/trigger/cron"),
        ({"selection": {"stability": {"looks": 0}}}, "/selection/stability/looks"),
        ({"selection": {"stability": {"done_marker": "a/{name}"}}}, "/selection/stability/done_marker"),
        ({"selection": {"stability": {"done_marker": "{name}"}}}, "/selection/stability/done_marker"),
        ({"selection": {"max_depth": 2}}, "/selection"),
        ({"selection": {"forget_after": "PT1H"}}, "/selection/forget_after"),
        ({"trigger": {"kind": "cron", "cron": "* * * * * *"}}, "/trigger/cron"),
        ({"trigger": {"kind": "once", "at": "2025-01-06T08:59:59Z"}}, "/trigger"),
        ({"trigger": {"kind": "once", "at": "tomorrow"}}, "/trigger/at"),
        ({"trigger": {"kind": "cron", "cron": "0 6 * * 6", "calendar": {}}}, "/trigger"),
        ({"trigger": {"kind": "interval", "every": "PT1M", "calendar": {"holidays": "XX"}}}, "/trigger/calendar/holidays"),
        ({"trigger": {"kind": "interval", "every": "PT1M", "misfire": "always"}}, "/trigger/misfire"),
        (
            {"trigger": {"kind": "interval", "every": "PT1M", "blackouts": [{"kind": "daily", "begin": "01:00", "end": "01:00"}]}},
            "/trigger/blackouts/0",
        ),
        (
            {
                "trigger": {
                    "kind": "interval",
                    "every": "PT5M",
                    "blackouts": [{"kind": "span", "begin": "2025-01-01T00:00:00Z", "end": "9999-12-31T23:59:59Z"}],
                }
            },
            "/trigger",
        ),
        ({"expected": {"by": "at six"}}, "/expected/by"),
        ({"expected": {"by": "0 6 * * 6", "calendar": {}}}, "/expected"),
        ({"selection": {"min_size": 2, "max_size": 1}}, "/selection"),
        ({"selection": {"min_age": "PT2H", "max_age": "PT1H"}}, "/selection"),
        ({"expected": {"by": "0 6 * * *", "within": "PT1H", "warn_before": "PT2H"}}, "/expected"),
        ({"source": "sftp-a", "trigger": {"kind": "arrival"}}, "/source"),
        ({"source": "s3-a", "trigger": {"kind": "arrival", "listed_every": "PT1S"}}, "/trigger/listed_every"),
        ({"policy": {"receiver_keeps": True, "receiver_removes": True}}, "/policy"),
        ({"enabled": "true"}, "/enabled"),
        ({"tenant": "other"}, "/tenant"),
        ({"revision": 3}, "/revision"),
    ],
)
def test_bad_flow(acme: Client, world: World, changes: dict[str, Any], field: str) -> None:
    """Each bad value is refused with 422 that names its field; nothing is kept."""
    assert field in fields(problem(acme.post(PATH, flow(**changes)), 422, "request_invalid"))
    assert world.registry.flows("acme").items == []


@pytest.mark.parametrize(("misfire", "status"), [("once", 201), ("all", 201), ("skip", 422)])
def test_a_schedule_inside_a_blackout_is_taken_if_it_is_made_up_for(acme: Client, misfire: str, status: int) -> None:
    """At the blackout's end; with `skip` it would never fire."""
    nightly = {"kind": "cron", "cron": "0 2 * * *", "misfire": misfire, "blackouts": [{"kind": "daily", "begin": "01:00", "end": "04:00"}]}
    answer = acme.post(PATH, flow(trigger=nightly))
    assert answer.status_code == status
    if status == 201:
        coming = acme.get(f"{PATH}/{answer.get_json()['id']}/fires?limit=1").get_json()["coming"]
        assert coming == ["2025-01-07T04:00:00Z"]


def test_a_flow_may_wait_for_arrivals_in_a_bucket(acme: Client, world: World) -> None:
    """It is found by its bucket from then on, and cannot be moved to a source that has none."""
    made = create(acme, source="s3-a", trigger={"kind": "arrival"})
    assert made["trigger"] == {"kind": "arrival", "listed_every": "PT1H"}
    assert [(found.id, source.id) for found, source in world.registry.arrival_flows("bucket-s3-a")] == [(made["id"], "s3-a")]
    refused = acme.patch(f"{PATH}/{made['id']}", {"source": "sftp-a"}, If_Match='"1"')
    assert fields(problem(refused, 422, "request_invalid")) == ["/source"]


def test_both_endpoints_unknown(acme: Client, other: Client) -> None:
    """Unknown endpoints are named both at once, and another tenant's endpoints are unknown."""
    told = problem(other.post(PATH, flow()), 422, "request_invalid")
    assert fields(told) == ["/source", "/destination"]


def test_listing(acme: Client, other: Client) -> None:
    """A list shows a tenant's own flows, page by page, each once."""
    made = {create(acme, name=f"flow {n}")["id"] for n in range(3)}
    first = acme.get(f"{PATH}?limit=2").get_json()
    second = acme.get(f"{PATH}?limit=2&cursor={first['next_cursor']}").get_json()
    assert {item["id"] for item in (*first["items"], *second["items"])} == made
    assert second["next_cursor"] is None
    assert other.get(PATH).get_json() == {"items": [], "next_cursor": None}


def test_others_do_not_exist(acme: Client, other: Client, world: World, queue: Queue) -> None:
    """Another tenant's flow answers 404 to everything, exactly as one that does not exist, and neither runs nor changes."""
    made = create(acme)
    for id_ in (made["id"], "fl-unknown"):
        base = f"{PATH}/{id_}"
        for answer in (
            other.get(base),
            other.patch(base, {"name": "x"}, If_Match='"1"'),
            other.delete(base),
            other.post(f"{base}/run"),
            other.post(f"{base}/plan"),
            other.post(f"{base}/backfill", {"modified_from": "2025-01-01T00:00:00Z", "modified_until": "2025-01-02T00:00:00Z"}),
            other.get(f"{base}/fires"),
            other.post(f"{base}/pause"),
            other.post(f"{base}/resume"),
        ):
            problem(answer, 404, "flow_unknown")
    assert world.registry.flow("acme", made["id"]).revision == 1
    assert queue.sent == []


def test_change(acme: Client, world: World) -> None:
    """A change merges into what is there: nested fields not named stay, null sets one back, a trigger of another kind replaces the old."""
    made = create(
        acme,
        selection={"directory": "outbox", "glob": "*.csv"},
        policy={"conflict": "rename", "retry": {"tries": 3}},
        trigger={"kind": "cron", "cron": "0 6 * * *"},
    )
    base = f"{PATH}/{made['id']}"
    patch = {
        "selection": {"glob": None, "recursive": True},
        "policy": {"retry": {"first": "PT1S"}},
        "trigger": {"kind": "interval", "every": "PT1M"},
    }
    answer = acme.patch(base, patch, If_Match='"1"')
    assert answer.status_code == 200, answer.text
    assert answer.headers["ETag"] == '"2"'
    kept = world.registry.flow("acme", made["id"])
    assert (kept.selection.directory, kept.selection.glob, kept.selection.recursive) == ("outbox", None, True)
    assert (kept.policy.conflict, kept.policy.retry.tries, kept.policy.retry.first) == ("rename", 3, timedelta(seconds=1))
    assert kept.trigger == Interval(every=timedelta(minutes=1))
    assert kept.created == world.clock.now()
    faster = acme.patch(base, {"trigger": {"every": "PT2M", "jitter": "PT1M"}}, If_Match='"2"').get_json()["trigger"]
    assert (faster["kind"], faster["every"], faster["jitter"]) == ("interval", "PT2M", "PT1M")
    assert acme.patch(base, {"trigger": None}, If_Match='"3"').get_json()["trigger"] == {"kind": "manual"}


def test_change_needs_version(acme: Client) -> None:
    """A change without If-Match is 428 and one with an old one 412; a deletion heeds If-Match where it is given."""
    base = f"{PATH}/{create(acme)['id']}"
    problem(acme.patch(base, {"name": "x"}), 428, "precondition_missing")
    problem(acme.patch(base, {"name": "x"}, If_Match='"9"'), 412, "revision_differs")
    problem(acme.post(f"{base}/pause", If_Match='"9"'), 412, "revision_differs")
    problem(acme.delete(base, If_Match='"9"'), 412, "revision_differs")
    assert acme.get(base).headers["ETag"] == '"1"'


@pytest.mark.parametrize(
    ("patch", "field"),
    [
        ({"source": "ep-none"}, "/source"),
        ({"name": None}, "/name"),
        ({"id": "x"}, "/id"),
        ({"policy": {"conflict": 5}}, "/policy/conflict"),
        ([1], ""),
    ],
)
def test_bad_change(acme: Client, patch: object, field: str) -> None:
    """A change that would make something impossible is refused with 422 that names the field, and changes nothing."""
    base = f"{PATH}/{create(acme)['id']}"
    assert field in fields(problem(acme.patch(base, patch, If_Match='"1"'), 422, "request_invalid"))
    assert acme.get(base).headers["ETag"] == '"1"'


def test_run(acme: Client, world: World, queue: Queue) -> None:
    """Running a flow notes a fire in the ledger, queues its discover, and names the fire; a paused flow runs too when asked."""
    made = create(acme, enabled=False, selection={"directory": "in"})
    world.server("sftp-a").put("in/a.csv", b"a")
    answer = acme.post(f"{PATH}/{made['id']}/run")
    assert answer.status_code == 202
    fire = answer.get_json()["fire"]
    assert [(m.step, m.ids) for m in queue.sent] == [(Step.DISCOVER, (f"acme/{made['id']}/{fire}",))]
    world.queue += queue.sent
    world.drain()
    assert [t.flow for t in world.ledger.rows()] == [made["id"]]


def test_run_with_queue_down(acme: Client, world: World, queue: Queue) -> None:
    """When the queue is down the run is accepted all the same: the fire is in the ledger, and the sweep finds it."""
    made = create(acme)
    queue.down = ConnectionError("no queue")
    assert acme.post(f"{PATH}/{made['id']}/run").status_code == 202
    world.sweep()
    assert [m.step for m in world.queue] == [Step.DISCOVER]


def test_pause_and_resume(acme: Client, world: World) -> None:
    """A paused flow is disabled until resumed; doing either twice changes nothing more."""
    made = create(acme, trigger={"kind": "interval", "every": "PT1M"})
    base = f"{PATH}/{made['id']}"
    assert acme.post(f"{base}/pause").get_json()["enabled"] is False
    assert acme.post(f"{base}/pause").headers["ETag"] == '"2"'
    assert list(world.registry.scheduled_flows()) == []
    del made["warnings"]
    world.clock.advance(60)
    assert acme.post(f"{base}/resume", If_Match='"2"').get_json() == {**made, "revision": 3}
    assert world.registry.flow("acme", made["id"]).scheduled_since == world.clock.now()
    assert [each.id for each in world.registry.scheduled_flows()] == [made["id"]]


def test_a_flow_whose_time_has_passed_is_not_resumed(acme: Client, world: World) -> None:
    """It would never run: 422 says so, instead of a flow that looks as if it were on."""
    made = create(acme, trigger={"kind": "once", "at": (world.clock.now() + timedelta(minutes=5)).isoformat()}, enabled=False)
    world.clock.advance(timedelta(minutes=6))
    for refused in (
        acme.post(f"{PATH}/{made['id']}/resume"),
        acme.patch(f"{PATH}/{made['id']}", {"enabled": True}, If_Match='"1"'),
    ):
        assert fields(problem(refused, 422, "request_invalid")) == ["/trigger"]
    assert acme.get(f"{PATH}/{made['id']}").get_json()["enabled"] is False


def test_pause_races(acme: Client, world: World) -> None:
    """Pausing without If-Match rides over changes by others, though not for ever; with If-Match it tells of them."""
    base = f"{PATH}/{create(acme)['id']}"
    changed = Conflict("it changed", reason="revision_differs")
    world.registry.trip("change_flow", changed, times=2)
    assert acme.post(f"{base}/pause").status_code == 200
    world.registry.trip("change_flow", changed, times=3)
    problem(acme.post(f"{base}/resume"), 412, "revision_differs")
    world.registry.trip("change_flow", changed)
    problem(acme.post(f"{base}/resume", If_Match='"2"'), 412, "revision_differs")


def test_delete(acme: Client, world: World) -> None:
    """A deleted flow is gone; its transfers stay."""
    made = create(acme, selection={"directory": "in"})
    world.server("sftp-a").put("in/a.csv", b"a")
    world.run(world.registry.flow("acme", made["id"]))
    assert acme.delete(f"{PATH}/{made['id']}", If_Match='"1"').status_code == 204
    problem(acme.get(f"{PATH}/{made['id']}"), 404, "flow_unknown")
    assert len(acme.get(f"/v1/transfers?flow={made['id']}").get_json()["items"]) == 1


@pytest.mark.parametrize("away", [False, True])
def test_what_a_deleted_flow_remembers_goes(world: World, issuer: Issuer, *, away: bool) -> None:
    """In both regions; a ledger that cannot be reached then keeps nobody from deleting it, nor the other one from forgetting."""
    there = FakeLedger()
    table = FakeOwnershipTable()
    engine = replace(world.engine, peer=Peer(region="b", own=table, table=table, ledger=there))
    acme = Client(create_app(engine, Queue(), AuthSettings(issuer=ISSUER, audience=AUDIENCE, jwks=str(issuer.file))), issuer.token())
    flow = world.registry.flow("acme", create(acme)["id"])
    for ledger in (world.ledger, there):
        assert ledger.remember(flow, Memory(decided={1}))
    if away:
        world.ledger.trip("forget", Transient("away", reason="throttled"))
    assert acme.delete(f"{PATH}/{flow.id}").status_code == 204
    assert there.memory(flow) == Memory()
    assert (world.ledger.memory(flow) == Memory()) is not away


def test_plan(acme: Client, world: World, queue: Queue) -> None:
    """A plan says for each file what would happen and why, and does nothing."""
    made = create(acme, selection={"directory": "in", "glob": "*.csv"}, destination_directory="out")
    for name in ("a.csv", "b.csv", "c.txt"):
        world.server("sftp-a").put(f"in/{name}", b"a")
    told = acme.post(f"{PATH}/{made['id']}/plan?limit=2").get_json()
    assert [(one["path"], one["why"]) for one in told["items"]] == [
        ("in/a.csv", "would move to out/a.csv"),
        ("in/b.csv", "would move to out/b.csv"),
    ]
    assert told["counts"] == {"move": 2, "skip": 1}
    assert (told["complete"], told["destination_trouble"]) == (True, None)
    assert (world.ledger.rows(), queue.sent) == ([], [])
    problem(acme.post(f"{PATH}/{made['id']}/plan?limit=0"), 422, "request_invalid")
    for holder in "abcd":
        world.limits.acquire("plan/acme", limit=4, holder=holder, lease=timedelta(minutes=1))
    problem(acme.post(f"{PATH}/{made['id']}/plan"), 429, "too_many_plans")
    assert create(acme)["warnings"] == ["the source was not looked at: too many of your plans run now"]


def test_a_plan_of_a_source_that_is_not_there(acme: Client) -> None:
    """Its trouble is a problem with its reason."""
    made = create(acme, selection={"directory": "nowhere"})
    problem(acme.post(f"{PATH}/{made['id']}/plan"), 409, "directory_missing")


def test_warnings(acme: Client, world: World) -> None:
    """A flow that nothing matches is made, and says so; a change that leaves source and selection alone does not look."""
    world.server("sftp-a").put("a.txt", b"a")
    made = create(acme, selection={"glob": "*.csv"})
    assert made["warnings"] == ["nothing in the source's root matches the pattern: it holds 1 file now"]
    base = f"{PATH}/{made['id']}"
    assert acme.patch(base, {"name": "x"}, If_Match='"1"').get_json()["warnings"] == []
    assert acme.patch(base, {"selection": {"glob": "*.txt"}}, If_Match='"2"').get_json()["warnings"] == []
    assert len(acme.patch(base, {"selection": {"glob": "*.xml"}}, If_Match='"3"').get_json()["warnings"]) == 1


def test_backfill(acme: Client, world: World, queue: Queue) -> None:
    """Files modified in a time in the past are taken, however old the flow lets them be; others are not, and none twice."""
    made = create(acme, selection={"directory": "in", "max_age": "PT1H"})
    for hours in range(6):
        world.server("sftp-a").put(f"in/{hours}.csv", b"a")
        world.clock.advance(timedelta(hours=1))
    begin = world.clock.now() - timedelta(hours=5)
    asked = {"modified_from": begin.isoformat(), "modified_until": (begin + timedelta(hours=2)).isoformat()}
    for _ in range(2):
        assert acme.post(f"{PATH}/{made['id']}/backfill", asked).status_code == 202
        world.queue += queue.sent
        world.drain()
        assert [row.source.path for row in world.ledger.rows()] == ["in/1.csv", "in/2.csv"]
    (latest, _) = acme.get(f"{PATH}/{made['id']}/fires").get_json()["latest"]
    assert (latest["kind"], latest["ended"], latest["files"]["listed"]) == ("backfill", True, 6)
    asked["modified_until"] = asked["modified_from"]
    problem(acme.post(f"{PATH}/{made['id']}/backfill", asked), 422, "request_invalid")


def test_backfill_of_all_times(acme: Client, world: World, queue: Queue) -> None:
    """From the year 1 until the year 9999 means everything; a time that UTC has no name for is refused with 422."""
    made = create(acme, selection={"directory": "in"})
    world.server("sftp-a").put("in/a.csv", b"a")
    asked = {"modified_from": "0001-01-01T00:00:00Z", "modified_until": "9999-12-31T23:59:59Z"}
    assert acme.post(f"{PATH}/{made['id']}/backfill", asked).status_code == 202
    world.queue += queue.sent
    world.drain()
    assert [row.source.path for row in world.ledger.rows()] == ["in/a.csv"]
    asked["modified_until"] = "9999-12-31T23:59:59-01:00"
    assert fields(problem(acme.post(f"{PATH}/{made['id']}/backfill", asked), 422, "request_invalid")) == ["/modified_until"]


def test_a_run_that_failed_says_why(acme: Client, world: World, queue: Queue) -> None:
    """By a stable reason and in words: the source has no such directory."""
    made = create(acme, selection={"directory": "gone"})
    acme.post(f"{PATH}/{made['id']}/run")
    world.queue += queue.sent
    world.drain()
    (latest,) = acme.get(f"{PATH}/{made['id']}/fires").get_json()["latest"]
    assert (latest["files"], latest["reason"]) == ({"failed": 1}, "directory_missing")
    assert "gone" in latest["error"]


def test_fires(acme: Client, world: World, queue: Queue) -> None:
    """Coming times are told while the flow is on, and what became of the latest."""
    made = create(acme, selection={"directory": "in"}, trigger={"kind": "cron", "cron": "0 6 * * *", "timezone": "Europe/Berlin"})
    base = f"{PATH}/{made['id']}"
    fire = acme.post(f"{base}/run").get_json()["fire"]
    told = acme.get(f"{base}/fires?limit=2").get_json()
    assert told["coming"] == ["2025-01-07T05:00:00Z", "2025-01-08T05:00:00Z"]
    assert told["latest"] == [
        {"fire": fire, "kind": "asked", "at": "2025-01-06T09:00:00Z", "ended": False, "files": None, "reason": None, "error": None}
    ]
    acme.post(f"{base}/pause")
    assert acme.get(f"{base}/fires").get_json()["coming"] == []
