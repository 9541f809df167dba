"""Adoption: a partition's new home makes rows of what its journal and its intents say, those first that may have been committed."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from eft.domain.ownership import Intent, JournalEntry
from eft.domain.transfer import State, Transfer
from eft.errors import EftError, LostOwnership
from eft.journey.accept import NO_EVIDENCE
from eft.journey.messages import Message, next_message
from eft.ports import Engine

log = logging.getLogger(__name__)


def adopt(engine: Engine, number: int) -> Iterator[Message]:
    """Creates the rows that a partition owned here lacks, and yields their messages. Cheap when there is nothing to adopt; safe to repeat.

    Raises:
        LostOwnership: the partition is not this region's.
    """
    if engine.peer is None:
        return
    table, standing = engine.peer.own, engine.ownership.standing(number)
    evidence = table.partition(number).evidence
    entries = {entry.transfer: entry for entry in table.journals(number)}
    known = engine.ledger.known(sorted(entries))
    lacking = {one: entry for one, entry in entries.items() if one not in known or _stale(engine, one, standing.region_epoch)}
    intents = {one: table.intent(one) for one in lacking}
    for one in sorted(lacking, key=lambda each: intents[each] is None):
        row = _row_of(lacking[one], intents[one], region_epoch=standing.region_epoch, evidence=evidence, engine=engine)
        if row is not None and engine.ledger.adopt(row):
            log.info("adopted", extra={"transfer": one, "state": row.state, "reason": row.reason})
            yield from next_message(row)


def adopt_row(engine: Engine, held: Transfer, *, evidence: Transfer | None, intent: Intent | None) -> None:
    """Decides a transfer that was held for want of evidence by what the other region's row and intent say."""
    epoch = engine.ownership.standing(held.partition).region_epoch
    claimed = engine.ledger.claim(
        held.id, worker=f"rejoin-{engine.clock.nonce()}", now=engine.clock.now(), lease=engine.tuning.lease, force=True
    )
    if claimed is None or claimed.state is not State.HELD:
        return
    now, by = engine.clock.now(), "rejoin"
    free = claimed.with_(claim_until=None, due_at=now)
    if evidence is not None and evidence.receipt is not None:
        delivered = free.with_(receipt=evidence.receipt, commit=evidence.commit, held_from=None)
        new = delivered.to(State.COMMITTING, now=now, by=by).to(State.DELIVERED, now=now, by=by, reason="delivered_elsewhere")
    elif intent is not None and not intent.abandoned:
        new = _committing(intent, region_epoch=epoch).with_(fence=claimed.fence, timeline=claimed.timeline, claim_until=None, due_at=now)
    else:
        new = free.to(State.ACCEPTED, now=now, by=by, reason="evidence_found")
    try:
        engine.ledger.save(new, was=State.HELD)
    except LostOwnership:
        return


def _row_of(entry: JournalEntry, intent: Intent | None, *, region_epoch: int, evidence: bool, engine: Engine) -> Transfer | None:
    now = engine.clock.now()
    if evidence and intent is not None and not intent.abandoned and intent.row:
        return _committing(intent, region_epoch=region_epoch).with_(due_at=now)
    try:
        row = Transfer.model_validate_json(entry.row)
    except ValueError:
        log.exception("a journal entry cannot be read", extra={"transfer": entry.transfer})
        return None
    fresh = Transfer.model_validate(
        {**row.model_dump(), "state": State.ACCEPTED, "upload": None, "staging": None, "staged": None, "commit": None}
    )
    fresh = fresh.with_(
        region_epoch=region_epoch, fence=0, claim_until=None, due_at=now, elsewhere=None, tries=0, retry_at=None, reason=None
    )
    attempt = intent.attempt if intent is not None else 0
    fresh = fresh.with_(attempt=max(fresh.attempt, attempt)).noted(now=now, reason="adopted", by=engine.ownership.region)
    if evidence:
        return fresh
    return fresh.to(State.HELD, now=now, reason="no_evidence", error=NO_EVIDENCE)


def _committing(intent: Intent, *, region_epoch: int) -> Transfer:
    """Returns the committing row of another region, as this region recovers it: by its token, as if the commit had been attempted."""
    row = Transfer.model_validate_json(intent.row)
    commit = None if row.commit is None else row.commit.model_copy(update={"region_epoch": region_epoch, "attempted": True})
    return row.with_(region_epoch=region_epoch, commit=commit, fence=0, claim_until=None, retry_at=None, tries=0)


def _stale(engine: Engine, transfer: str, region_epoch: int) -> bool:
    """Returns whether a row was left from an era when this region was home before."""
    try:
        row = engine.ledger.load(transfer)
    except EftError:
        return False
    return row.elsewhere is not None and row.region_epoch < region_epoch
