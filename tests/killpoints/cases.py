"""One case of the matrix: worker A stopped at a point, B killed at another, A continued and C to the end; and what stands there then."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass, field, fields
from itertools import product
from typing import Any, Final

from deploy.local.servers import AwsEmulator
from deploy.local.sftp import SftpServer
from eft.bootstrap import build_engine
from eft.domain.flow import Policy
from eft.domain.transfer import CLOCKS_DIFFER, PUT_ARRIVES_WITHIN, State, Transfer
from eft.journey.accept import Submission, accept
from eft.settings import Settings
from tests.killpoints.crew import Crew, Hand
from tests.killpoints.ends import End, S3End, SftpEnd
from tests.killpoints.points import label_of
from tests.killpoints.worker import Order, Report

APART: Final = 600.0
"""Seconds between two cases on the workers' clock: slots of a killed worker are free again."""
DECIDED_LATER: Final = (PUT_ARRIVES_WITHIN + CLOCKS_DIFFER).total_seconds()
ARCHIVE: Final = "done"
PART: Final = 4096
ORDERS: Final = ("A goes on first", "C goes on first", "A and C go on together")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What is moved from where to where."""

    source: str
    destination: str
    rename: str | None
    consuming: bool
    parts: int = 1
    keeps: bool = False
    """The receiver keeps what arrives: a small file goes to a bucket in one request."""

    @property
    def name(self) -> str:
        """Short words for it."""
        words = [
            f"{self.source}-{self.destination}",
            self.rename,
            "consuming" if self.consuming else None,
            "parts" if self.parts > 1 else None,
            "keeping" if self.keeps else None,
        ]
        return " ".join(word for word in words if word)

    @property
    def policy(self) -> Policy:
        """What becomes of the source is a commit of its own: where nobody consumes it is deleted, and what comes in parts is archived."""
        asked: dict[str, Any] = {
            "receiver_removes": self.consuming,
            "receiver_keeps": self.keeps,
            "retry": {"first": 0.1, "longest": 1, "tries": 20},
        }
        if self.parts > 1:
            return Policy.model_validate(asked | {"disposition": "archive", "archive_directory": ARCHIVE})
        return Policy.model_validate(asked | {"disposition": "keep" if self.consuming else "delete"})

    @property
    def figures(self) -> dict[str, Any]:
        """The journey's figures: small parts where there are many."""
        return {} if self.parts == 1 else {"part_size": PART, "lane_threshold": 2, "lane_width": 2, "inline_size": 2 * PART}


VARIANTS: Final = (
    *(
        Variant(source=source, destination=destination, rename=rename, consuming=consuming)
        for source, destination in product(("sftp", "s3"), repeat=2)
        for rename in (("posix", "plain") if destination == "sftp" else (None,))
        for consuming in (False, True)
    ),
    Variant(source="sftp", destination="s3", rename=None, consuming=False, keeps=True),
)
"""Four kinds, both rename modes, with and without a receiver that consumes; and one request for a small file."""
IN_PARTS: Final = tuple(
    Variant(source="s3" if destination == "sftp" else "sftp", destination=destination, rename=rename, consuming=True, parts=2)
    for destination, rename in (("sftp", "posix"), ("sftp", "plain"), ("s3", None))
)
"""Files of several parts, copied in lanes."""


@dataclass(slots=True)
class Tally:
    """What has been seen, to be added up over variants and directors."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Stories of cases that are not exactly once."""
    stopped: Counter[str] = field(default_factory=Counter)
    """How often a worker was stopped at each point's label."""
    killed: Counter[str] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)

    def lines(self) -> str:
        """Returns it as text, for `read`."""
        return json.dumps({one.name: getattr(self, one.name) for one in fields(self)})

    @classmethod
    def read(cls, text: str) -> Tally:
        """Returns the tally of such a text."""
        held = json.loads(text)
        wrong = held.pop("wrong")
        return cls(wrong=wrong, **{name: Counter(counts) for name, counts in held.items()})

    def add(self, other: Tally) -> None:
        """Adds another's."""
        self.counts += other.counts
        self.wrong += other.wrong
        self.stopped += other.stopped
        self.killed += other.killed
        self.passed += other.passed


@dataclass(frozen=True, slots=True)
class Servers:
    """Where everything is."""

    aws: AwsEmulator
    sshd: SftpServer
    settings: Settings
    crew: Crew
    without: str | None = None
    """A guard that the workers do without, to see the matrix find it."""


class Stage:
    """One variant's two ends and its workers, in a process of one thread."""

    def __init__(self, servers: Servers, variant: Variant, *, tag: str) -> None:
        self.variant = variant
        self.tally = Tally()
        self._tag = tag
        self._tenant = f"t-{tag}"
        self._engine = build_engine(servers.settings)
        self._number = 0
        self._names: list[str] = []
        s3 = servers.aws.client("s3")

        def end(kind: str, role: str, *, rename: str | None = None, consuming: bool = False) -> End:
            name = f"{role[:3]}-{tag}"
            if kind == "s3":
                refuses = variant.keeps
                return S3End(self._engine, s3, tenant=self._tenant, endpoint=name, role=role, consuming=consuming, refuses_taken=refuses)
            account = servers.sshd.account(name)
            return SftpEnd(self._engine, account, tenant=self._tenant, endpoint=name, role=role, rename=rename, consuming=consuming)

        self.source = end(variant.source, "source")
        self.destination = end(variant.destination, "destination", rename=variant.rename, consuming=variant.consuming)
        self._crew = servers.crew
        self._without = servers.without

    def undisturbed(self, *, wire: bool = False) -> list[str]:
        """Plays one transfer without any disturbance and returns the points that its worker passed.

        With requests among the points it is a second one: a tenant's first makes what later ones find, with requests that no case has.
        """
        points: list[str] = []
        for _ in range(2 if wire else 1):
            case = self._begin(wire=wire)
            points = self._run(case.order(), new=True).points
            self._judge(case, "undisturbed", held_is_wrong=True)
        return points

    def case(self, stop_at: str, kill_at: str | None, *, wire: bool = False) -> list[str] | None:
        """Plays one case and returns the points that the second worker passed, None where it was killed."""
        case = self._begin(wire=wire)
        order = ORDERS[case.number % len(ORDERS)]
        story = f"A stopped at {stop_at}, B killed at {kill_at}, {order}"
        # Whether a connection is made, and a store asked what it can, depends on what the worker did before.
        first = self._crew.take(new="stores.open/" in stop_at or stop_at.startswith("aside/s3."))
        first.order(case.order(first_only=True, stop_at=stop_at))
        early = first.until()
        self._note(early, "the first worker", story)
        if early is not None:
            self.tally.counts["not stopped"] += 1
            self.tally.wrong.append(f"{self.variant.name}: {story}: A never came there")
        else:
            self.tally.stopped[label_of(stop_at)] += 1
        self.destination.receive(case.name)
        second = self._crew.take(new=True)
        second.order(case.order(kill_at=kill_at))
        report = second.until()
        points = None
        if report is not None:
            self._note(report, "the second worker", story)
            points = report.points
            case.ahead = max(case.ahead, report.ahead)
            if kill_at is not None:
                self.tally.counts["not killed"] += 1
        elif kill_at is not None:
            self.tally.killed[label_of(kill_at)] += 1
        self._crew.give_back(second)
        self.destination.receive(case.name)
        self._finish(case, first, order, story)
        self._judge(case, story)
        return points

    def audit(self) -> None:
        """Looks at everything once more: nothing may have appeared late."""
        for name in self._names:
            if (times := self.destination.appeared(name)) != 1:
                self.tally.counts["late"] += 1
                self.tally.wrong.append(f"{self.variant.name}: {name} had appeared {times} times at the end")
        self.tally.counts["left over"] += self.destination.left_over()

    def close(self) -> None:
        """Ends the receiver."""
        self.source.close()
        self.destination.close()

    # -- one case ------------------------------------------------------------------------------------------------------

    def _begin(self, *, wire: bool) -> _Case:
        self._number += 1
        name = f"file-{self._number:06}.bin"
        size = 3000 if self.variant.parts == 1 else self.variant.parts * PART - 7
        content = random.Random(f"{self._tag}/{name}").randbytes(size)
        self.source.put(name, content)
        submission = Submission(
            tenant=self._tenant,
            source_endpoint=self.source.endpoint.id,
            source_path=name,
            destination_endpoint=self.destination.endpoint.id,
            destination_path=name,
            policy=self.variant.policy,
        )
        transfer = accept(self._engine, submission)
        self._names.append(name)
        return _Case(
            self._number, name, content, self._tenant, transfer.id, wire, self.variant.figures, self._without, ahead=self._number * APART
        )

    def _run(self, order: Order, *, new: bool = False) -> Report:
        hand = self._crew.take(new=new)
        hand.order(order)
        report = hand.until()
        if report is None:
            raise AssertionError("a worker that nobody disturbs has stopped")
        self._note(report, "a worker", str(order))
        self._crew.give_back(hand)
        return report

    def _finish(self, case: _Case, first: Hand, order: str, story: str) -> None:
        third = self._crew.take()

        def go_on() -> None:
            if first.stopped:
                first.go_on()
                self._note(first.until(), "the first worker", story)

        if order == ORDERS[0]:
            go_on()
        third.order(case.order())
        if order == ORDERS[2] and first.stopped:
            first.go_on()
            self._note(first.until(), "the first worker", story)
        report = third.until()
        self._note(report, "the third worker", story)
        go_on()
        case.ahead = max(case.ahead, report.ahead if report else 0)
        self._crew.give_back(third)
        self._crew.give_back(first)
        self.destination.receive(case.name)

    def _note(self, report: Report | None, who: str, story: str) -> None:
        if report is None:
            return
        self.tally.passed.update(label_of(point) for point in report.points)
        if report.trouble is not None:
            self.tally.counts["troubled"] += 1
            self.tally.wrong.append(f"{self.variant.name}: {story}: {who}: {report.trouble}")

    # -- what became of it ---------------------------------------------------------------------------------------------

    def _judge(self, case: _Case, story: str, *, held_is_wrong: bool = False) -> None:
        self.tally.counts["cases"] += 1
        row = self._engine.ledger.load(case.transfer)
        found = []
        if row.state is State.HELD:
            row = self._decide(case, row)
            if row.held_from is not None or held_is_wrong:
                found.append("held other")
        times = self.destination.appeared(case.name)
        if times != 1:
            found.append("lost" if times == 0 else "duplicated")
        if any(content != case.content for content in self.destination.contents(case.name)):
            found.append("damaged")
        if row.state is not State.SETTLED or row.receipt is None:
            found.append("not settled")
        elif self._left_of_source(case) != self.variant.policy.disposition:
            found.append("source")
        self.tally.counts.update(found or ["exactly once"])
        if found:
            self.tally.wrong.append(f"{self.variant.name}: {case.name}: {', '.join(found)}: {story}: {row.state} {row.reason} {row.error}")

    def _left_of_source(self, case: _Case) -> str:
        here, archived = self.source.holds(case.name), self.source.holds(f"{ARCHIVE}/{case.name}")
        return {(True, False): "keep", (False, True): "archive", (False, False): "delete"}.get((here, archived), "both")

    def _decide(self, case: _Case, row: Transfer) -> Transfer:
        """What may be held: a plain rename, or a put, that may have died in its middle. An operator asks the receiver and decides."""
        undecidable = "rename_half_done" if self.variant.rename == "plain" else "answer_lost" if self.variant.keeps else None
        if row.reason != undecidable:
            return row
        self.tally.counts[f"held {row.reason}"] += 1
        decision = "accept" if self.destination.appeared(case.name) else "deliver"
        case.ahead += DECIDED_LATER
        self._run(case.order(decision=decision))
        self.destination.receive(case.name)
        return self._engine.ledger.load(case.transfer)


@dataclass(slots=True)
class _Case:
    number: int
    name: str
    content: bytes
    tenant: str
    transfer: str
    wire: bool
    figures: dict[str, Any]
    without: str | None
    ahead: float

    def order(
        self, *, first_only: bool = False, stop_at: str | None = None, kill_at: str | None = None, decision: str | None = None
    ) -> Order:
        return Order(
            tenant=self.tenant,
            transfer=self.transfer,
            ahead=self.ahead,
            first_only=first_only,
            stop_at=stop_at,
            kill_at=kill_at,
            decision=decision,
            wire=self.wire,
            figures=self.figures,
            without=self.without,
        )
