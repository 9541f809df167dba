"""What lies in a row of the ledger's table: its keys, its attributes, and what they say (the table: `eft.adapters.ledger`)."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from eft.adapters.table import Row
from eft.domain.announcement import milestones
from eft.domain.instants import fire_time, instant, millis, sortable
from eft.domain.names import RemotePath, shard_of
from eft.domain.transfer import FINAL, RESTING, ROW_FORMAT, Claim, Transfer
from eft.errors import Permanent
from eft.ports import Due

INLINE_PARTS: Final = 100
"""Parts that a commit keeps in its row; a longer list lies beside it, so that a row stays far below DynamoDB's 400 KB."""
RESTING_SHARDS: Final = "resting-"
"""What the shards of rows that wait for a person begin with."""
_OWN_ATTRIBUTES: Final = frozenset({"format", "state", "fence", "claim_until", "due_at", "announced"})
OUTBOX_SHARDS: Final = 4
"""Values of the outbox's partition key."""


def transfer_row(transfer: Transfer) -> Row:
    """Returns the attributes of a transfer; those that do not apply are absent, which keeps them out of the indexes."""
    frozen = frozen_digest(transfer)
    # A default may only change with ROW_FORMAT. A policy is written in full: it was agreed when the transfer was accepted.
    body = transfer.model_dump(mode="json", exclude_defaults=True, exclude=set(_OWN_ATTRIBUTES))
    body["policy"] = transfer.policy.model_dump(mode="json")
    pk, sk = transfer_key(transfer.id)
    row: Row = {
        "pk": pk,
        "sk": sk,
        "format": ROW_FORMAT,
        "tenant": transfer.tenant,
        "created": f"{sortable(transfer.created)}#{transfer.id}",
        "state": transfer.state.value,
        "tenant_state": f"{transfer.tenant}#{transfer.state}",
        "fence": transfer.fence,
        "region_epoch": transfer.region_epoch,
        "milestones": len(milestones(transfer)),
    }
    if transfer.announced is not None:
        row["announced"] = transfer.announced
    if frozen is not None:
        body["commit"]["parts"] = []
        row["frozen"] = frozen
    row["body"] = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    if transfer.flow is not None:
        row["tenant_flow"] = f"{transfer.tenant}#{transfer.flow}"
        row["tenant_flow_state"] = f"{transfer.tenant}#{transfer.flow}#{transfer.state}"
    if transfer.claim_until is not None:
        row["claim_until"] = millis(transfer.claim_until)
    if transfer.due_at is not None and transfer.state not in RESTING and transfer.elsewhere is None:
        row |= {"due_at": millis(transfer.due_at), "due_shard": str(transfer.partition)}
    if transfer.state in RESTING - FINAL and transfer.elsewhere is None:
        row |= {"due_at": millis(transfer.since), "due_shard": resting_shard(transfer.partition)}
    return row


def transfer_of(row: Row) -> Transfer:
    """Returns the transfer of a row, without a part list that lies beside it.

    Raises:
        Permanent: `row_format_unknown`.
    """
    check_format(row)
    fields: dict[str, Any] = json.loads(row["body"])
    fields |= {"state": row["state"], "fence": row["fence"]}
    if "claim_until" in row:
        fields["claim_until"] = instant(row["claim_until"])
    if "due_shard" in row and row["state"] not in RESTING:
        fields["due_at"] = instant(row["due_at"])
    if "announced" in row:
        fields["announced"] = row["announced"]
    return Transfer.model_validate(fields)


def outbox_keys(transfer: Transfer) -> Row:
    """Returns the attributes that put a transfer into the index `outbox`; always the same, so that more to tell moves nothing there."""
    return {
        "outbox": str(shard_of(transfer.tenant, transfer.id, shards=OUTBOX_SHARDS)),
        "outbox_at": millis(transfer.created),
    }


def check_format(row: Row) -> None:
    """Sees that this release knows the row's format.

    Raises:
        Permanent: `row_format_unknown`.
    """
    if row["format"] > ROW_FORMAT:
        msg = f"this row has format {row['format']} and this release knows up to {ROW_FORMAT}; update the engine"
        raise Permanent(msg, reason="row_format_unknown")


def checked(row: Row) -> Row:
    """Returns the row if this release knows its format.

    Raises:
        Permanent: `row_format_unknown`.
    """
    check_format(row)
    return row


def frozen_digest(transfer: Transfer) -> str | None:
    """Returns the digest that names a part list kept beside the row, or None where the row keeps it."""
    if transfer.commit is None or len(transfer.commit.parts) <= INLINE_PARTS:
        return None
    return digest("\n".join(part.model_dump_json() for part in transfer.commit.parts))


def transfer_key(transfer_id: str) -> tuple[str, str]:
    """Returns pk and sk of a transfer."""
    return f"T#{transfer_id}", "T"


def path_key(endpoint: str, path: RemotePath) -> tuple[str, str]:
    """Returns pk and sk of a path's reservation."""
    return f"R#{endpoint}#{hashlib.sha256(path.encode()).hexdigest()}", "R"


def claim_mark(transfer: str, claim: Claim) -> str:
    """Returns what a reservation keeps of the claim it was made under: later claims of one transfer sort after earlier ones.

    It names the transfer, for a release before this one leaves the mark of a holder that has gone to the next.
    """
    return f"{transfer}#{claim.region_epoch:010d}#{claim.fence:010d}"


def flow_key(tenant: str, flow: str) -> str:
    """Returns pk of a flow's fires and memory."""
    return f"F#{tenant}#{flow}"


def fire_key(tenant: str, flow: str, name: str) -> tuple[str, str]:
    """Returns pk and sk of a fire; a schedule's is named by its planned time."""
    return flow_key(tenant, flow), f"{'R' if fire_time(name) is None else 'S'}#{name}"


def reserved_shard(partition: str) -> str:
    """Returns the shard of the paths that a partition's transfers hold; no sweep looks there."""
    return f"reserved-{partition}"


def resting_shard(partition: int) -> str:
    """Returns the shard of the rows that wait for a person: no sweep looks there, a switch between regions does."""
    return f"{RESTING_SHARDS}{partition}"


def due_of(key: Row) -> Due:
    """Returns what a key in the index `due` stands for."""
    kind, _, rest = key["pk"].partition("#")
    if kind == "T":
        return Due("transfer", rest, instant(key["due_at"]))
    tenant, _, flow = rest.partition("#")
    return Due("fire", f"{tenant}/{flow}/{key['sk'][2:]}", instant(key["due_at"]))


def due_key(due: Due) -> tuple[str, str]:
    """Returns pk and sk of what is due."""
    return transfer_key(due.id) if due.kind == "transfer" else fire_key(*_fire_parts(due.id))


def _fire_parts(fire_id: str) -> tuple[str, str, str]:
    tenant, flow, name = fire_id.split("/", 2)
    return tenant, flow, name


def digest(text: str) -> str:
    """Returns 32 hex digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]
