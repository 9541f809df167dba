"""The reading side of an SFTP endpoint."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass

from eft.adapters.sftp.reading import Reading, Shorter
from eft.adapters.sftp.rooted import MISSING, Rooted, fingerprint, kind_of
from eft.adapters.sftp.session import READ, Entry
from eft.adapters.sftp.whole import changed, read_whole
from eft.adapters.sftp.wire import Attributes, Code, Kind, Refused
from eft.domain.fingerprint import RefusedName, RemoteFile
from eft.domain.names import RemotePath, directory_path, display, disposed_by, is_token, parent, remote_path
from eft.errors import NotFound, Permanent, Transient
from eft.ports import Bytes, MoveOutcome, Whole

DEEPEST = 32
"""Directories below the one listed."""
MOST_DIRECTORIES = 100_000
"""Directories known but not yet listed; a server that shows more is broken or hostile."""
_KINDS = {b"-": stat.S_IFREG, b"d": stat.S_IFDIR, b"l": stat.S_IFLNK}


class SftpSource(Rooted):
    """ports.Source. A version is known by its size and modified time."""

    pins_versions = False

    def list(self, directory: str, *, recursive: bool, disposals: bool = False) -> Iterator[RemoteFile | RefusedName]:
        """Yields the regular files below a directory as they come from the server; there can be no loops, for links are not followed.

        With `disposals` the tokens that sources were renamed to come out, too.
        Directories that may not be listed, or that lie deeper than 32 levels, come out as RefusedName.

        Raises:
            NotFound: `directory_missing`.
            Permanent: `permission_denied`, `not_a_directory`.
        """
        top = directory_path(directory)
        waiting = [(top, 0)]
        while waiting:
            here, depth = waiting.pop()
            try:
                for found in self._entries(here, disposals=disposals):
                    if not isinstance(found, _Below):
                        yield found
                    elif recursive and depth < DEEPEST:
                        waiting.append((found.path, depth + 1))
                    elif recursive:
                        yield RefusedName(shown=found.path, why=f"lies deeper than {DEEPEST} directories", fingerprint=_NOTHING)
            except Refused as refused:
                if not depth:
                    raise self._not_listed(refused, here) from None
                if refused.code not in MISSING:
                    yield RefusedName(shown=display(here), why=str(self.error(refused, here)), fingerprint=_NOTHING)
            if len(waiting) > MOST_DIRECTORIES:
                raise Permanent(f"'{top}' holds more than {MOST_DIRECTORIES} directories", reason="listing_too_large")

    def stat(self, path: RemotePath, *, version: str | None = None) -> RemoteFile:  # noqa: ARG002 - the port's; no server keeps any
        """Returns the file as it is now; a symbolic link is refused.

        Raises:
            NotFound: `source_missing`.
            Permanent: `is_symlink`, `not_a_file`, `permission_denied`.
        """
        attributes = self.standing(path)
        if attributes is None:
            raise NotFound(f"'{path}' does not exist", reason="source_missing")
        return self.file(path, attributes)

    def read(self, file: RemoteFile, *, start: int, size: int, until: int | None = None) -> Iterator[Bytes]:
        """Yields exactly the bytes [start, start + size), asked for ahead; of a distant server those that follow, too.

        Raises:
            Permanent: `source_changed` when the file is no longer of its size; `permission_denied`.
            NotFound: `source_missing`.
            Transient: `read_failed`, `stalled`, `connection_lost`.
        """
        session, path = self.session, self.at(file.path)
        reading = session.resume(path, start)
        try:
            reading = reading or Reading(session, session.open(path, READ), start=start)
        except Refused as refused:
            raise self.error(refused, file.path, failed="read_failed") from None
        asked = session.ask_attributes(reading.handle)
        end, last = start + size, None
        try:
            # A server far away is asked for the part that follows before this one is written.
            held = reading.chunks(end, ahead_to=max(end, file.size) if until and session.far else end)
            for chunk in held:
                if last is not None:
                    yield last
                last = chunk
            # Asked first and looked at last: the question for the size costs no round trip.
            now = session.wire.take(asked).expect(Kind.ATTRS).attributes()
            if now.size is not None and now.size != file.size:
                raise changed(file, f"it has {now.size} bytes now")
            if reading.ahead:
                session.keep(path, reading)
            if last is not None:
                yield last
        except Shorter:
            raise changed(file, "it ended early") from None
        except Refused as refused:
            raise self.error(refused, file.path, failed="read_failed") from None
        finally:
            session.wire.forget(asked)
            if not session.keeps(reading):
                reading.leave()

    def whole(self, path: RemotePath, *, limit: int, version: str | None = None, listed: bool = False) -> Whole:  # noqa: ARG002 - the port's; no server keeps any
        """Reads a small file at once, looking at it before and after; returns it without bytes where it is larger than `limit`.

        Raises:
            NotFound: `source_missing`.
            Permanent: `source_changed`; `is_symlink`, `not_a_file`, `permission_denied`.
            Transient: `read_failed`, `stalled`, `connection_lost`.
        """
        return read_whole(self, path, limit=limit, listed=listed)

    def move(self, path: RemotePath, to: RemotePath, *, create_directories: bool = False) -> MoveOutcome:
        """Renames without ever overwriting: MISSING when there is nothing to move, else EXISTS when the target is taken.

        Raises:
            Permanent: `permission_denied`, `directory_missing`.
            Transient: `rename_failed`.
        """
        if create_directories:
            self.make_directories(parent(to))
        # Version 3 forbids a server to overwrite; some do all the same.
        if self.standing(to) is not None:
            return MoveOutcome.EXISTS if self.standing(path) is not None else MoveOutcome.MISSING
        try:
            self.session.rename(self.at(path), self.at(to))
        except Refused as refused:
            if self.standing(path) is None:
                return MoveOutcome.MISSING
            if self.standing(to) is not None:
                return MoveOutcome.EXISTS
            if refused.code == Code.NO_SUCH_FILE and self.is_directory(parent(to)):
                # Another worker had taken it, and has put it back since.
                raise Transient(f"'{path}' was gone for a moment", reason="rename_failed") from None
            raise self.error(refused, to, missing="directory_missing", failed="rename_failed") from None
        return MoveOutcome.DONE

    def remove(self, path: RemotePath) -> bool:
        """Removes a file of our own naming; returns whether it was there.

        Raises:
            Permanent: `permission_denied`.
            Transient: `remove_failed`.
        """
        try:
            self.session.remove(self.at(path))
        except Refused as refused:
            if self.standing(path) is None:
                return False
            raise self.error(refused, path, failed="remove_failed") from None
        return True

    def remove_version(self, file: RemoteFile) -> bool:
        """SFTP knows no versions.

        Raises:
            Permanent: `unsupported`.
        """
        raise Permanent(f"SFTP cannot remove a version of '{file.path}'", reason="unsupported")

    def copy_version(self, file: RemoteFile, to: RemotePath) -> None:
        """SFTP knows no versions.

        Raises:
            Permanent: `unsupported`.
        """
        raise Permanent(f"SFTP cannot copy a version of '{file.path}' to '{to}'", reason="unsupported")

    def _entries(self, here: str, *, disposals: bool) -> Iterator[RemoteFile | RefusedName | _Below]:
        """Yields what lies in one directory; tokens of ours and what vanished meanwhile are left out."""
        for entry in self.session.names(self.at(here)):
            if entry.name in {b".", b".."}:
                continue
            whole = f"{here}/".encode() + entry.name if here else entry.name
            looked = self._looked_at(whole, entry)
            if isinstance(looked, RefusedName):
                yield looked
            elif looked is not None:
                found = _found(whole, *looked, slashed=b"/" in entry.name)
                if not (isinstance(found, RemoteFile) and is_token(found.path)) or (disposals and disposed_by(found.path)):
                    yield found

    def _looked_at(self, whole: bytes, entry: Entry) -> tuple[int, Attributes] | RefusedName | None:
        """Returns type and attributes of an entry, asking for those that the listing left out; None if it has vanished."""
        attributes = entry.attributes
        kind = kind_of(attributes) or _KINDS.get(entry.line[:1], 0)
        if kind and attributes.size is not None:
            return kind, attributes
        try:
            attributes = self.session.lstat(self.at(whole))
        except Refused as refused:
            return None if refused.code in MISSING else _refused(whole, "cannot be looked at", attributes)
        return kind_of(attributes) or kind, attributes

    def _not_listed(self, refused: Refused, directory: str) -> Exception:
        if refused.code not in MISSING and self.standing(directory) is not None and not self.is_directory(directory):
            return Permanent(f"'{directory}' is no directory", reason="not_a_directory")
        return self.error(refused, directory or self.endpoint.root, missing="directory_missing", failed="list_failed")


@dataclass(frozen=True, slots=True)
class _Below:
    """A directory found in a listing."""

    path: RemotePath


_NOTHING = fingerprint(Attributes(size=0, mode=None, modified=None))


def _found(whole: bytes, kind: int, attributes: Attributes, *, slashed: bool) -> RemoteFile | RefusedName | _Below:
    if slashed:
        return _refused(whole, "contains a '/'", attributes)
    try:
        path = remote_path(whole)
    except Permanent as error:
        return _refused(whole, str(error), attributes)
    if kind == stat.S_IFDIR:
        return _Below(path)
    if kind in {stat.S_IFREG, 0}:
        return RemoteFile(path=path, fingerprint=fingerprint(attributes))
    return _refused(whole, "is a symbolic link" if kind == stat.S_IFLNK else "is no regular file", attributes)


def _refused(name: bytes | str, why: str, attributes: Attributes) -> RefusedName:
    return RefusedName(shown=display(name), why=why, fingerprint=fingerprint(attributes))
