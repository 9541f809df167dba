"""A tiny Celery app on the product's broker, drain and side channel: what the workers of these tests run.

Its settings come as JSON in EFT_TEST_APP; what its tasks do is told in a file, a line for each event.
"""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from celery import Task
from celery.exceptions import Reject

from tasks import drain
from tasks.sqs.envelope import receive_count
from tests.tasks.engine_settings import configured

settings: dict[str, Any] = json.loads(os.environ["EFT_TEST_APP"])
app = configured(settings)
drain.install(app)


def tell(event: str, name: str, task: "Task[Any, Any]") -> None:
    """Adds a line to the story."""
    line = {
        "event": event,
        "name": name,
        "at": time.time(),
        "pid": os.getpid(),
        "thread": threading.get_ident(),
        "receives": receive_count(task.request),
    }
    with Path(settings["story"]).open("a", encoding="utf-8") as story:
        story.write(json.dumps(line) + "\n")


@app.task(bind=True, name="work")
def work(self: "Task[Any, Any]", name: str, seconds: float = 0.0) -> None:
    """Begins, takes its time, ends."""
    tell("began", name, self)
    time.sleep(seconds)
    tell("ended", name, self)


@app.task(bind=True, name="slice")
def a_slice(self: "Task[Any, Any]", name: str, seconds: float) -> None:
    """Works until it is done, or gives itself back when the worker drains; begins only when it does not."""
    if drain.draining():
        raise Reject("draining", requeue=True)
    tell("began", name, self)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if drain.draining():
            tell("left", name, self)
            raise Reject("draining", requeue=True)
        time.sleep(0.02)
    tell("ended", name, self)


@app.task(bind=True, name="refuse")
def refuse(self: "Task[Any, Any]", name: str) -> None:
    """Says that its message is good for nothing."""
    tell("began", name, self)
    raise Reject("no use", requeue=False)


@app.task(bind=True, name="forward")
def forward(self: "Task[Any, Any]", name: str) -> None:
    """Sends the next task from within a task."""
    tell("began", name, self)
    work.delay(f"{name}+")
    tell("ended", name, self)
