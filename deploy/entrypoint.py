"""The image's entrypoint: `python -m deploy.entrypoint ROLE [ARGUMENT…]` becomes the process of that role.

`python -m deploy.entrypoint probe ROLE` is the role's health check: exit status 0 is well, 1 is not.
"""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import Sequence
from typing import Final

from eft.settings import Settings

CELERY: Final = ("celery", "--app", "tasks.app")
COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    "api": ("api",),
    # From every queue of tasks.queues, unless `-Q` is among the arguments.
    "worker": (*CELERY, "worker"),
    "beat": (*CELERY, "beat", "--scheduler", "beat_schedules.scheduler:FlowScheduler"),
    # Events of buckets; any number may run.
    "ingress": ("tasks.ingress",),
    "flower": ("tasks.monitoring",),
    # Not a service: the client, for a look around from inside.
    "cli": ("eft.cli",),
}
"""The module and arguments that Python runs, by role."""

ALLOCATOR: Final = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "131072"}
"""glibc keeps an arena per thread and grows this threshold as large blocks are freed, and so holds on to some 50 MiB of what a
worker has moved (mallopt(3))."""

PROBE_SECONDS: Final = 4.0
SILENT_SECONDS: Final = 60.0
"""A worker or an ingress that has not heard from one of its queues for so long is not well. Shorter failures of SQS it rides through."""
USAGE: Final = 64
"""EX_USAGE of sysexits.h."""


def main(arguments: Sequence[str]) -> int:
    """Returns only for a probe or a mistake; a role's process takes this one's place, and with it its signals."""
    match arguments:
        case ["probe", role] if role in COMMANDS:
            return 0 if well(role, Settings()) else 1
        case [role, *more] if role in COMMANDS:
            for name, value in ALLOCATOR.items():
                os.environ.setdefault(name, value)
            os.execv(sys.executable, [sys.executable, "-m", *COMMANDS[role], *more])  # noqa: S606 - a list, no shell
        case _:
            sys.stderr.write(f"name a role: {', '.join(COMMANDS)}; or probe and a role\n")
    return USAGE


def well(role: str, settings: Settings) -> bool:
    """Whether the role's process does its work, as far as can be seen from beside it. Beat's is seen by its living alone."""
    if role == "api":
        return _answers(f"http://127.0.0.1:{settings.api_port}/v1/health/ready")
    if role == "flower":
        return _answers(f"http://127.0.0.1:{os.environ.get('EFT_FLOWER_PORT', '5555')}/healthcheck")
    if role in {"worker", "ingress"}:
        from tasks.sqs.health import main as hears  # noqa: PLC0415 - only this probe needs it

        return hears([str(settings.health_file), str(SILENT_SECONDS)]) == 0
    return True


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=PROBE_SECONDS) as answer:
            return bool(answer.status == 200)  # noqa: PLR2004 - OK
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
