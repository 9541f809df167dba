"""The tables of one region: the fakes that the contract tests hold to DynamoDB's conditions, with its replicas' and indexes' lag."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any, Final

from eft.domain.ownership import JournalEntry, Mode
from eft.domain.transfer import FINAL, RESTING, Transfer
from eft.errors import LostOwnership
from eft.ports import Due
from tests.fake_regions import FakeOwnershipTable
from tests.fakes import FakeLedger, FakeLimits, FakeRegistry, cut
from tests.simulation.kernel import SECOND, Kernel

LAG: Final = 45 * SECOND
"""The oldest view of an index or a replica that a read may get."""
_OPEN: Final[AbstractContextManager[None]] = nullcontext()


class Views:
    """What an index showed when it was last brought up to date; a lagging read sees that."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._seen: dict[object, tuple[int, Any]] = {}

    def fresh(self, key: object, view: Any) -> Any:  # noqa: ANN401 - any view
        """Keeps and returns a view."""
        self._seen[key] = (self._kernel.now, view)
        return view

    def stale(self, key: object, compute: Callable[[], Any]) -> Any:  # noqa: ANN401
        """Returns the view before, unless that is too old."""
        at, view = self._seen.get(key, (-LAG - 1, None))
        return view if self._kernel.now - at <= LAG else self.fresh(key, compute())


class SimLedger(FakeLedger):
    """`ports.Ledger`: rows as the fake keeps them, without validating each anew, with an index that lags."""

    stored = staticmethod(cut)

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self._kernel = kernel
        self._views = Views(kernel)
        self._written: dict[str, int] = {}

    def _called(self, call: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return _OPEN

    def create(self, transfer: Transfer) -> Transfer | None:
        self._written.setdefault(transfer.id, self._kernel.now)
        return super().create(transfer)

    def adopt(self, transfer: Transfer) -> bool:
        self._written.setdefault(transfer.id, self._kernel.now)
        return super().adopt(transfer)

    def due(self, partition: int, *, before: datetime, limit: int = 100) -> Sequence[Due]:
        found = super().due(partition, before=before, limit=limit)
        self._views.fresh(("due", partition), found)
        self._views.fresh(("unsettled", partition), self._index(partition))
        return found

    def stale_due(self, partition: int, *, before: datetime, limit: int = 100) -> Sequence[Due]:
        return self._views.stale(("due", partition), lambda: super(SimLedger, self).due(partition, before=before, limit=limit))  # type: ignore[no-any-return]

    def unsettled(self, partition: int) -> Iterator[Transfer]:
        yield from self._loaded(self._views.fresh(("unsettled", partition), self._index(partition)))

    def stale_unsettled(self, partition: int) -> Iterator[Transfer]:
        yield from self._loaded(self._views.stale(("unsettled", partition), lambda: self._index(partition)))

    def stale_known(self, transfer_ids: Sequence[str]) -> set[str]:
        """A replica that has not heard of the last seconds' rows."""
        return {one for one in super().known(transfer_ids) if self._written[one] < self._kernel.now - 3 * SECOND}

    def again(self, call: str, first: Any, found: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:  # noqa: ANN401
        """Returns what the adapter makes of a write that its first, unheard try has done already."""
        if call == "save":
            transfer = args[0]
            try:
                found(*args, **named)
            except LostOwnership:
                if self._rows[transfer.id].transfer != cut(transfer):
                    raise
            return first
        if call in {"create", "fire"}:
            found(*args, **named)
            return first
        if call == "adopt":
            return found(*args, **named) or (first and self._rows[args[0].id].transfer == cut(args[0]))
        return found(*args, **named)

    def _index(self, partition: int) -> list[str]:
        return [
            one
            for one, row in self._rows.items()
            if row.transfer.partition == partition
            and row.transfer.elsewhere is None
            and (row.transfer.due_at is not None or row.transfer.state in RESTING)
        ]

    def _loaded(self, ids: list[str]) -> Iterator[Transfer]:
        for one in ids:
            row = self._rows[one].transfer
            if row.state not in FINAL and row.elsewhere is None:
                yield row


class SimTable(FakeOwnershipTable):
    """`ports.OwnershipTable` with an index of open entries that lags, and replicas that have not heard of the last seconds."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self._kernel = kernel
        self._views = Views(kernel)
        self._written: dict[str, int] = {}

    def journal(self, entry: JournalEntry) -> JournalEntry | None:
        self._written.setdefault(entry.transfer, self._kernel.now)
        return super().journal(entry)

    def renounce(self, entry: JournalEntry, *, home: str, region_epoch: int, mode: Mode | None) -> bool:
        self._written.setdefault(entry.transfer, self._kernel.now)
        return super().renounce(entry, home=home, region_epoch=region_epoch, mode=mode)

    def journals(self, partition: int, *, open_only: bool = True) -> Iterator[JournalEntry]:
        found = list(super().journals(partition, open_only=open_only))
        yield from self._views.fresh(partition, found) if open_only else found

    def stale_journals(self, partition: int, *, open_only: bool = True) -> Iterator[JournalEntry]:
        if not open_only:
            yield from super().journals(partition, open_only=False)
            return
        yield from self._views.stale(partition, lambda: list(super(SimTable, self).journals(partition)))

    def stale_journalled(self, transfers: Sequence[str]) -> set[str]:
        return {one for one in super().journalled(transfers) if self._written[one] < self._kernel.now - 3 * SECOND}

    def again(self, call: str, first: Any, found: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:  # noqa: ANN401
        """Returns what the adapter makes of a write that its first, unheard try has done already."""
        if call == "change":
            return found(*args, **named) or (first and self.rows[args[0].number] == args[0])
        return found(*args, **named)


class SimLimits(FakeLimits):
    """`ports.Limits`, on the clock of whoever asks."""

    def _called(self, call: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return _OPEN


class SimRegistry(FakeRegistry):
    """`ports.Registry`."""

    def _called(self, call: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return _OPEN
