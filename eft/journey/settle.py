"""Settle: dispose of the source without ever deleting by its path, and remove what abandoned attempts left."""

from __future__ import annotations

from eft.domain.fingerprint import RemoteFile
from eft.domain.flow import Disposition
from eft.domain.transfer import State
from eft.errors import EftError, NotFound, Permanent
from eft.journey.disposal import archive_path, disposal_token, dispose, second_name, watch_disposal
from eft.journey.messages import Message
from eft.journey.opening import destination
from eft.journey.work import Work
from eft.ports import MoveOutcome, Source


def settle(work: Work) -> list[Message]:
    """Takes a delivered transfer to settled."""
    transfer = work.transfer
    note = None
    if transfer.policy.disposition is not Disposition.KEEP:
        with work.engine.stores.open(work.engine.registry.endpoint(transfer.tenant, transfer.source.endpoint)) as source:
            note = _dispose_version(work, source) if source.pins_versions else _dispose_renamed(work, source)
    remove_abandoned(work)
    work.save(work.transfer.to(State.SETTLED, now=work.now(), reason=note, by=work.slice.worker))
    return []


def remove_abandoned(work: Work) -> None:
    """D8: removes the tokens of attempts given up, as far as the endpoint lets us; what stays is named on the row."""
    commit, left = work.transfer.commit, []
    if not work.transfer.abandoned:
        return
    with destination(work.engine, work.transfer) as sink:
        for upload in work.transfer.abandoned:
            if commit is not None and upload.token == commit.token:
                continue
            try:
                sink.consume(upload.token, upload.path)
            except EftError:
                left.append(upload)
    work.transfer = work.transfer.with_(abandoned=tuple(left))


def _dispose_version(work: Work, source: Source) -> str | None:
    """S3: by version. Returns a note for the timeline where another version stands there now."""
    transfer = work.transfer
    if transfer.fingerprint is None:
        return None
    file = RemoteFile(path=transfer.source.path, fingerprint=transfer.fingerprint)
    if transfer.policy.disposition is Disposition.ARCHIVE:
        try:
            _archive_version(work, source, file)
        except NotFound:
            return "source_gone"
        except Permanent as error:
            # Its owner wrote over it, or another worker has just archived it.
            if error.reason != "source_changed":
                raise
            return "source_gone"
    return None if source.remove_version(file) else "source_gone"


def _archive_version(work: Work, source: Source, file: RemoteFile) -> None:
    archive = archive_path(work.transfer)
    try:
        source.copy_version(file, archive)
    except Permanent as error:
        if error.reason != "archive_exists":
            raise
        source.copy_version(file, second_name(work.transfer, archive))


def _dispose_renamed(work: Work, source: Source) -> str | None:
    """SFTP: rename the source to a token, see that the token is the version delivered, then remove or archive the token.

    Each claim has a token of its own and first takes what earlier ones hold: a worker that slept never removes what another has renamed.
    """
    transfer = work.transfer
    earlier = transfer.disposal_tokens
    token = disposal_token(work.engine, transfer)
    work.save(transfer.with_(disposal_tokens=(*earlier, token)))
    watch_disposal(work.engine, work.transfer)
    for place in (*earlier, transfer.source.path):
        if source.move(place, token) is MoveOutcome.EXISTS:
            break
    return dispose(transfer, source, token)
