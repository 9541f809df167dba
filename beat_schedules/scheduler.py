"""Beat's scheduler: upkeep by Celery's entries, the flows' own schedules from the registry, and the sweep. No state of it matters."""

from __future__ import annotations

import os
import socket
from typing import Any

from celery.beat import Scheduler
from celery.utils.log import get_logger

from beat_schedules.fires import Quiet, due_fires
from beat_schedules.upkeep import entries
from eft.journey.late import Judged, late
from eft.journey.sweep import sweep
from eft.ports import Engine
from eft.regions.chores import Chores
from eft.regions.vigil import Vigil
from tasks.announcing import ask
from tasks.app import SETTINGS
from tasks.base import engine, forward

logger = get_logger(__name__)


class FlowScheduler(Scheduler):
    """`celery beat --scheduler beat_schedules.scheduler:FlowScheduler`. A change through the API holds from the next look on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Celery's signature
        self._look_at = self._sweep_at = self._ask_at = 0.0
        self._chores: Chores | None = None
        self._vigil: Vigil | None = None
        self._quiet: Quiet = {}
        self._judged: Judged = set()
        super().__init__(*args, **kwargs)

    def setup_schedule(self) -> None:
        """Takes the upkeep entries."""
        self.merge_inplace(entries(SETTINGS))

    def tick(self, *args: Any, **kwargs: Any) -> float:  # noqa: ANN401 - Celery's signature
        """Sends what is due and returns the seconds until the next tick. No error ends beat."""
        look_every = SETTINGS.look_every.total_seconds()
        try:
            pause = float(super().tick(*args, **kwargs))
            self._do_chores(engine(), look_every)
            self._ask(engine())
        except Exception:
            logger.exception("beat could not do its work; it tries again")
            return look_every
        return min(pause, look_every, SETTINGS.announce_every.total_seconds())

    def _do_chores(self, ports: Engine, look_every: float) -> None:
        """Fires flows, sweeps rows and raises what is late, in the partitions whose chores are this process's; watches the other region."""
        now = ports.clock.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + look_every
        self._chores = self._chores or Chores(ports, owner=f"{socket.gethostname()}:{os.getpid()}:{ports.clock.nonce()[:6]}")
        mine = self._chores.mine()
        forward(list(due_fires(ports, mine, quiet=self._quiet)))
        if now >= self._sweep_at:
            self._sweep_at = now + SETTINGS.sweep_every.total_seconds()
            forward(list(sweep(ports, mine)))
            late(ports, mine, judged=self._judged)
        # Last: a peer that swallows every question keeps it waiting.
        self._vigil = self._vigil or Vigil(ports, policy=SETTINGS.peer_loss, patience=SETTINGS.peer_loss_after)
        self._vigil.look()

    def _ask(self, ports: Engine) -> None:
        """Asks for announcing where there is something to tell."""
        now = ports.clock.monotonic()
        if now >= self._ask_at:
            self._ask_at = now + SETTINGS.announce_every.total_seconds()
            ask(ports)

    @property
    def info(self) -> str:
        """One line for beat's banner."""
        return "    . flows -> the registry"
