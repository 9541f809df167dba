"""Files to move: made up anew each time, of many sizes, with the SHA-256 that each must have where it arrives."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

KIB: Final = 1024
MIB: Final = 1024 * KIB
BLOCK: Final = MIB


@dataclass(frozen=True, slots=True)
class Sample:
    """What a file holds."""

    size: int
    sha256: str


Samples = Mapping[str, Sample]
"""By path, relative to the endpoint's root."""


def many(stem: str, count: int, *, size: int = 10 * KIB, suffix: str = ".csv") -> dict[str, int]:
    """Returns `count` names with their size in bytes."""
    return {f"{stem}-{number:03}{suffix}": size for number in range(1, count + 1)}


def in_directory(directory: Path, sizes: Mapping[str, int]) -> dict[str, Sample]:
    """Writes files of these sizes and returns what they hold."""
    made = {}
    for name, size in sizes.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # Under another name first: a flow that looks meanwhile must not see half a file.
        draft = path.with_name(".being-written.part")
        with draft.open("wb") as file:
            made[name] = _poured(size, file.write)
        draft.replace(path)
    return made


def in_bucket(s3: S3Client, bucket: str, sizes: Mapping[str, int], *, prefix: str = "") -> dict[str, Sample]:
    """Puts objects of these sizes, none of them large, and returns what they hold."""
    made = {}
    for name, size in sizes.items():
        content = bytearray()
        made[name] = _poured(size, content.extend)
        s3.put_object(Bucket=bucket, Key=f"{prefix}{name}", Body=bytes(content))
    return made


def digest(chunks: Iterator[bytes]) -> Sample:
    """Returns what chunks hold together."""
    sha256, size = hashlib.sha256(), 0
    for chunk in chunks:
        sha256.update(chunk)
        size += len(chunk)
    return Sample(size, sha256.hexdigest())


def digest_of(path: Path) -> Sample:
    """Returns what a file holds."""
    with path.open("rb") as file:
        return digest(iter(lambda: file.read(BLOCK), b""))


def _poured(size: int, pour: Callable[[bytes], object]) -> Sample:
    """Random bytes, no two blocks alike: parts that change places or come twice are noticed."""

    def blocks() -> Iterator[bytes]:
        for start in range(0, size, BLOCK):
            block = os.urandom(min(BLOCK, size - start))
            pour(block)
            yield block

    return digest(blocks())
