"""What a listing shows, and the identity of one version of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from eft.domain.names import RemotePath


class Fingerprint(BaseModel):
    """Identity of one version of a remote file. SFTP gives size and modified time; S3 also etag and, on versioned buckets, version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=0)
    modified: AwareDatetime | None = None
    etag: str | None = None
    version: str | None = None

    def key(self) -> str:
        """Returns the text that enters a transfer's derived id: what every way of seeing a version shows, so that all see the same.

        The version id is left out: listings of S3 do not show it.
        """
        modified = "" if self.modified is None else str(int(self.modified.timestamp() * 1000))
        return f"{self.size}|{modified}|{self.etag or ''}"

    def matches(self, other: Fingerprint) -> bool:
        """Returns whether both are the same version, judged by the strongest identity that both have."""
        if self.version and other.version:
            return self.version == other.version
        if self.etag and other.etag:
            return self.etag == other.etag and self.size == other.size
        return self.size == other.size and (self.modified is None or other.modified is None or self.modified == other.modified)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as its server shows it now."""

    path: RemotePath
    fingerprint: Fingerprint
    transfer: str | None = None
    """The transfer that wrote it, where the store records it (S3 metadata)."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.fingerprint.size

    @property
    def modified(self) -> datetime | None:
        """When its server says that it last changed."""
        return self.fingerprint.modified


@dataclass(frozen=True, slots=True)
class RefusedName:
    """A listed name that cannot become a RemotePath, or is no regular file; shown to the customer, never moved."""

    shown: str
    why: str
    fingerprint: Fingerprint
