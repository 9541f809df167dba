"""Two whole regions under traffic: a planned switch and a forced promotion lose nothing and deliver nothing twice."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from deploy.local.regions import TwoRegions
from tests.drill.drill import Drill
from tests.drill.traffic import Shop

pytestmark = [pytest.mark.e2e, pytest.mark.enable_socket, pytest.mark.xdist_group("drill")]


@pytest.fixture(scope="module")
def drill() -> Iterator[Drill]:
    """Both regions with their customers; stopped, and its files removed, whatever happens."""
    directory = Path(tempfile.mkdtemp(prefix="eft-drill-"))
    # Other local users' sshd sessions must reach their directories.
    directory.chmod(0o755)
    with TwoRegions(directory) as pair, Shop(pair) as shop:
        yield Drill(pair, shop, seed=11, files=24, spread=timedelta(seconds=6))
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize(("number", "scene"), [(1, "planned"), (2, "split")])
def test_a_region_is_left_and_nothing_is_lost_or_repeated(drill: Drill, number: int, scene: str) -> None:
    """Every file handed in to either region appears once, with its bytes, and no person has to decide anything."""
    verdict = drill.run(number, scene)
    drill.judge_again()
    assert verdict.clean, str(verdict)
    assert verdict.held == verdict.dead == [], str(verdict)
    assert verdict.rto is not None, str(verdict)
