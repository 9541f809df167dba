"""A fake of ports.Store over two kinds of server in memory: one that renames (SFTP) and one that keeps versions (S3).

`calls` counts; `watch` is called before and after each call's effect, where tests crash a worker, cut a connection or let a receiver act.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from eft.domain.endpoint import Endpoint, S3Endpoint
from eft.domain.fingerprint import Fingerprint, RefusedName, RemoteFile
from eft.domain.names import RemotePath, disposed_by, is_token, parent, put_by, remote_path
from eft.domain.parts import Part, PartDone
from eft.domain.transfer import PUT_ARRIVES_WITHIN, Commit, Upload
from eft.errors import NotFound, Permanent, Transient
from eft.ports import Bytes, Clock, CommitOutcome, Committed, MoveOutcome, ProbeReport, Source, Whole

CHUNK = 64 * 1024


NOT_LENT = "not-lent"
"""A bucket that needs a credential."""


@dataclass
class Content:
    """A file's bytes and identity; versions of an S3 object form a list."""

    data: bytearray
    modified: datetime
    etag: str | None = None
    version: str | None = None
    transfer: str | None = None


@dataclass
class Multipart:
    """An unfinished upload."""

    path: str
    transfer: str
    began: datetime
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass
class FakeServer:
    """The party at the other end, with what it lets us do."""

    clock: Clock
    kind: Literal["sftp", "s3"] = "sftp"
    rename: Literal["posix", "plain"] = "posix"
    parallel: int = 4
    far: bool = False
    refuses_taken: bool = True
    """As AWS does; of `s3` alone."""
    files: dict[str, Content] = field(default_factory=dict)
    """By path; SFTP's temporary files are among them."""
    versions: dict[tuple[str, str], Content] = field(default_factory=dict)
    uploads: dict[str, Multipart] = field(default_factory=dict)
    refused: list[RefusedName] = field(default_factory=list)
    directories: set[str] = field(default_factory=set)
    """Those made for us; directories with files exist anyway."""
    calls: Counter[str] = field(default_factory=Counter)
    appeared: Counter[str] = field(default_factory=Counter)
    """How often a file became visible under a final name, by its content: the count that must never exceed one."""
    receiver: Callable[[str], None] | None = None
    """Called when a file appears under a final name."""
    watch: Callable[[str], None] = lambda _: None
    _serial: int = 0

    def serial(self) -> str:
        self._serial += 1
        return f"{self._serial:06d}"

    def put(self, path: str, data: bytes, *, transfer: str | None = None) -> Content:
        """Writes a file past the store."""
        content = Content(bytearray(data), self.clock.now(), transfer=transfer)
        if self.kind == "s3":
            content.etag, content.version = f"{zlib.crc32(data):08x}", self.serial()
            self.versions[path, content.version] = content
        self.files[path] = content
        return content

    def get(self, path: str) -> bytes | None:
        """Reads a file past the store."""
        found = self.files.get(path)
        return None if found is None else bytes(found.data)

    def finals(self) -> dict[str, bytes]:
        """Returns the visible files."""
        return {path: bytes(c.data) for path, c in self.files.items() if not is_token(path)}

    def appear(self, path: str) -> None:
        """Notes that a file became visible, and lets the receiver act."""
        self.appeared[path] += 1
        if self.receiver is not None:
            self.receiver(path)


class FakeStore:
    """`ports.Store` over a FakeServer."""

    def __init__(self, server: FakeServer, endpoint: str = "staging") -> None:
        self.server = server
        self.endpoint = endpoint
        self.pins_versions = server.kind == "s3"
        self.holds_parts = server.kind != "sftp"
        self.rename_mode: Literal["posix", "plain"] | None = server.rename if server.kind == "sftp" else None
        self.refuses_taken = server.refuses_taken and server.kind == "s3"
        self.puts = self.refuses_taken
        self.lanes = server.parallel
        self.far = server.far

    @contextmanager
    def _called(self, call: str) -> Iterator[None]:
        self.server.calls[call] += 1
        self.server.watch(f"{call}:before")
        yield
        self.server.watch(f"{call}:after")

    # -- source ------------------------------------------------------------------------------------------------------

    def list(self, directory: str, *, recursive: bool, disposals: bool = False) -> Iterator[RemoteFile | RefusedName]:
        with self._called("list"):
            below = f"{directory}/" if directory else ""
            shown = disposed_by if disposals and not self.pins_versions else lambda _: None
            found = [p for p in sorted(self.server.files) if p.startswith(below) and (not is_token(p) or shown(p) is not None)]
        if directory and not found and directory not in self.server.directories and self.server.kind == "sftp":
            raise NotFound(f"no directory '{directory}'", reason="directory_missing", endpoint=self.endpoint)
        for path in found:
            if recursive or "/" not in path[len(below) :]:
                file = self._file(path)
                # As S3 has it: listings show no version ids.
                yield replace(file, fingerprint=file.fingerprint.model_copy(update={"version": None}))
        yield from self.server.refused

    def stat(self, path: RemotePath, *, version: str | None = None) -> RemoteFile:
        with self._called("stat"):
            return self._file(path, self._standing(path, version))

    def read(self, file: RemoteFile, *, start: int, size: int, until: int | None = None) -> Iterator[Bytes]:
        with self._called("read"):
            version = file.fingerprint.version
            content = self.server.files.get(file.path) if version is None else self.server.versions.get((file.path, version))
            if content is None:
                raise NotFound(f"no file '{file.path}'", reason="source_missing")
        for at in range(start, start + size, CHUNK):
            want = min(CHUNK, start + size - at)
            self.server.watch("read:chunk")
            chunk = bytes(content.data[at : at + want])
            if len(chunk) < want:
                raise Permanent(f"'{file.path}' is shorter than it was", reason="source_changed")
            yield chunk

    def whole(self, path: RemotePath, *, limit: int, version: str | None = None, listed: bool = False) -> Whole:
        with self._called("whole"):
            content = self._standing(path, version)
            file = self._file(path, content)
            self.server.watch("whole:looked")
            if file.size > limit:
                return file, []
            # As a server that is asked to open it after the look.
            content = content if self.pins_versions else self._standing(path, version)
            chunks: list[Bytes] = []
            for at in range(0, file.size, CHUNK):
                self.server.watch("whole:chunk")
                chunks.append(bytes(content.data[at : at + CHUNK]))
            if not self.pins_versions and not self._file(path, self._standing(path, version)).fingerprint.matches(file.fingerprint):
                raise Permanent(f"'{path}' changed while it was read", reason="source_changed")
            return file, chunks

    def move(self, path: RemotePath, to: RemotePath, *, create_directories: bool = False) -> MoveOutcome:
        with self._called("move"):
            if path not in self.server.files:
                return MoveOutcome.MISSING
            if to in self.server.files:
                return MoveOutcome.EXISTS
            if create_directories:
                self.server.directories.add(parent(to))
            self.server.files[to] = self.server.files.pop(path)
            return MoveOutcome.DONE

    def remove(self, path: RemotePath) -> bool:
        with self._called("remove"):
            return self.server.files.pop(path, None) is not None

    def remove_version(self, file: RemoteFile) -> bool:
        with self._called("remove_version"):
            found = self.server.versions.pop((file.path, file.fingerprint.version or ""), None)
            if found is not None and self.server.files.get(file.path) is found:
                del self.server.files[file.path]
            return found is not None

    def copy_version(self, file: RemoteFile, to: RemotePath) -> None:
        with self._called("copy_version"):
            found = self.server.versions.get((file.path, file.fingerprint.version or ""))
            if found is None:
                raise NotFound(f"no such version of '{file.path}'", reason="source_missing")
            stands = self.server.files.get(to)
            if stands is not None and stands.data != found.data:
                raise Permanent(f"'{to}' exists", reason="archive_exists")
            self.server.put(to, bytes(found.data))

    # -- sink --------------------------------------------------------------------------------------------------------

    def look(self, path: RemotePath) -> RemoteFile | None:
        with self._called("look"):
            return self._file(path) if path in self.server.files else None

    def mint(self, path: RemotePath, *, token: RemotePath, transfer: str, size: int, create_directories: bool) -> str:
        with self._called("mint"):
            if self.server.kind == "s3":
                upload = f"upload-{self.server.serial()}"
                self.server.uploads[upload] = Multipart(path, transfer, self.server.clock.now())
                return upload
            directory = parent(path)
            exists = not directory or directory in self.server.directories or any(p.startswith(directory + "/") for p in self.server.files)
            if not exists and not create_directories:
                raise Permanent(f"no directory '{directory}'", reason="directory_missing")
            if self.rename_mode == "plain" and path in self.server.files:
                raise Permanent(f"'{path}' cannot be replaced in one instant", reason="cannot_overwrite")
            self.server.directories.add(directory)
            assert size >= 0
            return token

    @contextmanager
    def upload(self, upload: Upload, *, fresh: bool) -> Iterator[FakeUploading]:
        with self._called("open"):
            if self.server.kind == "sftp" and fresh:
                if upload.token in self.server.files:
                    raise Transient(f"'{upload.token}' exists", reason="token_exists")
                self.server.files[upload.token] = Content(bytearray(), self.server.clock.now())
            self._must_exist(upload.token)
        yield FakeUploading(self, upload)

    def verify(self, upload: Upload, parts: Sequence[PartDone] = ()) -> None:
        with self._called("verify"):
            size = self._token_size(upload.token)
            if size != upload.plan.size:
                raise Transient(f"the upload has {size} bytes instead of {upload.plan.size}", reason="size_differs")
            if self.server.kind == "s3":
                stored = {number: f"{zlib.crc32(data):08x}" for number, data in self.server.uploads[upload.token].parts.items()}
                if any(part.etag != stored[part.number] for part in parts):
                    raise Transient("a part is not the one that was recorded", reason="part_differs")

    def read_back(self, upload: Upload) -> Iterator[Bytes] | None:
        if self.server.kind == "s3":
            return None
        return iter([bytes(self.server.files[upload.token].data)])

    def commit(self, commit: Commit) -> Committed:
        with self._called("commit"):
            if self.server.kind == "s3":
                return self._complete(commit)
            if commit.token not in self.server.files:
                return Committed(CommitOutcome.TOKEN_GONE)
            if commit.path in self.server.files and not commit.overwrite:
                return Committed(CommitOutcome.EXISTS)
            if commit.rename == "plain":
                self.server.files[commit.path] = self.server.files[commit.token]
                self.server.appear(commit.path)
                self.server.watch("commit:linked")
                self.server.files.pop(commit.token, None)
            else:
                self.server.files[commit.path] = self.server.files.pop(commit.token)
                self.server.appear(commit.path)
            return Committed(CommitOutcome.DONE)

    def put(self, commit: Commit, pieces: Sequence[Bytes], *, asked_at: datetime) -> Committed:
        with self._called("put"):
            if self.server.clock.now() - asked_at > PUT_ARRIVES_WITHIN:
                return Committed(CommitOutcome.NOT_STORED, why=Transient("it was signed too long ago", reason="clock_skewed"))
            if commit.path in self.server.files:
                return Committed(CommitOutcome.EXISTS)
            content = self.server.put(commit.path, b"".join(bytes(piece) for piece in pieces), transfer=put_by(commit.token))
            self.server.appear(commit.path)
            return Committed(CommitOutcome.DONE, etag=content.etag, version=content.version)

    def token_exists(self, token: str, path: RemotePath) -> bool:
        with self._called("token_exists"):
            assert path
            return token in self.server.uploads or token in self.server.files

    def consume(self, token: str, path: RemotePath) -> bool:
        with self._called("consume"):
            if (putter := put_by(token)) is not None:
                stands = self.server.files.get(path)
                return stands is None or stands.transfer != putter
            if self.server.kind == "s3":
                return self.server.uploads.pop(token, None) is not None
            return self.server.files.pop(token, None) is not None

    def copies_from(self, source: Source) -> bool:
        return isinstance(source, FakeStore) and source.server.kind == "s3" == self.server.kind and source.server is self.server

    def copy_part(self, upload: Upload, part: Part, *, source: Source, file: RemoteFile) -> PartDone:
        assert isinstance(source, FakeStore)
        with self._called("copy_part"):
            self._must_exist(upload.token)
            content = source.server.versions.get((file.path, file.fingerprint.version or ""))
            if content is None:
                raise Permanent(f"no such version of '{file.path}'", reason="source_changed")
            data = bytes(content.data[part.start : part.start + part.size])
            self.server.uploads[upload.token].parts[part.number] = data
            return PartDone(number=part.number, size=part.size, crc64nvme=None, etag=f"{zlib.crc32(data):08x}")

    # -- upkeep ------------------------------------------------------------------------------------------------------

    def stale_uploads(self, *, before: datetime) -> Iterator[tuple[RemotePath, str]]:
        yield from [(remote_path(u.path), token) for token, u in self.server.uploads.items() if u.began < before]

    def stale_objects(self, *, before: datetime) -> Iterator[RemoteFile]:
        yield from [self._file(path) for path, c in list(self.server.files.items()) if c.modified < before]

    # -- inside ------------------------------------------------------------------------------------------------------

    def _file(self, path: str, content: Content | None = None) -> RemoteFile:
        content = content or self.server.files[path]
        fingerprint = Fingerprint(size=len(content.data), modified=content.modified, etag=content.etag, version=content.version)
        return RemoteFile(path=remote_path(path), fingerprint=fingerprint, transfer=content.transfer)

    def _standing(self, path: RemotePath, version: str | None) -> Content:
        content = self.server.files.get(path) if version is None else self.server.versions.get((path, version))
        if content is None:
            raise NotFound(f"no file '{path}'", reason="source_missing", endpoint=None)
        return content

    def _must_exist(self, token: str) -> None:
        if token not in self.server.uploads and token not in self.server.files:
            raise Permanent("the upload is gone", reason="token_gone")

    def _token_size(self, token: str) -> int:
        self._must_exist(token)
        if self.server.kind == "s3":
            return sum(len(data) for data in self.server.uploads[token].parts.values())
        return len(self.server.files[token].data)

    def _complete(self, commit: Commit) -> Committed:
        upload = self.server.uploads.get(commit.token)
        if upload is None:
            return Committed(CommitOutcome.TOKEN_GONE)
        if commit.path in self.server.files and not commit.overwrite:
            return Committed(CommitOutcome.EXISTS)
        if [(p.number, p.etag) for p in commit.parts] != [(n, f"{zlib.crc32(d):08x}") for n, d in sorted(upload.parts.items())]:
            return Committed(CommitOutcome.PART_DIFFERS)
        del self.server.uploads[commit.token]
        content = self.server.put(commit.path, b"".join(d for _, d in sorted(upload.parts.items())), transfer=upload.transfer)
        self.server.appear(commit.path)
        return Committed(CommitOutcome.DONE, etag=content.etag, version=content.version)


@dataclass
class FakeUploading:
    """`ports.Uploading`: every part is durable at once."""

    store: FakeStore
    upload: Upload

    def write(self, part: Part, chunks: Iterable[Bytes]) -> list[tuple[int, str | None]]:
        with self.store._called("write"):
            server = self.store.server
            if server.kind == "s3":
                data = b"".join(bytes(chunk) for chunk in chunks)
                self.store._must_exist(self.upload.token)
                server.uploads[self.upload.token].parts[part.number] = data
                return [(part.number, f"{zlib.crc32(data):08x}")]
            at = part.start
            for chunk in chunks:
                self.store._must_exist(self.upload.token)
                file = server.files[self.upload.token].data
                file.extend(b"\0" * (at - len(file)))
                file[at : at + len(chunk)] = bytes(chunk)
                at += len(chunk)
            return [(part.number, None)]

    def finish(self) -> list[tuple[int, str | None]]:
        with self.store._called("finish"):
            return []


class FakeStores:
    """`ports.Stores`: endpoint ids to servers, and a staging server."""

    def __init__(self, clock: Clock, servers: dict[str, FakeServer] | None = None) -> None:
        self.servers = servers if servers is not None else {}
        self.staging_server = FakeServer(clock, kind="s3")

    @contextmanager
    def open(self, endpoint: Endpoint) -> Iterator[FakeStore]:
        server = self.servers.get(endpoint.id)
        if server is None:
            raise Transient(f"endpoint {endpoint.id} does not answer", reason="unreachable", endpoint=endpoint.id)
        server.watch("connect:before")
        yield FakeStore(server, endpoint.id)

    @contextmanager
    def staging(self) -> Iterator[FakeStore]:
        yield FakeStore(self.staging_server)

    def permit(self, endpoint: Endpoint) -> None:
        if isinstance(endpoint, S3Endpoint) and endpoint.bucket == NOT_LENT and endpoint.secret is None:
            raise Permanent(f"bucket '{endpoint.bucket}' is not lent", reason="credential_missing")

    def probe(self, endpoint: Endpoint) -> ProbeReport:
        return ProbeReport(ok=endpoint.id in self.servers, checks=())
