"""Small objects read at once: by one request of one version; and what each failure and odd answer becomes, whichever way it is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from botocore.awsrequest import AWSResponse
from moto import mock_aws

from eft.adapters.aws import AwsSession
from eft.adapters.aws_connection import Connection
from eft.adapters.aws_http import Connections
from eft.adapters.s3.direct import NO_BYTES, S3Direct
from eft.domain.names import remote_path
from eft.errors import EftError, NotFound, Permanent, Transient
from eft.ports import CommitOutcome
from tests.contract.buckets import (
    MOTO_KEYS,
    REGION,
    Bucket,
    Scripted,
    emulator_session,
    new_bucket,
    refusal,
    seaweed_session,
    serving,
)
from tests.contract.store_suite import TRANSFER, content_of, uploaded
from tests.servers import Aws

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest

PATH = remote_path("in/a.csv")
HEAD = {"Last-Modified": "Sun, 29 Nov 2026 11:00:00 GMT", "ETag": '"e"'}
both = pytest.mark.parametrize("tries", [1, 3], ids=["boto3", "direct"])


@pytest.fixture(params=["boto3", "direct", "seaweed"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    """A prefix of a bucket that keeps versions, asked by boto3 and the short way; and one on a store of another make."""
    if request.param == "seaweed":
        return new_bucket(seaweed_session(request.getfixturevalue("seaweed")), prefix="p")
    session = emulator_session(request.getfixturevalue("aws"))
    session.tries = 1 if request.param == "boto3" else 3
    return new_bucket(session, prefix="p", versioned=True)


@pytest.fixture
def moto() -> Iterator[Bucket]:
    """A bucket of AWS, asked once for each call so that every failure is seen."""
    with mock_aws():
        yield new_bucket(AwsSession(region=REGION, keys=MOTO_KEYS, tries=1))


@contextmanager
def counted(session: AwsSession) -> Iterator[Counter[str]]:
    """Counts the requests to S3 in the block, by operation."""
    found: Counter[str] = Counter()

    def note(event_name: str, **_: object) -> None:
        found[event_name.rpartition(".")[2]] += 1

    events: Any = session.s3().meta.events
    events.register("before-send.s3", note)
    try:
        yield found
    finally:
        events.unregister("before-send.s3", note)


@contextmanager
def answering(status: int, headers: dict[str, str], body: bytes, *, tries: int) -> Iterator[Bucket]:
    """A bucket whose server answers everything with this and hangs up."""
    with serving(status, headers, body) as url:
        yield Bucket(AwsSession(region=REGION, endpoint_url=url, keys=MOTO_KEYS, tries=tries), "b")


def whole(bucket: Bucket, *, limit: int = 1_000_000, version: str | None = None) -> bytes:
    """Returns the file's bytes."""
    return b"".join(bucket.store.whole(PATH, limit=limit, version=version)[1])


# -- one request ---------------------------------------------------------------------------------------------------------


def test_one_request_tells_everything(bucket: Bucket) -> None:
    """One GET gives what a look gives (size, time, etag, version, the transfer that wrote it), and the bytes."""
    content = content_of(10_240)
    _, commit = uploaded(bucket.store, "in/a.csv", content)
    assert bucket.store.commit(commit).outcome is CommitOutcome.DONE
    with counted(bucket.session) as requests:
        file, chunks = bucket.store.whole(PATH, limit=10_240)
    assert requests == {"GetObject": 1}
    assert b"".join(chunks) == content
    assert file == bucket.store.stat(PATH)
    assert file.transfer == TRANSFER
    assert (file.fingerprint.version is not None) == bucket.keeps_versions


def test_a_larger_object_costs_one_request_and_no_bytes(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an object larger than the limit the body is not read."""
    bucket.put("in/a.csv", content_of(10_241))
    monkeypatch.setattr("eft.adapters.s3.source.BUFFERS", None)
    with counted(bucket.session) as requests:
        file, chunks = bucket.store.whole(PATH, limit=10_240)
    assert (requests, chunks) == ({"GetObject": 1}, [])
    assert file.size == 10_241


def test_no_more_than_the_limit_is_asked_for(bucket: Bucket) -> None:
    """A store that serves ranges is asked for as many bytes as could be wanted."""
    asked: list[str] = []

    def note(request: AWSPreparedRequest, **_: object) -> None:
        said = request.headers["Range"]
        asked.append(said.decode() if isinstance(said, bytes) else said)

    bucket.put("in/a.csv", b"0123456789")
    bucket.session.s3().meta.events.register("before-send.s3.GetObject", note)
    assert whole(bucket, limit=10) == b"0123456789"
    assert whole(bucket, limit=0) == b""
    assert asked == ["bytes=0-9", "bytes=0-0"]


def test_an_empty_object_costs_a_look_more(bucket: Bucket) -> None:
    """A store that refuses a range of nothing is asked for a look."""
    bucket.put("in/a.csv", b"")
    with counted(bucket.session) as requests:
        file, chunks = bucket.store.whole(PATH, limit=10)
    assert (file, chunks) == (bucket.store.stat(PATH), [])
    assert (requests["GetObject"], requests["HeadObject"] <= 1, requests.total() <= 2) == (1, True, True)


def test_an_empty_object_costs_no_connection(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection over which a range of nothing was refused serves on."""
    bucket = new_bucket(emulator_session(aws))
    bucket.put("in/a.csv", b"")
    connected = Connections._connected
    made: list[str] = []

    def connect(self: Connections, origin: str) -> Connection:
        made.append(origin)
        return connected(self, origin)

    monkeypatch.setattr(Connections, "_connected", connect)
    for _ in range(5):
        assert whole(bucket) == b""
    assert len(made) == 1


def test_an_object_that_was_empty_when_it_was_asked_for_is_read(moto: Bucket) -> None:
    """Written between a refused range and the look, it is read as the look has it."""
    moto.put("in/a.csv", b"content")
    with Scripted(moto.session, "GetObject", [refusal(416, "InvalidRange")]):
        assert whole(moto) == b"content"
    with Scripted(moto.session, "GetObject", [refusal(416, "InvalidRange")]):
        file, chunks = moto.store.whole(PATH, limit=6)
    assert (file, chunks) == (moto.store.stat(PATH), [])


# -- versions ------------------------------------------------------------------------------------------------------------


@both
def test_a_version_is_read_by_its_id(aws: Aws, tries: int) -> None:
    """Though another one stands under the name, or none; one that is gone is `source_missing`, as for a look."""
    session = emulator_session(aws)
    session.tries = tries
    bucket = new_bucket(session, versioned=True)
    bucket.put("in/a.csv", b"one")
    first = bucket.store.stat(PATH)
    version = first.fingerprint.version
    bucket.put("in/a.csv", b"two, longer")
    bucket.remove("in/a.csv")
    with counted(session) as requests:
        file, chunks = bucket.store.whole(PATH, limit=100, version=version)
    assert (requests, file, b"".join(chunks)) == ({"GetObject": 1}, first, b"one")
    bucket.s3.delete_object(Bucket=bucket.name, Key="in/a.csv", VersionId=version or "")
    for gone in (version, None):
        with pytest.raises(NotFound) as error:
            whole(bucket, version=gone)
        assert error.value.reason == "source_missing"


def test_a_suspended_version_pins_nothing(aws: Aws) -> None:
    """The version `null` is overwritten in place: it is no version."""
    bucket = new_bucket(emulator_session(aws), versioned=True)
    bucket.s3.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Suspended"})
    bucket.put("in/a.csv", b"one")
    assert bucket.store.whole(PATH, limit=10)[0].fingerprint.version is None
    with pytest.raises(NotFound) as error:
        whole(bucket, version="null")
    assert error.value.reason == "source_missing"


@both
def test_a_store_that_ignores_versions_does_not_serve_them(tries: int) -> None:
    """An answer of another version than was asked for is none."""
    body = b"<ListBucketResult/>"
    length = len(body)
    headers = {**HEAD, "Content-Length": f"{length}", "Content-Range": f"bytes 0-{length - 1}/{length}", "x-amz-version-id": "another"}
    with answering(206, headers, body, tries=tries) as bucket:
        assert whole(bucket, version="another") == body
        with pytest.raises(NotFound) as error:
            whole(bucket, version="mine")
    assert error.value.reason == "source_missing"


# -- refusals ------------------------------------------------------------------------------------------------------------


def test_a_missing_bucket_is_no_missing_file(bucket: Bucket) -> None:
    """It is called by its name."""
    with pytest.raises(NotFound) as error:
        Bucket(bucket.session, "contract-no-such-bucket").store.whole(PATH, limit=10)
    assert error.value.reason == "bucket_missing"


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (refusal(404, "NoSuchKey"), NotFound, "source_missing"),
        (refusal(404, "NoSuchVersion"), NotFound, "source_missing"),
        (refusal(405, "MethodNotAllowed"), NotFound, "source_missing"),
        (refusal(404, "NoSuchBucket"), NotFound, "bucket_missing"),
        (refusal(403, "AccessDenied"), Permanent, "access_denied"),
        (refusal(403, "InvalidObjectState"), Permanent, "source_archived"),
        (refusal(400, "ExpiredToken"), Transient, "credential_expired"),
        (refusal(503, "SlowDown"), Transient, "throttled"),
        (refusal(500, "InternalError"), Transient, "aws_unavailable"),
    ],
)
def test_each_refusal_is_judged(moto: Bucket, answer: AWSResponse, kind: type[EftError], reason: str) -> None:
    """As a look or a read judges it."""
    moto.put("in/a.csv", b"content")
    with Scripted(moto.session, "GetObject", [answer]), pytest.raises(kind) as error:
        whole(moto)
    assert error.value.reason == reason


def test_a_passing_fault_is_ridden_out() -> None:
    """What the short way meets is left to boto3."""
    with mock_aws():
        bucket = new_bucket(AwsSession(region=REGION, keys=MOTO_KEYS, tries=2))
        bucket.put("in/a.csv", b"content")
        with Scripted(bucket.session, "GetObject", [ConnectionResetError()]) as script:
            assert whole(bucket) == b"content"
        assert script.met == 2


# -- odd answers ---------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("sent", [0, 1, 1_500_000, 2_999_999])
def test_a_body_cut_short_is_never_taken_for_the_whole(tries: int, sent: int) -> None:
    """A connection that ends in the middle of a body is worth another try."""
    headers = {**HEAD, "Content-Length": "3000000", "Content-Range": "bytes 0-2999999/3000000"}
    with answering(206, headers, content_of(3_000_000)[:sent], tries=tries) as bucket, pytest.raises(Transient) as error:
        whole(bucket, limit=3_000_000)
    assert (error.value.reason, error.value.endpoint) == ("aws_unavailable", "ep1")


@both
def test_a_store_without_ranges_is_read(tries: int) -> None:
    """It answers with the whole object, of which no more than the limit is read."""
    with answering(200, {**HEAD, "Content-Length": "10"}, b"0123456789", tries=tries) as bucket:
        assert whole(bucket, limit=10) == b"0123456789"
        file, chunks = bucket.store.whole(PATH, limit=9)
        assert (file.size, chunks) == (10, [])


@both
@pytest.mark.parametrize("span", ["bytes 5-7/8", "bytes 0-9/10", "nonsense"])
def test_a_range_that_makes_no_sense_is_not_taken_for_the_file(tries: int, span: str) -> None:
    """The file is looked at then, and read by what the look says."""
    with answering(206, {**HEAD, "Content-Length": "3", "Content-Range": span}, b"abc", tries=tries) as bucket:
        with pytest.raises(Permanent) as error:
            whole(bucket)
        assert error.value.reason == "source_changed"
    with answering(206, {**HEAD, "Content-Length": "3", "Content-Range": "bytes 0-2/*"}, b"abc", tries=tries) as bucket:
        assert whole(bucket) == b"abc"


@both
@pytest.mark.parametrize("wrong", ["ETag", "Last-Modified"])
def test_headers_that_make_no_sense_are_the_stores_fault(tries: int, wrong: str) -> None:
    """An object without what tells its version is worth another try."""
    headers = {name: value for name, value in HEAD.items() if name != wrong}
    with answering(200, {**headers, "Content-Length": "3"}, b"abc", tries=tries) as bucket, pytest.raises(Transient) as error:
        whole(bucket)
    assert (error.value.reason, error.value.endpoint) == ("answer_malformed", "ep1")


@pytest.mark.parametrize("wrong", [{"Content-Length": "x"}, {"Last-Modified": "soon"}, {"ETag": None}])
def test_odd_headers_are_left_to_boto3(wrong: dict[str, str | None]) -> None:
    """An object whose headers make no sense is not read the short way; one that has no bytes is known there."""
    headers = {name: value for name, value in {**HEAD, "Content-Length": "3", **wrong}.items() if value is not None}
    with serving(200, headers, b"abc") as url:
        assert _direct(url).first("b", "a", size=3, version=None) is None
    with serving(416, {"Content-Length": "0"}, b"") as url:
        assert _direct(url).first("b", "a", size=3, version=None) == NO_BYTES
    with serving(404, {"Content-Length": "0"}, b"") as url:
        assert _direct(url).first("b", "a", size=3, version=None) is None


def _direct(url: str) -> S3Direct:
    return AwsSession(region=REGION, endpoint_url=url, keys=MOTO_KEYS).beside("s3", S3Direct)
