"""/v1/transfers: submit, follow, cancel, re-drive."""

from __future__ import annotations

from flask import Blueprint, request, url_for

from api.auth import Scope
from api.errors import FieldError
from api.flows import endpoint_exists
from api.operation import Answered, announce, body_hash, caller, engine, idempotency_key, invalid, operation
from api.schemas.transfers import (
    DecisionAsked,
    EventShown,
    PlaceShown,
    Progress,
    ReceiptShown,
    RedriveAsked,
    RedriveShown,
    Refusal,
    TransferNew,
    TransferPage,
    TransfersAsked,
    TransferShown,
    TransferSummary,
)
from eft.domain.names import PARTITIONS, partition_of, transfer_id
from eft.domain.transfer import Place, State, Transfer
from eft.errors import Conflict, EftError, Transient
from eft.journey import operate
from eft.journey.accept import Submission, accept
from eft.journey.held import decide
from eft.journey.messages import Message, next_message
from eft.regions.routing import at_home, find, page

transfers = Blueprint("transfers", __name__, url_prefix="/v1/transfers")


@transfers.post("")
@operation(
    summary="Submit a transfer",
    scope=Scope.TRANSFERS_WRITE,
    body=TransferNew,
    answer=TransferShown,
    status=202,
    idempotent=True,
    also=(409,),
)
def submit(body: TransferNew) -> Answered:
    """Moves one file, once. The answer means that the transfer is recorded and will not be lost.

    With an Idempotency-Key a request may be repeated: the same body gets the same transfer, another one 422 `idempotency_mismatch`.
    Keys are kept as long as their transfers.
    """
    key = idempotency_key()
    places = {"source": body.source.endpoint, "destination": body.destination.endpoint}
    unknown = [side for side, endpoint in places.items() if not endpoint_exists(endpoint)]
    if unknown:
        raise invalid(
            *(FieldError(field=f"/{side}/endpoint", message="is no endpoint of yours; see GET /v1/endpoints") for side in unknown)
        )
    if key is not None:
        _refuse_elsewhere(key, body.destination.endpoint)
    transfer = accept(
        engine(),
        Submission(
            tenant=caller().tenant,
            source_endpoint=body.source.endpoint,
            source_path=body.source.path,
            destination_endpoint=body.destination.endpoint,
            destination_path=body.destination.path,
            policy=body.policy,
            expected_sha256=body.expected_sha256,
            idempotency_key=key,
            request_hash=None if key is None else body_hash(request.get_data()),
        ),
    )
    announce(next_message(transfer))
    return Answered(shown(transfer), headers={"Location": url_for("transfers.show", transfer_id=transfer.id)})


@transfers.get("")
@operation(summary="List transfers", scope=Scope.TRANSFERS_READ, query=TransfersAsked, answer=TransferPage)
def listing(query: TransfersAsked) -> TransferPage:
    """Newest first, of one state or one flow if asked; `next_cursor` asks for the next page, with the same filters."""
    found = page(engine(), caller().tenant, state=query.state, flow=query.flow, limit=query.limit, cursor=query.cursor)
    return TransferPage(items=tuple(summary(t) for t in found.items), next_cursor=found.cursor, missing=found.missing)


@transfers.get("/<id:transfer_id>")
@operation(summary="Show a transfer", scope=Scope.TRANSFERS_READ, answer=TransferShown)
def show(transfer_id: str) -> TransferShown:
    """With its timeline and how many bytes are durably where they go."""
    return shown(find(engine(), caller().tenant, transfer_id))


@transfers.post("/<id:transfer_id>/cancel")
@operation(summary="Cancel a transfer", scope=Scope.TRANSFERS_WRITE, answer=TransferShown, also=(409,))
def cancel(transfer_id: str) -> TransferShown:
    """Ends a transfer that has not begun to commit; after that the answer is 409 `too_late`. Cancelling twice is harmless."""
    return shown(operate.cancel(at_home(engine(), transfer_id), caller().tenant, transfer_id, caller().subject))


@transfers.post("/<id:transfer_id>/redrive")
@operation(summary="Re-drive a transfer", scope=Scope.TRANSFERS_WRITE, answer=TransferShown, status=202, also=(409,))
def redrive(transfer_id: str) -> TransferShown:
    """Sends a dead or held transfer round again from the step that failed: from our own copy where there is one, and with the same one-shot
    token where it may have been delivered.
    """
    ports = at_home(engine(), transfer_id)
    transfer = operate.redrive(ports, caller().tenant, transfer_id, caller().subject)
    if ports is engine():
        announce(next_message(transfer))
    return shown(transfer)


@transfers.post("/<id:transfer_id>/decide")
@operation(
    summary="Decide a held transfer",
    scope=Scope.OPERATOR,
    body=DecisionAsked,
    answer=TransferShown,
    status=202,
    also=(409, 503),
)
def decision(transfer_id: str, body: DecisionAsked) -> TransferShown:
    """Before anything else its token is written off, in both regions, and consumed. Where that shows the file at its destination, it is
    delivered, whatever the decision was.
    """
    ports = at_home(engine(), transfer_id)
    transfer = decide(ports, caller().tenant, transfer_id, body.decision, by=caller().subject, why=body.why)
    if ports is engine():
        announce(next_message(transfer))
    return shown(transfer)


@transfers.post("/redrive")
@operation(summary="Re-drive transfers by filter", scope=Scope.TRANSFERS_WRITE, body=RedriveAsked, answer=RedriveShown)
def redrive_many(body: RedriveAsked) -> RedriveShown:
    """Looks at no more than `limit` transfers; ask again with `next_cursor` as `cursor` until it is null.

    `refused` names those left as they were.
    """
    found = page(engine(), caller().tenant, state=body.state, flow=body.flow, limit=body.limit, cursor=body.cursor)
    refused: list[Refusal] = []
    messages: list[Message] = []
    redriven = 0
    for transfer in found.items:
        ports = at_home(engine(), transfer.id)
        try:
            again = operate.redrive(ports, transfer.tenant, transfer.id, caller().subject)
        except Transient:
            announce(messages)
            raise
        except EftError as error:
            refused.append(Refusal(id=transfer.id, reason=error.reason, message=str(error)))
            continue
        redriven += 1
        # What is at home in the other region is due there: its sweep sends it on.
        messages += next_message(again) if ports is engine() else []
    announce(messages)
    return RedriveShown(seen=len(found.items), redriven=redriven, refused=tuple(refused), next_cursor=found.cursor)


def _refuse_elsewhere(key: str, destination: str) -> None:
    """Sees that a key was not used for another destination: that transfer's id names another partition, so `accept` would not meet it.

    Raises:
        Conflict: `idempotency_mismatch`.
    """
    tenant = caller().tenant
    here = partition_of(tenant, destination)
    others = [transfer_id(tenant, "idempotency", key, partition=other) for other in range(PARTITIONS) if other != here]
    if engine().ledger.known(others):
        raise Conflict("this Idempotency-Key was used with another body; use a new key", reason="idempotency_mismatch")


def summary(transfer: Transfer) -> TransferSummary:
    """Returns a transfer as a list shows it."""
    return TransferSummary(
        id=transfer.id,
        state=transfer.state,
        flow=transfer.flow,
        source=_place(transfer.source),
        destination=_place(transfer.destination),
        size=transfer.size,
        reason=transfer.reason,
        error=transfer.error,
        created=transfer.created,
        since=transfer.since,
    )


def shown(transfer: Transfer) -> TransferShown:
    """Returns a transfer as its owner sees it: no token, no fence, nothing that only workers need."""
    receipt = transfer.receipt
    return TransferShown(
        **summary(transfer).model_dump(),
        fingerprint=transfer.fingerprint,
        policy=transfer.policy,
        expected_sha256=transfer.expected_sha256,
        durability=transfer.durability,
        elsewhere=transfer.elsewhere,
        next_step=transfer.next_step,
        next_try=transfer.due_at,
        attempt=transfer.attempt,
        tries=transfer.tries,
        redrives=transfer.redrives,
        held_from=transfer.held_from,
        staged=transfer.staged is not None,
        progress=progress(transfer),
        receipt=None
        if receipt is None
        else ReceiptShown(
            path=receipt.path,
            size=receipt.size,
            checksum=receipt.checksum,
            etag=receipt.etag,
            version=receipt.version,
            at=receipt.at,
        ),
        timeline=tuple(
            EventShown(
                at=event.at,
                state=event.state,
                attempt=event.attempt,
                bytes=event.bytes,
                reason=event.reason,
                error=event.error,
                by=event.by,
            )
            for event in transfer.timeline
        ),
    )


def progress(transfer: Transfer) -> Progress:
    """Returns how far a transfer's present upload has come, from the parts noted as durable."""
    total = transfer.size
    if transfer.receipt is not None or transfer.commit is not None:
        size = transfer.receipt.size if transfer.receipt is not None else total or 0
        count = None if transfer.commit is None else len(transfer.commit.parts)
        return Progress(into="destination", bytes_done=size, bytes_total=size, parts_done=count or 0, parts_total=count)
    upload = transfer.upload or (transfer.staging if transfer.staged is None else None)
    if upload is not None:
        done = engine().ledger.parts(transfer.id, attempt=upload.attempt)
        return Progress(
            into="destination" if upload is transfer.upload else "staging",
            bytes_done=sum(part.size for part in done.values()),
            bytes_total=upload.plan.size,
            parts_done=len(done),
            parts_total=upload.plan.count,
        )
    if transfer.staged is not None and transfer.state in {State.STAGED, State.DEAD, State.HELD, State.CANCELLED}:
        size = transfer.staged.fingerprint.size
        return Progress(into="staging", bytes_done=size, bytes_total=size, parts_done=0, parts_total=None)
    return Progress(into=None, bytes_done=0, bytes_total=total, parts_done=0, parts_total=None)


def _place(place: Place) -> PlaceShown:
    return PlaceShown(endpoint=place.endpoint, kind=place.kind, path=place.path)
