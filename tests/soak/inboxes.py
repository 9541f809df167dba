"""Where files arrive: every appearance is counted, its bytes are compared, and a receiver takes it away the moment it is there."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.killpoints.watching import Appearances

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LOOK_EVERY: Final = 0.5


class Inbox(ABC):
    """One destination and whoever receives there, in a thread."""

    consuming = True

    def __init__(self, endpoint: str, kind: str, *, plain: bool = False) -> None:
        self.endpoint = endpoint
        self.kind = kind
        self.plain = plain
        self.appeared: Counter[str] = Counter()
        """How often a file has appeared under each name."""
        self.sums: dict[str, set[str]] = {}
        """SHA-256 of what appeared under each name, as far as it could be had."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._receive, name=f"inbox-{endpoint}", daemon=True)
        self.trouble: list[str] = []

    def open(self) -> None:
        """Receives from now on."""
        self._thread.start()

    def close(self) -> None:
        """Receives what is there, and counts for the last time."""
        self._over.set()
        self._thread.join(60)
        if self._thread.is_alive():
            self.trouble.append(f"the receiver of {self.endpoint} hangs")

    def _receive(self) -> None:
        try:
            while not self._over.is_set():
                self.look()
            self.look()
            self.last_look()
        except Exception as error:  # noqa: BLE001 - the verdict tells it
            self.trouble.append(f"the receiver of {self.endpoint} ended: {type(error).__name__}: {error}")

    @abstractmethod
    def look(self) -> None:
        """Takes what has come, waiting for it a moment."""

    @abstractmethod
    def last_look(self) -> None:
        """Counts what counts at the end."""

    def _noted(self, name: str, content: bytes) -> None:
        self.sums.setdefault(name, set()).add(hashlib.sha256(content).hexdigest())


class SftpInbox(Inbox):
    """A directory of an SFTP server; the kernel tells of every name that comes to be in it."""

    def __init__(self, endpoint: str, directory: Path, *, consuming: bool = True, plain: bool = False) -> None:
        super().__init__(endpoint, "sftp", plain=plain)
        self.consuming = consuming
        self.directory = directory
        self._taken = directory.with_name(f"{directory.name}-taken")
        self._taken.mkdir()
        self._appearances = Appearances(directory)

    def look(self) -> None:
        """Moves each file away and reads it there."""
        for path in self._appearances.new(wait=LOOK_EVERY):
            self.appeared[path.name] += 1
            with suppress(FileNotFoundError):
                if self.consuming:
                    taken = path.rename(self._taken / path.name)
                    self._noted(path.name, taken.read_bytes())
                    taken.unlink()

    def last_look(self) -> None:
        """Reads what stands there for good."""
        for path in self.directory.iterdir():
            if not path.name.startswith("."):
                self._noted(path.name, path.read_bytes())
        self._appearances.close()


class S3Inbox(Inbox):
    """A versioned bucket: what is taken leaves its version, and a second delivery would leave a second."""

    def __init__(self, endpoint: str, s3: S3Client, bucket: str) -> None:
        super().__init__(endpoint, "s3")
        self._s3, self._bucket = s3, bucket

    def look(self) -> None:
        """Deletes each object."""
        self._over.wait(LOOK_EVERY)
        for one in self._s3.list_objects_v2(Bucket=self._bucket).get("Contents", []):
            self.appeared[one["Key"]] += 1
            self._s3.delete_object(Bucket=self._bucket, Key=one["Key"])

    def last_look(self) -> None:
        """Counts and reads versions, which are all that ever came."""
        self.appeared.clear()
        for page in self._s3.get_paginator("list_object_versions").paginate(Bucket=self._bucket):
            for one in page.get("Versions", []):
                self.appeared[one["Key"]] += 1
                held = self._s3.get_object(Bucket=self._bucket, Key=one["Key"], VersionId=one["VersionId"])
                self._noted(one["Key"], held["Body"].read())
