"""Accept: a request or a found file becomes a row. Once the row is there, nothing loses the transfer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from eft.domain.endpoint import Endpoint, SftpEndpoint
from eft.domain.fingerprint import RefusedName, RemoteFile
from eft.domain.flow import Flow, Policy
from eft.domain.names import RemotePath, destination_name, join, partition_of, remote_path, transfer_id
from eft.domain.transfer import Event, Place, State, Transfer
from eft.errors import Conflict, NotFound, Permanent, Transient
from eft.journey.messages import Message, next_message
from eft.ports import Durability, Engine

NO_EVIDENCE: Final = "the region that had it may have delivered it alone; rejoin decides"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """An ad-hoc request for one file. Without `destination_path` the template of the policy names the destination."""

    tenant: str
    source_endpoint: str
    source_path: str
    destination_endpoint: str
    destination_path: str | None = None
    policy: Policy = field(default_factory=Policy)
    expected_sha256: str | None = None
    idempotency_key: str | None = None
    request_hash: str | None = None
    task_token: str | None = field(default=None, repr=False)
    """Of the state machine that waits for its end."""


def accept(engine: Engine, request: Submission) -> Transfer:
    """Returns the transfer of a request, created now or, under the same idempotency key and body, before.

    Raises:
        NotFound: `endpoint_unknown`; Permanent: `name_invalid`, `host_key_unpinned`; Conflict: `idempotency_mismatch`.
    """
    source = engine.registry.endpoint(request.tenant, request.source_endpoint)
    destination = engine.registry.endpoint(request.tenant, request.destination_endpoint)
    for endpoint in (source, destination):
        refuse_unpinned(endpoint)
    unique = (
        ("idempotency", request.idempotency_key) if request.idempotency_key else ("request", engine.clock.nonce(), engine.clock.nonce())
    )
    new_id = transfer_id(request.tenant, *unique, partition=partition_of(request.tenant, destination.id))
    source_path = remote_path(request.source_path)
    wanted = request.destination_path
    path = (
        remote_path(wanted)
        if wanted
        else destination_name(
            request.policy.name_template,
            source=source_path,
            base="",
            at=engine.clock.now(),
            tenant=request.tenant,
            flow="adhoc",
            transfer=new_id,
        )
    )
    transfer = _row(
        engine,
        new_id=new_id,
        tenant=request.tenant,
        source=Place(endpoint=source.id, kind=source.kind, path=source_path),
        destination=Place(endpoint=destination.id, kind=destination.kind, path=path),
        policy=request.policy,
    ).with_(expected_sha256=request.expected_sha256, request_hash=request.request_hash, task_token=request.task_token)
    transfer, existing = put_on_record(engine, transfer)
    if existing is not None and existing.request_hash != request.request_hash:
        msg = "this Idempotency-Key was used with another body; use a new key"
        raise Conflict(msg, reason="idempotency_mismatch")
    return existing or transfer


def put_on_record(engine: Engine, transfer: Transfer) -> tuple[Transfer, Transfer | None]:
    """Journals a transfer in the peer region and creates its row, or, where the peer is its home, journals it in both; the home adopts it.

    Returns:
        The transfer as recorded, and the one that was there before, if one was.

    Raises:
        Transient: `peer_unreachable`, where its policy demands both regions.
    """
    remembered = engine.ownership.remember(transfer, demand_both=transfer.policy.both_regions)
    if transfer.policy.both_regions and remembered.durability is not Durability.BOTH:
        msg = "the other region cannot be reached, and this transfer is to be accepted by both; send it again"
        raise Transient(msg, reason="peer_unreachable")
    transfer = transfer.with_(durability=remembered.durability.value, region_epoch=remembered.region_epoch)
    journalled = None if remembered.existing is None else remembered.existing.with_(elsewhere=remembered.home)
    if remembered.home != engine.ownership.region:
        return transfer.with_(elsewhere=remembered.home), journalled
    if journalled is not None:
        return transfer, _row_or_journalled(engine, journalled)
    if not remembered.evidence and (transfer.flow is not None or transfer.request_hash is not None):
        # It may be the same file, or the same request, that the other region delivered alone.
        transfer = transfer.to(State.HELD, now=transfer.created, reason="no_evidence", error=NO_EVIDENCE)
    return transfer, engine.ledger.create(transfer)


def _row_or_journalled(engine: Engine, journalled: Transfer) -> Transfer:
    """Returns the row of a transfer that was on record before; as it was journalled, where this region has none (yet)."""
    try:
        return engine.ledger.load(journalled.id)
    except NotFound:
        return journalled


def found_transfer(engine: Engine, flow: Flow, file: RemoteFile, *, source: Endpoint, destination: Endpoint) -> Transfer:
    """Returns the row, not yet created, of a found file: the same version found again has the same id.

    Raises:
        Permanent: `name_invalid`: the template makes no good destination name of it.
    """
    new_id = found_id(flow, file)
    path = destination_name(
        flow.policy.name_template,
        source=file.path,
        base=flow.selection.directory,
        at=engine.clock.now(),
        tenant=flow.tenant,
        flow=flow.id,
        transfer=new_id,
    )
    return _row(
        engine,
        new_id=new_id,
        tenant=flow.tenant,
        source=Place(endpoint=source.id, kind=source.kind, path=file.path),
        destination=Place(endpoint=destination.id, kind=destination.kind, path=join(flow.destination_directory, path)),
        policy=flow.policy,
    ).with_(flow=flow.id, fingerprint=file.fingerprint)


def refused_transfer(engine: Engine, flow: Flow, entry: RefusedName, *, kinds: tuple[Endpoint, Endpoint]) -> Transfer:
    """Returns the row of a listed name that is never moved: dead from the start, so that its customer sees it and why."""
    source, destination = kinds
    place = RemotePath(entry.shown)
    row = _row(
        engine,
        new_id=refused_id(flow, entry),
        tenant=flow.tenant,
        source=Place(endpoint=source.id, kind=source.kind, path=place),
        destination=Place(endpoint=destination.id, kind=destination.kind, path=place),
        policy=flow.policy,
    ).with_(flow=flow.id)
    return row.to(State.DEAD, now=row.created, reason="name_invalid" if "symbolic link" not in entry.why else "is_symlink", error=entry.why)


def refused_id(flow: Flow, entry: RefusedName) -> str:
    """Returns the id of the dead transfer that shows a name which is never moved."""
    unique = f"{entry.shown}|{entry.fingerprint.key()}"
    return transfer_id(flow.tenant, flow.id, "refused", unique, partition=partition_of(flow.tenant, flow.destination))


def found_id(flow: Flow, file: RemoteFile) -> str:
    """Returns the id of one version of a file on a flow."""
    return transfer_id(flow.tenant, flow.id, file.path, file.fingerprint.key(), partition=partition_of(flow.tenant, flow.destination))


def first_message(transfer: Transfer) -> Message:
    """Returns the message that starts a transfer.

    Raises:
        ValueError: it rests.
    """
    messages = next_message(transfer)
    if not messages:
        msg = f"transfer {transfer.id} is {transfer.state}"
        raise ValueError(msg)
    return messages[0]


def refuse_unpinned(endpoint: Endpoint) -> None:
    """Sees that an SFTP endpoint has a pinned host key.

    Raises:
        Permanent: `host_key_unpinned`.
    """
    if isinstance(endpoint, SftpEndpoint) and not endpoint.host_keys:
        msg = f"endpoint {endpoint.id} has no pinned host key; test it, confirm the keys it shows, and pin them"
        raise Permanent(msg, reason="host_key_unpinned")


def _row(engine: Engine, *, new_id: str, tenant: str, source: Place, destination: Place, policy: Policy) -> Transfer:
    now = engine.clock.now()
    return Transfer(
        id=new_id,
        tenant=tenant,
        partition=partition_of(tenant, destination.endpoint),
        source=source,
        destination=destination,
        policy=policy,
        created=now,
        since=now,
        due_at=now + engine.tuning.stall,
        timeline=(Event(at=now, state=State.ACCEPTED),),
    )
