"""The flood of arrivals in its short form, through fakes; `tests/tasks/test_ingress.py` goes through the emulator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_three_thousand_events_make_one_transfer_of_each_version() -> None:
    """Three in ten are duplicates, in any order, of both forms, and the ledger loses an answer now and then."""
    command = [sys.executable, "-m", "tests.arrivals", "--events", "3000", "--objects", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert "3000 events of 2100 versions" in done.stdout
    assert "2100 transfers, each version once" in done.stdout
