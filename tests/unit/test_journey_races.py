"""What a worker finds that slept between two calls: each a case that the simulation of the engine has found."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from eft.domain.transfer import State, Step, Transfer
from eft.errors import Permanent, Transient, Undecidable
from eft.journey.held import Decision, decide
from eft.journey.messages import Message
from eft.journey.operate import cancel, redrive
from eft.ports import Engine
from tests.crashes import watch
from tests.world import TENANT, World


@pytest.fixture
def world() -> World:
    """Returns a world with one file to move."""
    made = World()
    made.server("sftp-a").put("in/a.bin", b"x")
    return made


def once_at(label: str, then: Callable[[], object]) -> Callable[[str], None]:
    """Returns a hook that does something the first time that a worker passes a point."""
    passed = False

    def hook(here: str) -> None:
        nonlocal passed
        if here == label and not passed:
            passed = True
            then()

    return hook


def cancelled_while_asleep(world: World, transfer: Transfer) -> None:
    """A worker sleeps between its look and its claim while a customer cancels."""
    watch(world, once_at("ledger.load:after", lambda: cancel(world.engine, TENANT, transfer.id, "somebody")))
    assert world.deliver_message(Message(step=Step.DELIVER, ids=(transfer.id,))) == []


def test_a_worker_that_slept_before_its_claim_leaves_a_cancelled_transfer_alone(world: World) -> None:
    """The source of a transfer that was cancelled between look and claim stays, whatever its disposition; nothing is delivered."""
    transfer = world.submit("sftp-a", "s3-b", disposition="delete")
    cancelled_while_asleep(world, transfer)
    row = world.ledger.load(transfer.id)
    assert (row.state, row.reason, row.claim_until) == (State.CANCELLED, "cancelled", None)
    assert set(world.server("sftp-a").finals()) == {"in/a.bin"}
    assert world.server("s3-b").finals() == {}


def test_a_worker_that_slept_before_its_claim_leaves_a_settled_transfer_alone(world: World) -> None:
    """A transfer that was settled between look and claim keeps its row as it is."""
    transfer = world.submit("sftp-a", "s3-b")
    message = world.queue.popleft()
    watch(world, once_at("ledger.load:after", lambda: world.deliver_message(message)))
    assert world.deliver_message(message) == []
    row = world.ledger.load(transfer.id)
    assert (row.state, row.reason, row.claim_until) == (State.SETTLED, None, None)
    assert world.server("s3-b").appeared["out/a.bin"] == 1


def abandon(engine: Engine, tenant: str, transfer_id: str, by: str) -> Transfer:
    """Abandons a held transfer."""
    return decide(engine, tenant, transfer_id, Decision.ABANDON, by=by, why="twice")


@pytest.mark.parametrize("second", [redrive, abandon])
def test_of_two_operators_at_once_one_is_refused(world: World, second: Callable[..., object]) -> None:
    """A second word about a held transfer, given before and heard after the first, is refused and changes nothing."""
    transfer = world.submit("sftp-a", "s3-b")
    held = world.ledger.load(transfer.id).to(State.HELD, now=world.clock.now(), reason="token_gone")
    world.ledger.save(held, was=State.ACCEPTED)
    watch(world, once_at("ledger.load:after", lambda: redrive(world.engine, TENANT, transfer.id, "first")))
    with pytest.raises(Permanent):
        second(world.engine, TENANT, transfer.id, "second")
    row = world.ledger.load(transfer.id)
    assert (row.state, row.redrives, row.claim_until) == (State.ACCEPTED, 1, None)
    assert world.until_rest(transfer).state is State.SETTLED


def test_a_copy_within_one_endpoint_passes_its_own_probe(world: World) -> None:
    """Once an endpoint's open breaker lets one through, a transfer from that endpoint to itself is not kept out by its own question."""
    world.server("s3-a").put("in/a.bin", b"x")
    for _ in range(5):
        world.limits.failed("s3-a", reason="unreachable")
    transfer = world.submit("s3-a", "s3-a")
    assert world.until_rest(transfer).state is State.SETTLED


def test_who_waits_for_a_path_keeps_no_endpoint_shut(world: World) -> None:
    """A transfer that probes an endpoint, and then waits for another one's path, leaves the probe to the next."""
    world.server("s3-a").put("in/a.bin", b"x")
    held = world.submit("s3-a", "s3-b", path="in/none.bin", to="out/taken.bin")
    world.ledger.reserve(endpoint="s3-b", path=held.destination.path, transfer=held.id, claim=held.claim, source="another", order=0)
    for _ in range(5):
        world.limits.failed("s3-b", reason="unreachable")
    world.clock.advance(15)
    waiting = world.submit("s3-a", "s3-b", to="out/taken.bin")
    world.deliver_message(world.queue.pop())
    assert world.ledger.load(waiting.id).reason == "destination_reserved"
    transfer = world.submit("s3-a", "s3-b")
    world.deliver_message(world.queue.pop())
    assert world.ledger.load(transfer.id).state is State.SETTLED


def test_a_staged_copy_is_delivered_as_it_was_staged(world: World) -> None:
    """Whatever has taken its place in the staging bucket is not delivered in its name: a person decides."""
    world.server("sftp-a").put("in/a.bin", b"x" * 2000)
    transfer = world.submit("sftp-a", "sftp-b")
    (again,) = world.deliver_message(world.queue.popleft())
    staged = world.ledger.load(transfer.id).staged
    assert staged is not None
    world.stores.staging_server.put(staged.path, b"another's bytes")
    world.queue.append(again)
    row = world.until_rest(transfer)
    assert (row.state, row.reason, world.server("sftp-b").finals()) == (State.HELD, "source_changed", {})


def test_what_is_held_without_a_token_keeps_no_path(world: World) -> None:
    """A re-driven transfer whose source has changed waits for a person; another one may have its destination meanwhile."""
    world.server("s3-b").put("out/a.bin", b"another's")
    world.run(world.flow("sftp-a", "s3-b"))
    (transfer,) = world.ledger.rows()
    assert transfer.reason == "destination_exists"
    world.server("sftp-a").put("in/a.bin", b"changed")
    redrive(world.engine, TENANT, transfer.id, "op")
    assert world.until_rest(transfer).state is State.HELD
    assert world.ledger.holder("s3-b", "out/a.bin") is None


def test_a_decision_that_broke_off_is_taken_again_not_redriven(world: World) -> None:
    """Its token may be removed already: that it is gone is no sign that the receiver has the file."""
    transfer = world.submit("s3-b", "sftp-b", path="in/b.bin", receiver_removes=True)
    world.server("s3-b").put("in/b.bin", b"x")
    server = world.server("sftp-b")

    def refuse(label: str) -> None:
        if label == "commit:before":
            raise Undecidable("not now", reason="rename_half_done")
        if label == "consume:after":
            raise Transient("the connection was lost", reason="connection_lost", endpoint="sftp-b")

    server.watch = refuse
    assert world.until_rest(transfer).state is State.HELD
    with pytest.raises(Transient):
        decide(world.engine, TENANT, transfer.id, Decision.DELIVER, by="op", why="the receiver has nothing")
    server.watch = lambda _: None
    with pytest.raises(Permanent) as error:
        redrive(world.engine, TENANT, transfer.id, "another")
    assert error.value.reason == "undecided"
    with pytest.raises(Permanent, match="decide again"):
        decide(world.engine, TENANT, transfer.id, Decision.DELIVER, by="op", why="the receiver has nothing")
    decide(world.engine, TENANT, transfer.id, Decision.DELIVER, by="op", why="the receiver has nothing")
    assert world.until_rest(transfer).state is State.SETTLED
    assert server.appeared["out/a.bin"] == 1


def test_a_delivery_that_goes_on_without_its_path_reserves_it_first(world: World) -> None:
    """A switch that broke off may have brought the row alone: while another transfer has the path, nothing is written."""
    world.server("s3-a").put("in/a.bin", b"x" * 9000)
    transfer = world.submit("s3-a", "s3-b")
    world.deliver_message(world.queue.popleft())
    row = world.ledger.load(transfer.id)
    assert row.state is State.DELIVERING
    path = row.destination.path
    other = world.submit("s3-a", "s3-b", path="in/b.bin", to="out/a.bin")
    world.ledger.release(endpoint="s3-b", path=path, transfer=row.id, claim=row.claim, delivered=False)
    world.ledger.reserve(endpoint="s3-b", path=path, transfer=other.id, claim=other.claim, source="another", order=0)
    world.deliver_message(Message(step=Step.DELIVER, ids=(transfer.id,)))
    assert world.ledger.load(transfer.id).reason == "destination_reserved"
