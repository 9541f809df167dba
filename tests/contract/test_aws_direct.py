"""The short way to AWS: it goes where boto3 goes, and whatever it cannot make sense of is left to boto3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from eft.adapters.aws import AwsSession
from eft.adapters.aws_direct import Direct
from eft.adapters.s3.direct import S3Direct
from eft.domain.fingerprint import Fingerprint, RemoteFile
from eft.domain.names import remote_path
from eft.errors import Transient
from eft.ports import Bytes
from tests.contract.buckets import MOTO_KEYS, REGION, Bucket, answer, serving
from tests.contract.store_suite import content_of

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest, AWSResponse

HEAD = {"Content-Length": "3", "Last-Modified": "Sun, 29 Nov 2026 11:00:00 GMT", "ETag": '"e"'}
XML = "text/xml; charset=utf-8"


@pytest.mark.parametrize("region", ["us-gov-west-1", "us-east-1", "us-west-2", "eu-central-1"])
@pytest.mark.parametrize("endpoint_url", [None, "http://store.test:9000", "https://store.test/"])
@pytest.mark.parametrize("bucket", ["plain", "with.dots"])
@pytest.mark.parametrize("key", ["key", "a b+c%20d~e", "a//b", "ünï/☃", "a?b#c&d=e;f@g:h!*'()"])
def test_both_ways_lead_to_the_same_address(region: str, endpoint_url: str | None, bucket: str, key: str) -> None:
    """An object has one address, in the bucket's own region, and one scope of the signature, whichever way is taken."""
    seen: set[tuple[str, str]] = set()

    def note(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        signed = request.headers["Authorization"]
        seen.add((request.url, str(signed.decode() if isinstance(signed, bytes) else signed).split(",")[0]))
        return answer(200, HEAD, b"")

    session = AwsSession(region=region, endpoint_url=endpoint_url, keys=MOTO_KEYS)
    events: Any = session.s3().meta.events
    events.register("before-send.s3.HeadObject", note)
    assert session.beside("s3", S3Direct).head(bucket, key) is not None
    session.s3().head_object(Bucket=bucket, Key=key)
    assert len(seen) == 1
    assert region in seen.pop()[1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"Content-Length": "x"},
        {"Content-Length": "-3"},
        {"Content-Length": ""},
        {"Last-Modified": "yesterday"},
        {"Last-Modified": ""},
        {"ETag": None},
        {"Content-Length": None},
        {"Last-Modified": None},
    ],
)
def test_odd_headers_are_left_to_boto3(wrong: dict[str, str | None]) -> None:
    """An object whose headers make no sense is not looked at here."""
    headers = {name: value for name, value in {**HEAD, **wrong}.items() if value is not None}
    with serving(200, headers, b"") as url:
        assert _direct(url).head("b", "a") is None


def test_a_range_of_no_length_is_left_to_boto3() -> None:
    """A body that says nothing sensible of its length is not read here."""
    for length in ("x", "-3"):
        with serving(206, {**HEAD, "Content-Length": length, "Content-Range": "bytes 0-2/3"}, b"abc") as url:
            assert _direct(url).get("b", "a", start=0, size=3, version=None, if_match=None) is None


@pytest.mark.parametrize(
    ("kind", "body", "upload"),
    [
        (XML, b"<R><UploadId>a&amp;b</UploadId></R>", "a&b"),
        ("text/xml; charset=nonsense", b"<R><UploadId>id</UploadId></R>", "id"),
        (XML, b"<R><UploadId>\xff</UploadId></R>", None),
        (XML, b"<R><UploadId>id</R>", None),
        (XML, b"", None),
    ],
)
def test_an_upload_id_is_read_or_left_to_boto3(kind: str, body: bytes, upload: str | None) -> None:
    """An upload id that cannot be read is not guessed."""
    with serving(200, {"Content-Type": kind, "Content-Length": str(len(body))}, body) as url:
        assert _direct(url).begin("b", "a", headers={}) == upload


@pytest.mark.parametrize("headers", [{"x-amz-crc32": "1"}, {"x-amz-crc32": "x"}])
def test_a_damaged_row_is_left_to_boto3(headers: dict[str, str]) -> None:
    """An answer of DynamoDB that is not what its checksum says is not believed."""
    with serving(200, {**headers, "Content-Length": "2"}, b"{}") as url:
        assert AwsSession(region=REGION, endpoint_url=url, keys=MOTO_KEYS).beside("dynamodb", Direct).ask_json("GetItem", {}) is None
    with serving(200, {"Content-Length": "2"}, b"{}") as url:
        asked = AwsSession(region=REGION, endpoint_url=url, keys=MOTO_KEYS).beside("dynamodb", Direct).ask_json("GetItem", {})
        assert asked == (200, {})


def test_a_body_cut_short_is_never_taken_for_the_whole() -> None:
    """A connection that ends in the middle of a body is an error, after the bytes that came, on this way as well."""
    content = content_of(3_000_000)
    headers = {"Content-Length": "3000000", "Content-Range": "bytes 0-2999999/3000000", "ETag": '"e"'}
    file = RemoteFile(path=remote_path("a.bin"), fingerprint=Fingerprint(size=3_000_000, etag="e"))
    got = bytearray()
    with serving(206, headers, content[:1_500_000]) as url:
        bucket = Bucket(AwsSession(region=REGION, endpoint_url=url, keys=MOTO_KEYS), "b")
        with pytest.raises(Transient) as error:
            got.extend(byte for chunk in bucket.store.read(file, start=0, size=3_000_000) for byte in chunk)
    assert error.value.reason == "aws_unavailable"
    assert error.value.endpoint == "ep1"
    assert content.startswith(bytes(got))


def test_a_session_is_renewed_at_any_moment() -> None:
    """What is built beside a client has that client's session, whatever another thread renews meanwhile."""

    class Renewed(AwsSession):
        def _client(self, service: str) -> Any:  # noqa: ANN401 - as botocore makes it
            client = super()._client(service)
            self.renew()
            return client

    session = Renewed(region=REGION, keys=MOTO_KEYS)
    made = session.beside("s3", S3Direct)
    assert session.beside("s3", S3Direct) is made
    session.renew()
    assert session.beside("s3", S3Direct) is not made


def test_a_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment names a proxy, the short way leads through it."""
    with serving(200, HEAD, b"") as url:
        monkeypatch.setenv("HTTP_PROXY", url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        found = _direct("http://store.invalid:9000").head("b", "a")
    assert isinstance(found, dict)
    assert found["ETag"] == '"e"'


def test_pieces_leave_as_they_came() -> None:
    """A part of many buffers arrives whole; its hash is theirs together."""
    with serving(200, {"ETag": '"e"', "Content-Length": "0"}, b"") as url:
        pieces: list[Bytes] = [b"a" * 100_000, bytearray(b"b" * 100_000), memoryview(b"c")]
        assert _direct(url).part("b", "a", upload="u", number=1, pieces=pieces, headers={}) == '"e"'


def _direct(url: str) -> S3Direct:
    return AwsSession(region=REGION, endpoint_url=url, keys=MOTO_KEYS).beside("s3", S3Direct)
