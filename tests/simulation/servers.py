"""The parties at the other end: SFTP servers and buckets, one atomic step at a time.

A file is an inode: who has it open writes into it whatever it is called by then, as with OpenSSH on a file system.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from eft.domain.fingerprint import Fingerprint, RemoteFile
from eft.domain.names import RemotePath, disposed_by, is_token, parent, put_by
from eft.domain.parts import PartDone
from eft.domain.transfer import PUT_ARRIVES_WITHIN
from eft.errors import Transient
from eft.ports import CommitOutcome, Committed, MoveOutcome
from tests.fakes import START
from tests.simulation.kernel import SECOND, Kernel
from tests.simulation.truth import Appearance, Inode, Truth, Version, transfer_of


@dataclass(eq=False, slots=True)
class Multipart:
    """An unfinished upload."""

    path: str
    transfer: str
    began: datetime
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Server:
    """One server or bucket. Every method is one step that the server takes without interruption."""

    kernel: Kernel
    truth: Truth
    name: str
    kind: Literal["sftp", "s3"]
    rename: Literal["posix", "plain"] = "posix"
    parallel: int = 4
    versioned: bool = True
    consumes: Literal["never", "at_once", "later"] = "never"
    staging: bool = False
    down: bool = False
    files: dict[str, Inode] = field(default_factory=dict)
    versions: dict[tuple[str, str], Inode] = field(default_factory=dict)
    uploads: dict[str, Multipart] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    copied: Callable[[str, Inode], None] | None = None
    """Told of each object that a bucket completes: its replication."""
    _serial: int = 0
    _shown: dict[tuple[str, bool], list[RemoteFile]] = field(default_factory=dict)

    # -- its owner's side ----------------------------------------------------------------------------------------------

    def customer_puts(self, path: str, data: bytes, *, in_place: bool = False) -> None:
        """The owner of a source writes a version of a file."""
        stands = self.files.get(path)
        if stands is not None and in_place and self.kind == "sftp":
            stands.data[:] = data
            stands.modified, stands.origin = self._now(), "customer"
        else:
            self._put(path, data, origin="customer")
        inode = self.files[path]
        inode.home = path
        known = self.truth.versions[self.name, path]
        known.append(Version(len(known) + 1, data, inode.modified, inode.etag, self.kernel.now))

    def foreign_puts(self, path: str, data: bytes) -> bool:
        """Somebody else writes a file at the destination, unless one stands there; returns whether it did."""
        if path in self.files:
            return False
        self._put(path, data, origin="foreign")
        return True

    def janitor_removes(self, index: int) -> bool:
        """The receiver's clean-up takes one of our temporary files; returns whether there was any."""
        tokens = sorted(self.uploads) if self.kind == "s3" else [path for path in sorted(self.files) if is_token(path)]
        if not tokens:
            return False
        token = tokens[index % len(tokens)]
        self.uploads.pop(token, None)
        self.files.pop(token, None)
        return True

    # -- both kinds ----------------------------------------------------------------------------------------------------

    def stat(self, path: str, version: str | None = None) -> RemoteFile | None:
        inode = self.files.get(path) if version is None else self.versions.get((path, version))
        return None if inode is None else self._file(path, inode)

    def listing(self, directory: str, recursive: bool, disposals: bool, *, stale: bool = False) -> list[RemoteFile]:
        before = self._shown.get((directory, recursive))
        if stale and before is not None:
            return before
        below = f"{directory}/" if directory else ""
        found = [
            self._file(path, self.files[path], listed=True)
            for path in sorted(self.files)
            if path.startswith(below)
            and (not is_token(path) or (disposals and disposed_by(path) is not None))
            and (recursive or "/" not in path[len(below) :])
        ]
        self._shown[directory, recursive] = found
        return found

    # -- SFTP ----------------------------------------------------------------------------------------------------------

    def open_read(self, path: str) -> Inode | None:
        return self.files.get(path)

    def read(self, inode: Inode, at: int, size: int) -> bytes:
        return bytes(inode.data[at : at + size])

    def make_directories(self, path: str, create: bool) -> bool:
        directory = parent(path)
        exists = not directory or directory in self.directories or any(p.startswith(directory + "/") for p in self.files)
        if exists or create:
            self.directories.add(directory)
        return exists or create

    def create(self, path: str) -> Inode | None:
        if path in self.files:
            return None
        self.files[path] = Inode(bytearray(), self._now(), origin="ours", born=self.kernel.now)
        return self.files[path]

    def write(self, inode: Inode, at: int, data: bytes) -> None:
        held = inode.data
        if len(held) < at:
            held.extend(b"\0" * (at - len(held)))
        held[at : at + len(data)] = data

    def sync(self, inode: Inode) -> None:
        del inode

    def rename_posix(self, token: str, path: str, overwrite: bool, looked: int) -> CommitOutcome:
        inode = self.files.pop(token, None)
        if inode is None:
            return CommitOutcome.TOKEN_GONE
        stands = self.files.get(path)
        if stands is not None and not overwrite:
            if stands.origin == "foreign" and stands.born >= looked:
                self.truth.documented += 1
            else:
                self.truth.violate(f"{self.name}:{path} ({stands.origin}) was overwritten by {token}")
        self.files[path] = inode
        self._appear(path, inode, token, transfer_of(token))
        return CommitOutcome.DONE

    def rename_plain(self, token: str, path: str, *, unlink: bool = True) -> CommitOutcome:
        """Link, and after a moment unlink, as OpenSSH's sftp-server does it: it ends what it began, unless it dies between."""
        inode = self.files.get(token)
        if inode is None:
            return CommitOutcome.TOKEN_GONE
        if path in self.files:
            return CommitOutcome.EXISTS
        self.files[path] = inode
        if unlink:
            self.kernel.at(self.kernel.now + self.gap(), lambda: self._unlink(token, inode))
        self._appear(path, inode, token, transfer_of(token))
        return CommitOutcome.DONE

    def gap(self) -> int:
        """Returns the milliseconds between link and unlink."""
        return 2 if self.kernel.random.random() < 0.9 else self.kernel.random.randrange(5, 4000)

    def move(self, path: str, to: str, create: bool) -> MoveOutcome:
        if path not in self.files:
            return MoveOutcome.MISSING
        if to in self.files:
            return MoveOutcome.EXISTS
        if create:
            self.directories.add(parent(to))
        self.files[to] = self.files.pop(path)
        return MoveOutcome.DONE

    def remove(self, path: str) -> bool:
        inode = self.files.pop(path, None)
        if inode is not None and inode.origin == "customer":
            self.truth.disposed.append((self.name, inode.home, bytes(inode.data)))
        elif inode is not None and not is_token(path):
            self.truth.violate(f"{self.name}:{path} was removed by our side")
        return inode is not None

    # -- S3 ------------------------------------------------------------------------------------------------------------

    def get(self, file: RemoteFile) -> Inode | None:
        version = file.fingerprint.version
        if version is not None:
            return self.versions.get((file.path, version))
        stands = self.files.get(file.path)
        return stands if stands is not None and stands.etag == file.fingerprint.etag else None

    def get_first(self, path: str, version: str | None) -> tuple[RemoteFile, Inode] | None:
        inode = self.files.get(path) if version is None else self.versions.get((path, version))
        return None if inode is None else (self._file(path, inode), inode)

    def create_upload(self, path: str, transfer: str) -> str:
        self._serial += 1
        token = f"{self.name}-upload-{self._serial:04d}"
        self.uploads[token] = Multipart(path, transfer, self._now())
        return token

    def put_part(self, token: str, number: int, data: bytes) -> str | None:
        upload = self.uploads.get(token)
        if upload is None:
            return None
        upload.parts[number] = data
        return _etag(data)

    def copy_part(
        self, token: str, number: int, start: int, size: int, file: RemoteFile
    ) -> PartDone | Literal["token_gone", "source_changed"]:
        upload, inode = self.uploads.get(token), self.get(file)
        if upload is None:
            return "token_gone"
        if inode is None:
            return "source_changed"
        data = bytes(inode.data[start : start + size])
        upload.parts[number] = data
        return PartDone(number=number, size=size, crc64nvme=None, etag=_etag(data))

    def part_sizes(self, token: str) -> dict[int, int] | None:
        upload = self.uploads.get(token)
        return None if upload is None else {number: len(data) for number, data in upload.parts.items()}

    def complete(self, token: str, path: str, overwrite: bool, parts: list[tuple[int, str | None]]) -> Committed:
        upload = self.uploads.get(token)
        if upload is None:
            return Committed(CommitOutcome.TOKEN_GONE)
        if path in self.files and not overwrite:
            return Committed(CommitOutcome.EXISTS)
        if [(number, etag) for number, etag in parts if upload.parts.get(number) is None or _etag(upload.parts[number]) != etag]:
            return Committed(CommitOutcome.PART_DIFFERS)
        del self.uploads[token]
        inode = self._put(path, b"".join(upload.parts[number] for number, _ in parts), origin="ours", transfer=upload.transfer)
        if not self.staging:
            self._appear(path, inode, token, upload.transfer)
        if self.copied is not None:
            self.copied(path, inode)
        return Committed(CommitOutcome.DONE, etag=inode.etag, version=inode.version)

    def put_object(self, token: str, path: str, data: bytes, asked_at: datetime) -> Committed:
        transfer = put_by(token) or ""
        if self._now() - asked_at > PUT_ARRIVES_WITHIN:
            return Committed(CommitOutcome.NOT_STORED, why=Transient("it was signed too long ago", reason="clock_skewed"))
        if path in self.files:
            return Committed(CommitOutcome.EXISTS)
        inode = self._put(path, data, origin="ours", transfer=transfer)
        self._appear(path, inode, token, transfer)
        return Committed(CommitOutcome.DONE, etag=inode.etag, version=inode.version)

    def abort(self, token: str) -> bool:
        return self.uploads.pop(token, None) is not None

    def delete(self, file: RemoteFile) -> bool:
        inode = self.get(file)
        if inode is None:
            return False
        if inode.version is not None:
            self.versions.pop((file.path, inode.version), None)
        if self.files.get(file.path) is inode:
            # What a versioned bucket then shows is the version before.
            before = [older for (path, _), older in self.versions.items() if path == file.path]
            self.files.pop(file.path)
            if before:
                self.files[file.path] = before[-1]
        if inode.origin == "customer":
            self.truth.disposed.append((self.name, inode.home, bytes(inode.data)))
        elif not self.staging:
            self.truth.violate(f"{self.name}:{file.path} was removed by our side")
        return True

    def copy(self, file: RemoteFile, to: str) -> bool | None:
        """Copies a version unless something stands at the target; None where the version is gone."""
        inode = self.get(file)
        if inode is None:
            return None
        stands = self.files.get(to)
        if stands is not None:
            return stands.data == inode.data
        self._put(to, bytes(inode.data), origin="archive")
        return True

    def stale_uploads(self, before: datetime) -> list[tuple[str, str]]:
        return [(upload.path, token) for token, upload in self.uploads.items() if upload.began < before]

    def stale_objects(self, before: datetime) -> list[RemoteFile]:
        return [self._file(path, inode) for path, inode in self.files.items() if inode.modified < before]

    # -- inside --------------------------------------------------------------------------------------------------------

    def _now(self) -> datetime:
        return START + timedelta(milliseconds=self.kernel.now)

    def _put(self, path: str, data: bytes, *, origin: str, transfer: str | None = None) -> Inode:
        inode = Inode(bytearray(data), self._now(), transfer=transfer, origin=origin, born=self.kernel.now)
        if self.kind == "s3":
            inode.etag = _etag(data)
            if self.versioned:
                self._serial += 1
                inode.version = f"{self.name}-v{self._serial:04d}"
                self.versions[path, inode.version] = inode
        self.files[path] = inode
        return inode

    def _file(self, path: str, inode: Inode, *, listed: bool = False) -> RemoteFile:
        version = None if listed else inode.version
        fingerprint = Fingerprint(size=len(inode.data), modified=inode.modified, etag=inode.etag, version=version)
        return RemoteFile(path=RemotePath(path), fingerprint=fingerprint, transfer=None if listed else inode.transfer)

    def _appear(self, path: str, inode: Inode, token: str, transfer: str) -> None:
        self.truth.appearances[transfer].append(Appearance(self.kernel.now, self.name, path, transfer, token, bytes(inode.data), inode))
        if self.consumes == "at_once":
            self._taken(path, inode)
        elif self.consumes == "later":
            pause = self.kernel.random.choice([30, 300, 5 * SECOND, 60 * SECOND])
            self.kernel.at(self.kernel.now + pause, lambda: self._taken(path, inode))

    def _taken(self, path: str, inode: Inode) -> None:
        if self.files.get(path) is inode:
            self.kernel.fired["receiver_took"] += 1
            del self.files[path]

    def _unlink(self, token: str, inode: Inode) -> None:
        if self.files.get(token) is inode:
            del self.files[token]


def _etag(data: bytes | bytearray) -> str:
    return f"{zlib.crc32(data):08x}-{len(data)}"
