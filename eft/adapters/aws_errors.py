"""The one translator of botocore's errors into ours, by their type or code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, Protocol, cast

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
    ValidationError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from eft.domain.names import display
from eft.errors import EftError, NotFound, Permanent, Transient

_THROTTLED: Final = frozenset(
    {
        "BandwidthLimitExceeded",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceeded",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottledException",
        "ThrottlingError",
        "ThrottlingException",
        "KMS.ThrottlingException",
        "TooManyRequestsException",
    }
)
_CONTENDED: Final = frozenset({"TransactionConflict", "TransactionConflictException", "TransactionInProgressException"})
_UNAVAILABLE: Final = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "InternalServiceError",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
    }
)
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"})
_DENIED: Final = frozenset(
    {
        "401",
        "403",
        "AccessDenied",
        "AccessDeniedException",
        "AccountProblem",
        "AllAccessDisabled",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "MissingAuthenticationToken",
        "NotSignedUp",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
    }
)
_WRONG_REGION: Final = frozenset(
    {
        "301",
        "307",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "PermanentRedirect",
        "Redirect",
    }
)
_NETWORK: Final = (BotoConnectionError, HTTPClientError, IncompleteReadError, ReadTimeoutError)
_SERVER_ERROR: Final = 500
_TOO_MANY: Final = 429


class Renewable(Protocol):
    """A session whose credential may expire."""

    def renew(self) -> None:
        """Drops clients and credentials; the next call builds them anew."""


@contextmanager
def translated(what: str, *, endpoint: str | None = None, session: Renewable | None = None) -> Iterator[None]:
    """Raises `eft.errors` in place of whatever botocore raises in the block.

    `what` names the thing asked for, in words for a customer (`bucket 'in'`, `the ledger's table`); `endpoint` is whose
    circuit breaker counts the error. An expired credential makes the `session` build itself anew.
    """
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        ours = translate(error, what, endpoint=endpoint)
        if session is not None and ours.reason == "credential_expired":
            session.renew()
        raise ours from error
    except OSError as error:
        # urllib3 lets a few errors of the socket through while a body is streamed.
        raise _unavailable(what, type(error).__name__, endpoint=endpoint) from error


def translate(error: ClientError | BotoCoreError, what: str, *, endpoint: str | None = None) -> EftError:
    """Returns our error for botocore's, by its type or code."""
    if isinstance(error, ClientError):
        return _translate_response(error, what, endpoint=endpoint)
    if isinstance(error, _NETWORK):
        return _unavailable(what, type(error).__name__, endpoint=endpoint)
    if isinstance(error, CredentialRetrievalError):
        return Transient(
            f"no credential could be fetched for {what}; it is tried again",
            reason="credential_unavailable",
            endpoint=endpoint,
        )
    if isinstance(error, NoCredentialsError | PartialCredentialsError | NoRegionError):
        return Permanent(
            f"there is no complete credential for {what}; give the endpoint a credential or the engine a role",
            reason="credential_missing",
            endpoint=endpoint,
        )
    if isinstance(error, ParamValidationError | ValidationError):
        return Permanent(f"a value for {what} is not one that AWS accepts", reason="request_invalid")
    return Permanent(f"{what} cannot be used: {type(error).__name__}", reason="aws_refused", endpoint=endpoint)


def code_of(error: ClientError) -> str:
    """Returns the vendor's error code; the HTTP status for answers without a body, such as those to HEAD."""
    return str(error.response.get("Error", {}).get("Code") or status_of(error))


def status_of(error: ClientError) -> int:
    """Returns the HTTP status, 0 where there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def _translate_response(error: ClientError, what: str, *, endpoint: str | None) -> EftError:
    code, status = code_of(error), status_of(error)
    if code == "TransactionCanceledException":
        code = _cause_of_cancellation(error) or code
    if code in _THROTTLED or status == _TOO_MANY:
        return Transient(
            f"{what}: AWS asks to slow down ({code})",
            reason="throttled",
            endpoint=endpoint,
            retry_after=_retry_after(error),
        )
    if code in _CONTENDED:
        return Transient(f"{what}: another write was under way ({code})", reason="contended", endpoint=endpoint)
    if code in _EXPIRED:
        return Transient(
            f"the credential for {what} has expired; if this stays, rotate it",
            reason="credential_expired",
            endpoint=endpoint,
        )
    if code in _UNAVAILABLE or status >= _SERVER_ERROR:
        return _unavailable(what, f"{status} {code}", endpoint=endpoint, retry_after=_retry_after(error))
    if code == "RequestTimeTooSkewed":
        return Transient(f"{what}: this machine's clock and the server's differ too much", reason="clock_skewed", endpoint=endpoint)
    return _translate_refusal(error, what, code=code, status=status, endpoint=endpoint)


def _translate_refusal(error: ClientError, what: str, *, code: str, status: int, endpoint: str | None) -> EftError:
    if code in _DENIED:
        where = "assuming the role" if error.operation_name == "AssumeRole" else error.operation_name
        return Permanent(
            f"access to {what} is denied ({where}: {code}); check the credential and its policy",
            reason="access_denied",
            endpoint=endpoint,
        )
    # An answer to HeadBucket has no body, hence no code but the status.
    if code == "NoSuchBucket" or (code == "404" and error.operation_name == "HeadBucket"):
        return NotFound(f"{what} does not exist; check the bucket's name", reason="bucket_missing", endpoint=endpoint)
    if code in _WRONG_REGION or status in {301, 307}:
        right = _right_region(error)
        advice = f"it is in {right}: set that region" if right else "set the bucket's own region"
        return Permanent(f"{what} is not in the endpoint's region; {advice}", reason="wrong_region", endpoint=endpoint)
    if code.startswith("KMS."):
        return Permanent(
            f"the KMS key of {what} cannot be used ({code}); check that it is enabled and that its policy allows this",
            reason="kms_key_unusable",
            endpoint=endpoint,
        )
    said = display(str(error.response.get("Error", {}).get("Message", "")))
    return Permanent(f"{what} refuses {error.operation_name}: {display(code)}: {said}", reason="aws_refused")


def _unavailable(what: str, cause: str, *, endpoint: str | None, retry_after: timedelta | None = None) -> Transient:
    return Transient(
        f"{what} does not answer as it should ({display(cause)}); it is tried again",
        reason="aws_unavailable",
        endpoint=endpoint,
        retry_after=retry_after,
    )


def _cause_of_cancellation(error: ClientError) -> str | None:
    """Returns the first transient cause of a cancelled transaction; a failed condition is the caller's to read."""
    causes = cast("list[Mapping[str, Any]]", error.response.get("CancellationReasons", []))
    return next((str(c["Code"]) for c in causes if c.get("Code") in _THROTTLED | _CONTENDED), None)


def _retry_after(error: ClientError) -> timedelta | None:
    """Returns the Retry-After header in seconds (RFC 9110, 10.2.3), at most an hour; dates are not used by AWS."""
    text = _headers(error).get("retry-after", "")
    return timedelta(seconds=min(int(text), 3600)) if text.isascii() and text.isdigit() else None


def _right_region(error: ClientError) -> str | None:
    said = cast("Mapping[str, Any]", error.response.get("Error", {})).get("Region")
    region = _headers(error).get("x-amz-bucket-region") or said
    return display(str(region))[:32] if region else None


def _headers(error: ClientError) -> Mapping[str, str]:
    return error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
