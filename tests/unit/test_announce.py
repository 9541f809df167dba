"""What others are told: each event at least once, whatever crashes; one receiver's trouble stays its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from eft.domain.announcement import Announcement, EventType, TransferTold, late
from eft.domain.endpoint import Credential
from eft.domain.transfer import State, Transfer
from eft.domain.webhook import BUS, OVERLAP, PAUSES, TASK, DeliveryState, Webhook, signatures
from eft.errors import NotFound, Permanent, Transient
from eft.journey.accept import Submission, accept
from eft.journey.announce import LANES, announce, catch_up, resend
from eft.journey.messages import next_message
from eft.journey.operate import cancel, redrive
from eft.journey.reconcile import reconcile
from eft.journey.telling import FEW
from eft.ports import Answer
from tests.crashes import Crash, CrashPoint, Watched, survive, watch
from tests.fake_announcing import EVERYTHING, SECRET, SHARDS, Told
from tests.world import TENANT, World

HOOK = "https://hooks.test/eft"
T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Announced:
    """A world whose engine tells others."""

    bus: bool = False
    world: World = field(default_factory=World)

    def __post_init__(self) -> None:
        self.told = Told(self.world.ledger)
        self.world.engine = replace(self.world.engine, announcing=self.told.ports(bus=self.bus))
        self.world.server("sftp-a").put("in/a.bin", b"x")

    def webhook(self, url: str = HOOK, *, tenant: str = TENANT, events: frozenset[EventType] = EVERYTHING) -> Webhook:
        """Adds a webhook."""
        name = f"wh-{self.world.clock.nonce()}"
        secret = self.world.secrets.put(tenant=tenant, endpoint=name, credential=Credential(signing_secret=SECRET))
        made = Webhook(id=name, tenant=tenant, name=name, url=url, events=events, secret=secret, created=self.world.clock.now())
        self.told.subscriptions.add(made)
        return made

    def tell(self, *, together: Any = map) -> None:  # noqa: ANN401 - map, or one that is like it
        """Does what the task does, for all shards."""
        for shard in range(SHARDS):
            announce(self.world.engine, shard, self.world.slice(), together=together)

    def catch_up(self, after: timedelta | None = None) -> None:
        """Lets time pass and tries what was parked."""
        self.world.clock.advance(after or PAUSES[-1] * 2)
        for shard in range(SHARDS):
            catch_up(self.world.engine, shard, self.world.slice())

    def moved(self, path: str = "in/a.bin") -> Transfer:
        """Returns a transfer that has come to rest."""
        return self.world.until_rest(self.world.submit("sftp-a", "s3-b", path))

    def parked(self, webhook: Webhook, state: DeliveryState | None = None) -> list[str]:
        """Returns the types of what is parked for a webhook."""
        return [one.announcement.type.value for one in self.told.outbox.deliveries(webhook.id, state=state, limit=100).items]


@pytest.fixture
def announced() -> Announced:
    """A world without an event bus."""
    return Announced()


def test_a_file_is_told_of_from_acceptance_to_delivery(announced: Announced) -> None:
    """A webhook hears accepted, started and delivered, in this order, the last with the receipt."""
    announced.webhook()
    transfer = announced.moved()
    announced.tell()
    assert announced.told.receiver.heard(HOOK) == ["transfer.accepted", "transfer.started", "transfer.delivered"]
    last = announced.told.receiver.posted[-1].announcement
    assert isinstance(last.data, TransferTold)
    assert last.data.receipt is not None
    assert transfer.receipt is not None
    assert (last.data.receipt.checksum, last.data.receipt.size) == (transfer.receipt.checksum, 1)
    assert (last.id, last.tenant, last.data.state) == (f"{transfer.id}-delivered", TENANT, State.DELIVERED)


def test_what_was_told_is_not_told_again(announced: Announced) -> None:
    """Once the row has left the outbox nothing is posted, until something new happens."""
    announced.webhook()
    announced.moved()
    announced.tell()
    announced.tell()
    assert len(announced.told.receiver.posted) == 3


def test_what_happens_after_a_telling_is_told(announced: Announced) -> None:
    """A row that was told of and taken out is put into the outbox again by the write that changes its state, and only by that."""
    announced.webhook()
    transfer = announced.world.submit("sftp-a", "s3-b")
    announced.tell()
    assert not announced.world.ledger.outbox
    announced.world.until_rest(transfer)
    announced.tell()
    assert announced.told.receiver.heard(HOOK) == ["transfer.accepted", "transfer.started", "transfer.delivered"]
    assert item_writes(announced) == 9


def test_an_event_told_twice_has_one_id(announced: Announced) -> None:
    """A row that stays in the outbox after its telling is told again under the same ids."""
    announced.webhook()
    announced.moved()
    announced.told.outbox.trip("told", Transient("lost", reason="aws_unavailable"))
    with pytest.raises(Transient):
        announced.tell()
    announced.tell()
    ids = [one.announcement.id for one in announced.told.receiver.posted]
    assert len(ids) == 6
    assert len(set(ids)) == 3


def test_where_nobody_listens_nothing_is_written(announced: Announced) -> None:
    """Without a subscriber a small file costs its seven item writes and never enters the outbox."""
    announced.moved()
    announced.tell()
    assert item_writes(announced) == 7
    assert not announced.world.ledger.outbox


def test_a_subscriber_costs_one_write_per_file(announced: Announced) -> None:
    """With webhooks that answer, a small file costs eight item writes, however many webhooks hear of it."""
    announced.webhook()
    announced.webhook("https://other.test/")
    announced.moved()
    announced.tell()
    assert len(announced.told.receiver.posted) == 6
    assert item_writes(announced) == 8


def test_another_tenants_files_are_not_told(announced: Announced) -> None:
    """A webhook of one tenant makes another's files neither cost more nor be told."""
    announced.webhook(tenant="other")
    announced.moved()
    announced.tell()
    assert not announced.told.receiver.posted
    assert item_writes(announced) == 7


def test_a_webhook_hears_only_of_its_events(announced: Announced) -> None:
    """What it did not ask for is not posted, and does not keep the row."""
    announced.webhook(events=frozenset({EventType.DELIVERED}))
    announced.moved()
    announced.tell()
    assert announced.told.receiver.heard(HOOK) == ["transfer.delivered"]
    assert not announced.world.ledger.outbox


def test_a_webhook_hears_nothing_from_before_its_time(announced: Announced) -> None:
    """A transfer that failed before the webhook was made and is re-driven after is told of from there on."""
    transfer = announced.moved("in/b.bin")
    assert transfer.state is State.DEAD
    announced.world.clock.advance(1)
    announced.webhook()
    announced.world.server("sftp-a").put("in/b.bin", b"x")
    redriven(announced, transfer)
    announced.tell()
    assert announced.told.receiver.heard(HOOK) == ["transfer.started", "transfer.delivered"]


def test_each_failure_is_told(announced: Announced) -> None:
    """A transfer that fails twice is told of twice, under two ids, with its reason."""
    announced.webhook(events=frozenset({EventType.FAILED}))
    transfer = announced.moved("in/b.bin")
    announced.tell()
    announced.world.clock.advance(1)
    redriven(announced, transfer)
    announced.tell()
    told = [one.announcement for one in announced.told.receiver.posted]
    assert [one.type for one in told] == [EventType.FAILED, EventType.FAILED]
    assert len({one.id for one in told}) == 2
    assert all(isinstance(one.data, TransferTold) and one.data.reason == "source_missing" for one in told)


def test_what_a_person_decides_is_told(announced: Announced) -> None:
    """A cancelled transfer is announced as cancelled."""
    announced.webhook()
    transfer = announced.world.submit("sftp-a", "s3-b")
    cancel(announced.world.engine, TENANT, transfer.id, "ada")
    announced.tell()
    assert announced.told.receiver.heard(HOOK) == ["transfer.accepted", "transfer.cancelled"]


def test_the_bus_hears_of_everything() -> None:
    """With an event bus every tenant's transfers are published, without any webhook."""
    announced = Announced(bus=True)
    announced.moved()
    announced.tell()
    assert [one.type.value for one in announced.told.bus.published] == ["transfer.accepted", "transfer.started", "transfer.delivered"]


def test_what_the_bus_does_not_take_is_published_later() -> None:
    """A bus that is down, or refuses an entry, gets it again; webhooks hear of it once all the same."""
    announced = Announced(bus=True)
    announced.webhook()
    announced.told.bus.trip("publish", Transient("down", reason="aws_unavailable"))
    transfer = announced.moved()
    announced.tell()
    assert not announced.told.bus.published
    announced.told.bus.refuses = {f"{transfer.id}-started"}
    announced.catch_up()
    assert {one.id for one in announced.told.bus.published} == {f"{transfer.id}-accepted", f"{transfer.id}-delivered"}
    announced.told.bus.refuses = set()
    announced.catch_up()
    assert len(announced.told.bus.published) == 3
    assert len(announced.told.receiver.posted) == 3
    assert not announced.told.outbox.deliveries(BUS).items


def test_the_bus_is_never_given_up() -> None:
    """However long the bus refuses, what it is to hear waits."""
    announced = Announced(bus=True)
    announced.moved()
    announced.told.bus.trip("publish", Permanent("no", reason="access_denied"), times=50)
    announced.tell()
    for _ in range(40):
        announced.catch_up()
    assert {one.state for one in announced.told.outbox.deliveries(BUS).items} == {DeliveryState.WAITING}


def test_a_delivery_is_signed_as_receivers_check_it(announced: Announced) -> None:
    """The receivers' own library takes what is posted, and refuses it with one byte changed (Standard Webhooks 1.0.0)."""
    announced.world.clock.advance(datetime.now(UTC) - announced.world.clock.now())
    announced.webhook()
    announced.moved()
    announced.tell()
    posted = announced.told.receiver.posted[-1]
    verifier = Verifier(SECRET.get_secret_value())
    assert verifier.verify(posted.body, dict(posted.headers))["type"] == "transfer.delivered"
    with pytest.raises(WebhookVerificationError):
        verifier.verify(posted.body.replace(b"delivered", b"deliverex"), dict(posted.headers))


def test_the_published_signature_is_reproduced() -> None:
    """The vector of the Standard Webhooks reference implementations."""
    at = datetime.fromtimestamp(1614265330, UTC)
    made = signatures([SECRET], message_id="msg_p5jXN8AQM9LWM0D4loKWxJek", at=at, body='{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_after_a_rotation_both_secrets_sign_for_a_day(announced: Announced) -> None:
    """A receiver may take the new secret any time within a day."""
    hook = announced.webhook()
    former = SecretStr("whsec_" + "QUJD" * 8)
    ref = announced.world.secrets.put(
        tenant=TENANT, endpoint=hook.id, credential=Credential(signing_secret=SECRET, former_signing_secret=former)
    )
    assert ref == hook.secret
    announced.told.subscriptions.change(hook.model_copy(update={"rotated_at": announced.world.clock.now(), "revision": 2}))
    announced.moved()
    announced.tell()
    assert len(announced.told.receiver.posted[-1].headers["webhook-signature"].split()) == 2
    announced.world.clock.advance(OVERLAP)
    announced.world.server("sftp-a").put("in/b.bin", b"x")
    announced.world.until_rest(announced.world.submit("sftp-a", "s3-b", "in/b.bin", to="out/b.bin"))
    announced.tell()
    assert len(announced.told.receiver.posted[-1].headers["webhook-signature"].split()) == 1


def test_a_receiver_that_fails_at_first_hears_everything_in_the_end(announced: Announced) -> None:
    """What is answered with 500 is tried again after a pause, until it is taken; then nothing of it is left."""
    hook = announced.webhook()
    announced.told.receiver.answers[HOOK] = [Answer(500), Answer(500), Answer(204)]
    announced.moved()
    announced.tell()
    assert announced.told.receiver.heard(HOOK) == ["transfer.accepted", "transfer.started", "transfer.delivered"]
    assert announced.parked(hook) == ["transfer.accepted", "transfer.started"]
    announced.catch_up()
    assert announced.told.receiver.heard(HOOK)[3:] == ["transfer.accepted", "transfer.started"]
    assert announced.parked(hook) == []


def test_a_pause_that_the_receiver_asks_for_is_kept(announced: Announced) -> None:
    """Retry-After longer than our own pause is waited for, up to an hour."""
    hook = announced.webhook(events=frozenset({EventType.DELIVERED}))
    announced.told.receiver.answers[HOOK] = [Answer(429, timedelta(minutes=10)), Answer(503, timedelta(days=9)), Answer(204)]
    announced.moved()
    now = announced.world.clock.now()
    announced.tell()
    assert announced.told.outbox.deliveries(hook.id).items[0].due_at - now >= timedelta(minutes=10)
    announced.catch_up(timedelta(minutes=11))
    assert (
        timedelta(minutes=30)
        < announced.told.outbox.deliveries(hook.id).items[0].due_at - announced.world.clock.now()
        <= timedelta(hours=1)
    )


def test_a_receiver_that_never_takes_anything_gets_dead_letters(announced: Announced) -> None:
    """After its last try a delivery is a dead letter with its reason; a person sends it again."""
    hook = announced.webhook(events=frozenset({EventType.DELIVERED}))
    announced.told.receiver.answers[HOOK] = [Answer(500)]
    announced.moved()
    announced.tell()
    for _ in range(len(PAUSES)):
        assert announced.parked(hook, DeliveryState.WAITING)
        announced.catch_up()
    (dead,) = announced.told.outbox.deliveries(hook.id, state=DeliveryState.DEAD).items
    assert (dead.reason, dead.tries) == ("webhook_refused", len(PAUSES) + 1)
    announced.catch_up()
    assert len(announced.told.receiver.posted) == len(PAUSES) + 1
    announced.told.receiver.answers[HOOK] = [Answer(200)]
    assert resend(announced.world.engine, hook, dead.id).tries == 0
    announced.catch_up()
    assert announced.parked(hook) == []
    with pytest.raises(NotFound):
        resend(announced.world.engine, hook, dead.id)


@pytest.mark.parametrize(
    "answer",
    [Answer(410), Permanent("inward", reason="webhook_address_refused")],
    ids=["gone", "inward"],
)
def test_what_no_repetition_helps_is_a_dead_letter_at_once(announced: Announced, answer: Answer | Permanent) -> None:
    """A receiver that is gone for good, or whose address leads inward, is not asked again."""
    hook = announced.webhook(events=frozenset({EventType.DELIVERED}))
    announced.told.receiver.answers[HOOK] = [answer]
    announced.moved()
    announced.tell()
    announced.catch_up()
    assert len(announced.told.receiver.posted) == 1
    assert announced.parked(hook, DeliveryState.DEAD) == ["transfer.delivered"]


def test_a_redirect_is_a_refusal(announced: Announced) -> None:
    """Whatever it leads to, nothing is posted there, and the delivery says so."""
    hook = announced.webhook(events=frozenset({EventType.DELIVERED}))
    announced.told.receiver.answers[HOOK] = [Answer(307)]
    announced.moved()
    announced.tell()
    assert {one.url for one in announced.told.receiver.posted} == {HOOK}
    assert "redirect" in announced.told.outbox.deliveries(hook.id).items[0].error


def test_a_silent_receiver_costs_one_wait_and_harms_nobody(announced: Announced) -> None:
    """Of many letters the first one waits in vain, the rest is parked at once; another tenant's receiver hears everything."""
    silent = announced.webhook(url="https://silent.test/")
    announced.webhook()
    announced.told.receiver.answers["https://silent.test/"] = [Transient("late", reason="webhook_timeout")]
    many(announced, 5)
    announced.tell()
    assert len(announced.told.receiver.heard("https://silent.test/")) <= SHARDS
    assert len(announced.told.receiver.heard(HOOK)) == 15
    assert len(announced.parked(silent)) == 15
    assert not announced.world.ledger.outbox


def test_a_receiver_that_stays_silent_is_spared(announced: Announced) -> None:
    """After five silences in a row its breaker is open: nothing is posted until it closes."""
    announced.webhook()
    announced.told.receiver.answers[HOOK] = [Transient("late", reason="webhook_unreachable")]
    announced.moved()
    announced.tell()
    for _ in range(4):
        announced.catch_up(timedelta(hours=13))
    asked = len(announced.told.receiver.posted)
    many(announced, 1, first=7)
    announced.tell()
    assert len(announced.told.receiver.posted) == asked


def test_a_slow_receiver_gets_the_rest_later(announced: Announced) -> None:
    """Who is slow gets a few letters in a run, and the rest from the parked deliveries; no try is counted for what had to wait."""
    hook = announced.webhook()
    receiver = announced.told.receiver
    many(announced, 20)
    slow = receiver.post

    def post(*given: Any, **named: Any) -> Answer:  # noqa: ANN401 - passed on
        announced.world.clock.advance(timedelta(seconds=1.9))
        return slow(*given, **named)

    receiver.post = post  # type: ignore[method-assign]
    announced.tell()
    assert len(receiver.heard(HOOK)) <= SHARDS * LANES * FEW
    waiting = announced.told.outbox.deliveries(hook.id, limit=100).items
    assert len(waiting) == 60 - len(receiver.heard(HOOK))
    assert {(one.tries, one.reason) for one in waiting} == {(0, "queued")}
    for _ in range(20):
        announced.catch_up(timedelta(minutes=1))
    assert len({one.announcement.id for one in receiver.posted}) == len(receiver.posted) == 60


def test_receivers_are_told_at_the_same_time(announced: Announced) -> None:
    """With threads to do it the outcome is the same."""
    for number in range(5):
        announced.webhook(f"https://many-{number}.test/")
    many(announced, 3)
    with ThreadPoolExecutor(max_workers=4) as pool:

        def together(act: Callable[[T], R], each: Iterable[T]) -> Iterator[R]:
            return pool.map(act, each)

        announced.tell(together=together)
    assert len({(one.url, one.announcement.id) for one in announced.told.receiver.posted}) == 5 * 9
    assert not announced.world.ledger.outbox


def test_a_removed_webhooks_deliveries_end(announced: Announced) -> None:
    """What was parked for a webhook that is gone is dropped."""
    hook = announced.webhook()
    announced.told.receiver.answers[HOOK] = [Answer(500)]
    announced.moved()
    announced.tell()
    announced.told.subscriptions.remove(TENANT, hook.id, revision=1)
    announced.catch_up()
    assert announced.parked(hook) == []


def test_one_process_at_a_time_tells_a_shard(announced: Announced) -> None:
    """While another has the lease nothing is told; after a crash it runs out."""
    announced.webhook()
    announced.moved()
    for shard in range(SHARDS):
        announced.world.limits.acquire(f"outbox:{shard}", limit=1, holder="other", lease=timedelta(seconds=60))
    announced.tell()
    assert not announced.told.receiver.posted
    announced.world.clock.advance(61)
    announced.tell()
    assert len(announced.told.receiver.posted) == 3


def test_reconciliation_finds_what_nobody_tells(announced: Announced) -> None:
    """A row that waits in the outbox is found once it has waited too long, and not when it is told of."""
    announced.webhook()
    transfer = announced.moved()
    assert reconcile(announced.world.engine).clean
    announced.world.clock.advance(timedelta(minutes=16))
    found = reconcile(announced.world.engine)
    assert (found.untold, found.clean) == ((transfer.id,), False)
    announced.tell()
    assert reconcile(announced.world.engine).clean


def test_a_late_file_is_announced_once(announced: Announced) -> None:
    """A flow's alarm for one deadline is told once, however often it is raised."""
    announced.webhook()
    now = announced.world.clock.now()
    alarm = late(tenant=TENANT, flow="fl-1", name="daily", level="late", expected_by=now, now=now)
    assert announced.told.outbox.add(alarm)
    assert not announced.told.outbox.add(alarm)
    announced.tell()
    announced.tell()
    assert announced.told.receiver.heard(HOOK) == ["flow.late"]
    assert "no file has come by" in announced.told.receiver.posted[0].body.decode()


def test_a_state_machine_learns_how_its_transfer_ended(announced: Announced) -> None:
    """A transfer with a task token ends its wait with the receipt, without any subscriber."""
    announced.told.callbacks.waiting = {"token"}
    with_token(announced, "token")
    announced.tell()
    how, output = announced.told.callbacks.ended["token"]
    assert how == "succeeded"
    assert json.loads(output)["receipt"]["size"] == 1
    assert not announced.world.ledger.outbox


def test_a_state_machine_learns_why_its_transfer_failed(announced: Announced) -> None:
    """A failure ends the wait with the reason as the error's name."""
    announced.told.callbacks.waiting = {"token"}
    with_token(announced, "token", path="in/b.bin")
    announced.tell()
    assert announced.told.callbacks.ended["token"][0] == "eft.source_missing"
    assert json.loads(announced.told.callbacks.ended["token"][1])["error"]


def test_a_state_machine_that_cannot_be_told_is_told_later(announced: Announced) -> None:
    """Step Functions that does not answer is asked again, until it does; one that waits no longer is left."""
    announced.told.callbacks.waiting = {"token"}
    announced.told.callbacks.trip("succeed", Transient("down", reason="aws_unavailable"))
    with_token(announced, "token")
    announced.tell()
    assert not announced.told.callbacks.ended
    announced.catch_up()
    assert announced.told.callbacks.ended["token"][0] == "succeeded"
    assert not announced.told.outbox.deliveries(TASK).items


def test_a_state_machine_that_gave_up_waiting_is_no_trouble(announced: Announced) -> None:
    """A token that nobody waits with any more is dropped."""
    with_token(announced, "token")
    announced.tell()
    assert not announced.told.outbox.deliveries(TASK).items


@pytest.mark.parametrize("trouble", [False, True], ids=["good", "refusing"])
def test_a_crash_anywhere_loses_no_announcement(trouble: bool) -> None:
    """Killed at any call of any port, the file's three events are heard by the webhook, the bus and the state machine."""
    for at in range(1, played(0, trouble=trouble).passed + 1):
        played(at, trouble=trouble)


def played(at: int, *, trouble: bool) -> CrashPoint:
    """Plays one transfer with a crash at one point, and sees that everybody has heard everything in the end."""
    announced = Announced(bus=True)
    hook = announced.webhook()
    told, world = announced.told, announced.world
    told.callbacks.waiting = {"token"}
    if trouble:
        told.receiver.answers[HOOK] = [Answer(500), Transient("late", reason="webhook_timeout"), Answer(200)]
        told.bus.trip("publish", Transient("down", reason="aws_unavailable"))
    point = CrashPoint(at)
    watch(world, point)
    assert world.engine.announcing is not None
    world.engine = replace(
        world.engine,
        announcing=replace(
            world.engine.announcing,
            **{
                name: Watched(getattr(world.engine.announcing, name), name, point)
                for name in ("outbox", "subscriptions", "receiver", "bus")
            },
        ),
    )
    try:
        transfer = with_token(announced, "token", rest=False)
    except Crash:
        transfer = world.ledger.rows()[0] if world.ledger.rows() else with_token(announced, "token", rest=False)
    try:
        announced.tell()
    except Crash:
        world.clock.advance(timedelta(minutes=2))
    survive(world, transfer.id)
    for _ in range(30):
        if not world.ledger.outbox and not any(told.outbox.deliveries(to).items for to in (hook.id, BUS, TASK)):
            break
        try:
            announced.tell()
            announced.catch_up(timedelta(minutes=5))
        except Crash:
            world.clock.advance(timedelta(minutes=2))
    wanted = {"transfer.accepted", "transfer.started", "transfer.delivered"}
    assert set(told.receiver.heard(HOOK)) == wanted, point.label
    assert {one.type.value for one in told.bus.published} == wanted, point.label
    assert told.callbacks.ended["token"][0] == "succeeded", point.label
    assert not world.ledger.outbox, point.label
    return point


def item_writes(announced: Announced) -> int:
    """Returns the item writes of the ledger and the outbox so far."""
    ledger, outbox = announced.world.ledger.calls, announced.told.outbox.calls
    written = ("create", "claim", "save", "reserve", "release", "record_parts", "renew", "postpone")
    return sum(ledger[call] for call in written) + sum(outbox[call] for call in ("add", "told", "park", "change", "done"))


def many(announced: Announced, count: int, *, first: int = 0) -> None:
    """Moves that many files."""
    for number in range(first, first + count):
        announced.world.server("sftp-a").put(f"in/{number}.bin", b"x")
        announced.world.until_rest(announced.world.submit("sftp-a", "s3-b", f"in/{number}.bin", to=f"out/{number}.bin"))


def redriven(announced: Announced, transfer: Transfer) -> None:
    """Sends a transfer round again until it rests."""
    announced.world.queue += next_message(redrive(announced.world.engine, TENANT, transfer.id, "ada"))
    announced.world.until_rest(transfer)


def with_token(announced: Announced, token: str, *, path: str = "in/a.bin", rest: bool = True) -> Transfer:
    """Returns a transfer that a state machine waits for."""
    request = Submission(
        tenant=TENANT,
        source_endpoint="sftp-a",
        source_path=path,
        destination_endpoint="s3-b",
        destination_path="out/a.bin",
        task_token=token,
        idempotency_key="k",
    )
    transfer = accept(announced.world.engine, request)
    announced.world.queue += next_message(transfer)
    return announced.world.until_rest(transfer) if rest else transfer


def test_an_announcement_reads_itself(announced: Announced) -> None:
    """What is posted is parsed back to the same value."""
    announced.webhook()
    announced.moved()
    announced.tell()
    for one in announced.told.receiver.posted:
        assert Announcement.model_validate_json(one.announcement.model_dump_json()) == one.announcement
