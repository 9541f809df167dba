"""One worker's open hand on a multipart upload: parts are sent in the background while the next one is read."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import IO, TYPE_CHECKING, Any, Final, cast

from botocore.exceptions import ClientError

from eft.adapters.aws_errors import code_of
from eft.domain.checksum import crc64nvme, crc64nvme_base64
from eft.domain.parts import MIB, MIN_PART_SIZE, Part
from eft.errors import Permanent, Transient
from eft.ports import Bytes

if TYPE_CHECKING:
    from eft.adapters.s3.sink import S3Sink

IN_FLIGHT: Final = 1
"""Parts being sent at a time, while the next one is read: two in memory, and one to send again after a crash."""


class S3Uploading:
    """`ports.Uploading` on a multipart upload. Used by one thread."""

    def __init__(self, sink: S3Sink, *, path: str, token: str, checksum: bool) -> None:
        self._sink = sink
        self._path = path
        self._token = token
        self._checksum = checksum
        self._pool = ThreadPoolExecutor(max_workers=IN_FLIGHT, thread_name_prefix="s3-part")
        self._under_way: set[Future[tuple[int, str]]] = set()
        self._read: tuple[int, _Body, int] | None = None
        """The part read last. It is sent from the next call on: by then what this one returned is on record, so that a crash
        never costs more parts than are sent at a time."""

    def write(self, part: Part, chunks: Iterable[Bytes]) -> list[tuple[int, str | None]]:
        """Takes all chunks of a part while earlier ones are sent, and returns (number, etag) of those that are durable since the last call.

        Raises:
            Transient: `size_differs`: the chunks are not the part's size.
            Permanent: `token_gone`; and whatever befell a part sent before.
        """
        self._send_read()
        body = _Body(part.size)
        crc = 0
        for chunk in chunks:
            body.add(chunk)
            crc = crc64nvme(chunk, crc)
        if body.filled != part.size:
            raise Transient(f"part {part.number} came with {body.filled} bytes instead of {part.size}", reason="size_differs")
        self._read = (part.number, body, crc)
        return self._wait(at_most=IN_FLIGHT - 1)

    def finish(self) -> list[tuple[int, str | None]]:
        """Waits until all parts are durable and returns the remaining ones."""
        self._send_read()
        return self._wait(at_most=0)

    def close(self, *, broken_off: bool) -> None:
        """Ends the threads. Broken off, parts not begun are dropped and those under way are not waited for: their bytes are the same."""
        self._pool.shutdown(wait=not broken_off, cancel_futures=broken_off)

    def _send_read(self) -> None:
        if self._read is not None:
            self._under_way.add(self._pool.submit(self._send, *self._read))
            self._read = None

    def _wait(self, *, at_most: int) -> list[tuple[int, str | None]]:
        durable: list[tuple[int, str | None]] = []
        while True:
            done = {future for future in self._under_way if future.done()}
            self._under_way -= done
            durable += [future.result() for future in done]
            if len(self._under_way) <= at_most:
                return sorted(durable, key=lambda pair: pair[0])
            wait(self._under_way, return_when=FIRST_COMPLETED)

    def _send(self, number: int, body: _Body, crc: int) -> tuple[int, str]:
        checksum: dict[str, Any] = {"ChecksumCRC64NVME": crc64nvme_base64(crc)} if self._checksum else {}
        with self._sink.translated():
            try:
                answer = self._sink.s3.upload_part(
                    Bucket=self._sink.bucket,
                    Key=self._sink.key(self._path),
                    UploadId=self._token,
                    PartNumber=number,
                    Body=cast("IO[bytes]", body.content),
                    **checksum,
                )
            except ClientError as error:
                if code_of(error) == "NoSuchUpload":
                    raise token_gone(self._path) from error
                if code_of(error) == "BadDigest":
                    raise Transient(f"part {number} arrived with other bytes than were sent", reason="part_damaged") from error
                raise
        body.leave()
        return number, answer["ETag"].strip('"')


class _Body:
    """A part's bytes, in a buffer that serves again: to have a new one from the system costs more than to fill it."""

    def __init__(self, size: int) -> None:
        self.content = SHELF.take(size)
        self._view = memoryview(self.content)
        self.filled = 0
        """Bytes that came; beyond the size they are counted, not kept."""

    def add(self, chunk: Bytes) -> None:
        """Takes the next bytes."""
        begun, self.filled = self.filled, self.filled + len(chunk)
        if self.filled <= len(self._view):
            self._view[begun : self.filled] = chunk

    def leave(self) -> None:
        """Hands the buffer on, when nobody reads it any more."""
        self._view.release()
        SHELF.give(self.content)


class Shelf:
    """Buffers of this process for the bodies of parts. Thread-safe: each of its steps is one of a list's own."""

    def __init__(self, *, most: int) -> None:
        """Takes how many bytes may lie there unused."""
        self._most = most
        self._free: list[bytearray] = []

    def take(self, size: int) -> bytearray:
        """Returns a buffer of so many bytes, with whatever was in it."""
        for _ in range(len(self._free)):
            try:
                held = self._free.pop(0)
            except IndexError:
                break
            if len(held) == size:
                return held
            self._free.append(held)
        return bytearray(size)

    def give(self, held: bytearray) -> None:
        """Keeps a buffer for the next part of its size; the one that was not asked for longest goes where there are too many."""
        if len(held) >= MIN_PART_SIZE:
            self._free.append(held)
        while self._free and sum(len(free) for free in list(self._free)) > self._most:
            self._free.pop(0)


SHELF: Final = Shelf(most=8 * MIB)


def token_gone(path: str) -> Permanent:
    """Returns the error for an upload id that its store does not know any more."""
    return Permanent(f"the upload to '{path}' is gone: completed, aborted, or removed by its bucket's lifecycle rule", reason="token_gone")
