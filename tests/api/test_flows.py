"""Flows: created over endpoints that exist, changed by version, paused, resumed, run, deleted."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from eft.domain.flow import Cron, Disposition, Interval
from eft.domain.transfer import Step
from eft.errors import Conflict
from tests.api.conftest import Client, Queue, fields, problem
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
        "trigger": {"kind": "cron", "cron": "*/5 6-18 * * 1-5", "timezone": "Europe/Berlin"},
        "enabled": False,
    }
    answer = acme.post(PATH, flow(**whole))
    assert answer.status_code == 201
    shown = answer.get_json()
    assert answer.headers["ETag"] == '"1"'
    assert answer.headers["Location"] == f"{PATH}/{shown['id']}"
    for field in ("destination_directory", "trigger", "enabled"):
        assert shown[field] == whole[field]
    for field in ("selection", "policy"):
        asked = whole[field]
        assert isinstance(asked, dict)
        assert {name: shown[field][name] for name in asked} == asked
    kept = world.registry.flow("acme", shown["id"])
    assert kept.policy.disposition is Disposition.ARCHIVE
    assert kept.selection.max_age == timedelta(days=7)
    assert kept.trigger == Cron(cron="*/5 6-18 * * 1-5", timezone="Europe/Berlin")
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
        ({"source": "sftp-a", "trigger": {"kind": "arrival"}}, "/source"),
        ({"source": "s3-a", "trigger": {"kind": "arrival", "listed_every": "PT1S"}}, "/trigger/listed_every"),
        ({"enabled": "true"}, "/enabled"),
        ({"tenant": "other"}, "/tenant"),
        ({"revision": 3}, "/revision"),
    ],
)
def test_bad_flow(acme: Client, world: World, changes: dict[str, Any], field: str) -> None:
    """Each bad value is refused with 422 that names its field; nothing is kept."""
    assert field in fields(problem(acme.post(PATH, flow(**changes)), 422, "request_invalid"))
    assert world.registry.flows("acme").items == []


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
    assert acme.patch(base, {"trigger": {"every": "PT2M"}}, If_Match='"2"').get_json()["trigger"] == {"kind": "interval", "every": "PT2M"}
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
    assert acme.post(f"{base}/resume", If_Match='"2"').get_json() == {**made, "revision": 3}
    assert [each.id for each in world.registry.scheduled_flows()] == [made["id"]]


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
