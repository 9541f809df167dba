"""The writing side of an SFTP endpoint: a temporary file of the attempt, and one rename that makes it visible."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Literal

from eft.adapters.sftp.reading import Shorter
from eft.adapters.sftp.rooted import Rooted
from eft.adapters.sftp.session import CREATE, EXCLUSIVE, POSIX_RENAME, READ, WRITE, Session
from eft.adapters.sftp.wire import Code, Kind, Refused
from eft.domain.endpoint import RenameMode, SftpEndpoint
from eft.domain.fingerprint import RemoteFile
from eft.domain.names import RemotePath, parent
from eft.domain.parts import FAR_LANES, MIB, WHOLE_UP_TO, Part, PartDone
from eft.domain.transfer import Commit, Upload
from eft.errors import EftError, Permanent, Transient
from eft.ports import Bytes, CommitOutcome, Committed, Source


class SftpUploading:
    """ports.Uploading: writes go out ahead of their answers within a part; a part is durable once the server has acknowledged them all.

    Each part is waited for, so that a cut connection or a killed worker costs the part in hand and no other.
    """

    def __init__(self, sink: SftpSink, upload: Upload, handle: bytes) -> None:
        self._sink = sink
        self._session = sink.session
        self._upload = upload
        self._handle = handle
        self._asked: deque[int] = deque()
        """Requests under way, oldest first."""
        self._closed = False

    def write(self, part: Part, chunks: Iterable[Bytes]) -> list[tuple[int, str | None]]:
        """Takes all chunks of a part and returns its number, once it is acknowledged.

        Raises:
            Permanent: `permission_denied`; `part_size_differs` when the chunks are not the part.
            Transient: `disk_full`, `write_failed`, `stalled`, `connection_lost`.
        """
        sent = 0
        for block in _blocks(chunks, self._session.write_size):
            if sent + len(block) > part.size:
                raise _not_the_part(part, sent + len(block))
            self._settle(leaving=self._session.writes_ahead - 1)
            self._asked.append(self._session.post_write(self._handle, part.start + sent, block))
            sent += len(block)
            if part.size > WHOLE_UP_TO:
                self._session.streamed["written"] += len(block)
        if sent != part.size:
            raise _not_the_part(part, sent)
        self._settle()
        return [(part.number, None)]

    def finish(self) -> list[tuple[int, str | None]]:
        """Has the server write to its disk where it offers that, closes and checks the closing; no part is left to be returned.

        Raises:
            Transient: `disk_full`, `write_failed`, `stalled`, `connection_lost`.
        """
        self._settle()
        try:
            self._session.fsync(self._handle)
            self._closed = True
            self._session.close(self._handle)
        except Refused as refused:
            raise self._sink.write_error(refused, self._upload) from None
        return []

    def leave(self) -> None:
        """Lets go of what is still open, after an error or an early end."""
        for ident in self._asked:
            self._session.wire.forget(ident)
        self._asked.clear()
        if not self._closed:
            self._session.drop(self._handle)

    def _settle(self, *, leaving: int = 0) -> None:
        """Takes the oldest answers until at most so many are under way."""
        while len(self._asked) > leaving:
            try:
                self._session.wire.take(self._asked.popleft()).expect(Kind.STATUS)
            except Refused as refused:
                raise self._sink.write_error(refused, self._upload) from None


class SftpSink(Rooted):
    """ports.Sink. A token is the path of a temporary file beside the final name."""

    rename_mode: Literal["posix", "plain"] | None
    refuses_taken: bool = False
    puts: bool = False
    holds_parts: bool = False
    lanes: int

    def __init__(self, endpoint: SftpEndpoint, session: Session) -> None:
        super().__init__(endpoint, session)
        # Far away each is a stream that mostly waits.
        self.lanes = session.habits.lanes * (FAR_LANES if session.far and session.habits.lanes > 1 else 1)
        self.rename_mode = "plain" if endpoint.rename is RenameMode.PLAIN or not self._offers_posix(endpoint) else "posix"

    def look(self, path: RemotePath) -> RemoteFile | None:
        """Returns what stands under a name, or None.

        Raises:
            Permanent: `is_symlink`, `not_a_file`: something that is no delivery of anybody's.
        """
        attributes = self.standing(path)
        return None if attributes is None else self.file(path, attributes)

    def mint(self, path: RemotePath, *, token: RemotePath, transfer: str, size: int, create_directories: bool) -> str:  # noqa: ARG002 - the port's
        """Returns the proposed temporary name; nothing is created yet but directories.

        Raises:
            Permanent: `directory_missing`, `permission_denied`; `cannot_overwrite` when a file stands there that a plain rename could
                never replace; `posix_rename_missing` when the endpoint insists on what its server lacks.
        """
        if self.endpoint.rename is RenameMode.POSIX and not self._offers_posix(self.endpoint):
            raise Permanent("the server does not offer posix-rename, on which the endpoint insists", reason="posix_rename_missing")
        directory = parent(path)
        if create_directories:
            self.make_directories(directory)
        elif not self.is_directory(directory):
            raise Permanent(f"the directory '{directory or self.endpoint.root}' does not exist", reason="directory_missing")
        if self.rename_mode == "plain" and self.standing(path) is not None:
            raise Permanent(
                f"'{path}' exists and this server cannot replace a file in one instant (no posix-rename)", reason="cannot_overwrite"
            )
        return token

    @contextmanager
    def upload(self, upload: Upload, *, fresh: bool) -> Iterator[SftpUploading]:
        """Opens the token for writing: `fresh` creates it exclusively, otherwise it must exist.

        Raises:
            Permanent: `token_gone`, `directory_missing`, `permission_denied`.
            Transient: `token_exists`, `disk_full`, `write_failed`.
        """
        try:
            handle = self.session.open(self.at(upload.token), WRITE | CREATE | EXCLUSIVE if fresh else WRITE)
        except Refused as refused:
            if fresh and self.standing(upload.token) is not None:
                # A worker that created it died before anybody noted it; the next try continues it.
                raise Transient(f"the temporary file '{upload.token}' exists already", reason="token_exists") from None
            raise self.write_error(refused, upload, missing="directory_missing" if fresh else "token_gone") from None
        uploading = SftpUploading(self, upload, handle)
        try:
            yield uploading
        finally:
            uploading.leave()

    def verify(self, upload: Upload, parts: Sequence[PartDone] = ()) -> None:  # noqa: ARG002 - parts leave no trace in a file
        """Checks that the token holds the planned number of bytes.

        Raises:
            Transient: `size_differs`.
            Permanent: `token_gone`.
        """
        attributes = self.standing(upload.token)
        if attributes is None:
            raise _token_gone(upload)
        if attributes.size not in {upload.plan.size, None}:
            raise Transient(f"'{upload.path}' arrived with {attributes.size} bytes instead of {upload.plan.size}", reason="size_differs")

    def read_back(self, upload: Upload) -> Iterator[Bytes]:
        """Yields the bytes of the token.

        Raises:
            Transient: `size_differs` when they are fewer than planned; `read_failed`.
            Permanent: `token_gone`.
        """
        try:
            handle = self.session.open(self.at(upload.token), READ)
        except Refused as refused:
            raise self.error(refused, upload.token, missing="token_gone", failed="read_failed") from None
        try:
            yield from self.session.read(handle, start=0, size=upload.plan.size)
        except Shorter:
            raise Transient(f"'{upload.path}' is shorter than planned when read back", reason="size_differs") from None
        except Refused as refused:
            raise self.error(refused, upload.token, failed="read_failed") from None
        finally:
            self.session.drop(handle)

    def commit(self, commit: Commit) -> Committed:
        """Renames the token to its final name, if that is free or to be overwritten. Repeated, it finds the token gone.

        A foreign file created between the look and a posix-rename is overwritten (DESIGN 5); plain rename never does that.

        Raises:
            Permanent: `permission_denied`, `directory_missing`.
            Transient: `rename_failed`.
        """
        posix = commit.rename == "posix"
        if not (posix and commit.overwrite) and self._taken(commit.path):
            return Committed(CommitOutcome.EXISTS if self.token_exists(commit.token, commit.path) else CommitOutcome.TOKEN_GONE)
        rename = self.session.posix_rename if posix else self.session.rename
        try:
            rename(self.at(commit.token), self.at(commit.path))
        except Refused as refused:
            if not self.token_exists(commit.token, commit.path):
                return Committed(CommitOutcome.TOKEN_GONE)
            if refused.code in {Code.FAILURE, Code.FILE_ALREADY_EXISTS} and self._taken(commit.path):
                return Committed(CommitOutcome.EXISTS)
            raise self.error(refused, commit.path, missing="directory_missing", failed="rename_failed") from None
        return Committed(CommitOutcome.DONE)

    def put(self, commit: Commit, pieces: Sequence[Bytes], *, asked_at: datetime) -> Committed:  # noqa: ARG002 - the port's
        """An SFTP server makes nothing visible at once.

        Raises:
            Permanent: `unsupported`.
        """
        raise Permanent(f"an SFTP server cannot take '{commit.path}' in one request", reason="unsupported")

    def token_exists(self, token: str, path: RemotePath) -> bool:  # noqa: ARG002 - the port's
        """Returns whether the temporary file is there."""
        return self.standing(token) is not None

    def consume(self, token: str, path: RemotePath) -> bool:  # noqa: ARG002 - the port's
        """Removes the temporary file; returns True if this call did, False if it was gone already.

        Raises:
            Permanent: `permission_denied`.
            Transient: `remove_failed`.
        """
        try:
            self.session.remove(self.at(token))
        except Refused as refused:
            if self.standing(token) is None:
                return False
            raise self.error(refused, token, failed="remove_failed") from None
        return True

    def copies_from(self, source: Source) -> bool:  # noqa: ARG002 - the port's
        """Returns False: SFTP servers do not copy from elsewhere."""
        return False

    def copy_part(self, upload: Upload, part: Part, *, source: Source, file: RemoteFile) -> PartDone:  # noqa: ARG002 - the port's
        """SFTP servers do not copy from elsewhere.

        Raises:
            Permanent: `unsupported`.
        """
        raise Permanent(f"an SFTP server cannot copy part {part.number} of '{upload.path}' itself", reason="unsupported")

    def write_error(self, refused: Refused, upload: Upload, *, missing: str = "token_gone") -> EftError:
        """Returns what a refused write means. Version 3 has no code for a full disk, so a generic failure asks how much is free."""
        if refused.code != Code.FAILURE:
            return self.error(refused, upload.token if missing == "token_gone" else upload.path, missing=missing, failed="write_failed")
        try:
            free = self.session.free_bytes(self.at(parent(upload.token)))
        except Refused:
            free = None
        if free is not None and free < MIB:
            return Transient(f"the server's disk is full: {free} bytes are free for '{upload.path}'", reason="disk_full")
        return Transient(
            f"the server failed to write '{upload.path}' ({str(refused) or 'no reason given'}); a full disk or quota is the likely cause",
            reason="write_failed",
        )

    def _taken(self, path: RemotePath) -> bool:
        return self.standing(path) is not None

    def _offers_posix(self, endpoint: SftpEndpoint) -> bool:
        return endpoint.rename is not RenameMode.PLAIN and POSIX_RENAME in self.session.extensions


def _blocks(chunks: Iterable[Bytes], size: int) -> Iterator[Bytes]:
    """Yields the bytes of the chunks in blocks of at most `size`; small chunks are gathered, large ones cut without copying."""
    gathered = bytearray()
    for chunk in chunks:
        rest = memoryview(chunk)
        if gathered or len(rest) < size // 2:
            room = size - len(gathered)
            gathered += rest[:room]
            rest = rest[room:]
            if len(gathered) < size:
                continue
            yield gathered
            gathered = bytearray()
        for at in range(0, len(rest), size):
            yield rest[at : at + size]
    if gathered:
        yield gathered


def _not_the_part(part: Part, size: int) -> Permanent:
    return Permanent(f"part {part.number} has {part.size} bytes, {size} came", reason="part_size_differs")


def _token_gone(upload: Upload) -> Permanent:
    return Permanent(f"the temporary file '{upload.token}' is gone", reason="token_gone")
