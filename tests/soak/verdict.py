"""What has become of everything that was asked for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from eft.domain.transfer import RESTING, State, Transfer
from eft.ports import Engine
from tests.soak.traffic import Asked
from tests.soak.worker import FENCED, TAKEOVER

CALM: Final = timedelta(minutes=6)
"""Until everything rests, once nothing is made to fail any more: a breaker may stay open for five minutes."""
EXPECTED: Final = "rename_half_done"
"""The one reason for which a transfer may be held: a plain rename that may have ended in its middle."""


@dataclass(slots=True)
class Verdict:
    """Counts, and the stories of what is wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def judge(self, one: Asked, row: Transfer | None, *, recovered: bool) -> None:
        """Compares what a row says with what has appeared."""
        times, sums = one.inbox.appeared[one.name], one.inbox.sums.get(one.name, set())
        state = None if row is None else row.state
        settled, held = state is State.SETTLED, state is State.HELD
        expected = held and row is not None and row.reason == EXPECTED and one.inbox.plain
        self.counts.update(
            attempted=1,
            acknowledged=one.transfer is not None,
            delivered=settled and times == 1,
            recovered=settled and recovered,
            held=held,
        )
        if held and row is not None:
            self.held[str(row.reason)] += 1
        faults = {
            "duplicated": times > 1,
            "damaged": bool(sums - {one.sha256}),
            "lost": settled and times == 0,
            "held otherwise": held and not expected,
            "dead": state in {State.DEAD, State.CANCELLED},
            "unfinished": one.transfer is not None and state not in RESTING,
            "appeared without a transfer": row is None and times > 0,
        }
        found = [name for name, so in faults.items() if so]
        self.counts.update(found)
        if found:
            told = "not acknowledged" if row is None else f"{row.state} {row.reason} {row.error}; " + _story(row)
            self.wrong.append(f"{one.name} {one.origin.kind} → {one.inbox.endpoint}: {', '.join(found)}; appeared {times} times; {told}")


def rows_at_rest(engine: Engine, transfers: Sequence[str], *, limit: timedelta = CALM) -> dict[str, Transfer]:
    """Returns the rows once all of them rest, or the limit has passed."""
    rows: dict[str, Transfer] = {}
    until = time.monotonic() + limit.total_seconds()
    while True:
        for one in transfers:
            if one not in rows or rows[one].state not in RESTING:
                rows[one] = engine.ledger.load(one)
        if all(row.state in RESTING for row in rows.values()) or time.monotonic() > until:
            return rows
        time.sleep(1)


def judge(asked: Sequence[Asked], rows: dict[str, Transfer], notes: Path) -> Verdict:
    """Returns the verdict over everything; `notes` are the workers' own, of claims taken over and writes refused."""
    verdict = Verdict()
    lines = [line.split() for line in notes.read_text().splitlines()] if notes.exists() else []
    taken_over = {transfer for what, transfer in lines if what == TAKEOVER}
    for one in asked:
        row = rows.get(one.transfer or "")
        retried = row is not None and any(event.error is not None for event in row.timeline)
        verdict.judge(one, row, recovered=one.transfer in taken_over or retried)
    verdict.counts["takeovers"] = sum(what == TAKEOVER for what, _ in lines)
    verdict.counts["fenced writes"] = sum(what == FENCED for what, _ in lines)
    return verdict


def _story(row: Transfer) -> str:
    return " → ".join(f"{event.state}{'/' + event.reason if event.reason else ''} ({event.at:%H:%M:%S.%f})" for event in row.timeline)
