"""Settings from the environment: the only reader of it. Frozen; every value has the prefix EFT_."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from eft.domain.ownership import PeerLoss
from eft.domain.parts import LARGEST_HELD, MIB
from eft.ports import Tuning


class Settings(BaseSettings):
    """What one process of the engine is told. Durations are seconds (`45`) or ISO 8601 (`PT45S`)."""

    model_config = SettingsConfigDict(env_prefix="EFT_", frozen=True, extra="ignore")

    region: str = "us-gov-west-1"
    prefix: str = "eft-"
    """Before the name of every table and queue, and of the secrets' path."""
    staging_bucket: str = "eft-staging"
    staging_kms_key: str | None = None
    lent_buckets: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """By tenant (`*`: each), the patterns of the buckets that its endpoints may reach with the engine's own role, as JSON:
    `{"acme": ["acme-*"]}`. Any other bucket needs a credential or a role of its own."""
    aws_endpoint: str | None = None
    """Address of an AWS stand-in; None means AWS itself."""
    sqs_endpoint: str | None = None
    """Another address for SQS alone; None means `aws_endpoint`."""
    queue_base: str = "https://sqs.us-gov-west-1.amazonaws.com/000000000000/"
    """What comes before a queue's name in its URL; ends with `/`."""
    s3_full_checksums: bool = True
    """Whether the staging bucket's server checks full-object CRC64NVME (AWS does, some stand-ins do not)."""
    peer_region: str | None = None
    """The other region; None where one is configured."""
    peer_endpoint: str | None = None
    """Address of the peer's AWS stand-in; None means AWS itself."""
    peer_loss: PeerLoss = PeerLoss.OPERATOR
    """Who acts when a region does not hear from the other: a person, or a region by itself. The same in both, or nothing acts."""
    peer_loss_after: timedelta = timedelta(minutes=5)
    """How long a region hears nothing before it acts by itself."""
    two_person: bool = False
    """Whether promote and solo need a second operator's word."""
    redis_url: SecretStr | None = None
    """Live monitoring; without it everything works but Flower."""

    part_size: int = Field(default=8 * MIB, ge=5 * MIB, le=LARGEST_HELD)
    inline_size: int = 16 * MIB
    lane_width: int = Field(default=4, ge=1, le=64)
    lane_threshold: int = Field(default=4, ge=2)
    slice: timedelta = timedelta(seconds=45)
    lease: timedelta = timedelta(seconds=75)
    stall: timedelta = timedelta(seconds=120)
    tenant_window: int = Field(default=16, ge=2)
    staging_retention: timedelta = timedelta(days=14)
    stale_upload_age: timedelta = timedelta(days=2)

    visibility: int = Field(default=90, ge=1, le=43200)
    """Seconds that SQS hides a received message; workers extend it while they hold it. Longer than the lease."""
    arrival_visibility: int = Field(default=30, ge=1, le=43200)
    """The same for events of buckets, which ingress carries in moments; it doubles while their source cannot be reached."""
    poll_wait: int = Field(default=5, ge=0, le=20)
    """Seconds of a long poll."""
    sweep_every: timedelta = timedelta(seconds=30)
    look_every: timedelta = timedelta(seconds=5)
    """How often beat reads the flows' schedules."""
    event_bus: str | None = None
    """Name or ARN of the EventBridge bus that is told of everything; None: no bus is told of anything."""
    webhooks_to_loopback: bool = False
    """Whether webhooks may be on this machine, over plain HTTP too: for the local stack and tests."""
    announce_every: timedelta = timedelta(seconds=2)
    """How often beat asks for what is to be told."""
    health_file: Path | None = None

    api_host: str = "127.0.0.1"
    api_port: int = 8080
    jwt_issuer: str = "https://issuer.invalid/"
    jwt_audience: str = "eft"
    jwks: str = ""
    """URL or file of the issuer's key set."""
    log_level: str = "INFO"

    @field_validator(
        "slice",
        "lease",
        "stall",
        "staging_retention",
        "stale_upload_age",
        "sweep_every",
        "look_every",
        "announce_every",
        "peer_loss_after",
        mode="before",
    )
    @classmethod
    def _plain_seconds(cls, value: object) -> object:
        return float(value) if isinstance(value, str) and value.replace(".", "", 1).isdigit() else value

    @property
    def tuning(self) -> Tuning:
        """The journey's figures."""
        return Tuning(
            part_size=self.part_size,
            inline_size=self.inline_size,
            lane_width=self.lane_width,
            lane_threshold=self.lane_threshold,
            slice=self.slice,
            lease=self.lease,
            stall=self.stall,
            tenant_window=self.tenant_window,
            admission_lease=self.lease,
            staging_retention=self.staging_retention,
            stale_upload_age=self.stale_upload_age,
        )
