"""What botocore's errors become, by type and code."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    InvalidRegionError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ResponseStreamingError,
)

from eft.adapters.aws import Role, StaticKeys
from eft.adapters.aws_errors import code_of, status_of, translate, translated
from eft.errors import EftError, NotFound, Permanent, Transient


def refused(code: str, *, status: int = 400, operation: str = "Call", headers: dict[str, str] | None = None, **more: object) -> ClientError:
    """An error that the service answered with."""
    answer = {"Error": {"Code": code, "Message": "said so"}, "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers or {}}}
    return ClientError(cast("Any", {**answer, **more}), operation)


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (refused("ProvisionedThroughputExceededException"), Transient, "throttled"),
        (refused("ThrottlingException"), Transient, "throttled"),
        (refused("KMS.ThrottlingException"), Transient, "throttled"),
        (refused("Unheard", status=429), Transient, "throttled"),
        (refused("TransactionConflictException"), Transient, "contended"),
        (refused("TransactionInProgressException"), Transient, "contended"),
        (refused("InternalServerError", status=500), Transient, "aws_unavailable"),
        (refused("Unheard", status=599), Transient, "aws_unavailable"),
        (refused("ExpiredTokenException"), Transient, "credential_expired"),
        (IncompleteReadError(actual_bytes=1, expected_bytes=2), Transient, "aws_unavailable"),
        (ResponseStreamingError(error=OSError("reset")), Transient, "aws_unavailable"),
        (PartialCredentialsError(provider="env", cred_var="key"), Permanent, "credential_missing"),
        (NoRegionError(), Permanent, "credential_missing"),
        (ParamValidationError(report="Bucket: hunter2"), Permanent, "request_invalid"),
        (InvalidRegionError(region_name="x y"), Permanent, "request_invalid"),
        (BotoCoreError(), Permanent, "aws_refused"),
        (refused("AccessDeniedException", status=400), Permanent, "access_denied"),
        (refused("404", status=404, operation="HeadBucket"), NotFound, "bucket_missing"),
        (refused("307", status=307), Permanent, "wrong_region"),
        (refused("KMS.NotFoundException"), Permanent, "kms_key_unusable"),
        (refused("ValidationException"), Permanent, "aws_refused"),
    ],
)
def test_each_error_has_its_class(error: ClientError | BotoCoreError, kind: type[EftError], reason: str) -> None:
    """An error of botocore's becomes ours by its type or code, and never shows what was sent."""
    ours = translate(error, "table 'ledger'")
    assert type(ours) is kind
    assert ours.reason == reason
    assert "table 'ledger'" in str(ours)
    assert "hunter2" not in str(ours)


@pytest.mark.parametrize(
    ("causes", "reason"),
    [
        (["None", "ThrottlingError"], "throttled"),
        (["TransactionConflict", "None"], "contended"),
        (["ConditionalCheckFailed"], "aws_refused"),
        ([], "aws_refused"),
    ],
)
def test_a_cancelled_transaction_is_judged_by_its_causes(causes: list[str], reason: str) -> None:
    """A transaction that was cancelled for a passing cause is worth another try; a failed condition is its caller's to read."""
    error = refused("TransactionCanceledException", CancellationReasons=[{"Code": cause} for cause in causes])
    assert translate(error, "x").reason == reason


@pytest.mark.parametrize(
    ("header", "pause"),
    [("3", timedelta(seconds=3)), ("999999", timedelta(hours=1)), ("soon", None), ("-1", None), ("", None), ("²", None)],
)
def test_only_a_sane_pause_is_kept(header: str, pause: timedelta | None) -> None:
    """Retry-After is taken in whole seconds, an hour at most, and what is no number is left out."""
    ours = translate(refused("SlowDown", headers={"retry-after": header}), "x")
    assert isinstance(ours, Transient)
    assert ours.retry_after == pause


def test_hostile_answers_are_shown_safely() -> None:
    """What a server says is shown in printable characters, and not at any length."""
    ours = translate(refused("\x1b[31mRED", Error={"Code": "\x1b[31mRED", "Message": "\x00" + "a" * 10_000}), "x")
    assert "\x1b" not in str(ours)
    assert "\x00" not in str(ours)
    assert len(str(ours)) < 1000


def test_a_refusal_of_one_request_blames_no_endpoint() -> None:
    """Only what concerns the endpoint as a whole names it, so that one odd file does not shut its breaker."""
    assert translate(refused("AccessDenied"), "x", endpoint="ep1").endpoint == "ep1"
    assert translate(refused("InvalidRequest"), "x", endpoint="ep1").endpoint is None
    assert translate(ParamValidationError(report=""), "x", endpoint="ep1").endpoint is None


def test_our_own_errors_pass() -> None:
    """An error that is ours already leaves the block as it is, and one that is nobody's too."""
    for error in (Permanent("ours", reason="r"), KeyError("a bug")):
        with pytest.raises(type(error)) as caught, translated("x"):
            raise error
        assert caught.value is error


def test_a_broken_socket_is_worth_another_try() -> None:
    """An error of the socket that botocore let through becomes ours."""
    with pytest.raises(Transient) as caught, translated("x", endpoint="ep1"):
        raise ConnectionResetError
    assert (caught.value.reason, caught.value.endpoint) == ("aws_unavailable", "ep1")


def test_codes_without_bodies() -> None:
    """An answer without a body has its status for a code."""
    bare = ClientError({"ResponseMetadata": {"HTTPStatusCode": 404}}, "HeadObject")  # type: ignore[typeddict-item]
    assert code_of(bare) == "404"
    assert status_of(ClientError({}, "x")) == 0


def test_keys_are_not_shown() -> None:
    """The repr of an access key shows its id alone."""
    shown = repr(StaticKeys("AKID", "hunter2", "token3")) + repr(Role("arn", "tenant"))
    assert "AKID" in shown
    assert "hunter2" not in shown
    assert "token3" not in shown
