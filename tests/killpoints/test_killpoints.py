"""The kill-point matrix in its short form: real sshd, S3 and DynamoDB, real processes, stopped and killed at real points."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from eft.ports import Ledger, Stores
from tests.killpoints.matrix import moments
from tests.killpoints.points import PORTS, Passed, calls_of, every_label, watched

ROOT = Path(__file__).parents[2]
FIGURE = re.compile(r"([a-z_ ]+?)(?: \([^)]*\))? (\d+)(?:,|$)")


def play(*options: str, expect: int) -> dict[str, int]:
    """Runs the program and returns its figures."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.killpoints", *options], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == expect, done.stdout[-4000:] + done.stderr[-4000:]
    last = done.stdout.strip().rpartition("\n")[2].removeprefix("killpoints: ")
    return {name.strip(): int(count) for name, count in FIGURE.findall(last)}


@pytest.mark.crash
def test_every_label_is_paused_at_and_killed_at() -> None:
    """Workers stopped at every label, and their heirs killed at every label, deliver each file exactly once."""
    seen = play("--sample", expect=0)
    assert seen["cases"] == seen["exactly once"] > 100, seen
    assert seen["labels paused at"] == seen["labels killed at"] > 80, seen
    assert seen["duplicated"] == seen["lost"] == seen["damaged"] == seen["held otherwise"] == 0, seen


@pytest.mark.crash
@pytest.mark.parametrize("without", [None, "fence"])
def test_the_fence_is_what_keeps_a_stale_worker_out(without: str | None) -> None:
    """Stopped before its first save, a worker delivers nothing after another has; without the fence the file comes twice."""
    options = ["--only", "s3-sftp posix consuming", "--pause", "ledger.save:before#1", "--jobs", "1"]
    seen = play(*options, *(["--without", without] if without else []), expect=1 if without else 0)
    assert seen["cases"] == 2
    assert (seen["duplicated"] > 0) == (without is not None), seen


def test_every_call_of_a_port_is_a_point() -> None:
    """Both sides of each call that a port's protocol has are points, whatever the call raises."""

    class Broken:
        def __getattr__(self, name: str) -> object:
            def call() -> None:
                raise LookupError(name)

            return call

    for name, protocol in PORTS.items():
        passed = Passed(lambda _: None)
        port = watched(Broken(), protocol, name, passed)
        for call in calls_of(protocol):
            with pytest.raises(LookupError, match=call):
                getattr(port, call)()
        expected = [f"{name}.{call}:{side}#1" for call in calls_of(protocol) for side in ("before", "after")]
        assert passed.points == expected


def test_labels_come_from_the_protocols() -> None:
    """A call that is added to a port is a label by itself, and must be passed by some variant."""
    labels = every_label()
    assert labels["ledger.save"] is Ledger
    assert labels["stores.open"] is Stores
    assert {"store.commit", "store.mint", "uploading.finish", "ownership.ack", "staging.commit"} <= labels.keys()


def test_points_between_which_nothing_leaves_are_one_moment() -> None:
    """A moment ends where a request is answered; for deaths only where it has changed something."""
    points = ["a:before#1", "a/sftp.lstat:before#1", "a/sftp.lstat:after#1", "a:after#1", "b/sftp.rename:before#1", "b/sftp.rename:after#1"]
    assert moments(points) == [points[:2], points[2:5], points[5:]]
    assert moments(points, changes_only=True) == [points[:5], points[5:]]
