"""The soak in its short form: half a minute of everything failing at once, and a verdict that can be bad."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from eft.domain.transfer import Transfer
from tests.soak.inboxes import Inbox
from tests.soak.traffic import Asked, Origin
from tests.soak.verdict import judge
from tests.world import World

ROOT = Path(__file__).parents[2]


@pytest.mark.crash
def test_half_a_minute_of_everything_failing() -> None:
    """Workers die and stop, messages come twice, connections are cut: what was acknowledged arrives once, or is held with its reason."""
    command = [sys.executable, "-m", "tests.soak", "--minutes", "0.5", "--seed", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    last = done.stdout.strip().rpartition("\n")[2]
    seen = {name: int(count) for name, count in re.findall(r"([a-z ]+?) (\d+),", last.removeprefix("soak:"))}
    seen = {name.strip(): count for name, count in seen.items()}
    assert seen["acknowledged"] == seen["attempted"] == seen["delivered"] + seen["held"] > 0, seen
    assert seen["takeovers"] > 0, seen
    assert seen["lost"] == seen["duplicated"] == 0, seen


class Shelf(Inbox):
    """An inbox that a test fills."""

    def look(self) -> None:
        """Nothing comes."""

    def last_look(self) -> None:
        """Nothing came."""


def moved() -> Transfer:
    """Returns a transfer that has settled."""
    world = World()
    world.server("s3-a").put("in/a.bin", b"x")
    return world.until_rest(world.submit("s3-a", "sftp-b"))


@pytest.mark.parametrize(
    ("times", "sums", "found"),
    [(1, {"right"}, None), (0, set(), "lost"), (2, {"right"}, "duplicated"), (1, {"other"}, "damaged")],
)
def test_the_verdict_counts_what_appeared(tmp_path: Path, times: int, sums: set[str], found: str | None) -> None:
    """A settled transfer whose file appeared other than once and whole is told, with its name."""
    row, shelf = moved(), Shelf("to", "sftp")
    shelf.appeared["a"], shelf.sums["a"] = times, sums
    notes = tmp_path / "notes"
    notes.write_text(f"takeover {row.id}\nfenced {row.id}\nfenced {row.id}\n")
    asked = Asked("a", "right", Origin("from", "s3", lambda *_: None), shelf, transfer=row.id)
    verdict = judge([asked], {row.id: row}, notes)
    assert (verdict.counts["recovered"], verdict.counts["takeovers"], verdict.counts["fenced writes"]) == (1, 1, 2)
    assert [line.partition(":")[2].split(";")[0].strip() for line in verdict.wrong] == ([found] if found else [])
    assert verdict.counts["delivered"] == (times == 1)


def test_the_verdict_misses_what_does_not_rest(tmp_path: Path) -> None:
    """An acknowledged transfer that never comes to rest is told; so is a file of a transfer that nobody knows."""
    world = World()
    world.server("s3-a").put("in/a.bin", b"x")
    row, shelf = world.submit("s3-a", "sftp-b"), Shelf("to", "sftp")
    shelf.appeared["b"] = 1
    origin = Origin("from", "s3", lambda *_: None)
    asked = [Asked("a", "", origin, shelf, transfer=row.id), Asked("b", "", origin, shelf)]
    verdict = judge(asked, {row.id: row}, tmp_path / "none")
    assert (verdict.counts["unfinished"], verdict.counts["appeared without a transfer"]) == (1, 1)
    assert len(verdict.wrong) == 2
