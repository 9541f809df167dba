"""`python -m tests.killpoints`: the kill-point matrix on real servers with real processes; the last line has the figures.

Exit status 0 only if every case ended exactly once, and held was only what a plain rename may leave undecided.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from deploy.local.process import Stack, stop_on_signals
from deploy.local.provision import provision
from deploy.local.servers import AwsEmulator
from deploy.local.sftp import SftpServer
from eft.settings import Settings
from tests.killpoints.cases import IN_PARTS, VARIANTS, Servers, Stage, Tally
from tests.killpoints.crew import PATIENCE, Crew
from tests.killpoints.forking import forked
from tests.killpoints.matrix import Deadline, Matrix, sample
from tests.killpoints.points import AFTERWARDS, every_label
from tests.killpoints.worker import Worker

WRONG: Final = ("duplicated", "lost", "damaged", "held other", "not settled", "source", "late", "not stopped", "troubled")
"""What no case may be."""


def main() -> int:
    """Reads the command line, plays, and prints the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", action="store_true", help="every label once as pause and once as kill, instead of all pairs")
    parser.add_argument("--minutes", type=float, default=None, help="begin no case after so long")
    parser.add_argument("--jobs", type=int, default=2, help="directors at work at the same time, each with servers of its own")
    parser.add_argument("--only", default="", help="variants whose name contains this")
    parser.add_argument("--pause", default="", help="play this pause point alone, for example destination.commit:before#1")
    parser.add_argument("--kill", default=None, help="with this kill point, or none")
    parser.add_argument("--without", choices=["fence"], default=None, help="a guard to be switched off, to see the matrix find it")
    chosen = parser.parse_args()
    began = time.monotonic()
    deadline = Deadline(None if chosen.minutes is None else began + 60 * chosen.minutes)
    with stop_on_signals(), tempfile.TemporaryDirectory(prefix="eft-killpoints-") as name:
        directory = Path(name)
        # Each session of sshd must reach its directory, whoever it belongs to.
        directory.chmod(0o755)
        directors = [
            forked(lambda part=part: _direct(directory, chosen, deadline, part=part))  # type: ignore[misc]
            for part in range(chosen.jobs)
        ]
        tally = Tally()
        try:
            statuses = [os.waitpid(pid, 0)[1] for pid in directors]
        except BaseException:
            for pid in directors:
                os.kill(pid, 15)
            raise
        for part, status in enumerate(statuses):
            result = directory / f"{part}.json"
            if status or not result.exists():
                sys.stdout.write(f"a director ended with status {status}\n")
                return 1
            tally.add(Tally.read(result.read_text()))
    if not chosen.only and not chosen.pause and (missed := _missed(tally)):
        tally.wrong.append(f"calls that no worker made: {', '.join(missed)}")
    return _tell(tally, sampled=chosen.sample, seconds=time.monotonic() - began)


def _direct(directory: Path, chosen: argparse.Namespace, deadline: Deadline, *, part: int) -> None:
    """One director: its own servers, stages and workers."""
    own = directory / str(part)
    variants = [one for one in (*VARIANTS, *IN_PARTS) if chosen.only in one.name]
    with stop_on_signals(), Stack() as stack, ExitStack() as stages:
        aws = stack.start(AwsEmulator(own / "aws"))
        sshd = stack.start(SftpServer(own / "sshd"))
        resources = provision(aws.session(), endpoint_url=aws.url)
        os.environ.update(aws.environment)
        settings = Settings(aws_endpoint=aws.url, staging_bucket=resources.staging_bucket)
        crew = Crew(Worker(settings), log=own / "workers.log")
        stages.callback(crew.dismiss)
        servers = Servers(aws, sshd, settings, crew, chosen.without)

        def stage(number: int) -> Stage:
            made = Stage(servers, variants[number], tag=f"j{part}v{number}")
            stages.callback(made.close)
            return made

        numbers = range(len(variants))
        left = 0
        if chosen.pause:
            made = [stage(number) for number in numbers if number % chosen.jobs == part]
            for one in made:
                one.case(chosen.pause, chosen.kill, wire=True)
        elif chosen.sample:
            made = [stage(number) for number in numbers if number % chosen.jobs == part]
            sample(made, share=lambda labels: _share(directory, labels, part=part, parts=chosen.jobs))
        else:
            made = [stage(number) for number in numbers]
            left = _play([Matrix(one, part=part, parts=chosen.jobs) for one in made], deadline)
        tally = Tally()
        for one in made:
            one.audit()
            tally.add(one.tally)
    tally.counts["pause points left"] = left
    (directory / f"{part}.json").write_text(tally.lines())


def _share(directory: Path, labels: set[str], *, part: int, parts: int) -> set[str]:
    """Tells the other directors which labels there are here, and returns those that fall to this one."""
    draft = directory / f"{part}.draft"
    draft.write_text(json.dumps(sorted(labels)))
    draft.rename(directory / f"{part}.labels")
    files = [directory / f"{number}.labels" for number in range(parts)]
    until = time.monotonic() + PATIENCE
    while not all(file.exists() for file in files):
        if time.monotonic() > until:
            raise TimeoutError("another director has not told its labels")
        time.sleep(0.05)
    having = [set(json.loads(file.read_text())) for file in files]
    mine = set()
    for label in labels:
        candidates = [number for number in range(parts) if label in having[number]]
        if candidates[zlib.crc32(label.encode()) % len(candidates)] == part:
            mine.add(label)
    return mine


def _play(matrices: list[Matrix], deadline: Deadline) -> int:
    """Plays a pause point of each in turn; returns how many pause points are left."""
    left = {number: len(matrix.pauses) for number, matrix in enumerate(matrices)}
    playing = {number: matrix.units(deadline) for number, matrix in enumerate(matrices)}
    while playing:
        for number, units in list(playing.items()):
            try:
                left[number] = next(units)
            except StopIteration:
                del playing[number]
        sys.stderr.write(f"{sum(left.values())} pause points left\n")
    return sum(left.values())


def _missed(tally: Tally) -> list[str]:
    """Returns the calls of a transfer's way, by the ports' own protocols, that no worker has made."""
    made = {label.rpartition(":")[0] for label in tally.passed}
    made |= {f"store.{one.partition('.')[2]}" for one in made if one.startswith(("source.", "destination."))}
    made |= {f"uploading.{one.rpartition('.')[2]}" for one in made if ".uploading." in one}
    return sorted(every_label().keys() - AFTERWARDS - made)


def _tell(tally: Tally, *, sampled: bool, seconds: float) -> int:
    for story in tally.wrong[:50]:
        sys.stdout.write(f"WRONG {story}\n")
    counts: dict[str, Any] = tally.counts
    wrong = {name: counts[name] for name in WRONG if counts[name]}
    words = {
        "cases": counts["cases"],
        "exactly once": counts["exactly once"],
        "duplicated": counts["duplicated"],
        "lost": counts["lost"],
        "damaged": counts["damaged"],
        "held rename_half_done (plain, decided, then exactly once)": counts["held rename_half_done"],
        "held answer_lost (one request, decided, then exactly once)": counts["held answer_lost"],
        "held otherwise": counts["held other"],
        "labels paused at": len(tally.stopped),
        "labels killed at": len(tally.killed),
        "labels seen": len(tally.passed),
        "pauses": sum(tally.stopped.values()),
        "kills": sum(tally.killed.values()),
        "pause points done": counts["pause points"],
        "pause points left": counts["pause points left"],
        "temporary names left over": counts["left over"],
        "seconds": round(seconds),
    }
    if sampled:
        del words["pause points done"], words["pause points left"]
    others = "".join(f", {name} {count}" for name, count in wrong.items() if name not in {"duplicated", "lost", "damaged", "held other"})
    if sampled:
        sys.stderr.write(f"not killed at: {sorted(tally.stopped.keys() - tally.killed.keys())}\n")
    sys.stdout.write("killpoints: " + ", ".join(f"{name} {count}" for name, count in words.items()) + others + "\n")
    return 1 if wrong or tally.wrong or counts["cases"] != counts["exactly once"] else 0


if __name__ == "__main__":
    sys.exit(main())
