"""The messages that a worker holds: kept hidden while they are worked on, then deleted or shown again.

One thread speaks to SQS about them, so that no acknowledgement waits for the network in the worker's loop, and so that
nothing is extended after it was given back. What fails is tried again; what is never settled reappears by itself.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from threading import Condition, Thread
from typing import Final, TypeVar

from tasks.sqs.calls import BATCH, Answers, Calls, backoff, described
from tasks.sqs.options import Options

T = TypeVar("T")

logger = logging.getLogger(__name__)

SETTLE_AT_LEAST: Final = 60.0
"""A verdict is tried for so many seconds, or for two visibility timeouts, whichever is longer."""

LAST_WORD: Final = 0.5
"""So long closing waits for SQS even when the polls have used up the time."""


@dataclass(slots=True)
class _Lease:
    queue: str
    receipt: str
    received: float
    due: float
    failures: int = 0


@dataclass(slots=True)
class _Verdict:
    queue: str
    receipt: str
    show_after: int | None
    """Seconds until the message is shown again; None deletes it."""
    asked: float
    due: float
    failures: int = 0


@dataclass(slots=True)
class _Round:
    leases: list[_Lease] = field(default_factory=list)
    verdicts: list[_Verdict] = field(default_factory=list)


class Leases:
    """What one consumer holds. Every method may be called from any thread and none waits for SQS, except close()."""

    def __init__(self, calls: Calls, options: Options) -> None:
        self._calls = calls
        self._options = options
        self._changed = Condition()
        self._held: dict[str, _Lease] = {}
        self._verdicts: dict[str, _Verdict] = {}
        self._thread: Thread | None = None
        self._closes_at: float | None = None
        self.lost = 0
        """Messages that SQS took back while they were held."""

    def hold(self, queue: str, receipt: str) -> None:
        """Keeps the message hidden from now on."""
        with self._changed:
            now = time.monotonic()
            self._held[receipt] = _Lease(queue, receipt, received=now, due=now + self._step)
            self._wake()

    def delete(self, receipt: str) -> None:
        """The message is done; it stays hidden until SQS confirms that it is gone."""
        self._settle(receipt, None)

    def show_again(self, receipt: str, *, seconds: int) -> None:
        """Lets the message reappear after `seconds`."""
        self._settle(receipt, seconds)

    def show_all_again(self) -> None:
        """Gives back at once whatever has no verdict yet."""
        with self._changed:
            for receipt in [receipt for receipt in self._held if receipt not in self._verdicts]:
                self._settle(receipt, 0)

    def close(self, until: float) -> None:
        """Tells SQS what is still to be told, until that time of the monotonic clock; the rest reappears by itself."""
        with self._changed:
            self._closes_at = max(until, time.monotonic() + LAST_WORD)
            grace = self._closes_at - time.monotonic()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(grace)
        with self._changed:
            if self._verdicts:
                logger.warning("%d messages were not settled; they reappear by themselves", len(self._verdicts))

    @property
    def _step(self) -> float:
        return self._options.visibility_timeout / 3

    def _settle(self, receipt: str, show_after: int | None) -> None:
        with self._changed:
            lease = self._held.get(receipt)
            if lease is None or receipt in self._verdicts:
                return
            if show_after is not None:
                del self._held[receipt]
            now = time.monotonic()
            self._verdicts[receipt] = _Verdict(lease.queue, receipt, show_after, asked=now, due=now)
            self._wake()

    def _wake(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = Thread(target=self._run, name="sqs-leases", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        while (due := self._next_round()) is not None:
            try:
                self._extend(due.leases)
                self._pronounce(due.verdicts)
            except Exception:
                logger.exception("the messages held could not be looked after; trying again")
                time.sleep(1)

    def _next_round(self) -> _Round | None:
        """Waits for work and returns one batch of each kind; None when it is time to leave."""
        with self._changed:
            while True:
                now = time.monotonic()
                closing = self._closes_at is not None
                if self._closes_at is not None and (not self._verdicts or now >= self._closes_at):
                    return None
                leases = [] if closing else self._due_leases(now)
                verdicts = self._due_verdicts(now)
                if leases or verdicts:
                    return _Round(leases, verdicts)
                self._changed.wait(self._until_next(now))

    def _due_leases(self, now: float) -> list[_Lease]:
        longest = self._options.longest_hold
        due = [lease for lease in self._held.values() if lease.due <= now < lease.received + longest]
        return _batch(due, key=lambda lease: lease.queue)

    def _due_verdicts(self, now: float) -> list[_Verdict]:
        due = (verdict for verdict in self._verdicts.values() if verdict.due <= now)
        return _batch(due, key=lambda verdict: (verdict.queue, verdict.show_after))

    def _until_next(self, now: float) -> float | None:
        longest = self._options.longest_hold
        times = [lease.due for lease in self._held.values() if now < lease.received + longest]
        times += [verdict.due for verdict in self._verdicts.values()]
        if self._closes_at is not None:
            times.append(self._closes_at)
        return max(0.01, min(times) - now) if times else None

    def _extend(self, leases: list[_Lease]) -> None:
        if not leases:
            return
        queue, seconds = leases[0].queue, self._options.visibility_timeout
        answers = self._ask(queue, lambda receipts: self._calls.hide(queue, receipts, seconds=seconds), leases)
        with self._changed:
            now = time.monotonic()
            for lease in leases:
                if lease.receipt in answers.refused:
                    if self._held.pop(lease.receipt, None):
                        self.lost += 1
                        logger.warning("a message of %s was taken back by SQS while it was held", queue)
                elif lease.receipt in answers.done:
                    lease.failures = 0
                    lease.due = now + self._step
                else:
                    lease.failures += 1
                    lease.due = now + min(self._step / 2, backoff(self._options, lease.failures))

    def _pronounce(self, verdicts: list[_Verdict]) -> None:
        if not verdicts:
            return
        queue, seconds = verdicts[0].queue, verdicts[0].show_after
        answers = self._ask(
            queue,
            lambda receipts: self._calls.delete(queue, receipts) if seconds is None else self._calls.hide(queue, receipts, seconds=seconds),
            verdicts,
        )
        with self._changed:
            now = time.monotonic()
            for verdict in verdicts:
                settled = verdict.receipt in answers.done | answers.refused
                if settled or now - verdict.asked > max(SETTLE_AT_LEAST, 2 * self._options.visibility_timeout):
                    self._verdicts.pop(verdict.receipt, None)
                    self._held.pop(verdict.receipt, None)
                    if verdict.receipt not in answers.done:
                        logger.warning("a message of %s could not be settled in time; it may come again", queue)
                else:
                    verdict.failures += 1
                    verdict.due = now + backoff(self._options, verdict.failures)

    def _ask(self, queue: str, ask: Callable[[list[str]], Answers], about: list[_Lease] | list[_Verdict]) -> Answers:
        try:
            return ask([item.receipt for item in about])
        except Exception as error:  # noqa: BLE001 - whatever SQS or its client does, the next attempt decides
            logger.warning("%d messages of %s could not be settled yet: %s", len(about), queue, described(error))
            return Answers(done=frozenset(), refused=frozenset())


def _batch(items: Iterable[T], key: Callable[[T], object]) -> list[T]:
    """Returns the first item and up to nine that can go with it in one call."""
    items = list(items)
    return list(islice((item for item in items if key(item) == key(items[0])), BATCH))
