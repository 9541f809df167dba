"""D1: one live transfer per destination path, and no older version over a newer one."""

from __future__ import annotations

from eft.domain.names import RemotePath
from eft.domain.transfer import State
from eft.errors import Permanent, Transient
from eft.journey.work import Work


def reserve(work: Work, path: RemotePath) -> bool:
    """Returns whether the path is this transfer's now; a reservation is taken over whose holder rests for good or has left the region.

    Raises:
        Permanent: `superseded`: a newer version of the same file was delivered there; LostOwnership: a later claim of this transfer has it.
    """
    transfer, ledger = work.transfer, work.engine.ledger
    modified = transfer.fingerprint.modified if transfer.fingerprint else None
    order = int((modified or transfer.created).timestamp() * 1000)
    for _ in range(2):
        answer = ledger.reserve(
            endpoint=transfer.destination.endpoint,
            path=path,
            transfer=transfer.id,
            claim=transfer.claim,
            source=f"{transfer.source.endpoint}:{transfer.source.path}",
            order=order,
        )
        if answer.outcome == "mine":
            return True
        if answer.outcome == "superseded":
            msg = f"a newer version of '{transfer.source.path}' was delivered to '{path}' by transfer {answer.holder}"
            raise Permanent(msg, reason="superseded")
        holder = ledger.load(answer.holder or "")
        if holder.elsewhere is None and holder.state not in {State.SETTLED, State.DEAD, State.CANCELLED}:
            return False
        # As it was seen at rest: sent round again and claimed meanwhile, it keeps what it has reserved anew.
        ledger.release(
            endpoint=transfer.destination.endpoint,
            path=path,
            transfer=holder.id,
            claim=holder.claim,
            delivered=holder.receipt is not None,
        )
    return False


def reserved_by_another(path: RemotePath) -> Transient:
    """Returns the error of a transfer that waits, visibly, for another one's path; it uses up no try."""
    return Transient(f"another transfer is delivering to '{path}'", reason="destination_reserved", counts=False)
