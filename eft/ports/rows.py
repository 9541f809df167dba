"""Ports of what is kept: the ledger, limits, the registry, secrets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

from eft.domain.endpoint import Credential, Endpoint, S3Endpoint, SecretRef
from eft.domain.flow import Flow
from eft.domain.memory import Memory
from eft.domain.names import RemotePath
from eft.domain.parts import PartDone
from eft.domain.transfer import Claim, State, Transfer
from eft.errors import EftError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reservation:
    """The answer to D1."""

    outcome: Literal["mine", "busy", "superseded"]
    holder: str | None = None
    """The transfer that holds the path, or that delivered a newer version to it."""
    level: str | None = None
    """Where it is mine: another transfer, which delivered a version of the same order there; their order does not say which is newer."""


@dataclass(frozen=True, slots=True)
class Due:
    """Something that the sweep finds past its time: a transfer, or a fire of a flow whose discover has not ended."""

    kind: Literal["transfer", "fire"]
    id: str
    """Transfer id, or `<tenant>/<flow>/<fire>`."""
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Watch:
    """A directory in which a worker that sleeps may yet leave a source under a token."""

    tenant: str
    endpoint: str
    directory: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Fire:
    """One run of a flow's discover."""

    name: str
    """Its planned time, or `now-…` or `past-…` for one that was asked for; `late-…` and `warn-…` are files that were missing."""
    outcome: dict[str, int] | None
    """Counts; None until it has ended."""
    reason: str | None = None
    """Why it failed, if it did."""
    error: str | None = None
    """The same in words."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a fire, and what those before it did."""

    number: int = 1
    created: int = 0
    refused: int = 0


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

    def record_parts(self, transfer_id: str, *, attempt: int, done: Sequence[PartDone]) -> None:
        """Notes parts of an attempt as durable, in any order. Of notes that two workers made of a part either may be kept."""

    def parts(self, transfer_id: str, *, attempt: int) -> dict[int, PartDone]:
        """Returns the parts of an attempt that are done, by number."""

    def reserve(self, *, endpoint: str, path: RemotePath, transfer: str, claim: Claim, source: str, order: int) -> Reservation:
        """Reserves a destination path IF no other transfer holds it and no newer version (`order`) of the same `source` was delivered.

        Raises:
            LostOwnership: a later claim of the same transfer holds it.
        """

    def release(self, *, endpoint: str, path: RemotePath, transfer: str, claim: Claim, delivered: bool) -> None:
        """Ends a reservation IF it is this transfer's, made under this claim or an earlier one. Nothing happens if it is not.

        `delivered` keeps its order for later comparisons.
        """

    def remember_delivered(self, *, endpoint: str, path: RemotePath, transfer: str, source: str, order: int) -> None:
        """Notes a delivery that another region made, for `reserve` to compare with, IF no newer one of its source is known there."""

    def reservations(self, partition: int) -> Iterator[tuple[str, str, str]]:
        """Yields (endpoint, path, transfer) of the paths that a partition's transfers hold now."""

    def watch(self, watch: Watch) -> None:
        """Notes a directory; of several times noted the latest `until` counts."""

    def watched(self) -> Iterator[Watch]:
        """Yields the directories noted in this region."""

    def unwatch(self, watch: Watch) -> None:
        """Forgets a directory IF its `until` is still the one seen."""

    def count(self, tenant: str, *, since: datetime, state: State | None = None) -> int:
        """Returns how many of a tenant's transfers accepted since a time there are, or are in a state."""

    def due(self, partition: int, *, before: datetime, limit: int = 100) -> Sequence[Due]:
        """Returns what stands still in a partition, oldest first."""

    def postpone(self, due: Due, *, until: datetime) -> bool:
        """Moves a due time IF it is still the one seen; returns whether it was."""

    def fire(self, flow: Flow, *, at: datetime, name: str, partition: int, outcome: dict[str, int] | None = None) -> bool:
        """Claims one fire of a flow IF nobody has; `name` identifies it (its planned time, or the id of a request).

        It is due at `at`; with an outcome it has ended already, and is only on record.
        """

    def begin_fire(self, flow: Flow, *, name: str, until: datetime) -> Run | None:
        """Notes one more run of a fire IF it has not ended, which is due again at `until`; returns the run, None if it has.

        A fire that is not there counts as its first run: it is another region's.
        """

    def fire_goes_on(self, flow: Flow, *, name: str, created: int, refused: int) -> None:
        """Adds what a run did that was not the fire's last; nothing happens if the fire has ended."""

    def fire_done(self, flow: Flow, *, name: str, outcome: dict[str, int], why: EftError | None = None) -> None:
        """Notes that a fire's discover has ended, with counts, and why it failed; nothing happens if it is noted already."""

    def end_fire(self, fire_id: str) -> None:
        """Ends a fire (`<tenant>/<flow>/<fire>`) whose flow is gone; nothing happens if it has ended, or is not there."""

    def fires(self, flow: Flow, *, limit: int) -> Sequence[Fire]:
        """Returns the flow's latest fires, newest first."""

    def last_fire(self, flow: Flow) -> datetime | None:
        """Returns when the flow's schedule last fired."""

    def memory(self, flow: Flow) -> Memory:
        """Returns what the flow remembers of its source; an empty memory where it has none."""

    def remember(self, flow: Flow, memory: Memory) -> bool:
        """Stores a memory IF the stored one is still of its revision; returns whether it was."""

    def forget(self, flow: Flow) -> None:
        """Drops a memory, for its flow is deleted; nothing happens if there is none."""


class Slots(NamedTuple):
    """How many slots of a key are taken, and how many there may be now: the limit, or what is allowed below it."""

    taken: int
    of: int


class Limits(Protocol):
    """Bounds that hold across the fleet: slots are leases that a crash gives back; a breaker stops hammering a dead server."""

    def acquire(self, key: str, *, limit: int, holder: str, lease: timedelta) -> Slots | None:
        """Takes, or renews, one of `limit` slots of `key` for `holder`; returns how many are taken then, or None if it got none.

        Where `ease` allows fewer, one more is let in `congestion.WIDENS` after the last change, and so on up to the limit.
        """

    def ease(self, key: str, *, to: int) -> bool:
        """Lets no more than `to` holders take a slot from now on; those that have one keep it. Returns whether that is less than before.

        Not twice within `congestion.EASES`.
        """

    def release(self, key: str, *, holder: str) -> None:
        """Gives a slot back."""

    def shut_until(self, endpoint: str) -> datetime | None:
        """Returns until when an endpoint's breaker lets nothing through, or None. The first caller after that time probes; others wait."""

    def failed(self, endpoint: str, *, reason: str) -> None:
        """Counts a failure of the endpoint; the fifth in a row opens the breaker, for longer each time up to five minutes."""

    def succeeded(self, endpoint: str) -> None:
        """Closes the breaker; costs no write when it was closed."""

    def inconclusive(self, endpoint: str) -> None:
        """Lets the next caller probe at once, where this one did and learnt nothing of the endpoint; costs nothing when it is closed."""


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

    def tenants(self) -> Sequence[str]:
        """Returns every tenant that has an endpoint or a flow."""

    def scheduled_flows(self) -> Iterator[Flow]:
        """Yields every tenant's enabled flows that have a schedule or expect files by a time."""

    def arrival_flows(self, bucket: str) -> Iterator[tuple[Flow, S3Endpoint]]:
        """Yields every tenant's enabled flows that wait for arrivals in a bucket, each with its source."""


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
