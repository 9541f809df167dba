"""The ledger in DynamoDB: one item per transfer and beside it what belongs to it. Single-item conditional writes, no scans.

    pk                    sk                       what                            sparse, in index `due`
    T#<transfer>          T                        the transfer                    while something has to happen to it;
                                                                                   in `outbox` while others are to be told of it
    T#<transfer>          P#…, C#…                 `eft.adapters.ledger_parts`
    R#<endpoint>#<hash>   R                        reservation of a path
    F#<tenant>#<flow>     …                        `eft.adapters.ledger_fires`
    W#<tenant>#<endpoint> …                        `eft.adapters.ledger_watches`

A transfer's state, fence, claim and due time are attributes, for conditions read them; all else is the JSON text `body`. A
save costs one write to the table, and to an index only where that index's keys change: all are KEYS_ONLY.

A claim and what it guards, two workers A and B:

    A  claim     fence 6 → 7 IF no claim is alive                              7 is A's
    A  …stops, its claim runs out…
    B  claim     fence 7 → 8 IF claim_until < now                              8 is B's
    A  …wakes…
    A  save      IF fence = 7 AND state = what A left                          refused: LostOwnership, A drops the work
    B  save      IF fence = 8 AND state = what B left                          written
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from eft.adapters.aws import AwsSession
from eft.adapters.ledger_fires import FireRows
from eft.adapters.ledger_parts import PartRows
from eft.adapters.ledger_rows import (
    RESTING_SHARDS,
    check_format,
    claim_mark,
    digest,
    due_key,
    due_of,
    outbox_keys,
    path_key,
    reserved_shard,
    resting_shard,
    transfer_key,
    transfer_of,
    transfer_row,
)
from eft.adapters.ledger_watches import WatchRows
from eft.adapters.table import Link, Row, Table, Value
from eft.domain.announcement import news
from eft.domain.cursor import cursor_after, read_cursor
from eft.domain.instants import millis, sortable
from eft.domain.names import RemotePath
from eft.domain.transfer import FINAL, ROW_FORMAT, Claim, State, Transfer
from eft.errors import LostOwnership, NotFound
from eft.ports import Clock, Due, Listening, Page, Reservation

DELIVERIES_KEPT: Final = 64
"""Sources whose newest delivery a path remembers; beyond it the one delivered longest ago is forgotten."""
_MINE: Final = "#fence = :fence AND #region_epoch <= :epoch"
"""A row that came back from another region counts its fence anew: a number of an earlier era is not the same number."""
_NO_LATER_CLAIM: Final = "(attribute_not_exists(#claim) OR #claim <= :claim OR NOT begins_with(#claim, :mine))"
"""A holder's own later claim keeps its reservation. One made by a release that kept no mark is the holder's in its name alone."""


class DynamoLedger(FireRows, PartRows, WatchRows):
    """`ports.Ledger` in a DynamoDB table with the indexes by_tenant, by_state, by_flow, by_flow_state, due and outbox."""

    def __init__(
        self, session: AwsSession, *, table: str, clock: Clock, link: Link | None = None, listening: Listening | None = None
    ) -> None:
        self._table = Table(session, table, what="the ledger" if link is None else "the peer region's ledger", link=link)
        self._clock = clock
        self._listening = listening
        """Who says whether others want to be told; None: nobody does."""

    # -- transfers -----------------------------------------------------------------------------------------------------

    def create(self, transfer: Transfer) -> Transfer | None:
        """One request. Our own row, met again after a lost answer, counts as created."""
        self.freeze(transfer)
        nonce = self._clock.nonce()
        outbox = self._outbox(transfer, since=None)
        row = transfer_row(transfer) | outbox | ({"announced": 0} if outbox else {}) | {"created_by": nonce}
        done, stands = self._table.put(row, condition="attribute_not_exists(#pk)")
        return None if done or stands is None or stands.get("created_by") == nonce else self.whole(stands)

    def load(self, transfer_id: str) -> Transfer:
        """One request, consistent."""
        row = self._table.get(*transfer_key(transfer_id))
        if row is None:
            raise _unknown(transfer_id)
        return self.whole(row)

    def known(self, transfer_ids: Sequence[str]) -> set[str]:
        """One request per 100 ids. Not consistent: a row created this moment may be missed, and `create` then meets it."""
        keys = [transfer_key(one) for one in dict.fromkeys(transfer_ids)]
        return {pk.removeprefix("T#") for pk in self._table.get_many(keys, only="pk")}

    def claim(self, transfer_id: str, *, worker: str, now: datetime, lease: timedelta, force: bool = False) -> Transfer | None:
        """One request. Repeated after a lost answer it raises the fence once more, which harms nobody."""
        free = "(attribute_not_exists(#claim_until) OR #claim_until < :now OR #claimant = :worker)"
        values: dict[str, Value] = {":one": 1, ":until": millis(now + lease), ":worker": worker, ":format": ROW_FORMAT}
        done, row = self._table.update(
            *transfer_key(transfer_id),
            # Without due_shard, in a resting state, due_at alone does not enter the index.
            "SET #fence = #fence + :one, #claim_until = :until, #claimant = :worker, #due_at = :until",
            condition="attribute_exists(#pk) AND #format <= :format" + ("" if force else f" AND {free}"),
            values=values if force else values | {":now": millis(now)},
        )
        if row is None:
            raise _unknown(transfer_id)
        if done:
            return self.whole(row)
        check_format(row)
        return None

    def renew(self, transfer: Transfer, *, until: datetime) -> None:
        """One request. A claim that was released is not raised again by a renewal that comes late."""
        done, _ = self._table.update(
            *transfer_key(transfer.id),
            "SET #claim_until = :until, #due_at = :until",
            condition=f"{_MINE} AND attribute_exists(#claim_until)",
            values={":until": millis(until), ":fence": transfer.fence, ":epoch": transfer.region_epoch},
        )
        if not done:
            raise _lost(transfer)

    def save(self, transfer: Transfer, *, was: State) -> None:
        """One request, one more per 1,000 parts where a commit has more than 100.

        Repeated after a lost answer, the row that refuses it is our own: a fence is one worker's, so the same fence, state
        and content mean that the first try was written.
        """
        self.freeze(transfer)
        row = transfer_row(transfer)
        # Only whoever tells others says how far they were told, and takes the row out of the outbox.
        row.pop("announced", None)
        changing = {name: value for name, value in row.items() if name not in {"pk", "sk", "fence"}}
        gone = [name for name in ("claim_until", "claimant", "due_at", "due_shard", "frozen") if name not in row]
        if transfer.claim_until is not None:
            gone.remove("claimant")
        if transfer.elsewhere is not None:
            gone += ["outbox", "outbox_at"]
        written = changing | self._outbox(transfer, since=was)
        done, stands = self._table.update(
            row["pk"],
            row["sk"],
            "SET " + ", ".join(f"#{name} = :{name}" for name in written) + _remove(gone),
            condition=f"{_MINE} AND #state = :was",
            values={f":{name}": value for name, value in written.items()}
            | {":fence": transfer.fence, ":epoch": transfer.region_epoch, ":was": was},
        )
        if not done and (stands is None or {**stands, **row} != stands or stands.keys() & set(gone)):
            raise _lost(transfer)

    def page(
        self,
        tenant: str,
        *,
        state: State | None = None,
        flow: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[Transfer]:
        """Two requests, whatever the tenant's number of transfers.

        Rows are as they are now; which rows, an index says that lags by moments. A part list kept beside its row is left
        out: a listing is to be looked at, a step loads.
        """
        scope = ("transfers", tenant, state, flow)
        index, attribute, value = _listing(tenant, state=state, flow=flow)
        values = {":value": value}
        condition = f"#{attribute} = :value"
        if cursor is not None:
            values[":after"] = read_cursor(cursor, scope=scope)
            condition += " AND #created < :after"
        keys = list(self._table.query(condition, values=values, index=index, backward=True, limit=limit + 1))
        shown = keys[:limit]
        rows = self._table.get_many([(key["pk"], key["sk"]) for key in shown])
        found = [transfer_of(rows[key["pk"]]) for key in shown if key["pk"] in rows]
        items = [one for one in found if state in {None, one.state}]
        return Page(items, cursor_after(shown[-1]["created"], scope=scope) if len(keys) > limit else None)

    # -- reservations --------------------------------------------------------------------------------------------------

    def reserve(self, *, endpoint: str, path: RemotePath, transfer: str, claim: Claim, source: str, order: int) -> Reservation:
        """One request."""
        key = digest(source)
        done, row = self._table.update(
            *path_key(endpoint, path),
            "SET #holder = :me, #claim = :claim, #source = :key, #order = :order, #endpoint = :endpoint, #path = :path, #format = :format,"
            " #due_shard = :shard, #due_at = :now,"
            " #delivered = if_not_exists(#delivered, :none)",
            condition=f"(attribute_not_exists(#holder) OR (#holder = :me AND {_NO_LATER_CLAIM}))"
            " AND (attribute_not_exists(#delivered.#key) OR #delivered.#key.#order <= :order)",
            values={
                ":key": key,
                ":order": order,
                ":endpoint": endpoint,
                ":path": path,
                ":shard": reserved_shard(transfer[:2]),
                ":now": millis(self._clock.now()),
                ":format": ROW_FORMAT,
                ":none": {},
                **_holder(transfer, claim),
            },
            names={"#key": key},
        )
        newest = None if row is None else row["delivered"].get(key)
        if done or row is None:
            level = newest is not None and newest["order"] == order and newest["by"] != transfer
            return Reservation("mine", transfer, newest["by"] if newest is not None and level else None)
        if newest is not None and newest["order"] > order:
            return Reservation("superseded", newest["by"])
        if row["holder"] == transfer:
            raise LostOwnership(f"a later claim of transfer {transfer} has reserved '{path}' (fence {claim.fence})")
        return Reservation("busy", row["holder"])

    def release(self, *, endpoint: str, path: RemotePath, transfer: str, claim: Claim, delivered: bool) -> None:
        """One request; a read before it where something was delivered."""
        expression = "REMOVE #holder, #claim, #source, #order, #due_shard, #due_at"
        values = _holder(transfer, claim)
        names: dict[str, str] = {}
        key = path_key(endpoint, path)
        if delivered:
            row = self._table.get(*key)
            if row is None or row.get("holder") != transfer:
                return
            others = {one: entry["n"] for one, entry in row["delivered"].items() if one != row["source"]}
            oldest = sorted(others, key=others.__getitem__)[: max(0, len(others) + 1 - DELIVERIES_KEPT)]
            names = {"#key": row["source"]} | {f"#old{n}": one for n, one in enumerate(oldest)}
            forgotten = "".join(f", #delivered.#old{n}" for n in range(len(oldest)))
            expression = f"SET #delivered.#key = :newest {expression}{forgotten}"
            n = max(others.values(), default=0) + 1
            values[":newest"] = {"order": row["order"], "by": transfer, "n": n}
        self._table.update(*key, expression, condition=f"#holder = :me AND {_NO_LATER_CLAIM}", values=values, names=names)

    def remember_delivered(self, *, endpoint: str, path: RemotePath, transfer: str, source: str, order: int) -> None:
        """One request, or two where the path has a row."""
        key, where = digest(source), path_key(endpoint, path)
        row: Row = {"endpoint": endpoint, "path": path, "format": ROW_FORMAT, "delivered": {key: {"order": order, "by": transfer, "n": 1}}}
        done, stands = self._table.put(dict(zip(("pk", "sk"), where, strict=True)) | row, condition="attribute_not_exists(#pk)")
        if done or stands is None:
            return
        n = max((entry["n"] for entry in stands["delivered"].values()), default=0) + 1
        self._table.update(
            *where,
            "SET #delivered.#key = :newest",
            condition="attribute_not_exists(#delivered.#key) OR #delivered.#key.#order < :order",
            values={":newest": {"order": order, "by": transfer, "n": n}, ":order": order},
            names={"#key": key},
        )

    def reservations(self, partition: int) -> Iterator[tuple[str, str, str]]:
        """A request per MB of keys of an index that lags by moments, and one per reservation, consistent."""
        for key in list(self._table.query("#due_shard = :shard", values={":shard": reserved_shard(f"{partition:02x}")}, index="due")):
            row = self._table.get(key["pk"], key["sk"])
            if row is not None and "holder" in row:
                yield row["endpoint"], row["path"], row["holder"]

    def count(self, tenant: str, *, since: datetime, state: State | None = None) -> int:
        """One request per MB of keys, about 8,000 transfers, of an index that lags by moments."""
        index, attribute, value = _listing(tenant, state=state, flow=None)
        return self._table.count(
            f"#{attribute} = :value AND #created >= :since", values={":value": value, ":since": sortable(since)}, index=index
        )

    # -- what is due ---------------------------------------------------------------------------------------------------

    def due(self, partition: int, *, before: datetime, limit: int = 100) -> Sequence[Due]:
        """One request, to an index that lags by moments; what is due at `before` is among it."""
        keys = self._table.query(
            "#due_shard = :shard AND #due_at <= :before",
            values={":shard": str(partition), ":before": millis(before)},
            index="due",
            limit=limit,
        )
        return [due_of(key) for key in keys]

    def adopt(self, transfer: Transfer) -> bool:
        """One request. Our own row, met again after a lost answer, counts as written."""
        self.freeze(transfer)
        row = transfer_row(transfer)
        done, stands = self._table.put(
            row | self._outbox(transfer, since=None),
            condition="attribute_not_exists(#pk) OR #region_epoch < :epoch",
            values={":epoch": transfer.region_epoch},
        )
        return done or (stands is not None and {**stands, **row} == stands)

    def unsettled(self, partition: int) -> Iterator[Transfer]:
        """A request per MB of keys of an index that lags by moments, and one per row, consistent."""
        for shard in (str(partition), resting_shard(partition)):
            for key in list(self._table.query("#due_shard = :shard", values={":shard": shard}, index="due")):
                if key["pk"].startswith("T#"):
                    transfer = self.load(key["pk"].removeprefix("T#"))
                    if transfer.state not in FINAL and transfer.elsewhere is None:
                        yield transfer

    def postpone(self, due: Due, *, until: datetime) -> bool:
        """One request. Its own success, met again after a lost answer, counts as a refusal: it comes due again at `until`."""
        done, _ = self._table.update(
            *due_key(due),
            "SET #due_at = :until",
            condition="attribute_exists(#due_shard) AND NOT begins_with(#due_shard, :resting) AND #due_at = :seen",
            values={":until": millis(until), ":seen": millis(due.due_at), ":resting": RESTING_SHARDS},
        )
        return done

    # -- what others are told ------------------------------------------------------------------------------------------

    def _outbox(self, transfer: Transfer, *, since: State | None) -> Row:
        """Returns the attributes by which others will be told of what is new, if somebody wants to be told."""
        if self._listening is None or transfer.elsewhere is not None or not news(transfer, since=since):
            return {}
        if transfer.announced is None and transfer.task_token is None and not self._listening.wanted(transfer.tenant):
            return {}
        return outbox_keys(transfer)


def _listing(tenant: str, *, state: State | None, flow: str | None) -> tuple[str, str, str]:
    """Returns index, its hash attribute, and that attribute's value."""
    match state, flow:
        case None, None:
            return "by_tenant", "tenant", tenant
        case _, None:
            return "by_state", "tenant_state", f"{tenant}#{state}"
        case None, _:
            return "by_flow", "tenant_flow", f"{tenant}#{flow}"
        case _:
            return "by_flow_state", "tenant_flow_state", f"{tenant}#{flow}#{state}"


def _holder(transfer: str, claim: Claim) -> dict[str, Value]:
    """Returns the values of `_NO_LATER_CLAIM`, and who asks."""
    return {":me": transfer, ":mine": f"{transfer}#", ":claim": claim_mark(transfer, claim)}


def _remove(names: list[str]) -> str:
    return " REMOVE " + ", ".join(f"#{name}" for name in names) if names else ""


def _unknown(transfer_id: str) -> NotFound:
    return NotFound(f"there is no transfer '{transfer_id}'", reason="transfer_unknown")


def _lost(transfer: Transfer) -> LostOwnership:
    return LostOwnership(f"another worker has transfer {transfer.id}, or it was released (fence {transfer.fence})")
