"""`ports.Stores` over the simulated servers: the steps of the real adapters, each a call that others and faults come between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from eft.domain.endpoint import Endpoint
from eft.domain.fingerprint import RefusedName, RemoteFile
from eft.domain.names import RemotePath, parent, put_by, remote_path
from eft.domain.parts import Part, PartDone
from eft.domain.transfer import Commit, Upload
from eft.errors import NotFound, Permanent, Transient
from eft.ports import Bytes, CommitOutcome, Committed, MoveOutcome, ProbeReport, Source, Whole
from tests.simulation.kernel import Kernel
from tests.simulation.servers import Server
from tests.simulation.truth import Inode
from tests.simulation.weather import SFTP, STORE, StoreSite

CHUNK: Final = 600
"""Bytes that are read or written at a time; a connection may be cut between two chunks."""


class SimStore:
    """`ports.Staging` (and so Store) over one server."""

    def __init__(self, kernel: Kernel, server: Server, site: StoreSite, endpoint: str | None) -> None:
        self._kernel, self.server, self._site, self._endpoint = kernel, server, site, endpoint
        self.pins_versions = server.kind == "s3"
        self.holds_parts = server.kind != "sftp"
        self.rename_mode: Literal["posix", "plain"] | None = server.rename if server.kind == "sftp" else None
        self.refuses_taken = server.kind == "s3"
        self.puts = self.refuses_taken
        self.lanes = server.parallel
        self.far = False

    def _do(self, step: str, *args: object) -> Any:  # noqa: ANN401 - the step's answer
        return self._kernel.call(self._site.of(step), step, getattr(self.server, step), args)

    # -- source --------------------------------------------------------------------------------------------------------

    def list(self, directory: str, *, recursive: bool, disposals: bool = False) -> Iterator[RemoteFile | RefusedName]:
        yield from self._do("listing", directory, recursive, disposals and not self.pins_versions)

    def stat(self, path: RemotePath, *, version: str | None = None) -> RemoteFile:
        found: RemoteFile | None = self._do("stat", path, *(() if version is None else (version,)))
        if found is None:
            raise NotFound(f"no file '{path}'", reason="source_missing")
        return found

    def read(self, file: RemoteFile, *, start: int, size: int, until: int | None = None) -> Iterator[Bytes]:
        if self.server.kind == "s3":
            inode: Inode | None = self._do("get", file)
            if inode is None:
                raise Permanent(f"'{file.path}' is not the version any more that was accepted", reason="source_changed")
        else:
            inode = self._do("open_read", file.path)
            if inode is None:
                raise NotFound(f"no file '{file.path}'", reason="source_missing")
        for at in range(start, start + size, CHUNK):
            want = min(CHUNK, start + size - at)
            chunk: bytes = self._do("read", inode, at, want)
            if len(chunk) < want:
                raise Permanent(f"'{file.path}' is shorter than it was", reason="source_changed")
            yield chunk

    def whole(self, path: RemotePath, *, limit: int, version: str | None = None, listed: bool = False) -> Whole:
        if self.server.kind == "s3":
            got: tuple[RemoteFile, Inode] | None = self._do("get_first", path, version)
            if got is None:
                raise NotFound(f"no file '{path}'", reason="source_missing")
            file, inode = got
            return file, [self._do("read", inode, at, CHUNK) for at in range(0, file.size, CHUNK)] if file.size <= limit else []
        file = self.stat(path)
        # As `read` does, which opens it now: another inode may stand there than was looked at.
        chunks = list(self.read(file, start=0, size=file.size)) if file.size <= limit else []
        if file.size <= limit and not self.stat(path).fingerprint.matches(file.fingerprint):
            raise Permanent(f"'{path}' changed while it was read", reason="source_changed")
        return file, chunks

    def move(self, path: RemotePath, to: RemotePath, *, create_directories: bool = False) -> MoveOutcome:
        return self._do("move", path, to, create_directories)  # type: ignore[no-any-return]

    def remove(self, path: RemotePath) -> bool:
        return self._do("remove", path)  # type: ignore[no-any-return]

    def remove_version(self, file: RemoteFile) -> bool:
        return self._do("delete", file)  # type: ignore[no-any-return]

    def copy_version(self, file: RemoteFile, to: RemotePath) -> None:
        copied: bool | None = self._do("copy", file, to)
        if copied is None:
            raise NotFound(f"no such version of '{file.path}'", reason="source_missing")
        if not copied:
            raise Permanent(f"another file stands at '{to}' already", reason="archive_exists")

    # -- sink ----------------------------------------------------------------------------------------------------------

    def look(self, path: RemotePath) -> RemoteFile | None:
        return self._do("stat", path)  # type: ignore[no-any-return]

    def mint(self, path: RemotePath, *, token: RemotePath, transfer: str, size: int, create_directories: bool) -> str:
        assert size >= 0
        if self.server.kind == "s3":
            return self._do("create_upload", path, transfer)  # type: ignore[no-any-return]
        if not self._do("make_directories", path, create_directories):
            raise Permanent(f"no directory '{parent(path)}'", reason="directory_missing")
        if self.rename_mode == "plain" and self._do("stat", path) is not None:
            raise Permanent(f"'{path}' cannot be replaced in one instant", reason="cannot_overwrite")
        return token

    @contextmanager
    def upload(self, upload: Upload, *, fresh: bool) -> Iterator[SimUploading]:
        inode: Inode | None = None
        if self.server.kind == "sftp":
            inode = self._do("create" if fresh else "open_read", upload.token)
            if inode is None and fresh:
                raise Transient(f"'{upload.token}' exists", reason="token_exists")
            if inode is None:
                raise _gone(upload.path)
        elif not fresh and self._do("part_sizes", upload.token) is None:
            raise _gone(upload.path)
        yield SimUploading(self, upload, inode)

    def verify(self, upload: Upload, parts: Sequence[PartDone] = ()) -> None:
        if self.server.kind == "s3":
            sizes: dict[int, int] | None = self._do("part_sizes", upload.token)
            if sizes is None:
                raise _gone(upload.path)
            if sizes != {part.number: part.size for part in upload.plan.parts()}:
                raise Transient(f"the parts of '{upload.path}' are not those planned", reason="size_differs")
            return
        found: RemoteFile | None = self._do("stat", upload.token)
        if found is None:
            raise _gone(upload.path)
        if found.size != upload.plan.size:
            raise Transient(f"'{upload.path}' has {found.size} bytes", reason="size_differs")

    def read_back(self, upload: Upload) -> Iterator[Bytes] | None:
        return None if self.server.kind == "s3" else self._read_back(upload)

    def _read_back(self, upload: Upload) -> Iterator[Bytes]:
        inode: Inode | None = self._do("open_read", upload.token)
        if inode is None:
            raise _gone(upload.path)
        for at in range(0, upload.plan.size, CHUNK):
            want = min(CHUNK, upload.plan.size - at)
            chunk: bytes = self._do("read", inode, at, want)
            if len(chunk) < want:
                raise Transient(f"'{upload.path}' is shorter than planned", reason="size_differs")
            yield chunk

    def commit(self, commit: Commit) -> Committed:
        if put_by(commit.token) is not None:
            return Committed(CommitOutcome.TOKEN_GONE)
        if self.server.kind == "s3":
            parts = [(part.number, part.etag) for part in commit.parts]
            return self._do("complete", commit.token, commit.path, commit.overwrite, parts)  # type: ignore[no-any-return]
        looked = self._kernel.now
        if not (commit.rename == "posix" and commit.overwrite) and self._do("stat", commit.path) is not None:
            return self._not_renamed(commit)
        if commit.rename == "posix":
            outcome: CommitOutcome = self._do("rename_posix", commit.token, commit.path, commit.overwrite, looked)
        else:
            outcome = self._do("rename_plain", commit.token, commit.path)
        return Committed(outcome) if outcome is CommitOutcome.DONE else self._not_renamed(commit)

    def _not_renamed(self, commit: Commit) -> Committed:
        return Committed(CommitOutcome.EXISTS if self.token_exists(commit.token, commit.path) else CommitOutcome.TOKEN_GONE)

    def put(self, commit: Commit, pieces: Sequence[Bytes], *, asked_at: datetime) -> Committed:
        return self._do("put_object", commit.token, commit.path, b"".join(bytes(piece) for piece in pieces), asked_at)  # type: ignore[no-any-return]

    def token_exists(self, token: str, path: RemotePath) -> bool:
        assert path
        return self._do("part_sizes" if self.server.kind == "s3" else "stat", token) is not None

    def consume(self, token: str, path: RemotePath) -> bool:
        if (putter := put_by(token)) is not None:
            stands: RemoteFile | None = self._do("stat", path)
            return stands is None or stands.transfer != putter
        return self._do("abort" if self.server.kind == "s3" else "remove", token)  # type: ignore[no-any-return]

    def copies_from(self, source: Source) -> bool:
        return isinstance(source, SimStore) and source.server is self.server and self.server.kind == "s3"

    def copy_part(self, upload: Upload, part: Part, *, source: Source, file: RemoteFile) -> PartDone:
        assert isinstance(source, SimStore)
        done: PartDone | str = self._do("copy_part", upload.token, part.number, part.start, part.size, file)
        if done == "token_gone":
            raise _gone(upload.path)
        if not isinstance(done, PartDone):
            raise Permanent(f"'{file.path}' is not the version any more that was accepted", reason="source_changed")
        return done

    # -- upkeep --------------------------------------------------------------------------------------------------------

    def stale_uploads(self, *, before: datetime) -> Iterator[tuple[RemotePath, str]]:
        yield from [(remote_path(path), token) for path, token in self._do("stale_uploads", before)]

    def stale_objects(self, *, before: datetime) -> Iterator[RemoteFile]:
        yield from self._do("stale_objects", before)


@dataclass(slots=True)
class SimUploading:
    """`ports.Uploading`: SFTP writes into the inode that it has open; S3 sends a part while the next one is read."""

    store: SimStore
    upload: Upload
    inode: Inode | None
    _waiting: tuple[int, bytes] | None = None

    def write(self, part: Part, chunks: Iterable[Bytes]) -> list[tuple[int, str | None]]:
        if self.inode is None:
            before = self._send()
            self._waiting = (part.number, b"".join(bytes(chunk) for chunk in chunks))
            return before
        at = part.start
        for chunk in chunks:
            self.store._do("write", self.inode, at, bytes(chunk))
            at += len(chunk)
        return [(part.number, None)]

    def finish(self) -> list[tuple[int, str | None]]:
        if self.inode is not None:
            self.store._do("sync", self.inode)
            return []
        return self._send()

    def _send(self) -> list[tuple[int, str | None]]:
        if self._waiting is None:
            return []
        (number, data), self._waiting = self._waiting, None
        etag: str | None = self.store._do("put_part", self.upload.token, number, data)
        if etag is None:
            raise _gone(self.upload.path)
        return [(number, etag)]


class SimStores:
    """`ports.Stores` of one region: the customers' servers, and its own staging bucket."""

    def __init__(self, kernel: Kernel, servers: dict[str, Server], staging: Server) -> None:
        self._kernel, self.servers, self.staging_server = kernel, servers, staging
        self._sites = {
            name: StoreSite(kernel, name, SFTP if server.kind == "sftp" else STORE, lambda server=server: server.down, endpoint=name)  # type: ignore[misc]
            for name, server in servers.items()
        }
        self._staging_site = StoreSite(kernel, staging.name, STORE, lambda: staging.down, endpoint=None)

    @property
    def sites(self) -> list[StoreSite]:
        """All places behind it."""
        return [*self._sites.values(), self._staging_site]

    @contextmanager
    def open(self, endpoint: Endpoint) -> Iterator[SimStore]:
        site = self._sites[endpoint.id]
        self._kernel.call(site, "connect", _connected)
        yield SimStore(self._kernel, self.servers[endpoint.id], site, endpoint.id)

    @contextmanager
    def staging(self) -> Iterator[SimStore]:
        yield SimStore(self._kernel, self.staging_server, self._staging_site, None)

    def permit(self, endpoint: Endpoint) -> None:
        assert endpoint.id in self.servers

    def probe(self, endpoint: Endpoint) -> ProbeReport:
        return ProbeReport(ok=endpoint.id in self.servers, checks=())


def _connected() -> bool:
    return True


def _gone(path: str) -> Permanent:
    return Permanent(f"the upload to '{path}' is gone", reason="token_gone")
