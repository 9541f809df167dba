"""Leaving early: one flag that a worker, its threads and its forked children see as soon as it is told to stop.

A step looks at draining() between its pieces of work, saves what it has done and raises Reject(requeue=True); a step
that begins while the worker drains does so at once. What had not begun is given back here.
"""

import mmap
from collections.abc import Iterable
from typing import Any, Final, cast

from celery import Celery, bootsteps, signals
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.request import Request

logger = get_logger(__name__)

# A byte that forked children share. No lock guards it: the flag is raised inside a signal handler, which may have
# interrupted whoever holds a lock.
_FLAG: Final = mmap.mmap(-1, 1)

LOOK_EVERY: Final = 0.25


def draining() -> bool:
    """Returns whether this worker is on its way out; costs less than a microsecond."""
    return _FLAG[0] != 0


def begin() -> None:
    """Says so. There is no way back."""
    _FLAG[0] = 1


def install(app: Celery) -> None:
    """Makes the app's workers drain when they are told to stop. To be called before the pool forks."""
    signals.worker_shutting_down.connect(_told_to_stop, weak=False, dispatch_uid="eft-drain")
    app.steps["worker"].add(GiveBack)


def _told_to_stop(**_: object) -> None:
    begin()


class GiveBack(bootsteps.StartStopStep):
    """Gives back, when the worker stops, the messages whose tasks have not begun; the running ones do so themselves."""

    requires = ("celery.worker.components:Pool",)

    def register_with_event_loop(self, _worker: object, hub: Any) -> None:  # noqa: ANN401 - kombu's hub
        """Lets the loop look up often: a signal does not end its sleep, which lasts up to ten seconds."""
        hub.call_repeatedly(LOOK_EVERY, _look_up)

    def close(self, _worker: object) -> None:
        """The worker begins to stop."""
        begin()
        waiting = [
            request
            for request in {*state.reserved_requests, *_scheduled()} - set(state.active_requests)
            if request.task.acks_late and not request.acknowledged
        ]
        for request in waiting:
            # The request's own way back leads through the loop, which no longer turns.
            request.message.reject(requeue=True)
            request.acknowledged = True
        if waiting:
            logger.info("%d tasks that had not begun are given back", len(waiting))


def _look_up() -> None:
    """The loop checks by itself whether it is to stop."""


def _scheduled() -> Iterable[Request]:
    # Tasks with a countdown, which wait in the worker's memory. The published types do not know them yet.
    return cast("Iterable[Request]", state.scheduled_requests)  # type: ignore[attr-defined]
