"""Endpoints: where files live. They hold a SecretRef, never a secret."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, SecretStr, field_validator

from eft.domain.frozen import Frozen
from eft.domain.names import directory_path
from eft.domain.windows import Bandwidth

__all__ = [
    "Bandwidth",
    "Credential",
    "Endpoint",
    "EndpointFields",
    "Frozen",
    "HostKey",
    "RenameMode",
    "S3Endpoint",
    "SecretRef",
    "SftpEndpoint",
]


class SecretRef(Frozen):
    """The name of a secret in Secrets Manager."""

    name: str


class Credential(Frozen):
    """What a secret holds. It lives in Secrets Manager and in a worker's memory while used; its repr shows nothing."""

    password: SecretStr | None = None
    private_key: SecretStr | None = None
    """OpenSSH or PEM text of an Ed25519, ECDSA or RSA key."""
    passphrase: SecretStr | None = None
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None
    signing_secret: SecretStr | None = None
    former_signing_secret: SecretStr | None = None
    """Of a webhook: what announcements are signed with, and what they were before it was rotated."""


class HostKey(Frozen):
    """A public host key as in known_hosts: `ssh-ed25519 AAAA…`."""

    algorithm: str
    key: str

    @field_validator("key")
    @classmethod
    def _is_base64(cls, value: str) -> str:
        base64.b64decode(value, validate=True)
        return value

    @property
    def fingerprint(self) -> str:
        """`SHA256:…` as ssh-keygen -l prints it."""
        digest = hashlib.sha256(base64.b64decode(self.key)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


class RenameMode(StrEnum):
    """How an SFTP commit renames. `auto` uses posix-rename where the server offers it."""

    AUTO = "auto"
    POSIX = "posix"
    PLAIN = "plain"


class EndpointFields(Frozen):
    """What both kinds have."""

    id: str
    tenant: str
    name: str = Field(min_length=1, max_length=120)
    max_connections: int = Field(default=8, ge=1, le=256)
    """Connections to an SFTP server at once, across all workers; there are fewer while it stands fewer. A bucket's are not counted: S3 asks
    by itself to slow down."""
    bandwidth: tuple[Bandwidth, ...] = Field(default=(), max_length=20)
    """Times of day in which less may pass; outside them nothing bounds it."""
    secret: SecretRef | None = None
    revision: int = 1
    """Rises with every change; the ETag of the API."""
    created: AwareDatetime

    def bytes_per_second(self, now: datetime) -> int | None:
        """Returns how much may pass now, by the narrowest window that is on; None if nothing bounds it."""
        rates = (one.bytes_per_second for one in self.bandwidth if one.end_after(now, one.timezone) is not None)
        return min(rates, default=None)


class SftpEndpoint(EndpointFields):
    """A directory on an SFTP server. Without a pinned host key it can be tested but moves nothing."""

    kind: Literal["sftp"] = "sftp"
    host: str = Field(min_length=1, max_length=253)
    port: int = Field(default=22, ge=1, le=65535)
    username: str = Field(min_length=1, max_length=128)
    root: str = "/"
    """Absolute directory on the server, or relative to the login directory; every path lies below it."""
    host_keys: tuple[HostKey, ...] = ()
    rename: RenameMode = RenameMode.AUTO

    @field_validator("root")
    @classmethod
    def _clean_root(cls, value: str) -> str:
        clean = directory_path(value)
        return f"/{clean}" if value.startswith("/") else clean


class S3Endpoint(EndpointFields):
    """A prefix in a bucket of S3 or of an S3-compatible store."""

    kind: Literal["s3"] = "s3"
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    prefix: str = ""
    region: str = Field(min_length=1, max_length=32)
    role_arn: str | None = Field(default=None, pattern=r"^arn:aws[a-z-]*:iam::\d{12}:role/.+$")
    kms_key: str | None = None
    endpoint_url: str | None = Field(default=None, pattern=r"^https?://")
    refuses_taken: bool = False
    """The store at an address of its own honours `If-None-Match: *` as AWS does, so that it refuses a name that is taken; and refuses a
    request that was signed more than 15 minutes ago."""

    @field_validator("prefix")
    @classmethod
    def _clean_prefix(cls, value: str) -> str:
        return directory_path(value)


Endpoint = Annotated[SftpEndpoint | S3Endpoint, Field(discriminator="kind")]
