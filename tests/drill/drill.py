"""A run of the drill: traffic, a scene at a random moment, rest; then every file is looked at where it should have arrived, once."""

from __future__ import annotations

import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import httpx

from deploy.local.customer import RESTING, JsonObject, Refused, told
from deploy.local.regions import REGIONS, TwoRegions
from deploy.local.samples import Sample
from eft.domain.names import partition_of_id
from eft.domain.transfer import Transfer
from eft.errors import NotFound
from tests.drill.operator import Operator
from tests.drill.scenes import SCENES, Played, Stage, possible
from tests.drill.traffic import File, Shop, Traffic

REST_SECONDS: Final = 90.0
LOOK_EVERY: Final = 0.5
GRACE: Final = timedelta(seconds=3)
"""An ack may have been got just before the link was cut."""
READERS: Final = 6


@dataclass
class Verdict:
    """What became of one run."""

    number: int
    scene: str
    story: str
    files: int = 0
    rto: float | None = None
    """Seconds from the failure, or the order, to the first commit in the new home of a partition that was moved (or had waited)."""
    rested: float = 0.0
    """Seconds from there until every file had come to rest."""
    held: list[str] = field(default_factory=list)
    """Held by the engine until an operator sent it round again."""
    dead: list[str] = field(default_factory=list)
    """Given up by the engine until an operator sent it round again."""
    needless: list[str] = field(default_factory=list)
    """Those of the held that the scene did not ask for."""
    duplicated: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Other promises that were broken."""
    left_over: int = 0
    """Temporary files that stand at destinations."""

    @property
    def clean(self) -> bool:
        """Whether everything arrived once and by itself, but for what the scene cannot but hold."""
        return not (self.duplicated or self.lost or self.unfinished or self.wrong or self.dead or self.needless)

    def note_resting(self, shown: JsonObject, said: str, *, may_hold: frozenset[str]) -> None:
        """Notes a transfer that rests short of its end, with why."""
        if shown["state"] == "dead":
            self.dead.append(said)
        else:
            self.held.append(said)
            if shown["reason"] not in may_hold:
                self.needless.append(said)

    def __str__(self) -> str:
        """One line, and one more for each thing that is wrong."""
        rto = "    -" if self.rto is None else f"{self.rto:5.1f}"
        line = (
            f"run {self.number:3}  {self.story:52} files {self.files:3}  RTO {rto} s  all at rest {self.rested:5.1f} s  "
            f"held {len(self.held)} ({len(self.needless)} needlessly)  dead {len(self.dead)}  "
            f"duplicated {len(self.duplicated)}  lost {len(self.lost)}"
        )
        kinds = {
            "held": [one for one in self.held if one not in self.needless],
            "HELD NEEDLESSLY": self.needless,
            "DEAD": self.dead,
            "DUPLICATED": self.duplicated,
            "LOST": self.lost,
            "UNFINISHED": self.unfinished,
            "WRONG": self.wrong,
        }
        return "\n".join([line, *(f"    {kind}: {one}" for kind, found in kinds.items() for one in found)])


class Drill:
    """The pair of regions with its customers, and one run after the other."""

    def __init__(self, pair: TwoRegions, shop: Shop, *, seed: int, files: int = 72, spread: timedelta = timedelta(seconds=12)) -> None:
        self.pair = pair
        self.shop = shop
        self.operator = Operator(pair)
        self.played: Counter[str] = Counter()
        self._all: list[tuple[Verdict, File]] = []
        self._random = random.Random(seed)
        self._files = files
        self._spread = spread

    def choose(self) -> str:
        """Returns one of the scenes that were played least so far."""
        stage = self._stage()
        names = possible(stage)
        least = min(self.played[name] for name in names)
        return self._random.choice([name for name in names if self.played[name] == least])

    def run(self, number: int, scene: str | None = None) -> Verdict:
        """Plays a scene under traffic and returns what became of every file."""
        name = scene or self.choose()
        self.played[name] += 1
        self.pair.delay(timedelta(milliseconds=self._random.choice([0, 5, 15])))
        traffic = Traffic(self.shop, run=f"r{number:03}", count=self._files, spread=self._spread, random_=self._random)
        traffic.start()
        time.sleep(self._random.uniform(1, self._spread.total_seconds() / 2))
        played = SCENES[name](self._stage())
        traffic.finish()
        verdict = Verdict(number, name, played.story, files=len(traffic.files))
        self._follow(traffic, verdict)
        verdict.rested = (datetime.now(UTC) - played.ordered_at).total_seconds()
        self._decide_held(traffic, verdict, may_hold=played.may_hold)
        self.operator.homes()
        self._measure(traffic, played, verdict)
        self._judge(traffic, verdict)
        return verdict

    def _stage(self) -> Stage:
        return Stage(self.pair, self.operator, self._random, time.sleep)

    # -- following -----------------------------------------------------------------------------------------------------

    def _follow(self, traffic: Traffic, verdict: Verdict) -> None:
        """Waits until every transfer rests, each as its home's row tells."""
        ends = time.monotonic() + REST_SECONDS
        while True:
            self._name_found(traffic)
            moving = [file for file in traffic.files if file.shown.get("state") not in RESTING]
            with ThreadPoolExecutor(max_workers=READERS) as readers:
                list(readers.map(self._look, moving))
            moving = [file for file in moving if file.shown.get("state") not in RESTING and not _settled_unseen(file, verdict)]
            if not moving:
                return
            if time.monotonic() > ends:
                verdict.unfinished += [
                    f"{file.name}: {told(file.shown) if file.shown else 'never found'} {self._rows(file)}" for file in moving
                ]
                return
            time.sleep(LOOK_EVERY)

    def _name_found(self, traffic: Traffic) -> None:
        """Finds the transfers that the flows have made of their files."""
        unknown = {file.name: file for file in traffic.files if file.id is None}
        if not unknown:
            return
        for region in REGIONS:
            for row in self.shop.rows(region, since=traffic.began):
                file = unknown.get(row["source"]["path"])
                if file is not None and row["flow"] == file.flow:
                    file.id = row["id"]

    def _look(self, file: File) -> None:
        if file.id is None:
            return
        for region in REGIONS:
            with suppress(Refused, httpx.TransportError):
                file.shown = self.shop.at[region].transfer(file.id)
                return

    def _rows(self, file: File) -> str:
        """Returns what each region has of a transfer, for whoever looks for the fault."""
        if file.id is None:
            return ""
        found = []
        for region in REGIONS:
            table, entry = self.operator.tables[region], self.operator.tables[region].journal_entry(file.id)
            try:
                row: Transfer | None = self.pair.ledger(region).load(file.id)
            except NotFound:
                row = None
            shown = "no row" if row is None else f"{row.state} fence {row.fence} epoch {row.region_epoch} elsewhere {row.elsewhere}"
            shown += "" if row is None else f" due {row.due_at} claimed until {row.claim_until}"
            known = "no journal" if entry is None else "journal closed" if entry.closed else "journal open"
            found.append(f"{region}: {shown}; {known}; {table.intent(file.id)}; {table.partition(partition_of_id(file.id))}")
        return "\n        ".join(["", *found])

    def _decide_held(self, traffic: Traffic, verdict: Verdict, *, may_hold: frozenset[str]) -> None:
        """The operator has what is held or dead sent round again, once; what rests again so is reported as such."""
        resting = [file for file in traffic.files if file.shown.get("state") in {"held", "dead"}]
        for file in resting:
            said = f"{file.name} {file.shown['state']}: {file.shown['reason']} ({told(file.shown)})"
            verdict.note_resting(file.shown, said, may_hold=may_hold)
            self._again(file)
        if resting:
            self._follow(traffic, verdict)

    def _again(self, file: File) -> None:
        for region in REGIONS:
            with suppress(Refused, httpx.TransportError):
                file.shown = self.shop.at[region].redrive(str(file.id))
                return

    # -- figures -------------------------------------------------------------------------------------------------------

    def _measure(self, traffic: Traffic, played: Played, verdict: Verdict) -> None:
        committed = self._commits(played.home, traffic)
        after = [
            (at - played.ordered_at).total_seconds()
            for one, at in committed
            if partition_of_id(one) in played.watched and at > played.ordered_at
        ]
        verdict.rto = min(after, default=None)
        if played.quiet is not None:
            begun, ended = played.quiet
            everywhere = [one for region in REGIONS for one in self._commits(region, traffic)]
            early = [one for one, at in everywhere if begun + GRACE < at < ended]
            verdict.wrong += [f"{one} was committed without the peer's ack" for one in early]

    def _commits(self, region: str, traffic: Traffic) -> list[tuple[str, datetime]]:
        """Returns the deliveries that a region's own ledger has receipts of, with their times."""
        ids = {row["id"] for row in self.shop.rows(region, since=traffic.began) if row["state"] in {"delivered", "settled"}}
        receipts: list[tuple[str, JsonObject]] = [(str(file.id), file.shown["receipt"]) for file in traffic.files if file.id in ids]
        return [(one, datetime.fromisoformat(receipt["at"])) for one, receipt in receipts if receipt]

    # -- truth ---------------------------------------------------------------------------------------------------------

    def _judge(self, traffic: Traffic, verdict: Verdict) -> None:
        """Compares what appeared at the destinations with what was sent: the receivers' word, not the engine's."""
        versions = {target.name: target.bucket.versions() for target in self.shop.targets if target.bucket is not None}
        for file in traffic.files:
            appeared = self._appeared(file, versions)
            state = file.shown.get("state")
            if len(appeared) > 1:
                verdict.duplicated.append(f"{file.name} appeared {len(appeared)} times: {told(file.shown)}")
            if any(one != file.sample for one in appeared):
                verdict.lost.append(f"{file.name} arrived damaged: {told(file.shown)}")
            if not appeared and state not in {"held", "dead", None}:
                verdict.lost.append(f"{file.name} is {state} and has not arrived: {told(file.shown)}")
            if not appeared and state in {"dead", None} and not any(file.name in one for one in verdict.unfinished):
                verdict.lost.append(f"{file.name}: {told(file.shown) if file.shown else 'its transfer is nowhere'}")
        self._all += [(verdict, file) for file in traffic.files]
        verdict.left_over = sum(len(target.inbox.left_over()) for target in self.shop.targets if target.inbox is not None)

    def judge_again(self) -> None:
        """Looks at the files of every run once more, at the end of all: nothing may have come a second time since."""
        versions = {target.name: target.bucket.versions() for target in self.shop.targets if target.bucket is not None}
        for verdict, file in self._all:
            times = len(self._appeared(file, versions))
            if times > 1 and not any(file.name in one for one in verdict.duplicated):
                verdict.duplicated.append(f"{file.name} appeared {times} times, after its run: {told(file.shown) if file.shown else ''}")

    @staticmethod
    def _appeared(file: File, versions: dict[str, dict[str, list[str]]]) -> list[Sample]:
        target = file.target
        if target.inbox is not None:
            return target.inbox.appearances(file.name)
        assert target.bucket is not None
        return [target.bucket.held(file.name, version) for version in versions[target.name].get(file.name, [])]


def _settled_unseen(file: File, verdict: Verdict) -> bool:
    """Returns whether a flow's file was delivered by a region that took its row with it: no listing shows its transfer any more."""
    return verdict.scene == "lost" and file.id is None and file.target.inbox is not None and bool(file.target.inbox.appearances(file.name))


def summary(verdicts: list[Verdict], say: Callable[[str], object]) -> bool:
    """Says what all runs together came to, in one line at the end; returns whether every run was clean."""
    for scene in SCENES:
        mine = [verdict for verdict in verdicts if verdict.scene == scene]
        times = sorted(verdict.rto for verdict in mine if verdict.rto is not None)
        if times:
            say(f"{scene:10} {len(mine):3} runs  RTO median {statistics.median(times):5.1f} s, longest {times[-1]:5.1f} s")
    names = ("lost", "duplicated", "held", "needless", "dead", "unfinished", "wrong")
    lost, duplicated, held, needless, dead, unfinished, wrong = (sum(len(getattr(verdict, name)) for verdict in verdicts) for name in names)
    say(
        f"drill: {len(verdicts)} runs, {sum(verdict.files for verdict in verdicts)} files: {lost} lost, {duplicated} duplicated, "
        f"{held} held until decided ({needless} needlessly), {dead} dead until re-driven, {unfinished} unfinished, {wrong} other faults"
    )
    return all(verdict.clean for verdict in verdicts)
