"""Looking: what a flow makes of each name that its source shows. Discover acts on it, plan tells it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from eft.domain.endpoint import Endpoint
from eft.domain.fingerprint import RefusedName, RemoteFile
from eft.domain.flow import Flow
from eft.domain.memory import Look, Memory, mark
from eft.domain.names import disposed_by
from eft.errors import Transient
from eft.journey.accept import found_id, refused_id
from eft.ports import Engine, Source

SIDECAR: Final = ".sha256"
LONGEST_LISTING: Final = timedelta(minutes=15)
"""How long a source may go on showing names: one that never ends would keep a worker's, or the API's, thread for ever."""
DISPOSALS: Final = 100
"""Tokens of disposals that a look keeps for a closer one."""
Window = tuple[datetime, datetime]
Beside = dict[int, datetime | None]


class Verdict(StrEnum):
    """What a flow makes of a name."""

    TAKEN = "taken"
    """It is to have a transfer, if it has none yet."""
    KNOWN = "known"
    """It has one."""
    WAITS = "waits"
    """Its writer may not have finished it."""
    LEFT = "left"
    """The selection leaves it out."""
    REFUSED = "refused"
    """It can never be moved."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One name of a listing."""

    entry: RemoteFile | RefusedName
    verdict: Verdict
    why: str = ""
    mark: int = 0


class Looking:
    """One look at a flow's source, with what the flow remembers; and what it is to remember then."""

    def __init__(self, engine: Engine, flow: Flow, source: Endpoint, memory: Memory, *, window: Window | None = None) -> None:
        self._engine = engine
        self._flow = flow
        self._source = source
        self._before = memory
        self._window = window
        self._now = engine.clock.now()
        forget_after = flow.selection.forget_after
        self._watermark = memory.risen(None if forget_after is None else self._now - forget_after)
        self._decided: set[int] = set()
        self._watched: dict[int, Look] = {}
        self.begun = 0
        """Versions that still need a look."""
        self.disposals: list[RemoteFile] = []
        """What stands under names that sources are renamed to before their removal: seldom and not for long, unless left behind."""

    def names(self) -> Iterator[Seen]:
        """Yields a verdict on each name that the source shows, as the listing comes."""
        with self._engine.stores.open(self._source) as store:
            # Markers first: a file whose marker was there before the file was looked at is whole as it is looked at.
            beside = self._markers(store)
            for entry in self._listed(store, disposals=True):
                if isinstance(entry, RefusedName):
                    yield self._refused(entry)
                elif disposed_by(entry.path) is not None:
                    yield self._disposal(entry)
                else:
                    yield self._judged(entry, beside)

    def decide(self, seen: Seen) -> None:
        """Notes that a version has a transfer."""
        self._decided.add(seen.mark)

    def memory(self, *, complete: bool) -> Memory:
        """Returns what is to be remembered: after a whole listing only of what it showed, else also of what was known before."""
        decided = self._decided if complete else self._decided | set(self._before.decided)
        watched = self._watched if complete else {**self._before.watched, **self._watched}
        return Memory(
            revision=self._before.revision,
            watermark=self._watermark,
            decided=decided,
            watched={one: look for one, look in watched.items() if one not in decided},
            stored=self._before.stored,
        )

    def _listed(self, store: Source, *, disposals: bool = False) -> Iterator[RemoteFile | RefusedName]:
        """Yields what the source shows.

        Raises:
            Transient: `listing_too_slow`, which counts against the endpoint.
        """
        clock, selection = self._engine.clock, self._flow.selection
        until = clock.monotonic() + LONGEST_LISTING.total_seconds()
        for entry in store.list(selection.directory, recursive=selection.recursive, disposals=disposals):
            if clock.monotonic() > until:
                msg = f"listing '{selection.directory}' has not ended within {LONGEST_LISTING}; select a smaller directory"
                raise Transient(msg, reason="listing_too_slow", endpoint=self._source.id)
            yield entry

    def _markers(self, store: Source) -> Beside | None:
        """Returns when all markers and sidecars were modified, by hashes of their paths; None where the flow asks for none."""
        selection = self._flow.selection
        if selection.stability.done_marker is None and not self._flow.policy.sidecar:
            return None
        return {
            hash(entry.path): entry.modified
            for entry in self._listed(store)
            if isinstance(entry, RemoteFile) and self._is_beside(entry.path)
        }

    def _is_beside(self, path: str) -> bool:
        return self._flow.selection.is_marker(path.rpartition("/")[2]) or (self._flow.policy.sidecar and path.endswith(SIDECAR))

    def _disposal(self, file: RemoteFile) -> Seen:
        if len(self.disposals) < DISPOSALS:
            self.disposals.append(file)
        return Seen(file, Verdict.LEFT, f"a source of transfer {disposed_by(file.path)}, renamed before its removal")

    def _refused(self, entry: RefusedName) -> Seen:
        selection = self._flow.selection
        if not selection.names(selection.below(entry.shown)):
            return Seen(entry, Verdict.LEFT, "its name does not match the pattern")
        return self._unless_known(Seen(entry, Verdict.REFUSED, entry.why, mark(refused_id(self._flow, entry))))

    def _judged(self, file: RemoteFile, beside: Beside | None) -> Seen:
        why = self._why_not(file)
        if why is not None:
            return Seen(file, Verdict.LEFT, why)
        known = self._unless_known(Seen(file, Verdict.TAKEN, "", mark(found_id(self._flow, file))))
        if known.verdict is Verdict.KNOWN:
            return known
        waits = None if beside is None else self._waits_for(file, beside)
        return self._settled(known) if waits is None else Seen(file, Verdict.WAITS, waits)

    def _waits_for(self, file: RemoteFile, beside: Beside) -> str | None:
        """Returns what its writer has yet to make beside a file."""
        missing = next((path for path in self._awaited(file.path) if hash(path) not in beside), None)
        if missing is not None:
            return f"'{missing}' is not there yet"
        marker = self._flow.selection.marker_of(file.path)
        made = None if marker is None else beside[hash(marker)]
        if made is not None and file.modified is not None and made < file.modified:
            # It was made for what stood there before: this version may be half written.
            return f"'{marker}' is older than the file, so it is a former version's"
        return None

    def _why_not(self, file: RemoteFile) -> str | None:
        why = self._flow.selection.why_not(file, now=self._now, window=self._window)
        if why is None and self._flow.policy.sidecar and file.path.endswith(SIDECAR):
            return "it is a sidecar of another file"
        if why is None and self._watermark is not None and file.modified is not None and file.modified < self._watermark:
            return f"modified before {self._watermark:%Y-%m-%d %H:%M} UTC, and the flow has forgotten what it did by then"
        return why

    def _awaited(self, path: str) -> Iterator[str]:
        marker = self._flow.selection.marker_of(path)
        if marker is not None:
            yield marker
        if self._flow.policy.sidecar:
            yield path + SIDECAR

    def _unless_known(self, seen: Seen) -> Seen:
        if seen.mark not in self._before.decided:
            return seen
        self._decided.add(seen.mark)
        return Seen(seen.entry, Verdict.KNOWN, seen.why, seen.mark)

    def _settled(self, seen: Seen) -> Seen:
        """Counts this look, where the flow asks for more than one."""
        stability = self._flow.selection.stability
        if stability.looks == 1:
            return seen
        before = self._before.watched.get(seen.mark)
        if before is not None and before.count >= stability.looks:
            # Settled, but nothing could be made of it yet: its looks are no longer counted.
            look = before
        else:
            look = Look(1, self._now) if before is None else before.again(self._now, apart=stability.apart)
        self._watched[seen.mark] = look
        if look.count >= stability.looks:
            return seen
        self.begun += 1
        return Seen(seen.entry, Verdict.WAITS, f"seen unchanged {look.count} of {stability.looks} times", seen.mark)
