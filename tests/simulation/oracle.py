"""The judge: what must be true of a seed once everything rests, by what the parties at both ends saw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from eft.domain.fingerprint import Fingerprint
from eft.domain.flow import ConflictMode, Disposition
from eft.domain.names import is_token, put_by
from eft.domain.transfer import RESTING, State, Transfer
from tests.simulation.play import Play
from tests.simulation.region import Region
from tests.simulation.truth import Appearance, Version


def judge(play: Play) -> list[str]:
    """Returns every broken promise, in words."""
    return [*play.kernel.broken, *play.truth.violations, *_verdicts(play)]


def _verdicts(play: Play) -> Iterator[str]:
    yield from _nothing_vanished(play)
    for region, row in play.rows():
        yield from _row(play, region, row)
    yield from _appearances(play)
    yield from _sources(play)
    for region in play.regions:
        yield from _reservations(region)


def carried(play: Play) -> dict[str, list[tuple[Region, Transfer]]]:
    """Returns the rows of each transfer, the home's first."""
    found: dict[str, list[tuple[Region, Transfer]]] = defaultdict(list)
    for region, row in play.rows():
        found[row.id].append((region, row))
    for rows in found.values():
        rows.sort(key=lambda pair: play.home(pair[1].partition) is not pair[0])
    return found


def _nothing_vanished(play: Play) -> Iterator[str]:
    rows = carried(play)
    for one, told in play.truth.accepted.items():
        if one not in rows:
            yield f"{one} was accepted ({told}) and is nowhere"
        elif play.home(rows[one][0][1].partition) is not rows[one][0][0] and rows[one][0][1].state not in {State.SETTLED, State.CANCELLED}:
            yield f"{one} was accepted ({told}) and its home has no row"
    for one, at in play.truth.cancelled.items():
        if any(appearance.at > at for appearance in play.truth.appearances.get(one, ())):
            yield f"{one} was told to be cancelled, and appeared afterwards"


def _row(play: Play, region: Region, row: Transfer) -> Iterator[str]:
    truth = play.truth
    seen = truth.appearances.get(row.id, [])
    words = truth.words.get(row.id, set())
    where = f"{row.id} is {row.state} ({row.reason}) at {region.name}"
    at_home = play.home(row.partition) is region
    if row.state not in RESTING and not _waits_for_one_held(region, row):
        yield f"{where} at the end"
    if row.reason == "internal_error":
        yield f"{where}: {row.error}"
    most = 2 if "deliver" in words else 1
    if len(seen) > most:
        yield f"{where} and appeared {len(seen)} times"
    if row.state is State.SETTLED and not seen:
        yield f"{where} and never appeared"
    if row.state in {State.DEAD, State.CANCELLED} and seen and at_home and "deliver" not in words:
        yield f"{where} and appeared"
    if row.state is State.SETTLED and row.receipt is not None and row.receipt.size != len(seen[-1].data if seen else b""):
        yield f"{where} and its receipt says {row.receipt.size} bytes"


def _waits_for_one_held(region: Region, row: Transfer) -> bool:
    """Whether a file's name is reserved for one that is held: what was sent once may arrive for longer than a seed lasts, and is not
    decided before.
    """
    held = region.ledger._paths.get((row.destination.endpoint, row.destination.path))
    if row.reason != "destination_reserved" or held is None:
        return False
    holders = [other for other in region.ledger.rows() if other.id == held.holder and other.state is State.HELD]
    return any(other.commit is not None and put_by(other.commit.token) for other in holders)


def _appearances(play: Play) -> Iterator[str]:
    rows = carried(play)
    newest: dict[tuple[str, str, str, str], int] = {}
    for seen in sorted((a for found in play.truth.appearances.values() for a in found), key=lambda a: a.at):
        if seen.transfer not in rows:
            yield f"{seen.transfer} appeared at {seen.endpoint}:{seen.path} and is nowhere"
            continue
        if play.truth.given_up.get(seen.token, seen.at) < seen.at:
            yield f"{seen.transfer} appeared by a token that had been given up"
        row = rows[seen.transfer][0][1]
        versions = play.truth.versions[row.source.endpoint, row.source.path]
        known = [version for version in versions if version.data == seen.data]
        if not known:
            yield f"{seen.transfer} appeared with bytes that its source never had: {len(seen.data)} of {[len(v.data) for v in versions]}"
            continue
        if bytes(seen.inode.data) != seen.data:
            yield f"{seen.transfer} was altered after it had appeared"
        if row.flow is not None and row.fingerprint is not None and not _is(known, row.fingerprint):
            yield f"{seen.transfer} appeared as another version than the one found"
        if row.policy.conflict is ConflictMode.OVERWRITE:
            place = (seen.endpoint, seen.path, row.source.endpoint, row.source.path)
            if known[-1].number < newest.get(place, 0):
                yield f"{seen.transfer}: version {known[-1].number} of {row.source.path} overwrote version {newest[place]}"
            newest[place] = max(newest.get(place, 0), known[-1].number)


def _is(versions: list[Version], fingerprint: Fingerprint) -> bool:
    return any(version.modified == fingerprint.modified or (version.etag and version.etag == fingerprint.etag) for version in versions)


def _sources(play: Play) -> Iterator[str]:
    """A source file is removed only as the version that was delivered, and nothing else is lost on the way."""
    delivered: dict[tuple[str, str], list[Appearance]] = defaultdict(list)
    rows = carried(play)
    disposing: dict[tuple[str, str], set[Disposition]] = defaultdict(set)
    for one, found in rows.items():
        row = found[0][1]
        place = (row.source.endpoint, row.source.path)
        disposing[place].add(row.policy.disposition)
        delivered[place] += play.truth.appearances.get(one, [])
    for where, origin, data in play.truth.disposed:
        if not any(seen.data == data for seen in delivered[where, origin]):
            yield f"{where}:{origin} was removed and not delivered"
        if disposing[where, origin] <= {Disposition.KEEP}:
            yield f"{where}:{origin} was removed and should have been kept"
    for (name, path), versions in play.truth.versions.items():
        server, last = play.servers[name], versions[-1]
        # What has only a temporary name of ours is out of everybody's sight.
        stands = any(bytes(inode.data) == last.data for at, inode in server.files.items() if not is_token(at))
        removed = any(s == name and data == last.data for s, _, data in play.truth.disposed)
        taken = server.consumes != "never"
        if not stands and not removed and not taken:
            yield f"{name}:{path} is gone, and nobody removed it"


def _reservations(region: Region) -> Iterator[str]:
    for (endpoint, path), held in region.ledger._paths.items():
        if held.holder is None:
            continue
        row = region.ledger._rows.get(held.holder)
        if row is None:
            yield f"{endpoint}:{path} is reserved at {region.name} for {held.holder}, which has no row there"
