"""Opening buckets: one session per principal and region, shared by all endpoints that it serves."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from eft.adapters.aws import TRIES, AwsSession, Role, StaticKeys
from eft.adapters.s3.bucket import Place
from eft.adapters.s3.probe import probe_bucket
from eft.adapters.s3.store import S3Staging, S3Store
from eft.domain.endpoint import Credential, S3Endpoint
from eft.errors import EftError, Permanent, Transient
from eft.ports import Check, Clock, ProbeReport, Secrets

SESSIONS: Final = 64
"""Sessions kept per process; a session's clients hold open connections and some MiB of service models."""
REFUSED: Final = frozenset({"access_denied", "credential_expired"})
_NOT_IN_SESSION_NAME: Final = re.compile(r"[^A-Za-z0-9_+=,.@-]")


@dataclass(frozen=True, slots=True)
class StagingBucket:
    """The engine's own bucket for staged copies, reached with its own credential."""

    bucket: str
    region: str
    prefix: str = ""
    kms_key: str | None = None
    full_object_checksum: bool | None = None


@dataclass(frozen=True, slots=True)
class _Principal:
    region: str
    endpoint_url: str | None
    keys: StaticKeys | None
    role: Role | None


class S3Connections:
    """Gives `S3Store`s for endpoints and for the staging bucket. Thread-safe.

    `endpoint_url` is the address of an AWS stand-in, None for AWS itself; an endpoint's own address goes before it. A role is
    assumed with the tenant's id as external id, which the customer's trust policy must ask for. The engine's own credential
    is never shown to an address that a customer named, and no endpoint opens the staging bucket, which holds everybody's files.
    It opens `lent` alone: by tenant (`*`: each) the patterns of the buckets that the operator lets it reach with that credential.
    """

    def __init__(
        self,
        secrets: Secrets,
        clock: Clock,
        *,
        staging: StagingBucket,
        lent: Mapping[str, tuple[str, ...]],
        endpoint_url: str | None = None,
        tries: int = TRIES,
    ) -> None:
        self._secrets = secrets
        self._clock = clock
        self._staging = staging
        self._lent = lent
        self._endpoint_url = endpoint_url
        self._tries = tries
        self._lock = threading.Lock()
        self._sessions: OrderedDict[_Principal, AwsSession] = OrderedDict()

    @contextmanager
    def open(self, endpoint: S3Endpoint) -> Iterator[S3Store]:
        """Gives the endpoint's store.

        Raises:
            Permanent: `secret_missing`, `secret_malformed`; and what `permit` raises.
            Transient: `credential_rotated`: what was refused is not current any more.
        """
        principal = self._principal(endpoint)
        store = S3Store(self._session(principal), _place(endpoint))
        try:
            yield store
        except EftError as error:
            if error.reason in REFUSED and endpoint.secret is not None:
                self._secrets.forget(endpoint.secret)
                if isinstance(error, Permanent) and self._principal(endpoint) != principal:
                    raise Transient(
                        f"the credential of bucket '{endpoint.bucket}' was rotated meanwhile",
                        reason="credential_rotated",
                        counts=False,
                    ) from error
            raise
        finally:
            store.let_go()

    @contextmanager
    def staging(self) -> Iterator[S3Staging]:
        """Gives the staging bucket's store."""
        own = self._staging
        principal = _Principal(own.region, self._endpoint_url, None, None)
        place = Place(own.bucket, own.prefix, kms_key=own.kms_key, full_object_checksum=own.full_object_checksum)
        store = S3Staging(self._session(principal), place)
        try:
            yield store
        finally:
            store.let_go()

    def probe(self, endpoint: S3Endpoint) -> ProbeReport:
        """Tests an endpoint: credential, bucket, region, listing, and writing without ever creating an object."""
        try:
            if endpoint.secret is not None:
                self._secrets.forget(endpoint.secret)
            store = S3Store(self._session(self._principal(endpoint)), _place(endpoint))
        except EftError as error:
            return ProbeReport(ok=False, checks=(Check("credential", ok=False, message=str(error)),))
        return probe_bucket(store, region=endpoint.region, nonce=self._clock.nonce())

    def permit(self, endpoint: S3Endpoint) -> None:
        """Looks whether an endpoint may be opened at all; asks nobody.

        Raises:
            Permanent: `bucket_reserved`; `credential_missing`: it has none of its own, and may not use the engine's here.
        """
        elsewhere = endpoint.endpoint_url not in {None, self._endpoint_url}
        if endpoint.bucket == self._staging.bucket and not elsewhere:
            raise Permanent(f"bucket '{endpoint.bucket}' is the engine's own", reason="bucket_reserved")
        if endpoint.secret is not None or endpoint.role_arn is not None:
            return
        if elsewhere:
            raise Permanent(
                f"bucket '{endpoint.bucket}' is at an address of its own, which needs a credential of its own", reason="credential_missing"
            )
        patterns = (*self._lent.get(endpoint.tenant, ()), *self._lent.get("*", ()))
        if not any(fnmatchcase(endpoint.bucket, pattern) for pattern in patterns):
            raise Permanent(
                f"bucket '{endpoint.bucket}' is not among those that the engine's own role opens for you; give a credential or a role_arn",
                reason="credential_missing",
            )

    def _principal(self, endpoint: S3Endpoint) -> _Principal:
        self.permit(endpoint)
        keys = None if endpoint.secret is None else _keys(self._secrets.get(endpoint.secret), endpoint)
        role = None
        if endpoint.role_arn is not None:
            name = _NOT_IN_SESSION_NAME.sub("-", f"eft-{endpoint.tenant}")[:64]
            role = Role(arn=endpoint.role_arn, external_id=endpoint.tenant, session_name=name)
        return _Principal(endpoint.region, endpoint.endpoint_url or self._endpoint_url, keys, role)

    def _session(self, principal: _Principal) -> AwsSession:
        with self._lock:
            session = self._sessions.pop(principal, None) or AwsSession(
                region=principal.region,
                endpoint_url=principal.endpoint_url,
                keys=principal.keys,
                role=principal.role,
                sts_endpoint_url=self._endpoint_url,
                tries=self._tries,
            )
            self._sessions[principal] = session
            while len(self._sessions) > SESSIONS:
                self._sessions.popitem(last=False)
            return session


def _place(endpoint: S3Endpoint) -> Place:
    return Place(
        endpoint.bucket, endpoint.prefix, endpoint=endpoint.id, kms_key=endpoint.kms_key, refuses_taken=endpoint.refuses_taken or None
    )


def _keys(credential: Credential, endpoint: S3Endpoint) -> StaticKeys:
    if credential.access_key_id is None or credential.secret_access_key is None:
        raise Permanent(
            f"the credential of bucket '{endpoint.bucket}' lacks access_key_id or secret_access_key",
            reason="secret_malformed",
        )
    token = credential.session_token
    return StaticKeys(
        credential.access_key_id.get_secret_value(),
        credential.secret_access_key.get_secret_value(),
        None if token is None else token.get_secret_value(),
    )
