"""What both sides of a store share: paths below the endpoint's root, what stands under them, and what a refusal means."""

from __future__ import annotations

import stat
from datetime import UTC, datetime

from eft.adapters.sftp.session import Session
from eft.adapters.sftp.wire import Attributes, Code, Refused
from eft.domain.endpoint import SftpEndpoint
from eft.domain.fingerprint import Fingerprint, RemoteFile
from eft.domain.names import RemotePath, parent
from eft.errors import EftError, NotFound, Permanent, Transient

MISSING = frozenset({Code.NO_SUCH_FILE, Code.NO_SUCH_PATH})
FULL = frozenset({Code.NO_SPACE_ON_FILESYSTEM, Code.QUOTA_EXCEEDED})
_FINAL: dict[int, tuple[str, str]] = {
    Code.PERMISSION_DENIED: ("permission_denied", "permission denied"),
    Code.WRITE_PROTECT: ("permission_denied", "it is read-only"),
    # OpenSSH says so of names that are too long for its file system.
    Code.BAD_MESSAGE: ("name_refused", "it does not take the name"),
    Code.INVALID_FILENAME: ("name_refused", "it does not take the name"),
    Code.OP_UNSUPPORTED: ("unsupported_by_server", "it does not support the operation"),
}


class Rooted:
    """A session and the directory below which all of its paths lie.

    Symbolic links are followed in the root and in the directories of a path, as the server resolves them, but never in its last
    component: a link there is refused or replaced, not followed.
    """

    def __init__(self, endpoint: SftpEndpoint, session: Session) -> None:
        self.endpoint = endpoint
        self.session = session

    @property
    def far(self) -> bool:
        """Whether each round trip counts."""
        return self.session.far

    def at(self, path: str | bytes) -> bytes:
        """Returns the path that the server is asked for; the root itself is `""`."""
        below = path.encode() if isinstance(path, str) else path
        root = self.endpoint.root.encode()
        if not root:
            return below or b"."
        return (root.rstrip(b"/") + b"/" + below).rstrip(b"/") or b"/"

    def standing(self, path: str) -> Attributes | None:
        """Returns what stands under a path, links not followed, or None."""
        try:
            return self.session.lstat(self.at(path))
        except Refused as refused:
            if refused.code in MISSING:
                return None
            raise self.error(refused, path) from None

    def is_directory(self, path: str) -> bool:
        """Returns whether a path leads to a directory, links followed."""
        try:
            return kind_of(self.session.stat(self.at(path))) == stat.S_IFDIR
        except Refused as refused:
            if refused.code in MISSING:
                return False
            raise self.error(refused, path) from None

    def file(self, path: RemotePath, attributes: Attributes) -> RemoteFile:
        """Returns a regular file.

        Raises:
            Permanent: `is_symlink`, `not_a_file`.
        """
        kind = kind_of(attributes)
        if kind == stat.S_IFLNK:
            raise Permanent(f"'{path}' is a symbolic link; links are not followed", reason="is_symlink")
        if kind not in {stat.S_IFREG, 0}:
            raise Permanent(f"'{path}' is no regular file", reason="not_a_file")
        return RemoteFile(path=path, fingerprint=fingerprint(attributes))

    def make_directories(self, directory: str) -> None:
        """Makes a directory and those above it, below the root, where they are missing.

        Raises:
            Permanent: `permission_denied`; `directory_missing` when the root itself is.
        """
        missing: list[str] = []
        while not self.is_directory(directory):
            if not directory:
                raise NotFound(f"the root '{self.endpoint.root}' does not exist", reason="directory_missing")
            missing.append(directory)
            directory = parent(directory)
        while missing:
            made = missing.pop()
            try:
                self.session.mkdir(self.at(made))
            except Refused as refused:
                # Another worker may have been quicker; servers tell it by the generic failure.
                if not self.is_directory(made):
                    raise self.error(refused, made, missing="directory_missing") from None

    def error(self, refused: Refused, path: str, *, missing: str = "source_missing", failed: str = "server_failure") -> EftError:
        """Returns what an error status means; `missing` and `failed` are the reasons of the two that depend on the request."""
        told = f"the server refuses '{path}'" + (f": {refused}" if str(refused) else "")
        if refused.code in MISSING:
            return NotFound(f"'{path}' does not exist", reason=missing)
        if refused.code in _FINAL:
            reason, meaning = _FINAL[refused.code]
            return Permanent(f"{told} ({meaning})", reason=reason)
        if refused.code in {Code.NO_CONNECTION, Code.CONNECTION_LOST}:
            return Transient(told, reason="connection_lost", endpoint=self.endpoint.id)
        return Transient(told, reason="disk_full" if refused.code in FULL else failed)


def kind_of(attributes: Attributes) -> int:
    """Returns the S_IFMT bits; 0 where the server tells no type."""
    return stat.S_IFMT(attributes.mode or 0)


def fingerprint(attributes: Attributes) -> Fingerprint:
    """Returns the identity that SFTP gives a version: size and modified time, in whole seconds."""
    modified = None if attributes.modified is None else datetime.fromtimestamp(attributes.modified, UTC)
    return Fingerprint(size=attributes.size or 0, modified=modified)
