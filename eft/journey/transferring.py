"""What stage and deliver share: looking at the source, and bringing an attempt's upload to the point where all its parts are done."""

from __future__ import annotations

from eft.domain.checksum import Tally
from eft.domain.fingerprint import RemoteFile
from eft.domain.flow import Checksum
from eft.domain.names import RemotePath
from eft.domain.parts import FAR_LANES, WHOLE_UP_TO, PartDone, followed, plan_parts
from eft.domain.transfer import Step, Transfer, Upload
from eft.errors import Permanent, Undecidable
from eft.journey.copying import copy_parts, digest
from eft.journey.messages import Message
from eft.journey.pacing import Pace, bounded_ends
from eft.journey.recording import Recording
from eft.journey.work import Work
from eft.ports import Bytes, Engine, Sink, Source

SIDECAR_LIMIT = 4096


def look_at_source(work: Work, source: Source, file: RemoteFile, sink: Sink) -> tuple[RemoteFile, list[Bytes] | None]:
    """Returns the source as it is, which for a transfer discovered before must be the version that was accepted; or its staged copy.

    A small file that is to pass through here comes with its bytes, which are one version's: it was looked at before and after they
    were read. A version that its store keeps is asked for by its id: what was written over it since does not matter.

    Raises:
        Permanent: `source_changed`, on a first journey; Undecidable: the same on a re-driven one, or of a staged copy;
        NotFound: `source_missing`.
    """
    transfer = work.transfer
    version = None if transfer.staged is not None or transfer.fingerprint is None else transfer.fingerprint.version
    found, held = _seen(work.engine, source, file, sink, version=version, known=transfer.fingerprint is not None)
    if transfer.staged is not None:
        if not found.fingerprint.matches(file.fingerprint):
            msg = f"the object at '{file.path}' in the staging bucket is not the copy that was staged"
            raise Undecidable(msg, reason="source_changed")
        return file, held
    if transfer.fingerprint is None:
        return found, held
    if not found.fingerprint.matches(transfer.fingerprint):
        msg = f"'{file.path}' is not the version that was accepted"
        if transfer.redrives:
            raise Undecidable(msg, reason="source_changed")
        raise Permanent(msg, reason="source_changed")
    return found, held


def _seen(
    engine: Engine, source: Source, file: RemoteFile, sink: Sink, *, version: str | None, known: bool
) -> tuple[RemoteFile, list[Bytes] | None]:
    limit = min(WHOLE_UP_TO, engine.tuning.part_size)
    # A bucket is not read from before it is known to hold something small.
    small = file.size <= limit if known else not source.pins_versions
    if not small or sink.copies_from(source):
        return source.stat(file.path, version=version), None
    found, pieces = source.whole(file.path, limit=limit, version=version, listed=known)
    return found, pieces if found.size <= limit else None


def expected_sha256(work: Work, source: Source) -> str | None:
    """Returns the SHA-256 to compare with: the request's, or the first word of the `.sha256` sidecar where the flow asks for one.

    Raises:
        NotFound: `source_missing`: the sidecar is not there; Permanent: `sidecar_malformed`.
    """
    transfer = work.transfer
    if transfer.expected_sha256 or not transfer.policy.sidecar or transfer.staged is not None:
        return transfer.expected_sha256
    sidecar = source.stat(RemotePath(f"{transfer.source.path}.sha256"))
    size = min(sidecar.size, SIDECAR_LIMIT)
    words = b"".join(source.read(sidecar, start=0, size=size)).decode("ascii", "replace").split()
    if not words or len(words[0]) != 64 or any(c not in "0123456789abcdefABCDEF" for c in words[0]):  # noqa: PLR2004 - hex digits of SHA-256
        msg = f"'{sidecar.path}' does not begin with 64 hex digits"
        raise Permanent(msg, reason="sidecar_malformed")
    return words[0].lower()


def new_upload(engine: Engine, transfer: Transfer, source: Source, sink: Sink, *, size: int, token: str, path: RemotePath) -> Upload:
    """Returns the next attempt: one lane for small files, for sinks that want writes in order, and where SHA-256 is demanded.

    Twice as many as usual where an end is far away.
    """
    # Where bytes are let through slowly, a slice has its turn for as long as a part takes.
    held = sink.holds_parts or bool(bounded_ends(engine, transfer))
    plan = plan_parts(size, part_size=engine.tuning.part_size, held=held)
    alone = demands_sha(transfer) or plan.count < engine.tuning.lane_threshold
    width = engine.tuning.lane_width * (FAR_LANES if source.far or sink.far else 1)
    return Upload(attempt=transfer.attempt + 1, token=token, path=path, plan=plan, lanes=1 if alone else min(width, sink.lanes))


def demands_sha(transfer: Transfer) -> bool:
    """Returns whether a transfer needs the SHA-256 of its bytes."""
    return transfer.policy.checksum is Checksum.SHA256 or transfer.expected_sha256 is not None or transfer.policy.sidecar


def bring_parts(
    work: Work, source: Source, file: RemoteFile, sink: Sink, upload: Upload, *, fresh: bool, held: list[Bytes] | None
) -> tuple[dict[int, PartDone], str | None] | list[Message]:
    """Copies what is missing of an attempt, alone or by sending lanes; `held` are the bytes of a file that was read already.

    Returns:
        All parts and the SHA-256 if it was seen, once the set is complete; else the messages that go on with it.
    """
    engine, transfer, plan = work.engine, work.transfer, upload.plan
    done = {} if plan.count == 1 else engine.ledger.parts(transfer.id, attempt=upload.attempt)
    if upload.lanes > 1 and len(done) < plan.count:
        if fresh:
            with sink.upload(upload, fresh=True) as uploading:
                uploading.finish()
        unfinished = [lane.start for lane in upload.lane_ranges() if any(n not in done for n in lane)]
        work.give_back()
        # Each worker begins where the others are far away.
        begin = unfinished[:: -(-len(unfinished) // upload.lanes)]
        return [Message(step=Step.PARTS, ids=(transfer.id,), part=n) for n in begin]
    tally = Tally(sha=demands_sha(transfer) or plan.count < engine.tuning.lane_threshold)

    recording = Recording(engine, transfer.id, upload.attempt)

    def record(part: PartDone) -> None:
        done[part.number] = part
        if plan.count > 1:
            recording.add(part)

    missing = [plan.part(n) for n in range(1, plan.count + 1) if n not in done]
    if missing:
        pace = Pace(engine, transfer, work.slice)
        with recording:
            copy_parts(
                source,
                file,
                sink,
                upload,
                work.slice.parts(followed(missing)),
                held=held if plan.count == 1 else None,
                fresh=fresh,
                tally=tally,
                kept=lambda chunks: pace.kept(work.kept(recording.kept(chunks))),
                record=record,
            )
    return done, tally.sha256(plan.size)


def checked_sha256(work: Work, source: Source, file: RemoteFile, sink: Sink, upload: Upload, *, seen: str | None) -> str | None:
    """Returns the SHA-256 of the upload, reading it back where it is demanded but was not seen, and compares it with the expected one.

    Raises:
        Permanent: `checksum_mismatch`.
    """
    transfer = work.transfer
    expected = transfer.expected_sha256
    if seen is None and (expected is not None or transfer.policy.checksum is Checksum.SHA256):
        back = sink.read_back(upload)
        chunks = back if back is not None else source.read(file, start=0, size=upload.plan.size)
        seen = digest(work.kept(chunks), algorithm="sha256").removeprefix("sha256:")
    compare_sha256(transfer, seen, expected)
    return seen


def compare_sha256(transfer: Transfer, seen: str | None, expected: str | None) -> None:
    """Compares a SHA-256 with the one that is expected, if any is.

    Raises:
        Permanent: `checksum_mismatch`.
    """
    if expected is not None and seen != expected:
        msg = f"the SHA-256 of '{transfer.source.path}' is {seen}, expected {expected}"
        raise Permanent(msg, reason="checksum_mismatch")


def without_upload(transfer: Transfer) -> Transfer:
    """Returns the transfer with its open attempts given up; their tokens are removed later (D8)."""
    given_up = tuple(u for u in (transfer.upload,) if u is not None)
    return transfer.with_(upload=None, staging=None, abandoned=(*transfer.abandoned, *given_up))
