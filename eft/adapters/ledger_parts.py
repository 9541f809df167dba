"""The ledger's rows of parts.

pk                    sk                       what
T#<transfer>          P#<attempt>#<n>-<m>      parts n … m, which are done
T#<transfer>          C#<digest>#<number>      a frozen part list, by content
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Final

from pydantic import TypeAdapter

from eft.adapters.ledger_rows import checked, frozen_digest, transfer_of
from eft.adapters.table import Row, Table
from eft.domain.parts import PartDone
from eft.domain.transfer import ROW_FORMAT, Transfer

LONGEST_RUN: Final = 1000
"""Parts in one item: at most 120 KB."""
FROZEN_PARTS: Final = 1000
"""Parts in one item of a frozen list: about 50 KB compressed."""
_PARTS: Final = TypeAdapter(list[PartDone])


class PartRows:
    """The part of `ports.Ledger` that is about parts, and the part lists that are too long for their transfer's own row."""

    _table: Table

    def record_parts(self, transfer_id: str, *, attempt: int, done: Sequence[PartDone]) -> None:
        """One request per run of numbers without a gap, of at most 1,000 parts. A run that is met again is recorded already."""
        for run in _runs(sorted(done, key=lambda part: part.number)):
            row = {
                "pk": f"T#{transfer_id}",
                "sk": f"P#{attempt}#{run[0].number:05d}-{run[-1].number:05d}",
                "format": ROW_FORMAT,
                "body": _PARTS.dump_json(run).decode(),
            }
            self._table.put(row, condition="attribute_not_exists(#pk)")

    def parts(self, transfer_id: str, *, attempt: int) -> dict[int, PartDone]:
        """One request per MB: at least 4,000 parts. Of a part that two workers noted, in runs that overlap, either note is returned."""
        rows = self._table.query("#pk = :pk AND begins_with(#sk, :sk)", values={":pk": f"T#{transfer_id}", ":sk": f"P#{attempt}#"})
        done = {part.number: part for row in rows for part in _PARTS.validate_json(checked(row)["body"])}
        return dict(sorted(done.items()))

    def freeze(self, transfer: Transfer) -> None:
        """Lays a long part list beside the row before the row names it. By content: it never changes, nor need be removed."""
        named = frozen_digest(transfer)
        if named is None or transfer.commit is None:
            return
        parts = [part.model_dump(exclude_defaults=True) for part in transfer.commit.parts]
        for n, start in enumerate(range(0, len(parts), FROZEN_PARTS)):
            text = json.dumps(parts[start : start + FROZEN_PARTS], separators=(",", ":"))
            row = {
                "pk": f"T#{transfer.id}",
                "sk": f"C#{named}#{n:03d}",
                "format": ROW_FORMAT,
                "parts": zlib.compress(text.encode()),
            }
            self._table.put(row, condition="attribute_not_exists(#pk)")

    def whole(self, row: Row) -> Transfer:
        """Returns a row's transfer; one request more where its part list lies beside the row."""
        transfer = transfer_of(row)
        if "frozen" not in row or transfer.commit is None:
            return transfer
        chunks = self._table.query("#pk = :pk AND begins_with(#sk, :sk)", values={":pk": row["pk"], ":sk": f"C#{row['frozen']}#"})
        parts = tuple(PartDone.model_validate(part) for chunk in chunks for part in json.loads(zlib.decompress(chunk["parts"])))
        return transfer.with_(commit=transfer.commit.model_copy(update={"parts": parts}))


def _runs(parts: Sequence[PartDone]) -> Iterator[list[PartDone]]:
    """Yields parts, which come in order, in runs of numbers without a gap: a row's key then says all that it holds."""
    run: list[PartDone] = []
    for part in parts:
        if run and (part.number != run[-1].number + 1 or len(run) == LONGEST_RUN):
            yield run
            run = []
        run.append(part)
    if run:
        yield run
