"""What the journey asks of the outside world. Small protocols; adapters and fakes implement them and raise only `eft.errors`.

One contract suite (`tests/contract/`) runs on the fake and on the real adapter of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Generic, Literal, Protocol, TypeVar

from eft.domain.endpoint import Credential, Endpoint, HostKey, SecretRef
from eft.domain.fingerprint import RefusedName, RemoteFile
from eft.domain.flow import Flow
from eft.domain.names import RemotePath
from eft.domain.ownership import Intent, IntentAnswer, JournalEntry, Mode, Partition, Proposal, Standing
from eft.domain.parts import MIB, Part, PartDone
from eft.domain.transfer import Commit, State, Transfer, Upload

Bytes = bytes | bytearray | memoryview
T = TypeVar("T")


class Clock(Protocol):
    """Time, randomness and identity, so that the whole engine runs under a simulated one."""

    def now(self) -> datetime:
        """Returns the time, aware, in UTC."""

    def monotonic(self) -> float:
        """Returns seconds on a clock that never goes back."""

    def jitter(self) -> float:
        """Returns a random number in [0, 1)."""

    def nonce(self) -> str:
        """Returns 16 random lower-case hex digits."""


# -- files -------------------------------------------------------------------------------------------------------------------------------


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


@dataclass(frozen=True, slots=True)
class Committed:
    """The answer to a commit."""

    outcome: CommitOutcome
    etag: str | None = None
    version: str | None = None


class MoveOutcome(StrEnum):
    """What a rename that never overwrites found."""

    DONE = "done"
    MISSING = "missing"
    EXISTS = "exists"


class Source(Protocol):
    """The reading side of an endpoint. Paths are relative to its root."""

    pins_versions: bool
    """Whether disposal goes by version (S3) instead of by renaming to a token (SFTP)."""

    def list(self, directory: str, *, recursive: bool) -> Iterator[RemoteFile | RefusedName]:
        """Yields the regular files below a directory, tokens of ours left out; symbolic links and bad names as RefusedName.

        Raises:
            NotFound: `directory_missing`.
        """

    def stat(self, path: RemotePath) -> RemoteFile:
        """Returns the file as it is now.

        Raises:
            NotFound: `source_missing`.
        """

    def read(self, file: RemoteFile, *, start: int, size: int) -> Iterator[Bytes]:
        """Yields exactly the bytes [start, start + size), pinned to the file's version where the store can.

        Raises:
            Permanent: `source_changed` when the version is gone or the file is shorter; `source_missing`; `permission_denied`.
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
    lanes: int
    """Workers that may write one upload at a time: 1 where writes must be sequential."""

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

    def verify(self, upload: Upload) -> None:
        """Checks that the token holds exactly the planned number of bytes, as far as the server tells.

        Raises:
            Transient: `size_differs`; the attempt is abandoned.
        """

    def read_back(self, upload: Upload) -> Iterator[Bytes] | None:
        """Yields the bytes written so far under the token, or returns None where an uncommitted upload cannot be read."""

    def commit(self, commit: Commit) -> Committed:
        """Makes the file visible, once: rename of the token, or complete-multipart with If-None-Match unless overwriting.

        Checks by itself, directly before, that the final name is absent unless overwriting. Safe to repeat.
        """

    def token_exists(self, token: str, path: RemotePath) -> bool:
        """Returns whether the token is still there to be consumed."""

    def consume(self, token: str, path: RemotePath) -> bool:
        """Removes the token without committing; returns True if this call consumed it, False if it was gone already."""

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

    def probe(self, endpoint: Endpoint) -> ProbeReport:
        """Tests an endpoint: connect, host key, authentication, list, and (SFTP) what the server offers. Never raises for what it finds."""


# -- rows --------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reservation:
    """The answer to D1."""

    outcome: Literal["mine", "busy", "superseded"]
    holder: str | None = None
    """The transfer that holds the path, or that delivered a newer version to it."""


@dataclass(frozen=True, slots=True)
class Due:
    """Something that the sweep finds past its time: a transfer, or a fire of a flow whose discover has not ended."""

    kind: Literal["transfer", "fire"]
    id: str
    """Transfer id, or `<tenant>/<flow>/<fire>`."""
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a listing and the cursor of the next, None at the end."""

    items: Sequence[T]
    cursor: str | None


class Ledger(Protocol):
    """The rows of transfers: the truth. Every write is conditional."""

    def create(self, transfer: Transfer) -> Transfer | None:
        """Puts a new row IF absent; returns None when created, else the row that stands there."""

    def load(self, transfer_id: str) -> Transfer:
        """Returns the row, read consistently.

        Raises:
            NotFound: `transfer_unknown`.
        """

    def known(self, transfer_ids: Sequence[str]) -> set[str]:
        """Returns those of the ids that have a row."""

    def claim(self, transfer_id: str, *, worker: str, now: datetime, lease: timedelta, force: bool = False) -> Transfer | None:
        """Raises the fence by one and returns the row, IF no other worker's claim is alive (`force`: even then); else None.

        Raises:
            NotFound: `transfer_unknown`; nothing is created.
        """

    def renew(self, transfer: Transfer, *, until: datetime) -> None:
        """Extends the claim and the due time IF the fence is still the transfer's.

        Raises:
            LostOwnership: it is not.
        """

    def save(self, transfer: Transfer, *, was: State) -> None:
        """Writes the row IF its fence is the transfer's and its state is `was`.

        Raises:
            LostOwnership: either differs.
        """

    def adopt(self, transfer: Transfer) -> bool:
        """Puts a row that another region has carried IF absent or of a lower region_epoch; returns whether it was written."""

    def unsettled(self, partition: int) -> Iterator[Transfer]:
        """Yields a partition's rows that are neither settled nor cancelled: those under way, held and dead."""

    def page(
        self,
        tenant: str,
        *,
        state: State | None = None,
        flow: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[Transfer]:
        """Returns a tenant's transfers, newest first, at constant cost.

        Raises:
            Permanent: `cursor_invalid`.
        """

    def record_part(self, transfer_id: str, *, attempt: int, done: PartDone) -> None:
        """Notes a part of an attempt as durable; the first note of a part stays."""

    def parts(self, transfer_id: str, *, attempt: int) -> dict[int, PartDone]:
        """Returns the parts of an attempt that are done, by number."""

    def reserve(self, *, endpoint: str, path: RemotePath, transfer: str, source: str, order: int) -> Reservation:
        """Reserves a destination path IF no other transfer holds it and no newer version (`order`) of the same `source` was delivered."""

    def release(self, *, endpoint: str, path: RemotePath, transfer: str, delivered: bool) -> None:
        """Ends a reservation IF it is this transfer's; `delivered` keeps its order for later comparisons. Nothing happens if it is not."""

    def due(self, partition: int, *, before: datetime, limit: int = 100) -> Sequence[Due]:
        """Returns what stands still in a partition, oldest first."""

    def postpone(self, due: Due, *, until: datetime) -> bool:
        """Moves a due time IF it is still the one seen; returns whether it was."""

    def fire(self, flow: Flow, *, at: datetime, name: str, partition: int) -> bool:
        """Claims one fire of a flow IF nobody has; `name` identifies it (its planned time, or the id of a request). It is due at `at`."""

    def fire_done(self, flow: Flow, *, name: str, outcome: dict[str, int]) -> None:
        """Notes that a fire's discover has ended, with counts; nothing happens if it is noted already."""

    def last_fire(self, flow: Flow) -> datetime | None:
        """Returns when the flow's schedule last fired."""


class Limits(Protocol):
    """Bounds that hold across the fleet: slots are leases that a crash gives back; a breaker stops hammering a dead server."""

    def acquire(self, key: str, *, limit: int, holder: str, lease: timedelta) -> bool:
        """Takes, or renews, one of `limit` slots of `key` for `holder`; returns whether it has one."""

    def release(self, key: str, *, holder: str) -> None:
        """Gives a slot back."""

    def shut_until(self, endpoint: str) -> datetime | None:
        """Returns until when an endpoint's breaker lets nothing through, or None. The first caller after that time probes; others wait."""

    def failed(self, endpoint: str, *, reason: str) -> None:
        """Counts a failure of the endpoint; the fifth in a row opens the breaker, for longer each time up to five minutes."""

    def succeeded(self, endpoint: str) -> None:
        """Closes the breaker; costs no write when it was closed."""


class Registry(Protocol):
    """Tenants' endpoints and flows."""

    def add_endpoint(self, endpoint: Endpoint) -> None:
        """Puts IF absent.

        Raises:
            Conflict: `endpoint_exists`.
        """

    def change_endpoint(self, endpoint: Endpoint) -> None:
        """Puts IF the stored revision is one less.

        Raises:
            Conflict: `revision_differs`.
        """

    def endpoint(self, tenant: str, endpoint_id: str) -> Endpoint:
        """Returns it.

        Raises:
            NotFound: `endpoint_unknown`.
        """

    def endpoints(self, tenant: str, *, limit: int = 50, cursor: str | None = None) -> Page[Endpoint]:
        """Returns a tenant's endpoints by id."""

    def remove_endpoint(self, tenant: str, endpoint_id: str, *, revision: int) -> None:
        """Removes IF the revision is this.

        Raises:
            Conflict: `revision_differs`.
        """

    def add_flow(self, flow: Flow) -> None:
        """Puts IF absent.

        Raises:
            Conflict: `flow_exists`.
        """

    def change_flow(self, flow: Flow) -> None:
        """Puts IF the stored revision is one less.

        Raises:
            Conflict: `revision_differs`.
        """

    def flow(self, tenant: str, flow_id: str) -> Flow:
        """Returns it.

        Raises:
            NotFound: `flow_unknown`.
        """

    def flows(self, tenant: str, *, limit: int = 50, cursor: str | None = None) -> Page[Flow]:
        """Returns a tenant's flows by id."""

    def remove_flow(self, tenant: str, flow_id: str, *, revision: int) -> None:
        """Removes IF the revision is this.

        Raises:
            Conflict: `revision_differs`.
        """

    def scheduled_flows(self) -> Iterator[Flow]:
        """Yields every tenant's enabled flows that have a schedule."""


class Secrets(Protocol):
    """Credentials in Secrets Manager."""

    def get(self, ref: SecretRef) -> Credential:
        """Returns the credential; cached in memory for a short while.

        Raises:
            Permanent: `secret_missing`, `secret_denied`, `secret_malformed`.
        """

    def forget(self, ref: SecretRef) -> None:
        """Drops what is cached of a credential, because a server has refused it: the next `get` asks anew."""

    def put(self, *, tenant: str, endpoint: str, credential: Credential) -> SecretRef:
        """Stores a credential as the endpoint's current one and returns its reference."""

    def remove(self, ref: SecretRef) -> None:
        """Deletes the secret; nothing happens if it is gone."""


class OwnershipTable(Protocol):
    """One region's ownership table: partitions, intents, accept journals. It never replicates; a peer's is reached over the link.

    Raises everywhere:
        Transient: `peer_unreachable` from a peer's table behind a broken link, else what the vendor's error says.
    """

    def partitions(self) -> Sequence[Partition]:
        """Returns all partitions by number."""

    def partition(self, number: int) -> Partition:
        """Returns one, read consistently."""

    def change(self, new: Partition, *, seen: Partition) -> bool:
        """Writes a partition IF home, region_epoch, mode, phase and evidence are still those seen; returns whether they were."""

    def add(self, first: Partition) -> None:
        """Puts a partition IF absent; nothing happens if it is there."""

    def intend(self, intent: Intent, *, home: str, mode: Mode | None) -> IntentAnswer:
        """Writes an intent IF the partition's home is `home`, its gate is not above the intent's region_epoch, and `may_replace` allows it.

        Where `mode` is given, the gate must equal the region_epoch and the mode be this; abandoned intents follow the same rules.
        """

    def intent(self, transfer: str) -> Intent | None:
        """Returns the intent of a transfer."""

    def intents(self, partition: int) -> Iterator[Intent]:
        """Yields the intents of a partition."""

    def journal(self, entry: JournalEntry) -> JournalEntry | None:
        """Puts an entry IF absent; returns None when written, else the entry that stands there."""

    def close_journal(self, transfer: str) -> None:
        """Notes that a transfer rests for good; nothing happens if there is no entry."""

    def journals(self, partition: int, *, open_only: bool = True) -> Iterator[JournalEntry]:
        """Yields the entries of a partition."""

    def journalled(self, transfers: Sequence[str]) -> set[str]:
        """Returns those of the ids that have an entry."""

    def journal_entry(self, transfer: str) -> JournalEntry | None:
        """Returns a transfer's entry."""

    def propose(self, proposal: Proposal) -> None:
        """Puts a proposal IF absent."""

    def proposal(self, proposal_id: str) -> Proposal | None:
        """Returns a proposal."""

    def lease(self, number: int, *, owner: str, seen: Lease | None) -> Lease | None:
        """Takes a partition's chores IF its lease is still the one seen (None: there is none); returns it with the next lease_epoch."""

    def renew_lease(self, number: int, *, owner: str, lease_epoch: int) -> bool:
        """Raises `rvn` IF owner and lease_epoch are these; returns whether they were."""

    def leases(self) -> dict[int, Lease]:
        """Returns who has the chores of which partition."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Who does a partition's chores (sweep, fires). It saves work; fences and region_epoch save files."""

    owner: str
    lease_epoch: int
    rvn: int
    """Rises with each renewal: whoever waits takes over only when it stood still on the waiter's own clock."""


class Ownership(Protocol):
    """Which region owns a partition, and the peer's ack before a commit (DESIGN 6)."""

    region: str

    def standing(self, partition: int, *, begin: bool = False) -> Standing:
        """Returns this region's right to the partition; `begin` asks for the right to begin something new there.

        Raises:
            LostOwnership: another region is its home, or it is draining and `begin` is asked for.
        """

    def owned(self) -> Sequence[int]:
        """Returns the partitions whose home is this region."""

    def ack(self, intent: Intent) -> None:
        """Returns once the intent is written at home and, under dual mode, acknowledged by the peer.

        Raises:
            LostOwnership: a higher region_epoch fences this one.
            Undecidable: `other_token`: an attempt that was never abandoned may have been committed.
            Transient: `peer_unreachable`; nothing may be committed.
        """

    def abandon(self, intent: Intent) -> None:
        """Writes ABANDON(token), at home and at the peer, before the token is consumed without a commit.

        Raises:
            LostOwnership: a higher region_epoch fences this one.
            Transient: `peer_unreachable`.
        """

    def remember(self, transfer: Transfer, *, demand_both: bool = False) -> Remembered:
        """Journals an accepted transfer in the peer region before its row is created at home; in both where the peer is its home.

        With `demand_both` nothing is written here when the peer cannot be reached.
        """

    def known(self, transfers: Sequence[str]) -> set[str]:
        """Returns those of the ids that this region's journal has: transfers accepted wherever, in any era."""

    def forget(self, transfer: Transfer) -> None:
        """Notes in the journals, best effort, that a transfer rests for good."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """The answer to `remember`."""

    durability: Durability
    home: str
    """The region that creates its row and carries it out."""
    region_epoch: int = 0
    existing: Transfer | None = None
    """The transfer that was on record before, where the peer is home."""


class Durability(StrEnum):
    """In how many regions an accepted transfer is on record."""

    ONE = "single-region"
    BOTH = "both-regions"


@dataclass(frozen=True, slots=True)
class Tuning:
    """Figures of the journey; settings fill them."""

    part_size: int = 16 * MIB
    lane_width: int = 4
    """Lanes of one large file at once, where its destination allows parallel writers."""
    lane_threshold: int = 4
    """Parts from which on a file is worth lanes."""
    inline_size: int = 16 * MIB
    """Files up to this size go through all steps in one slice."""
    slice: timedelta = timedelta(seconds=45)
    lease: timedelta = timedelta(seconds=75)
    """Life of a claim; longer than a slice, shorter than the queue's visibility timeout."""
    stall: timedelta = timedelta(seconds=120)
    """Time without any write to a row after which the sweep looks."""
    tenant_window: int = 16
    """Slices in flight per tenant."""
    admission_lease: timedelta = timedelta(seconds=75)
    staging_retention: timedelta = timedelta(days=14)
    stale_upload_age: timedelta = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Peer:
    """What a process knows of the other region, and the table that speaks for its own."""

    region: str
    own: OwnershipTable
    table: OwnershipTable
    """The peer's, over the link."""
    ledger: Ledger
    """The peer's, over the link."""


@dataclass(frozen=True, slots=True)
class Engine:
    """All ports of one process."""

    clock: Clock
    ledger: Ledger
    limits: Limits
    registry: Registry
    secrets: Secrets
    stores: Stores
    ownership: Ownership
    tuning: Tuning = field(default_factory=Tuning)
    peer: Peer | None = None
    """None where one region is configured."""
