"""Credentials in Secrets Manager: one secret per endpoint, named `<prefix>/<tenant>/<endpoint>`, holding the JSON of a Credential."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from botocore.exceptions import ClientError
from pydantic import SecretStr, ValidationError

from eft.adapters.aws import AwsSession
from eft.adapters.aws_errors import code_of, translated
from eft.domain.endpoint import Credential, SecretRef
from eft.errors import NotFound, Permanent
from eft.ports import Clock

CACHE_LIFE: Final = timedelta(seconds=60)
CACHE_SIZE: Final = 1024
RECOVERY_DAYS: Final = 7
"""Days in which AWS can still restore a deleted secret: the least it offers (Secrets Manager API, DeleteSecret)."""
_NAME: Final = re.compile(r"[A-Za-z0-9_.@-]{1,128}")
_UNREADABLE: Final = frozenset({"AccessDeniedException", "DecryptionFailure"})


class SecretsManager:
    """`ports.Secrets` on AWS Secrets Manager. Thread-safe; values are in memory only, and in no message or repr."""

    def __init__(self, session: AwsSession, *, prefix: str, clock: Clock, kms_key: str | None = None) -> None:
        self._session = session
        self._prefix = prefix.strip("/")
        self._clock = clock
        self._kms_key = kms_key
        self._lock = threading.Lock()
        self._cache: dict[str, tuple[float, Credential]] = {}

    def get(self, ref: SecretRef) -> Credential:
        """Returns the credential, at most a minute old.

        Raises:
            Permanent: `secret_missing`, `secret_denied`, `secret_malformed`.
        """
        self._check_ours(ref.name)
        now = self._clock.monotonic()
        cached = self._cache.get(ref.name)
        if cached is not None and now < cached[0]:
            return cached[1]
        credential = self._read(ref.name)
        with self._lock:
            if len(self._cache) >= CACHE_SIZE:
                self._cache.clear()
            self._cache[ref.name] = (now + CACHE_LIFE.total_seconds(), credential)
        return credential

    def forget(self, ref: SecretRef) -> None:
        """Drops what is cached of a credential, because a server has refused it: the next `get` asks anew."""
        with self._lock:
            self._cache.pop(ref.name, None)

    def put(self, *, tenant: str, endpoint: str, credential: Credential) -> SecretRef:
        """Stores a credential as the endpoint's current one, creating or restoring its secret, and returns its reference.

        Raises:
            Permanent: `name_invalid`: the tenant or endpoint cannot be part of a secret's name; `secret_denied`.
        """
        if not (_NAME.fullmatch(tenant) and _NAME.fullmatch(endpoint)):
            raise Permanent("a tenant's and an endpoint's id consist of letters, digits, '_', '-', '.' and '@'", reason="name_invalid")
        name = f"{self._prefix}/{tenant}/{endpoint}"
        text = json.dumps({k: v.get_secret_value() for k, v in credential if isinstance(v, SecretStr)})
        with self._translated(name):
            self._write(name, text)
        ref = SecretRef(name=name)
        self.forget(ref)
        return ref

    def remove(self, ref: SecretRef) -> None:
        """Deletes the secret, restorable by AWS for a week; nothing happens if it is gone."""
        self._check_ours(ref.name)
        with self._translated(ref.name):
            try:
                self._session.secretsmanager().delete_secret(SecretId=ref.name, RecoveryWindowInDays=RECOVERY_DAYS)
            except ClientError as error:
                # InvalidRequestException: it is scheduled for deletion already.
                if code_of(error) not in {"ResourceNotFoundException", "InvalidRequestException"}:
                    raise
        self.forget(ref)

    def _read(self, name: str) -> Credential:
        with self._translated(name):
            try:
                text = self._session.secretsmanager().get_secret_value(SecretId=name).get("SecretString", "")
            except ClientError as error:
                # InvalidRequestException: it is scheduled for deletion.
                if code_of(error) in {"ResourceNotFoundException", "InvalidRequestException"}:
                    raise NotFound(
                        f"the secret '{name}' does not exist; give the endpoint its credential again", reason="secret_missing"
                    ) from None
                raise
        try:
            return Credential.model_validate(json.loads(text))
        except (ValueError, ValidationError):
            # The cause is cut off: it would quote what the secret holds.
            raise Permanent(f"the secret '{name}' is not a credential in JSON", reason="secret_malformed") from None

    def _write(self, name: str, text: str) -> None:
        client = self._session.secretsmanager()
        try:
            client.put_secret_value(SecretId=name, SecretString=text)
            return
        except ClientError as error:
            code = code_of(error)
            if code not in {"ResourceNotFoundException", "InvalidRequestException"}:
                raise
        if code == "InvalidRequestException":
            # Scheduled for deletion: its owner comes back within the week.
            client.restore_secret(SecretId=name)
        elif self._created(name, text):
            return
        client.put_secret_value(SecretId=name, SecretString=text)

    def _created(self, name: str, text: str) -> bool:
        """Returns whether the secret was created; False if somebody else has just done so."""
        client = self._session.secretsmanager()
        try:
            if self._kms_key is None:
                client.create_secret(Name=name, SecretString=text)
            else:
                client.create_secret(Name=name, SecretString=text, KmsKeyId=self._kms_key)
        except ClientError as error:
            if code_of(error) == "ResourceExistsException":
                return False
            raise
        return True

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        try:
            with translated(f"secret '{name}'", session=self._session):
                yield
        except Permanent as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and code_of(cause) in _UNREADABLE:
                raise Permanent(
                    f"the engine may not use the secret '{name}'; check its role and the secret's key", reason="secret_denied"
                ) from cause
            raise

    def _check_ours(self, name: str) -> None:
        if not name.startswith(f"{self._prefix}/"):
            raise Permanent(f"the secret '{name}' is none of this engine's", reason="secret_denied")
