"""A worker's hold on one transfer, and the slice of time it works in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from eft.domain.ownership import Intent
from eft.domain.parts import Part
from eft.domain.transfer import RESTING, Commit, State, Transfer
from eft.errors import SliceOver
from eft.ports import Bytes, Clock, Engine, Limits


@dataclass(slots=True)
class Slice:
    """A bounded piece of one worker's time. `leaving` turns true when the process is asked to stop."""

    worker: str
    clock: Clock
    length: timedelta
    leaving: Callable[[], bool] = lambda: False
    limits: Limits | None = None
    admitted: set[str] = field(default_factory=set)
    """Keys of the admission slots that this slice holds."""
    _ends: float = field(init=False)

    def __post_init__(self) -> None:
        self._ends = self.clock.monotonic() + self.length.total_seconds()

    def over(self) -> bool:
        """Returns whether no new part may be begun."""
        return self.leaving() or self.clock.monotonic() >= self._ends

    def end(self) -> None:
        """Gives the slice's admission slots back."""
        for key in self.admitted:
            if self.limits is not None:
                self.limits.release(key, holder=self.worker)
        self.admitted = set()

    def parts(self, parts: Iterable[tuple[Part, int]]) -> Iterator[tuple[Part, int]]:
        """Yields parts while the slice lasts, the first in any case.

        Raises:
            SliceOver: it has ended before the last part.
        """
        for index, part in enumerate(parts):
            if index and self.over():
                msg = "the slice has used its time"
                raise SliceOver(msg)
            yield part

    def check(self) -> None:
        """Ends the slice at once when the process is leaving.

        Raises:
            SliceOver: it is; the part in hand is given up.
        """
        if self.leaving():
            msg = "the worker is leaving"
            raise SliceOver(msg)


@dataclass(slots=True)
class Work:
    """One claimed transfer in a worker's hands; every write goes through `save`, under the claim's fence."""

    engine: Engine
    transfer: Transfer
    slice: Slice
    _renew_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._renew_at = self._next_renewal()

    def now(self) -> datetime:
        """Returns the time."""
        return self.engine.clock.now()

    def save(self, changed: Transfer) -> None:
        """Writes the row; from a resting state the claim is given back in the same write.

        Raises:
            LostOwnership: the fence or the state is not what this worker left.
        """
        if changed.state in RESTING:
            changed = changed.with_(claim_until=None, due_at=None)
        self.engine.ledger.save(changed, was=self.transfer.state)
        self.transfer = changed

    def intent(self, commit: Commit) -> Intent:
        """Returns what is announced of a commit of this transfer."""
        return Intent(
            partition=self.transfer.partition,
            transfer=self.transfer.id,
            attempt=commit.attempt,
            token=commit.token,
            region_epoch=commit.region_epoch,
            # For the other region, where there is one.
            row="" if self.engine.peer is None else self.transfer.model_dump_json(exclude_defaults=True),
        )

    def enter(self, state: State, changed: Transfer) -> None:
        """Saves a changed row in `state`, whether it comes there now or stays there with a new attempt."""
        now, worker = self.now(), self.slice.worker
        self.save(changed.noted(now=now, by=worker) if changed.state is state else changed.to(state, now=now, by=worker))

    def give_back(self, *, due_in: timedelta | None = None) -> None:
        """Ends the claim of a transfer that is to go on; the sweep looks after `due_in` (default: the stall time)."""
        due_at = self.now() + (due_in or self.engine.tuning.stall)
        self.save(self.transfer.with_(claim_until=None, due_at=due_at))

    def put_down(self) -> None:
        """Ends the claim of a transfer with which nothing is to be done here, and changes nothing else."""
        self.save(self.transfer.with_(claim_until=None))

    def keep(self) -> None:
        """Renews the claim when a third of the lease has passed, and ends the slice when the process leaves.

        Raises:
            LostOwnership: another worker has taken over.
            SliceOver: the process is leaving.
        """
        self.slice.check()
        if self.engine.clock.monotonic() >= self._renew_at:
            until = self.now() + self.engine.tuning.lease
            self.engine.ledger.renew(self.transfer, until=until)
            self.transfer = self.transfer.with_(claim_until=until, due_at=until)
            self._renew_at = self._next_renewal()

    def kept(self, chunks: Iterable[Bytes]) -> Iterator[Bytes]:
        """Passes chunks through, keeping the claim meanwhile."""
        for chunk in chunks:
            self.keep()
            yield chunk

    def _next_renewal(self) -> float:
        return self.engine.clock.monotonic() + self.engine.tuning.lease.total_seconds() / 3
