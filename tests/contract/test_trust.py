"""What workers trust for some seconds instead of asking again: endpoints, closed breakers, flows that wait for arrivals."""

from __future__ import annotations

from datetime import timedelta

import pytest

from eft.adapters import registry as registry_module
from eft.adapters.limits import DynamoLimits
from eft.adapters.registry import DynamoRegistry
from eft.domain.endpoint import S3Endpoint
from eft.domain.flow import Arrival
from eft.errors import NotFound
from tests.contract.rows import DynamoRows

TRUST = timedelta(seconds=3)
REASON = "unreachable"


def registry(rows: DynamoRows) -> DynamoRegistry:
    """Returns the registry as a worker has it."""
    return DynamoRegistry(rows.session, table=rows.registry_table, clock=rows.clock, remember=TRUST)


def limits(rows: DynamoRows) -> DynamoLimits:
    """Returns the limits as a worker's process has them."""
    return DynamoLimits(rows.session, table=rows.ledger_table, clock=rows.clock, trust_closed=TRUST)


def test_an_endpoint_is_read_once_in_a_while(moto_rows: DynamoRows) -> None:
    """A change by the API holds from then on, and no longer than that."""
    worker = registry(moto_rows)
    moto_rows.registry.add_endpoint(moto_rows.endpoint())
    with moto_rows.counted() as sent:
        for _ in range(3):
            assert worker.endpoint(moto_rows.tenant, "from").revision == 1
            moto_rows.clock.advance(TRUST / 4)
    assert sent == {"GetItem": 1}
    moto_rows.registry.change_endpoint(moto_rows.endpoint(revision=2))
    moto_rows.clock.advance(TRUST / 4)
    assert worker.endpoint(moto_rows.tenant, "from").revision == 2


def test_an_endpoint_that_is_not_there_is_asked_for_again(moto_rows: DynamoRows) -> None:
    """Its absence is not remembered; nor is another tenant's endpoint of the same name taken for it."""
    worker = registry(moto_rows)
    with pytest.raises(NotFound):
        worker.endpoint(moto_rows.tenant, "from")
    moto_rows.registry.add_endpoint(moto_rows.endpoint())
    assert worker.endpoint(moto_rows.tenant, "from").id == "from"
    with pytest.raises(NotFound):
        worker.endpoint(f"{moto_rows.tenant}-other", "from")


def test_what_is_remembered_is_bounded(moto_rows: DynamoRows, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of many customers forgets all rather than growing without end."""
    monkeypatch.setattr(registry_module, "RECENT", 2)
    worker = registry(moto_rows)
    for n in range(3):
        moto_rows.registry.add_endpoint(moto_rows.endpoint(f"e{n}"))
        worker.endpoint(moto_rows.tenant, f"e{n}")
        list(worker.arrival_flows(f"{moto_rows.tenant}-{n}"))
    assert (len(worker._recent), len(worker._recent_arrivals)) == (1, 1)


def test_flows_that_wait_for_arrivals_are_looked_for_once_in_a_while(moto_rows: DynamoRows) -> None:
    """An event of a busy bucket costs no request; a new flow takes part in seconds."""
    worker, bucket = registry(moto_rows), f"{moto_rows.tenant}-landing"
    source = S3Endpoint(id="a", tenant=moto_rows.tenant, name="a", bucket=bucket, region="us-gov-west-1", created=moto_rows.clock.now())
    moto_rows.registry.add_endpoint(source)
    assert list(worker.arrival_flows(bucket)) == []
    flow = moto_rows.flow("f", source="a", trigger=Arrival())
    moto_rows.registry.add_flow(flow)
    with moto_rows.counted() as sent:
        assert list(worker.arrival_flows(bucket)) == []
    assert sent.total() == 0
    moto_rows.clock.advance(TRUST)
    assert list(worker.arrival_flows(bucket)) == [(flow, source)]


def test_a_closed_breaker_is_looked_at_once_in_a_while(moto_rows: DynamoRows) -> None:
    """A success costs no request meanwhile; a failure of one's own is remembered at once."""
    worker, endpoint = limits(moto_rows), moto_rows.tenant
    with moto_rows.counted() as sent:
        for _ in range(3):
            assert worker.shut_until(endpoint) is None
            worker.succeeded(endpoint)
            moto_rows.clock.advance(TRUST / 4)
    assert sent == {"GetItem": 1}
    for _ in range(5):
        worker.failed(endpoint, reason=REASON)
    assert worker.shut_until(endpoint) is not None


def test_others_failures_shut_a_breaker_that_was_trusted(moto_rows: DynamoRows) -> None:
    """A worker that knew the endpoint well goes on for some seconds, then spares it."""
    worker, endpoint = limits(moto_rows), moto_rows.tenant
    assert worker.shut_until(endpoint) is None
    for _ in range(5):
        moto_rows.limits.failed(endpoint, reason=REASON)
    assert worker.shut_until(endpoint) is None
    moto_rows.clock.advance(TRUST)
    assert worker.shut_until(endpoint) is not None


def test_a_worker_whose_probe_succeeds_closes_a_breaker_that_others_opened(moto_rows: DynamoRows) -> None:
    """Though it had seen the endpoint well before: nobody has to wait for another probe."""
    worker, endpoint = limits(moto_rows), moto_rows.tenant
    assert worker.shut_until(endpoint) is None
    for _ in range(5):
        moto_rows.limits.failed(endpoint, reason=REASON)
    moto_rows.clock.advance(TRUST)
    until = worker.shut_until(endpoint)
    assert until is not None
    moto_rows.clock.advance(until - moto_rows.clock.now())
    assert worker.shut_until(endpoint) is None
    assert moto_rows.limits.shut_until(endpoint) is not None
    worker.succeeded(endpoint)
    assert moto_rows.limits.shut_until(endpoint) is None
