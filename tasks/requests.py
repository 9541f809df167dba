"""Requests: transfers that state machines ask for in the queue `requests`. Whoever may send to it asks for any tenant."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from eft.domain.asking import NoRequest
from eft.domain.transfer import Transfer
from eft.errors import EftError
from eft.journey.ask import ask
from eft.journey.discover import bundled
from eft.ports import Engine
from tasks.base import forward
from tasks.endings import Ending
from tasks.sqs.calls import BATCH

log = logging.getLogger(__name__)


def carry_requests(ports: Engine, bodies: Sequence[str]) -> list[Ending]:
    """Returns what is to become of each message, once the rows are written and their messages sent. No error leaves it."""
    if not bodies:
        return []
    with ThreadPoolExecutor(max_workers=min(len(bodies), BATCH)) as together:
        carried = list(together.map(lambda body: _carry(ports, body), bodies))
    forward(bundled(ports, [transfer for _, transfer in carried if transfer is not None]))
    return [ending for ending, _ in carried]


def _carry(ports: Engine, body: str) -> tuple[Ending, Transfer | None]:
    try:
        return Ending.DONE, ask(ports, body)
    except NoRequest as error:
        log.error("broken request", extra={"reason": error.reason, "error": str(error)})  # noqa: TRY400 - no traceback wanted
        return Ending.BROKEN, None
    except EftError as error:
        log.warning("request not taken; it comes again", extra={"reason": error.reason, "error": str(error)})
    except Exception:
        log.exception("request not taken; it comes again")
    return Ending.AGAIN, None
