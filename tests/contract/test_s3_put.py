"""A small object in one request: refused where the name is taken, sent once whatever comes, and found by its transfer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from threading import Event

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ClientError, CredentialRetrievalError, ProxyConnectionError, ReadTimeoutError
from moto import mock_aws

from deploy.local.servers import S3Server
from eft.adapters.aws import AwsSession, Role
from eft.adapters.aws_http import NotSent
from eft.domain.checksum import crc64nvme
from eft.domain.names import put_token, remote_path
from eft.domain.parts import PartDone
from eft.domain.transfer import Commit
from eft.errors import Permanent, Transient
from eft.ports import CommitOutcome
from tests.contract.buckets import MOTO_KEYS, REGION, Bucket, Scripted, emulator_session, new_bucket, refusal, seaweed_session
from tests.contract.buckets import answer as answered
from tests.contract.store_suite import TRANSFER

URL = "https://s3.example/bucket"
PATH = remote_path("in/a.csv")


@pytest.fixture(params=["emulator", "seaweed", "aws"])
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    """A prefix of a bucket on each server that honours If-None-Match; AWS is known to."""
    if request.param == "aws":
        with mock_aws():
            yield new_bucket(AwsSession(region=REGION, keys=MOTO_KEYS), prefix="p")
        return
    if request.param == "emulator":
        made = new_bucket(emulator_session(request.getfixturevalue("aws")), prefix="p")
    else:
        made = new_bucket(seaweed_session(request.getfixturevalue("seaweed")), prefix="p")
    made.refuses_taken = True
    yield made


@pytest.fixture
def aws_bucket() -> Iterator[Bucket]:
    """A bucket of AWS."""
    with mock_aws():
        yield new_bucket(AwsSession(region=REGION, keys=MOTO_KEYS))


def decided(data: bytes, *, attempt: int = 1) -> Commit:
    """A commit whose token is a put."""
    token = put_token(TRANSFER, region_epoch=1, attempt=attempt, nonce="ab12")
    part = PartDone(number=1, size=len(data), crc64nvme=crc64nvme(data))
    return Commit(
        attempt=attempt, token=token, path=PATH, overwrite=False, parts=(part,), size=len(data), checksum="sha256:00", region_epoch=1
    )


def now() -> datetime:
    """The present."""
    return datetime.now(UTC)


@pytest.mark.parametrize("data", [b"one,two\n", b"", b"x" * 300_000], ids=["small", "empty", "large"])
def test_an_object_appears_under_its_transfer(bucket: Bucket, data: bytes) -> None:
    """Whole, with the id by which it is known again, and with the etag and version that the answer told."""
    with bucket.open() as store:
        put = store.put(decided(data), [data[:3], memoryview(data)[3:]], asked_at=now())
        found = store.look(PATH)
    assert put.outcome is CommitOutcome.DONE
    assert found is not None
    assert (found.transfer, found.size, bucket.get(PATH)) == (TRANSFER, len(data), data)
    assert (put.etag, put.version) == (found.fingerprint.etag, found.fingerprint.version)


def test_a_taken_name_is_refused(bucket: Bucket) -> None:
    """Whatever stands there stays."""
    bucket.put(PATH, b"theirs")
    with bucket.open() as store:
        assert store.put(decided(b"ours"), [b"ours"], asked_at=now()).outcome is CommitOutcome.EXISTS
    assert bucket.get(PATH) == b"theirs"


def test_its_token_is_gone_from_the_first(bucket: Bucket) -> None:
    """Nothing of a put can be committed later, and nothing has to be asked for that."""
    commit = decided(b"ours")
    with bucket.open() as store:
        assert store.commit(commit).outcome is CommitOutcome.TOKEN_GONE
        assert not store.token_exists(commit.token, PATH)
        assert store.consume(commit.token, PATH)
        bucket.put(PATH, b"theirs")
        assert store.consume(commit.token, PATH)
        bucket.remove(PATH)
        store.put(commit, [b"ours"], asked_at=now())
        assert not store.consume(commit.token, PATH)
    assert bucket.get(PATH) == b"ours"


def test_damaged_bytes_are_not_stored(seaweed: S3Server) -> None:
    """The checksum that goes along is of what was read, not of what was sent."""
    bucket = new_bucket(seaweed_session(seaweed))
    bucket.refuses_taken = True
    with bucket.open() as store:
        assert store.puts
        put = store.put(decided(b"ours"), [b"damaged"], asked_at=now())
    assert (put.outcome, bucket.get(PATH)) == (CommitOutcome.NOT_STORED, None)


@pytest.mark.timeout(60)
def test_nobody_waits_for_the_end_of_a_question(seaweed: S3Server) -> None:
    """A store that is not known is asked by an upload that is begun and aborted; the answer is there with the beginning."""
    bucket = new_bucket(seaweed_session(seaweed))
    asked, over, let_go = Event(), Event(), Event()

    def hold(**_: object) -> None:
        asked.set()
        let_go.wait(30)

    events = bucket.s3.meta.events
    events.register("before-send.s3.AbortMultipartUpload", hold)
    events.register("response-received.s3.AbortMultipartUpload", lambda **_: over.set())
    with bucket.open() as store:
        assert store.judges_whole()
    assert asked.wait(30)
    assert not over.is_set()
    let_go.set()
    assert over.wait(30)


def test_a_request_that_was_signed_long_ago_is_refused(seaweed: S3Server) -> None:
    """It carries the time of its decision, whenever it leaves."""
    bucket = new_bucket(seaweed_session(seaweed))
    bucket.refuses_taken = True
    with bucket.open() as store:
        put = store.put(decided(b"ours"), [b"ours"], asked_at=now() - timedelta(minutes=16))
    assert (put.outcome, bucket.get(PATH)) == (CommitOutcome.NOT_STORED, None)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (refusal(503, "SlowDown"), "throttled"),
        (refusal(400, "ExpiredToken"), "credential_expired"),
        (refusal(403, "AccessDenied"), "access_denied"),
        (refusal(403, "RequestTimeTooSkewed"), "clock_skewed"),
        (refusal(404, "NoSuchBucket"), "bucket_missing"),
        (refusal(400, "BadDigest"), "aws_refused"),
        (NotSent("nobody listens"), "aws_unavailable"),
    ],
)
def test_what_was_turned_away_is_known_not_to_be_stored(aws_bucket: Bucket, answer: AWSResponse | Exception, reason: str) -> None:
    """With the error that it is; and nothing is sent again."""
    with aws_bucket.open() as store, Scripted(aws_bucket.session, "PutObject", [answer]) as asked:
        put = store.put(decided(b"ours"), [b"ours"], asked_at=now())
    assert put.outcome is CommitOutcome.NOT_STORED
    assert put.why is not None
    assert (put.why.reason, asked.met) == (reason, 1)


@pytest.mark.parametrize(
    "answer",
    [
        refusal(500, "InternalError"),
        refusal(503, "ServiceUnavailable"),
        refusal(502, ""),
        answered(200, {}, b""),
        answered(201, {"ETag": '"x"'}, b""),
        answered(204, {}, b""),
        ReadTimeoutError(endpoint_url=URL),
        ProxyConnectionError(proxy_url=URL),
        ConnectionResetError("cut"),
    ],
    ids=["500", "503", "502", "200 without etag", "201", "204", "timed out", "proxy", "cut"],
)
def test_a_lost_answer_is_not_asked_for_again(aws_bucket: Bucket, answer: AWSResponse | Exception) -> None:
    """It may have been stored, or be stored later; whoever is told so looks, and sends nothing."""
    with aws_bucket.open() as store, Scripted(aws_bucket.session, "PutObject", [answer]) as asked, pytest.raises(Transient) as error:
        store.put(decided(b"ours"), [b"ours"], asked_at=now())
    assert (error.value.reason, asked.met) == ("answer_lost", 1)


def test_its_condition_goes_with_it(aws_bucket: Bucket) -> None:
    """If-None-Match, the transfer's id and the checksum are in that one request."""
    seen: list[AWSPreparedRequest] = []
    aws_bucket.s3.meta.events.register("before-send.s3.*", lambda request, **_: seen.append(request))
    with aws_bucket.open() as store:
        store.put(decided(b"ours"), [b"ours"], asked_at=now())
    ((headers),) = [request.headers for request in seen]
    assert (headers["If-None-Match"], headers["x-amz-meta-eft-transfer"]) == ("*", TRANSFER)
    assert headers["x-amz-checksum-crc64nvme"]


def test_it_is_offered_where_the_name_is_refused_and_nothing_is_sent_anew(aws_bucket: Bucket) -> None:
    """By AWS, and by a store of which its endpoint says so; never on boto3's way, which sends again by itself."""
    other = AwsSession(region=REGION, endpoint_url="http://store.test", keys=MOTO_KEYS)
    once = AwsSession(region=REGION, keys=MOTO_KEYS, tries=1)
    said = Bucket(other, "b", full_object_checksum=True, refuses_taken=True)
    offers = [Bucket(other, "b", full_object_checksum=True), said, Bucket(once, "b"), aws_bucket]
    assert [one.store.puts for one in offers] == [False, True, False, True]
    with pytest.raises(Permanent, match="sent once"):
        Bucket(once, "b", full_object_checksum=True).store.put(decided(b"x"), [b"x"], asked_at=now())


def test_a_store_that_says_so_needs_no_look_before_its_commit(seaweed: S3Server) -> None:
    """Its endpoint's word is taken as AWS's is."""
    bucket = new_bucket(seaweed_session(seaweed))
    assert not bucket.store.refuses_taken
    bucket.refuses_taken = True
    assert bucket.store.refuses_taken


def test_an_answer_that_sends_elsewhere_is_no_error(aws_bucket: Bucket) -> None:
    """Nothing is stored; an upload in parts follows where boto3 does."""
    with aws_bucket.open() as store, Scripted(aws_bucket.session, "PutObject", [refusal(307, "TemporaryRedirect")]):
        put = store.put(decided(b"ours"), [b"ours"], asked_at=now())
    assert (put.outcome, put.why) == (CommitOutcome.NOT_STORED, None)


def test_another_store_that_is_busy_may_have_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """SlowDown is AWS's word for a request that was not carried out; MinIO says it where too few of its disks have answered."""
    other = Bucket(
        AwsSession(region=REGION, endpoint_url="http://store.test", keys=MOTO_KEYS), "b", full_object_checksum=True, refuses_taken=True
    )
    with other.open() as store, Scripted(other.session, "PutObject", [refusal(503, "SlowDown")]), pytest.raises(Transient) as error:
        store.put(decided(b"ours"), [b"ours"], asked_at=now())
    assert error.value.reason == "answer_lost"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ClientError({"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "AssumeRole"), "access_denied"),  # type: ignore[typeddict-item]
        (CredentialRetrievalError(provider="x", error_msg="y"), "credential_unavailable"),
    ],
)
def test_without_a_credential_nothing_is_sent(monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str) -> None:
    """A role that cannot be assumed is the error that it is, and no lost answer."""

    def assume(self: AwsSession, role: Role) -> None:
        raise error

    monkeypatch.setattr(AwsSession, "_assume", assume)
    role = Role(arn="arn:aws-us-gov:iam::123456789012:role/x", external_id="t")
    with Bucket(AwsSession(region=REGION, role=role), "b").open() as store:
        put = store.put(decided(b"ours"), [b"ours"], asked_at=now())
    assert put.outcome is CommitOutcome.NOT_STORED
    assert put.why is not None
    assert put.why.reason == reason


def test_behind_a_proxy_there_is_no_put(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy's pool says of a request that was cut off that it could not connect."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    session = AwsSession(region=REGION, endpoint_url="http://store.test", keys=MOTO_KEYS)
    bucket = Bucket(session, "b", full_object_checksum=True, refuses_taken=True)
    assert not bucket.store.puts
    with pytest.raises(Permanent, match="sent once"):
        bucket.store.put(decided(b"x"), [b"x"], asked_at=now())


def test_a_store_that_is_away_is_asked_what_it_can_before_anything_depends_on_it() -> None:
    """Its error is one before the decision: nothing is held for it."""
    session = AwsSession(region=REGION, endpoint_url="http://127.0.0.1:9", keys=MOTO_KEYS, tries=2)
    with pytest.raises(Transient) as error:
        _ = Bucket(session, "b", refuses_taken=True).store.puts
    assert error.value.reason == "aws_unavailable"
