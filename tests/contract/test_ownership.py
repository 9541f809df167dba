"""The contract of ownership where no other region competes: the fake and the adapter for one region keep it alike."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from eft.adapters.ownership import SingleRegionOwnership
from eft.domain.names import PARTITIONS, RemotePath
from eft.domain.ownership import Intent, Mode, Standing
from eft.domain.transfer import Place, State, Transfer
from eft.errors import LostOwnership, Transient
from eft.ports import Durability, Ownership, Remembered
from tests.fakes import FakeOwnership

REGION = "us-gov-east-1"
INTENT = Intent(partition=3, transfer="t1", attempt=1, token="token-1", region_epoch=1)


@pytest.fixture(params=["fake", "single region"])
def ownership(request: pytest.FixtureRequest) -> Ownership:
    """Each implementation in turn."""
    return FakeOwnership(region=REGION) if request.param == "fake" else SingleRegionOwnership(region=REGION)


def test_the_only_region_is_home_of_every_partition(ownership: Ownership) -> None:
    """At region_epoch 1, without anybody to ask."""
    assert list(ownership.owned()) == list(range(PARTITIONS))
    for partition in (0, PARTITIONS - 1):
        standing = ownership.standing(partition)
        assert standing == Standing(partition=partition, home=REGION, region_epoch=1, mode=Mode.SOLO)


def test_intents_of_the_present_region_epoch_pass(ownership: Ownership) -> None:
    """Acked as often as asked; after it was abandoned, the next attempt's as well."""
    ownership.ack(INTENT)
    ownership.ack(INTENT)
    ownership.abandon(INTENT)
    ownership.ack(INTENT.model_copy(update={"attempt": 2, "token": "token-2"}))


def test_an_intent_without_standing_is_fenced(ownership: Ownership) -> None:
    """A region_epoch below the partition's gets neither ack nor abandon."""
    with pytest.raises(LostOwnership):
        ownership.ack(INTENT.model_copy(update={"region_epoch": 0}))
    with pytest.raises(LostOwnership):
        ownership.abandon(INTENT.model_copy(update={"region_epoch": 0}))


def test_a_region_alone_has_no_other_to_remember_for_it(ownership: Ownership) -> None:
    """What is accepted is on record in one region, at its present region_epoch; no other knows of it, or forgets it."""
    at = datetime(2025, 1, 6, tzinfo=UTC)
    place = Place(endpoint="e", kind="s3", path=RemotePath("a"))
    transfer = Transfer(id="t1", tenant="acme", partition=3, source=place, destination=place, created=at, since=at, state=State.SETTLED)
    remembered = ownership.remember(transfer)
    assert remembered == Remembered(durability=Durability.ONE, home=REGION, region_epoch=1)
    assert ownership.known([transfer.id]) == set()
    ownership.forget(transfer)
    ownership.renounce(transfer.with_(region_epoch=1))
    with pytest.raises(LostOwnership):
        ownership.renounce(transfer)
    assert ownership.known([transfer.id]) == set()


def test_the_fake_fences_and_cuts_off_as_two_regions_do() -> None:
    """Promotion fences the old home; without the peer there is no ack; a second token needs the first one abandoned."""
    ownership = FakeOwnership(region=REGION, mode=Mode.DUAL)
    ownership.ack(INTENT)
    with pytest.raises(LostOwnership):
        ownership.ack(INTENT.model_copy(update={"attempt": 2, "token": "token-2"}))
    ownership.peer_reachable = False
    with pytest.raises(Transient) as cut_off:
        ownership.ack(INTENT)
    assert cut_off.value.reason == "peer_unreachable"
    ownership.peer_reachable = True
    assert ownership.promote(3, home="us-gov-west-1") == 2
    for act in (lambda: ownership.standing(3), lambda: ownership.ack(INTENT), lambda: ownership.abandon(INTENT)):
        with pytest.raises(LostOwnership):
            act()
    assert 3 not in ownership.owned()
