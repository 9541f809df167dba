"""The operator of the drill: orders through the API of one region, for many partitions at once."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import httpx

from deploy.local.customer import JsonObject, Refused
from deploy.local.regions import REGIONS, TwoRegions
from eft.domain.names import PARTITIONS
from eft.domain.ownership import Mode, Partition, Phase
from tests.drill.traffic import TENANT

HANDS: Final = 6
PATIENCE_SECONDS: Final = 300.0
PAUSE_SECONDS: Final = 0.5
BUSY: Final = 503


class Operator:
    """Who orders, and looks at the tables themselves to see what came of it."""

    def __init__(self, pair: TwoRegions) -> None:
        self.pair = pair
        self.tables = {region: pair.table(region) for region in REGIONS}

    def order(self, region: str, verb: str, numbers: Iterable[int], **more: object) -> None:
        """Orders something for partitions at a region's API; asks again where it is busy, or where the peer is not there yet."""
        body = {"why": f"drill: {verb}", "ticket": "DRILL-1", **more}
        ends = time.monotonic() + PATIENCE_SECONDS

        def one(number: int) -> JsonObject:
            while True:
                try:
                    return customer.post(f"/partitions/{number}/{verb}", body)
                except (Refused, httpx.TransportError) as error:
                    passing = not isinstance(error, Refused) or error.status >= BUSY or error.problem.get("reason") == "partition_changed"
                    if not passing or time.monotonic() > ends:
                        raise
                    time.sleep(PAUSE_SECONDS)

        with self.pair.customer(TENANT, region) as customer, ThreadPoolExecutor(max_workers=HANDS) as hands:
            list(hands.map(one, list(numbers)))

    def homes(self) -> dict[int, str]:
        """Returns the home of each partition, on which both regions must agree: dual, active, with all evidence."""
        rows = {region: self.tables[region].partitions() for region in REGIONS}
        west, east = ({row.number: row for row in rows[region]} for region in REGIONS)
        assert len(west) == len(east) == PARTITIONS
        for number, here in west.items():
            there = east[number]
            assert (here.home, here.region_epoch) == (there.home, there.region_epoch), (here, there)
            for row in (here, there):
                assert (row.mode, row.phase, row.evidence) == (Mode.DUAL, Phase.ACTIVE, True), row
        return {number: row.home for number, row in west.items()}

    def at_home(self, region: str) -> list[Partition]:
        """Returns the partitions that are at home in a region, as its own table says."""
        return [row for row in self.tables[region].partitions() if row.home == region]
