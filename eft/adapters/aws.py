"""AWS: the one place that builds its clients."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import botocore.session
from botocore.config import Config
from botocore.credentials import CredentialProvider, DeferredRefreshableCredentials
from botocore.exceptions import NoCredentialsError

from eft.adapters.aws_models import new_session

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_events.client import EventBridgeClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_secretsmanager.client import SecretsManagerClient
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sts.client import STSClient

T = TypeVar("T")
CONNECT_TIMEOUT: Final = timedelta(seconds=5)
READ_TIMEOUT: Final = timedelta(seconds=60)
TRIES: Final = 4
"""Requests for one call, the first included; longer waits belong to the row."""
ROLE_SESSION: Final = timedelta(hours=1)
"""The longest session that a role assumed by another role may have (AWS IAM User Guide, "Role chaining")."""


@dataclass(frozen=True, slots=True)
class StaticKeys:
    """An access key of the customer's; its repr shows no secret."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Role:
    """A role to assume.

    The external id keeps one tenant from naming another's role (AWS IAM User Guide, "The confused deputy problem").
    """

    arn: str
    external_id: str
    session_name: str = "eft"


class AwsSession:
    """One principal's clients in one region, thread-safe, and built anew in a forked process.

    Without `keys` or `role` the credentials are the process's own (task role, profile, environment). `endpoint_url`
    serves every service where it is given (an emulator, an S3-compatible store), but for STS, which has its own.
    """

    def __init__(
        self,
        *,
        region: str,
        endpoint_url: str | None = None,
        keys: StaticKeys | None = None,
        role: Role | None = None,
        sts_endpoint_url: str | None = None,
        connections: int = 32,
        read_timeout: timedelta = READ_TIMEOUT,
        tries: int = TRIES,
    ) -> None:
        self.region = region
        self.endpoint_url = endpoint_url
        self.keys = keys
        self.role = role
        self.tries = tries
        self.capabilities: dict[str, bool] = {}
        """What the service at `endpoint_url` was found to support."""
        self._sts_endpoint_url = sts_endpoint_url
        self._config = _config(
            endpoint_url,
            connections=connections,
            read_timeout=read_timeout,
            tries=tries,
        )
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._session: botocore.session.Session | None = None
        self._clients: dict[str, Any] = {}

    @property
    def principal(self) -> tuple[object, ...]:
        """Who asks whom: equal for two sessions whose requests one service judges alike. Not for display."""
        return (self.endpoint_url, self.keys, self.role)

    def s3(self) -> S3Client:
        """Returns the client of S3."""
        return cast("S3Client", self._client("s3"))

    def dynamodb(self) -> DynamoDBClient:
        """Returns the client of DynamoDB."""
        return cast("DynamoDBClient", self._client("dynamodb"))

    def secretsmanager(self) -> SecretsManagerClient:
        """Returns the client of Secrets Manager."""
        return cast("SecretsManagerClient", self._client("secretsmanager"))

    def sqs(self) -> SQSClient:
        """Returns the client of SQS."""
        return cast("SQSClient", self._client("sqs"))

    def events(self) -> EventBridgeClient:
        """Returns the client of EventBridge."""
        return cast("EventBridgeClient", self._client("events"))

    def stepfunctions(self) -> Any:  # noqa: ANN401 - it has no types here
        """Returns the client of Step Functions."""
        return self._client("stepfunctions")

    def beside(self, service: str, build: Callable[[botocore.session.Session, Any], T]) -> T:
        """Returns what `build` makes beside a service's client, once for as long as that lives."""
        self._after_fork()
        name = f"beside {service}"
        if (made := self._clients.get(name)) is None:
            # Client and session in one go: another thread may renew this session at any time.
            with self._lock:
                if (made := self._clients.get(name)) is None:
                    client = self._built(service)
                    made = self._clients[name] = build(cast("botocore.session.Session", self._session), client)
        return cast("T", made)

    def resolve_credential(self) -> None:
        """Fetches the credential now, assuming the role where there is one, instead of with the first call.

        Raises:
            BotoCoreError, ClientError: there is none, or the role is refused; `translated` says it in our words.
        """
        self._client("s3")
        credential = None if self._session is None else self._session.get_credentials()
        if credential is None:
            raise NoCredentialsError
        credential.get_frozen_credentials()

    def renew(self) -> None:
        """Drops clients and credentials; the next call builds them anew. Calls under way keep theirs."""
        self._after_fork()
        with self._lock:
            self._session = None
            self._clients = {}

    def _client(self, service: str) -> Any:  # noqa: ANN401 - botocore makes its classes at run time; the methods above name them
        self._after_fork()
        if (client := self._clients.get(service)) is None:
            # Clients are built from shared, unlocked caches of its session; built clients are thread-safe.
            with self._lock:
                client = self._built(service)
        return client

    def _built(self, service: str) -> Any:  # noqa: ANN401 - as above
        """Returns the client, built if there is none; the caller holds the lock."""
        if (client := self._clients.get(service)) is None:
            self._session = self._session or self._new_session()
            client = self._clients[service] = self._session.create_client(service, endpoint_url=self.endpoint_url, config=self._config)
        return client

    def _after_fork(self) -> None:
        if self._pid != os.getpid():
            # A fork shares sockets with its parent, and may have copied the lock while another thread held it.
            self._lock, self._session, self._clients, self._pid = threading.Lock(), None, {}, os.getpid()

    def _new_session(self) -> botocore.session.Session:
        if self.role is None:
            return self._source_session()
        session = new_session(self.region)
        session.get_component("credential_provider").providers.insert(0, _RoleCredentials(self._assume, self.role))
        return session

    def _source_session(self) -> botocore.session.Session:
        session = new_session(self.region)
        if self.keys is not None:
            session.set_credentials(self.keys.access_key_id, self.keys.secret_access_key, self.keys.session_token)
        return session

    def _assume(self, role: Role) -> dict[str, str]:
        sts = cast("STSClient", self._source_session().create_client("sts", endpoint_url=self._sts_endpoint_url, config=self._config))
        try:
            granted = sts.assume_role(
                RoleArn=role.arn,
                RoleSessionName=role.session_name,
                ExternalId=role.external_id,
                DurationSeconds=int(ROLE_SESSION.total_seconds()),
            )["Credentials"]
        finally:
            sts.close()
        return {
            "access_key": granted["AccessKeyId"],
            "secret_key": granted["SecretAccessKey"],
            "token": granted["SessionToken"],
            "expiry_time": granted["Expiration"].isoformat(),
        }


class _RoleCredentials(CredentialProvider):
    """Puts the assumed role at the head of botocore's chain; botocore renews it before it expires."""

    METHOD = "eft-assume-role"
    CANONICAL_NAME = "custom-eft-assume-role"

    def __init__(self, assume: Any, role: Role) -> None:  # noqa: ANN401 - a bound method of the session
        super().__init__()
        self._assume = assume
        self._role = role

    def load(self) -> DeferredRefreshableCredentials:
        return DeferredRefreshableCredentials(refresh_using=lambda: self._assume(self._role), method=self.METHOD)


def _config(endpoint_url: str | None, *, connections: int, read_timeout: timedelta, tries: int) -> Config:
    return Config(
        connect_timeout=CONNECT_TIMEOUT.total_seconds(),
        read_timeout=read_timeout.total_seconds(),
        retries={"mode": "standard", "total_max_attempts": tries},
        max_pool_connections=connections,
        tcp_keepalive=True,
        user_agent_extra="eft",
        # A body is hashed for its signature only where TLS does not protect it already.
        s3={
            # As `auto`, but that signed addresses name the region's host too, which the short way takes its addresses from.
            "addressing_style": "virtual" if endpoint_url is None else "path",
            "payload_signing_enabled": endpoint_url is not None and not endpoint_url.startswith("https://"),
        },
        # Checksums are ours, over the whole object; botocore's default adds another one to each request.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
