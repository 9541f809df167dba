"""Transfers: submitted once, followed, cancelled, re-driven; never another tenant's."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import pytest

from eft.domain.names import partition_of, transfer_id
from eft.domain.transfer import State, Step
from eft.errors import LostOwnership, Permanent, Transient, Undecidable
from tests.api.conftest import Client, Queue, fields, problem
from tests.world import World

PATH = "/v1/transfers"


def asked(**changes: object) -> dict[str, Any]:
    """Returns a transfer to submit; a change of None leaves the field out."""
    whole = {
        "source": {"endpoint": "sftp-a", "path": "in/a.bin"},
        "destination": {"endpoint": "s3-a", "path": "out/a.bin"},
        **changes,
    }
    return {name: value for name, value in whole.items() if value is not None}


def submit(client: Client, **changes: object) -> dict[str, Any]:
    """Submits a transfer and returns it."""
    answer = client.post(PATH, asked(**changes))
    assert answer.status_code == 202, answer.text
    shown: dict[str, Any] = answer.get_json()
    return shown


def carry_out(world: World, queue: Queue) -> None:
    """Does all that is queued."""
    world.queue += queue.sent
    queue.sent.clear()
    world.drain()


def test_submit_and_follow(acme: Client, world: World, queue: Queue) -> None:
    """A submitted transfer is in the ledger when 202 is answered, its first step is queued, and it can be followed to its receipt."""
    data = b"x" * 1000
    world.server("sftp-a").put("in/a.bin", data)
    sha256 = hashlib.sha256(data).hexdigest()
    answer = acme.post(PATH, asked(expected_sha256=sha256, policy={"conflict": "overwrite"}))
    assert answer.status_code == 202
    shown = answer.get_json()
    assert answer.headers["Location"] == f"{PATH}/{shown['id']}"
    assert world.ledger.load(shown["id"]).state is State.ACCEPTED
    assert [(m.step, m.ids) for m in queue.sent] == [(Step.DELIVER, (shown["id"],))]
    assert shown["source"] == {"endpoint": "sftp-a", "kind": "sftp", "path": "in/a.bin"}
    assert shown["policy"]["conflict"] == "overwrite"
    assert shown["next_step"] == "deliver"
    assert shown["progress"] == {"into": None, "bytes_done": 0, "bytes_total": None, "parts_done": 0, "parts_total": None}

    carry_out(world, queue)
    done = acme.get(answer.headers["Location"]).get_json()
    assert done["state"] == "settled"
    assert done["size"] == 1000
    assert done["next_step"] is None
    assert done["next_try"] is None
    assert done["receipt"]["checksum"] == f"sha256:{sha256}"
    assert done["receipt"]["path"] == "out/a.bin"
    assert done["progress"]["bytes_done"] == done["progress"]["bytes_total"] == 1000
    states = [event["state"] for event in done["timeline"]]
    assert states[0] == "accepted"
    assert states[-1] == "settled"
    assert {"delivering", "committing", "delivered"} <= set(states)
    assert all({"at", "attempt", "bytes", "error", "reason", "by"} <= event.keys() for event in done["timeline"])


def test_no_workings_shown(acme: Client, world: World, queue: Queue) -> None:
    """What only workers need, the one-shot token above all, is not shown."""
    world.server("sftp-a").put("in/a.bin", b"x")
    shown = submit(acme)
    carry_out(world, queue)
    done = acme.get(f"{PATH}/{shown['id']}").get_json()
    assert (
        not {"commit", "upload", "staging", "fence", "partition", "tenant", "request_hash", "region_epoch", "disposal_tokens"} & done.keys()
    )
    token = world.ledger.load(shown["id"]).commit
    assert token is not None
    assert token.token not in str(done)


def test_progress_while_under_way(acme: Client, world: World, queue: Queue) -> None:
    """While a file is copied, progress counts the parts that are durable so far."""
    part = world.tuning.part_size
    world.server("sftp-a").put("in/a.bin", bytes(2 * part + part // 2))
    shown = submit(acme)
    seen: list[dict[str, Any]] = []

    def look(call: str) -> None:
        world.clock.advance(timedelta(seconds=1))
        if len(world.ledger.parts(shown["id"], attempt=1)) == 2 and not seen:
            seen.append(acme.get(f"{PATH}/{shown['id']}").get_json())

    world.server("s3-a").watch = look
    carry_out(world, queue)
    assert seen[0]["state"] == "delivering"
    done = seen[0]["progress"]["bytes_done"]
    assert done in {2 * part, part + part // 2}
    assert seen[0]["progress"] == {
        "into": "destination",
        "bytes_done": done,
        "bytes_total": 2 * part + part // 2,
        "parts_done": 2,
        "parts_total": 3,
    }


def test_progress_in_staging(acme: Client, world: World, queue: Queue) -> None:
    """A transfer that failed after staging shows its staged copy, and says that it can be re-driven without the source."""
    world.server("sftp-a").put("in/a.bin", b"x" * 2000)
    world.server("sftp-b").put("out/a.bin", b"in the way")
    shown = submit(acme, destination={"endpoint": "sftp-b", "path": "out/a.bin"})
    carry_out(world, queue)
    dead = acme.get(f"{PATH}/{shown['id']}").get_json()
    assert dead["state"] == "dead"
    assert dead["staged"] is True
    assert dead["reason"]
    assert dead["error"]
    assert dead["timeline"][-1]["error"] == dead["error"]


def test_destination_from_template(acme: Client) -> None:
    """Without a destination path the policy's template makes one of the source's."""
    shown = submit(acme, destination={"endpoint": "s3-a"}, policy={"name_template": "{date}/{stem}-copy{suffix}"})
    assert shown["destination"]["path"] == "2025-01-06/a-copy.bin"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"source": None}, "/source"),
        ({"destination": None}, "/destination"),
        ({"source": "sftp-a:in/a.bin"}, "/source"),
        ({"source": {"endpoint": "sftp-a"}}, "/source/path"),
        ({"source": {"endpoint": "sftp-a", "path": ""}}, "/source/path"),
        ({"source": {"endpoint": "sftp-a", "path": "/"}}, "/source/path"),
        ({"source": {"endpoint": "sftp-a", "path": "in/"}}, "/source/path"),
        ({"source": {"endpoint": "sftp-a", "path": "../a"}}, "/source/path"),
        ({"source": {"endpoint": "sftp-a", "path": "in/./a"}}, "/source/path"),
        ({"source": {"endpoint": "sftp-a", "path": "a\x00b"}}, "/source/path"),
        ({"source": {"endpoint": "sftp-a", "path": "a\nb"}}, "/source/path"),
        ({"source": {"endpoint": "sftp-a", "path": "x" * 256}}, "/source/path"),
        ({"source": {"endpoint": "sftp-a", "path": "ü" * 128}}, "/source/path"),
        ({"source": {"endpoint": "sftp-a", "path": "x/" * 600 + "x"}}, "/source/path"),
        ({"source": {"endpoint": "sftp-a", "path": 5}}, "/source/path"),
        ({"source": {"endpoint": "a b", "path": "x"}}, "/source/endpoint"),
        ({"source": {"endpoint": "ep-none", "path": "x"}}, "/source/endpoint"),
        ({"destination": {"endpoint": "ep-none", "path": "x"}}, "/destination/endpoint"),
        ({"destination": {"endpoint": "s3-a", "path": "x", "kind": "s3"}}, "/destination/kind"),
        ({"expected_sha256": "ABC"}, "/expected_sha256"),
        ({"expected_sha256": "A" * 64}, "/expected_sha256"),
        ({"policy": {"conflict": "maybe"}}, "/policy/conflict"),
        ({"policy": {"retry": {"first": "PT1S", "often": 1}}}, "/policy/retry/often"),
        ({"id": "x"}, "/id"),
        ({"state": "settled"}, "/state"),
    ],
)
def test_bad_submission(acme: Client, world: World, queue: Queue, changes: dict[str, Any], field: str) -> None:
    """Each bad value is refused with 422 that names its field; nothing is recorded or queued."""
    assert field in fields(problem(acme.post(PATH, asked(**changes)), 422, "request_invalid"))
    assert world.ledger.rows() == []
    assert queue.sent == []


def test_unpinned_endpoint(acme: Client, world: World) -> None:
    """A transfer from an endpoint without a pinned host key is refused, and the answer says what to do."""
    body = {"kind": "sftp", "name": "n", "host": "h.test", "username": "u", "credential": {"password": "p"}}
    made = acme.post("/v1/endpoints", body).get_json()
    told = problem(acme.post(PATH, asked(source={"endpoint": made["id"], "path": "a"})), 409, "host_key_unpinned")
    assert "pin" in told["detail"]
    assert world.ledger.rows() == []


def test_queue_down(acme: Client, world: World, queue: Queue) -> None:
    """When the queue is down a transfer is accepted all the same, and the sweep carries it on."""
    world.server("sftp-a").put("in/a.bin", b"x")
    queue.down = TimeoutError("no queue")
    shown = submit(acme)
    assert world.until_rest(world.ledger.load(shown["id"])).state is State.SETTLED


def test_ledger_down(acme: Client, world: World, queue: Queue) -> None:
    """When the row cannot be written there is no 202: the answer is 503 with when to try again, and nothing is queued."""
    world.ledger.trip("create", Transient("the ledger is busy", reason="throttled", retry_after=timedelta(seconds=7)))
    answer = acme.post(PATH, asked())
    problem(answer, 503, "throttled")
    assert answer.headers["Retry-After"] == "7"
    assert queue.sent == []


# -- idempotency ---------------------------------------------------------------------------------------------------------


def test_idempotency(acme: Client, world: World) -> None:
    """The same key and content give the same transfer, whatever blanks and order the JSON has; without a key each is its own."""
    first = acme.post(PATH, asked(), Idempotency_Key="order-1")
    again = acme.post(PATH, asked(), Idempotency_Key="order-1")
    turned = b'{ "destination":{"path":"out/a.bin","endpoint":"s3-a"},\n "source":{"path":"in/a.bin","endpoint":"sftp-a"} }'
    third = acme.post(PATH, raw=turned, Idempotency_Key="order-1")
    assert [a.status_code for a in (first, again, third)] == [202, 202, 202]
    assert {a.get_json()["id"] for a in (first, again, third)} == {
        transfer_id("acme", "idempotency", "order-1", partition=partition_of("acme", "s3-a"))
    }
    assert len(world.ledger.rows()) == 1
    assert submit(acme)["id"] != submit(acme)["id"]


def test_idempotency_mismatch(acme: Client, world: World) -> None:
    """The same key with another body is refused with 422, and the first transfer stays."""
    acme.post(PATH, asked(), Idempotency_Key="order-1")
    told = problem(acme.post(PATH, asked(policy={"conflict": "skip"}), Idempotency_Key="order-1"), 422, "idempotency_mismatch")
    assert "new key" in told["detail"]
    for endpoint in ("s3-b", "sftp-b"):
        elsewhere = asked(destination={"endpoint": endpoint, "path": "out/a.bin"})
        problem(acme.post(PATH, elsewhere, Idempotency_Key="order-1"), 422, "idempotency_mismatch")
    assert len(world.ledger.rows()) == 1


def test_idempotency_per_tenant(acme: Client, other: Client, world: World) -> None:
    """Two tenants may use the same key: each gets its own transfer."""
    for bucket in ("their-a", "their-b"):
        other.post("/v1/endpoints", {"kind": "s3", "name": bucket, "bucket": bucket, "region": "us-gov-west-1"})
    ids = [item["id"] for item in other.get("/v1/endpoints").get_json()["items"]]
    mine = acme.post(PATH, asked(), Idempotency_Key="k").get_json()
    theirs = other.post(
        PATH, {"source": {"endpoint": ids[0], "path": "x"}, "destination": {"endpoint": ids[1], "path": "x"}}, Idempotency_Key="k"
    ).get_json()
    assert mine["id"] != theirs["id"]
    assert len(world.ledger.rows()) == 2


def test_idempotency_after_the_end(acme: Client, world: World, queue: Queue) -> None:
    """A request repeated after its transfer has settled shows the settled transfer and queues nothing."""
    world.server("sftp-a").put("in/a.bin", b"x")
    acme.post(PATH, asked(), Idempotency_Key="order-1")
    carry_out(world, queue)
    again = acme.post(PATH, asked(), Idempotency_Key="order-1")
    assert again.status_code == 202
    assert again.get_json()["state"] == "settled"
    assert queue.sent == []


@pytest.mark.parametrize("key", ["", "x" * 256, "ключ", "a\tb"])
def test_bad_idempotency_key(acme: Client, key: str) -> None:
    """A key that is empty, too long or not printable ASCII is refused with 422 that names the header."""
    told = problem(acme.post(PATH, asked(), Idempotency_Key=key.encode().decode("latin-1")), 422, "request_invalid")
    assert told["errors"] == [{"field": "Idempotency-Key", "message": "must be 1 to 255 printable ASCII characters", "where": "header"}]


# -- lists ---------------------------------------------------------------------------------------------------------------


def test_listing(acme: Client, other: Client, world: World, queue: Queue) -> None:
    """A list is newest first, page by page, each transfer once; filtered by state and by flow; of the tenant's own only."""
    world.server("sftp-a").put("in/a.bin", b"x")
    ids = []
    for _ in range(5):
        ids.append(submit(acme, policy={"conflict": "overwrite"})["id"])
        world.clock.advance(timedelta(seconds=1))
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = acme.get(f"{PATH}?limit=2" + (f"&cursor={cursor}" if cursor else "")).get_json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == ids[::-1]
    acme.post(f"{PATH}/{ids[0]}/cancel")

    def listed(query: str) -> list[str]:
        return [item["id"] for item in acme.get(f"{PATH}?{query}").get_json()["items"]]

    assert listed("state=cancelled") == [ids[0]]
    assert listed("state=accepted") == ids[:0:-1]
    assert listed("flow=fl-none") == []
    flow = world.flow("sftp-a", "s3-b")
    world.run(flow)
    found = listed(f"flow={flow.id}")
    assert [world.ledger.load(each).flow for each in found] == [flow.id]
    assert listed(f"flow={flow.id}&state=dead") == []
    assert other.get(PATH).get_json() == {"items": [], "next_cursor": None, "missing": None}


@pytest.mark.parametrize(
    ("query", "field"),
    [("state=stuck", "state"), ("flow=a b", "flow"), ("limit=-1", "limit"), ("sort=asc", "sort"), ("state=dead&state=held", "state")],
)
def test_bad_filters(acme: Client, query: str, field: str) -> None:
    """A bad, unknown or doubled filter is refused with 422 that names it."""
    assert fields(problem(acme.get(f"{PATH}?{query}"), 422, "request_invalid")) == [field]


@pytest.mark.parametrize("cursor", ["x", "%00", "AAAA", "x" * 2049])
def test_bad_cursor(acme: Client, other: Client, cursor: str) -> None:
    """A cursor that is none is refused with 422 that names it."""
    answer = acme.get(f"{PATH}?cursor={cursor}")
    assert answer.status_code == 422
    assert fields(answer.get_json()) == ["cursor"]


# -- others --------------------------------------------------------------------------------------------------------------


def test_others_do_not_exist(acme: Client, other: Client, world: World, queue: Queue) -> None:
    """Another tenant's transfer answers 404 to everything, exactly as one that does not exist, and goes on untouched."""
    mine = submit(acme)
    for id_ in (mine["id"], "0" * 32):
        answers = [
            other.get(f"{PATH}/{id_}"),
            other.post(f"{PATH}/{id_}/cancel"),
            other.post(f"{PATH}/{id_}/redrive"),
        ]
        told = [problem(answer, 404, "transfer_unknown")["detail"].replace(id_, "ID") for answer in answers]
        assert len(set(told)) == 1
    assert world.ledger.load(mine["id"]).state is State.ACCEPTED
    assert world.ledger.load(mine["id"]).fence == 0


def test_others_endpoints_are_no_use(other: Client, world: World) -> None:
    """Another tenant's endpoints cannot be named in a transfer."""
    told = problem(other.post(PATH, asked()), 422, "request_invalid")
    assert fields(told) == ["/source/endpoint", "/destination/endpoint"]
    assert world.ledger.rows() == []


# -- cancel and re-drive -------------------------------------------------------------------------------------------------


def test_cancel(acme: Client, world: World, queue: Queue) -> None:
    """A cancelled transfer says who cancelled it, moves nothing afterwards, and may be cancelled twice."""
    world.server("sftp-a").put("in/a.bin", b"x")
    made = submit(acme)
    for _ in range(2):
        answer = acme.post(f"{PATH}/{made['id']}/cancel")
        assert answer.status_code == 200
        assert answer.get_json()["state"] == "cancelled"
        assert answer.get_json()["timeline"][-1]["by"] == "ada"
    carry_out(world, queue)
    assert "out/a.bin" not in world.server("s3-a").files


def test_cancel_too_late(acme: Client, world: World, queue: Queue) -> None:
    """A transfer that has been delivered is not cancelled: 409 `too_late`."""
    world.server("sftp-a").put("in/a.bin", b"x")
    made = submit(acme)
    carry_out(world, queue)
    problem(acme.post(f"{PATH}/{made['id']}/cancel"), 409, "too_late")
    assert world.ledger.load(made["id"]).state is State.SETTLED


def dead(acme: Client, world: World, queue: Queue, path: str = "in/missing.bin") -> str:
    """Returns the id of a transfer that is dead because its source is missing."""
    made = submit(acme, source={"endpoint": "sftp-a", "path": path}, destination={"endpoint": "s3-a", "path": path})
    carry_out(world, queue)
    assert world.ledger.load(made["id"]).state is State.DEAD
    id_: str = made["id"]
    return id_


def test_redrive(acme: Client, world: World, queue: Queue) -> None:
    """A dead transfer goes round again when its cause is gone, and its timeline says who sent it."""
    id_ = dead(acme, world, queue)
    world.server("sftp-a").put("in/missing.bin", b"here now")
    answer = acme.post(f"{PATH}/{id_}/redrive")
    assert answer.status_code == 202
    assert answer.get_json()["redrives"] == 1
    assert answer.get_json()["timeline"][-1]["by"] == "ada"
    assert [m.ids for m in queue.sent] == [(id_,)]
    carry_out(world, queue)
    assert acme.get(f"{PATH}/{id_}").get_json()["state"] == "settled"
    problem(acme.post(f"{PATH}/{id_}/redrive"), 409, "not_resting")


def test_redrive_by_filter(acme: Client, other: Client, world: World, queue: Queue) -> None:
    """All dead transfers are re-driven page by page, with counts; another tenant's request touches none of them."""
    paths = [f"in/{n}.bin" for n in range(5)]
    ids = {dead(acme, world, queue, path) for path in paths}
    assert other.post(f"{PATH}/redrive", {"state": "dead"}).get_json() == {"seen": 0, "redriven": 0, "refused": [], "next_cursor": None}
    for path in paths:
        world.server("sftp-a").put(path, b"x")
    counts: list[int] = []
    cursor: str | None = None
    while True:
        answer = acme.post(f"{PATH}/redrive", {"state": "dead", "limit": 2, "cursor": cursor}).get_json()
        counts.append(answer["redriven"])
        assert answer["refused"] == []
        cursor = answer["next_cursor"]
        if cursor is None:
            break
    assert sum(counts) == 5
    assert max(counts) <= 2
    assert {m.ids[0] for m in queue.sent} == ids
    carry_out(world, queue)
    assert {t.state for t in world.ledger.rows()} == {State.SETTLED}


def test_redrive_of_one_flow(acme: Client, world: World, queue: Queue) -> None:
    """A filter by flow leaves other flows' transfers alone."""
    id_ = dead(acme, world, queue)
    answer = acme.post(f"{PATH}/redrive", {"state": "dead", "flow": "fl-other"}).get_json()
    assert (answer["seen"], answer["redriven"]) == (0, 0)
    assert world.ledger.load(id_).state is State.DEAD


def test_redrive_names_the_refused(acme: Client, world: World, queue: Queue) -> None:
    """One that cannot be re-driven is named with its reason, and the others go on."""
    ids = {dead(acme, world, queue, f"in/{n}.bin") for n in range(3)}
    world.ledger.trip("claim", LostOwnership("in other hands"))
    answer = acme.post(f"{PATH}/redrive", {"state": "dead"}).get_json()
    assert (answer["seen"], answer["redriven"]) == (3, 2)
    assert [r["reason"] for r in answer["refused"]] == ["lost_ownership"]
    assert {m.ids[0] for m in queue.sent} == ids - {answer["refused"][0]["id"]}


def test_redrive_when_the_ledger_fails(acme: Client, world: World, queue: Queue) -> None:
    """When the ledger fails in the middle the answer is 503; those re-driven by then are queued, and asking again finishes the rest."""
    for n in range(3):
        dead(acme, world, queue, f"in/{n}.bin")
    world.ledger.trip("load", Transient("later"), after=True)
    problem(acme.post(f"{PATH}/redrive", {"state": "dead"}), 503, "transient")
    assert acme.post(f"{PATH}/redrive", {"state": "dead"}).get_json()["redriven"] == 3
    assert len(queue.sent) == 3


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "/state"),
        ({"state": "settled"}, "/state"),
        ({"state": "dead", "limit": 501}, "/limit"),
        ({"state": "dead", "all": True}, "/all"),
    ],
)
def test_bad_redrive(acme: Client, body: dict[str, Any], field: str) -> None:
    """A filter that names no state to re-drive, or no bound that holds, is refused."""
    assert fields(problem(acme.post(f"{PATH}/redrive", body), 422, "request_invalid")) == [field]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (LostOwnership("moved on"), 409, "lost_ownership"),
        (Undecidable("cannot tell", reason="unclear"), 409, "unclear"),
        (Permanent("no", reason="denied"), 409, "denied"),
        (Permanent("denied", reason="secret_denied"), 503, "secret_denied"),
    ],
)
def test_engine_errors(acme: Client, world: World, error: Exception, status: int, reason: str) -> None:
    """What the engine refuses is told with its own reason and the status that says what to do next."""
    made = submit(acme)
    world.ledger.trip("load", error)
    problem(acme.get(f"{PATH}/{made['id']}"), status, reason)
