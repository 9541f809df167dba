"""Where Celery meets the journey: messages in and out, without a worker and without SQS."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Reject
from kombu.exceptions import OperationalError

from eft.domain.transfer import State, Step, Transfer
from eft.errors import NotFound, Permanent, Transient
from eft.journey.messages import MESSAGE_FORMAT, Message
from eft.journey.operate import run_flow
from eft.journey.sweep import sweep
from eft.ports import Watch
from eft.regions.adoption import adopt
from eft.regions.orders import Order
from eft.regions.switch import promote
from eft.settings import Settings
from tasks import base
from tasks.app import app, make_app
from tasks.base import carry, forward
from tests.fake_regions import EAST, WEST, Pair
from tests.post import Letter, PostOffice
from tests.world import SMALL, TENANT, World

UNKNOWN = "00" + "f" * 30


@pytest.fixture
def world() -> World:
    """An engine over fakes, with a file to move."""
    made = World()
    made.server("sftp-a").put("in/a.bin", b"x")
    return made


@pytest.fixture
def post(world: World, monkeypatch: pytest.MonkeyPatch) -> PostOffice:
    """The world's queues."""
    return PostOffice(monkeypatch, world.engine)


def state_of(world: World, transfer: Transfer) -> State:
    """Returns where a transfer stands."""
    return world.ledger.load(transfer.id).state


def named(label: str, warnings: list[logging.LogRecord]) -> list[Any]:
    """Returns the reasons of the log's lines with this message."""
    return [getattr(line, "reason", None) for line in warnings if line.getMessage() == label]


def large(world: World) -> Transfer:
    """Returns a transfer of nine parts, in three lanes."""
    world.server("sftp-a").put("in/big.bin", b"x" * 9000)
    return world.submit("sftp-a", "s3-b", path="in/big.bin")


def lane(transfer: Transfer, part: int) -> Letter:
    """Returns the message that sends a lane."""
    return Letter("eft.parts", "parts", {"v": MESSAGE_FORMAT, "ids": [transfer.id], "part": part}, 0)


# -- carry -------------------------------------------------------------------------------------------------------------


def test_a_message_is_carried_out_and_what_follows_is_sent(world: World, post: PostOffice) -> None:
    """A large file's delivery sends a message for each lane but its own: ids and a part's number, nothing else."""
    transfer = large(world)
    world.limits.acquire(f"lane:{transfer.id}:1:7", limit=1, holder="other", lease=SMALL.lease)
    carry(Step.DELIVER, [transfer.id], None)
    assert post.letters() == [lane(transfer, 4), lane(transfer, 7)]
    assert set(world.ledger.parts(transfer.id, attempt=1)) == {1, 2, 3, 4, 5, 6}
    carry(Step.PARTS, [transfer.id], 4)
    assert state_of(world, transfer) is State.DELIVERING
    assert post.letters() == []


def test_the_lane_that_completes_a_file_delivers_it(world: World, post: PostOffice) -> None:
    """No message has to be waited for, and no slot of the tenant's window stays taken."""
    transfer = large(world)
    world.limits.acquire(f"lane:{transfer.id}:1:7", limit=1, holder="other", lease=SMALL.lease)
    carry(Step.DELIVER, [transfer.id], None)
    world.limits.release(f"lane:{transfer.id}:1:7", holder="other")
    carry(Step.PARTS, [transfer.id], 7)
    assert state_of(world, transfer) is State.SETTLED
    assert world.server("s3-b").calls["write"] == 9
    assert world.limits.acquire(f"tenant:{TENANT}", limit=1, holder="other", lease=SMALL.lease)


def test_a_worker_that_is_to_leave_goes_on_with_nothing_itself(world: World, post: PostOffice, monkeypatch: pytest.MonkeyPatch) -> None:
    """All lanes are sent."""
    transfer = large(world)
    monkeypatch.setattr(base, "draining", lambda: world.ledger.calls["claim"] > 0)
    carry(Step.DELIVER, [transfer.id], None)
    assert post.letters() == [lane(transfer, 1), lane(transfer, 4), lane(transfer, 7)]
    assert world.server("s3-b").calls["write"] == 0


def test_a_fire_is_carried_out(world: World, post: PostOffice) -> None:
    """Discover's message names a fire; the found file's first message follows."""
    flow = world.flow("sftp-a", "s3-b")
    world.run(flow)
    world.server("sftp-a").put("in/b.bin", b"y")
    carry(Step.DISCOVER, [f"{TENANT}/{flow.id}/again"], None)
    (letter,) = post.letters()
    assert (letter.task, letter.queue, len(letter.body["ids"])) == ("eft.deliver", "deliver", 1)


def test_a_bundle_is_carried_out_in_one_slice(world: World, post: PostOffice) -> None:
    """Each of its transfers, in order, with one worker's name and one slot of the tenant's window."""
    transfers = [world.submit("sftp-a", "s3-b", to=f"out/{n}.bin") for n in range(3)]
    carry(Step.DELIVER, [one.id for one in transfers], None)
    assert [state_of(world, one) for one in transfers] == [State.SETTLED] * 3
    assert len({event.by for one in transfers for event in world.ledger.load(one.id).timeline if event.by}) == 1
    assert post.letters() == []


def test_a_bundle_that_the_slice_does_not_finish_is_sent_on(world: World, post: PostOffice, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is told to leave begins nothing of the rest; another one gets it."""
    transfers = [world.submit("sftp-a", "s3-b", to=f"out/{n}.bin") for n in range(3)]
    monkeypatch.setattr(base, "draining", lambda: world.server("s3-b").appeared.total() > 0)
    carry(Step.DELIVER, [one.id for one in transfers], None)
    assert [state_of(world, one) for one in transfers] == [State.SETTLED, State.ACCEPTED, State.ACCEPTED]
    (letter,) = post.letters()
    assert letter == Letter("eft.deliver", "deliver", {"v": MESSAGE_FORMAT, "ids": [one.id for one in transfers[1:]]}, 0)


@pytest.mark.parametrize(
    ("step", "ids", "part"),
    [
        (Step.DELIVER, [], None),
        (Step.DELIVER, [7], None),
        (Step.DELIVER, [UNKNOWN, None], None),
        (Step.DELIVER, [UNKNOWN], 1),
        (Step.PARTS, [UNKNOWN], None),
        (Step.PARTS, [UNKNOWN], "1"),
    ],
)
def test_a_broken_message_goes_towards_the_dead_letters(world: World, post: PostOffice, step: Step, ids: Any, part: Any) -> None:  # noqa: ANN401
    """Nothing of it is carried out."""
    with pytest.raises(Reject) as refused:
        carry(step, ids, part)
    assert vars(refused.value)["requeue"] is False
    assert world.ledger.calls.total() == 0
    assert post.letters() == []


@pytest.mark.parametrize("step", [Step.DELIVER, Step.STAGE, Step.SETTLE, Step.PARTS])
def test_a_message_for_something_unknown_goes_towards_the_dead_letters(world: World, post: PostOffice, step: Step) -> None:
    """Somebody is to see it."""
    with pytest.raises(Reject) as refused:
        carry(step, [UNKNOWN], 1 if step is Step.PARTS else None)
    assert vars(refused.value)["requeue"] is False
    assert isinstance(refused.value.__cause__, NotFound)
    assert post.letters() == []


def test_one_unknown_id_keeps_no_other_of_its_bundle_back(world: World, post: PostOffice, caplog: pytest.LogCaptureFixture) -> None:
    """It is told in the log; the others are delivered."""
    transfer = world.submit("sftp-a", "s3-b")
    carry(Step.DELIVER, [UNKNOWN, transfer.id], None)
    assert state_of(world, transfer) is State.SETTLED
    assert named("message for something unknown", caplog.records) == ["transfer_unknown"]


def test_a_fire_whose_source_has_no_such_directory_ends_and_says_so(world: World, post: PostOffice) -> None:
    """It shows as failed, and no sweep sends it again and again."""
    flow = world.flow("sftp-b", "s3-b")
    (fire,) = run_flow(world.engine, flow)
    carry(Step.DISCOVER, fire.ids, None)
    assert [fire.outcome for fire in world.ledger.fires(flow, limit=1)] == [{"failed": 1}]
    world.clock.advance(world.tuning.stall * 10)
    assert list(sweep(world.engine)) == []
    assert post.letters() == []


def test_a_fire_of_a_deleted_flow_ends(world: World, post: PostOffice, caplog: pytest.LogCaptureFixture) -> None:
    """It is no dead letter, for its customer deleted it, and no sweep sends it again."""
    flow = world.flow("sftp-a", "s3-b")
    (fire,) = run_flow(world.engine, flow)
    world.registry.remove_flow(flow.tenant, flow.id, revision=flow.revision)
    carry(Step.DISCOVER, fire.ids, None)
    assert post.letters() == []
    assert named("discover failed", caplog.records) == ["flow_unknown"]
    world.clock.advance(world.tuning.stall * 10)
    assert list(sweep(world.engine)) == []


@pytest.mark.parametrize(
    ("error", "delay"),
    [
        (Transient("throttled", reason="throttled"), 10),
        (Transient("later", reason="throttled", retry_after=timedelta(seconds=41.2)), 42),
        (Permanent("denied", reason="access_denied"), 10),
    ],
)
def test_a_message_whose_row_cannot_be_read_comes_again(world: World, post: PostOffice, error: Exception, delay: int) -> None:
    """After the pause that the other side asked for, else ten seconds: no row could take the error."""
    transfer = world.submit("sftp-a", "s3-b")
    world.ledger.trip("load", error)
    carry(Step.DELIVER, [transfer.id], None)
    assert post.letters() == [Letter("eft.deliver", "deliver", {"v": MESSAGE_FORMAT, "ids": [transfer.id]}, delay)]
    assert state_of(world, transfer) is State.ACCEPTED


def test_of_a_bundle_only_the_one_in_trouble_comes_again(world: World, post: PostOffice) -> None:
    """With a message of its own."""
    transfers = [world.submit("sftp-a", "s3-b", to=f"out/{n}.bin") for n in range(3)]
    world.ledger.trip("load", Transient("throttled", reason="throttled"))
    carry(Step.DELIVER, [one.id for one in transfers], None)
    assert [state_of(world, one) for one in transfers] == [State.ACCEPTED, State.SETTLED, State.SETTLED]
    (letter,) = post.letters()
    assert letter.body["ids"] == [transfers[0].id]


def test_a_source_that_cannot_be_listed_is_listed_again(world: World, post: PostOffice) -> None:
    """The fire's message comes again; its endpoint's breaker has counted the failure."""
    flow = world.flow("sftp-a", "s3-b")
    del world.stores.servers["sftp-a"]
    carry(Step.DISCOVER, [f"{TENANT}/{flow.id}/now"], None)
    (letter,) = post.letters()
    assert letter.body["ids"] == [f"{TENANT}/{flow.id}/now"]
    assert 15 <= letter.delay <= 45
    assert world.limits.calls["failed"] == 1


# -- forward -----------------------------------------------------------------------------------------------------------


def test_what_waits_longer_than_sqs_can_is_left_to_the_sweep(post: PostOffice) -> None:
    """A delay is whole seconds, rounded up, of at most fifteen minutes."""
    delays = [timedelta(0), timedelta(milliseconds=1), timedelta(minutes=15), timedelta(minutes=15, microseconds=1)]
    forward([Message(step=Step.SETTLE, ids=(str(n),), delay=delay) for n, delay in enumerate(delays)])
    assert [(letter.body["ids"], letter.delay) for letter in post.letters()] == [(["0"], 0), (["1"], 1), (["2"], 900)]


class BrokenApp:
    """Sends some messages, then none."""

    def __init__(self, good: int) -> None:
        self.good = good
        self.tried: list[str] = []

    def send_task(self, name: str, **_: object) -> None:
        """Sends, or fails as a broker does that is away."""
        self.tried.append(name)
        if len(self.tried) > self.good:
            raise OperationalError("the broker is away")


def test_a_broker_that_is_away_costs_the_rest_a_wait_for_the_sweep(
    world: World, post: PostOffice, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One message is tried in vain, not all of them; the row stands and the sweep finds it."""
    broken = BrokenApp(good=1)
    monkeypatch.setattr(base, "app", broken)
    forward([Message(step=step, ids=("1",)) for step in (Step.STAGE, Step.DELIVER, Step.SETTLE)])
    assert broken.tried == ["eft.stage", "eft.deliver"]
    (line,) = [each for each in caplog.records if "sweep sends them" in each.getMessage()]
    assert (vars(line)["step"], vars(line)["left"]) == (Step.DELIVER, 2)
    world.server("sftp-a").put("in/a.bin", b"x" * 9000)
    transfer = world.submit("sftp-a", "s3-b")
    carry(Step.DELIVER, [transfer.id], None)
    world.queue.clear()
    world.sweep()
    assert world.until_rest(transfer).state is State.SETTLED


# -- steps and upkeep --------------------------------------------------------------------------------------------------


def run(name: str, **body: object) -> object:
    """Runs a task as a worker calls it, which has imported the modules of all tasks."""
    app.loader.import_default_modules()
    return app.tasks[name](**body)


def test_each_step_is_a_task_that_carries_its_message_out(world: World, post: PostOffice) -> None:
    """On the queue of its name; the bodies that `forward` sends are those that it takes."""
    transfer = world.submit("sftp-a", "sftp-b")
    run("eft.stage", v=MESSAGE_FORMAT, ids=[transfer.id])
    assert state_of(world, transfer) is State.SETTLED
    assert {f"eft.{step}" for step in Step} <= set(app.tasks)
    assert {name: route["queue"] for name, route in app.conf.task_routes.items()} == {
        **{f"eft.{step}": step.value for step in Step},
        **dict.fromkeys(("eft.announce", "eft.catch_up"), "announce"),
    }


@pytest.mark.parametrize("body", [{}, {"v": 0}, {"v": MESSAGE_FORMAT + 1}, {"v": MESSAGE_FORMAT, "path": "in/a.bin"}])
def test_a_message_of_another_format_is_refused(world: World, post: PostOffice, body: dict[str, object]) -> None:
    """Another release's, or nobody's: it goes towards the dead letters untouched."""
    transfer = world.submit("sftp-a", "s3-b")
    with pytest.raises(Reject) as refused:
        run("eft.deliver", ids=[transfer.id], **body)
    assert vars(refused.value)["requeue"] is False
    assert state_of(world, transfer) is State.ACCEPTED


def test_upkeep_of_staging_is_two_tasks(world: World, post: PostOffice) -> None:
    """Copies past their retention and uploads that no row names go."""
    transfer = world.until_rest(world.submit("sftp-a", "sftp-b"))
    staging = world.stores.staging_server
    assert len(staging.files) == 1
    with world.stores.staging() as store:
        store.mint(transfer.source.path, token=transfer.source.path, transfer=transfer.id, size=1, create_directories=True)
    world.clock.advance(world.tuning.staging_retention + timedelta(days=1))
    run("eft.expire_staging")
    run("eft.abort_stale_uploads")
    assert (staging.files, staging.uploads) == ({}, {})


def test_what_was_left_under_a_token_is_given_back_by_a_task(world: World, post: PostOffice) -> None:
    """In a watched directory."""
    transfer = world.submit("sftp-a", "sftp-b")
    world.server("sftp-a").put("in/a.bin", b"old")
    world.drain()
    world.server("sftp-a").files[f"in/.{transfer.id}.1.0.0f.part"] = world.server("sftp-a").files.pop("in/a.bin")
    world.ledger.watch(Watch(transfer.tenant, "sftp-a", "in", world.clock.now()))
    world.clock.advance(timedelta(hours=1))
    run("eft.give_back")
    assert world.server("sftp-a").finals() == {"in/a.bin": b"old"}


def test_one_region_adopts_nothing(world: World, post: PostOffice) -> None:
    """Without a peer there is no journal to look into."""
    run("eft.adopt")
    assert world.ledger.calls.total() == 0


def test_reconciliation_is_a_task_that_logs_what_must_not_be(world: World, post: PostOffice, caplog: pytest.LogCaptureFixture) -> None:
    """A committing row past its bound is an error in the log."""
    with caplog.at_level(logging.INFO):
        run("eft.reconcile")
    assert [line.levelno for line in caplog.records if line.getMessage() == "reconciled"] == [logging.INFO]


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[Pair, PostOffice]]:
    """Two regions, and the post office of one."""

    def of(region: str) -> tuple[Pair, PostOffice]:
        made = Pair()
        made.west.server("s3-a").put("in/a.bin", b"x")
        return made, PostOffice(monkeypatch, (made.west if region == WEST else made.east).engine)

    return of


@pytest.mark.parametrize("region", [WEST, EAST])
def test_adoption_sends_what_the_other_region_accepted(pair: Callable[[str], tuple[Pair, PostOffice]], region: str) -> None:
    """A home makes the rows that the other region journalled for it, and sends their messages; the other makes none."""
    both, post = pair(region)
    away = both.east if region == WEST else both.west
    here = both.west if region == WEST else both.east
    transfers = [away.submit("s3-a", destination) for destination in ("sftp-b", "s3-b", "sftp-a")]
    run("eft.adopt")
    mine = {one.id for one in transfers if both.tables[region].partition(one.partition).home == region}
    assert {letter.body["ids"][0] for letter in post.letters()} == mine
    assert here.ledger.known([one.id for one in transfers]) == mine


def test_one_partitions_trouble_keeps_no_other_back(
    pair: Callable[[str], tuple[Pair, PostOffice]], caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be adopted now waits; the partitions after it are looked at."""
    both, post = pair(WEST)
    transfers = [both.east.submit("s3-a", "sftp-b", to=f"out/{n}.bin") for n in range(2)]
    number = transfers[0].partition
    if both.tables[WEST].partition(number).home != WEST:
        promote(both.west.engine, number, Order("ann", "test", "INC-1"), old_home_may_be_solo=False)
    both.west.ledger.trip("known", Transient("throttled", reason="throttled"), times=number // 2 + 1)
    with caplog.at_level(logging.INFO):
        run("eft.adopt")
    assert "throttled" in named("a partition's upkeep waits", caplog.records)
    run("eft.adopt")
    assert {letter.body["ids"][0] for letter in post.letters()} == {one.id for one in transfers}
    assert list(adopt(both.west.engine, number)) == []


# -- the app -----------------------------------------------------------------------------------------------------------


def test_the_engine_is_built_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """And again in a forked one: its clients share no socket with their parent's."""
    built: list[object] = []

    def build(*_: object, **__: object) -> object:
        built.append(object())
        return built[-1]

    monkeypatch.setattr(base, "build_engine", build)
    base._engine_of.cache_clear()
    try:
        assert base.engine() is base.engine()
        monkeypatch.setattr("os.getpid", lambda: -1)
        assert base.engine() is base.engine() is built[-1]
    finally:
        base._engine_of.cache_clear()
    assert len(built) == 2


def test_the_app_asks_sqs_for_nothing_that_it_does_not_know() -> None:
    """Each queue's address is told to it; JSON is all it takes; acks come late; no result is kept."""
    made: Celery = make_app(Settings(queue_base="https://sqs.test/1/", prefix="p-", health_file=None))
    urls = made.conf.broker_transport_options["queue_urls"]
    names = ("discover", "stage", "deliver", "parts", "settle", "upkeep", "announce")
    assert urls == {name: f"https://sqs.test/1/p-{name}" for name in names}
    assert (made.conf.accept_content, made.conf.task_serializer, made.conf.task_ignore_result) == (["json"], "json", True)
    assert (made.conf.task_acks_late, made.conf.task_reject_on_worker_lost, made.conf.worker_prefetch_multiplier) == (True, True, 1)
