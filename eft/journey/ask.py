"""Ask: what a state machine asks for becomes a transfer, once; what cannot become one ends its wait at once, with the reason."""

from __future__ import annotations

import hashlib
import logging

from eft.domain.asking import NoRequest, TransferAsked, request_in
from eft.domain.transfer import Transfer
from eft.errors import Conflict, EftError, NotFound, Permanent
from eft.journey.accept import Submission, accept
from eft.journey.announce import announcing
from eft.ports import Engine

log = logging.getLogger(__name__)


def ask(engine: Engine, body: str) -> Transfer | None:
    """Returns the transfer that a message asks for, or None where its state machine was told why there is none.

    Raises:
        NoRequest: the message is broken, and names nobody who could be told; EftError: ask again.
    """
    try:
        asked = request_in(body)
    except NoRequest as error:
        if error.task_token is None:
            raise
        _refuse(engine, error.task_token, error)
        return None
    try:
        return _accepted(engine, asked, body)
    except (Permanent, Conflict) as error:
        _refuse(engine, asked.task_token, error)
        return None


def _accepted(engine: Engine, asked: TransferAsked, body: str) -> Transfer:
    if asked.source.path is None:
        msg = "source.path: say which file"
        raise NoRequest(msg)
    return accept(
        engine,
        Submission(
            tenant=asked.tenant,
            source_endpoint=asked.source.endpoint,
            source_path=asked.source.path,
            destination_endpoint=asked.destination.endpoint,
            destination_path=asked.destination.path,
            policy=asked.policy,
            expected_sha256=asked.expected_sha256,
            idempotency_key=asked.key,
            request_hash=hashlib.sha256(body.encode()).hexdigest(),
            task_token=asked.task_token,
        ),
    )


def _refuse(engine: Engine, token: str, error: EftError) -> None:
    log.warning("request refused", extra={"reason": error.reason, "error": str(error)})
    try:
        announcing(engine).callbacks.fail(token, error=f"eft.{error.reason}", cause=str(error))
    except NotFound as gone:
        log.info("nobody waits for a refused request", extra={"reason": gone.reason})
