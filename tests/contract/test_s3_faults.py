"""How S3 fails, and what each failure becomes: worth a retry, or a clear word on what to change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
    SSLError,
)
from moto import mock_aws

from deploy.local.servers import S3Server
from eft.adapters.aws import AwsSession
from eft.domain.fingerprint import Fingerprint, RemoteFile
from eft.domain.names import remote_path
from eft.domain.parts import MIN_PART_SIZE
from eft.errors import EftError, Permanent, Transient
from eft.ports import CommitOutcome
from tests.contract.buckets import MOTO_KEYS, REGION, Bucket, Scripted, new_bucket, refusal, seaweed_session, serving
from tests.contract.store_suite import content_of, mint, read, uploaded
from tests.servers import Aws

URL = "https://s3.example/bucket"


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    """A bucket of AWS, asked once for each call so that every failure is seen."""
    with mock_aws():
        yield new_bucket(AwsSession(region=REGION, keys=MOTO_KEYS, tries=1))


def impatient(aws: Aws) -> AwsSession:
    """A session on the emulator that asks once; where a fault is scripted there, the request is not made."""
    return AwsSession(region=aws.region, endpoint_url=aws.url, keys=MOTO_KEYS, tries=1)


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (refusal(503, "SlowDown"), Transient, "throttled"),
        (refusal(429, "TooManyRequests"), Transient, "throttled"),
        (refusal(500, "InternalError"), Transient, "aws_unavailable"),
        (refusal(503, "ServiceUnavailable"), Transient, "aws_unavailable"),
        (refusal(502, ""), Transient, "aws_unavailable"),
        (refusal(400, "RequestTimeout"), Transient, "aws_unavailable"),
        (refusal(400, "ExpiredToken"), Transient, "credential_expired"),
        (refusal(403, "RequestTimeTooSkewed"), Transient, "clock_skewed"),
        (EndpointConnectionError(endpoint_url=URL), Transient, "aws_unavailable"),
        (ConnectTimeoutError(endpoint_url=URL), Transient, "aws_unavailable"),
        (ReadTimeoutError(endpoint_url=URL), Transient, "aws_unavailable"),
        (ConnectionClosedError(endpoint_url=URL), Transient, "aws_unavailable"),
        (SSLError(endpoint_url=URL, error=OSError("certificate")), Transient, "aws_unavailable"),
        (CredentialRetrievalError(provider="task", error_msg="x"), Transient, "credential_unavailable"),
        (NoCredentialsError(), Permanent, "credential_missing"),
        (refusal(403, "AccessDenied"), Permanent, "access_denied"),
        (refusal(403, "InvalidAccessKeyId"), Permanent, "access_denied"),
        (refusal(403, "SignatureDoesNotMatch"), Permanent, "access_denied"),
        (refusal(404, "NoSuchBucket"), Permanent, "bucket_missing"),
        (refusal(400, "KMS.DisabledException"), Permanent, "kms_key_unusable"),
        (refusal(400, "Novelty"), Permanent, "aws_refused"),
    ],
)
def test_a_failed_listing(bucket: Bucket, answer: AWSResponse | Exception, kind: type[EftError], reason: str) -> None:
    """Each failure of a listing has its class, its reason and words for a customer."""
    with Scripted(bucket.session, "ListObjectsV2", [answer]), pytest.raises(kind) as error:
        list(bucket.store.list("", recursive=True))
    assert error.value.reason == reason
    assert bucket.name in str(error.value)
    assert MOTO_KEYS.secret_access_key not in str(error.value)


def test_a_busy_server_says_when_to_come_back(bucket: Bucket) -> None:
    """Retry-After is the least pause before the next try."""
    answer = refusal(503, "SlowDown", headers={"Retry-After": "17"})
    with Scripted(bucket.session, "ListObjectsV2", [answer]), pytest.raises(Transient) as error:
        list(bucket.store.list("", recursive=True))
    assert error.value.retry_after == timedelta(seconds=17)


def test_a_passing_fault_is_ridden_out() -> None:
    """A fault that passes within a few requests is never seen outside."""
    with mock_aws():
        bucket = new_bucket(AwsSession(region=REGION, keys=MOTO_KEYS, tries=2))
        bucket.put("a.csv", b"a")
        with Scripted(bucket.session, "HeadObject", [refusal(500, "")]) as script:
            assert bucket.store.stat(remote_path("a.csv")).size == 1
        assert script.met == 2


@pytest.mark.parametrize(
    "answer",
    [
        refusal(301, "PermanentRedirect", headers={"x-amz-bucket-region": "us-gov-east-1"}),
        refusal(400, "AuthorizationHeaderMalformed", extra="<Region>us-gov-east-1</Region>"),
        refusal(400, "IllegalLocationConstraintException", headers={"x-amz-bucket-region": "us-gov-east-1"}),
    ],
)
def test_the_wrong_region_names_the_right_one(bucket: Bucket, answer: AWSResponse) -> None:
    """A bucket in another region says which."""
    with Scripted(bucket.session, "ListObjectsV2", [answer] * 3), pytest.raises(Permanent) as error:
        list(bucket.store.list("", recursive=True))
    assert error.value.reason == "wrong_region"
    assert "us-gov-east-1" in str(error.value)


def test_an_unnamed_region_is_still_wrong(bucket: Bucket) -> None:
    """Where the server does not name the right region, the advice is to set it."""
    with Scripted(bucket.session, "ListObjectsV2", [refusal(301, "PermanentRedirect")] * 3), pytest.raises(Permanent) as error:
        list(bucket.store.list("", recursive=True))
    assert error.value.reason == "wrong_region"
    assert "set the bucket's own region" in str(error.value)


def test_a_look_that_fails_without_words_asks_again(bucket: Bucket) -> None:
    """An answer to HEAD has no body; the reason is fetched by GET, and an expired credential makes the session build itself anew."""
    bucket.put("a.csv", b"a")
    client = bucket.session.s3()
    with (
        Scripted(bucket.session, "HeadObject", [refusal(400, "")] * 2),
        Scripted(bucket.session, "GetObject", [refusal(400, "ExpiredToken")]),
        pytest.raises(Transient) as error,
    ):
        bucket.store.stat(remote_path("a.csv"))
    assert error.value.reason == "credential_expired"
    assert bucket.session.s3() is not client
    assert bucket.store.stat(remote_path("a.csv")).size == 1


def test_a_look_that_fails_for_no_reason_is_refused(bucket: Bucket) -> None:
    """A bad request that GET does not confirm is refused as what it was."""
    bucket.put("a.csv", b"a")
    with Scripted(bucket.session, "HeadObject", [refusal(400, "")] * 2), pytest.raises(Permanent) as error:
        bucket.store.stat(remote_path("a.csv"))
    assert error.value.reason == "aws_refused"


def test_a_denied_look_is_no_missing_file(bucket: Bucket) -> None:
    """A look that is denied does not say that a name is free."""
    with Scripted(bucket.session, "HeadObject", [refusal(403, "")]), pytest.raises(Permanent) as error:
        bucket.store.look(remote_path("a.csv"))
    assert error.value.reason == "access_denied"


def test_an_archived_source_says_what_to_do(bucket: Bucket) -> None:
    """A source in cold storage is to be restored first."""
    bucket.put("a.csv", b"a")
    file = bucket.store.stat(remote_path("a.csv"))
    with Scripted(bucket.session, "GetObject", [refusal(403, "InvalidObjectState")]), pytest.raises(Permanent) as error:
        read(bucket.store, file)
    assert error.value.reason == "source_archived"


@pytest.mark.parametrize(
    ("call", "operation"),
    [
        (lambda b, f: b.store.read(f, start=0, size=1), "GetObject"),
        (lambda b, f: b.store.read(f, start=0, size=0), "HeadObject"),
        (lambda b, f: b.store.whole(f.path, limit=1), "GetObject"),
        (lambda b, f: b.store.list("", recursive=True), "ListObjectsV2"),
        (lambda b, f: b.store.stale_uploads(before=f.modified), "ListMultipartUploads"),
        (lambda b, f: [b.store.remove_version(f)], "DeleteObject"),
        (lambda b, f: [b.store.copy_version(f, remote_path("old"))], "CopyObject"),
        (lambda b, f: [mint(b.store, "x", b"x")], "CreateMultipartUpload"),
        (lambda b, f: [b.store.verify(mint(b.store, "x", content_of(2 * MIN_PART_SIZE)))], "ListParts"),
        (lambda b, f: [b.store.token_exists("token", remote_path("x"))], "ListParts"),
        (lambda b, f: [b.store.consume(mint(b.store, "x", b"x").token, remote_path("x"))], "AbortMultipartUpload"),
        (lambda b, f: [uploaded(b.store, "x", b"x")], "UploadPart"),
        (lambda b, f: [b.store.commit(uploaded(b.store, "x", b"x")[1])], "CompleteMultipartUpload"),
    ],
)
def test_every_call_speaks_our_errors(bucket: Bucket, call: Callable[[Bucket, RemoteFile], Iterator[object]], operation: str) -> None:
    """Whatever call meets a failing server, what comes out is worth a retry and names the endpoint."""
    bucket.put("a.csv", b"a")
    file = bucket.store.stat(remote_path("a.csv"))
    with Scripted(bucket.session, operation, [refusal(500, "InternalError")]), pytest.raises(Transient) as error:
        list(call(bucket, file))
    assert (error.value.reason, error.value.endpoint) == ("aws_unavailable", "ep1")


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (refusal(412, "PreconditionFailed"), CommitOutcome.EXISTS),
        (refusal(404, "NoSuchUpload"), CommitOutcome.TOKEN_GONE),
        (refusal(400, "InvalidPart"), CommitOutcome.PART_DIFFERS),
        (refusal(400, "InvalidPartOrder"), CommitOutcome.PART_DIFFERS),
        (refusal(400, "BadDigest"), CommitOutcome.PART_DIFFERS),
    ],
)
def test_refused_completions_are_outcomes(bucket: Bucket, answer: AWSResponse, outcome: CommitOutcome) -> None:
    """What AWS says about a completion is an outcome where it decides something."""
    _, commit = uploaded(bucket.store, "a.bin", b"content")
    with Scripted(bucket.session, "CompleteMultipartUpload", [answer]):
        assert bucket.store.commit(commit).outcome is outcome


@pytest.mark.parametrize("code", ["ConditionalRequestConflict", "OperationAborted"])
def test_a_conflicting_completion_decides_nothing(bucket: Bucket, code: str) -> None:
    """A 409 is tried again with the same token."""
    _, commit = uploaded(bucket.store, "a.bin", b"content")
    with Scripted(bucket.session, "CompleteMultipartUpload", [refusal(409, code)]), pytest.raises(Transient) as error:
        bucket.store.commit(commit)
    assert error.value.reason == "conditional_conflict"
    assert bucket.store.commit(commit).outcome is CommitOutcome.DONE


def test_an_error_under_a_200_is_an_error(aws: Aws) -> None:
    """S3 sends 200 before a completion has succeeded; an error in the body counts."""
    bucket = new_bucket(impatient(aws))
    _, commit = uploaded(bucket.store, "a.bin", b"content")
    with Scripted(bucket.session, "CompleteMultipartUpload", [refusal(200, "InternalError")]), pytest.raises(Transient) as error:
        bucket.store.commit(commit)
    assert error.value.reason == "aws_unavailable"
    assert bucket.get("a.bin") is None


def test_an_abort_that_does_nothing_is_noticed(aws: Aws) -> None:
    """A server that takes an abort and keeps the upload is not believed."""
    bucket = new_bucket(impatient(aws))
    upload = mint(bucket.store, "a.bin", b"content")
    with Scripted(bucket.session, "AbortMultipartUpload", [refusal(204, "")]), pytest.raises(Transient) as error:
        bucket.store.consume(upload.token, upload.path)
    assert error.value.reason == "token_remains"
    assert bucket.store.consume(upload.token, upload.path) is True


def test_an_abort_that_comes_too_late_consumes_nothing(bucket: Bucket) -> None:
    """An upload that vanished between the look and the abort was consumed by somebody else."""
    upload = mint(bucket.store, "a.bin", b"content")
    with Scripted(bucket.session, "AbortMultipartUpload", [refusal(404, "NoSuchUpload")]):
        assert bucket.store.consume(upload.token, upload.path) is False


def test_a_store_that_refuses_checksums_gets_none(seaweed: S3Server) -> None:
    """A compatible store that does not know CRC64NVME is used without it, by every process."""
    bucket = new_bucket(seaweed_session(seaweed))
    with Scripted(bucket.session, "CreateMultipartUpload", [refusal(400, "InvalidArgument")]):
        _, commit = uploaded(bucket.store, "a.bin", b"content")
    assert bucket.session.capabilities == {"CRC64NVME": False}
    assert bucket.store.commit(commit).outcome is CommitOutcome.DONE
    assert bucket.get("a.bin") == b"content"


def test_aws_does_not_lose_its_checksums_by_one_refusal(bucket: Bucket) -> None:
    """AWS itself always judges checksums: a refused request there is an error."""
    with Scripted(bucket.session, "CreateMultipartUpload", [refusal(400, "InvalidArgument")]), pytest.raises(Permanent) as error:
        mint(bucket.store, "a.bin", b"content")
    assert error.value.reason == "aws_refused"


# -- answers that break off ---------------------------------------------------------------------------------------------


@contextmanager
def answering(status: int, headers: dict[str, str], body: bytes) -> Iterator[Bucket]:
    """A bucket whose server answers everything with this and hangs up."""
    with serving(status, headers, body) as url:
        yield Bucket(AwsSession(region=REGION, endpoint_url=url, keys=MOTO_KEYS, tries=1), "b")


ENTRY = "<Key>{key}</Key><Size>{size}</Size><LastModified>{at}</LastModified><ETag>e</ETag>"


@pytest.mark.parametrize(
    "entry",
    [
        "<Key>a</Key>",
        ENTRY.format(key="a", size="x", at="2026-01-01T00:00:00Z"),
        ENTRY.format(key="a", size="-1", at="2026-01-01T00:00:00Z"),
        ENTRY.format(key="a", size="1", at="soon"),
    ],
)
def test_a_listing_that_makes_no_sense_is_the_stores_fault(entry: str) -> None:
    """What a store says of its objects and cannot be, is worth another try, and counts against its endpoint."""
    body = f"<ListBucketResult><Contents>{entry}</Contents></ListBucketResult>".encode()
    headers = {"Content-Type": "application/xml", "Content-Length": str(len(body))}
    with answering(200, headers, body) as bucket, pytest.raises(Transient) as error:
        list(bucket.store.list("", recursive=True))
    assert (error.value.reason, error.value.endpoint) == ("answer_malformed", "ep1")


def test_what_is_listed_without_a_key_is_nothing() -> None:
    """An entry without a key is no file."""
    body = b"<ListBucketResult><Contents><Size>5</Size></Contents></ListBucketResult>"
    with answering(200, {"Content-Type": "application/xml", "Content-Length": str(len(body))}, body) as bucket:
        assert list(bucket.store.list("", recursive=True)) == []


@pytest.mark.parametrize("wrong", [{"ETag": None}, {"Last-Modified": None}, {"Last-Modified": "soon"}, {"Content-Length": "x"}])
def test_headers_that_make_no_sense_are_the_stores_fault(wrong: dict[str, str | None]) -> None:
    """An object whose headers lack what tells its version, or hold what cannot be, is worth another try."""
    right = {"Content-Length": "3", "Last-Modified": "Sun, 29 Nov 2026 11:00:00 GMT", "ETag": '"e"'}
    headers = {name: value for name, value in {**right, **wrong}.items() if value is not None}
    with answering(200, headers, b"") as bucket, pytest.raises(Transient) as error:
        bucket.store.stat(remote_path("a.bin"))
    assert (error.value.reason, error.value.endpoint) == ("answer_malformed", "ep1")


def a_file(size: int) -> RemoteFile:
    """A pinned file."""
    return RemoteFile(path=remote_path("a.bin"), fingerprint=Fingerprint(size=size, etag="e"))


@pytest.mark.parametrize("sent", [0, 1, 1_500_000, 2_999_999])
def test_a_body_cut_short_is_never_taken_for_the_whole(sent: int) -> None:
    """A connection that ends in the middle of a body is an error, after the bytes that came."""
    content = content_of(3_000_000)
    headers = {"Content-Length": "3000000", "Content-Range": "bytes 0-2999999/3000000", "ETag": '"e"'}
    with answering(206, headers, content[:sent]) as bucket:
        got = bytearray()
        chunks = bucket.store.read(a_file(3_000_000), start=0, size=3_000_000)
        with pytest.raises(Transient) as error:
            got.extend(byte for chunk in chunks for byte in chunk)
    assert error.value.reason == "aws_unavailable"
    assert error.value.endpoint == "ep1"
    assert content.startswith(bytes(got))


def test_a_body_of_unknown_length_is_counted() -> None:
    """A server that tells no length is held to the range that it promised, and asked for no more than that."""
    headers = {"Content-Range": "bytes 0-9/10", "ETag": '"e"'}
    with answering(206, headers, b"01234") as bucket, pytest.raises(Transient) as error:
        list(bucket.store.read(a_file(10), start=0, size=10))
    assert error.value.reason == "aws_unavailable"
    with answering(206, headers, b"0123456789") as bucket:
        assert read(bucket.store, a_file(10)) == b"0123456789"


def test_a_shorter_range_is_a_changed_source() -> None:
    """A server that has less than the range asked for has another version."""
    headers = {"Content-Length": "3", "Content-Range": "bytes 5-7/8", "ETag": '"e"'}
    with answering(206, headers, b"abc") as bucket, pytest.raises(Permanent) as error:
        list(bucket.store.read(a_file(10), start=5, size=5))
    assert error.value.reason == "source_changed"


def test_a_server_without_ranges_is_refused_for_parts() -> None:
    """A server that ignores Range serves whole files, and is refused where a part of one is wanted."""
    headers = {"Content-Length": "10", "ETag": '"e"'}
    with answering(200, headers, b"0123456789") as bucket:
        assert read(bucket.store, a_file(10)) == b"0123456789"
        with pytest.raises(Permanent) as error:
            list(bucket.store.read(a_file(10), start=5, size=5))
        assert error.value.reason == "ranges_missing"
        with pytest.raises(Permanent) as error:
            list(bucket.store.read(a_file(10), start=0, size=5, until=10))
    assert error.value.reason == "ranges_missing"


def test_a_server_may_send_less_than_was_asked_for_ahead() -> None:
    """What is read now is there; the rest is asked for when its turn comes. No less, and not another range."""
    headers = {"Content-Length": "6", "Content-Range": "bytes 2-7/10", "ETag": '"e"'}
    with answering(206, headers, b"234567") as bucket:
        store = bucket.store
        assert b"".join(store.read(a_file(10), start=2, size=4, until=10)) == b"2345"
        assert b"".join(store.read(a_file(10), start=6, size=2, until=10)) == b"67"
        for start, size in ((2, 7), (1, 4), (3, 4)):
            with pytest.raises(Permanent) as error:
                list(store.read(a_file(10), start=start, size=size, until=10))
            assert error.value.reason == "source_changed"


def test_nothing_listens() -> None:
    """An address where nothing listens is worth another try, and the message shows no key."""
    with answering(200, {}, b"") as bucket:
        pass
    with pytest.raises(Transient) as error:
        bucket.store.stat(remote_path("a.csv"))
    assert error.value.reason == "aws_unavailable"
    assert MOTO_KEYS.secret_access_key not in str(error.value)
