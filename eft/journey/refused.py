"""Names that are assumed free, and what follows when the store says that one is not (docs/adr/0015).

A look before a small upload costs a request for every file, to spare the bytes of the few whose name is taken. Where the store refuses a
taken name in the instant of the commit, the commit is the look.
"""

from __future__ import annotations

from eft.domain.flow import ConflictMode
from eft.domain.transfer import Commit, State
from eft.journey.work import Work
from eft.ports import Sink


def assumed_free(work: Work, sink: Sink, *, attempt: int, size: int) -> bool:
    """Returns whether an attempt begins without a look at its name: the first, of one part, where a taken name is a failure."""
    mode, single = work.transfer.policy.conflict, size <= work.engine.tuning.part_size
    return sink.refuses_taken and attempt == 1 and single and mode is ConflictMode.FAIL


def gave_up(work: Work, sink: Sink, commit: Commit, *, reason: str) -> bool:
    """Gives a refused token up as a person's decision does, and has the transfer begin anew, which looks first.

    Returns:
        False where the token was gone before it could be removed: it may have been committed, and evidence has to decide.
    """
    _write_off(work, commit)
    if not sink.consume(commit.token, commit.path):
        return False
    _begin_anew(work, reason=reason)
    return True


def give_up(work: Work, commit: Commit, *, reason: str) -> None:
    """Does the same with a token of which the store has said that it was not, and will not be, committed."""
    _write_off(work, commit)
    _begin_anew(work, reason=reason)


def _write_off(work: Work, commit: Commit) -> None:
    commit = commit.model_copy(update={"abandoned": True, "refused": True})
    work.save(work.transfer.with_(commit=commit))
    work.engine.ownership.abandon(work.intent(commit))


def _begin_anew(work: Work, *, reason: str) -> None:
    anew = work.transfer.with_(commit=None, upload=None)
    work.save(anew.to(State.DELIVERING, now=work.now(), reason=reason, by=work.slice.worker))
