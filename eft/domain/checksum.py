"""Checksums of bytes on their way: CRC64NVME of parts, which combine into the whole's, and SHA-256 of what is in order.

CRC64NVME is the polynomial that S3 keeps over full objects (Amazon S3 User Guide, "Checking object integrity"). The
arithmetic is awscrt's, written in C; the module does no I/O.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Final

from awscrt import checksums

from eft.domain.parts import Part, PartDone
from eft.errors import Permanent

Bytes = bytes | bytearray | memoryview
CRC_BYTES: Final = 8


def crc64nvme(chunk: Bytes, previous: int = 0) -> int:
    """Returns the CRC of what `previous` covers followed by `chunk`; 0 covers nothing."""
    # awscrt takes any buffer, though it declares bytes only.
    return int(checksums.crc64nvme(chunk, previous))


def combine_crc64nvme(first: int, second: int, second_size: int) -> int:
    """Returns the CRC of two byte ranges, one after the other, from each range's own; `second_size` in bytes."""
    return int(checksums.combine_crc64nvme(first, second, second_size))


def whole_crc64nvme(parts: Sequence[PartDone]) -> int | None:
    """Returns the CRC of a whole file from its parts in order, or None where one part's is not known."""
    whole = 0
    for part in parts:
        if part.crc64nvme is None:
            return None
        whole = combine_crc64nvme(whole, part.crc64nvme, part.size)
    return whole


def crc64nvme_text(crc: int) -> str:
    """Returns `crc64nvme:` and 16 hex digits, as commits and receipts have it."""
    return f"crc64nvme:{crc:016x}"


def crc64nvme_base64(crc: int) -> str:
    """Returns the eight bytes, big-endian, in base64, as S3's `x-amz-checksum-crc64nvme` has them."""
    return base64.b64encode(crc.to_bytes(CRC_BYTES, "big")).decode()


def crc64nvme_from_base64(text: str | None) -> int | None:
    """Returns the CRC in an `x-amz-checksum-crc64nvme`, or None where there is none that can be read."""
    try:
        raw = base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        return None
    return int.from_bytes(raw, "big") if len(raw) == CRC_BYTES else None


@dataclass(slots=True)
class Tally:
    """What one worker saw: each part's CRC by number, and SHA-256 while parts come in order from the first byte.

    SHA-256 costs about as much CPU as moving the bytes: `sha` says whether anybody wants it.
    """

    crcs: dict[int, int] = field(default_factory=dict)
    sha: InitVar[bool] = True
    _sha: hashlib._Hash = field(default_factory=hashlib.sha256)
    _next: int | None = field(init=False)
    """The byte at which SHA-256 goes on; None where it does not: a digest cannot take bytes of a part broken off back."""

    def __post_init__(self, sha: bool) -> None:
        self._next = 0 if sha else None

    def watch(self, part: Part, chunks: Iterable[Bytes]) -> Iterator[Bytes]:
        """Passes a part's chunks through; the part counts once all of it has gone by.

        Raises:
            Permanent: `source_changed`: they are fewer or more bytes than the part has.
        """
        in_order = self._next == part.start
        if in_order:
            self._next = None
        seen, crc = 0, 0
        for chunk in chunks:
            crc = crc64nvme(chunk, crc)
            if in_order:
                self._sha.update(chunk)
            seen += len(chunk)
            yield chunk
        if seen != part.size:
            raise Permanent(
                f"part {part.number} has {seen} bytes instead of {part.size}: the source changed while it was read",
                reason="source_changed",
            )
        self.crcs[part.number] = crc
        if in_order:
            self._next = part.start + part.size

    def sha256(self, size: int) -> str | None:
        """Returns the hex digest if exactly the first `size` bytes were seen in order, else None."""
        return self._sha.hexdigest() if self._next == size else None
