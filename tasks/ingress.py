"""Ingress: makes transfers of what buckets tell in the queue `arrivals`, and of what state machines ask for in `requests`.

`python -m tasks.ingress` is its process.

What is done is deleted, also where a source cannot be reached and is listed later. What is not stays in the queue: a broken message
until SQS moves it to the dead-letter queue, one of which nothing could be noted for a growing pause. A kill loses nothing: the rows are
written before a message is deleted, and an event that comes again finds them. `handler` is the same as an AWS Lambda function with
partial batch responses (ReportBatchItemFailures: AWS Lambda Developer Guide, "Handling errors for an SQS event source in Lambda").
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from eft.domain.arrival import Arrived, events_in
from eft.domain.transfer import Transfer
from eft.errors import EftError, Permanent
from eft.journey.arrive import arrive
from eft.journey.discover import bundled
from eft.ports import Engine
from eft.settings import Settings
from eft.telemetry import log_to_stderr
from tasks.base import engine, forward
from tasks.endings import Ending
from tasks.queues import ARRIVALS, REQUESTS, queue_url
from tasks.requests import carry_requests
from tasks.sqs.calls import BATCH, CALL_ERRORS, Calls, backoff, described
from tasks.sqs.health import Polls
from tasks.sqs.options import Options

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

log = logging.getLogger(__name__)

Carry = Callable[[Sequence[str]], list[Ending]]
"""Carries the texts of messages out, and says what is to become of each."""
WAIT: Final = 2
"""Seconds of a long poll at most: as long as SIGTERM may have to wait."""
LEAVE_WITHIN: Final = 4.0
"""Seconds after SIGTERM until the process ends, whatever it is waiting for."""
LONGEST_PAUSE: Final = 900
"""Seconds until a message comes again of which nothing could be noted."""


@dataclass(frozen=True, slots=True)
class _Carried:
    ending: Ending
    created: tuple[Transfer, ...]
    counts: Counter[str]


def carry_arrivals(ports: Engine, bodies: Sequence[str]) -> list[Ending]:
    """Returns what is to become of each message, once all rows are written and their messages sent. No error leaves it."""
    if not bodies:
        return []
    with ThreadPoolExecutor(max_workers=min(len(bodies), BATCH)) as together:
        carried = list(together.map(lambda body: _carry(ports, body), bodies))
    forward(bundled(ports, [transfer for one in carried for transfer in one.created]))
    log.info("arrivals", extra={"messages": len(bodies), "counts": dict(sum((one.counts for one in carried), Counter()))})
    return [one.ending for one in carried]


def handler(event: Mapping[str, Any], context: object) -> dict[str, list[dict[str, str]]]:  # noqa: ARG001 - Lambda's signature
    """Returns the ids of the messages that Lambda is to leave in the queue."""
    records = event["Records"]
    endings = carry_arrivals(engine(), [record["body"] for record in records])
    left = [record["messageId"] for record, ending in zip(records, endings, strict=True) if ending is not Ending.DONE]
    return {"batchItemFailures": [{"itemIdentifier": one} for one in left]}


def _carry(ports: Engine, body: str) -> _Carried:
    counts: Counter[str] = Counter()
    created: list[Transfer] = []
    try:
        events = events_in(body)
    except Permanent as error:
        counts["malformed"] += 1
        log.error("broken message", extra={"reason": error.reason, "error": str(error)})  # noqa: TRY400 - no traceback wanted
        return _Carried(Ending.BROKEN, (), counts)
    ending = Ending.DONE
    for event in events:
        if not isinstance(event, Arrived):
            counts[event.why] += 1
            continue
        try:
            taken = arrive(ports, event, counts)
        except EftError as error:
            log.warning("arrival not taken; it comes again", extra={"reason": error.reason, "error": str(error)})
            counts["again"] += 1
            ending = Ending.AGAIN
            continue
        except Exception:
            log.exception("arrival not taken; it comes again")
            counts["again"] += 1
            ending = Ending.AGAIN
            continue
        created += taken.created
        if taken.trouble is not None:
            ending = Ending.AGAIN
    return _Carried(ending, tuple(created), counts)


class Ingress:
    """The process's loop over one queue; `leaving` ends it."""

    def __init__(self, queue: str, carry: Carry, calls: Calls, *, options: Options, polls: Polls, leaving: threading.Event) -> None:
        self._queue = queue
        self._carry = carry
        self._calls = calls
        self._options = options
        self._polls = polls
        self.leaving = leaving

    def run(self) -> None:
        """Takes messages until it is told to leave; errors of SQS are ridden out with a bounded back-off."""
        self._polls.watch(self._queue)
        log.info("ingress takes %s", self._queue)
        while not self.leaving.is_set():
            try:
                messages = self._calls.receive(self._queue, BATCH)
            except CALL_ERRORS as error:
                failures = self._polls.failed(self._queue)
                pause = backoff(self._options, failures)
                log.warning("the queue of %s does not answer", self._queue, extra={"error": described(error), "pause": round(pause, 1)})
                self.leaving.wait(pause)
                continue
            self._polls.heard(self._queue)
            self._settle(messages)

    def _settle(self, messages: Sequence[MessageTypeDef]) -> None:
        endings = self._carry([message.get("Body", "") for message in messages])
        done = [m["ReceiptHandle"] for m, ending in zip(messages, endings, strict=True) if ending is Ending.DONE]
        pauses: dict[int, list[str]] = {}
        for message, ending in zip(messages, endings, strict=True):
            if ending is Ending.AGAIN:
                pauses.setdefault(self._pause(message), []).append(message["ReceiptHandle"])
        try:
            if done:
                self._calls.delete(self._queue, done)
            for seconds, receipts in pauses.items():
                self._calls.hide(self._queue, receipts, seconds=seconds)
        except CALL_ERRORS as error:
            # They come again after the visibility timeout and find their rows.
            log.warning("messages could not be settled", extra={"error": described(error)})

    def _pause(self, message: MessageTypeDef) -> int:
        """Returns the seconds until a message comes again, which double with each time it was received."""
        received = int(message.get("Attributes", {}).get("ApproximateReceiveCount", "1"))
        return int(min(LONGEST_PAUSE, self._options.visibility_timeout * 2 ** min(received - 1, 20)))


def main() -> int:
    """Runs until SIGTERM or SIGINT; returns the exit status."""
    settings = Settings()
    log_to_stderr(settings.log_level)
    options = Options(
        queue_urls={name: queue_url(name, base=settings.queue_base, prefix=settings.prefix) for name in (ARRIVALS, REQUESTS)},
        region=settings.region,
        endpoint_url=settings.sqs_endpoint or settings.aws_endpoint,
        visibility_timeout=settings.arrival_visibility,
        wait_time_seconds=min(settings.poll_wait, WAIT),
        health_file=None if settings.health_file is None else str(settings.health_file),
    )
    ports, calls, polls, leaving = engine(), Calls(options), Polls(options.health_file), threading.Event()
    arrivals = Ingress(ARRIVALS, partial(carry_arrivals, ports), calls, options=options, polls=polls, leaving=leaving)
    requests = Ingress(REQUESTS, partial(carry_requests, ports), calls, options=options, polls=polls, leaving=leaving)

    def leave(_number: int, _frame: object) -> None:
        if not leaving.is_set():
            leaving.set()
            # Nothing is lost by it: what is not deleted comes again.
            last = threading.Timer(LEAVE_WITHIN, os._exit, (0,))
            last.daemon = True
            last.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    beside = threading.Thread(target=requests.run, name="requests", daemon=True)
    beside.start()
    arrivals.run()
    beside.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
