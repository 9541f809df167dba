"""Settle: dispose of the source without ever deleting by its path, and remove what abandoned attempts left."""

from __future__ import annotations

from eft.domain.fingerprint import RemoteFile
from eft.domain.flow import Disposition
from eft.domain.names import RemotePath, basename, join, token_name
from eft.domain.transfer import State
from eft.errors import EftError, NotFound, Permanent, Undecidable
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
    return None if source.remove_version(file) else "source_gone"


def _archive_version(work: Work, source: Source, file: RemoteFile) -> None:
    archive = _archive_path(work)
    try:
        source.copy_version(file, archive)
    except Permanent as error:
        if error.reason != "archive_exists":
            raise
        source.copy_version(file, _second_name(work, archive))


def _second_name(work: Work, archive: RemotePath) -> RemotePath:
    """An archive keeps what is there: a second file of a name gets its transfer's id appended."""
    return join(work.transfer.policy.archive_directory or "", f"{basename(archive)}.{work.transfer.id}")


def _dispose_renamed(work: Work, source: Source) -> str | None:
    """SFTP: rename the source to a token, see that the token is the version delivered, then remove or archive the token.

    Each claim has a token of its own and first takes what earlier ones hold: a worker that slept never removes what another has renamed.
    """
    transfer = work.transfer
    earlier = transfer.disposal_tokens
    token = token_name(
        transfer.source.path,
        transfer=transfer.id,
        region_epoch=transfer.region_epoch,
        attempt=0,
        nonce=work.engine.clock.nonce(),
    )
    work.save(transfer.with_(disposal_tokens=(*earlier, token)))
    for place in (*earlier, transfer.source.path):
        if source.move(place, token) is MoveOutcome.EXISTS:
            break
    try:
        taken = source.stat(token)
    except NotFound:
        return "source_gone"
    if transfer.fingerprint is None or not taken.fingerprint.matches(transfer.fingerprint):
        return _put_back(source, token, transfer.source.path)
    if transfer.policy.disposition is Disposition.DELETE:
        source.remove(token)
        return None
    archive = _archive_path(work)
    if source.move(token, archive, create_directories=True) is MoveOutcome.EXISTS:
        source.move(token, _second_name(work, archive), create_directories=True)
    return None


def _put_back(source: Source, token: RemotePath, path: RemotePath) -> str:
    """A newer file had taken the source's name: it gets its name back, or a person decides."""
    if source.move(token, path) is MoveOutcome.EXISTS:
        msg = f"a file that is not the one delivered was found as '{path}', and another has come since; it waits as '{token}'"
        raise Undecidable(msg, reason="source_replaced")
    return "source_replaced"


def _archive_path(work: Work) -> RemotePath:
    return join(work.transfer.policy.archive_directory or "", basename(work.transfer.source.path))
