"""Settings → Engine: the only place that constructs adapters."""

from __future__ import annotations

from datetime import timedelta

from eft.adapters.aws import AwsSession
from eft.adapters.clock import SystemClock
from eft.adapters.ledger import DynamoLedger
from eft.adapters.limits import DynamoLimits
from eft.adapters.outbox import DynamoOutbox
from eft.adapters.ownership import SingleRegionOwnership
from eft.adapters.ownership_table import DynamoOwnershipTable
from eft.adapters.registry import DynamoRegistry
from eft.adapters.s3.connections import S3Connections, StagingBucket
from eft.adapters.secrets import SecretsManager
from eft.adapters.sftp.pool import SftpConnections
from eft.adapters.stores import StoresByKind
from eft.adapters.subscriptions import DynamoSubscriptions, Everything
from eft.adapters.table import Link
from eft.adapters.telling import EventBridgeBus, StepFunctions
from eft.adapters.webhooks import HttpsReceiver
from eft.ports import Announcing, Clock, Engine, Listening, Ownership, Peer
from eft.regions.pair import RegionPair
from eft.settings import Settings

LINK_TIMEOUT = timedelta(seconds=5)
LINK_TRIES = 2
"""Requests for one call over the link: who waits for the peer waits on its row, not in a worker."""


def build_engine(settings: Settings, *, remember: timedelta = timedelta(0)) -> Engine:
    """Returns the engine of one process. Nothing connects before it is used, so it may be built before or after a fork.

    `remember` is how long a worker trusts an endpoint and a closed breaker that it has just read; the API trusts neither.
    """
    clock = SystemClock()
    session = AwsSession(region=settings.region, endpoint_url=settings.aws_endpoint)
    ledger_table, ownership_table = f"{settings.prefix}ledger", f"{settings.prefix}ownership"
    subscriptions = DynamoSubscriptions(session, table=f"{settings.prefix}registry", clock=clock, remember=remember)
    listening: Listening = subscriptions if settings.event_bus is None else Everything()
    peer = _peer(settings, session, ledger_table=ledger_table, ownership_table=ownership_table, clock=clock, listening=listening)
    limits = DynamoLimits(session, table=ledger_table, clock=clock, trust_closed=remember)
    secrets = SecretsManager(session, prefix=settings.prefix.rstrip("-"), clock=clock)
    staging = StagingBucket(
        bucket=settings.staging_bucket,
        region=settings.region,
        kms_key=settings.staging_kms_key,
        full_object_checksum=settings.s3_full_checksums,
    )
    return Engine(
        clock=clock,
        ledger=DynamoLedger(session, table=ledger_table, clock=clock, listening=listening),
        limits=limits,
        registry=DynamoRegistry(session, table=f"{settings.prefix}registry", clock=clock, remember=remember),
        secrets=secrets,
        stores=StoresByKind(
            sftp=SftpConnections(limits, secrets, clock),
            s3=S3Connections(secrets, clock, staging=staging, lent=settings.lent_buckets, endpoint_url=settings.aws_endpoint),
        ),
        ownership=_ownership(settings, peer),
        tuning=settings.tuning,
        peer=peer,
        announcing=Announcing(
            outbox=DynamoOutbox(session, table=ledger_table, clock=clock),
            subscriptions=subscriptions,
            receiver=HttpsReceiver(loopback=settings.webhooks_to_loopback),
            callbacks=StepFunctions(session),
            bus=None if settings.event_bus is None else EventBridgeBus(session, name=settings.event_bus),
        ),
    )


def _ownership(settings: Settings, peer: Peer | None) -> Ownership:
    if peer is None:
        return SingleRegionOwnership(region=settings.region)
    return RegionPair(region=settings.region, own=peer.own, peer=peer.table)


def _peer(
    settings: Settings, session: AwsSession, *, ledger_table: str, ownership_table: str, clock: Clock, listening: Listening
) -> Peer | None:
    if settings.peer_region is None:
        return None
    there = AwsSession(region=settings.peer_region, endpoint_url=settings.peer_endpoint, read_timeout=LINK_TIMEOUT, tries=LINK_TRIES)
    link = Link(clock)
    return Peer(
        region=settings.peer_region,
        own=DynamoOwnershipTable(session, table=ownership_table),
        table=DynamoOwnershipTable(there, table=ownership_table, link=link),
        # What is carried over there is told of there.
        ledger=DynamoLedger(there, table=ledger_table, clock=clock, link=link, listening=listening),
    )
