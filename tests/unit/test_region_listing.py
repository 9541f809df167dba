"""A tenant's transfers, listed from both regions."""

from __future__ import annotations

import random

import pytest

from eft.domain.names import partition_of_id, transfer_id
from eft.domain.transfer import State, Transfer
from eft.errors import Permanent
from eft.regions.routing import page
from tests.fake_regions import EAST, Pair
from tests.world import TENANT, World

COUNT = 60


def put(world: World, number: int, *, partition: int, **changes: object) -> Transfer:
    """Creates a row like that of a transfer which was just accepted."""
    template = next(iter(world.ledger.page(TENANT).items), None)
    if template is None:
        world.server("sftp-a").put("in/a.bin", b"x")
        template = world.submit("sftp-a", "s3-b")
    fresh = {"id": transfer_id(TENANT, str(number), partition=partition), "created": world.clock.now(), "elsewhere": None}
    made = template.model_copy(update=fresh | changes)
    world.ledger.create(made)
    return made


@pytest.fixture
def pair() -> Pair:
    """Two regions with a few dozen transfers, some accepted at the same moment, by homes."""
    pair, dice = Pair(), random.Random(5)
    for number in range(COUNT):
        partition = dice.randrange(64)
        put((pair.west, pair.east)[partition % 2], number, partition=partition, state=State.ACCEPTED)
        pair.west.clock.advance(dice.choice([0, 1]))
    return pair


def walk(pair: Pair, *, limit: int) -> list[Transfer]:
    """Returns all pages' items."""
    found: list[Transfer] = []
    cursor = None
    while True:
        shown = page(pair.west.engine, TENANT, limit=limit, cursor=cursor)
        assert len(shown.items) <= limit
        found += shown.items
        cursor = shown.cursor
        if cursor is None:
            return found


@pytest.mark.parametrize("limit", [1, 3, 7, 50, 200])
def test_both_regions_transfers_come_once_newest_first(pair: Pair, limit: int) -> None:
    """Whatever the size of a page, from either side."""
    every = sorted(
        [one for world in (pair.west, pair.east) for one in world.ledger.page(TENANT, limit=1000).items],
        key=lambda one: (one.created, one.id),
        reverse=True,
    )
    assert [one.id for one in walk(pair, limit=limit)] == [one.id for one in every]
    assert len(every) >= COUNT


def test_a_region_that_does_not_answer_is_named(pair: Pair) -> None:
    """What is at home here is shown; the caller is told what is not."""
    pair.link.cut = True
    shown = page(pair.west.engine, TENANT, limit=200)
    assert shown.missing == EAST
    assert {partition_of_id(one.id) % 2 for one in shown.items if one.state is State.ACCEPTED} == {0}


def test_a_transfer_that_moved_is_shown_as_its_new_home_has_it(pair: Pair) -> None:
    """The row that was left behind, and one of an earlier era, are not shown beside it."""
    moved = put(pair.west, 1000, partition=2, elsewhere=EAST)
    put(pair.east, 1000, partition=2, created=moved.created, region_epoch=2)
    old = put(pair.west, 1001, partition=4, region_epoch=1)
    put(pair.east, 1001, partition=4, created=old.created, region_epoch=2, state=State.HELD)
    shown = {one.id: one for one in page(pair.west.engine, TENANT, limit=200).items}
    assert (shown[moved.id].region_epoch, shown[moved.id].elsewhere) == (2, None)
    assert (shown[old.id].region_epoch, shown[old.id].state) == (2, State.HELD)


def test_a_cursor_of_another_listing_is_refused(pair: Pair) -> None:
    """As in one region."""
    cursor = page(pair.west.engine, TENANT, limit=1).cursor
    with pytest.raises(Permanent, match="does not belong"):
        page(pair.west.engine, TENANT, limit=1, cursor=cursor, state=State.HELD)
