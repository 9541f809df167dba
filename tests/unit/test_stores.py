"""Each endpoint is opened by the adapter of its kind."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime

import pytest

from eft.adapters.stores import StoresByKind
from eft.domain.endpoint import S3Endpoint, SftpEndpoint
from eft.errors import Permanent
from eft.ports import Check, ProbeReport, Staging, Stores
from tests.fake_store import FakeServer, FakeStore
from tests.fakes import FakeClock

AT = datetime(2026, 1, 1, tzinfo=UTC)
SFTP = SftpEndpoint(id="e1", tenant="t", name="sftp", host="h", username="u", created=AT)
S3 = S3Endpoint(id="e2", tenant="t", name="s3", bucket="bucket", region="us-gov-west-1", created=AT)


class Side:
    """One adapter, which says its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def open(self, endpoint: SftpEndpoint | S3Endpoint) -> AbstractContextManager[FakeStore]:
        return nullcontext(FakeStore(FakeServer(FakeClock()), f"{self.name}:{endpoint.id}"))

    def staging(self) -> AbstractContextManager[Staging]:
        return nullcontext(FakeStore(FakeServer(FakeClock()), f"{self.name}:staging"))

    def permit(self, endpoint: SftpEndpoint | S3Endpoint) -> None:
        raise Permanent(self.name, reason="credential_missing")

    def probe(self, endpoint: SftpEndpoint | S3Endpoint) -> ProbeReport:
        return ProbeReport(ok=True, checks=(Check(f"{self.name}:{endpoint.id}", ok=True, message=""),))


def opened(store: object) -> str:
    """Returns which side opened what."""
    assert isinstance(store, FakeStore)
    return store.endpoint


def test_each_kind_has_its_adapter() -> None:
    """SFTP endpoints, buckets and the staging bucket are opened and tested by the side that knows them."""
    stores: Stores = StoresByKind(sftp=Side("sftp"), s3=Side("s3"))
    with stores.open(SFTP) as one, stores.open(S3) as two, stores.staging() as three:
        assert [opened(one), opened(two), opened(three)] == ["sftp:e1", "s3:e2", "s3:staging"]
    assert stores.probe(SFTP).checks[0].name == "sftp:e1"
    assert stores.probe(S3).checks[0].name == "s3:e2"
    stores.permit(SFTP)
    with pytest.raises(Permanent, match="s3"):
        stores.permit(S3)
