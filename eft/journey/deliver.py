"""Deliver: bring the bytes under a token beside their final name, and commit it once (DESIGN 5, D1 … D7)."""

from __future__ import annotations

from eft.domain.fingerprint import Fingerprint, RemoteFile
from eft.domain.flow import ConflictMode
from eft.domain.names import RemotePath, numbered, token_name
from eft.domain.parts import PartDone
from eft.domain.transfer import Commit, State, Upload
from eft.errors import Permanent
from eft.journey.committing import commit_once
from eft.journey.copying import check_unchanged, whole_checksum
from eft.journey.messages import Message, next_message
from eft.journey.opening import both_ends
from eft.journey.putting import put, put_suffices
from eft.journey.refused import assumed_free
from eft.journey.reserve import refuse_overtaken, reserve, reserved_by_another
from eft.journey.transferring import bring_parts, checked_sha256, expected_sha256, look_at_source, new_upload
from eft.journey.work import Work
from eft.ports import Source, Store

MAX_RENAMES = 1000


def deliver(work: Work) -> list[Message]:
    """Advances an accepted, staged or delivering transfer towards `delivered`; returns what goes on with it."""
    with both_ends(work.engine, work.transfer) as (source, listed, sink):
        file, held = listed, None
        upload, fresh = work.transfer.upload, False
        if work.transfer.state is not State.DELIVERING or upload is None:
            file, held = look_at_source(work, source, file, sink)
            path = _destination(work, sink, file.fingerprint)
            if path is None:
                return []
            if held is not None and put_suffices(work, sink):
                put(work, source, file, sink, path=path, held=held)
                return next_message(work.transfer)
            upload, fresh = _begin(work, source, file, sink, path)
        elif not reserve(work, upload.path):
            # It came from another region, say, in the middle of a switch that broke off.
            raise reserved_by_another(upload.path)
        brought = bring_parts(work, source, file, sink, upload, fresh=fresh, held=held)
        if isinstance(brought, list):
            return brought
        parts, seen = brought
        sha256 = checked_sha256(work, source, file, sink, upload, seen=seen)
        if held is None:
            check_unchanged(source, file)
        sink.verify(upload, list(parts.values()))
        _decide(work, sink, upload, parts, sha256)
        commit_once(work, sink)
    return next_message(work.transfer)


def _destination(work: Work, sink: Store, version: Fingerprint) -> RemotePath | None:
    """D1: returns the reserved final name, or None where the transfer rests now because the conflict mode says so."""
    transfer, path = work.transfer, work.transfer.destination.path
    assumed = assumed_free(work, sink, attempt=transfer.attempt + 1, size=version.size)
    for number in range(MAX_RENAMES):
        candidate = path if number == 0 else numbered(path, number)
        reserved = reserve(work, candidate, version=version)
        mode = transfer.policy.conflict
        if reserved and mode is ConflictMode.OVERWRITE:
            refuse_overtaken(work, reserved, candidate, version=version)
        existing = sink.look(candidate) if reserved and not assumed else None
        if reserved and existing is None:
            return candidate
        if mode is ConflictMode.OVERWRITE and reserved:
            return candidate
        if not reserved and (mode is not ConflictMode.RENAME):
            raise reserved_by_another(candidate)
        if reserved:
            _release(work, candidate)
        if mode is ConflictMode.SKIP:
            work.engine.ownership.renounce(transfer)
            work.save(transfer.to(State.CANCELLED, now=work.now(), reason="skipped_destination_exists", by=work.slice.worker))
            return None
        if mode is ConflictMode.FAIL:
            msg = f"'{candidate}' exists at the destination; remove it and re-drive, or let the flow overwrite, skip or rename"
            raise Permanent(msg, reason="destination_exists")
    msg = f"no free name beside '{path}' within {MAX_RENAMES} numbers"
    raise Permanent(msg, reason="destination_exists")


def _release(work: Work, path: RemotePath) -> None:
    transfer = work.transfer
    work.engine.ledger.release(
        endpoint=transfer.destination.endpoint, path=path, transfer=transfer.id, claim=transfer.claim, delivered=False
    )


def _begin(work: Work, source: Source, file: RemoteFile, sink: Store, path: RemotePath) -> tuple[Upload, bool]:
    """D2: puts an attempt's token on the row before the first byte; returns the attempt, and whether it is new.

    A re-driven transfer whose old attempt still fits goes on with it.
    """
    transfer, engine = work.transfer, work.engine
    fingerprint = transfer.fingerprint if transfer.staged is not None else file.fingerprint
    standing = engine.ownership.standing(transfer.partition, begin=True)
    kept = transfer.upload
    if kept is not None and kept.path == path and kept.plan.size == file.size and sink.token_exists(kept.token, kept.path):
        work.enter(State.DELIVERING, transfer)
        return kept, False
    attempt = transfer.attempt + 1
    name = token_name(path, transfer=transfer.id, region_epoch=standing.region_epoch, attempt=attempt, nonce=engine.clock.nonce())
    token = sink.mint(path, token=name, transfer=transfer.id, size=file.size, create_directories=transfer.policy.create_directories)
    upload = new_upload(engine, transfer, source, sink, size=file.size, token=token, path=path)
    work.enter(
        State.DELIVERING,
        transfer.with_(
            fingerprint=fingerprint,
            attempt=attempt,
            region_epoch=standing.region_epoch,
            expected_sha256=expected_sha256(work, source),
            upload=upload,
            abandoned=transfer.abandoned if kept is None else (*transfer.abandoned, kept),
        ),
    )
    return upload, True


def _decide(work: Work, sink: Store, upload: Upload, parts: dict[int, PartDone], sha256: str | None) -> None:
    """D4: freezes which bytes the token holds. From here on the transfer leads only to delivered or held."""
    transfer = work.transfer
    standing = work.engine.ownership.standing(transfer.partition)
    commit = Commit(
        attempt=upload.attempt,
        token=upload.token,
        path=upload.path,
        overwrite=transfer.policy.conflict is ConflictMode.OVERWRITE,
        rename=sink.rename_mode,
        parts=tuple(parts[n] for n in sorted(parts)),
        size=upload.plan.size,
        checksum=whole_checksum(upload, parts, sha256),
        region_epoch=standing.region_epoch,
    )
    work.save(transfer.with_(commit=commit).to(State.COMMITTING, now=work.now(), by=work.slice.worker))
