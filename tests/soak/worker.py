"""`python -m tests.soak.worker ARGUMENT…`: a worker as in the image, whose ledger notes when a claim is taken over and a write refused.

Each note is a line `takeover <transfer>` or `fenced <transfer>` at the end of the file that EFT_SOAK_NOTES names.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, cast

from celery.__main__ import main

from deploy.entrypoint import COMMANDS
from eft.bootstrap import build_engine
from eft.domain.transfer import State, Transfer
from eft.errors import LostOwnership
from eft.ports import Engine, Ledger
from tasks import base
from tasks.app import SETTINGS

NOTES = "EFT_SOAK_NOTES"
TAKEOVER, FENCED = "takeover", "fenced"


class NotingLedger:
    """Passes everything to the ledger itself."""

    def __init__(self, ledger: Ledger, notes: Path) -> None:
        self._ledger, self._notes = ledger, notes

    def __getattr__(self, call: str) -> Any:  # noqa: ANN401 - a ledger's method
        return getattr(self._ledger, call)

    def claim(self, transfer_id: str, *, worker: str, now: datetime, lease: timedelta, force: bool = False) -> Transfer | None:
        """A claim that nobody has given back is taken over."""
        before = self._ledger.load(transfer_id)
        taken = self._ledger.claim(transfer_id, worker=worker, now=now, lease=lease, force=force)
        if taken is not None and taken.fence == before.fence + 1 and before.claim_until is not None:
            self._note(TAKEOVER, transfer_id)
        return taken

    def save(self, transfer: Transfer, *, was: State) -> None:
        """A write of whoever has lost its claim is refused."""
        try:
            self._ledger.save(transfer, was=was)
        except LostOwnership:
            self._note(FENCED, transfer.id)
            raise

    def renew(self, transfer: Transfer, *, until: datetime) -> None:
        """As `save`."""
        try:
            self._ledger.renew(transfer, until=until)
        except LostOwnership:
            self._note(FENCED, transfer.id)
            raise

    def _note(self, what: str, transfer_id: str) -> None:
        with self._notes.open("a") as notes:
            notes.write(f"{what} {transfer_id}\n")


@cache
def noting_engine(_pid: int) -> Engine:
    """Returns a process's engine, in place of the one that the tasks would build."""
    engine = build_engine(SETTINGS, remember=base.REMEMBER)
    return replace(engine, ledger=cast("Ledger", NotingLedger(engine.ledger, Path(os.environ[NOTES]))))


if __name__ == "__main__":
    base._engine_of = noting_engine
    sys.argv = [*COMMANDS["worker"][:-1], "worker", *sys.argv[1:]]
    sys.exit(main())
