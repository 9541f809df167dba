"""One request for a small file, in two regions: what the other region must take for sent, and what was never sent."""

from __future__ import annotations

import pytest

from eft.domain.ownership import Intent
from eft.domain.transfer import State, Transfer
from eft.regions.orders import Order
from eft.regions.pair import RegionPair
from eft.regions.switch import promote
from tests.crashes import Crash
from tests.fake_regions import Pair, home_of
from tests.unit.test_journey_sleepers import crash, once_at
from tests.unit.test_region_endings import work_on
from tests.world import World

ORDER = Order(by="op@example.org", why="test", ticket="T-1")
OUT = "out/a.bin"


@pytest.fixture
def pair() -> Pair:
    """Two regions, and a file at a customer's."""
    made = Pair()
    made.west.server("sftp-a").put("in/a.bin", b"x")
    return made


def submitted(pair: Pair) -> tuple[int, World, World, Transfer]:
    """Returns the partition, its home, the other region, and a transfer whose receiver keeps files."""
    number, home, other = home_of(pair, "s3-b")
    return number, home, other, home.submit("sftp-a", "s3-b", receiver_keeps=True)


def killed(world: World, label: str) -> None:
    """A worker dies while it has to do with the destination."""
    world.server("s3-b").watch = once_at(label, crash)
    with pytest.raises(Crash):
        world.drain()


def test_a_peer_that_is_away_holds_nothing(pair: Pair) -> None:
    """Without its ack nothing is sent and nothing noted: once it answers the file is delivered, without a person."""
    number, home, _, transfer = submitted(pair)
    home.server("sftp-a").watch = once_at("whole:after", lambda: setattr(pair.link, "cut", True))
    home.deliver_message(home.queue.popleft())
    row = home.ledger.load(transfer.id)
    assert (row.state, row.reason, home.server("s3-b").calls["put"]) == (State.COMMITTING, "peer_unreachable", 0)
    assert row.commit is not None
    assert not row.commit.attempted
    pair.link.cut = False
    work_on(home, number)
    row = home.ledger.load(transfer.id)
    assert (row.state, row.attempt, home.server("s3-b").appeared[OUT]) == (State.SETTLED, 2, 1)


def test_what_the_peer_has_acked_may_have_been_sent(pair: Pair) -> None:
    """A home that dies after the ack may have sent it: the promoted region looks, sends nothing, and holds what it does not find."""
    number, home, other, transfer = submitted(pair)
    killed(home, "put:before")
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    work_on(other, number)
    row = other.ledger.load(transfer.id)
    assert (row.state, row.reason, home.server("s3-b").appeared[OUT]) == (State.HELD, "answer_lost", 0)


def test_what_was_sent_is_found_by_the_promoted_region(pair: Pair) -> None:
    """By the transfer's id."""
    number, home, other, transfer = submitted(pair)
    killed(home, "put:after")
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    work_on(other, number)
    assert (other.ledger.load(transfer.id).state, home.server("s3-b").appeared[OUT]) == (State.SETTLED, 1)


def test_what_was_given_up_goes_on_in_the_promoted_region(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store has refused it, the peer knows so, and the home dies: an upload in parts takes its place there."""
    number, home, other, transfer = submitted(pair)
    home.server("s3-b").put(OUT, b"theirs")
    real = RegionPair.abandon

    def abandon(self: RegionPair, intent: Intent) -> None:
        real(self, intent)
        crash()

    with monkeypatch.context() as dying:
        dying.setattr(RegionPair, "abandon", abandon)
        with pytest.raises(Crash):
            home.drain()
    del home.server("s3-b").files[OUT]
    promote(other.engine, number, ORDER, old_home_may_be_solo=False)
    work_on(other, number)
    row = other.ledger.load(transfer.id)
    assert (row.state, row.attempt, home.server("s3-b").appeared[OUT]) == (State.SETTLED, 2, 1)
