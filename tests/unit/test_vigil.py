"""What regions do by themselves when they lose sight of each other, and what then is refused."""

from __future__ import annotations

from datetime import timedelta

import pytest

from eft.domain.ownership import Mode, PeerLoss
from eft.errors import Permanent
from eft.regions.chores import Chores
from eft.regions.orders import Order
from eft.regions.switch import promote, solo
from eft.regions.vigil import Vigil
from tests.fake_regions import EAST, WEST, Pair

PATIENCE = timedelta(minutes=5)
STEP = timedelta(seconds=30)
ORDER = Order(by="op", why="test", ticket="T-1")


class Watched:
    """A pair whose regions both watch, and do their chores."""

    def __init__(self, west: PeerLoss, east: PeerLoss) -> None:
        self.pair = Pair()
        engines = (self.pair.west.engine, self.pair.east.engine)
        self.chores = [Chores(engine, engine.ownership.region) for engine in engines]
        self.vigils = [Vigil(engine, policy=policy, patience=PATIENCE) for engine, policy in zip(engines, (west, east), strict=True)]

    def watch(self, total: timedelta, *, dead: str | None = None) -> list[int]:
        """Lets time pass, both regions looking at every step (a dead one does not); returns what each has changed."""
        changed = [0, 0]
        for _ in range(int(total / STEP)):
            self.pair.west.clock.advance(STEP)
            for number, (chores, vigil) in enumerate(zip(self.chores, self.vigils, strict=True)):
                if vigil.engine.ownership.region != dead:
                    chores.mine()
                    changed[number] += vigil.look()
        return changed

    def modes(self, region: str) -> set[Mode]:
        """Returns the modes of the partitions at home in a region, by its own table."""
        return {row.mode for row in self.pair.tables[region].partitions() if row.home == region}


@pytest.mark.parametrize("policy", list(PeerLoss))
def test_regions_in_sight_of_each_other_change_nothing(policy: PeerLoss) -> None:
    """However long they watch."""
    watched = Watched(policy, policy)
    assert watched.watch(timedelta(hours=1)) == [0, 0]


def test_with_an_operator_nothing_happens_by_itself() -> None:
    """Commits wait for a person."""
    watched = Watched(PeerLoss.OPERATOR, PeerLoss.OPERATOR)
    watched.watch(STEP)
    watched.pair.link.cut = True
    assert watched.watch(timedelta(hours=1)) == [0, 0]


def test_homes_go_on_alone_once_patience_is_over() -> None:
    """With a cut link each region goes on alone in its own partitions, and takes none of the other's."""
    watched = Watched(PeerLoss.HOME_SOLOS, PeerLoss.HOME_SOLOS)
    watched.watch(2 * STEP)
    watched.pair.link.cut = True
    assert watched.watch(PATIENCE - STEP) == [0, 0]
    assert watched.watch(2 * STEP) == [32, 32]
    assert watched.modes(WEST) == watched.modes(EAST) == {Mode.SOLO}
    assert watched.watch(PATIENCE) == [0, 0]


def test_a_link_that_comes_back_in_time_changes_nothing() -> None:
    """Patience begins anew."""
    watched = Watched(PeerLoss.HOME_SOLOS, PeerLoss.HOME_SOLOS)
    watched.watch(2 * STEP)
    for _ in range(3):
        watched.pair.link.cut = True
        assert watched.watch(PATIENCE - STEP) == [0, 0]
        watched.pair.link.cut = False
        assert watched.watch(STEP) == [0, 0]


@pytest.mark.parametrize("cut", [True, False], ids=["its table is gone", "only its processes are"])
def test_the_peer_takes_over_from_a_dead_home(cut: bool) -> None:
    """A home whose table is out of reach, or that renews no lease, loses its partitions."""
    watched = Watched(PeerLoss.PEER_PROMOTES, PeerLoss.PEER_PROMOTES)
    watched.watch(2 * STEP)
    watched.pair.link.cut = cut
    assert watched.watch(PATIENCE + STEP, dead=WEST) == [0, 32]
    assert {row.home for row in watched.pair.tables[EAST].partitions()} == {EAST}
    assert watched.pair.tables[EAST].partition(0).changed_by == "policy peer-promotes"


def test_who_slept_has_not_watched() -> None:
    """A process that wakes up after the patience and cannot reach the peer begins to wait, it does not act."""
    watched = Watched(PeerLoss.HOME_SOLOS, PeerLoss.HOME_SOLOS)
    watched.watch(2 * STEP)
    watched.pair.link.cut = True
    watched.pair.west.clock.advance(3 * PATIENCE)
    assert watched.watch(STEP) == [0, 0]
    assert watched.watch(PATIENCE + STEP) == [32, 32]


@pytest.mark.parametrize("other", [PeerLoss.OPERATOR, PeerLoss.HOME_SOLOS])
def test_regions_that_declare_differently_do_nothing(other: PeerLoss, caplog: pytest.LogCaptureFixture) -> None:
    """Never both: one of them would go on alone while the other takes over. The log says that a person must decide."""
    watched = Watched(PeerLoss.PEER_PROMOTES, other)
    watched.watch(2 * STEP)
    watched.pair.link.cut = True
    assert watched.watch(PATIENCE * 2) == [0, 0]
    assert "a person must decide" in caplog.text


def test_a_region_that_never_heard_the_other_does_nothing() -> None:
    """Started while the link is cut, it cannot know what the other does."""
    watched = Watched(PeerLoss.HOME_SOLOS, PeerLoss.HOME_SOLOS)
    watched.pair.link.cut = True
    assert watched.watch(PATIENCE * 3) == [0, 0]


def test_one_partitions_trouble_leaves_the_others_alone() -> None:
    """What was changed meanwhile, or is on its way, is not gone on with alone."""
    watched = Watched(PeerLoss.HOME_SOLOS, PeerLoss.HOME_SOLOS)
    watched.watch(2 * STEP)
    table = watched.pair.tables[WEST]
    kept = table.change

    def change(new: object, *, seen: object) -> bool:
        return new.number != 4 and kept(new, seen=seen)  # type: ignore[attr-defined, arg-type]

    table.change = change  # type: ignore[method-assign]
    watched.pair.link.cut = True
    assert watched.watch(PATIENCE + STEP)[0] == 31


def test_a_home_that_may_go_on_alone_is_promoted_away_from_with_care() -> None:
    """Under home-solos a promotion that claims the home was dual is refused."""
    watched = Watched(PeerLoss.HOME_SOLOS, PeerLoss.HOME_SOLOS)
    watched.watch(STEP)
    with pytest.raises(Permanent) as refused:
        promote(watched.pair.east.engine, 0, ORDER, old_home_may_be_solo=False)
    assert refused.value.reason == "home_may_be_solo"
    assert not promote(watched.pair.east.engine, 0, ORDER, old_home_may_be_solo=True).evidence


def test_a_home_whose_peer_takes_over_never_goes_on_alone() -> None:
    """Under peer-promotes solo is refused, to a person as well."""
    watched = Watched(PeerLoss.PEER_PROMOTES, PeerLoss.PEER_PROMOTES)
    watched.watch(STEP)
    with pytest.raises(Permanent) as refused:
        solo(watched.pair.west.engine, 0, ORDER)
    assert refused.value.reason == "peer_promotes"


def test_a_home_that_went_on_alone_before_the_policy_is_promoted_away_from_with_care() -> None:
    """Solo by a person's order, then both regions are told peer-promotes, and nobody has rejoined: what it delivered alone is not known."""
    watched = Watched(PeerLoss.OPERATOR, PeerLoss.OPERATOR)
    watched.watch(STEP)
    solo(watched.pair.west.engine, 0, ORDER)
    engines = (watched.pair.west.engine, watched.pair.east.engine)
    watched.vigils = [Vigil(engine, policy=PeerLoss.PEER_PROMOTES, patience=PATIENCE) for engine in engines]
    watched.watch(2 * STEP)
    watched.pair.link.cut = True
    assert watched.watch(PATIENCE + STEP, dead=WEST) == [0, 32]
    table = watched.pair.tables[EAST]
    assert (table.partition(0).evidence, table.partition(2).evidence) == (False, True)
