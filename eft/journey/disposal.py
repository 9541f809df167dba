"""Disposal: sources that were renamed to a token before their removal, and what is found under such a token later."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from eft.domain.endpoint import Endpoint
from eft.domain.fingerprint import RemoteFile
from eft.domain.flow import Disposition
from eft.domain.names import RemotePath, basename, disposed_by, join, parent, token_name
from eft.domain.transfer import FINAL, State, Transfer
from eft.errors import EftError, NotFound, Permanent, Undecidable
from eft.ports import Engine, Ledger, MoveOutcome, Source, Watch

log = logging.getLogger(__name__)

WATCHED_FOR: Final = timedelta(days=1)
"""No connection outlasts it whose end says nothing, so that no worker wakes up later and renames a source."""
LONG: Final = 60.0
"""Seconds that a round spends on one endpoint's directories, the last one's aside."""


def disposal_token(engine: Engine, transfer: Transfer) -> RemotePath:
    """Returns a name beside the source that nobody else renames anything to."""
    return token_name(transfer.source.path, transfer=transfer.id, region_epoch=transfer.region_epoch, attempt=0, nonce=engine.clock.nonce())


def dispose(transfer: Transfer, source: Source, token: RemotePath) -> str | None:
    """Removes or archives what a token of one's own holds if it is the version delivered, else puts it back; returns a note.

    Raises:
        Undecidable: `source_replaced`: it is another version, and a third stands under its name.
    """
    try:
        taken = source.stat(token)
    except NotFound:
        return "source_gone"
    if not _is_delivered(transfer, taken):
        return _put_back(source, token, transfer.source.path)
    if transfer.policy.disposition is Disposition.DELETE:
        source.remove(token)
        return None
    archive = archive_path(transfer)
    if source.move(token, archive, create_directories=True) is MoveOutcome.EXISTS:
        source.move(token, second_name(transfer, archive), create_directories=True)
    return None


def archive_path(transfer: Transfer) -> RemotePath:
    """Returns where a source is archived."""
    return join(transfer.policy.archive_directory or "", basename(transfer.source.path))


def second_name(transfer: Transfer, archive: RemotePath) -> RemotePath:
    """An archive keeps what is there: a second file of a name gets its transfer's id appended."""
    return join(transfer.policy.archive_directory or "", f"{basename(archive)}.{transfer.id}")


def watch_disposal(engine: Engine, transfer: Transfer) -> None:
    """Has `give_back` look beside a source that a worker of an earlier claim may yet rename, where no flow's listings do."""
    if transfer.flow is None and (transfer.fence > 1 or transfer.region_epoch > 1):
        path, until = transfer.source, engine.clock.now() + WATCHED_FOR
        engine.ledger.watch(Watch(transfer.tenant, path.endpoint, parent(path.path), until))


def give_back(engine: Engine) -> Counter[str]:
    """Gives back what was left under tokens in watched directories; returns how many were returned, or left. Upkeep, once an hour.

    An endpoint that cannot be listed, or takes long, waits for the next round with what is left of its directories.
    """
    counts: Counter[str] = Counter()
    waits: set[str] = set()
    for watch in engine.ledger.watched():
        if watch.endpoint in waits or engine.limits.shut_until(watch.endpoint) is not None:
            continue
        begun, over = engine.clock.monotonic(), watch.until <= engine.clock.now()
        try:
            counts.update(_look_beside(engine, watch))
            engine.limits.succeeded(watch.endpoint)
        except NotFound as error:
            engine.limits.inconclusive(watch.endpoint)
            log.info("watched directory is gone", extra={"endpoint": watch.endpoint, "reason": error.reason})
        except EftError as error:
            log.warning("watched directory not looked into", extra={"endpoint": watch.endpoint, "reason": error.reason})
            if error.endpoint is None:
                engine.limits.inconclusive(watch.endpoint)
            else:
                engine.limits.failed(error.endpoint, reason=error.reason)
            waits.add(watch.endpoint)
            continue
        except Exception:
            # A fault of ours beside one source keeps no other one waiting.
            engine.limits.inconclusive(watch.endpoint)
            log.exception("watched directory not looked into", extra={"endpoint": watch.endpoint})
            waits.add(watch.endpoint)
            continue
        if engine.clock.monotonic() - begun > LONG:
            waits.add(watch.endpoint)
        if over:
            engine.ledger.unwatch(watch)
    return counts


def _look_beside(engine: Engine, watch: Watch) -> Counter[str]:
    endpoint = engine.registry.endpoint(watch.tenant, watch.endpoint)
    with engine.stores.open(endpoint) as source:
        found = [
            entry
            for entry in source.list(watch.directory, recursive=False, disposals=True)
            if isinstance(entry, RemoteFile) and disposed_by(entry.path) is not None
        ]
    return take_up_disposals(engine, endpoint, found)


def take_up_disposals(engine: Engine, endpoint: Endpoint, found: Sequence[RemoteFile]) -> Counter[str]:
    """Gives back what workers left under tokens that no transfer will look into again; returns how many were returned, or left.

    A worker that slept just before it renamed a source may rename a newer version, after another worker has settled the transfer, and die.
    Nobody overwrites: where the name is taken, and where the transfer is not known here, the file stays, and is told of.
    """
    counts: Counter[str] = Counter()
    over: list[tuple[RemoteFile, Transfer]] = []
    for file in found:
        try:
            transfer = _carried(engine, disposed_by(file.path) or "")
        except EftError as error:
            # The other region knows, and does not answer now.
            log.info("token not looked into", extra={"endpoint": endpoint.id, "file": file.path, "reason": error.reason})
            continue
        if transfer is None or (transfer.tenant, transfer.source.endpoint) != (endpoint.tenant, endpoint.id):
            _left(counts, endpoint.id, file, "no transfer of this endpoint has it")
        elif transfer.state in FINAL and transfer.since < engine.clock.now() - engine.tuning.lease:
            over.append((file, transfer))
    if over:
        try:
            with engine.stores.open(endpoint) as source:
                for file, transfer in over:
                    _take_up(engine, transfer, source, file, counts)
        except EftError as error:
            # The next run sees them again.
            log.warning("files left under tokens", extra={"endpoint": endpoint.id, "reason": error.reason, "error": str(error)})
    return counts


def _take_up(engine: Engine, transfer: Transfer, source: Source, file: RemoteFile, counts: Counter[str]) -> None:
    """What is no delivered version goes back in one rename; a delivered one is first taken under a token of one's own, as settle does."""
    path, endpoint = transfer.source.path, transfer.source.endpoint
    if parent(file.path) != parent(path):
        return
    try:
        if _is_delivered(transfer, file) and transfer.state is State.SETTLED and transfer.policy.disposition is not Disposition.KEEP:
            token = disposal_token(engine, transfer)
            source.move(file.path, token)
            note = dispose(transfer, source, token)
        else:
            note = _put_back(source, file.path, path)
    except (Undecidable, Permanent) as error:
        _left(counts, endpoint, file, str(error))
        return
    if note == "source_replaced":
        counts["returned"] += 1
        log.warning("file given its name back", extra={"transfer": transfer.id, "endpoint": endpoint, "file": file.path, "path": path})


def _put_back(source: Source, token: RemotePath, path: RemotePath) -> str:
    """A newer file had taken the source's name: it gets its name back, or a person decides."""
    outcome = source.move(token, path)
    if outcome is MoveOutcome.EXISTS:
        msg = f"a file that is not the one delivered was found as '{path}', and another has come since; it waits as '{token}'"
        raise Undecidable(msg, reason="source_replaced")
    return "source_replaced" if outcome is MoveOutcome.DONE else "source_gone"


def _is_delivered(transfer: Transfer, file: RemoteFile) -> bool:
    return transfer.fingerprint is not None and file.fingerprint.matches(transfer.fingerprint)


def _left(counts: Counter[str], endpoint: str, file: RemoteFile, why: str) -> None:
    counts["stranded"] += 1
    log.warning("file left under a token", extra={"endpoint": endpoint, "file": file.path, "error": why})


def _carried(engine: Engine, one: str) -> Transfer | None:
    """Returns a transfer as the region that carries it has it."""
    ours = _known(engine.ledger, one)
    if engine.peer is None or (ours is not None and ours.elsewhere is None):
        return ours
    return _known(engine.peer.ledger, one) or ours


def _known(ledger: Ledger, one: str) -> Transfer | None:
    try:
        return ledger.load(one)
    except NotFound:
        return None
