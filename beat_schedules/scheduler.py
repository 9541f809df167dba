"""Beat's scheduler: the upkeep entries of Celery, and the flows' own schedules from the registry. It keeps no state of its own."""

from __future__ import annotations

from typing import Any

from celery.beat import Scheduler
from celery.utils.log import get_logger

from beat_schedules.fires import due_fires
from beat_schedules.upkeep import entries
from tasks.app import SETTINGS
from tasks.base import engine, forward

logger = get_logger(__name__)


class FlowScheduler(Scheduler):
    """`celery beat --scheduler beat_schedules.scheduler:FlowScheduler`. A change through the API holds from the next look on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Celery's signature
        self._look_at = 0.0
        super().__init__(*args, **kwargs)

    def setup_schedule(self) -> None:
        """Takes the upkeep entries."""
        self.merge_inplace(entries(SETTINGS))

    def tick(self, *args: Any, **kwargs: Any) -> float:  # noqa: ANN401 - Celery's signature
        """Sends what is due and returns the seconds until the next tick. No error ends beat."""
        look_every = SETTINGS.look_every.total_seconds()
        try:
            pause = float(super().tick(*args, **kwargs))
            clock = engine().clock
            if clock.monotonic() >= self._look_at:
                self._look_at = clock.monotonic() + look_every
                forward(list(due_fires(engine())))
        except Exception:
            logger.exception("beat could not do its work; it tries again")
            return look_every
        return min(pause, look_every)

    @property
    def info(self) -> str:
        """One line for beat's banner."""
        return "    . flows -> the registry"
