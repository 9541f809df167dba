"""`python -m tests.soak`: the whole stack moves files for some minutes while everything fails; the last line has the figures.

Exit status 0 only if nothing was lost, duplicated, damaged or dead, and held was only what a plain rename may leave undecided.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from deploy.local.process import Child, stop_on_signals
from deploy.local.sftp import SftpAccount
from deploy.local.stack import FIGURES, LocalStack
from tests.soak.inboxes import Inbox, S3Inbox, SftpInbox
from tests.soak.relay import Relay
from tests.soak.traffic import Asked, Origin, Traffic, into_bucket, into_directory
from tests.soak.trouble import Trouble
from tests.soak.verdict import Verdict, judge, rows_at_rest
from tests.soak.worker import NOTES

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SHORT: Final[Mapping[str, str]] = {
    "EFT_SLICE": "2",
    "EFT_LEASE": "4",
    "EFT_VISIBILITY": "5",
    "EFT_STALL": "6",
    "EFT_SWEEP_EVERY": "2",
    "EFT_PART_SIZE": str(5 << 20),
    "EFT_INLINE_SIZE": str(5 << 20),
    "EFT_LANE_THRESHOLD": "2",
    "EFT_TENANT_WINDOW": "64",
    "EFT_LOG_LEVEL": "INFO",
}
"""Claims and messages run out within seconds: a worker that is stopped finds its work in other hands."""
WRONG: Final = ("lost", "duplicated", "damaged", "held otherwise", "dead", "unfinished", "appeared without a transfer")
SLOTS: Final = 64
"""Connections of an endpoint: a killed worker's are in the count for a minute."""


class SoakStack(LocalStack):
    """The stack with workers that note takeovers and refused writes."""

    def _child(
        self,
        name: str,
        words: list[str],
        *,
        ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
        grace: timedelta = timedelta(seconds=5),
    ) -> Child:
        if "worker" in words:
            words = [words[0], "-m", "tests.soak.worker", *words[words.index("worker") + 1 :]]
        return super()._child(name, words, ready=ready, environment=environment, grace=grace)


def main() -> int:
    """Reads the command line, soaks, and prints the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=None, help="of what is asked for and what is made to fail; not of when")
    parser.add_argument("--keep", type=Path, default=None, help="a directory for the logs, to be looked at")
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(1 << 32)
    sys.stdout.write(f"seed {seed}\n")
    with stop_on_signals(), ExitStack() as ends:
        directory = chosen.keep or Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="eft-soak-")))
        directory.mkdir(parents=True, exist_ok=True)
        # Each session of sshd must reach its directory, whoever it belongs to.
        directory.chmod(0o755)
        return _soak(directory, minutes=chosen.minutes, workers=chosen.workers, seed=seed)


def _soak(directory: Path, *, minutes: float, workers: int, seed: int) -> int:
    notes = directory / "notes"
    figures = {**FIGURES, **SHORT, NOTES: str(notes)}
    with ExitStack() as ends:
        stack = ends.enter_context(SoakStack(directory / "stack", workers=workers, concurrency=4, figures=figures, monitored=False))
        relay = Relay(stack.sftp.port, seed=seed)
        relay.start()
        ends.callback(relay.stop)
        customer = ends.enter_context(stack.customer("soak"))
        places = _Places(stack, relay)
        inboxes = places.inboxes(customer.add_sftp, customer.add_s3)
        origins = places.origins(customer.add_sftp, customer.add_s3)
        for inbox in inboxes:
            inbox.open()
        os.environ.update(stack.environment)
        # Its settings are read from the environment when it is imported.
        from eft.domain.transfer import Step  # noqa: PLC0415
        from eft.journey.messages import Message  # noqa: PLC0415
        from tasks.base import engine, forward  # noqa: PLC0415

        pick = random.Random(seed)
        steps = (Step.STAGE, Step.DELIVER, Step.SETTLE)
        traffic = Traffic(customer, origins, inboxes, seed=seed)
        trouble = Trouble(
            stack,
            relay,
            known=traffic.acknowledged,
            again=lambda one: forward([Message(step=pick.choice(steps), ids=(one,))]),
            seed=seed,
        )
        trouble.start()
        began = time.monotonic()
        try:
            traffic.run(began + 60 * minutes)
        finally:
            trouble.stop()
        sys.stderr.write(f"{len(traffic.asked)} asked for; waiting until all rest\n")
        rows = rows_at_rest(engine(), traffic.acknowledged())
        for inbox in inboxes:
            inbox.close()
        verdict = judge(traffic.asked, rows, notes)
        verdict.wrong += [line for inbox in inboxes for line in inbox.trouble] + trouble.failed + traffic.refused
        return _tell(verdict, traffic.asked, trouble.made, relay.cuts, seconds=time.monotonic() - began)


class _Places:
    """Accounts and buckets of the one customer."""

    def __init__(self, stack: LocalStack, relay: Relay) -> None:
        self._stack, self._relay = stack, relay
        self._s3: S3Client = stack.aws.client("s3")

    def origins(self, add_sftp: Callable[..., str], add_s3: Callable[..., str]) -> list[Origin]:
        """A bucket, sshd, sshd over the relay, and the server that cuts by itself."""
        bucket = self._stack.bucket("soak-from")
        direct, relayed = self._stack.account("from-direct"), self._relayed("from-relayed")
        quirky = self._stack.password_sftp.account("from-quirky")
        return [
            Origin(add_s3("from s3", bucket), "s3", into_bucket(self._s3, bucket)),
            Origin(add_sftp("from direct", direct, max_connections=SLOTS), "sftp", into_directory(direct.directory)),
            Origin(add_sftp("from relayed", relayed, max_connections=SLOTS), "sftp", into_directory(relayed.directory)),
            Origin(add_sftp("from quirky", quirky, max_connections=SLOTS), "sftp", into_directory(quirky.directory)),
        ]

    def inboxes(self, add_sftp: Callable[..., str], add_s3: Callable[..., str]) -> list[Inbox]:
        """A bucket; sshd over the relay with posix and plain renames, and once without a receiver; the server that cuts by itself."""
        bucket = self._stack.bucket("soak-to")
        accounts = {name: self._relayed(f"to-{name}") for name in ("posix", "plain", "kept")}
        quirky = {name: self._stack.password_sftp.account(f"to-quirky-{name}") for name in ("posix", "plain")}

        def added(name: str, account: SftpAccount, **more: object) -> str:
            return add_sftp(f"to {name}", account, max_connections=SLOTS, **more)

        return [
            S3Inbox(add_s3("to s3", bucket), self._s3, bucket),
            SftpInbox(added("posix", accounts["posix"]), accounts["posix"].directory),
            SftpInbox(added("plain", accounts["plain"], rename="plain"), accounts["plain"].directory, plain=True),
            SftpInbox(added("kept", accounts["kept"]), accounts["kept"].directory, consuming=False),
            SftpInbox(added("quirky", quirky["posix"]), quirky["posix"].directory),
            SftpInbox(added("quirky plain", quirky["plain"], rename="plain"), quirky["plain"].directory, plain=True),
        ]

    def _relayed(self, name: str) -> SftpAccount:
        return replace(self._stack.account(name), port=self._relay.port)


def _tell(verdict: Verdict, asked: list[Asked], made: Counter[str], cuts: Counter[str], *, seconds: float) -> int:
    for story in verdict.wrong[:50]:
        sys.stdout.write(f"WRONG {story}\n")
    kinds = Counter(f"{one.origin.kind} to {one.inbox.kind}" for one in asked)
    sys.stdout.write("asked: " + _listed(kinds) + "\n")
    sys.stdout.write("made: " + _listed(made) + "; relay: " + _listed(cuts) + "\n")
    if verdict.held:
        sys.stdout.write("held: " + _listed(verdict.held) + "\n")
    counts = verdict.counts
    words = ("attempted", "acknowledged", "delivered", "lost", "duplicated", "recovered", "held", "takeovers", "fenced writes")
    others = [f"{name} {counts[name]}" for name in WRONG if counts[name] and name not in words]
    bound = 300 / counts["acknowledged"] if counts["acknowledged"] else 100.0
    figures = [f"{name} {counts[name]}" for name in words] + others + [f"seconds {seconds:.0f}"]
    sys.stdout.write("soak: " + ", ".join(figures) + f"; with none wrong, at most {bound:.2g} % would be (95 %)\n")
    return 1 if verdict.wrong or any(counts[name] for name in WRONG) else 0


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
