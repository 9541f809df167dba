"""What the API takes and answers: JSON at the edge, checked here, with its own names for nothing.

Requests are checked strictly (a number is no string, a string no number) and refuse unknown fields. Durations are ISO 8601
text (`PT5M`), times RFC 3339. Answers never hold a secret: there is no field for one.
"""

from __future__ import annotations

from base64 import b64decode
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from api.keys import check_private_key
from eft.domain.endpoint import Credential, HostKey, RenameMode
from eft.domain.fingerprint import Fingerprint
from eft.domain.flow import Manual, Policy, Selection, Trigger
from eft.domain.names import directory_path, remote_path
from eft.domain.ownership import Mode, Phase
from eft.domain.transfer import State, Step
from eft.journey.held import Decision

MAX_KEYS = 20


class Asked(BaseModel):
    """A request: unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Shown(BaseModel):
    """An answer."""

    model_config = ConfigDict(frozen=True)


def _printable(value: str) -> str:
    if not value.isprintable() or value != value.strip():
        msg = "holds a control character, or blanks at an end"
        raise ValueError(msg)
    return value


def _file_path(value: str) -> str:
    if value.endswith("/"):
        msg = "names a directory; give the file's name too"
        raise ValueError(msg)
    return remote_path(value)


def _root(value: str) -> str:
    directory_path(value)
    return value


Line = Annotated[str, StringConstraints(min_length=1, max_length=120), AfterValidator(_printable)]
"""One line of text."""
Host = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9_:]([A-Za-z0-9._:-]*[A-Za-z0-9._:])?$")]
"""A DNS name or an IP address."""
Directory = Annotated[str, StringConstraints(max_length=1024), AfterValidator(_root)]
FilePath = Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_file_path)]
"""A path below an endpoint's root: no `.` or `..`, no control character, at most 255 bytes in one component."""
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


# -- endpoints -----------------------------------------------------------------------------------------------------------


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
    username: Annotated[str, StringConstraints(min_length=1, max_length=128), AfterValidator(_printable)]
    root: Directory = "/"
    """Absolute directory on the server, or relative to the login directory."""
    host_keys: tuple[HostKeyNew, ...] = Field(default=(), max_length=MAX_KEYS)
    """Pinned keys. Without one the endpoint can be tested but moves nothing."""
    rename: RenameMode = RenameMode.AUTO
    max_connections: int = Field(default=8, ge=1, le=256)
    """Connections at once, across all workers."""


class S3Fields(Asked):
    """A prefix in a bucket of S3 or of an S3-compatible store."""

    kind: Literal["s3"]
    name: Line
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    prefix: Directory = ""
    region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")]
    role_arn: str | None = Field(default=None, max_length=2048, pattern=r"^arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+$")
    kms_key: str | None = Field(default=None, max_length=2048, pattern=r"^[\w:/-]+$")
    endpoint_url: str | None = Field(default=None, max_length=2048, pattern=r"^https?://[^\s/?#@]+/?$")
    max_connections: int = Field(default=8, ge=1, le=256)


class SftpEndpointNew(SftpFields):
    """An SFTP endpoint to onboard, with its credential."""

    credential: SftpCredential


class S3EndpointNew(S3Fields):
    """An S3 endpoint to onboard; without a credential the engine's own role, or `role_arn`, is used."""

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


# -- flows ---------------------------------------------------------------------------------------------------------------


class FlowNew(Asked):
    """A standing order: files of the source endpoint that the selection takes go to the destination endpoint."""

    name: Line
    source: Id
    destination: Id
    destination_directory: Directory = ""
    selection: Selection = Selection()
    policy: Policy = Policy()
    trigger: Trigger = Manual()
    enabled: bool = True

    @field_validator("selection")
    @classmethod
    def _sensible_ages(cls, value: Selection) -> Selection:
        if value.min_age < timedelta(0) or (value.max_age is not None and value.max_age < timedelta(0)):
            msg = "min_age and max_age are not negative"
            raise ValueError(msg)
        return value


class FlowShown(Shown):
    """A flow."""

    id: str
    name: str
    source: str
    destination: str
    destination_directory: str
    selection: Selection
    policy: Policy
    trigger: Trigger
    enabled: bool
    revision: int
    created: AwareDatetime


class FlowPage(Shown):
    """Flows by id; `next_cursor` asks for the next page, null at the end."""

    items: tuple[FlowShown, ...]
    next_cursor: str | None


class RunShown(Shown):
    """A run that was asked for; its transfers appear in `GET /v1/transfers?flow=…` as the source's listing is read."""

    flow: str
    fire: str


# -- transfers -----------------------------------------------------------------------------------------------------------


class PlaceNew(Asked):
    """One end of a transfer: an endpoint and a file's path below its root."""

    endpoint: Id
    path: FilePath


class DestinationNew(Asked):
    """The receiving end; without a path, the policy's `name_template` makes one of the source's."""

    endpoint: Id
    path: FilePath | None = None


class TransferNew(Asked):
    """One file to move, once."""

    source: PlaceNew
    destination: DestinationNew
    policy: Policy = Policy()
    expected_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    """What the file's SHA-256 must be, in lower-case hex; anything else is not delivered."""


class PlaceShown(Shown):
    """One end of a transfer."""

    endpoint: str
    kind: Literal["sftp", "s3"]
    path: str


class TransferSummary(Shown):
    """A transfer, in a list."""

    id: str
    state: State
    flow: str | None
    source: PlaceShown
    destination: PlaceShown
    size: int | None
    reason: str | None
    error: str | None
    created: AwareDatetime
    since: AwareDatetime


class Progress(Shown):
    """How far the present upload has come, in bytes that are durable where they go."""

    into: Literal["staging", "destination"] | None
    bytes_done: int
    bytes_total: int | None
    parts_done: int
    parts_total: int | None


class EventShown(Shown):
    """One line of a timeline."""

    at: AwareDatetime
    state: State
    attempt: int
    bytes: int | None
    reason: str | None
    error: str | None
    by: str | None


class ReceiptShown(Shown):
    """Evidence of a delivery; `checksum` names its algorithm."""

    path: str
    size: int
    checksum: str
    etag: str | None
    version: str | None
    at: AwareDatetime


class TransferShown(TransferSummary):
    """A transfer, whole."""

    fingerprint: Fingerprint | None
    """Identity of the source's version that is moved, once looked at."""
    policy: Policy
    expected_sha256: str | None
    durability: str | None
    """`both-regions` or `single-region`: where it was on record when it was accepted."""
    elsewhere: str | None
    """The region that carries it out, where this one does not."""
    next_step: Step | None
    next_try: AwareDatetime | None
    """When it is looked at again if nothing moves it before."""
    attempt: int
    tries: int
    redrives: int
    held_from: State | None
    staged: bool
    """Whether our own copy exists, from which it can be re-driven without the source."""
    progress: Progress
    receipt: ReceiptShown | None
    timeline: tuple[EventShown, ...]


class TransferPage(Shown):
    """Transfers, newest first; `next_cursor` asks for the next page, null at the end."""

    items: tuple[TransferSummary, ...]
    next_cursor: str | None


class RedriveAsked(Asked):
    """Which transfers to re-drive: those of a state, of one flow if given, at most `limit` looked at."""

    state: Literal[State.DEAD, State.HELD]
    flow: Id | None = None
    limit: int = Field(default=100, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=2048)


class Refusal(Shown):
    """A transfer that was not re-driven, and why."""

    id: str
    reason: str
    message: str


class RedriveShown(Shown):
    """What a re-drive by filter did; ask again with `next_cursor` as `cursor` until it is null."""

    seen: int
    redriven: int
    refused: tuple[Refusal, ...]
    next_cursor: str | None


# -- partitions ----------------------------------------------------------------------------------------------------------


class OrderAsked(Asked):
    """Why a partition is changed; it stays on record with who asked."""

    why: str = Field(min_length=3, max_length=500)
    ticket: str = Field(min_length=1, max_length=100)


class PromoteAsked(OrderAsked):
    """A forced promotion."""

    old_home_may_be_solo: bool
    """Whether the old home may have committed without us: then what has no evidence here is held until the regions rejoin."""


class ConfirmAsked(Asked):
    """A second person's word."""

    why: str | None = Field(default=None, max_length=500)


class PreviewAsked(Asked):
    """Which promotion to preview."""

    old_home_may_be_solo: bool = False


class PreviewShown(Shown):
    """What a promotion would hold."""

    will_be_held: int
    ids: tuple[str, ...]


class PartitionShown(Shown):
    """A partition as this region's table has it; `peer_…` as the other's has it, where the link is up."""

    number: int
    home: str
    region_epoch: int
    mode: Mode
    phase: Phase
    evidence: bool
    changed_by: str | None
    why: str | None
    ticket: str | None
    changed_at: AwareDatetime | None
    peer_home: str | None
    peer_region_epoch: int | None


class PartitionPage(Shown):
    """All partitions."""

    region: str
    """This one."""
    link: bool
    """Whether the peer answers."""
    items: tuple[PartitionShown, ...]


class ProposalShown(Shown):
    """What one operator proposes and another is to confirm."""

    id: str
    action: Literal["promote", "solo"]
    partition: int
    by: str
    why: str
    ticket: str
    old_home_may_be_solo: bool
    expires: AwareDatetime


class SwitchShown(Shown):
    """A partition after a change, or the proposal that waits for a second person."""

    partition: PartitionShown | None
    proposal: ProposalShown | None


class DecisionAsked(Asked):
    """An operator's word about a held transfer."""

    decision: Decision
    """`deliver`: anyway, with a new token; `accept`: it has been delivered; `abandon`: give it up."""
    why: str = Field(min_length=3, max_length=500)


# -- queries -------------------------------------------------------------------------------------------------------------


class PageAsked(Asked):
    """Which page of a list."""

    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, min_length=1, max_length=2048)


class TransfersAsked(PageAsked):
    """Which transfers."""

    state: State | None = None
    flow: Id | None = None


# -- health --------------------------------------------------------------------------------------------------------------


class Live(Shown):
    """The process answers."""

    live: bool = True


class Ready(Shown):
    """Whether requests can be served, and what was looked at."""

    ready: bool
    checks: dict[str, bool]
