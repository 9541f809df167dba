"""Endpoints as the API takes and shows them, with their credentials going in and never out."""

from __future__ import annotations

from base64 import b64decode
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AwareDatetime, Field, SecretStr, StringConstraints, model_validator

from api.keys import check_private_key
from api.schemas.base import Asked, Directory, Host, Line, Shown, StoreAddress, printable
from eft.domain.endpoint import Bandwidth, Credential, HostKey, RenameMode

MAX_KEYS = 20


class SftpCredential(Asked):
    """How to log in: a private key, a password, or both where the server asks for both. Kept in Secrets Manager, never shown."""

    password: SecretStr | None = Field(default=None, min_length=1, max_length=1024)
    private_key: SecretStr | None = Field(default=None, min_length=1, max_length=32_768)
    """OpenSSH or PEM text of an Ed25519, ECDSA or RSA key."""
    passphrase: SecretStr | None = Field(default=None, min_length=1, max_length=1024)

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.password is None and self.private_key is None:
            msg = "give a password, a private_key, or both"
            raise ValueError(msg)
        if self.passphrase is not None and self.private_key is None:
            msg = "a passphrase goes with a private_key"
            raise ValueError(msg)
        if self.private_key is not None:
            check_private_key(self.private_key, self.passphrase)
        return self

    def kept(self) -> Credential:
        """Returns what goes into the secret."""
        return Credential(password=self.password, private_key=self.private_key, passphrase=self.passphrase)


class S3Credential(Asked):
    """A static access key, for stores where no role can be assumed. Kept in Secrets Manager, never shown."""

    access_key_id: SecretStr = Field(min_length=1, max_length=256)
    secret_access_key: SecretStr = Field(min_length=1, max_length=1024)
    session_token: SecretStr | None = Field(default=None, min_length=1, max_length=8192)

    def kept(self) -> Credential:
        """Returns what goes into the secret."""
        return Credential(access_key_id=self.access_key_id, secret_access_key=self.secret_access_key, session_token=self.session_token)


class HostKeyNew(HostKey):
    """A public host key as in known_hosts, without the host: `{"algorithm": "ssh-ed25519", "key": "AAAA…"}`."""

    algorithm: str = Field(max_length=64)
    key: str = Field(max_length=8192)

    @model_validator(mode="after")
    def _names_its_algorithm(self) -> Self:
        # RFC 4253, section 6.6: the blob begins with its algorithm's name, length first.
        blob = b64decode(self.key)
        if blob[4 : 4 + int.from_bytes(blob[:4], "big")] != self.algorithm.encode():
            msg = "the key is not of the algorithm named; take both words from known_hosts or from the test's answer"
            raise ValueError(msg)
        return self


class SftpFields(Asked):
    """A directory on an SFTP server."""

    kind: Literal["sftp"]
    name: Line
    host: Host
    port: int = Field(default=22, ge=1, le=65535)
    username: Annotated[str, StringConstraints(min_length=1, max_length=128), AfterValidator(printable)]
    root: Directory = "/"
    """Absolute directory on the server, or relative to the login directory."""
    host_keys: tuple[HostKeyNew, ...] = Field(default=(), max_length=MAX_KEYS)
    """Pinned keys. Without one the endpoint can be tested but moves nothing."""
    rename: RenameMode = RenameMode.AUTO
    max_connections: int = Field(default=8, ge=1, le=256)
    """Connections at once, across all workers; there are fewer while the server stands fewer."""
    bandwidth: tuple[Bandwidth, ...] = Field(default=(), max_length=20)
    """Times of day in which less may pass, all transfers together."""


class S3Fields(Asked):
    """A prefix in a bucket of S3 or of an S3-compatible store."""

    kind: Literal["s3"]
    name: Line
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    prefix: Directory = ""
    region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")]
    role_arn: str | None = Field(default=None, max_length=2048, pattern=r"^arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+$")
    kms_key: str | None = Field(default=None, max_length=2048, pattern=r"^[\w:/-]+$")
    endpoint_url: StoreAddress | None = None
    refuses_taken: bool = False
    """The store at `endpoint_url` honours `If-None-Match: *`, on PutObject and CompleteMultipartUpload, and refuses requests that were
    signed more than 15 minutes ago, as AWS does. Do not say so of one that you have not tried: what relies on it would overwrite. It is
    false again once the address changes, unless it is said of the new one as well."""
    max_connections: int = Field(default=8, ge=1, le=256)
    """Kept, and not held to: S3 asks by itself to slow down."""
    bandwidth: tuple[Bandwidth, ...] = Field(default=(), max_length=20)
    """Times of day in which less may pass, all transfers together."""


class SftpEndpointNew(SftpFields):
    """An SFTP endpoint to onboard, with its credential."""

    credential: SftpCredential


class S3EndpointNew(S3Fields):
    """An S3 endpoint to onboard. Without credential or `role_arn` the engine's own role opens it, if its operator lends it to you."""

    credential: S3Credential | None = None


class SftpEndpointChange(SftpFields):
    """An SFTP endpoint after a change; a credential given replaces the present one as a whole."""

    credential: SftpCredential | None = None


EndpointNew = Annotated[SftpEndpointNew | S3EndpointNew, Field(discriminator="kind")]
EndpointChange = Annotated[SftpEndpointChange | S3EndpointNew, Field(discriminator="kind")]


class Warned(Shown):
    """Something that works but may not be meant."""

    reason: str
    message: str
    endpoint: str | None = None
    """The other endpoint concerned."""


class HostKeyShown(Shown):
    """A public host key; `fingerprint` is what ssh-keygen -l prints."""

    algorithm: str
    key: str
    fingerprint: str


class EndpointFields(Shown):
    """What both kinds show."""

    id: str
    name: str
    max_connections: int
    bandwidth: tuple[Bandwidth, ...]
    has_credential: bool
    revision: int
    created: AwareDatetime
    warnings: tuple[Warned, ...] = ()


class SftpEndpointShown(EndpointFields):
    """An SFTP endpoint."""

    kind: Literal["sftp"] = "sftp"
    host: str
    port: int
    username: str
    root: str
    host_keys: tuple[HostKeyShown, ...]
    rename: RenameMode


class S3EndpointShown(EndpointFields):
    """An S3 endpoint."""

    kind: Literal["s3"] = "s3"
    bucket: str
    prefix: str
    region: str
    role_arn: str | None
    kms_key: str | None
    endpoint_url: str | None
    refuses_taken: bool


EndpointShown = Annotated[SftpEndpointShown | S3EndpointShown, Field(discriminator="kind")]


class EndpointPage(Shown):
    """Endpoints by id; `next_cursor` asks for the next page, null at the end."""

    items: tuple[EndpointShown, ...]
    next_cursor: str | None


class HostKeysNew(Asked):
    """Keys to pin, confirmed out of band."""

    host_keys: tuple[HostKeyNew, ...] = Field(min_length=1, max_length=MAX_KEYS)
    replace: bool = False
    """Whether the keys pinned so far go; otherwise they stay beside the new ones."""


class CheckShown(Shown):
    """One thing that a connection test tried."""

    name: str
    ok: bool
    message: str


class ProbeShown(Shown):
    """What a connection test saw. Compare `host_keys` with what the server's owner tells you by another way, then pin them."""

    ok: bool
    checks: tuple[CheckShown, ...]
    host_keys: tuple[HostKeyShown, ...]
    capabilities: dict[str, str]
