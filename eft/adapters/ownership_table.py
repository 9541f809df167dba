"""`ports.OwnershipTable` in one region's DynamoDB table; the peer's is the same class on the peer's session.

    pk              sk            what
    PARTITIONS      <nn>          a partition: home, region_epoch, mode, phase, evidence, and who changed it last
    LEASES          <nn>          who has a partition's chores
    PROPOSALS       <id>          a change that waits for a second operator's word
    POLICY          peer-loss     what this region does when it loses sight of the other
    I#<nn>          <transfer>    the last intent of a transfer
    J#<nn>          <transfer>    its journal entry; `open` while it has not come to rest for good (index open_journals)

An intent, or a closed entry that gives a transfer up, and the partition that allows it must agree: the transactions here. All else are
single-item writes.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterator, Sequence

from eft.adapters.aws import AwsSession
from eft.adapters.table import Check, Link, Row, Table
from eft.domain.names import partition_of_id
from eft.domain.ownership import Intent, IntentAnswer, JournalEntry, Mode, Partition, PeerLoss, Proposal
from eft.errors import Permanent
from eft.ports import Lease

FORMAT = 1
PARTITIONS_KEY = "PARTITIONS"
LEASES_KEY = "LEASES"
PROPOSALS_KEY = "PROPOSALS"
POLICY_KEY = "POLICY"


class DynamoOwnershipTable:
    """One region's table; a peer's, over a link: whatever keeps us from it is `peer_unreachable`."""

    def __init__(self, session: AwsSession, *, table: str, link: Link | None = None) -> None:
        what = "the ownership table" if link is None else "the peer region's ownership table"
        self._table = Table(session, table, what=what, link=link)

    def partitions(self) -> Sequence[Partition]:
        """One request, consistent."""
        return [_partition(row) for row in self._table.query("#pk = :pk", values={":pk": PARTITIONS_KEY})]

    def partition(self, number: int) -> Partition:
        """One request, consistent.

        Raises:
            Permanent: `partition_unknown`: the table was never set up.
        """
        row = self._table.get(PARTITIONS_KEY, _nn(number))
        if row is None:
            msg = f"partition {number} is not set up in this region's ownership table"
            raise Permanent(msg, reason="partition_unknown")
        return _partition(row)

    def change(self, new: Partition, *, seen: Partition) -> bool:
        """One request. Our own change, met again after a lost answer, counts as made."""
        done, stands = self._table.put(
            _partition_row(new),
            condition="#home = :home AND #region_epoch = :epoch AND #mode = :mode AND #phase = :phase AND #evidence = :evidence",
            values={
                ":home": seen.home,
                ":epoch": seen.region_epoch,
                ":mode": seen.mode.value,
                ":phase": seen.phase.value,
                ":evidence": seen.evidence,
            },
        )
        return done or (stands is not None and _partition(stands) == new)

    def add(self, first: Partition) -> None:
        """One request."""
        self._table.put(_partition_row(first), condition="attribute_not_exists(#pk)")

    def intend(self, intent: Intent, *, home: str, mode: Mode | None) -> IntentAnswer:
        """One transaction of two items. Repeated after a lost answer it writes the same again."""
        failed = self._table.put_if(
            _intent_row(intent),
            condition="attribute_not_exists(#pk) OR (#token = :token AND (#abandoned = :false OR :abandoned = :true))"
            " OR (#token <> :token AND #abandoned = :true AND #attempt < :attempt)",
            values={":token": intent.token, ":true": True, ":false": False, ":abandoned": intent.abandoned, ":attempt": intent.attempt},
            check=_gate(intent.partition, home=home, region_epoch=intent.region_epoch, mode=mode),
        )
        return {None: IntentAnswer.ACKED, "check": IntentAnswer.FENCED, "put": IntentAnswer.OTHER_TOKEN}[failed]

    def intent(self, transfer: str) -> Intent | None:
        """One request, consistent."""
        row = self._table.get(_pk("I", partition_of_id(transfer)), transfer)
        return None if row is None else _intent(row)

    def intents(self, partition: int) -> Iterator[Intent]:
        """One request per MB, consistent."""
        yield from map(_intent, self._table.query("#pk = :pk", values={":pk": _pk("I", partition)}))

    def journal(self, entry: JournalEntry) -> JournalEntry | None:
        """One request. Our own entry, met again after a lost answer, counts as written."""
        nonce = uuid.uuid4().hex
        done, stands = self._table.put(_entry_row(entry) | {"written_by": nonce}, condition="attribute_not_exists(#pk)")
        return None if done or stands is None or stands.get("written_by") == nonce else _entry(stands)

    def close_journal(self, transfer: str) -> None:
        """One request."""
        self._table.update(_pk("J", partition_of_id(transfer)), transfer, "REMOVE #open", condition="attribute_exists(#open)")

    def renounce(self, entry: JournalEntry, *, home: str, region_epoch: int, mode: Mode | None) -> bool:
        """One transaction of two items. Repeated after a lost answer it writes the same again."""
        failed = self._table.put_if(
            _entry_row(entry.model_copy(update={"closed": True})),
            condition="attribute_not_exists(#pk) OR attribute_exists(#pk)",
            values={},
            check=_gate(entry.partition, home=home, region_epoch=region_epoch, mode=mode),
        )
        return failed is None

    def journals(self, partition: int, *, open_only: bool = True) -> Iterator[JournalEntry]:
        """One request per MB; of open ones from an index that lags by moments, of all consistently."""
        if open_only:
            yield from map(_entry, self._table.query("#open = :open", values={":open": _nn(partition)}, index="open_journals"))
        else:
            yield from map(_entry, self._table.query("#pk = :pk", values={":pk": _pk("J", partition)}))

    def journalled(self, transfers: Sequence[str]) -> set[str]:
        """One request per 100 ids, not consistent."""
        keys = [(_pk("J", partition_of_id(one)), one) for one in dict.fromkeys(transfers)]
        return self._table.existing(keys)

    def journal_entry(self, transfer: str) -> JournalEntry | None:
        """One request, consistent."""
        row = self._table.get(_pk("J", partition_of_id(transfer)), transfer)
        return None if row is None else _entry(row)

    def propose(self, proposal: Proposal) -> None:
        """One request."""
        row = {"pk": PROPOSALS_KEY, "sk": proposal.id, "format": FORMAT, "body": proposal.model_dump_json()}
        self._table.put(row, condition="attribute_not_exists(#pk)")

    def proposal(self, proposal_id: str) -> Proposal | None:
        """One request, consistent."""
        row = self._table.get(PROPOSALS_KEY, proposal_id)
        return None if row is None else Proposal.model_validate_json(row["body"])

    def declare(self, policy: PeerLoss) -> None:
        """One request."""
        self._table.update(
            POLICY_KEY,
            "peer-loss",
            "SET #policy = :policy",
            condition="attribute_not_exists(#pk) OR #policy <> :policy",
            values={":policy": policy.value},
        )

    def declared(self) -> PeerLoss:
        """One request, consistent."""
        row = self._table.get(POLICY_KEY, "peer-loss")
        return PeerLoss.OPERATOR if row is None else PeerLoss(row["policy"])

    def lease(self, number: int, *, owner: str, seen: Lease | None) -> Lease | None:
        """One request. Our own taking, met again after a lost answer, counts: an owner is one process."""
        new = Lease(owner=owner, lease_epoch=1 if seen is None else seen.lease_epoch + 1, rvn=1 if seen is None else seen.rvn + 1)
        row: Row = {"pk": LEASES_KEY, "sk": _nn(number), "owner": owner, "lease_epoch": new.lease_epoch, "rvn": new.rvn}
        if seen is None:
            done, stands = self._table.put(row, condition="attribute_not_exists(#pk)")
        else:
            values: Row = {":owner": seen.owner, ":epoch": seen.lease_epoch, ":rvn": seen.rvn}
            done, stands = self._table.put(row, condition="#owner = :owner AND #lease_epoch = :epoch AND #rvn = :rvn", values=values)
        return new if done or stands == row else None

    def renew_lease(self, number: int, *, owner: str, lease_epoch: int) -> bool:
        """One request; on (owner, lease_epoch), so that a lost answer is no lost lease."""
        done, _ = self._table.update(
            LEASES_KEY,
            _nn(number),
            "SET #rvn = #rvn + :one",
            condition="#owner = :owner AND #lease_epoch = :epoch",
            values={":one": 1, ":owner": owner, ":epoch": lease_epoch},
        )
        return done

    def leases(self) -> dict[int, Lease]:
        """One request, consistent."""
        rows = self._table.query("#pk = :pk", values={":pk": LEASES_KEY})
        return {int(row["sk"]): Lease(owner=row["owner"], lease_epoch=row["lease_epoch"], rvn=row["rvn"]) for row in rows}


def _gate(partition: int, *, home: str, region_epoch: int, mode: Mode | None) -> Check:
    """Returns the check that a partition's row still allows a write for its home: at the peer, or, with a mode, at home itself."""
    values: Row = {":home": home, ":epoch": region_epoch}
    condition = "#home = :home AND #region_epoch <= :epoch"
    if mode is not None:
        condition, values[":mode"] = "#home = :home AND #region_epoch = :epoch AND #mode = :mode", mode.value
    return Check(pk=PARTITIONS_KEY, sk=_nn(partition), condition=condition, values=values)


def _nn(number: int) -> str:
    return f"{number:02d}"


def _pk(kind: str, partition: int) -> str:
    return f"{kind}#{_nn(partition)}"


def _partition_row(partition: Partition) -> Row:
    row = partition.model_dump(mode="json", exclude_none=True)
    return {"pk": PARTITIONS_KEY, "sk": _nn(partition.number), "format": FORMAT, **row}


def _partition(row: Row) -> Partition:
    return Partition.model_validate({name: value for name, value in row.items() if name in Partition.model_fields})


def _intent_row(intent: Intent) -> Row:
    row = intent.model_dump(mode="json", exclude={"row"})
    packed = zlib.compress(intent.row.encode())
    return {"pk": _pk("I", intent.partition), "sk": intent.transfer, "format": FORMAT, **row, "row": packed}


def _intent(row: Row) -> Intent:
    fields = {name: value for name, value in row.items() if name in Intent.model_fields}
    return Intent.model_validate({**fields, "row": zlib.decompress(row["row"]).decode()})


def _entry_row(entry: JournalEntry) -> Row:
    row: Row = {"pk": _pk("J", entry.partition), "sk": entry.transfer, "format": FORMAT, "row": zlib.compress(entry.row.encode())}
    return row if entry.closed else {**row, "open": _nn(entry.partition)}


def _entry(row: Row) -> JournalEntry:
    return JournalEntry(
        partition=int(row["pk"].removeprefix("J#")),
        transfer=row["sk"],
        row=zlib.decompress(row["row"]).decode(),
        closed="open" not in row,
    )
