"""The receiving side, which counts: every file that appears at a destination, under whichever name, is noted once each time it does."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from deploy.local.samples import Sample, digest, digest_of
from eft.domain.names import is_token

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LOOK_SECONDS: Final = 0.02


@dataclass(slots=True)
class Appeared:
    """One appearance of a file: an inode, or a version of an object."""

    path: Path | None
    version: str
    sample: Sample | None = None


@dataclass
class Inbox:
    """A directory of an SFTP account; a consuming receiver takes each file the moment it sees it."""

    directory: Path
    taken_to: Path | None = None
    seen: dict[str, list[Appeared]] = field(default_factory=dict)

    def look(self) -> None:
        """Notes what has appeared since the last look."""
        for path in self.directory.iterdir():
            if is_token(path.name):
                continue
            try:
                inode = str(path.stat().st_ino)
            except FileNotFoundError:
                continue
            before = self.seen.setdefault(path.name, [])
            if self.taken_to is None:
                if inode not in {one.version for one in before}:
                    before.append(Appeared(path, inode))
                continue
            kept = self.taken_to / f"{path.name}.{len(before) + 1}"
            path.rename(kept)
            before.append(Appeared(kept, inode))

    def appearances(self, name: str) -> list[Sample]:
        """Returns what each appearance of a name held."""
        for one in self.seen.get(name, []):
            if one.sample is None and one.path is not None:
                one.sample = digest_of(one.path)
        return [one.sample for one in self.seen.get(name, []) if one.sample is not None]

    def left_over(self) -> list[str]:
        """Returns the temporary files that stand there."""
        return [path.name for path in self.directory.iterdir() if is_token(path.name)]


@dataclass
class BucketInbox:
    """A versioned bucket: each version of a key is an appearance."""

    s3: S3Client
    bucket: str

    def versions(self) -> dict[str, list[str]]:
        """Returns the versions of every key."""
        found: dict[str, list[str]] = {}
        for page in self.s3.get_paginator("list_object_versions").paginate(Bucket=self.bucket):
            for version in page.get("Versions", []):
                found.setdefault(version["Key"], []).append(version["VersionId"])
        return found

    def held(self, name: str, version: str) -> Sample:
        """Returns what a version holds."""
        return digest(self.s3.get_object(Bucket=self.bucket, Key=name, VersionId=version)["Body"].iter_chunks(1 << 20))


class Receiver:
    """Looks at the inboxes all the time, in a thread of its own."""

    def __init__(self, inboxes: list[Inbox]) -> None:
        self._inboxes = inboxes
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="receiver", daemon=True)
        self.failed: BaseException | None = None

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Ends, after a last look."""
        self._over.set()
        self._thread.join()
        if self.failed is not None:
            raise self.failed

    def _watch(self) -> None:
        try:
            while not self._over.is_set():
                for inbox in self._inboxes:
                    inbox.look()
                time.sleep(LOOK_SECONDS)
        except BaseException as error:  # noqa: BLE001 - told by stop()
            self.failed = error
