"""What beat asks for at fixed times; each entry names a registered task."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from eft.settings import Settings
from tasks.queues import UPKEEP


def entries(settings: Settings) -> dict[str, Any]:
    """Returns the beat entries by name."""
    every = {
        "eft.reconcile": timedelta(hours=1),
        "eft.give_back": timedelta(hours=1),
        "eft.expire_staging": timedelta(hours=1),
        "eft.abort_stale_uploads": timedelta(hours=1),
    }
    if settings.peer_region is not None:
        every["eft.adopt"] = settings.sweep_every
    return {task.removeprefix("eft."): {"task": task, "schedule": each, "options": {"queue": UPKEEP}} for task, each in every.items()}
