"""What lets a change pass: `.ci/run`, with stand-ins for what it calls."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.architecture.project import ROOT

FORGOTTEN = "test -e .pytest_cache/v/cache/lastfailed && exit 9"


@pytest.mark.parametrize(
    ("codes", "passes"),
    [
        ((0, 0, 1, 1), True),
        ((0, 1, 0, 0), True),
        ((1, 0, 0, 0), False),
        ((0, 1, 1, 0), False),
        ((0, 1, 0, 1), False),
    ],
)
def test_a_second_try_excuses_a_test_and_nothing_else(tmp_path: Path, codes: tuple[int, int, int, int], passes: bool) -> None:
    """Checks and coverage have to hold; a test that failed may pass when it runs once more, in this run."""
    check, test, again, coverage = codes
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    cache = tmp_path / ".pytest_cache/v/cache"
    cache.mkdir(parents=True)
    (cache / "lastfailed").write_text("{}")
    programs = {
        "bin/make": f"[ $1 = check ] && exit {check}; {FORGOTTEN}; exit {test}",
        ".venv/bin/pytest": f"exit {again}",
        ".venv/bin/coverage": f"exit {coverage}",
    }
    for name, body in programs.items():
        program = tmp_path / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/bash\n{body}\n")
        program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
    ended = subprocess.run([tmp_path / ".ci/run"], env=environment, check=False, capture_output=True)
    assert (ended.returncode == 0) is passes, ended
