"""The tasks: one per step, each on the queue of its name. A message carries ids and the number of a part, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery.exceptions import Reject

from eft.domain.transfer import Step
from eft.journey.messages import MESSAGE_FORMAT
from tasks.app import app
from tasks.base import carry


def _register(step: Step) -> None:
    @app.task(name=f"eft.{step}", shared=False)
    def task(*, v: int = 0, ids: Sequence[str] = (), part: int | None = None, **unknown: Any) -> None:  # noqa: ANN401 - refused
        if v != MESSAGE_FORMAT or unknown:
            raise Reject(f"unknown message format {v}", requeue=False)
        carry(step, ids, part)


for _step in Step:
    _register(_step)
