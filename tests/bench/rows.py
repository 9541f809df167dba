"""What is measured against what: rows of tools on one case each, and the ratios that are to be reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from tests.bench import peers
from tests.bench.outside import FROM, TO, Outside, Place
from tests.bench.peers import Case, Tool
from tests.bench.workloads import EIGHT, HUNDREDS, MIXED, ONE, SMALL, Workload

ENGINE: Final = "engine"
TUNED: Final = "rclone tuned"
DEFAULT: Final = "rclone default"
AIRFLOW: Final = "Airflow-style"
ALONE: Final = "engine, SFTP alone"
SFTP: Final = "OpenSSH sftp"
LFTP: Final = "lftp"
IN_MEMORY: Final = "engine, rows in memory"
KEPT: Final = "engine, rows in memory, receiver keeps"
SIXTEEN: Final = "rclone --transfers 16"
TOOLS: Final[Mapping[str, Tool]] = {
    TUNED: peers.rclone(*peers.RCLONE_TUNED),
    DEFAULT: peers.rclone(),
    SIXTEEN: peers.rclone("--transfers", "16"),
    AIRFLOW: peers.script("airflow_style"),
    ALONE: peers.script("alone"),
    SFTP: peers.sftp,
    LFTP: peers.lftp,
    IN_MEMORY: peers.script("in_memory"),
    KEPT: peers.script("in_memory", policy={"receiver_keeps": True}),
}
"""All but the engine itself, which is started once."""
Ends = Callable[[Outside, float], tuple[Place, Place]]
Of = Literal["rate", "cpu", "memory"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A ratio that is to be reached, always so that higher is better."""

    tool: str
    against: str
    minimum: float
    aim: float
    of: Of = "rate"
    """`cpu`: processor seconds of the other's client over ours; `memory`: the allowed bytes over ours."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a case and the tools that it is done with."""

    name: str
    title: str
    kind: Literal["sftp-s3", "s3-sftp", "sftp-sftp", "s3-s3"]
    workload: Workload
    tools: tuple[str, ...]
    ends: Ends
    delay: float = 0
    """Milliseconds of the round trip to the partner's end."""
    runs: int = 3
    wanted: tuple[Wanted, ...] = ()
    policy: Mapping[str, object] = field(default_factory=dict)
    """Of the engine's transfers."""

    def case(self, outside: Outside, into: str) -> Case:
        """Returns the case, its files in place."""
        outside.fill(self.kind.partition("-")[0], self.workload)
        source, target = self.ends(outside, self.delay)
        return Case(source, target, self.workload, into)


def to_sink(outside: Outside, delay: float) -> tuple[Place, Place]:
    """From sshd, which is the distant end, to the S3 sink."""
    return outside.account(FROM, delay=delay), outside.sink()


def to_bucket(outside: Outside, delay: float) -> tuple[Place, Place]:
    """From sshd to a real S3 server."""
    return outside.account(FROM, delay=delay), outside.bucket(TO)


def from_bucket(outside: Outside, delay: float) -> tuple[Place, Place]:
    """From a real S3 server to sshd, which is the distant end."""
    return outside.bucket(FROM), outside.account(TO, delay=delay)


def between_accounts(outside: Outside, delay: float) -> tuple[Place, Place]:
    """From sshd to sshd; the receiver is the distant end."""
    return outside.account(FROM), outside.account(TO, delay=delay)


def between_buckets(outside: Outside, delay: float) -> tuple[Place, Place]:
    """From a real S3 server to the sink: two services, so that no server copies by itself; the sink is the distant end."""
    return outside.bucket(FROM), outside.sink(delay=delay)


def written(outside: Outside, delay: float) -> tuple[Place, Place]:
    """To sshd; from memory, whatever the source says."""
    return outside.sink(), outside.account(TO, delay=delay)


MEMORY: Final = 250.0
"""Megabytes that a worker may have resident, whatever it moves."""
OF_MEMORY: Final = Wanted(ENGINE, "250 MB", 1.0, MEMORY / 150, "memory")
FIRST: Final = Row(
    "SFTP → S3, 1 × 1 GiB",
    "whole engine; S3 throws away",
    "sftp-s3",
    ONE,
    (ENGINE, TUNED, DEFAULT, AIRFLOW),
    to_sink,
    runs=5,
    wanted=(
        Wanted(ENGINE, TUNED, 1.3, 2.0),
        Wanted(ENGINE, TUNED, 1 / 0.7, 2.0, "cpu"),
        Wanted(ENGINE, AIRFLOW, 3.0, 5.0),
        OF_MEMORY,
    ),
)
READ: Final = Row(
    "SFTP read alone, 1 GiB", "to nowhere", "sftp-s3", ONE, (ALONE, SFTP, LFTP), to_sink, wanted=(Wanted(ALONE, SFTP, 0.85, 1.0),)
)
WRITE: Final = Row(
    "SFTP write alone, 1 GiB", "from memory", "sftp-s3", ONE, (ALONE, SFTP, LFTP), written, runs=5, wanted=(Wanted(ALONE, SFTP, 0.9, 1.0),)
)
BACK: Final = Row(
    "S3 → SFTP, 1 × 1 GiB",
    "whole engine, SeaweedFS",
    "s3-sftp",
    ONE,
    (ENGINE, TUNED),
    from_bucket,
    runs=5,
    wanted=(Wanted(ENGINE, TUNED, 1.0, 1.15),),
)
MANY: Final = Row(
    "SFTP → S3, 2,000 × 10 KiB",
    "all steps, rows and queue in memory; SeaweedFS",
    "sftp-s3",
    SMALL,
    (KEPT, IN_MEMORY, SIXTEEN),
    to_bucket,
    runs=5,
    wanted=(Wanted(KEPT, SIXTEEN, 1.0, 2.0), Wanted(IN_MEMORY, SIXTEEN, 1.0, 2.0)),
)
MANY_DROPPED: Final = Row(
    "SFTP → S3, 2,000 × 10 KiB, sink",
    "all steps, rows and queue in memory; S3 throws away",
    "sftp-s3",
    SMALL,
    (KEPT, IN_MEMORY, SIXTEEN),
    to_sink,
    wanted=(Wanted(KEPT, SIXTEEN, 1.0, 2.0),),
)
MANY_WHOLE: Final = Row(
    "SFTP → S3, 500 × 10 KiB, whole engine",
    "the AWS emulator is the limit: one process of Python",
    "sftp-s3",
    HUNDREDS,
    (ENGINE,),
    to_sink,
    runs=1,
)
FAR: Final = Row(
    "SFTP → S3, 1 × 1 GiB, 100 ms",
    "whole engine, sshd 100 ms away",
    "sftp-s3",
    ONE,
    (ENGINE, DEFAULT),
    to_sink,
    delay=100,
    runs=1,
    wanted=(Wanted(ENGINE, DEFAULT, 2.0, 4.0),),
)
PASSED_ON: Final = Row(
    "SFTP → SFTP, 1 × 1 GiB",
    "whole engine, direct",
    "sftp-sftp",
    ONE,
    (ENGINE, TUNED),
    between_accounts,
    runs=1,
    policy={"staging": False},
)
COPIED: Final = Row("S3 → S3, 1 × 1 GiB", "whole engine, between two services", "s3-s3", ONE, (ENGINE, TUNED), between_buckets, runs=1)

QUICK: Final = (replace(FIRST, tools=(ENGINE, TUNED), runs=2), READ)
USUAL: Final = (FIRST, READ, WRITE, BACK, MANY, FAR, PASSED_ON, COPIED, MANY_DROPPED, MANY_WHOLE)


def matrix() -> Sequence[Row]:
    """Returns each workload in each direction at each distance, once: the engine beside rclone, as installed only where nothing is far."""
    kinds: dict[str, tuple[Literal["sftp-s3", "s3-sftp", "sftp-sftp", "s3-s3"], Ends, Mapping[str, object]]] = {
        "SFTP → S3": ("sftp-s3", to_sink, {}),
        "S3 → SFTP": ("s3-sftp", from_bucket, {}),
        "SFTP → SFTP": ("sftp-sftp", between_accounts, {"staging": False}),
        "S3 → S3": ("s3-s3", between_buckets, {}),
    }
    rows: list[Row] = []
    for workload in (ONE, EIGHT, SMALL, MIXED):
        for words, (kind, ends, policy) in kinds.items():
            for delay in (0, 20, 100):
                name = f"{words}, {workload.title}" + (f", {delay} ms" if delay else "")
                tools = (ENGINE, TUNED) if delay else (ENGINE, TUNED, DEFAULT)
                wanted = () if rows else (OF_MEMORY,)
                rows.append(Row(name, "whole engine", kind, workload, tools, ends, delay=delay, runs=1, wanted=wanted, policy=policy))
    return rows
