"""The measurement of a large directory in its short form."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.sftp import SftpServer

ROOT = Path(__file__).parents[2]


@pytest.mark.contract
@pytest.mark.skipif(not SftpServer.available(), reason="this machine has no sshd")
def test_a_poll_with_nothing_new_asks_the_ledger_next_to_nothing() -> None:
    """Five hundred old files that match, over a real sshd: each has one transfer, and a look at them is a handful of requests."""
    command = [sys.executable, "-m", "tests.listing", "--names", "500", "--new", "50", "--old"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    taken, new, idle = done.stdout.splitlines()
    assert "450 selected, 450 created" in taken
    assert "50 selected, 50 created" in new
    asked = re.search(r"(\d+) to DynamoDB", idle)
    assert asked is not None
    assert int(asked[1]) <= 8
