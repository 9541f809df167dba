"""Settings from the environment, and the engine that is built from them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from eft.adapters.ledger import DynamoLedger
from eft.adapters.ownership import SingleRegionOwnership
from eft.adapters.ownership_table import DynamoOwnershipTable
from eft.bootstrap import build_engine
from eft.domain.parts import MIB
from eft.ports import Tuning
from eft.regions.pair import RegionPair
from eft.settings import Settings


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without settings of ours."""
    for name in ("EFT_REGION", "EFT_PREFIX", "EFT_PEER_REGION", "EFT_REDIS_URL", "EFT_SLICE", "EFT_LEASE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(("text", "meant"), [("45", 45), ("0.5", 0.5), ("PT45S", 45), ("PT1H30M", 5400), ("00:01:30", 90)])
def test_a_duration_is_seconds_or_iso_8601(environment: pytest.MonkeyPatch, text: str, meant: float) -> None:
    """Whoever writes a plain number means seconds."""
    environment.setenv("EFT_SLICE", text)
    assert Settings().slice == timedelta(seconds=meant)


@pytest.mark.parametrize(
    ("name", "text"),
    [("SLICE", "soon"), ("SLICE", "1.2.3"), ("VISIBILITY", "0"), ("POLL_WAIT", "21"), ("LANE_WIDTH", "0"), ("PART_SIZE", "1")],
)
def test_a_value_that_cannot_be_meant_stops_the_process(environment: pytest.MonkeyPatch, name: str, text: str) -> None:
    """At its start, with the name of the setting."""
    environment.setenv(f"EFT_{name}", text)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def test_settings_do_not_change_and_hide_what_is_secret(environment: pytest.MonkeyPatch) -> None:
    """The address of Redis may carry a password."""
    environment.setenv("EFT_REDIS_URL", "redis://:hunter2@redis.test/0")
    environment.setenv("EFT_HEALTH_FILE", "health")
    settings = Settings()
    assert "hunter2" not in f"{settings!r} {settings}"
    assert settings.health_file == Path("health")
    with pytest.raises(ValidationError):
        settings.region = "elsewhere"  # type: ignore[misc]


def test_the_journeys_figures_are_the_settings(environment: pytest.MonkeyPatch) -> None:
    """By default those of the journey itself; an admission slot lives as long as a claim."""
    assert Settings().tuning == Tuning()
    tuning = Settings(lease=timedelta(seconds=30), part_size=6 * MIB, tenant_window=3).tuning
    assert (tuning.lease, tuning.admission_lease, tuning.part_size, tuning.tenant_window) == (
        timedelta(seconds=30),
        timedelta(seconds=30),
        6 * MIB,
        3,
    )


def test_one_region_has_an_engine_without_a_peer(environment: pytest.MonkeyPatch) -> None:
    """Building it connects to nothing."""
    engine = build_engine(Settings(region="us-gov-east-1"))
    assert engine.peer is None
    assert isinstance(engine.ownership, SingleRegionOwnership)
    assert engine.ownership.region == "us-gov-east-1"
    assert isinstance(engine.ledger, DynamoLedger)
    assert engine.tuning == Settings().tuning


def test_two_regions_have_an_engine_that_knows_its_peer(environment: pytest.MonkeyPatch) -> None:
    """Its own table is not the peer's; both ways over there share one link, which waits for nobody."""
    engine = build_engine(Settings(region="us-gov-west-1", peer_region="us-gov-east-1", peer_endpoint="http://127.0.0.1:1"))
    assert isinstance(engine.ownership, RegionPair)
    assert engine.ownership.region == "us-gov-west-1"
    assert engine.peer is not None
    assert engine.peer.region == "us-gov-east-1"
    own, there, ledger = engine.peer.own, engine.peer.table, engine.peer.ledger
    assert isinstance(own, DynamoOwnershipTable)
    assert isinstance(there, DynamoOwnershipTable)
    assert isinstance(ledger, DynamoLedger)
    assert own._table._link is None
    assert there._table._link is ledger._table._link is not None
    session = there._table._session
    assert (session.region, session.endpoint_url) == ("us-gov-east-1", "http://127.0.0.1:1")
    assert vars(session._config)["_user_provided_options"]["read_timeout"] == 5
