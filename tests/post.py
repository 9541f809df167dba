"""A post office for tests of `tasks`: the product's app on a broker in memory, over a world of fakes."""

from __future__ import annotations

from dataclasses import dataclass
from queue import Empty
from typing import Any

import pytest
from celery import Celery
from kombu.transport.memory import Transport

from eft.ports import Engine
from eft.settings import Settings
from tasks import base, upkeep
from tasks.app import make_app
from tasks.queues import QUEUES


@dataclass(frozen=True)
class Letter:
    """A message as a worker would receive it."""

    task: str
    queue: str
    body: dict[str, Any]
    delay: int
    """Seconds that SQS keeps it back."""


class PostOffice:
    """Takes the place of SQS and of the process's engine while a test lasts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
        self.app: Celery = make_app(Settings())
        self.app.conf.update(broker_url="memory://", broker_transport_options={})
        Transport.global_state.clear()
        Transport.Channel.queues.clear()
        monkeypatch.setattr(base, "app", self.app)
        for module in (base, upkeep):
            monkeypatch.setattr(module, "engine", lambda: engine)

    def letters(self) -> list[Letter]:
        """Takes what was sent, queue by queue, oldest first."""
        found: list[Letter] = []
        with self.app.connection_for_read() as connection:
            for name in QUEUES:
                declared: Any = self.app.amqp.queues[name]
                box: Any = connection.SimpleQueue(declared)
                try:
                    while True:
                        message = box.get(block=False)
                        message.ack()
                        found.append(Letter(message.headers["task"], name, message.payload[1], message.properties.get("delay_seconds", 0)))
                except Empty:
                    box.close()
        return found
