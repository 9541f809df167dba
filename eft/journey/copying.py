"""Moving bytes: parts from a source into an attempt's upload, by the claim's holder alone or by lanes of many workers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

from eft.domain.checksum import Tally, crc64nvme, crc64nvme_text, whole_crc64nvme
from eft.domain.endpoint import Endpoint
from eft.domain.fingerprint import Fingerprint, RemoteFile
from eft.domain.parts import Part, PartDone
from eft.domain.transfer import State, Transfer, Upload
from eft.errors import Permanent, SliceOver
from eft.ports import Bytes, Engine, Sink, Source


def current_upload(transfer: Transfer) -> Upload | None:
    """Returns the upload that parts belong to in the transfer's present state."""
    return {State.STAGING: transfer.staging, State.DELIVERING: transfer.upload}.get(transfer.state)


def read_place(engine: Engine, transfer: Transfer) -> tuple[Endpoint | None, RemoteFile]:
    """Returns where the bytes are read from now: None and the staged object, or the source endpoint and the pinned source file."""
    if transfer.staged is not None and transfer.state is not State.STAGING:
        return None, RemoteFile(path=transfer.staged.path, fingerprint=transfer.staged.fingerprint)
    fingerprint = transfer.fingerprint or Fingerprint(size=0)
    return engine.registry.endpoint(transfer.tenant, transfer.source.endpoint), RemoteFile(
        path=transfer.source.path, fingerprint=fingerprint
    )


def check_unchanged(source: Source, file: RemoteFile) -> None:
    """Sees that a file is still the version that was accepted; stores that pin versions need no look.

    Raises:
        Permanent: `source_changed`; NotFound: `source_missing`.
    """
    if source.pins_versions:
        return
    now = source.stat(file.path)
    if not now.fingerprint.matches(file.fingerprint):
        msg = f"'{file.path}' is not the version that was accepted: it changed from {file.size} to {now.size} bytes or was written again"
        raise Permanent(msg, reason="source_changed")


def copy_parts(
    source: Source,
    file: RemoteFile,
    sink: Sink,
    upload: Upload,
    parts: Iterable[tuple[Part, int]],
    *,
    held: list[Bytes] | None = None,
    fresh: bool,
    tally: Tally,
    kept: Callable[[Iterable[Bytes]], Iterator[Bytes]],
    record: Callable[[PartDone], None],
) -> None:
    """Copies parts (`followed`) one after the other and records each as soon as it is durable; the source is checked after each.

    `held` are the bytes of the only part, read and checked already.

    Raises:
        SliceOver: `kept` said so, or the iterable of parts ended early by raising it; parts written by then are recorded.
    """
    if held is None and sink.copies_from(source):
        for part, _ in parts:
            record(sink.copy_part(upload, part, source=source, file=file))
        return
    with sink.upload(upload, fresh=fresh) as uploading:
        by_number: dict[int, Part] = {}

        def note(written: list[tuple[int, str | None]]) -> None:
            for number, etag in written:
                record(PartDone(number=number, size=by_number[number].size, crc64nvme=tally.crcs[number], etag=etag))

        try:
            for part, until in parts:
                by_number[part.number] = part
                chunks = source.read(file, start=part.start, size=part.size, until=until) if held is None else held
                written = uploading.write(part, tally.watch(part, kept(chunks)))
                if held is None:
                    check_unchanged(source, file)
                note(written)
        except SliceOver:
            note(uploading.finish())
            raise
        note(uploading.finish())


def whole_checksum(upload: Upload, parts: dict[int, PartDone], sha256: str | None) -> str:
    """Returns the checksum of all bytes in the form of `Commit.checksum`: the strongest that is in hand."""
    if sha256 is not None:
        return f"sha256:{sha256}"
    crc = whole_crc64nvme([parts[n] for n in sorted(parts)])
    if crc is not None:
        return crc64nvme_text(crc)
    return f"etag:{parts[upload.plan.count].etag}"


def digest(chunks: Iterable[Bytes], *, algorithm: str) -> str:
    """Returns `<algorithm>:<hex>` over chunks; algorithm is `sha256` or `crc64nvme`."""
    if algorithm == "sha256":
        sha = hashlib.sha256()
        for chunk in chunks:
            sha.update(chunk)
        return f"sha256:{sha.hexdigest()}"
    crc = 0
    for chunk in chunks:
        crc = crc64nvme(chunk, crc)
    return crc64nvme_text(crc)
