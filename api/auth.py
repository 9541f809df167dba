"""Who calls: bearer tokens (JWT of an OIDC issuer), verified against the issuer's published keys. Nothing here issues one.

RFC 6750 (bearer tokens), RFC 7519 (JWT), RFC 8725 (its best practices): the algorithm is ours to choose, never the token's.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import jwt

from api.errors import Problem

log = logging.getLogger(__name__)

ALGORITHMS: Final = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
"""Signature algorithms accepted, each with the one type of key that it goes with."""
MAX_TOKEN: Final = 8192
MAX_KEYS_DOCUMENT: Final = 256 * 1024
FETCH_SECONDS: Final = 5.0
TENANT: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""What a tenant may be called: it is part of keys of rows and of names of secrets."""


class Scope(StrEnum):
    """What a token allows."""

    ENDPOINTS_READ = "endpoints:read"
    ENDPOINTS_WRITE = "endpoints:write"
    FLOWS_READ = "flows:read"
    FLOWS_WRITE = "flows:write"
    TRANSFERS_READ = "transfers:read"
    TRANSFERS_WRITE = "transfers:write"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    OPERATOR = "operator"
    """For what concerns all tenants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """Which tokens count."""

    issuer: str
    audience: str
    jwks: str
    """Where the issuer's keys are (RFC 7517): an https address (http on loopback only), or a file."""
    leeway: timedelta = timedelta(seconds=30)
    """How far the issuer's clock may be off."""
    cache: timedelta = timedelta(minutes=10)
    refresh: timedelta = timedelta(seconds=30)
    """Least pause between two looks at the keys for the sake of an unknown key id."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.jwks)
        if parts.scheme == "http" and not _loopback(parts.hostname or ""):
            msg = "the keys' address must be https: whoever can change them in transit can be anybody"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified token's bearer."""

    tenant: str
    subject: str
    scopes: frozenset[str]

    def must_have(self, scope: Scope) -> None:
        """Returns if the token allows it.

        Raises:
            Problem: 403 `scope_missing`.
        """
        if scope not in self.scopes:
            challenge = f'Bearer realm="eft", error="insufficient_scope", scope="{scope}"'
            raise Problem(
                f"The token lacks the scope {scope}; ask its issuer for one that has it.",
                status=HTTPStatus.FORBIDDEN,
                reason="scope_missing",
                headers={"WWW-Authenticate": challenge},
            )


class KeySet:
    """The issuer's public keys: fetched when first needed, cached, looked up anew for an unknown key id but not often.

    When the issuer cannot be reached, the keys known so far go on counting; a look-up delays no request whose key is known.
    """

    def __init__(self, settings: AuthSettings, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._keys: dict[str, jwt.PyJWK] = {}
        self._loaded: float | None = None
        self._tried: float | None = None
        self._turn = threading.Lock()

    def key(self, kid: str) -> jwt.PyJWK | None:
        """Returns the key of an id, or None where the issuer has none.

        Raises:
            Problem: 503 `keys_unavailable` as long as no keys were ever read.
        """
        stale = self._loaded is None or self._monotonic() - self._loaded > self._settings.cache.total_seconds()
        if stale or kid not in self._keys:
            self._look_again()
        if self._loaded is None:
            raise Problem(
                "The keys that tokens are checked with cannot be read at present; try again.",
                status=HTTPStatus.SERVICE_UNAVAILABLE,
                reason="keys_unavailable",
                headers={"Retry-After": "5"},
            )
        return self._keys.get(kid)

    def ready(self) -> bool:
        """Returns whether any token can be checked."""
        if self._loaded is None:
            self._look_again()
        return self._loaded is not None

    def _look_again(self) -> None:
        # Whoever comes second waits only while there are no keys at all.
        if not self._turn.acquire(blocking=self._loaded is None):
            return
        try:
            now = self._monotonic()
            if self._tried is not None and now - self._tried < self._pause():
                return
            self._tried = now
            self._keys = _usable(self._read())
            self._loaded = now
        except (OSError, httpx.HTTPError, ValueError) as error:
            log.warning("the token issuer's keys cannot be read: %s", type(error).__name__)
        finally:
            self._turn.release()

    def _pause(self) -> float:
        return self._settings.refresh.total_seconds() if self._loaded is not None else 1.0

    def _read(self) -> object:
        where = self._settings.jwks
        if urlsplit(where).scheme in {"http", "https"}:
            with httpx.stream("GET", where, timeout=FETCH_SECONDS, follow_redirects=False) as reply:
                reply.raise_for_status()
                text = b""
                for chunk in reply.iter_bytes():
                    text += chunk
                    if len(text) > MAX_KEYS_DOCUMENT:
                        msg = "the keys' document is too large"
                        raise ValueError(msg)
        else:
            text = Path(where.removeprefix("file://")).read_bytes()
        return json.loads(text)


class Verifier:
    """Turns an Authorization header into a Caller, or refuses it."""

    def __init__(self, settings: AuthSettings, keys: KeySet | None = None) -> None:
        self._settings = settings
        self.keys = keys or KeySet(settings)

    def caller(self, authorization: str | None) -> Caller:
        """Returns who calls.

        Raises:
            Problem: 401 `token_missing`, `token_invalid`, `token_expired`; 403 `tenant_missing`; 503 `keys_unavailable`.
        """
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Problem(
                "Send a token: Authorization: Bearer <token>.",
                status=HTTPStatus.UNAUTHORIZED,
                reason="token_missing",
                headers={"WWW-Authenticate": 'Bearer realm="eft"'},
            )
        claims = self._claims(token)
        tenant = claims.get("tenant")
        if not isinstance(tenant, str) or not TENANT.fullmatch(tenant):
            raise Problem(
                "The token names no tenant: its claim 'tenant' is missing, or not of lower-case letters, digits and hyphens.",
                status=HTTPStatus.FORBIDDEN,
                reason="tenant_missing",
            )
        subject = claims.get("sub") or claims.get("client_id") or "unnamed"
        return Caller(tenant=tenant, subject=str(subject)[:200], scopes=_scopes(claims.get("scope")))

    def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > MAX_TOKEN:
            raise _refused(f"it is longer than {MAX_TOKEN} characters")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise _refused("it is no JWT") from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise _refused(f"it is not signed with one of {', '.join(ALGORITHMS)}")
        if not isinstance(kid, str) or "crit" in header:
            raise _refused("its header has no key id (kid), or a 'crit' that is not understood")
        key = self.keys.key(kid)
        if key is None or key.key_type != ALGORITHMS[algorithm] or key.algorithm_name != algorithm:
            raise _refused("its issuer has no such key")
        return self._decoded(token, key)

    def _decoded(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=self._settings.leeway,
                options={"require": ["exp", "iss", "aud"], "enforce_minimum_key_length": True},
            )
        except jwt.ExpiredSignatureError:
            raise _refused("it has expired", reason="token_expired") from None
        except jwt.ImmatureSignatureError:
            raise _refused("it is not valid yet") from None
        except jwt.InvalidAudienceError:
            raise _refused("it is for another audience") from None
        except jwt.InvalidIssuerError:
            raise _refused("it is of another issuer") from None
        except jwt.MissingRequiredClaimError as error:
            raise _refused(f"it lacks the claim {error.claim}") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise _refused("it does not verify") from None
        return claims


def _refused(why: str, *, reason: str = "token_invalid") -> Problem:
    return Problem(
        f"The token is refused: {why}.",
        status=HTTPStatus.UNAUTHORIZED,
        reason=reason,
        headers={"WWW-Authenticate": f'Bearer realm="eft", error="invalid_token", error_description="{why}"'},
    )


def _scopes(claim: object) -> frozenset[str]:
    """Returns the scopes of a claim: a text with blanks between (RFC 8693, section 4.2), or a list, as some issuers write it."""
    if isinstance(claim, str):
        return frozenset(claim.split())
    if isinstance(claim, list):
        return frozenset(entry for entry in claim if isinstance(entry, str))
    return frozenset()


def _usable(document: object) -> dict[str, jwt.PyJWK]:
    """Returns the signature keys of a JWKS by id; keys for other uses, secret or symmetric ones are left out.

    Raises:
        ValueError: none is left, so that the keys known before go on counting.
    """
    listed = document.get("keys") if isinstance(document, dict) else None
    keys: dict[str, jwt.PyJWK] = {}
    for entry in listed if isinstance(listed, list) else []:
        if not isinstance(entry, dict) or entry.get("kty") not in ALGORITHMS.values() or "d" in entry:
            continue
        if entry.get("use", "sig") != "sig" or not isinstance(entry.get("kid"), str):
            continue
        try:
            keys[entry["kid"]] = jwt.PyJWK(entry)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
    if not keys:
        msg = "the document holds no key that can be used"
        raise ValueError(msg)
    return keys


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
