"""Upkeep of the staging bucket: copies and uploads that nobody needs any more."""

from __future__ import annotations

from contextlib import suppress

from eft.domain.names import RemotePath
from eft.domain.transfer import FINAL, RESTING, Transfer
from eft.errors import NotFound, Transient
from eft.ports import Engine, Ledger


def expire_staging(engine: Engine) -> int:
    """Removes staged copies older than the retention whose transfer is settled, cancelled or unknown; returns how many.

    A dead or held transfer keeps its copy: it is re-driven from there. So does the replica of a copy whose transfer is at home in the
    other region; what cannot be asked for there now is kept.
    """
    removed = 0
    with engine.stores.staging() as staging:
        for file in staging.stale_objects(before=engine.clock.now() - engine.tuning.staging_retention):
            with suppress(Transient):
                transfer = _carried(engine, file.path)
                if transfer is None or transfer.state in FINAL:
                    removed += staging.remove_version(file)
    return removed


def _carried(engine: Engine, path: RemotePath) -> Transfer | None:
    """Returns the transfer of a staging path as the region that carries it has it."""
    ours = _transfer_of(engine.ledger, path)
    if engine.peer is None or (ours is not None and ours.elsewhere is None):
        return ours
    return _transfer_of(engine.peer.ledger, path) or ours


def abort_stale_uploads(engine: Engine) -> int:
    """Aborts unfinished uploads to the staging bucket that no live transfer names; returns how many."""
    aborted = 0
    with engine.stores.staging() as staging:
        for path, token in staging.stale_uploads(before=engine.clock.now() - engine.tuning.stale_upload_age):
            transfer = _transfer_of(engine.ledger, path)
            live = transfer is not None and transfer.state not in RESTING
            if not live or transfer is None or transfer.staging is None or transfer.staging.token != token:
                aborted += staging.consume(token, path)
    return aborted


def _transfer_of(ledger: Ledger, path: RemotePath) -> Transfer | None:
    """Returns the transfer whose id is the second component of a staging path."""
    components = path.split("/")
    try:
        return ledger.load(components[1]) if len(components) == 3 else None  # noqa: PLR2004 - tenant/transfer/attempt
    except NotFound:
        return None
