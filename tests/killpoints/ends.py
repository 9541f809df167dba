"""The two ends of a transfer on real servers: what is put there, what has appeared there how often, and who takes it away."""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from collections import Counter
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Final

from deploy.local.provision import make_bucket
from deploy.local.sftp import SftpAccount
from eft.domain.endpoint import Credential, Endpoint, HostKey, RenameMode, S3Endpoint, SftpEndpoint
from eft.domain.names import is_token
from eft.ports import Engine
from tests.killpoints.forking import forked
from tests.killpoints.watching import Appearances, take_all

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PATIENCE: Final = 30.0
"""Seconds for a receiver to take what has appeared."""


class End(ABC):
    """One endpoint and what is behind it. `consuming`: a receiver takes whatever appears."""

    endpoint: Endpoint

    @abstractmethod
    def put(self, name: str, content: bytes) -> None:
        """Puts a file."""

    @abstractmethod
    def holds(self, name: str) -> bool:
        """Returns whether a file stands there now."""

    @abstractmethod
    def appeared(self, name: str) -> int:
        """Returns how often a file has appeared under a name so far."""

    @abstractmethod
    def receive(self, name: str) -> None:
        """Returns once the receiver, if there is one, has taken what stands there."""

    @abstractmethod
    def contents(self, name: str) -> list[bytes]:
        """Returns the bytes of each appearance of a name that is still to be had, here or at the receiver's."""

    @abstractmethod
    def left_over(self) -> int:
        """Returns how many temporary files or unfinished uploads lie about."""

    @abstractmethod
    def close(self) -> None:
        """Ends whatever watches or receives."""


class SftpEnd(End):
    """A directory on sshd. Appearances are the kernel's own events, so that none is missed."""

    def __init__(
        self, engine: Engine, account: SftpAccount, *, tenant: str, endpoint: str, role: str, rename: str | None, consuming: bool
    ) -> None:
        algorithm, key = account.host_key.split()[:2]
        secret = engine.secrets.put(
            tenant=tenant, endpoint=endpoint, credential=Credential.model_validate({"private_key": account.private_key})
        )
        self.endpoint = SftpEndpoint(
            id=endpoint,
            tenant=tenant,
            name=role,
            max_connections=64,
            host=account.host,
            port=account.port,
            username=account.username,
            root=str(account.directory),
            host_keys=(HostKey(algorithm=algorithm, key=key),),
            rename=RenameMode(rename or "auto"),
            secret=secret,
            created=engine.clock.now(),
        )
        engine.registry.add_endpoint(self.endpoint)
        self.directory = account.directory
        self.taken = account.directory.with_name(f"{account.directory.name}-taken")
        self.taken.mkdir()
        self._appearances = Appearances(self.directory)
        self._counts: Counter[str] = Counter()
        self._receiver = self._employ() if consuming else None

    def put(self, name: str, content: bytes) -> None:
        """Puts a file, whole."""
        draft = self.taken / f".{name}"
        draft.write_bytes(content)
        draft.rename(self.directory / name)

    def holds(self, name: str) -> bool:
        """Returns whether the file is there."""
        return (self.directory / name).exists()

    def appeared(self, name: str) -> int:
        """Returns how often the kernel saw the name come to be, by rename or by link."""
        self._counts.update(path.name for path in self._appearances.new())
        return self._counts[name]

    def receive(self, name: str) -> None:
        """Waits for the receiver's process."""
        until = time.monotonic() + PATIENCE
        while self._receiver is not None and self.holds(name):
            if time.monotonic() > until:
                raise TimeoutError(f"the receiver has not taken {name}")
            time.sleep(0.001)

    def contents(self, name: str) -> list[bytes]:
        """Returns what stands there and what was taken."""
        found = [path.read_bytes() for path in self.taken.glob(f"{name}.*")]
        with suppress(FileNotFoundError):
            found.append((self.directory / name).read_bytes())
        return found

    def left_over(self) -> int:
        """Returns the number of tokens."""
        return sum(is_token(path.name) for path in self.directory.iterdir())

    def close(self) -> None:
        """Ends the receiver."""
        self._appearances.close()
        if self._receiver is not None:
            os.kill(self._receiver, signal.SIGKILL)
            os.waitpid(self._receiver, 0)
            self._receiver = None

    def _employ(self) -> int:
        return forked(lambda: take_all(self.directory, self.taken))


class S3End(End):
    """A versioned bucket: a second appearance is a second version, whoever took the first."""

    def __init__(
        self, engine: Engine, s3: S3Client, *, tenant: str, endpoint: str, role: str, consuming: bool, refuses_taken: bool
    ) -> None:
        self._s3 = s3
        self._consuming = consuming
        self._bucket = make_bucket(s3, endpoint)
        self.endpoint = S3Endpoint(
            id=endpoint,
            tenant=tenant,
            name=role,
            bucket=self._bucket,
            region=s3.meta.region_name,
            refuses_taken=refuses_taken,
            created=engine.clock.now(),
        )
        engine.registry.add_endpoint(self.endpoint)

    def put(self, name: str, content: bytes) -> None:
        """Puts an object."""
        self._s3.put_object(Bucket=self._bucket, Key=name, Body=content)

    def holds(self, name: str) -> bool:
        """Returns whether the latest version is an object."""
        found = self._s3.list_object_versions(Bucket=self._bucket, Prefix=name)
        return any(one["IsLatest"] and one["Key"] == name for one in found.get("Versions", []))

    def appeared(self, name: str) -> int:
        """Returns the number of versions."""
        return len(self._versions(name))

    def receive(self, name: str) -> None:
        """The receiver takes the object: its version stays to be counted, behind a delete marker."""
        if self._consuming and self.holds(name):
            self._s3.delete_object(Bucket=self._bucket, Key=name)

    def contents(self, name: str) -> list[bytes]:
        """Returns every version."""
        return [self._s3.get_object(Bucket=self._bucket, Key=name, VersionId=version)["Body"].read() for version, _ in self._versions(name)]

    def left_over(self) -> int:
        """Returns the number of unfinished uploads."""
        pages = self._s3.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket)
        return sum(len(page.get("Uploads", [])) for page in pages)

    def close(self) -> None:
        """Nothing watches here."""

    def _versions(self, name: str) -> list[tuple[str, datetime]]:
        found = self._s3.list_object_versions(Bucket=self._bucket, Prefix=name)
        return [(one["VersionId"], one["LastModified"]) for one in found.get("Versions", []) if one["Key"] == name]
