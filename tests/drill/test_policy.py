"""Two whole regions with a policy: beat goes on alone in its region's partitions, and nobody has ordered it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from deploy.local.regions import REGIONS, TwoRegions
from deploy.local.stack import FIGURES
from eft.domain.ownership import Mode, PeerLoss

pytestmark = [pytest.mark.e2e, pytest.mark.enable_socket, pytest.mark.xdist_group("drill")]

PATIENCE: Final = timedelta(minutes=3)
LISTENING: Final = 6.0
"""Seconds; a region looks every two."""
POLICY: Final = PeerLoss.HOME_SOLOS


def comes_true(condition: Callable[[], bool], *, within: timedelta = PATIENCE) -> bool:
    """Returns whether a condition comes true in time."""
    ends = time.monotonic() + within.total_seconds()
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.5)
    return True


def test_homes_go_on_alone_by_policy_when_the_link_is_cut() -> None:
    """Both declare it; once the link is cut for longer than the patience, each has its own partitions solo, with the policy on record."""
    directory = Path(tempfile.mkdtemp(prefix="eft-policy-"))
    figures = {**FIGURES, "EFT_PEER_LOSS": POLICY.value, "EFT_PEER_LOSS_AFTER": "6"}
    try:
        with TwoRegions(directory, figures=figures) as pair:
            tables = {region: pair.table(region) for region in REGIONS}
            assert comes_true(lambda: all(table.declared() is POLICY for table in tables.values()))

            def alone(region: str) -> bool:
                own = [row for row in tables[region].partitions() if row.home == region]
                return all(row.mode is Mode.SOLO for row in own)

            # Who has not heard the other declare it yet does nothing: on a slow machine the link comes back once more for that.
            for _ in range(5):
                time.sleep(LISTENING)
                pair.cut()
                if comes_true(lambda: all(alone(region) for region in REGIONS), within=timedelta(seconds=40)):
                    break
                pair.heal()
            changed = {row.changed_by for region in REGIONS for row in tables[region].partitions() if row.home == region}
            assert changed == {f"policy {POLICY}"}
            assert all(len([row for row in tables[region].partitions() if row.home == region]) == 32 for region in REGIONS)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
