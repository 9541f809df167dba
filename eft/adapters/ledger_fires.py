"""The ledger's rows of flows: their fires, and what they remember of their sources.

pk                    sk                       what                                         sparse, in index `due`
F#<tenant>#<flow>     S#<name> | R#<name>      fire of a schedule | on request              until its discover has ended
F#<tenant>#<flow>     M                        the flow's memory: revision, watermark,
                                               the names of its chunks
F#<tenant>#<flow>     M#<name>                 a chunk of it, named by its content
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from eft.adapters.ledger_rows import checked, fire_key, flow_key
from eft.adapters.table import Row, Table
from eft.domain.flow import Flow
from eft.domain.instants import fire_moment, fire_time, instant, millis
from eft.domain.memory import Memory, chunks_of, memory_of
from eft.domain.transfer import ROW_FORMAT
from eft.errors import EftError
from eft.ports import Clock, Fire, Run

FIRES_KEPT: Final = timedelta(days=400)
"""Longer than any schedule looks back; DynamoDB drops them then."""
_HEAD: Final = "M"
_KINDS: Final = ("S#", "R#now-", "R#past-", "R#late-", "R#warn-")


class FireRows:
    """The part of `ports.Ledger` that is about flows."""

    _table: Table
    _clock: Clock

    def fire(self, flow: Flow, *, at: datetime, name: str, partition: int, outcome: dict[str, int] | None = None) -> bool:
        """One request. Our own fire, met again after a lost answer, counts as claimed."""
        nonce = self._clock.nonce()
        pk, sk = fire_key(flow.tenant, flow.id, name)
        row = {
            "pk": pk,
            "sk": sk,
            "format": ROW_FORMAT,
            "created_by": nonce,
            "expires": int((at + FIRES_KEPT).timestamp()),
        } | ({"due_shard": str(partition), "due_at": millis(at)} if outcome is None else {"outcome": json.dumps(outcome)})
        done, stands = self._table.put(row, condition="attribute_not_exists(#pk)")
        return done or (stands is not None and stands["created_by"] == nonce)

    def begin_fire(self, flow: Flow, *, name: str, until: datetime) -> Run | None:
        """One request."""
        done, row = self._table.update(
            *fire_key(flow.tenant, flow.id, name),
            "SET #due_at = :until ADD #runs :one",
            condition="attribute_exists(#pk) AND attribute_not_exists(#outcome)",
            values={":until": millis(until), ":one": 1},
        )
        if done and row is not None:
            return Run(row["runs"], row.get("created_so_far", 0), row.get("refused_so_far", 0))
        return Run() if row is None else None

    def fire_goes_on(self, flow: Flow, *, name: str, created: int, refused: int) -> None:
        """One request. Repeated after a lost answer it adds once more, which shows in the counts and nowhere else."""
        self._table.update(
            *fire_key(flow.tenant, flow.id, name),
            "ADD #created_so_far :created, #refused_so_far :refused",
            condition="attribute_exists(#pk) AND attribute_not_exists(#outcome)",
            values={":created": created, ":refused": refused},
        )

    def fire_done(self, flow: Flow, *, name: str, outcome: dict[str, int], why: EftError | None = None) -> None:
        """One request."""
        self._end(fire_key(flow.tenant, flow.id, name), outcome, why)

    def end_fire(self, fire_id: str) -> None:
        """One request."""
        tenant, flow, name = fire_id.split("/", 2)
        self._end(fire_key(tenant, flow, name), {"failed": 1})

    def _end(self, key: tuple[str, str], outcome: dict[str, int], why: EftError | None = None) -> None:
        self._table.update(
            *key,
            f"SET #outcome = :outcome{'' if why is None else ', #reason = :reason, #error = :error'} REMOVE #due_shard, #due_at",
            condition="attribute_exists(#pk) AND attribute_not_exists(#outcome)",
            values={":outcome": json.dumps(outcome)} | ({} if why is None else {":reason": why.reason, ":error": str(why)}),
        )

    def fires(self, flow: Flow, *, limit: int) -> Sequence[Fire]:
        """A request per kind of fire."""
        found: list[Fire] = []
        for kind in _KINDS:
            rows = self._table.query(
                "#pk = :pk AND begins_with(#sk, :sk)",
                values={":pk": flow_key(flow.tenant, flow.id), ":sk": kind},
                backward=True,
                limit=limit,
            )
            found += [_fire(row) for row in rows]
        return sorted(found, key=lambda fire: fire_moment(fire.name), reverse=True)[:limit]

    def last_fire(self, flow: Flow) -> datetime | None:
        """One request, however long the history: a schedule's fires are named by planned times, which sort as such."""
        rows = self._table.query(
            "#pk = :pk AND begins_with(#sk, :sk)",
            values={":pk": flow_key(flow.tenant, flow.id), ":sk": "S#"},
            backward=True,
            limit=1,
        )
        return next((fire_time(row["sk"].removeprefix("S#")) for row in rows), None)

    def memory(self, flow: Flow) -> Memory:
        """One request per MB: about 120,000 versions."""
        rows = list(self._table.query("#pk = :pk AND begins_with(#sk, :sk)", values={":pk": flow_key(flow.tenant, flow.id), ":sk": _HEAD}))
        head = next((checked(row) for row in rows if row["sk"] == _HEAD), None)
        if head is None:
            return Memory()
        named = set(head["chunks"].split())
        chunks = {name: bytes(row["body"]) for row in rows if (name := row["sk"].removeprefix(f"{_HEAD}#")) in named}
        watermark = instant(head["watermark"]) if "watermark" in head else None
        return memory_of(chunks, revision=head["revision"], watermark=watermark)

    def remember(self, flow: Flow, memory: Memory) -> bool:
        """One request, one per chunk that has changed, and one for each that is gone."""
        pk = flow_key(flow.tenant, flow.id)
        chunks = chunks_of(memory)
        for name in chunks.keys() - memory.stored:
            self._table.put(
                {"pk": pk, "sk": f"{_HEAD}#{name}", "format": ROW_FORMAT, "body": chunks[name]}, condition="attribute_not_exists(#pk)"
            )
        head = {"pk": pk, "sk": _HEAD, "format": ROW_FORMAT, "revision": memory.revision + 1, "chunks": " ".join(sorted(chunks))}
        if memory.watermark is not None:
            head["watermark"] = millis(memory.watermark)
        condition = "#revision = :before" if memory.revision else "attribute_not_exists(#pk)"
        done, stands = self._table.put(head, condition=condition, values={":before": memory.revision} if memory.revision else None)
        if not (done or stands == head):
            return False
        for name in memory.stored - chunks.keys():
            self._table.delete(pk, f"{_HEAD}#{name}", condition="attribute_exists(#pk)", values={})
        return True

    def forget(self, flow: Flow) -> None:
        """A request per MB, and one per row. The head goes first, so that no memory is read without its chunks."""
        pk = flow_key(flow.tenant, flow.id)
        keys = [row["sk"] for row in self._table.query("#pk = :pk AND begins_with(#sk, :sk)", values={":pk": pk, ":sk": _HEAD})]
        for sk in sorted(keys):
            self._table.delete(pk, sk, condition="attribute_exists(#pk)")


def _fire(row: Row) -> Fire:
    outcome = json.loads(row["outcome"]) if "outcome" in row else None
    return Fire(row["sk"][2:], outcome, row.get("reason"), row.get("error"))
