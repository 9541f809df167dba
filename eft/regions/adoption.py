"""Adoption: a partition's home makes rows of what its journal and its intents say, those first that may have been committed.

A row that was left from an era when this region was home before says no more than a journal does, and is replaced in the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress

from eft.domain.names import RemotePath, remote_path
from eft.domain.ownership import Intent, JournalEntry
from eft.domain.transfer import FINAL, RESTING, State, Transfer
from eft.errors import EftError, LostOwnership, NotFound
from eft.journey.accept import NO_EVIDENCE
from eft.journey.messages import Message, next_message
from eft.journey.reserve import Version, version_of
from eft.ports import Engine, Ledger, OwnershipTable, Peer

log = logging.getLogger(__name__)


def adopt(engine: Engine, number: int) -> Iterator[Message]:
    """Creates the rows that a partition owned here lacks, and yields their messages. Cheap when there is nothing to adopt; safe to repeat.

    Raises:
        LostOwnership: the partition is not this region's.
    """
    if engine.peer is None:
        return
    table, standing = engine.peer.own, engine.ownership.standing(number)
    partition = table.partition(number)
    lacking = _lacking(engine, number, engine.peer, standing.region_epoch)
    intents = {one: table.intent(one) for one in lacking}
    adopted: list[Transfer] = []
    for one in sorted(lacking, key=lambda each: intents[each] is None):
        try:
            row = _row_of(lacking[one], intents[one], region_epoch=standing.region_epoch, evidence=partition.evidence, engine=engine)
        except ValueError:
            # One that a later release has written, say, keeps no other waiting; reconcile shows it.
            log.exception("an intent cannot be read", extra={"transfer": one})
            continue
        if engine.ledger.adopt(row):
            log.info("adopted", extra={"transfer": one, "state": row.state, "reason": row.reason})
            adopted.append(row)
    if not partition.in_order:
        # Until this is noted nothing begins here (`standing`).
        put_in_order(table, engine.ledger, number, since=partition.ordered)
        _reserve_again(engine.ledger, [*engine.ledger.unsettled(number), *adopted])
        table.change(partition.model_copy(update={"ordered": standing.region_epoch}), seen=partition)
    for row in adopted:
        yield from next_message(row)


def _reserve_again(ledger: Ledger, rows: Iterable[Transfer]) -> None:
    """Reserves the paths of what may have been delivered: no older version follows it before that is settled."""
    for row in rows:
        if row.state is State.COMMITTING and row.commit is not None:
            # Whoever has claimed it meanwhile does the same (`recover`).
            with suppress(LostOwnership):
                ledger.reserve(path=remote_path(row.commit.path), claim=row.claim, **version_of(row))


def put_in_order(table: OwnershipTable, ledger: Ledger, number: int, *, since: int) -> None:
    """Has a ledger know what was delivered where, by its region's intents: no older version goes over what another region delivered.

    It concerns what overwrites, and what was announced after region_epoch `since`: before, this region was home itself, or knows it by
    now. What has not come to rest is left out: its own row has the path reserved. Repeating it is harmless.
    """
    # An index that lags shows what was closed a moment ago.
    open_still = {
        entry.transfer for entry in table.journals(number) if (now := table.journal_entry(entry.transfer)) is not None and not now.closed
    }
    newest: dict[tuple[str, str, str], tuple[RemotePath, Version]] = {}
    for intent in table.intents(number):
        if intent.abandoned or intent.region_epoch <= since or intent.transfer in open_still:
            continue
        row = _announced_row(intent)
        if row is not None and row.commit is not None and row.commit.overwrite:
            path, version = remote_path(row.commit.path), version_of(row)
            key = (version["endpoint"], path, version["source"])
            if key not in newest or newest[key][1]["order"] < version["order"]:
                newest[key] = path, version
    for path, version in newest.values():
        ledger.remember_delivered(path=path, **version)


def _announced_row(intent: Intent) -> Transfer | None:
    try:
        return Transfer.model_validate_json(intent.row) if intent.row else None
    except ValueError:
        log.exception("an intent cannot be read", extra={"transfer": intent.transfer})
        return None


def _lacking(engine: Engine, number: int, peer: Peer, region_epoch: int) -> dict[str, Transfer]:
    """Returns what has no row of the present era here, though it has not come to rest: as it was journalled, or as its old row says."""
    rows = {row.id: row for row in engine.ledger.unsettled(number)}
    entries = {entry.transfer: entry for entry in peer.own.journals(number) if entry.transfer not in rows}
    known = engine.ledger.known(sorted(entries))
    for one in sorted(known):
        with suppress(EftError):
            rows[one] = engine.ledger.load(one)
    stale = {one: row for one, row in rows.items() if row.region_epoch < region_epoch and row.state not in FINAL}
    missing = entries.keys() - known
    # Read consistently: the index of open entries may still show what was given up a moment before this region became home.
    ended = {one for one in sorted(stale.keys() | missing) if (entry := peer.own.journal_entry(one)) is not None and entry.closed}
    for one in sorted(ended & stale.keys()):
        # Its end is with the peer, or in the journal alone.
        engine.ledger.adopt(stale[one].with_(region_epoch=region_epoch, elsewhere=peer.region, fence=0, claim_until=None, due_at=None))
    journalled = {one: _journalled(entry) for one, entry in entries.items() if one in missing}
    found = {one: row for one, row in (journalled | stale).items() if row is not None}
    return {one: row for one, row in found.items() if one not in ended}


def _journalled(entry: JournalEntry) -> Transfer | None:
    try:
        return Transfer.model_validate_json(entry.row)
    except ValueError:
        log.exception("a journal entry cannot be read", extra={"transfer": entry.transfer})
        return None


def decide_waiting(engine: Engine, peer: Peer, number: int) -> None:
    """Decides what is held here for want of evidence by what the other region has of it.

    Raises:
        Transient: `peer_unreachable`.
    """
    for ours in engine.ledger.unsettled(number):
        if _waits(ours):
            try:
                theirs: Transfer | None = peer.ledger.load(ours.id)
            except NotFound:
                theirs = None
            adopt_row(engine, ours, evidence=theirs, intent=peer.table.intent(ours.id) or peer.own.intent(ours.id))


def _waits(row: Transfer) -> bool:
    return row.state is State.HELD and row.reason == "no_evidence"


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
    elif evidence is not None and evidence.state is State.CANCELLED:
        new = free.to(State.CANCELLED, now=now, by=by, reason="cancelled_elsewhere")
    elif intent is not None and _may_have_committed(intent):
        new = _announced(intent, region_epoch=epoch).with_(fence=claimed.fence, timeline=claimed.timeline, claim_until=None, due_at=now)
    else:
        new = free.with_(commit=None, upload=None).to(State.ACCEPTED, now=now, by=by, reason="evidence_found")
    try:
        engine.ledger.save(new, was=State.HELD)
    except LostOwnership:
        return


def _row_of(row: Transfer, intent: Intent | None, *, region_epoch: int, evidence: bool, engine: Engine) -> Transfer:
    now = engine.clock.now()
    if row.receipt is not None and row.state is State.DELIVERED:
        return row.with_(region_epoch=region_epoch, fence=0, claim_until=None, due_at=now, elsewhere=None)
    if intent is not None and _may_have_committed(intent):
        announced = _announced(intent, region_epoch=region_epoch)
        if evidence:
            return announced.with_(due_at=None if announced.state in RESTING else now)
        # Held with its token: whoever decides before the rejoin writes that token off first, or a next one would stand against it.
        waits = announced if announced.state is State.HELD else announced.to(State.HELD, now=now, by=engine.ownership.region)
        return waits.with_(reason="no_evidence", error=NO_EVIDENCE, due_at=None)
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


def _may_have_committed(intent: Intent) -> bool:
    """Returns whether a token that was announced may have been committed. One that a person gave up may, too: ABANDON comes first, and
    only then is it seen whether the token was still there. What a rejoin wrote off (as attempt 0) was not.
    """
    return bool(intent.row) and (not intent.abandoned or intent.attempt > 0)


def _announced(intent: Intent, *, region_epoch: int) -> Transfer:
    """Returns the row of another region as this region goes on with it: by its token, as if the commit had been attempted.

    It is committing; held, and for a person to decide once more, where another person's decision was under way.
    """
    row = Transfer.model_validate_json(intent.row)
    commit = None if row.commit is None else row.commit.model_copy(update={"region_epoch": region_epoch, "attempted": True})
    return row.with_(region_epoch=region_epoch, commit=commit, fence=0, claim_until=None, retry_at=None, tries=0)
