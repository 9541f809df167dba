"""Announcing: beat asks for it where there is something to tell, and a worker tells it, with many destinations at the same time.

A task that comes twice, late or never does no harm: the outbox says what is to be told, and beat asks again.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final

from eft.errors import EftError
from eft.journey.announce import announce, catch_up
from eft.journey.work import Slice
from eft.ports import Engine
from tasks.app import app
from tasks.base import engine
from tasks.drain import draining
from tasks.queues import ANNOUNCE

log = logging.getLogger(__name__)

LENGTH: Final = timedelta(seconds=15)
"""Of a slice: other shards wait for a worker, too."""
LOOK: Final = 25
"""Rows of a shard that beat looks at: the first ones may be told already, or be a later release's."""
AT_ONCE: Final = 16
"""Destinations that one task speaks to at the same time."""


def ask(ports: Engine) -> None:
    """Sends a task for each shard with something to tell, and for each with something to tell again.

    Raises:
        EftError: the outbox cannot be read now.
    """
    if ports.announcing is None:
        return
    outbox, now = ports.announcing.outbox, ports.clock.now()
    for shard in range(outbox.shards):
        if outbox.untold(shard, limit=LOOK):
            app.send_task("eft.announce", kwargs={"shard": shard}, queue=ANNOUNCE)
        if outbox.due(shard, before=now, limit=LOOK):
            app.send_task("eft.catch_up", kwargs={"shard": shard}, queue=ANNOUNCE)


@app.task(name="eft.announce")
def announce_shard(*, shard: int) -> None:
    """Tells what one shard of the outbox holds."""
    _run(announce, shard)


@app.task(name="eft.catch_up")
def catch_up_shard(*, shard: int) -> None:
    """Tells again what one shard's destinations did not take."""
    _run(catch_up, shard)


def _run(tell: Callable[..., Counter[str]], shard: int) -> None:
    ports = engine()
    worker = f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}:{ports.clock.nonce()[:6]}"
    piece = Slice(worker=worker, clock=ports.clock, length=LENGTH, leaving=draining, limits=ports.limits)
    try:
        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            tell(ports, shard, piece, together=pool.map)
    except EftError as error:
        log.warning("announcing waits", extra={"shard": shard, "reason": error.reason, "error": str(error)})
