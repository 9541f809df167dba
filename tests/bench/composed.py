"""Stores as the engine builds them, with limits and secrets in memory: for measuring the data path without AWS."""

from __future__ import annotations

from typing import Any, cast

from pydantic import SecretStr

from eft.adapters.clock import SystemClock
from eft.adapters.s3.connections import S3Connections, StagingBucket
from eft.adapters.sftp.pool import SftpConnections
from eft.adapters.stores import StoresByKind
from eft.domain.endpoint import Credential, Endpoint, HostKey, S3Endpoint, SftpEndpoint
from tests.fakes import FakeClock, FakeLimits, FakeSecrets

TENANT = "bench"
SLOTS = 32
"""Connections that an endpoint allows."""


class Composed:
    """Ports of one process that keep nothing."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        # The fakes ask for the time, and nothing else.
        self.limits = FakeLimits(cast("FakeClock", self.clock))
        self.secrets = FakeSecrets()
        staging = StagingBucket(bucket="none", region="us-gov-west-1")
        self.sftp = SftpConnections(self.limits, self.secrets, self.clock)
        self.stores = StoresByKind(sftp=self.sftp, s3=S3Connections(self.secrets, self.clock, staging=staging, lent={}))

    def endpoint(self, name: str, end: dict[str, Any], *, key: str = "") -> Endpoint:
        """Returns an endpoint for what `peers` tells scripts about an end."""
        common: dict[str, Any] = {"id": name, "tenant": TENANT, "name": name, "created": self.clock.now(), "max_connections": SLOTS}
        if end["kind"] == "s3":
            access, secret = SecretStr(end["access_key"]), SecretStr(end["secret_key"])
            common["secret"] = self.secrets.put(
                tenant=TENANT, endpoint=name, credential=Credential(access_key_id=access, secret_access_key=secret)
            )
            return S3Endpoint(**common, bucket=end["bucket"], region="us-gov-west-1", endpoint_url=end["url"], refuses_taken=True)
        algorithm, public = end["host_key"].split()[:2]
        common["secret"] = self.secrets.put(tenant=TENANT, endpoint=name, credential=Credential(private_key=SecretStr(key)))
        return SftpEndpoint(
            **common,
            host=end["host"],
            port=end["port"],
            username=end["username"],
            root=end["root"],
            host_keys=(HostKey(algorithm=algorithm, key=public),),
        )
