"""What belongs to a partition's home and lies in the other region is carried there: rows, with parts and reservations, and journals."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from eft.domain.ownership import JournalEntry
from eft.domain.transfer import FINAL, Transfer
from eft.errors import LostOwnership
from eft.journey.operate import release_paths
from eft.journey.reserve import version_of
from eft.ports import Engine, Ledger, Peer
from eft.regions.orders import peer_of


def return_strays(engine: Engine, number: int) -> int:
    """Carries what belongs to a partition's home there: rows created here while it left, and journals that the home could not be told.

    Returns how many. Cheap where there are none.

    Raises:
        Transient: `peer_unreachable`; they wait.
    """
    peer = peer_of(engine)
    there = peer.own.partition(number)
    if there.home != peer.region:
        return 0
    strays = [row for row in engine.ledger.unsettled(number) if row.region_epoch <= there.region_epoch]
    for row in strays:
        carry_over(engine, row, engine.ledger, peer.ledger, to=peer.region, region_epoch=there.region_epoch)
    untold = _untold(peer, number)
    for entry in untold:
        peer.table.journal(entry)
    return len(strays) + len(untold)


def _untold(peer: Peer, number: int) -> list[JournalEntry]:
    """Returns what this region accepted for the peer while the peer could not be reached: it is in one journal only."""
    ours = {entry.transfer: entry for entry in peer.own.journals(number)}
    known = peer.table.journalled(list(ours)) if ours else set()
    return [entry for transfer, entry in ours.items() if transfer not in known]


def carry_over(engine: Engine, row: Transfer, source: Ledger, target: Ledger, *, to: str, region_epoch: int) -> None:
    """Moves one row: fences whoever still has it, writes it in the other ledger IF that has none of this era, and ends it in its own.

    A row of a later era has just come from there and stays; so does one that the other ledger holds to be here.
    """
    if row.region_epoch > region_epoch:
        return
    worker = f"switch-{engine.clock.nonce()}"
    claimed = source.claim(row.id, worker=worker, now=engine.clock.now(), lease=engine.tuning.lease, force=True)
    if claimed is None or claimed.elsewhere is not None or claimed.state in FINAL:
        return
    commit = claimed.commit and claimed.commit.model_copy(update={"region_epoch": region_epoch, "attempted": True})
    moved = claimed.with_(region_epoch=region_epoch, commit=commit, due_at=engine.clock.now())
    stays = claimed.region_epoch > region_epoch or not (_copy(source, target, moved) or _live_there(engine, target, moved, was=claimed))
    ended = claimed.with_(claim_until=None) if stays else claimed.with_(elsewhere=to, claim_until=None, due_at=None)
    try:
        source.save(ended, was=claimed.state)
    except LostOwnership:
        # Whoever carries the same row at the same time ends it: only an order or the upkeep of its region claims it any more.
        return
    if not stays:
        release_paths(replace(engine, ledger=source), claimed, delivered=False)


def _live_there(engine: Engine, target: Ledger, moved: Transfer, *, was: Transfer) -> bool:
    """Returns whether the other ledger goes on with a row that could not be written there.

    One that it holds to be here, under a later era than ours, it has by mistake: a cancellation that broke off in the one region let it
    believe that the transfer had ended in the other. What we have takes its place.
    """
    theirs = target.load(moved.id)
    if theirs.elsewhere is None:
        return True
    if theirs.region_epoch <= was.region_epoch:
        return False
    worker = f"switch-{engine.clock.nonce()}"
    theirs = target.claim(moved.id, worker=worker, now=engine.clock.now(), lease=engine.tuning.lease, force=True) or theirs
    if theirs.elsewhere is None or theirs.state in FINAL:
        return theirs.elsewhere is None
    try:
        target.save(moved.with_(fence=theirs.fence, claim_until=None, elsewhere=None), was=theirs.state)
    except LostOwnership:
        return False
    return True


def _copy(source: Ledger, target: Ledger, row: Transfer) -> bool:
    """Copies a row with the parts and the reservation of its open attempt; returns whether the row was written."""
    arrived = row.with_(claim_until=None, elsewhere=None, fence=0)
    open_attempts = [upload.attempt for upload in (row.upload, row.staging) if upload is not None]
    done = {attempt: list(source.parts(row.id, attempt=attempt).values()) for attempt in open_attempts}
    if not target.adopt(arrived):
        return False
    for attempt, parts in done.items():
        target.record_parts(row.id, attempt=attempt, done=parts)
    if row.upload is not None:
        # Under the claim that it arrives with: the fence it had at its source would bar the first workers that claim it there.
        with suppress(LostOwnership):
            target.reserve(path=row.upload.path, claim=arrived.claim, **version_of(row))
    return True
