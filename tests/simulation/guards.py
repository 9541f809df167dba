"""The load-bearing guards of the real code, each with what the engine would be without it.

Every entry takes one guard away by putting something unguarded in its place; the simulation must then find a broken promise.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest

from eft.domain.fingerprint import Fingerprint, RemoteFile
from eft.domain.flow import Disposition
from eft.domain.ownership import Intent, Mode
from eft.domain.transfer import Commit, State, Transfer
from eft.errors import EftError
from eft.journey import advance, committing, held, settle
from eft.journey.messages import Message, next_message
from eft.journey.opening import destination
from eft.journey.recover import recover
from eft.journey.work import Work
from eft.ports import CommitOutcome, Committed, Engine, Lease, Remembered, Reservation, Source
from eft.regions import adoption, rejoin, strays, switch
from eft.regions.pair import RegionPair
from tests import fake_regions
from tests.fake_regions import FakeOwnershipTable
from tests.simulation import chaos
from tests.simulation.chaos import Story
from tests.simulation.kernel import SECOND
from tests.simulation.oracle import judge
from tests.simulation.people import ORDER, Switchboard
from tests.simulation.play import MINUTE, Play, hushed
from tests.simulation.region import Region
from tests.simulation.rows import SimLedger, SimTable
from tests.simulation.stores import SimStore

Patch = pytest.MonkeyPatch
PATIENCE: Final = 90 * MINUTE
"""Simulated time in which a play without a guard has to come to rest: one that never does would be played for long."""
TWICE: Final = r"appeared \d+ times"


@dataclass(frozen=True, slots=True)
class Guard:
    """One guard, and how to take it away."""

    name: str
    holds: str
    """What it keeps true."""
    remove: Callable[[Patch], None]
    breaks: str = r"appeared"
    """What a broken promise reads like (a regular expression)."""
    seeds: int = 400
    """Within how many seeds its absence shows."""
    slow: bool = False
    """Its absence shows seldom: too many seeds for every test run."""


def found_without(guard: Guard) -> tuple[int, list[str]] | None:
    """Returns the first seed that breaks a promise without a guard and keeps it with the guard, and what it broke; None if none does.

    An error that nobody expects is no finding here: it would speak of what was put in the guard's place.
    """
    for seed in range(guard.seeds):
        with Patch.context() as patch:
            patch.setattr(chaos, "PATIENCE", PATIENCE)
            guard.remove(patch)
            broken = _broken(seed)
        if any(re.search(guard.breaks, each) for each in broken) and not _broken(seed):
            return seed, broken
    return None


def _broken(seed: int) -> list[str]:
    """Returns the promises that a seed breaks; as `play_seed` does, without the words of its trace."""
    play = Play(seed)
    gc.disable()
    try:
        with hushed(play):
            Story(play).run()
        return judge(play)
    finally:
        for region in play.regions:
            region.over = True
        play.kernel.close()
        gc.enable()


# -- claims and fences -------------------------------------------------------------------------------------------------


def _save_unconditionally(patch: Patch) -> None:
    def save(self: SimLedger, transfer: Transfer, *, was: State) -> None:
        row = self._rows[transfer.id]
        row.write(transfer)
        if transfer.claim_until is None:
            row.claimant = None

    patch.setattr(SimLedger, "save", save, raising=False)


# -- two acks ----------------------------------------------------------------------------------------------------------


def _no_acks(patch: Patch) -> None:
    patch.setattr(RegionPair, "ack", lambda *_: None)


def _no_ack_of_the_peer(patch: Patch) -> None:
    def ack(self: RegionPair, intent: Intent) -> None:
        standing = self.standing(intent.partition)
        self._own.intend(intent, home=self.region, mode=standing.mode)

    patch.setattr(RegionPair, "ack", ack)


class _Silent:
    """An ownership that asks for no acks."""

    def __init__(self, real: object) -> None:
        self._real = real

    def __getattr__(self, call: str) -> Any:  # noqa: ANN401 - a port's method
        return getattr(self._real, call)

    def ack(self, intent: Intent) -> None:
        """Asks nobody."""


def _recover_without_acks(patch: Patch) -> None:
    def unasked(work: Work) -> list[Message]:
        real, work.engine = work.engine, replace(work.engine, ownership=_Silent(work.engine.ownership))
        try:
            return recover(work)
        finally:
            work.engine = real

    patch.setattr(advance, "recover", unasked)


def _no_gate(patch: Patch) -> None:
    real = SimTable.intend

    def intend(self: SimTable, intent: Intent, *, home: str, mode: Mode | None) -> Any:  # noqa: ANN401 - the answer
        stands = self.rows[intent.partition]
        self.rows[intent.partition] = stands.model_copy(
            update={"home": home, "region_epoch": min(stands.region_epoch, intent.region_epoch)}
        )
        try:
            return real(self, intent, home=home, mode=mode)
        finally:
            self.rows[intent.partition] = stands

    patch.setattr(SimTable, "intend", intend, raising=False)


def _solo_without_a_look(patch: Patch) -> None:
    """The operator's own guard: nobody declares a home solo whose peer was promoted. Here the old home's operator does, soon after, and
    nobody asks the peer where it could be asked.
    """
    patch.setattr(switch, "_refuse_promoted", lambda *_: None)
    real = Switchboard._promote

    def promote(self: Switchboard, number: int, home: Region, other: Region) -> None:
        real(self, number, home, other)

        def declare() -> None:
            self._order(home, number, "solo, blindly", lambda: switch.solo(home.engine, number, ORDER))

        kernel = self.play.kernel
        kernel.at(kernel.now + 5 * SECOND, declare)

    patch.setattr(Switchboard, "_promote", promote)


# -- one token ---------------------------------------------------------------------------------------------------------


def _recover_by_a_look(patch: Patch) -> None:
    def look(work: Work) -> list[Message]:
        commit = work.transfer.commit
        assert commit is not None
        with destination(work.engine, work.transfer) as sink:
            stands = sink.look(commit.path)
        if stands is not None:
            return recover(work)
        anew = {"state": State.ACCEPTED, "commit": None, "upload": None, "claim_until": None, "due_at": work.now()}
        work.save(work.transfer.model_copy(update=anew))
        return next_message(work.transfer)

    patch.setattr(advance, "recover", look)


def _rename_without_a_look(patch: Patch) -> None:
    real = SimStore.commit

    def commit(self: SimStore, frozen: Commit) -> Committed:
        if frozen.rename != "posix":
            return real(self, frozen)
        outcome = self._do("rename_posix", frozen.token, frozen.path, frozen.overwrite, self._kernel.now)
        return Committed(outcome) if outcome is CommitOutcome.DONE else self._not_renamed(frozen)

    patch.setattr(SimStore, "commit", commit)


def _anything_there_is_ours(patch: Patch) -> None:
    for module in (committing, held):
        patch.setattr(module, "is_ours", lambda *_: True)


def _half_a_rename_goes_on(patch: Patch) -> None:
    patch.setattr(committing, "_half_renamed", lambda _work, sink, commit: sink.commit(commit))


def _anew_without_consuming(patch: Patch) -> None:
    patch.setattr(held, "_write_off", lambda *_: False)


# -- the source --------------------------------------------------------------------------------------------------------


def _dispose_by_path(patch: Patch) -> None:
    def dispose(work: Work, source: Source) -> str | None:
        if work.transfer.policy.disposition is Disposition.DELETE:
            source.remove(work.transfer.source.path)
        return None

    patch.setattr(settle, "_dispose_renamed", dispose)


def _dispose_of_the_newest_version(patch: Patch) -> None:
    real = SimStore.remove_version

    def remove_version(self: SimStore, file: RemoteFile) -> bool:
        try:
            return real(self, self.stat(file.path))
        except EftError:
            return False

    patch.setattr(SimStore, "remove_version", remove_version)


def _any_version_will_do(patch: Patch) -> None:
    patch.setattr(Fingerprint, "matches", lambda *_: True)


# -- paths -------------------------------------------------------------------------------------------------------------


def _no_reservations(patch: Patch) -> None:
    def reserve(self: SimLedger, *, transfer: str, **_: object) -> Reservation:
        del self
        return Reservation("mine", transfer)

    patch.setattr(SimLedger, "reserve", reserve, raising=False)


# -- regions -----------------------------------------------------------------------------------------------------------


def _delivered_files_are_forgotten(patch: Patch) -> None:
    """Journals are not read, and an intent stands in no other's way: each of the two alone makes up for the other."""
    real = RegionPair.remember

    def remember(self: RegionPair, transfer: Transfer, *, demand_both: bool = False) -> Remembered:
        return replace(real(self, transfer, demand_both=demand_both), existing=None)

    patch.setattr(RegionPair, "known", lambda *_: set())
    patch.setattr(RegionPair, "remember", remember)
    patch.setattr(fake_regions, "may_replace", lambda *_: True)


def _not_renounced(patch: Patch) -> None:
    patch.setattr(RegionPair, "renounce", lambda *_: None)


def _intents_are_not_adopted(patch: Patch) -> None:
    real = adoption._row_of

    def row_of(row: Transfer, intent: Intent | None, **named: Any) -> Transfer:  # noqa: ANN401 - as it is called
        del intent
        return real(row, None, **named)

    patch.setattr(adoption, "_row_of", row_of)


def _always_evidence(patch: Patch) -> None:
    remembers, adopts = RegionPair.remember, adoption._row_of

    def remember(self: RegionPair, transfer: Transfer, *, demand_both: bool = False) -> Remembered:
        return replace(remembers(self, transfer, demand_both=demand_both), evidence=True)

    def row_of(*asked: Any, **named: Any) -> Transfer:  # noqa: ANN401 - as it is called
        return adopts(*asked, **{**named, "evidence": True})

    patch.setattr(RegionPair, "remember", remember)
    patch.setattr(adoption, "_row_of", row_of)


def _rows_stay_behind(patch: Patch) -> None:
    def stay(engine: Engine, row: Transfer, *_: object, **__: object) -> None:
        del engine, row

    for module in (rejoin, strays, switch):
        patch.setattr(module, "carry_over", stay)


def _one_number_for_chores_and_region(patch: Patch) -> None:
    real = FakeOwnershipTable.lease

    def lease(self: SimTable, number: int, *, owner: str, seen: Lease | None) -> Lease | None:
        taken = real(self, number, owner=owner, seen=seen)
        if taken is not None and seen is not None:
            stands = self.rows[number]
            self.rows[number] = stands.model_copy(update={"region_epoch": stands.region_epoch + 1})
        return taken

    patch.setattr(SimTable, "lease", lease, raising=False)


GUARDS: Final[Sequence[Guard]] = (
    Guard("fence", "a worker that was taken over from writes nothing more", _save_unconditionally),
    Guard("acks", "no commit without the partition's home", _no_acks),
    Guard("ack of the peer", "no commit that the peer does not know of", _no_ack_of_the_peer),
    Guard("acks on recovery", "recovery asks again", _recover_without_acks),
    Guard("gate", "a promoted region refuses the old home", _no_gate),
    Guard("solo looks", "no home goes on alone whose peer was promoted", _solo_without_a_look),
    Guard("recovery by token", "recovery never uploads again", _recover_by_a_look),
    Guard("no overwriting", "the final name is free, or to be overwritten", _rename_without_a_look, r"was overwritten"),
    Guard("ours", "only our own file is taken for a delivery", _anything_there_is_ours, r"never appeared|receipt says|not delivered", 2000),
    Guard("half renamed", "a plain rename that was begun is not begun again", _half_a_rename_goes_on, TWICE),
    Guard("consumed", "a token that is given up is consumed first", _anew_without_consuming, r"given up", 8000, slow=True),
    Guard("disposal by token", "only what was delivered is removed", _dispose_by_path, r"removed and not delivered", 2000),
    Guard("disposal by version", "only its version is removed", _dispose_of_the_newest_version, r"removed and not delivered", 1000),
    Guard(
        "fingerprint",
        "the version that was found is the one delivered",
        _any_version_will_do,
        r"never had|another version|not delivered",
        2000,
    ),
    Guard("reservation", "no older version over a newer one", _no_reservations, r"overwrote version", 4000, slow=True),
    Guard("journals and intents", "what was delivered is known after a promotion", _delivered_files_are_forgotten, seeds=2000),
    Guard("intents", "what may have been committed is recovered by its token after a promotion", _intents_are_not_adopted, seeds=1000),
    Guard("evidence", "what a solo home may have delivered is held", _always_evidence, seeds=4000, slow=True),
    Guard("carried over", "a row goes with its partition", _rows_stay_behind, r"rest|at the end"),
    Guard("renounce", "what is cancelled is final in both regions", _not_renounced, seeds=1500),
    Guard("two numbers", "chores change hands without a change of home", _one_number_for_chores_and_region, r"appeared|nowhere|rest"),
)
