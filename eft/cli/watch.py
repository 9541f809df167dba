"""Following transfers until they rest: what to look at, and how to show it while it moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

from eft.cli.amounts import shown_duration, shown_size
from eft.cli.client import Api, JsonObject, path
from eft.cli.failure import ExitCode, Failure
from eft.cli.output import Output, console, table, text
from eft.cli.session import Session

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

RESTING: Final = frozenset({"settled", "held", "dead", "cancelled"})
"""As eft.domain.transfer.RESTING."""
MOVING: Final = ("accepted", "staging", "staged", "delivering", "committing", "delivered")
ARRIVED: Final = frozenset({"committing", "delivered", "settled"})
DETAILED: Final = 8
"""Transfers of a flow whose bytes are asked for one by one in each look."""
INTERVAL: Final = 1.0
FIRES: Final = 100
"""Latest fires of a flow; the most that the API gives at once."""
PATIENCE: Final = 60.0
"""Seconds for which a watch rides through an API that cannot be reached."""
LISTED_WITHIN: Final = 60.0
"""Seconds within which a list shows what an ended run has found: an index lags, and the other region adopts what is at home there."""
REFUSED_WITHIN: Final = 5.0
"""Seconds for the same where only names were refused: those of earlier runs are counted, too, and never come."""
ROWS_KEPT: Final = 6
"""Rows of the screen left for the heading, the sum and the shell."""


class Watched(Protocol):
    """What is watched; each look returns everything as it is now, in a stable order."""

    def look(self) -> list[JsonObject]:
        """Returns the transfers: whole, or as a list shows them."""

    def more(self) -> bool:
        """Returns whether others may come."""


class IdWatch:
    """Transfers named by id."""

    def __init__(self, api: Api, ids: Sequence[str]) -> None:
        self._api = api
        self._seen: dict[str, JsonObject | None] = dict.fromkeys(ids)

    def look(self) -> list[JsonObject]:
        """Returns the transfers; one at rest is not asked for again."""
        for transfer, seen in self._seen.items():
            if seen is None or seen["state"] not in RESTING:
                self._seen[transfer] = self._api.get(path("transfers", transfer)).body
        return [seen for seen in self._seen.values() if seen is not None]

    def more(self) -> bool:
        """Returns False: they are all named."""
        return False


class FlowWatch:
    """The transfers of a flow: those that move at the beginning, and all that come later."""

    def __init__(self, api: Api, flow: str, *, since: datetime | None, ignored: frozenset[str]) -> None:
        self._api = api
        self._flow = flow
        self._since = since
        self._ignored = ignored
        self._seen: dict[str, JsonObject] = {}
        self._closed = False

    @classmethod
    def begin(cls, api: Api, flow: str, *, moving: bool) -> FlowWatch:
        """Returns a watch that begins now, with what is `moving` already or only with what comes."""
        newest = api.listing(path("transfers"), flow=flow, limit=1)["items"]
        if not newest:
            return cls(api, flow, since=None, ignored=frozenset())
        wanted: list[JsonObject] = []
        if moving:
            for state in MOVING:
                wanted += api.listing(path("transfers"), flow=flow, state=state)["items"]
        since = min(created(item) for item in [*newest, *wanted])
        first = cls(api, flow, since=since, ignored=frozenset())
        present = {item["id"] for item in first._newest()}
        return cls(api, flow, since=since, ignored=frozenset(present - {item["id"] for item in wanted}))

    def look(self) -> list[JsonObject]:
        """Returns the transfers, oldest first; a few of those that move with their bytes."""
        for item in reversed(list(self._newest())):
            if item["id"] in self._seen or not (self._closed or item["id"] in self._ignored):
                kept = self._seen.get(item["id"], {})
                self._seen[item["id"]] = kept | item
        detailed = [transfer for transfer, seen in self._seen.items() if seen["state"] in {"staging", "delivering"}]
        for transfer in detailed[:DETAILED]:
            self._seen[transfer] = self._api.get(path("transfers", transfer)).body
        return list(self._seen.values())

    def more(self) -> bool:
        """Returns False: it ends as soon as what it has seen rests."""
        return False

    def close(self) -> None:
        """Takes nothing new from now on."""
        self._closed = True

    def _newest(self) -> Iterator[JsonObject]:
        cursor: str | None = None
        while True:
            page = self._api.get(path("transfers"), flow=self._flow, limit=200, cursor=cursor).body
            for item in page["items"]:
                if self._since is not None and created(item) < self._since:
                    return
                yield item
            cursor = page["next_cursor"]
            if cursor is None:
                return


class RunWatch:
    """The transfers of a flow that come once it was asked to run, until the run has ended."""

    def __init__(
        self, api: Api, transfers: FlowWatch, *, flow: str, fire: str, quiet: timedelta | None, monotonic: Callable[[], float]
    ) -> None:
        self._api = api
        self._transfers = transfers
        self._flow = flow
        self._name = fire
        self._quiet = None if quiet is None else quiet.total_seconds()
        self._monotonic = monotonic
        self._changed = monotonic()
        self._whole = False
        self.fire: JsonObject | None = None
        """The run as it was last seen; None where many others have come since."""
        self.seen = 0
        """Transfers seen."""

    @property
    def ended(self) -> bool:
        """Whether the run has ended; it makes no more transfers then."""
        return self.fire is not None and bool(self.fire["ended"])

    def look(self) -> list[JsonObject]:
        """Returns the transfers, oldest first.

        Raises:
            Failure: NEGATIVE when the run has failed before it found a file.
        """
        if self._whole:
            return self._transfers.look()
        before = (self.ended, self.seen)
        # Asked first: what a run has found is on record before its end.
        latest = self._api.get(path("flows", self._flow, "fires"), limit=FIRES).body["latest"]
        self.fire = next((one for one in latest if one["fire"] == self._name), None)
        transfers = self._transfers.look()
        self.seen = len(transfers)
        if (self.ended, self.seen) != before:
            self._changed = self._monotonic()
        if not transfers:
            self._refuse_failed()
        if self.ended and self.seen >= self._number("created") + self._number("refused"):
            self._whole = True
            self._transfers.close()
        return transfers

    def more(self) -> bool:
        """Returns whether others may come: the run goes on and is not quiet for too long, or not all that it has made is listed yet."""
        if self._whole:
            return False
        longest: float | None = LISTED_WITHIN
        if self.fire is not None and not self.ended:
            longest = self._quiet
        elif self.ended and self.seen >= self._number("created"):
            longest = REFUSED_WITHIN
        return longest is None or self._monotonic() - self._changed < longest

    def conclude(self) -> None:
        """Returns if nothing is known to be wrong with the run.

        Raises:
            Failure: NEGATIVE when it has failed, or has made transfers that were not seen.
        """
        self._refuse_failed()
        made = self._number("created")
        if self.seen < made:
            raise Failure(
                f"{self.seen} of {made} transfers that the run has made are listed",
                code=ExitCode.NEGATIVE,
                advice=f"They are on record and go on. Look again: eft transfer list --flow {self._flow}",
            )

    def _number(self, what: str) -> int:
        files = None if self.fire is None else self.fire["files"]
        return int((files or {}).get(what, 0))

    def _refuse_failed(self) -> None:
        if self.fire is not None and self.fire["error"]:
            raise Failure(f"The run failed ({self.fire['reason']}): {self.fire['error']}", code=ExitCode.NEGATIVE)


def created(item: JsonObject) -> datetime:
    """Returns when a transfer was accepted."""
    return datetime.fromisoformat(item["created"])


def bytes_done(item: JsonObject) -> int:
    """Returns the bytes of a transfer that are where they go."""
    if item["state"] in ARRIVED:
        return int(item["size"] or 0)
    return int((item.get("progress") or {}).get("bytes_done") or 0)


def follow(session: Session, out: Output, watched: Watched, *, timeout: timedelta | None) -> None:
    """Shows transfers until all rest and no more come.

    Raises:
        Failure: NEGATIVE when one rests elsewhere than in `settled`, or when the time is up; UNAVAILABLE when the API stays away.
    """
    started = heard = session.monotonic()
    seen: list[JsonObject] = []
    with _board(out) as board:
        while True:
            begun = session.monotonic()
            try:
                found = watched.look()
            except Failure as failure:
                if failure.code is not ExitCode.UNAVAILABLE or session.monotonic() - heard > PATIENCE:
                    raise
                found, answered = seen, False
            else:
                heard, answered = session.monotonic(), True
            seen = found
            now = session.monotonic()
            board.show(seen, now=now)
            if answered and not watched.more() and all(item["state"] in RESTING for item in seen):
                break
            if timeout is not None and now - started >= timeout.total_seconds():
                moving = sum(item["state"] not in RESTING for item in seen)
                took = shown_duration(timeout.total_seconds())
                still = f"{moving} of {len(seen)} still move after {took}; they go on" if moving else f"No end after {took}; it goes on"
                raise Failure(f"{still} without you", code=ExitCode.NEGATIVE)
            session.sleep(max(INTERVAL, 2 * (now - begun)))
    _end(out, seen)


def _end(out: Output, seen: Sequence[JsonObject]) -> None:
    failed = [item for item in seen if item["state"] != "settled"]
    out.table(
        ("ID", "STATE", "FILE", "REASON", "ERROR"),
        [(item["id"], item["state"], item["source"]["path"], item["reason"], item["error"]) for item in failed],
        empty=f"{_count(seen)}, {shown_size(sum(bytes_done(item) for item in seen))}." if seen else "Nothing has moved.",
    )
    if failed:
        held = any(item["state"] in {"held", "dead"} for item in failed)
        raise Failure(
            f"{len(failed)} of {len(seen)} did not settle",
            code=ExitCode.NEGATIVE,
            advice="`eft transfer show ID` tells the whole story; `eft transfer redrive ID` sends one round again." if held else None,
        )


def _count(seen: Sequence[JsonObject]) -> str:
    states = Counter(item["state"] for item in seen)
    return ", ".join(f"{states[state]} {state}" for state in (*MOVING, *sorted(RESTING)) if states[state])


class _Board(Protocol):
    def show(self, seen: Sequence[JsonObject], *, now: float) -> None: ...


class _Lines:
    """One line for each change: for pipes, logs and programs."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._told: dict[str, tuple[object, ...]] = {}

    def show(self, seen: Sequence[JsonObject], *, now: float) -> None:  # noqa: ARG002 - as the live board
        for item in seen:
            change = (item["state"], bytes_done(item)) if self._out.as_json else (item["state"],)
            if self._told.get(item["id"]) != change:
                self._told[item["id"]] = change
                self._out.line(item)
                why = f" ({item['reason']})" if item["reason"] else ""
                self._out.say(f"{item['id']} {item['state']}{why} {item['source']['path']} {shown_size(item['size'])}")


class _Screen:
    """A table that lives: what moves first, with bytes and speed, and the sum below."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._before: dict[str, int] = {}
        self._at: float | None = None
        self._speeds: dict[str, float] = {}

    def show(self, seen: Sequence[JsonObject], *, now: float) -> None:
        elapsed = 0.0 if self._at is None else now - self._at
        for item in seen:
            done = bytes_done(item)
            if elapsed > 0:
                gained = max(0, done - self._before.get(item["id"], 0)) / elapsed
                self._speeds[item["id"]] = (self._speeds.get(item["id"], gained) + gained) / 2
            self._before[item["id"]] = done
        self._at = now
        self._live.update(self.render(seen), refresh=True)

    def render(self, seen: Sequence[JsonObject]) -> Group:
        """Returns the screen: as many transfers as fit, those that move first, then those that failed, then the latest."""
        from rich.console import Group  # noqa: PLC0415 - only where a person looks on

        latest = list(seen)
        latest.reverse()
        order = sorted(latest, key=lambda item: (item["state"] in RESTING, item["state"] == "settled"))
        shown = order[: max(1, self._live.console.height - ROWS_KEPT)]
        rows = [(item["id"][:12], item["state"], item["source"]["path"], *self._figures(item)) for item in shown]
        grid = table(("TRANSFER", "STATE", "FILE", "BYTES", "", "SPEED"), rows, right=frozenset({"BYTES", "", "SPEED"}))
        moving = sum(self._speeds.get(item["id"], 0) for item in seen if item["state"] not in RESTING)
        total = f"{_count(seen) or 'nothing yet'} · {shown_size(sum(self._before.values()))} · {shown_size(moving)}/s"
        return Group(grid, text(total, style="bold"))

    def _figures(self, item: JsonObject) -> tuple[str, str, str]:
        done, size = self._before.get(item["id"], 0), item["size"]
        into = (item.get("progress") or {}).get("into")
        share = f"{100 * done // size} %" if size else ""
        speed = self._speeds.get(item["id"], 0.0)
        moves = item["state"] not in RESTING and speed > 0
        return (
            f"{shown_size(done)} of {shown_size(size)}",
            f"{share} staged" if into == "staging" else share,
            f"{shown_size(speed)}/s" if moves else "",
        )


@contextmanager
def _board(out: Output) -> Iterator[_Board]:
    screen = console()
    if out.as_json or not screen.is_terminal:
        yield _Lines(out)
        return
    from rich.live import Live  # noqa: PLC0415 - only where a person looks on

    with Live(console=screen, transient=False, auto_refresh=False) as live:
        yield _Screen(live)
