"""D1: one live transfer per destination path, and no older version over a newer one."""

from __future__ import annotations

from contextlib import suppress
from typing import TypedDict

from eft.domain.fingerprint import Fingerprint
from eft.domain.names import RemotePath
from eft.domain.transfer import LAST_CLAIM, State, Transfer
from eft.errors import NotFound, Permanent, Transient
from eft.journey.work import Work
from eft.ports import Ledger, Reservation


class Version(TypedDict):
    """Named arguments of `Ledger.reserve` and `Ledger.remember_delivered`."""

    endpoint: str
    transfer: str
    source: str
    order: int


def reserve(work: Work, path: RemotePath, *, version: Fingerprint | None = None) -> Reservation | None:
    """Returns the reservation by which the path is this transfer's now, or None where a live one has it.

    It is taken over from a holder that rests for good or has left the region.

    `version` is what the source was found to be, for a transfer that has none on its row yet.

    Raises:
        Permanent: `superseded`: a newer version of the same file was delivered there; LostOwnership: a later claim of this transfer has it.
    """
    transfer, ledger = work.transfer, work.engine.ledger
    for _ in range(2):
        answer = ledger.reserve(path=path, claim=transfer.claim, **version_of(transfer, version=version))
        if answer.outcome == "mine":
            return answer
        if answer.outcome == "superseded":
            msg = f"a newer version of '{transfer.source.path}' was delivered to '{path}' by transfer {answer.holder}"
            raise Permanent(msg, reason="superseded")
        if not free_of(ledger, endpoint=transfer.destination.endpoint, path=path, holder=answer.holder or ""):
            return None
    return None


def refuse_overtaken(work: Work, reservation: Reservation, path: RemotePath, *, version: Fingerprint) -> None:
    """Sees that a version is still the newest, where one of the same time was delivered before: a bucket's times are whole seconds.

    It is asked under the reservation. What comes to the source after the answer cannot be delivered before this one is. Only versions
    that a store keeps by their ids need it: any other that was written over is `source_changed`, or was, before it was staged.

    Raises:
        Permanent: `superseded`: another version stands at the source, or none.
    """
    transfer, engine = work.transfer, work.engine
    ours = version if transfer.staged is None else transfer.fingerprint
    if reservation.level is None or ours is None or ours.version is None:
        return
    with suppress(NotFound), engine.stores.open(engine.registry.endpoint(transfer.tenant, transfer.source.endpoint)) as source:
        if source.stat(transfer.source.path).fingerprint.matches(ours):
            return
    msg = f"'{transfer.source.path}' was written over within a second; transfer {reservation.level} has delivered to '{path}' since"
    raise Permanent(msg, reason="superseded")


def free_of(ledger: Ledger, *, endpoint: str, path: RemotePath, holder: str) -> bool:
    """Ends the reservation of a transfer that rests for good, has left the region or has no row; returns False for a live one.

    As it was seen at rest: sent round again and claimed meanwhile, it keeps what it has reserved anew.
    """
    claim, delivered = LAST_CLAIM, False
    with suppress(NotFound):
        row = ledger.load(holder)
        if row.elsewhere is None and row.state not in {State.SETTLED, State.DEAD, State.CANCELLED}:
            return False
        claim, delivered = row.claim, row.receipt is not None
    ledger.release(endpoint=endpoint, path=path, transfer=holder, claim=claim, delivered=delivered)
    return True


def version_of(transfer: Transfer, *, version: Fingerprint | None = None) -> Version:
    """Returns what a reservation says of its transfer: versions of one source are ordered by their time, in milliseconds."""
    fingerprint = transfer.fingerprint or version
    modified = fingerprint.modified if fingerprint else None
    return Version(
        endpoint=transfer.destination.endpoint,
        transfer=transfer.id,
        source=f"{transfer.source.endpoint}:{transfer.source.path}",
        order=int((modified or transfer.created).timestamp() * 1000),
    )


def reserved_by_another(path: RemotePath) -> Transient:
    """Returns the error of a transfer that waits, visibly, for another one's path; it uses up no try."""
    return Transient(f"another transfer is delivering to '{path}'", reason="destination_reserved", counts=False)
