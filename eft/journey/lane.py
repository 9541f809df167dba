"""Lanes of a large file: many workers at a time copy its parts, each in a lane of its own. Who is done with one goes on with another.

Workers claim nothing but lanes, and keep those that they have been through until they end: so no part is copied twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from eft.domain.checksum import Tally
from eft.domain.parts import Part, PartDone, followed
from eft.domain.transfer import Step, Transfer, Upload
from eft.errors import SliceOver
from eft.journey.copying import copy_parts, current_upload
from eft.journey.messages import Message, next_message
from eft.journey.opening import both_ends
from eft.journey.outcome import after_error
from eft.journey.pacing import Pace
from eft.journey.recording import Recording
from eft.journey.work import Slice, Work
from eft.ports import Bytes, Due, Engine


def copy_lanes(engine: Engine, transfer_id: str, part: int, piece: Slice) -> list[Message]:
    """Copies the missing parts of the lane that holds `part`, and then of others that are free.

    Returns:
        What sends the transfer on, by whoever completes the set.

    Raises:
        NotFound: `transfer_unknown`; the message is broken.
    """
    transfer = engine.ledger.load(transfer_id)
    upload = current_upload(transfer)
    if upload is None or not 1 <= part <= upload.plan.count:
        return []
    lanes = _Lanes(engine, transfer, upload, piece, part)
    try:
        return _copy(lanes)
    except Exception as error:  # noqa: BLE001 - classed in one place, under a claim
        return _fail(engine, transfer, piece, error)
    finally:
        lanes.release()


@dataclass(slots=True)
class _Lanes:
    """The lanes of one worker: one in hand, those before it done."""

    engine: Engine
    transfer: Transfer
    upload: Upload
    slice: Slice
    begin: int
    """A part of the lane in hand."""
    missing: list[Part] = field(default_factory=list)
    """What is to be copied in it."""
    recording: Recording = field(init=False)
    _taken: list[range] = field(default_factory=list)
    _seen: list[range] = field(default_factory=list)
    """Those looked at: taken, or another worker's then."""
    _due_at: datetime | None = field(init=False)
    _done: dict[int, PartDone] = field(default_factory=dict)
    """What was done when last looked at."""
    _renew_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._renew_at = self._next_renewal()
        self.recording = Recording(self.engine, self.transfer.id, self.upload.attempt)
        self._due_at = self.transfer.due_at

    def go_on(self) -> bool:
        """Takes the lane in hand, or the next one after it that is free and of which something is missing; returns whether there is one."""
        every = self.upload.lane_ranges()
        here = next(n for n, lane in enumerate(every) if self.begin in lane)
        order = [*every[here:], *every[:here]]
        # Those that another worker had come last: it may have given them up since.
        looked = False
        for lane in [*(lane for lane in order if lane not in self._seen), *(lane for lane in order if lane in self._seen)]:
            if lane in self._taken or all(n in self._done for n in lane):
                continue
            if lane not in self._seen:
                self._seen.append(lane)
            if self._take(lane):
                self._taken.append(lane)
                # Looked at once nobody else can be in it.
                if self.all_done():
                    return False
                self.begin, self.missing = lane.start, [self.upload.plan.part(n) for n in lane if n not in self._done]
                if self.missing:
                    return True
            elif not looked:
                # Others are ahead: which lanes are done is known anew by one look, instead of by a try at each.
                looked = True
                if self.all_done():
                    return False
        return False

    def parts(self) -> Iterator[tuple[Part, int]]:
        """Yields what is to be copied, lane after lane, each part with the end of what is to be read of its lane in one go."""
        yield from followed(self.missing)
        while self.go_on():
            yield from followed(self.missing)

    def all_done(self) -> bool:
        """Returns whether the set is complete, whoever copied it."""
        self._done = self.engine.ledger.parts(self.transfer.id, attempt=self.upload.attempt)
        return len(self._done) == self.upload.plan.count

    def record(self, done: PartDone) -> None:
        self._renew()
        self.recording.add(done)
        self._still_moving()

    def kept(self, chunks: Iterable[Bytes]) -> Iterator[Bytes]:
        for chunk in self.recording.kept(chunks):
            self.slice.check()
            self._renew()
            yield chunk

    def release(self) -> None:
        """Gives back what others may go on with."""
        for lane in [lane for lane in self._taken if any(n not in self._done for n in lane)]:
            self.engine.limits.release(self._key(lane), holder=self.slice.worker)

    def _take(self, lane: range) -> bool:
        """Takes a lane for this worker, or takes it for longer."""
        return bool(self.engine.limits.acquire(self._key(lane), limit=1, holder=self.slice.worker, lease=self.engine.tuning.lease))

    def _renew(self) -> None:
        """Takes the lanes for longer, when a third of the lease has passed.

        Raises:
            SliceOver: this worker stood still for so long that another one has its lane: what it has not recorded is copied anew.
        """
        if self.engine.clock.monotonic() < self._renew_at:
            return
        self._renew_at = self._next_renewal()
        if not all(self._take(lane) for lane in reversed(self._taken)):
            self.recording.forget()
            raise SliceOver("another worker has the lane")
        self._still_moving()

    def _next_renewal(self) -> float:
        return self.engine.clock.monotonic() + self.engine.tuning.lease.total_seconds() / 3

    def _key(self, lane: range) -> str:
        return f"lane:{self.transfer.id}:{self.upload.attempt}:{lane.start}"

    def _still_moving(self) -> None:
        """Keeps the sweep away while bytes arrive: a write every half stall time, lost to another lane's without harm."""
        now, stall = self.engine.clock.now(), self.engine.tuning.stall
        if self._due_at is not None and self._due_at < now + stall / 2:
            self.engine.ledger.postpone(Due(kind="transfer", id=self.transfer.id, due_at=self._due_at), until=now + stall)
            self._due_at = now + stall


def _copy(lanes: _Lanes) -> list[Message]:
    engine, transfer, upload = lanes.engine, lanes.transfer, lanes.upload
    if not lanes.all_done() and lanes.go_on():
        pace = Pace(engine, transfer, lanes.slice)
        with both_ends(engine, transfer) as (source, file, sink):
            try:
                with lanes.recording:
                    copy_parts(
                        source,
                        file,
                        sink,
                        upload,
                        lanes.slice.parts(lanes.parts()),
                        fresh=False,
                        tally=Tally(sha=False),
                        kept=lambda chunks: pace.kept(lanes.kept(chunks)),
                        record=lanes.record,
                    )
            except SliceOver:
                return [Message(step=Step.PARTS, ids=(transfer.id,), part=lanes.begin)]
    return next_message(transfer) if lanes.all_done() else []


def _fail(engine: Engine, transfer: Transfer, piece: Slice, error: Exception) -> list[Message]:
    """An error of a lane is written on the row under a claim; where another worker has that, it writes its own."""
    claimed = engine.ledger.claim(transfer.id, worker=piece.worker, now=engine.clock.now(), lease=engine.tuning.lease)
    if claimed is None or claimed.attempt != transfer.attempt or claimed.state is not transfer.state:
        if claimed is not None:
            Work(engine, claimed, piece).give_back()
        return []
    return after_error(Work(engine, claimed, piece), error)
