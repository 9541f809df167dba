"""Ports of the endpoints: reading, writing, committing, and what a connection test saw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol

from eft.domain.endpoint import Endpoint, HostKey
from eft.domain.fingerprint import RefusedName, RemoteFile
from eft.domain.names import RemotePath
from eft.domain.parts import Part, PartDone
from eft.domain.transfer import Commit, Upload
from eft.errors import EftError

Bytes = bytes | bytearray | memoryview


class Uploading(Protocol):
    """One worker's open hand on an attempt's upload. It may overlap the sending of one part with the reading of the next."""

    def write(self, part: Part, chunks: Iterable[Bytes]) -> list[tuple[int, str | None]]:
        """Takes all chunks of a part and returns (number, etag) of the parts that have become durable since the last call."""

    def finish(self) -> list[tuple[int, str | None]]:
        """Waits until all written parts are durable (SFTP: close checked, fsync where offered) and returns the remaining ones."""


class CommitOutcome(StrEnum):
    """What D6 found."""

    DONE = "done"
    TOKEN_GONE = "token_gone"
    EXISTS = "exists"
    """The final name exists and the commit must not overwrite."""
    PART_DIFFERS = "part_differs"
    """S3 only: a frozen part is no longer the one uploaded."""
    NOT_STORED = "not_stored"
    """`put` only: the server has not stored it, and never will by that request."""


@dataclass(frozen=True, slots=True)
class Committed:
    """The answer to a commit."""

    outcome: CommitOutcome
    etag: str | None = None
    version: str | None = None
    why: EftError | None = None
    """Of NOT_STORED, where another way would end alike."""


class MoveOutcome(StrEnum):
    """What a rename that never overwrites found."""

    DONE = "done"
    MISSING = "missing"
    EXISTS = "exists"


Whole = tuple[RemoteFile, list[Bytes]]
"""A file as it stood while it was read, and its bytes."""


class Source(Protocol):
    """The reading side of an endpoint. Paths are relative to its root."""

    pins_versions: bool
    """Whether disposal goes by version (S3) instead of by renaming to a token (SFTP)."""

    @property
    def far(self) -> bool:
        """Whether a stream mostly waits for round trips, so that a large file is worth more of them."""

    def list(self, directory: str, *, recursive: bool, disposals: bool = False) -> Iterator[RemoteFile | RefusedName]:
        """Yields the regular files below a directory, tokens of ours left out; symbolic links and bad names as RefusedName.

        With `disposals` the tokens that sources were renamed to are among the files, where sources are renamed.

        Raises:
            NotFound: `directory_missing`.
        """

    def stat(self, path: RemotePath, *, version: str | None = None) -> RemoteFile:
        """Returns the file as it is now, or a version of it by its id, whether or not it stands there still.

        Raises:
            NotFound: `source_missing`.
        """

    def read(self, file: RemoteFile, *, start: int, size: int, until: int | None = None) -> Iterator[Bytes]:
        """Yields exactly the bytes [start, start + size), pinned to the file's version where the store can.

        Those that follow, up to `until`, are to be read next, in order: they may be asked for along with these.

        Raises:
            Permanent: `source_changed` when the version is gone or the file is shorter; `source_missing`; `permission_denied`.
        """

    def whole(self, path: RemotePath, *, limit: int, version: str | None = None, listed: bool = False) -> Whole:
        """Reads a small file at once, looking at it before and after: returns it as it stood all the while, with all of its bytes.

        Returns it without bytes where it is larger than `limit` bytes. `listed` says that a listing has shown it to be a file.

        Raises:
            NotFound: `source_missing`.
            Permanent: `source_changed` when it changed while it was read; `permission_denied`.
        """

    def move(self, path: RemotePath, to: RemotePath, *, create_directories: bool = False) -> MoveOutcome:
        """Renames without ever overwriting. Only where `pins_versions` is False."""

    def remove(self, path: RemotePath) -> bool:
        """Removes a file of our own naming (a token); returns whether it was there. Only where `pins_versions` is False."""

    def remove_version(self, file: RemoteFile) -> bool:
        """Removes this very version (by version id, else If-Match); False if it is not there. Only where it pins versions."""

    def copy_version(self, file: RemoteFile, to: RemotePath) -> None:
        """Copies this very version to another path of the same endpoint. Only where it pins versions."""


class Sink(Protocol):
    """The writing side of an endpoint, with the one-shot token of DESIGN 5."""

    rename_mode: Literal["posix", "plain"] | None
    """How a commit renames; None for stores that do not rename."""
    holds_parts: bool
    """Whether a part stays in memory until all of it is read. Where it does not, parts may be larger."""
    lanes: int
    """Workers that may write one upload at a time: 1 where writes must be sequential."""

    @property
    def far(self) -> bool:
        """As a source's."""

    @property
    def refuses_taken(self) -> bool:
        """Whether the server itself, in the instant of a commit, refuses a name that is taken, whoever took it when."""

    @property
    def puts(self) -> bool:
        """Whether `put` is offered: the server `refuses_taken`, and what was sent to it is known to have been sent once."""

    def look(self, path: RemotePath) -> RemoteFile | None:
        """Returns what stands under a name, or None."""

    def mint(self, path: RemotePath, *, token: RemotePath, transfer: str, size: int, create_directories: bool) -> str:
        """Returns the token of a new attempt: the proposed temporary name (SFTP: nothing is created yet but directories), or an upload id.

        Raises:
            Permanent: `directory_missing`, `permission_denied`.
        """

    def upload(self, upload: Upload, *, fresh: bool) -> AbstractContextManager[Uploading]:
        """Opens the token for writing: `fresh` creates it exclusively, otherwise it must exist.

        Raises:
            Permanent: `token_gone` when it does not exist any more.
        """

    def verify(self, upload: Upload, parts: Sequence[PartDone] = ()) -> None:
        """Checks that the token holds exactly the planned number of bytes, and the parts on record, as far as the server tells.

        Raises:
            Transient: `size_differs`, `part_differs`; the attempt is abandoned.
        """

    def read_back(self, upload: Upload) -> Iterator[Bytes] | None:
        """Yields the bytes written so far under the token, or returns None where an uncommitted upload cannot be read."""

    def commit(self, commit: Commit) -> Committed:
        """Makes the file visible, once: rename of the token, or complete-multipart with If-None-Match unless overwriting.

        Checks by itself, directly before, that the final name is absent unless overwriting. Safe to repeat.
        """

    def put(self, commit: Commit, pieces: Sequence[Bytes], *, asked_at: datetime) -> Committed:
        """Delivers a whole small file by one request that is sent once, and refused where the name is taken. Only where `puts`.

        It is refused as well where it arrives more than `PUT_ARRIVES_WITHIN` after `asked_at`. `commit` and `token_exists` find its token
        gone from the first.

        Raises:
            Transient: `answer_lost`: it may have been stored, or may still be.
        """

    def token_exists(self, token: str, path: RemotePath) -> bool:
        """Returns whether the token is still there to be consumed."""

    def consume(self, token: str, path: RemotePath) -> bool:
        """Removes the token without committing; returns True if this call consumed it, False if it was gone already.

        The token of a `put` counts as consumed unless its transfer's file stands there: whatever comes late is refused by what follows.
        """

    def copies_from(self, source: Source) -> bool:
        """Returns whether `copy_part` works from that store: one principal reaches both on the server's side."""

    def copy_part(self, upload: Upload, part: Part, *, source: Source, file: RemoteFile) -> PartDone:
        """Copies one part on the server's side. Only where `copies_from`."""


class Store(Source, Sink, Protocol):
    """Both sides of one endpoint."""


class Staging(Store, Protocol):
    """The staging bucket's store, with what upkeep needs."""

    def stale_uploads(self, *, before: datetime) -> Iterator[tuple[RemotePath, str]]:
        """Yields (path, upload id) of the unfinished uploads begun before a time."""

    def stale_objects(self, *, before: datetime) -> Iterator[RemoteFile]:
        """Yields the staged objects last written before a time."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a connection test tried."""

    name: str
    ok: bool
    message: str


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What a connection test saw."""

    ok: bool
    checks: tuple[Check, ...]
    host_keys: tuple[HostKey, ...] = ()
    """Keys that the server showed (SFTP), to be confirmed out of band and pinned."""
    capabilities: dict[str, str] = field(default_factory=dict)


class Stores(Protocol):
    """Opens endpoints. Connections are pooled per process and bounded across the fleet."""

    def open(self, endpoint: Endpoint) -> AbstractContextManager[Store]:
        """Gives a store for the duration of the block; its connection goes back to the pool afterwards, or is dropped after an error."""

    def staging(self) -> AbstractContextManager[Staging]:
        """Gives the staging bucket's store."""

    def permit(self, endpoint: Endpoint) -> None:
        """Looks, without asking anybody, whether an endpoint may be opened with what it is given.

        Raises:
            Permanent: `bucket_reserved`, `credential_missing`.
        """

    def probe(self, endpoint: Endpoint) -> ProbeReport:
        """Tests an endpoint: connect, host key, authentication, list, and (SFTP) what the server offers. Never raises for what it finds."""
