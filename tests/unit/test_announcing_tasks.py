"""Beat asks for announcing where there is something to tell, and a worker tells it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from beat_schedules import scheduler
from beat_schedules.scheduler import FlowScheduler
from eft.domain.announcement import EventType
from eft.domain.endpoint import Credential
from eft.domain.webhook import Webhook
from eft.errors import Transient
from eft.ports import Answer
from tasks import announcing
from tasks.announcing import announce_shard, ask, catch_up_shard
from tests.fake_announcing import EVERYTHING, SECRET, SHARDS, Told
from tests.post import PostOffice
from tests.world import TENANT, World

HOOK = "https://hooks.test/eft"


@pytest.fixture
def world() -> World:
    """An engine over fakes that tells one webhook."""
    made = World()
    made.server("sftp-a").put("in/a.bin", b"x")
    return made


@pytest.fixture
def told(world: World) -> Told:
    """Who is told."""
    made = Told(world.ledger)
    world.engine = replace(world.engine, announcing=made.ports())
    secret = world.secrets.put(tenant=TENANT, endpoint="wh-1", credential=Credential(signing_secret=SECRET))
    made.subscriptions.add(
        Webhook(id="wh-1", tenant=TENANT, name="w", url=HOOK, events=EVERYTHING, secret=secret, created=world.clock.now())
    )
    return made


@pytest.fixture
def post(world: World, told: Told, monkeypatch: pytest.MonkeyPatch) -> PostOffice:
    """The world's queues; beat and the tasks have its engine."""
    assert told.outbox.shards == SHARDS
    office = PostOffice(monkeypatch, world.engine)
    monkeypatch.setattr(announcing, "app", office.app)
    for module in (announcing, scheduler):
        monkeypatch.setattr(module, "engine", lambda: world.engine)
    return office


def test_beat_asks_where_there_is_something_to_tell(world: World, told: Told, post: PostOffice) -> None:
    """An idle outbox costs no message; a file that moved one, for its shard, on the queue of announcing."""
    beat = FlowScheduler(app=post.app)
    assert beat.tick() <= 2
    assert post.letters() == []
    world.until_rest(world.submit("sftp-a", "s3-b"))
    beat.tick()
    assert post.letters() == []
    world.clock.advance(2)
    beat.tick()
    (letter,) = post.letters()
    assert (letter.task, letter.queue) == ("eft.announce", "announce")
    announce_shard(**letter.body)
    assert len(told.receiver.heard(HOOK)) == 3
    ask(world.engine)
    assert post.letters() == []


def test_what_was_not_taken_is_asked_for_when_its_time_has_come(world: World, told: Told, post: PostOffice) -> None:
    """A parked delivery is asked for after its pause, not before."""
    told.receiver.answers[HOOK] = [Answer(500), Answer(200)]
    world.until_rest(world.submit("sftp-a", "s3-b"))
    for shard in range(SHARDS):
        announce_shard(shard=shard)
    ask(world.engine)
    assert post.letters() == []
    world.clock.advance(10)
    ask(world.engine)
    (letter,) = post.letters()
    assert (letter.task, letter.queue) == ("eft.catch_up", "announce")
    catch_up_shard(**letter.body)
    assert told.receiver.heard(HOOK).count(EventType.ACCEPTED) == 2
    world.clock.advance(3600)
    ask(world.engine)
    assert post.letters() == []


def test_a_ledger_that_does_not_answer_is_asked_again(world: World, told: Told, post: PostOffice, caplog: pytest.LogCaptureFixture) -> None:
    """No error of ours makes a dead letter of the task's message: the next look asks anew."""
    world.until_rest(world.submit("sftp-a", "s3-b"))
    ask(world.engine)
    (letter,) = post.letters()
    told.outbox.trip("told", Transient("throttled", reason="throttled"))
    announce_shard(**letter.body)
    assert "announcing waits" in caplog.text
    ask(world.engine)
    assert post.letters() == [letter]


def test_an_engine_that_tells_nobody_asks_for_nothing(world: World, post: PostOffice) -> None:
    """Without the ports of announcing beat does not look."""
    world.until_rest(world.submit("sftp-a", "s3-b"))
    ask(replace(world.engine, announcing=None))
    assert post.letters() == []
