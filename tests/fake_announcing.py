"""In-memory fakes of the ports that tell others; `tests/contract/test_outbox.py` holds those of rows to the real ones' conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pydantic import SecretStr

from eft.domain.announcement import Announcement, EventType, announcements
from eft.domain.cursor import cursor_after, read_cursor
from eft.domain.instants import instant, millis
from eft.domain.names import shard_of
from eft.domain.webhook import Delivery, DeliveryState, Webhook
from eft.errors import Conflict, EftError, NotFound
from eft.ports import Announcing, Answer, Page, Untold
from tests.fakes import FakeLedger, _Fake

SHARDS = 4


class FakeOutbox(_Fake):
    """`ports.Outbox` beside a fake ledger."""

    shards = SHARDS

    def __init__(self, ledger: FakeLedger) -> None:
        super().__init__()
        self._ledger = ledger
        self._announcements: dict[str, tuple[Announcement, bool]] = {}
        self._deliveries: dict[tuple[str, str], Delivery] = {}

    def add(self, announcement: Announcement) -> bool:
        with self._called("add"):
            if announcement.id in self._announcements:
                return False
            self._announcements[announcement.id] = (announcement, True)
            return True

    def untold(self, shard: int, *, limit: int) -> Sequence[Untold]:
        with self._called("untold"):
            found = [
                Untold("transfer", one.id, tuple((all_ := announcements(one))[one.announced or 0 :]), len(all_), one.task_token)
                for one in self._ledger.untold()
            ] + [Untold("announcement", one.id, (one,)) for one, waits in self._announcements.values() if waits]
            return [one for one in found if shard_of(one.announcements[0].tenant, one.id, shards=SHARDS) == shard][:limit]

    def told(self, untold: Untold) -> None:
        with self._called("told"):
            if untold.kind == "announcement":
                self._announcements[untold.id] = (self._announcements[untold.id][0], False)
            else:
                self._ledger.announced(untold.id, milestones=untold.milestones)

    def park(self, delivery: Delivery) -> None:
        with self._called("park"):
            self._deliveries.setdefault((delivery.destination, delivery.id), _cut(delivery))

    def due(self, shard: int, *, before: datetime, limit: int) -> Sequence[Delivery]:
        with self._called("due"):
            found = [
                one
                for one in self._deliveries.values()
                if one.state is DeliveryState.WAITING and one.due_at <= before and shard_of(one.destination, shards=SHARDS) == shard
            ]
            return sorted(found, key=lambda one: (one.due_at, one.id))[:limit]

    def change(self, delivery: Delivery, *, seen: Delivery) -> bool:
        with self._called("change"):
            stands = self._deliveries.get((delivery.destination, delivery.id))
            if stands is None or (stands.state, stands.due_at) != (seen.state, seen.due_at):
                return False
            self._deliveries[delivery.destination, delivery.id] = _cut(delivery)
            return True

    def done(self, delivery: Delivery) -> None:
        with self._called("done"):
            self._deliveries.pop((delivery.destination, delivery.id), None)

    def delivery(self, destination: str, delivery_id: str) -> Delivery:
        with self._called("delivery"):
            if (destination, delivery_id) not in self._deliveries:
                raise NotFound(f"there is no delivery '{delivery_id}'", reason="delivery_unknown")
            return self._deliveries[destination, delivery_id]

    def deliveries(
        self, destination: str, *, state: DeliveryState | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[Delivery]:
        with self._called("deliveries"):
            scope = ("deliveries", destination, state)
            after = "" if cursor is None else read_cursor(cursor, scope=scope)
            found = sorted(
                (
                    one
                    for (where, name), one in self._deliveries.items()
                    if where == destination and name > after and state in {None, one.state}
                ),
                key=lambda one: one.id,
            )
            return Page(found[:limit], cursor_after(found[limit - 1].id, scope=scope) if len(found) > limit else None)


class FakeSubscriptions(_Fake):
    """`ports.Subscriptions` and `ports.Listening`."""

    def __init__(self) -> None:
        super().__init__()
        self._webhooks: dict[tuple[str, str], Webhook] = {}
        self.everything = False
        """Whether an event bus wants to hear of everything."""

    def add(self, webhook: Webhook) -> None:
        with self._called("add"):
            if (webhook.tenant, webhook.id) in self._webhooks:
                raise Conflict(f"the webhook '{webhook.id}' exists", reason="webhook_exists")
            self._webhooks[webhook.tenant, webhook.id] = webhook

    def change(self, webhook: Webhook) -> None:
        with self._called("change"):
            stands = self._webhooks.get((webhook.tenant, webhook.id))
            if stands is None or stands.revision != webhook.revision - 1:
                raise Conflict(f"'{webhook.id}' has changed meanwhile", reason="revision_differs")
            self._webhooks[webhook.tenant, webhook.id] = webhook

    def webhook(self, tenant: str, webhook_id: str) -> Webhook:
        with self._called("webhook"):
            if (tenant, webhook_id) not in self._webhooks:
                raise NotFound(f"there is no webhook '{webhook_id}'", reason="webhook_unknown")
            return self._webhooks[tenant, webhook_id]

    def of(self, tenant: str) -> Sequence[Webhook]:
        with self._called("of"):
            return [one for (owner, _), one in sorted(self._webhooks.items()) if owner == tenant]

    def remove(self, tenant: str, webhook_id: str, *, revision: int) -> None:
        with self._called("remove"):
            if (tenant, webhook_id) not in self._webhooks or self._webhooks[tenant, webhook_id].revision != revision:
                raise Conflict(f"'{webhook_id}' has changed meanwhile", reason="revision_differs")
            del self._webhooks[tenant, webhook_id]

    def wanted(self, tenant: str) -> bool:
        with self._called("wanted"):
            return self.everything or any(owner == tenant for owner, _ in self._webhooks)


@dataclass(frozen=True, slots=True)
class Posted:
    """One request that reached a receiver."""

    url: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def announcement(self) -> Announcement:
        """What it tells."""
        return Announcement.model_validate_json(self.body)


class FakeReceiver(_Fake):
    """`ports.Receiver`: keeps what is posted, and answers what it is told to: a status, or an error."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, list[Answer | EftError]] = {}
        """By address: what the next requests meet; the last one stays. Without any, 204."""
        self.posted: list[Posted] = []
        self.refused: dict[str, EftError] = {}
        """Addresses that are not posted to."""

    def check(self, url: str) -> None:
        with self._called("check"):
            if url in self.refused:
                raise self.refused[url]

    def post(self, url: str, *, headers: Mapping[str, str], body: bytes, patience: timedelta) -> Answer:
        assert patience > timedelta(0)
        with self._called("post"):
            if url in self.refused:
                raise self.refused[url]
            self.posted.append(Posted(url, dict(headers), body))
            answers = self.answers.get(url, [Answer(204)])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, EftError):
                raise answer
            return answer

    def heard(self, url: str) -> list[str]:
        """Returns the types of what an address was posted, in order."""
        return [one.announcement.type.value for one in self.posted if one.url == url]


class FakeBus(_Fake):
    """`ports.Bus`."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[Announcement] = []
        self.refuses: set[str] = set()
        """Ids that are not taken."""

    def publish(self, announcements: Sequence[Announcement]) -> Sequence[Announcement]:
        with self._called("publish"):
            self.published += [one for one in announcements if one.id not in self.refuses]
            return [one for one in announcements if one.id in self.refuses]


class FakeCallbacks(_Fake):
    """`ports.Callbacks`."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: set[str] = set()
        """Tokens that a state machine waits with."""
        self.ended: dict[str, tuple[str, str]] = {}
        """By token: `succeeded` and the output, or the error and its cause."""

    def succeed(self, token: str, *, output: str) -> None:
        with self._called("succeed"):
            self._end(token, ("succeeded", output))

    def fail(self, token: str, *, error: str, cause: str) -> None:
        with self._called("fail"):
            self._end(token, (error, cause))

    def _end(self, token: str, how: tuple[str, str]) -> None:
        if token not in self.waiting:
            raise NotFound("nobody waits with this token", reason="task_gone")
        self.waiting.discard(token)
        self.ended[token] = how


@dataclass
class Told:
    """All fakes of one engine's announcing; the ledger beside them is told who listens."""

    ledger: FakeLedger
    outbox: FakeOutbox = field(init=False)
    subscriptions: FakeSubscriptions = field(default_factory=FakeSubscriptions)
    receiver: FakeReceiver = field(default_factory=FakeReceiver)
    callbacks: FakeCallbacks = field(default_factory=FakeCallbacks)
    bus: FakeBus = field(default_factory=FakeBus)

    def __post_init__(self) -> None:
        self.outbox = FakeOutbox(self.ledger)
        self.ledger.listening = self.subscriptions

    def ports(self, *, bus: bool = False) -> Announcing:
        """Returns the ports, with an event bus or without."""
        self.subscriptions.everything = bus
        return Announcing(
            outbox=self.outbox,
            subscriptions=self.subscriptions,
            receiver=self.receiver,
            callbacks=self.callbacks,
            bus=self.bus if bus else None,
        )


SECRET = SecretStr("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
EVERYTHING = frozenset(EventType) - {EventType.TEST}


def _cut(delivery: Delivery) -> Delivery:
    """Times on rows are whole milliseconds."""
    return delivery.model_copy(update={"due_at": instant(millis(delivery.due_at))})
