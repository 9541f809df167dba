"""Settings → Engine: the only place that constructs adapters."""

from __future__ import annotations

from eft.adapters.aws import AwsSession
from eft.adapters.clock import SystemClock
from eft.adapters.ledger import DynamoLedger
from eft.adapters.limits import DynamoLimits
from eft.adapters.ownership import SingleRegionOwnership
from eft.adapters.registry import DynamoRegistry
from eft.adapters.s3.connections import S3Connections, StagingBucket
from eft.adapters.secrets import SecretsManager
from eft.adapters.sftp.pool import SftpConnections
from eft.adapters.stores import StoresByKind
from eft.ports import Engine
from eft.settings import Settings


def build_engine(settings: Settings) -> Engine:
    """Returns the engine of one process. Nothing connects before it is used, so it may be built before or after a fork."""
    clock = SystemClock()
    session = AwsSession(region=settings.region, endpoint_url=settings.aws_endpoint)
    ledger_table = f"{settings.prefix}ledger"
    limits = DynamoLimits(session, table=ledger_table, clock=clock)
    secrets = SecretsManager(session, prefix=settings.prefix.rstrip("-"), clock=clock)
    staging = StagingBucket(
        bucket=settings.staging_bucket,
        region=settings.region,
        kms_key=settings.staging_kms_key,
        full_object_checksum=settings.s3_full_checksums,
    )
    return Engine(
        clock=clock,
        ledger=DynamoLedger(session, table=ledger_table, clock=clock),
        limits=limits,
        registry=DynamoRegistry(session, table=f"{settings.prefix}registry"),
        secrets=secrets,
        stores=StoresByKind(
            sftp=SftpConnections(limits, secrets, clock),
            s3=S3Connections(secrets, clock, staging=staging, endpoint_url=settings.aws_endpoint),
        ),
        ownership=SingleRegionOwnership(region=settings.region),
        tuning=settings.tuning,
    )
