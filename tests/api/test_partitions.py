"""Partitions of two regions through the API: looked at, switched, promoted, let alone and rejoined, by operators only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from api.app import create_app
from api.auth import AuthSettings, Scope
from eft.domain.names import PARTITIONS, partition_of
from eft.domain.ownership import Mode, Phase
from eft.domain.transfer import State
from tests.api.conftest import AUDIENCE, ISSUER, Client, Issuer, Queue, fields, problem
from tests.fake_regions import EAST, WEST, Pair
from tests.world import TENANT, World

PATH = "/v1/partitions"
WHY = {"why": "a test", "ticket": "T-1"}
PROMOTE = {**WHY, "old_home_may_be_solo": False}


@dataclass
class Region:
    """One region's API, with an operator's client."""

    world: World
    operator: Client
    queue: Queue


Make = Callable[..., dict[str, Region]]


@pytest.fixture
def pair() -> Pair:
    """Two regions over fakes: even partitions at home in the west, odd ones in the east."""
    return Pair()


@pytest.fixture
def make(pair: Pair, issuer: Issuer) -> Make:
    """Returns what makes the two APIs."""

    def made(*, two_person: bool = False) -> dict[str, Region]:
        regions = {}
        for name, world in ((WEST, pair.west), (EAST, pair.east)):
            queue = Queue()
            auth = AuthSettings(issuer=ISSUER, audience=AUDIENCE, jwks=str(issuer.file))
            app = create_app(world.engine, queue, auth, two_person=two_person)
            regions[name] = Region(world, Client(app, issuer.token()), queue)
        return regions

    return made


@pytest.fixture
def west(make: Make) -> Client:
    """The western API."""
    return make()[WEST].operator


def post(client: Client, where: str, body: dict[str, Any] | None = None, *, status: int = 200) -> dict[str, Any]:
    """Orders something and returns the answer."""
    answer = client.post(f"{PATH}/{where}", WHY if body is None else body)
    assert answer.status_code == status, answer.text
    shown: dict[str, Any] = answer.get_json()
    return shown


def test_all_partitions_are_listed_as_both_regions_have_them(west: Client, pair: Pair) -> None:
    """With the link up the peer's view stands beside our own; without it only our own, and that is said."""
    page = west.get(PATH).get_json()
    assert (page["region"], page["link"], len(page["items"])) == (WEST, True, PARTITIONS)
    first = page["items"][1]
    assert (first["number"], first["home"], first["region_epoch"], first["mode"], first["phase"]) == (1, EAST, 1, "dual", "active")
    assert (first["peer_home"], first["peer_region_epoch"], first["changed_by"]) == (EAST, 1, None)
    pair.link.cut = True
    page = west.get(PATH).get_json()
    assert (page["link"], page["items"][1]["peer_home"]) == (False, None)


def test_a_planned_switch(west: Client, pair: Pair) -> None:
    """Drained and handed over, a partition is at home in the other region; who, why and ticket are on record in both."""
    assert post(west, "2/drain")["partition"]["phase"] == "draining"
    assert post(west, "2/undrain")["partition"]["phase"] == "active"
    problem(west.post(f"{PATH}/2/hand-over", WHY), 409, "not_draining")
    post(west, "2/drain")
    moved = post(west, "2/hand-over")["partition"]
    assert (moved["home"], moved["region_epoch"], moved["phase"]) == (EAST, 2, "active")
    for table in pair.tables.values():
        row = table.partition(2)
        assert (row.home, row.changed_by, row.why, row.ticket) == (EAST, "ada", "a test", "T-1")
        assert row.changed_at is not None


def test_a_hand_over_of_a_busy_partition_is_refused_for_now(make: Make, pair: Pair) -> None:
    """503 `still_busy`, with the time after which to ask again."""
    number = partition_of(TENANT, "sftp-b")
    region = make()[pair.tables[WEST].partition(number).home]
    home = region.world
    home.server("s3-a").put("in/a.bin", b"x")
    pair.link.cut = True
    home.submit("s3-a", "sftp-b")
    home.deliver_message(home.queue.popleft())
    pair.link.cut = False
    post(region.operator, f"{number}/drain")
    answer = region.operator.post(f"{PATH}/{number}/hand-over", WHY)
    problem(answer, 503, "still_busy")
    assert int(answer.headers["Retry-After"]) > 0


def test_a_promotion_says_beforehand_what_it_will_hold(make: Make, pair: Pair) -> None:
    """The preview counts and names what nobody here knows the fate of; the promotion makes us home, alone, under the next epoch."""
    regions = make()
    number = partition_of(TENANT, "sftp-b")
    home_name = pair.tables[WEST].partition(number).home
    other_name = EAST if home_name == WEST else WEST
    home, other = regions[home_name], regions[other_name].operator
    home.world.server("s3-a").put("in/a.bin", b"x")
    transfer = home.world.submit("s3-a", "sftp-b")
    assert other.get(f"{PATH}/{number}/preview").get_json() == {"will_be_held": 0, "ids": []}
    preview = other.get(f"{PATH}/{number}/preview?old_home_may_be_solo=true").get_json()
    assert preview == {"will_be_held": 1, "ids": [transfer.id]}
    made = post(other, f"{number}/promote", {**WHY, "old_home_may_be_solo": True})["partition"]
    assert (made["home"], made["region_epoch"], made["mode"], made["evidence"]) == (other_name, 2, "solo", False)
    assert post(other, f"{number}/promote", PROMOTE)["partition"]["region_epoch"] == 2


def test_a_promotion_must_say_whether_the_old_home_may_be_solo(west: Client) -> None:
    """Nobody promotes without having thought of it."""
    told = problem(west.post(f"{PATH}/1/promote", WHY), 422, "request_invalid")
    assert fields(told) == ["/old_home_may_be_solo"]


def test_solo_and_rejoin(west: Client, pair: Pair) -> None:
    """A home commits alone until the peer is back; without the link the rejoin waits."""
    pair.link.cut = True
    assert post(west, "0/solo")["partition"]["mode"] == "solo"
    problem(west.post(f"{PATH}/0/rejoin", WHY), 503, "peer_unreachable")
    pair.link.cut = False
    together = post(west, "0/rejoin")["partition"]
    assert (together["mode"], together["evidence"]) == ("dual", True)
    assert pair.tables[EAST].partition(0).evidence


def test_two_homes_are_rejoined_at_the_later_one(make: Make, pair: Pair) -> None:
    """After a promotion the old home, which may not know of it, cannot rejoin; it is told where."""
    regions = make()
    post(regions[EAST].operator, "0/promote", PROMOTE)
    problem(regions[WEST].operator.post(f"{PATH}/0/rejoin", WHY), 409, "both_home")
    post(regions[EAST].operator, "0/rejoin")
    assert {table.partition(0).home for table in pair.tables.values()} == {EAST}
    problem(regions[WEST].operator.post(f"{PATH}/0/rejoin", WHY), 409, "not_home")


@pytest.mark.parametrize("verb", ["drain", "undrain", "hand-over", "solo", "rejoin"])
def test_an_order_for_anothers_partition_says_where_to_ask(west: Client, verb: str) -> None:
    """409 `not_home`."""
    problem(west.post(f"{PATH}/1/{verb}", WHY), 409, "not_home")


@pytest.mark.parametrize("number", ["64", "x", "01"])
def test_an_unknown_partition_is_not_found(west: Client, number: str) -> None:
    """404, for orders and previews alike."""
    problem(west.post(f"{PATH}/{number}/drain", WHY), 404, "partition_unknown")
    problem(west.get(f"{PATH}/{number}/preview"), 404, "partition_unknown")


@pytest.mark.parametrize("body", [{}, {"why": "no", "ticket": "T"}, {"why": "a test", "ticket": ""}, {"why": "a test"}])
def test_why_and_ticket_are_asked_for(west: Client, pair: Pair, body: dict[str, str]) -> None:
    """An order without them is refused and changes nothing."""
    problem(west.post(f"{PATH}/0/drain", body), 422, "request_invalid")
    assert pair.tables[WEST].partition(0).phase is Phase.ACTIVE


def test_two_persons_promote_and_declare_solo(make: Make, pair: Pair, issuer: Issuer) -> None:
    """The first word is a proposal; the same operator cannot confirm it, another can, for a quarter of an hour."""
    regions = make(two_person=True)
    east = regions[EAST]
    other = Client(east.operator.app, issuer.token(sub="grace"))
    proposal = post(east.operator, "0/promote", PROMOTE, status=202)["proposal"]
    assert (proposal["action"], proposal["partition"], proposal["by"]) == ("promote", 0, "ada")
    assert pair.tables[EAST].partition(0).home == WEST
    assert other.get(f"{PATH}/proposals/{proposal['id']}").get_json() == proposal
    problem(east.operator.post(f"{PATH}/proposals/{proposal['id']}/confirm", {}), 409, "same_person")
    done = post(other, f"proposals/{proposal['id']}/confirm", {"why": "seen it"})["partition"]
    assert (done["home"], done["changed_by"], done["why"]) == (EAST, "ada, confirmed by grace", "a test; seen it")
    late = post(east.operator, "1/solo", status=202)["proposal"]
    pair.west.clock.advance(16 * 60)
    problem(other.post(f"{PATH}/proposals/{late['id']}/confirm", {}), 404, "proposal_unknown")
    problem(other.get(f"{PATH}/proposals/{late['id']}"), 404, "proposal_unknown")
    again = post(east.operator, "1/solo", status=202)["proposal"]
    assert post(other, f"proposals/{again['id']}/confirm", {})["partition"]["mode"] == "solo"
    assert pair.tables[EAST].partition(1).mode is Mode.SOLO
    assert post(east.operator, "3/drain")["partition"]["phase"] == "draining"


@pytest.mark.parametrize("undone_by", ["rejoin", "drain"])
def test_a_proposal_is_carried_out_once(make: Make, pair: Pair, issuer: Issuer, undone_by: str) -> None:
    """Confirmed again it changes nothing; once the partition was moved on, two persons are asked anew."""
    west = make(two_person=True)[WEST]
    other = Client(west.operator.app, issuer.token(sub="grace"))
    confirm = f"proposals/{post(west.operator, '0/solo', status=202)['proposal']['id']}/confirm"
    pair.west.clock.advance(60)
    if undone_by == "rejoin":
        for _ in range(2):
            assert post(other, confirm, {})["partition"]["mode"] == "solo"
    post(west.operator, f"0/{undone_by}")
    problem(other.post(f"{PATH}/{confirm}", {}), 409, "partition_changed")
    assert pair.tables[WEST].partition(0).mode is Mode.DUAL


def test_one_region_has_no_partitions_to_switch(acme: Client) -> None:
    """409 `no_peer`, wherever one asks."""
    problem(acme.get(PATH), 409, "no_peer")
    problem(acme.post(f"{PATH}/0/drain", WHY), 409, "no_peer")


def test_customers_neither_see_nor_move_partitions(make: Make, issuer: Issuer) -> None:
    """Every other scope together is not the operator's."""
    app = make()[WEST].operator.app
    customer = Client(app, issuer.token(scopes=[scope for scope in Scope if scope is not Scope.OPERATOR]))
    answers = [customer.get(PATH), customer.get(f"{PATH}/0/preview"), customer.post(f"{PATH}/0/promote", PROMOTE)]
    assert [answer.status_code for answer in answers] == [403, 403, 403]


def test_a_transfer_is_found_and_decided_from_either_region(make: Make, pair: Pair) -> None:
    """Asked for in the other region it is shown as its home has it; an operator's decision there reaches the home's row."""
    regions = make()
    number = partition_of(TENANT, "sftp-b")
    home_name = pair.tables[WEST].partition(number).home
    home, away = regions[home_name].world, regions[EAST if home_name == WEST else WEST]
    home.server("s3-a").put("in/a.bin", b"x")
    server = home.server("sftp-b")
    server.watch = lambda label: server.files.clear() if label == "commit:before" else None
    transfer = home.submit("s3-a", "sftp-b")
    home.drain()
    shown = away.operator.get(f"/v1/transfers/{transfer.id}").get_json()
    assert (shown["state"], shown["reason"]) == ("held", "token_gone")
    answer = away.operator.post(f"/v1/transfers/{transfer.id}/decide", {"decision": "accept", "why": "asked the partner"})
    assert answer.status_code == 202, answer.text
    assert home.ledger.load(transfer.id).state is State.DELIVERED
    assert away.queue.sent == []
