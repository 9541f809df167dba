"""D5 to D7, shared by the first try (deliver) and every later one (recover): one token, consumed once.

D4 committing ── D5 ack ── note attempted ── D6 commit ── D7 receipt
     │                                          │
     └── crash anywhere: recover repeats ───────┘   with the same token, never with new bytes
"""

from __future__ import annotations

from eft.domain.fingerprint import RemoteFile
from eft.domain.names import put_by, remote_path
from eft.domain.transfer import Commit, Receipt, State
from eft.errors import Transient, Undecidable
from eft.journey.copying import digest
from eft.journey.refused import assumed_free, gave_up, give_up
from eft.journey.work import Work
from eft.ports import Bytes, CommitOutcome, Committed, Store


def commit_once(work: Work, sink: Store, *, held: list[Bytes] | None = None) -> None:
    """Takes a committing transfer to delivered; or back to delivering, where another's file stands at a name that was assumed free.

    `held` are all bytes of a file whose token is a put: for whoever has decided on it, and nobody else.

    Raises:
        Undecidable: what happened cannot be known from here; the transfer is held.
        LostOwnership, Transient: nothing was decided; recovery repeats this.
    """
    commit = _commit_of(work)
    if commit.refused:
        reason = "destination_exists" if put_by(commit.token) is None else "put_given_up"
        if (found := _refused(work, sink, commit, reason=reason)) is not None:
            _delivered(work, commit, found)
        return
    if commit.abandoned:
        msg = f"the temporary file of '{commit.path}' was given up by a person, whose decision broke off: decide again"
        raise Undecidable(msg, reason="given_up")
    if put_by(commit.token) is not None:
        _put_once(work, sink, commit, held)
        return
    work.engine.ownership.ack(work.intent(commit))
    attempted_before = commit.attempted
    if attempted_before and commit.rename == "plain" and sink.token_exists(commit.token, commit.path):
        _delivered(work, commit, _half_renamed(work, sink, commit))
        return
    if not commit.attempted and (work.transfer.policy.receiver_removes or commit.rename == "plain"):
        commit = commit.model_copy(update={"attempted": True})
        work.save(work.transfer.with_(commit=commit))
    committed = sink.commit(commit)
    if committed.outcome is CommitOutcome.DONE:
        _delivered(work, commit, committed)
    elif (found := _resolve(work, sink, commit, committed, attempted_before=attempted_before)) is not None:
        _delivered(work, commit, found)


def _put_once(work: Work, sink: Store, commit: Commit, held: list[Bytes] | None) -> None:
    """D5 to D7 of a put: sent by whoever holds the bytes; everybody else looks for the file, and sends nothing."""
    if held is None and not commit.attempted:
        # Its request is sent under a note that was never made.
        _give_up(work, sink, commit, reason="put_not_sent")
        return
    # A peer takes whatever it has acked for attempted.
    work.engine.ownership.ack(work.intent(commit))
    if held is None:
        _delivered(work, commit, _found(work, sink, commit, missing=_lost(commit)))
        return
    if not commit.attempted:
        commit = commit.model_copy(update={"attempted": True})
        work.save(work.transfer.with_(commit=commit))
    committed = sink.put(commit, held, asked_at=commit.asked_at or work.now())
    if committed.outcome is CommitOutcome.NOT_STORED:
        why = committed.why
        _give_up(work, sink, commit, reason="put_refused" if why is None else why.reason)
        if why is not None and work.transfer.state is State.DELIVERING:
            raise why
        return
    if committed.outcome is CommitOutcome.EXISTS:
        final = sink.look(commit.path)
        if final is not None and not is_ours(work, sink, commit, final):
            give_up(work, commit, reason="destination_exists")
            return
        # Ours, by a request that something on the way has repeated; or nothing, and such a one may be on its way.
        committed = _found(work, sink, commit, missing=_lost(commit))
    _delivered(work, commit, committed)


def _give_up(work: Work, sink: Store, commit: Commit, *, reason: str) -> None:
    if (found := _refused(work, sink, commit, reason=reason)) is not None:
        _delivered(work, commit, found)


def _lost(commit: Commit) -> Undecidable:
    msg = f"the answer to the upload of '{commit.path}' was lost and the file is not there; it may still arrive within minutes"
    return Undecidable(msg, reason="answer_lost")


def _half_renamed(work: Work, sink: Store, commit: Commit) -> Committed:
    """OpenSSH's plain rename is link + unlink: after a crash between them the receiver may have taken the link already.

    It is neither begun again, nor is the token removed: the server may still be about to unlink it.
    """
    msg = f"a plain rename to '{commit.path}' was begun; the receiver may have taken the file before it ended"
    return _found(work, sink, commit, missing=Undecidable(msg, reason="rename_half_done"))


def _found(work: Work, sink: Store, commit: Commit, *, missing: Undecidable) -> Committed:
    """Takes what stands under the final name for the delivery, if it is ours; raises `missing` where nothing does."""
    final = sink.look(commit.path)
    if final is None:
        raise missing
    if not is_ours(work, sink, commit, final):
        msg = f"another file stands at '{commit.path}'"
        raise Undecidable(msg, reason="destination_exists")
    return Committed(outcome=CommitOutcome.DONE, etag=final.fingerprint.etag, version=final.fingerprint.version)


def _resolve(work: Work, sink: Store, commit: Commit, committed: Committed, *, attempted_before: bool) -> Committed | None:
    """Decides by evidence what became of the token; returns the delivery, or None where it begins anew, or holds the transfer."""
    if committed.outcome is CommitOutcome.PART_DIFFERS:
        msg = f"the parts of '{commit.path}' at the destination are not those that were frozen"
        raise Undecidable(msg, reason="part_differs")
    final = sink.look(commit.path)
    if final is None:
        if committed.outcome is CommitOutcome.EXISTS:
            msg = f"'{commit.path}' stood at the destination for a moment"
            raise Transient(msg, reason="destination_exists")
        if attempted_before and work.transfer.policy.receiver_removes:
            # Once more, after the look: a region that was fenced meanwhile knows nothing of what its successor gave up.
            work.engine.ownership.ack(work.intent(commit))
            return Committed(outcome=CommitOutcome.DONE)
        msg = f"the temporary file of '{commit.path}' is gone and the final one is not there"
        raise Undecidable(msg, reason="token_gone")
    refused = committed.outcome is CommitOutcome.EXISTS and assumed_free(work, sink, attempt=commit.attempt, size=commit.size)
    if not is_ours(work, sink, commit, final):
        if refused:
            return _refused(work, sink, commit, reason="destination_exists")
        msg = f"another file stands at '{commit.path}'"
        raise Undecidable(msg, reason="destination_exists")
    if committed.outcome is CommitOutcome.EXISTS and sink.token_exists(commit.token, commit.path):
        if refused and not attempted_before:
            # Ours by its transfer, but not by this token: of an earlier life of a row that was forgotten since.
            return _refused(work, sink, commit, reason="destination_exists")
        if not attempted_before:
            msg = f"an equal file stood at '{commit.path}' before ours was renamed"
            raise Undecidable(msg, reason="destination_exists")
        sink.consume(commit.token, commit.path)
    return Committed(outcome=CommitOutcome.DONE, etag=final.fingerprint.etag, version=final.fingerprint.version)


def _refused(work: Work, sink: Store, commit: Commit, *, reason: str) -> Committed | None:
    """Gives a refused token up and returns None; one that is gone already is judged as in recovery."""
    if gave_up(work, sink, commit, reason=reason):
        return None
    final = sink.look(commit.path)
    if final is None or final.size != commit.size or not is_ours(work, sink, commit, final):
        msg = f"the upload to '{commit.path}' was refused for another file there, and is gone"
        raise Undecidable(msg, reason="token_gone")
    return Committed(outcome=CommitOutcome.DONE, etag=final.fingerprint.etag, version=final.fingerprint.version)


def is_ours(work: Work, sink: Store, commit: Commit, final: RemoteFile) -> bool:
    """Returns whether a file is what a commit made visible: by our id where the store keeps it, else by size and checksum of its bytes."""
    if final.transfer is not None or sink.rename_mode is None:
        return final.transfer == work.transfer.id
    if final.size != commit.size:
        return False
    algorithm = commit.checksum.partition(":")[0]
    return digest(work.kept(sink.read(final, start=0, size=final.size)), algorithm=algorithm) == commit.checksum


def _delivered(work: Work, commit: Commit, committed: Committed) -> None:
    """D7: records the receipt; a transfer with nothing to settle is settled in the same write."""
    now = work.now()
    receipt = Receipt(
        path=remote_path(commit.path),
        size=commit.size,
        checksum=commit.checksum,
        etag=committed.etag,
        version=committed.version,
        at=now,
    )
    delivered = work.transfer.with_(receipt=receipt, upload=None).to(State.DELIVERED, now=now, by=work.slice.worker)
    if delivered.policy.disposition == "keep" and not delivered.abandoned:
        delivered = delivered.to(State.SETTLED, now=now, by=work.slice.worker)
    work.save(delivered)
    work.engine.ledger.release(
        endpoint=delivered.destination.endpoint, path=commit.path, transfer=delivered.id, claim=delivered.claim, delivered=True
    )


def _commit_of(work: Work) -> Commit:
    if work.transfer.commit is None:
        msg = f"transfer {work.transfer.id} is committing without a commit"
        raise Undecidable(msg, reason="internal_error")
    return work.transfer.commit
