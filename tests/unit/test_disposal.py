"""What workers leave under the names that sources are renamed to: it comes back by itself, or is told of."""

from __future__ import annotations

from datetime import timedelta

import pytest

from eft.domain.flow import Flow
from eft.domain.names import disposed_by
from eft.domain.transfer import State, Step, Transfer
from eft.errors import Transient
from eft.journey.disposal import LONG, WATCHED_FOR, give_back
from eft.journey.messages import Message
from eft.journey.plan import plan
from eft.ports import Watch
from tests.crashes import Crash, watch
from tests.unit.test_journey_sleepers import HOUR, crash, once_at
from tests.world import World

NEWER = b"a newer version"


def stranded(world: World) -> tuple[Flow, Transfer]:
    """A sleeps before it renames the source, B settles, the owner writes a newer version; A wakes, renames that, and dies."""
    server, engine = world.server("sftp-a"), world.engine
    server.put("in/a.bin", b"old")
    flow = world.flow("sftp-a", "sftp-b", disposition="delete", conflict="overwrite")
    transfer = world.submit("sftp-a", "sftp-b", disposition="delete")

    def meanwhile() -> None:
        world.clock.advance(HOUR)
        world.engine = engine
        world.deliver_message(Message(step=Step.DELIVER, ids=(transfer.id,)))
        assert world.ledger.load(transfer.id).state is State.SETTLED
        server.put("in/a.bin", NEWER)
        watch(world, once_at("sftp-a.move:after", crash))

    watch(world, once_at("sftp-a.move:before", meanwhile))
    with pytest.raises(Crash):
        world.drain()
    world.engine = engine
    world.queue.clear()
    return flow, transfer


def latest(world: World, flow: Flow) -> dict[str, int]:
    """Returns what the flow's last run noted."""
    (fire,) = world.ledger.fires(flow, limit=1)
    assert fire.outcome is not None
    return fire.outcome


def test_a_newer_version_that_a_dying_worker_renamed_comes_back() -> None:
    """The next run of a flow that lists its directory gives the file its name back and says so; the one after moves it."""
    world = World()
    flow, transfer = stranded(world)
    server = world.server("sftp-a")
    (token,) = server.files
    assert disposed_by(token) == transfer.id
    world.clock.advance(HOUR)
    world.run(flow)
    assert server.finals() == {"in/a.bin": NEWER}
    assert latest(world, flow)["returned"] == 1
    world.clock.advance(HOUR)
    world.run(flow)
    assert world.server("sftp-b").finals()["out/a.bin"] == NEWER
    assert not server.files
    assert "returned" not in latest(world, flow)


def test_a_plan_tells_of_what_stands_under_a_token() -> None:
    """Before a run gives it back, a plan names the transfer that renamed it; nothing is changed by the plan."""
    world = World()
    flow, transfer = stranded(world)
    (told,) = plan(world.engine, flow, limit=9).forecasts
    assert told.why == f"skipped: a source of transfer {transfer.id}, renamed before its removal"
    assert list(world.server("sftp-a").files) == [told.path]


def test_nothing_is_overwritten_by_what_comes_back() -> None:
    """Where a third version stands under the name, the second stays under its token, and each run says that it does."""
    world = World()
    flow, _ = stranded(world)
    server = world.server("sftp-a")
    server.put("in/a.bin", b"a third")
    world.clock.advance(HOUR)
    world.run(flow)
    assert latest(world, flow)["stranded"] == 1
    assert NEWER in [bytes(content.data) for content in server.files.values()]


def test_a_file_of_an_unknown_transfer_is_left_and_told_of() -> None:
    """Nobody here knows the name that it had."""
    world = World()
    flow = world.flow("sftp-a", "sftp-b")
    token = f"in/.{'0' * 32}.1.0.0f.part"
    world.server("sftp-a").put(token, b"whose?")
    world.run(flow)
    assert latest(world, flow)["stranded"] == 1
    assert list(world.server("sftp-a").files) == [token]


def test_the_delivered_version_under_a_token_is_removed_after_all() -> None:
    """B found the source renamed by A, and settled; A died before it removed it: the flow's policy is carried out late."""
    world = World()
    server, engine = world.server("sftp-a"), world.engine
    server.put("in/a.bin", b"old")
    flow = world.flow("sftp-a", "sftp-b")
    transfer = world.submit("sftp-a", "sftp-b", disposition="delete")
    world.drain()
    assert world.ledger.load(transfer.id).state is State.SETTLED
    world.engine = engine
    left = server.put(f"in/.{transfer.id}.0.0.0f.part", b"old")
    left.modified = transfer.created
    world.clock.advance(HOUR)
    world.run(flow)
    assert not server.files
    assert latest(world, flow).get("stranded") is None


@pytest.mark.parametrize("pause", [timedelta(0), timedelta(seconds=70)])
def test_who_may_still_be_at_work_is_not_disturbed(pause: timedelta) -> None:
    """Within a claim's life after the transfer has settled its tokens are left alone, without a word."""
    world = World()
    flow, _ = stranded(world)
    server = world.server("sftp-a")
    world.clock.advance(pause)
    world.run(flow)
    assert len(server.files) == 1
    assert not server.finals()
    assert not {"returned", "stranded"} & latest(world, flow).keys()


def test_beside_an_ad_hoc_source_upkeep_gives_it_back() -> None:
    """Whoever takes a transfer over has its source's directory watched for a day: no flow needs to list it."""
    world = World()
    _, transfer = stranded(world)
    server = world.server("sftp-a")
    (noted,) = world.ledger.watched()
    assert (noted.tenant, noted.endpoint, noted.directory) == (transfer.tenant, "sftp-a", "in")
    assert not give_back(world.engine), "who may still be at work is not disturbed"
    world.clock.advance(HOUR)
    assert give_back(world.engine) == {"returned": 1}
    assert server.finals() == {"in/a.bin": NEWER}
    assert not give_back(world.engine)
    world.clock.advance(WATCHED_FOR)
    assert list(world.ledger.watched()) == [noted]
    assert not give_back(world.engine)
    assert not list(world.ledger.watched())


def test_nothing_is_watched_where_nobody_slept() -> None:
    """A transfer that one claim carried through, and one whose source stays, cost no row."""
    world = World()
    world.server("sftp-a").put("in/a.bin", b"old")
    for disposition in ("keep", "delete"):
        world.submit("sftp-a", "sftp-b", disposition=disposition, to=f"out/{disposition}")
        world.drain()
    assert not world.server("sftp-a").files
    assert not world.ledger.calls["watch"]


def test_an_endpoint_that_is_away_keeps_its_watches_and_holds_up_no_other() -> None:
    """It is asked once a round, however many directories are watched; one that is removed, or whose directory is, is forgotten in time."""
    world = World()
    until = world.clock.now() + HOUR
    for endpoint, directory in (("gone", "in"), ("sftp-a", "in"), ("sftp-a", "other"), ("sftp-b", "none")):
        world.ledger.watch(Watch("acme", endpoint, directory, until))
    world.clock.advance(HOUR)
    asked: list[str] = []

    def down(label: str) -> None:
        if label == "sftp-a.list:before" and not asked:
            asked.append(label)
            raise Transient("away", reason="connection_lost")

    watch(world, down)
    give_back(world.engine)
    assert {(one.endpoint, one.directory) for one in world.ledger.watched()} == {("sftp-a", "in"), ("sftp-a", "other")}
    give_back(world.engine)
    assert not list(world.ledger.watched())


def test_a_fault_beside_one_source_keeps_no_other_one_waiting() -> None:
    """What nobody foresaw of one customer's server is told of, and the others' sources are looked for in the same round."""
    world = World()
    for endpoint, until in (("sftp-a", HOUR), ("sftp-b", HOUR + HOUR)):
        world.ledger.watch(Watch("acme", endpoint, "in", world.clock.now() + until))
    world.clock.advance(HOUR + HOUR)

    def fault(label: str) -> None:
        if label == "sftp-a.list:before":
            raise ValueError(label)

    watch(world, fault)
    give_back(world.engine)
    assert [one.endpoint for one in world.ledger.watched()] == ["sftp-a"]


def test_a_look_for_tokens_is_a_probe_of_an_open_breaker_like_any_other() -> None:
    """It closes it, opens it anew, or gives the probe back: the next transfer does not wait for a look that learnt nothing."""
    for trouble in (None, Transient("away", reason="connection_lost", endpoint="sftp-a"), Transient("throttled", reason="throttled")):
        world = World()
        for _ in range(5):
            world.limits.failed("sftp-a", reason="connection_lost")
        world.ledger.watch(Watch("acme", "sftp-a", "in", world.clock.now() + HOUR))
        world.server("sftp-a").put("in/a.bin", b"x")
        if trouble is not None:

            def fail(label: str, trouble: Transient = trouble) -> None:
                if label == "sftp-a.list:before":
                    raise trouble

            watch(world, fail)
        world.clock.advance(HOUR)
        give_back(world.engine)
        shut = world.limits.shut_until("sftp-a") is not None
        assert shut is (trouble is not None and trouble.endpoint is not None)


def test_an_endpoint_that_takes_long_waits_for_the_next_round() -> None:
    """So that one customer's slow server does not hold up everybody's."""
    world = World()
    until = world.clock.now() + HOUR
    world.clock.advance(HOUR)
    for directory in ("in", "other"):
        world.server("sftp-a").put(f"{directory}/a.bin", b"x")
        world.ledger.watch(Watch("acme", "sftp-a", directory, until))

    def slow(label: str) -> None:
        if label == "sftp-a.list:after":
            world.clock.advance(LONG + 1)

    watch(world, slow)
    for left in (1, 0):
        give_back(world.engine)
        assert len(list(world.ledger.watched())) == left
