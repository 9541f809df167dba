"""Stage: bring the source's bytes into the staging bucket, once, pinned."""

from __future__ import annotations

from eft.domain.fingerprint import RemoteFile
from eft.domain.names import remote_path
from eft.domain.transfer import Commit, StagedObject, State, Upload
from eft.errors import Transient
from eft.journey.copying import whole_checksum
from eft.journey.messages import Message, next_message
from eft.journey.opening import both_ends
from eft.journey.transferring import bring_parts, checked_sha256, expected_sha256, look_at_source, new_upload
from eft.journey.work import Work
from eft.ports import CommitOutcome, Sink, Source


def stage(work: Work) -> list[Message]:
    """Advances an accepted or staging transfer towards `staged`; returns what goes on with it."""
    with both_ends(work.engine, work.transfer) as (source, listed, staging):
        file, held = listed, None
        upload, fresh = work.transfer.staging, False
        if work.transfer.state is State.ACCEPTED or upload is None:
            file, held = look_at_source(work, source, file, staging)
            upload, fresh = _begin(work, source, file, staging), True
        brought = bring_parts(work, source, file, staging, upload, fresh=fresh, held=held)
        if isinstance(brought, list):
            return brought
        parts, seen = brought
        sha256 = checked_sha256(work, source, file, staging, upload, seen=seen)
        checksum = whole_checksum(upload, parts, sha256)
        _complete(work, staging, upload, Commit(
            attempt=upload.attempt, token=upload.token, path=upload.path, overwrite=True, parts=tuple(parts[n] for n in sorted(parts)),
            size=upload.plan.size, checksum=checksum, region_epoch=work.transfer.region_epoch,
        ))  # fmt: skip
    return next_message(work.transfer)


def _begin(work: Work, source: Source, file: RemoteFile, staging: Sink) -> Upload:
    transfer = work.transfer
    work.engine.ownership.standing(transfer.partition, begin=True)
    attempt = transfer.attempt + 1
    # Staging buckets replicate to each other: what another era staged of the same transfer has another name.
    path = remote_path(f"{transfer.tenant}/{transfer.id}/{transfer.region_epoch}.{attempt}")
    token = staging.mint(path, token=path, transfer=transfer.id, size=file.size, create_directories=True)
    upload = new_upload(work.engine, transfer, source, staging, size=file.size, token=token, path=path)
    work.enter(
        State.STAGING,
        transfer.with_(fingerprint=file.fingerprint, attempt=attempt, expected_sha256=expected_sha256(work, source), staging=upload),
    )
    return upload


def _complete(work: Work, staging: Sink, upload: Upload, commit: Commit) -> None:
    committed = staging.commit(commit)
    if committed.outcome is CommitOutcome.PART_DIFFERS:
        raise Transient("the parts of the staged copy are not those that were recorded; it is made again", reason="part_differs")
    if committed.outcome not in {CommitOutcome.DONE, CommitOutcome.TOKEN_GONE}:
        msg = f"the staged copy could not be completed: {committed.outcome}"
        raise Transient(msg, reason="staging_failed")
    staged = staging.look(upload.path)
    if staged is None or staged.size != commit.size:
        msg = "the staged copy is not there; it is made again"
        raise Transient(msg, reason="token_gone")
    work.save(
        work.transfer.with_(
            staging=None,
            checksum=commit.checksum,
            staged=StagedObject(path=upload.path, fingerprint=staged.fingerprint, region=work.engine.ownership.region),
        ).to(State.STAGED, now=work.now(), by=work.slice.worker)
    )
