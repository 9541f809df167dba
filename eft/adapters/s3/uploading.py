"""One worker's open hand on a multipart upload: parts are sent in the background while the next one is read."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, Final, cast

from botocore.exceptions import ClientError

from eft.adapters.aws_errors import code_of
from eft.adapters.s3.direct import HEADERS
from eft.domain.checksum import crc64nvme, crc64nvme_base64
from eft.domain.parts import LARGEST_HELD, Part
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
        self._pool: ThreadPoolExecutor | None = None
        self._under_way: set[Future[tuple[int, str]]] = set()
        self._read: tuple[int, list[Bytes], int] | None = None
        """The part read last. It is sent from the next call on: by then what this one returned is on record, so that a crash
        never costs more parts than are sent at a time."""

    def write(self, part: Part, chunks: Iterable[Bytes]) -> list[tuple[int, str | None]]:
        """Takes all chunks of a part while earlier ones are sent, and returns (number, etag) of those that are durable since the last call.

        Raises:
            Transient: `size_differs`: the chunks are not the part's size.
            Permanent: `file_too_large`, before a chunk is taken; `token_gone`; and whatever befell a part sent before.
        """
        if part.size > LARGEST_HELD:
            # A source may claim any size, and whoever believes it holds the part in memory that is everybody's.
            raise Permanent(f"'{self._path}' is larger than the 1.2 TiB that can be streamed into a bucket", reason="file_too_large")
        self._send_read()
        pieces: list[Bytes] = []
        filled = crc = 0
        for chunk in chunks:
            filled += len(chunk)
            if filled <= part.size:
                pieces.append(chunk)
            crc = crc64nvme(chunk, crc)
        if filled != part.size:
            raise Transient(f"part {part.number} came with {filled} bytes instead of {part.size}", reason="size_differs")
        self._read = (part.number, pieces, crc)
        return self._wait(at_most=IN_FLIGHT - 1)

    def finish(self) -> list[tuple[int, str | None]]:
        """Waits until all parts are durable and returns the remaining ones. The last one read is sent by the caller's thread."""
        earlier = self._wait(at_most=0)
        last, self._read = self._read, None
        return earlier if last is None else [*earlier, self._send(*last)]

    def close(self, *, broken_off: bool) -> None:
        """Ends the threads. Broken off, parts not begun are dropped and those under way are not waited for: their bytes are the same."""
        if self._pool is not None:
            self._pool.shutdown(wait=not broken_off, cancel_futures=broken_off)

    def _send_read(self) -> None:
        if self._read is not None:
            self._pool = self._pool or ThreadPoolExecutor(max_workers=IN_FLIGHT, thread_name_prefix="s3-part")
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

    def _send(self, number: int, pieces: list[Bytes], crc: int) -> tuple[int, str]:
        sink, key = self._sink, self._sink.key(self._path)
        checksum = {"ChecksumCRC64NVME": crc64nvme_base64(crc)} if self._checksum else {}
        with sink.translated():
            if direct := sink.direct:
                headers = {HEADERS[name]: value for name, value in checksum.items()}
                etag = direct.part(sink.bucket, key, upload=self._token, number=number, pieces=pieces, headers=headers)
                if etag is not None:
                    return number, etag.strip('"')
            try:
                answer = sink.s3.upload_part(
                    Bucket=sink.bucket, Key=key, UploadId=self._token, PartNumber=number, Body=b"".join(pieces), **cast("Any", checksum)
                )
            except ClientError as error:
                if code_of(error) == "NoSuchUpload":
                    raise token_gone(self._path) from error
                if code_of(error) == "BadDigest":
                    raise Transient(f"part {number} arrived with other bytes than were sent", reason="part_damaged") from error
                raise
        return number, answer["ETag"].strip('"')


def token_gone(path: str) -> Permanent:
    """Returns the error for an upload id that its store does not know any more."""
    return Permanent(f"the upload to '{path}' is gone: completed, aborted, or removed by its bucket's lifecycle rule", reason="token_gone")
