"""A lane of a large file: one worker at a time copies its parts; many lanes run at once. Lanes claim nothing but themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from eft.domain.checksum import Tally
from eft.domain.parts import PartDone
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


def copy_lane(engine: Engine, transfer_id: str, part: int, piece: Slice) -> list[Message]:
    """Copies the missing parts of the lane that holds `part`; the lane that completes the set sends the transfer on.

    Raises:
        NotFound: `transfer_unknown`; the message is broken.
    """
    transfer = engine.ledger.load(transfer_id)
    upload = current_upload(transfer)
    if upload is None or not 1 <= part <= upload.plan.count:
        return []
    lane = _Lane(engine, transfer, upload, piece, upload.lane_of(part))
    if not lane.take():
        return []
    try:
        return _copy(lane)
    except Exception as error:  # noqa: BLE001 - classed in one place, under a claim
        return _fail(engine, transfer, piece, error)
    finally:
        engine.limits.release(lane.key, holder=piece.worker)


@dataclass(slots=True)
class _Lane:
    engine: Engine
    transfer: Transfer
    upload: Upload
    slice: Slice
    numbers: range
    recording: Recording = field(init=False)
    due_at: datetime | None = field(init=False)
    _renew_at: float = 0

    def __post_init__(self) -> None:
        self.recording = Recording(self.engine, self.transfer.id, self.upload.attempt)
        self.due_at = self.transfer.due_at

    @property
    def key(self) -> str:
        return f"lane:{self.transfer.id}:{self.upload.attempt}:{self.numbers.start}"

    def take(self) -> bool:
        """Takes the lane for this worker, or takes it for longer."""
        self._renew_at = self.engine.clock.monotonic() + self.engine.tuning.lease.total_seconds() / 3
        return self.engine.limits.acquire(self.key, limit=1, holder=self.slice.worker, lease=self.engine.tuning.lease)

    def record(self, done: PartDone) -> None:
        self.recording.add(done)
        self._still_moving()

    def kept(self, chunks: Iterable[Bytes]) -> Iterator[Bytes]:
        for chunk in self.recording.kept(chunks):
            self.slice.check()
            if self.engine.clock.monotonic() >= self._renew_at:
                self.take()
                self._still_moving()
            yield chunk

    def _still_moving(self) -> None:
        """Keeps the sweep away while bytes arrive: a write every half stall time, lost to another lane's without harm."""
        now, stall = self.engine.clock.now(), self.engine.tuning.stall
        if self.due_at is not None and self.due_at < now + stall / 2:
            self.engine.ledger.postpone(Due(kind="transfer", id=self.transfer.id, due_at=self.due_at), until=now + stall)
            self.due_at = now + stall


def _copy(lane: _Lane) -> list[Message]:
    engine, transfer, upload = lane.engine, lane.transfer, lane.upload
    done = engine.ledger.parts(transfer.id, attempt=upload.attempt)
    missing = [upload.plan.part(n) for n in lane.numbers if n not in done]
    if missing:
        pace = Pace(engine, transfer, lane.slice)
        with both_ends(engine, transfer) as (source, file, sink):
            try:
                with lane.recording:
                    copy_parts(
                        source,
                        file,
                        sink,
                        upload,
                        lane.slice.parts(missing),
                        fresh=False,
                        tally=Tally(sha=False),
                        kept=lambda chunks: pace.kept(lane.kept(chunks)),
                        record=lane.record,
                    )
            except SliceOver:
                return [Message(step=Step.PARTS, ids=(transfer.id,), part=lane.numbers.start)]
    done = engine.ledger.parts(transfer.id, attempt=upload.attempt)
    return next_message(transfer) if len(done) == upload.plan.count else []


def _fail(engine: Engine, transfer: Transfer, piece: Slice, error: Exception) -> list[Message]:
    """An error of a lane is written on the row under a claim; where another worker has that, it writes its own."""
    claimed = engine.ledger.claim(transfer.id, worker=piece.worker, now=engine.clock.now(), lease=engine.tuning.lease)
    if claimed is None or claimed.attempt != transfer.attempt or claimed.state is not transfer.state:
        if claimed is not None:
            Work(engine, claimed, piece).give_back()
        return []
    return after_error(Work(engine, claimed, piece), error)
