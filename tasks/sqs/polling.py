"""The long polls: one thread per queue, so that no trouble of one queue reaches another or the worker's loop."""

import logging
import time
from collections.abc import Callable
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final

from tasks.drain import draining
from tasks.sqs.calls import BATCH, Calls, backoff, described
from tasks.sqs.envelope import BrokenMessageError, opened
from tasks.sqs.health import Polls
from tasks.sqs.leases import Leases
from tasks.sqs.options import Options
from tasks.sqs.window import Window

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

logger = logging.getLogger(__name__)

PATIENCE: Final = 0.25
GIVES_WAY: Final = 0.05
"""Seconds for each message in hand for which a worker leaves the next one of those that are taken one by one to others."""
SHORTEST_EMPTY_POLL: Final = 1.0
"""An empty answer that comes sooner is waited out: a server that answers rubbish at once makes no busy loop."""


class Poller(Thread):
    """Receives from one queue until stopped and hands each sound message to `deliver`."""

    def __init__(
        self,
        queue: str,
        deliver: Callable[[str, dict[str, Any]], object],
        *,
        calls: Calls,
        options: Options,
        window: Window,
        leases: Leases,
        polls: Polls,
    ) -> None:
        super().__init__(name=f"sqs-poll-{queue}", daemon=True)
        self.queue = queue
        self._deliver = deliver
        self._calls = calls
        self._options = options
        self._window = window
        self._leases = leases
        self._polls = polls
        self._stopped = Event()
        self._one_by_one = queue in options.one_by_one

    def stop(self) -> None:
        """Ends the polling; what the poll under way still brings is given back."""
        self._stopped.set()
        self._polls.forget(self.queue)

    def run(self) -> None:
        """Polls."""
        self._polls.watch(self.queue)
        most = 1 if self._one_by_one else BATCH
        while not self._leaving:
            granted = self._window.reserve(PATIENCE, most=most)
            if not granted:
                self._polls.full(self.queue)
            elif self._leaving:
                self._window.release(granted)
            else:
                self._stopped.wait(self._poll(granted))

    @property
    def _leaving(self) -> bool:
        return self._stopped.is_set() or draining()

    def _poll(self, granted: int) -> float:
        """Asks once; returns for how many seconds not to ask again."""
        began = time.monotonic()
        try:
            messages = self._calls.receive(self.queue, granted)
            for message in messages:
                self._take(message)
        except Exception as error:  # noqa: BLE001 - nothing that a poll meets may end the polling
            failures = self._polls.failed(self.queue)
            logger.warning("poll of %s failed, %d in a row: %s", self.queue, failures, described(error))
            return backoff(self._options, failures)
        finally:
            self._window.release(granted)
        self._polls.heard(self.queue)
        if messages:
            return GIVES_WAY * self._window.held if self._one_by_one else 0.0
        return max(0.0, SHORTEST_EMPTY_POLL - (time.monotonic() - began))

    def _take(self, received: "MessageTypeDef") -> None:
        receipt = received["ReceiptHandle"]
        self._leases.hold(self.queue, receipt)
        if self._leaving:
            self._leases.show_again(receipt, seconds=0)
            return
        try:
            message = opened(received, self.queue)
        except BrokenMessageError as error:
            logger.error(  # noqa: TRY400 - the traceback tells no more
                "a broken message in %s is left for its dead-letter queue: %s (%s)",
                self.queue,
                error,
                received.get("MessageId"),
            )
            self._leases.show_again(receipt, seconds=self._options.reject_visibility)
            return
        self._window.admit(receipt)
        self._deliver(self.queue, message)
