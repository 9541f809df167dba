"""One request for a small file, where the receiver keeps what arrives and the store refuses taken names (DESIGN 5, docs/adr/0017).

It is sent once in a transfer's life, by the first attempt. Whoever finds the row committing, and not the file, never sends it again:
it may have arrived, and may be on its way still. Whatever else becomes of it, the next attempt is an upload in parts.
"""

from __future__ import annotations

from eft.domain.checksum import Tally
from eft.domain.fingerprint import RemoteFile
from eft.domain.flow import ConflictMode
from eft.domain.names import RemotePath, put_token
from eft.domain.parts import Part, PartDone
from eft.domain.transfer import Commit, State
from eft.journey.committing import commit_once
from eft.journey.transferring import compare_sha256, expected_sha256
from eft.journey.work import Work
from eft.ports import Bytes, Sink, Source, Store


def put_suffices(work: Work, sink: Sink) -> bool:
    """Returns whether a file that is held in memory may be delivered by one request."""
    policy, first = work.transfer.policy, work.transfer.attempt == 0
    return policy.receiver_keeps and policy.conflict is not ConflictMode.OVERWRITE and first and sink.puts


def put(work: Work, source: Source, file: RemoteFile, sink: Store, *, path: RemotePath, held: list[Bytes]) -> None:
    """Takes a transfer whose bytes are held to delivered; or back to delivering, where the store has refused them.

    Raises:
        Permanent: `checksum_mismatch`; and what `commit_once` raises.
    """
    transfer, engine = work.transfer, work.engine
    standing = engine.ownership.standing(transfer.partition, begin=True)
    tally = Tally(sha=True)
    for _ in tally.watch(Part(number=1, start=0, size=file.size), held):
        pass
    sha256 = tally.sha256(file.size)
    expected = expected_sha256(work, source)
    compare_sha256(transfer, sha256, expected)
    now, worker = work.now(), work.slice.worker
    token = put_token(transfer.id, region_epoch=standing.region_epoch, attempt=1, nonce=engine.clock.nonce())
    commit = Commit(
        attempt=1,
        token=token,
        path=path,
        overwrite=False,
        parts=(PartDone(number=1, size=file.size, crc64nvme=tally.crcs[1]),),
        size=file.size,
        checksum=f"sha256:{sha256}",
        region_epoch=standing.region_epoch,
        asked_at=now,
        # With a peer it is noted once that has agreed: what is noted before could be held for nothing.
        attempted=engine.peer is None,
    )
    until = now + engine.tuning.lease
    begun = transfer.with_(
        fingerprint=file.fingerprint,
        attempt=1,
        region_epoch=standing.region_epoch,
        expected_sha256=expected,
        commit=commit,
        # Whoever finds the row does not know what this request has come to: it is to have time.
        claim_until=until,
        due_at=until,
    )
    delivering = begun.noted(now=now, by=worker) if begun.state is State.DELIVERING else begun.to(State.DELIVERING, now=now, by=worker)
    work.save(delivering.to(State.COMMITTING, now=now, by=worker))
    commit_once(work, sink, held=held)
