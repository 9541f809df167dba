"""`eft region`, and `eft transfer decide`, against the real APIs of two regions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.auth import AuthSettings
from deploy.local.identity import create_identity
from eft.cli.region_table import folded
from eft.cli.token import SCOPES
from eft.domain.names import PARTITIONS, partition_of
from eft.domain.ownership import Mode, Phase
from eft.domain.transfer import State
from tests.cli.conftest import URL, Desk
from tests.fake_regions import EAST, WEST, Pair
from tests.world import TENANT, World

WHY = ("--why", "a test", "--ticket", "T-1")


@dataclass
class Both:
    """Two regions, and an operator's desk at each."""

    pair: Pair
    west: Desk
    east: Desk

    def home_of(self, destination: str) -> tuple[int, World, Desk, Desk]:
        """Returns the partition of a destination, its home's world and desk, and the other desk."""
        number = partition_of(TENANT, destination)
        at_west = self.pair.tables[WEST].partition(number).home == WEST
        return (number, self.pair.west, self.west, self.east) if at_west else (number, self.pair.east, self.east, self.west)


Make = Callable[..., Both]


@pytest.fixture
def make_both(tmp_path: Path) -> Iterator[Make]:
    """Makes the pair, its changes asking for one person or two."""
    with ExitStack() as ends:

        def make(*, two_person: bool = False) -> Both:
            pair, identity = Pair(), create_identity(tmp_path / "identity")
            auth = AuthSettings(issuer=identity.issuer, audience=identity.audience, jwks=str(identity.jwks))
            desks = []
            for name, world in (("west", pair.west), ("east", pair.east)):
                app = create_app(world.engine, world.queue.extend, auth, two_person=two_person)
                transport = ends.enter_context(httpx.WSGITransport(app=app))
                stores: Any = world.stores
                home = tmp_path / name
                home.mkdir()
                desk = Desk(world=world, stores=stores, identity=identity, transport=transport, home=home, environ={})
                desk.environ |= {"EFT_API_URL": URL, "EFT_TOKEN": desk.token(*SCOPES, "operator"), "EFT_CONFIG": str(home / "config.toml")}
                desks.append(desk)
            return Both(pair, *desks)

        yield make


@pytest.fixture
def both(make_both: Make) -> Both:
    """The pair as it starts: even partitions at home in the west, odd ones in the east."""
    return make_both()


def test_status_shows_the_homes_and_whether_the_other_region_answers(both: Both) -> None:
    """Alike partitions share a line; --each gives every one its own; without the link the other side is not known."""
    result = both.west.run("region", "status")
    assert result.exit_code == 0, result.output
    first, *lines = result.stdout.splitlines()
    assert first == "This is us-gov-west-1; the other region answers."
    assert [line.split("  ")[0].strip() for line in lines[-2:]] == ["0 2 4 … 62", "1 3 5 … 63"]
    assert "us-gov-east-1, 1" in lines[-1]
    assert len(both.west.run("region", "status", "--each").stdout.splitlines()) > PARTITIONS
    both.pair.link.cut = True
    page = both.west.json("region", "status")
    assert (page["link"], page["items"][0]["peer_home"]) == (False, None)
    assert "does not answer" in both.west.run("region", "status").stdout


def test_a_planned_switch_moves_all_partitions(both: Both) -> None:
    """Drain and hand-over of --all leave the other region home of everything; who, why and ticket are on record."""
    drained = both.west.json("region", "drain", "--all", *WHY)
    assert [item["number"] for item in drained["items"]] == list(range(0, PARTITIONS, 2))
    assert {item["phase"] for item in drained["items"]} == {"draining"}
    handed = both.west.json("region", "hand-over", "--all", *WHY)
    assert {(item["home"], item["region_epoch"]) for item in handed["items"]} == {(EAST, 2)}
    row = both.pair.tables[EAST].partition(0)
    assert (row.home, row.changed_by, row.why, row.ticket) == (EAST, "local:acme", "a test", "T-1")
    again = both.west.json("region", "drain", "--all", *WHY)
    assert again == {"items": [], "proposals": [], "refused": []}
    assert "There is nothing to do." in both.west.run("region", "drain", "--all", *WHY).stdout


def test_a_drain_is_taken_back(both: Both) -> None:
    """Undrain makes named partitions active again."""
    assert both.west.run("region", "drain", "4", "6", *WHY).exit_code == 0
    assert [item["number"] for item in both.west.json("region", "undrain", "--all", *WHY)["items"]] == [4, 6]
    assert both.pair.tables[WEST].partition(4).phase is Phase.ACTIVE


def test_a_busy_hand_over_is_asked_for_again_until_it_may_be(both: Both) -> None:
    """While a transfer commits, the partition waits; once it has ended, the same command hands it over."""
    number, home, desk, _ = both.home_of("sftp-b")
    home.server("s3-a").put("in/a.bin", b"x")
    both.pair.link.cut = True
    home.submit("s3-a", "sftp-b")
    home.queue += home.deliver_message(home.queue.popleft())
    both.pair.link.cut = False
    assert desk.run("region", "drain", str(number), *WHY).exit_code == 0
    refused = desk.run("region", "hand-over", str(number), *WHY, "--wait", "0s")
    assert refused.exit_code == 6
    assert "still_busy" in refused.stdout
    desk.while_asleep = home.drain
    assert desk.json("region", "hand-over", str(number), *WHY)["items"][0]["region_epoch"] == 2
    assert desk.naps


def test_a_promotion_shows_what_it_will_hold_and_asks(both: Both) -> None:
    """Declined, it changes nothing; agreed to, the other region is fenced; a script says --yes."""
    number, home, _, desk = both.home_of("sftp-b")
    home.server("s3-a").put("in/a.bin", b"x")
    transfer = home.submit("s3-a", "sftp-b")
    words = ("region", "promote", str(number), "--old-home-may-be-solo", *WHY)
    assert desk.run(*words).exit_code == 2
    desk.person = True
    declined = desk.run(*words, typed="n\n")
    assert declined.exit_code == 1
    assert transfer.id in declined.stdout
    assert "1 transfers will be held" in declined.stderr
    agreed = desk.run(*words, typed="y\n")
    assert agreed.exit_code == 0, agreed.output
    other = EAST if home is both.pair.west else WEST
    row = both.pair.tables[other].partition(number)
    assert (row.home, row.mode, row.region_epoch, row.evidence) == (other, Mode.SOLO, 2, False)


def test_a_promotion_of_all_says_what_it_assumes(both: Both) -> None:
    """Without a word about the old home it is refused; with --old-home-was-dual nothing is held."""
    assert both.east.run("region", "promote", "--all", *WHY, "--yes").exit_code == 2
    made = both.east.json("region", "promote", "--all", "--old-home-was-dual", *WHY, "--yes")
    assert (made["will_be_held"], len(made["items"])) == (0, PARTITIONS // 2)
    assert {row.home for row in both.pair.tables[EAST].partitions()} == {EAST}


def test_a_solo_home_rejoins_its_peer(both: Both) -> None:
    """Solo asks first; rejoin waits for the link, then both regions are needed again."""
    both.pair.link.cut = True
    assert both.west.run("region", "solo", "--all", *WHY).exit_code == 2
    alone = both.west.json("region", "solo", "--all", *WHY, "--yes")
    assert {item["mode"] for item in alone["items"]} == {"solo"}
    waiting = both.west.run("region", "rejoin", "--all", *WHY, "--wait", "5s")
    assert waiting.exit_code == 6
    assert "peer_unreachable" in waiting.stdout

    def heal() -> None:
        both.pair.link.cut = False

    both.west.while_asleep = heal
    together = both.west.json("region", "rejoin", "--all", *WHY)
    assert {(item["mode"], item["evidence"]) for item in together["items"]} == {("dual", True)}


def test_an_order_at_the_wrong_region_is_refused(both: Both) -> None:
    """One partition of the other region's among ours: ours are done, that one is named, and the exit code says conflict."""
    result = both.west.run("region", "drain", "0", "1", *WHY)
    assert result.exit_code == 5
    assert "not_home" in result.stdout
    assert both.pair.tables[WEST].partition(0).phase is Phase.DRAINING
    assert both.west.run("region", "drain", "64", *WHY).exit_code == 3


def test_partitions_are_named_by_ranges(both: Both) -> None:
    """A range, every second of a range, and single numbers, each once; anything else is usage."""
    drained = both.west.json("region", "drain", "0-8/2", "8", "10", *WHY)
    assert [item["number"] for item in drained["items"]] == [0, 2, 4, 6, 8, 10]
    for text in ("x", "1-", "-1", "1-2/0"):
        assert both.west.run("region", "drain", *WHY, "--", text).exit_code == 2, text


@pytest.mark.parametrize("words", [("region", "drain", *WHY), ("region", "drain", "1", "--all", *WHY), ("region", "drain", "--all")])
def test_partitions_why_and_ticket_are_asked_for(both: Both, words: tuple[str, ...]) -> None:
    """Neither partitions nor --all, both of them, or no reason: usage."""
    assert both.west.run(*words).exit_code == 2


def test_a_customer_may_not(both: Both) -> None:
    """Without the operator's scope nothing is shown or changed."""
    both.west.environ["EFT_TOKEN"] = both.west.token()
    assert both.west.run("region", "status").exit_code == 4
    assert both.west.run("region", "drain", "--all", *WHY).exit_code == 4


def test_two_persons_promote(make_both: Make) -> None:
    """The first operator's promotion is a proposal; the same person cannot confirm it, another one can."""
    both = make_both(two_person=True)
    made = both.east.json("region", "promote", "0", "--old-home-was-dual", *WHY, "--yes")
    (proposal,) = made["proposals"]
    assert made["items"] == []
    shown = both.east.run("region", "promote", "2", "--old-home-was-dual", *WHY, "--yes")
    assert "eft region confirm" in shown.stdout
    assert both.east.run("region", "confirm", proposal["id"], "--yes").exit_code == 5
    both.east.environ["EFT_TOKEN"] = both.east.token("operator", tenant="other")
    done = both.east.json("region", "confirm", proposal["id"], "--why", "seen it, too", "--yes")
    assert done["items"][0]["home"] == EAST
    row = both.pair.tables[EAST].partition(0)
    assert (row.changed_by, row.why) == ("local:acme, confirmed by local:other", "a test; seen it, too")
    assert both.east.run("region", "confirm", "f" * 16, "--yes").exit_code == 3


def test_the_second_person_sees_what_will_be_held(make_both: Make) -> None:
    """Who confirms sees what was proposed, why, and what it holds, and is asked; declined, it changes nothing; a script says --yes."""
    both = make_both(two_person=True)
    number, home, _, desk = both.home_of("sftp-b")
    home.server("s3-a").put("in/a.bin", b"x")
    transfer = home.submit("s3-a", "sftp-b")
    (proposal,) = desk.json("region", "promote", str(number), "--old-home-may-be-solo", *WHY, "--yes")["proposals"]
    desk.environ["EFT_TOKEN"] = desk.token("operator", tenant="other")
    assert desk.run("region", "confirm", proposal["id"]).exit_code == 2
    desk.person = True
    declined = desk.run("region", "confirm", proposal["id"], typed="n\n")
    assert declined.exit_code == 1
    assert f"proposes to promote partition {number}: a test" in declined.stdout
    assert transfer.id in declined.stdout
    assert "1 transfers will be held" in declined.stderr
    assert {table.partition(number).region_epoch for table in both.pair.tables.values()} == {1}
    assert desk.json("region", "confirm", proposal["id"], "--yes")["will_be_held"] == 1
    assert {table.partition(number).region_epoch for table in both.pair.tables.values()} != {1}


def test_one_region_has_nothing_to_switch(desk: Desk) -> None:
    """Where one region is configured the command says so."""
    desk.environ["EFT_TOKEN"] = desk.token("operator")
    result = desk.run("region", "status")
    assert result.exit_code == 5
    assert "One region is configured" in result.stderr


@pytest.mark.parametrize(("decision", "state"), [("deliver", "accepted"), ("accept", "delivered"), ("abandon", "cancelled")])
def test_an_operator_decides_what_is_held(both: Both, decision: str, state: str) -> None:
    """Deliver anyway, accept as delivered, or abandon; the reason is on the timeline."""
    _, home, desk, _ = both.home_of("sftp-b")
    home.server("s3-a").put("in/a.bin", b"x")
    transfer = home.submit("s3-a", "sftp-b")
    server = home.server("sftp-b")
    server.watch = lambda label: server.files.clear() if label == "commit:before" else None
    home.drain()
    assert home.ledger.load(transfer.id).state is State.HELD
    refused = desk.run("transfer", "decide", transfer.id, decision)
    assert refused.exit_code == 2
    decided = desk.json("transfer", "decide", transfer.id, decision, "--why", "asked the partner")
    assert decided["state"] == state
    assert any(event["error"] == "asked the partner" for event in decided["timeline"])
    assert desk.run("transfer", "decide", transfer.id, decision, "--why", "once more").exit_code == 5


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([3], "3"), ([0, 1, 2, 5], "0–2 5"), (list(range(64)), "0–63"), (list(range(0, 64, 2)), "0 2 4 … 62")],
)
def test_numbers_are_folded(numbers: list[int], text: str) -> None:
    """Runs as ranges, many as the first three and the last."""
    assert folded(numbers) == text
