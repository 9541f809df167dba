"""The ledger's rows of directories that are watched for a while.

pk                    sk                       what                                         sparse, in index `due`
W#<tenant>#<endpoint> <hash of the directory>  a directory, and until when                  as long as it is there
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from eft.adapters.ledger_rows import digest
from eft.adapters.table import Table
from eft.domain.instants import instant, millis
from eft.domain.transfer import ROW_FORMAT
from eft.ports import Watch

_SHARD: Final = "watched"
"""The same for all: no sweep looks there, and there are few."""


class WatchRows:
    """The part of `ports.Ledger` that is about watched directories."""

    _table: Table

    def watch(self, watch: Watch) -> None:
        """One request."""
        pk, sk = _key(watch)
        row = {
            "pk": pk,
            "sk": sk,
            "format": ROW_FORMAT,
            "tenant": watch.tenant,
            "endpoint": watch.endpoint,
            "directory": watch.directory,
            "due_shard": _SHARD,
            "due_at": millis(watch.until),
        }
        self._table.put(row, condition="attribute_not_exists(#pk) OR #due_at < :until", values={":until": millis(watch.until)})

    def watched(self) -> Iterator[Watch]:
        """A request per MB of keys of an index that lags by moments, and one per directory, consistent."""
        for key in list(self._table.query("#due_shard = :shard", values={":shard": _SHARD}, index="due")):
            row = self._table.get(key["pk"], key["sk"])
            # One that a later release has written is a later release's to look after.
            if row is not None and row["format"] <= ROW_FORMAT:
                yield Watch(row["tenant"], row["endpoint"], row["directory"], instant(row["due_at"]))

    def unwatch(self, watch: Watch) -> None:
        """One request."""
        self._table.delete(*_key(watch), condition="#due_at = :until", values={":until": millis(watch.until)})


def _key(watch: Watch) -> tuple[str, str]:
    return f"W#{watch.tenant}#{watch.endpoint}", digest(watch.directory)
