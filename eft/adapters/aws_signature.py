"""Signature Version 4 in a header (AWS IAM User Guide, "Create a signed AWS API request"), for the short way to AWS."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials

ALGORITHM: Final = "AWS4-HMAC-SHA256"
PORTS: Final = {"http": 80, "https": 443}
UNSIGNED: Final = "UNSIGNED-PAYLOAD"
"""In place of a body's hash, where TLS protects it already (Amazon S3 API, "Authenticating Requests")."""
NOT_SIGNED: Final = frozenset({"connection", "expect", "te", "transfer-encoding", "user-agent"})
"""Headers that proxies may change."""


class Signer:
    """Signs requests to one service in one region. Thread-safe."""

    def __init__(self, service: str, region: str) -> None:
        self._service = service
        self._region = region
        self._held: tuple[tuple[str, str], bytes] = (("", ""), b"")
        """The key of a day and secret."""

    def signed(
        self, method: str, url: str, *, headers: Mapping[str, str], payload: str, keys: ReadOnlyCredentials, at: str
    ) -> dict[str, str]:
        """Returns the headers with the signature's among them.

        Path and query are taken as they stand, percent-encoded as S3 reads them; `payload` is the body's hash or UNSIGNED, `at` the
        time (`20261129T110000Z`).
        """
        told = {**headers, "X-Amz-Date": at}
        if keys.token:
            told["X-Amz-Security-Token"] = keys.token
        origin, path, query = parted(url)
        by_name = {name.lower(): " ".join(value.split()) for name, value in told.items()}
        lines = sorted((name, value) for name, value in {**by_name, "host": host(origin)}.items() if name not in NOT_SIGNED)
        names = ";".join([name for name, _ in lines])
        listed = "".join([f"{name}:{value}\n" for name, value in lines])
        sorted_query = "&".join(sorted(query.split("&"), key=lambda pair: pair.partition("="))) if query else ""
        canonical = f"{method}\n{path}\n{sorted_query}\n{listed}\n{names}\n{payload}"
        scope = f"{at[:8]}/{self._region}/{self._service}/aws4_request"
        text = f"{ALGORITHM}\n{at}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
        signature = _sign(self._key(at[:8], keys.secret_key or ""), text).hex()
        told["Authorization"] = f"{ALGORITHM} Credential={keys.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        return told

    def _key(self, day: str, secret: str) -> bytes:
        of, key = self._held
        if of != (day, secret):
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = _sign(key, part)
            self._held = ((day, secret), key)
        return key


def parted(url: str) -> tuple[str, str, str]:
    """Returns where a request goes (`https://host:port`), its path, and its query."""
    scheme, _, rest = url.partition("://")
    place, _, target = rest.partition("/")
    path, _, query = target.partition("?")
    return f"{scheme}://{place}", f"/{path}", query


@lru_cache(maxsize=1024)
def host(origin: str) -> str:
    """Returns the Host header of an origin: in lower case, without the port that its scheme has anyway."""
    parts = urlsplit(origin)
    name = parts.hostname or ""
    shown = f"[{name}]" if ":" in name else name
    return shown if parts.port in {None, PORTS.get(parts.scheme)} else f"{shown}:{parts.port}"


def _sign(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
