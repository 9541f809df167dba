"""What the engine leans on in S3 holds on the emulator, as repaired, and on SeaweedFS; where one differs, a test says so.

A test marked xfail states what S3 does and the server does not; it fails as soon as the server learns it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import pytest
from awscrt import checksums
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.servers import Aws

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.contract

MIB: Final = 1 << 20
PART: Final = os.urandom(5 * MIB)
# Neither repeats nor checksums of its own choosing: what is sent is what the test says.
PLAIN: Final = Config(
    retries={"total_max_attempts": 1},
    s3={"addressing_style": "path"},
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    max_pool_connections=32,
)


class Store:
    """One S3 server under test, with a versioned bucket."""

    def __init__(self, name: str, client: S3Client) -> None:
        self.name = name
        self.s3 = client
        self.bucket = f"semantics-{uuid.uuid4().hex[:12]}"
        client.create_bucket(Bucket=self.bucket, CreateBucketConfiguration={"LocationConstraint": "us-gov-west-1"})
        client.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})

    def put(self, key: str, body: bytes, **named: Any) -> str:  # noqa: ANN401 - S3's own options
        """Returns the version written."""
        return self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, **named)["VersionId"]

    def get(self, key: str, **named: Any) -> bytes:  # noqa: ANN401 - as above
        """Returns the bytes."""
        return self.s3.get_object(Bucket=self.bucket, Key=key, **named)["Body"].read()

    def upload(self, key: str, *bodies: bytes, **named: Any) -> tuple[str, list[Any]]:  # noqa: ANN401 - as above
        """Returns an upload's id and its part list, all parts uploaded."""
        upload = self.s3.create_multipart_upload(Bucket=self.bucket, Key=key, Metadata={"transfer": "t-1"}, **named)["UploadId"]
        parts = [
            {"PartNumber": number, "ETag": self.part(key, upload, number, body)["ETag"]} for number, body in enumerate(bodies, start=1)
        ]
        return upload, parts

    def part(self, key: str, upload: str, number: int, body: bytes, **named: Any) -> Any:  # noqa: ANN401 - as above
        """Returns the answer to one part."""
        return self.s3.upload_part(Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=number, Body=body, **named)

    def complete(self, key: str, upload: str, parts: list[Any], **named: Any) -> Any:  # noqa: ANN401 - as above
        """Returns the answer to the completion."""
        return self.s3.complete_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **named)

    def versions(self, key: str) -> list[str]:
        """Returns the versions of one key."""
        found = self.s3.list_object_versions(Bucket=self.bucket, Prefix=key).get("Versions", [])
        return [version["VersionId"] for version in found if version["Key"] == key]


@pytest.fixture(scope="module", params=["emulator", "seaweed"])
def store(request: pytest.FixtureRequest) -> Store:
    """Each server in turn."""
    if request.param == "seaweed":
        return Store("seaweed", request.getfixturevalue("seaweed").client(PLAIN))
    aws: Aws = request.getfixturevalue("aws")
    return Store("emulator", aws.server.client("s3", config=PLAIN))


def differs(**reasons: str) -> pytest.MarkDecorator:
    """Expects the test to fail on the servers named, for the reason given."""
    params = [
        pytest.param(name, marks=[pytest.mark.xfail(reason=reasons[name])] if name in reasons else []) for name in ("emulator", "seaweed")
    ]
    return pytest.mark.parametrize("store", params, indirect=True)


def refused(action: Any) -> tuple[str, int]:  # noqa: ANN401 - any call
    """Returns the code and status that a call is refused with."""
    with pytest.raises(ClientError) as caught:
        action()
    answer: Any = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def crc64(content: bytes) -> str:
    """Returns the CRC64NVME as S3 writes it."""
    return base64.b64encode(checksums.crc64nvme(content).to_bytes(8, "big")).decode()


# -- conditions and versions ---------------------------------------------------------------------------------------------


def test_if_none_match_refuses_a_second_object(store: Store) -> None:
    """PutObject over an object that is there answers 412."""
    store.put("once", b"1", IfNoneMatch="*")
    assert refused(lambda: store.put("once", b"2", IfNoneMatch="*")) == ("PreconditionFailed", 412)
    assert store.get("once") == b"1"


def test_racing_conditional_puts_have_one_winner(store: Store) -> None:
    """Of 16 callers one writes, and its bytes are there."""
    for number in range(3):
        met = at_once(lambda body, key=f"race-{number}": store.put(key, body.encode(), IfNoneMatch="*"))
        assert sorted(met.values()) == ["PreconditionFailed"] * 15 + ["won"]
        assert met[store.get(f"race-{number}").decode()] == "won"


def test_a_version_is_read_whole_or_in_ranges_after_it_was_overwritten_and_deleted(store: Store) -> None:
    """A pinned source stays what it was: by version, from any byte to any byte."""
    first = store.put("pinned", b"0123456789", Metadata={"transfer": "t-1"})
    store.put("pinned", b"abc")
    store.s3.delete_object(Bucket=store.bucket, Key="pinned")
    assert refused(lambda: store.get("pinned")) == ("NoSuchKey", 404)
    assert store.get("pinned", VersionId=first) == b"0123456789"
    part = store.s3.get_object(Bucket=store.bucket, Key="pinned", VersionId=first, Range="bytes=2-4")
    assert (part["ContentRange"], part["ContentLength"], part["Body"].read()) == ("bytes 2-4/10", 3, b"234")
    assert store.get("pinned", VersionId=first, Range="bytes=8-99") == b"89"
    assert refused(lambda: store.get("pinned", VersionId=first, Range="bytes=10-")) == ("InvalidRange", 416)
    head = store.s3.head_object(Bucket=store.bucket, Key="pinned", VersionId=first)
    assert (head["ContentLength"], head["Metadata"]) == (10, {"transfer": "t-1"})


def test_one_version_is_deleted_and_the_others_stay(store: Store) -> None:
    """Disposing of a source by version leaves a newer file alone."""
    first, second = store.put("two", b"1"), store.put("two", b"2")
    store.s3.delete_object(Bucket=store.bucket, Key="two", VersionId=first)
    assert store.versions("two") == [second]
    assert store.get("two") == b"2"
    assert refused(lambda: store.get("two", VersionId=first)) == ("NoSuchVersion", 404)


def test_if_match_refuses_a_source_that_changed(store: Store) -> None:
    """Get with an etag that is not the object's answers 412."""
    store.put("etag", b"1")
    assert refused(lambda: store.get("etag", IfMatch='"0123"')) == ("PreconditionFailed", 412)


# -- multipart uploads ---------------------------------------------------------------------------------------------------


def test_an_upload_shows_its_parts_and_appears_whole_when_completed(store: Store) -> None:
    """Nothing is visible before; after it, the object has all bytes, a version, and the metadata given at the start."""
    upload, parts = store.upload("whole", PART, b"tail")
    listed = store.s3.list_parts(Bucket=store.bucket, Key="whole", UploadId=upload)["Parts"]
    assert [(part["PartNumber"], part["Size"]) for part in listed] == [(1, len(PART)), (2, 4)]
    assert [part["ETag"] for part in listed] == [part["ETag"] for part in parts]
    uploads = store.s3.list_multipart_uploads(Bucket=store.bucket, Prefix="whole")["Uploads"]
    assert [(each["Key"], each["UploadId"]) for each in uploads] == [("whole", upload)]
    assert refused(lambda: store.s3.head_object(Bucket=store.bucket, Key="whole")) == ("404", 404)
    done = store.complete("whole", upload, parts, IfNoneMatch="*")
    head = store.s3.head_object(Bucket=store.bucket, Key="whole")
    assert head["Metadata"] == {"transfer": "t-1"}
    assert (head["VersionId"], head["ETag"]) == (done["VersionId"], done["ETag"])
    assert store.get("whole", VersionId=done["VersionId"]) == PART + b"tail"
    assert "Uploads" not in store.s3.list_multipart_uploads(Bucket=store.bucket, Prefix="whole")


def test_a_part_sent_again_replaces_the_first(store: Store) -> None:
    """A part repeated after a crash counts once."""
    upload, _ = store.upload("again", b"first")
    etag = store.part("again", upload, 1, b"second")["ETag"]
    store.complete("again", upload, [{"PartNumber": 1, "ETag": etag}])
    assert store.get("again") == b"second"


def test_an_empty_file_is_one_empty_part(store: Store) -> None:
    """A multipart upload of one part without bytes gives an object of zero bytes."""
    store.complete("empty", *store.upload("empty", b""), IfNoneMatch="*")
    assert store.s3.head_object(Bucket=store.bucket, Key="empty")["ContentLength"] == 0
    assert store.get("empty") == b""


def test_completion_refuses_a_name_that_is_taken_and_keeps_the_upload(store: Store) -> None:
    """If-None-Match answers 412; the upload can still be aborted, or completed without the condition."""
    store.put("taken", b"theirs")
    upload, parts = store.upload("taken", b"ours")
    refusal = refused(lambda: store.complete("taken", upload, parts, IfNoneMatch="*"))
    assert refusal == ("PreconditionFailed", 412)
    assert len(store.s3.list_parts(Bucket=store.bucket, Key="taken", UploadId=upload)["Parts"]) == 1
    store.complete("taken", upload, parts)
    assert store.get("taken") == b"ours"


def test_a_completed_upload_is_gone(store: Store) -> None:
    """Parts are neither taken nor listed any more."""
    upload, parts = store.upload("gone", b"x")
    store.complete("gone", upload, parts)
    for action in (
        lambda: store.part("gone", upload, 1, b"late"),
        lambda: store.s3.list_parts(Bucket=store.bucket, Key="gone", UploadId=upload),
    ):
        assert refused(action) == ("NoSuchUpload", 404)
    assert store.get("gone") == b"x"


def test_a_completion_repeated_after_a_lost_reply_makes_no_second_version(store: Store) -> None:
    """It may succeed again with the same version, or answer NoSuchUpload: both are S3's right, a new version is not."""
    upload, parts = store.upload("twice", b"x")
    first = store.complete("twice", upload, parts)
    try:
        assert store.complete("twice", upload, parts)["VersionId"] == first["VersionId"]
    except ClientError as error:
        assert error.response["Error"]["Code"] == "NoSuchUpload"  # noqa: PT017 - one of two outcomes
    assert store.versions("twice") == [first["VersionId"]]


@differs(seaweed="SeaweedFS judges the condition first and answers 412 to the one who won")
def test_a_conditional_completion_repeated_after_a_lost_reply_is_no_conflict(store: Store) -> None:
    """The winner that asks again is not told that another's file stands there."""
    upload, parts = store.upload("twice-if", b"x")
    first = store.complete("twice-if", upload, parts, IfNoneMatch="*")
    assert store.complete("twice-if", upload, parts, IfNoneMatch="*")["VersionId"] == first["VersionId"]


def test_an_aborted_upload_cannot_be_completed(store: Store) -> None:
    """What an abort consumed stays consumed."""
    upload, parts = store.upload("aborted", b"x")
    store.s3.abort_multipart_upload(Bucket=store.bucket, Key="aborted", UploadId=upload)
    assert refused(lambda: store.complete("aborted", upload, parts)) == ("NoSuchUpload", 404)
    assert store.versions("aborted") == []


@differs(seaweed="SeaweedFS answers 204 to the abort of an upload that is completed or aborted already")
def test_an_abort_that_consumes_nothing_says_so(store: Store) -> None:
    """Abort of a completed upload answers NoSuchUpload: it was the completion that consumed it."""
    upload, parts = store.upload("late-abort", b"x")
    store.complete("late-abort", upload, parts)
    action = lambda: store.s3.abort_multipart_upload(Bucket=store.bucket, Key="late-abort", UploadId=upload)  # noqa: E731
    assert refused(action) == ("NoSuchUpload", 404)


@differs(seaweed="SeaweedFS completes with the parts that it has, whatever etags and numbers are listed")
def test_a_part_list_that_differs_from_the_parts_is_refused(store: Store) -> None:
    """The frozen list decides which bytes: a part replaced since, or missing, answers InvalidPart."""
    upload, parts = store.upload("frozen", b"first")
    store.part("frozen", upload, 1, b"later")
    assert refused(lambda: store.complete("frozen", upload, parts)) == ("InvalidPart", 400)
    missing = [{"PartNumber": 9, "ETag": parts[0]["ETag"]}]
    assert refused(lambda: store.complete("frozen", upload, missing)) == ("InvalidPart", 400)


@differs(emulator="the emulator takes small parts anywhere")
def test_a_small_part_before_the_last_is_refused(store: Store) -> None:
    """All parts but the last hold at least 5 MiB."""
    upload, parts = store.upload("small", b"1", b"2")
    assert refused(lambda: store.complete("small", upload, parts)) == ("EntityTooSmall", 400)


def test_racing_completions_of_one_upload_make_one_version(store: Store) -> None:
    """However many workers repeat a commit, the token is consumed once."""
    upload, parts = store.upload("one-token", b"x")
    met = at_once(lambda _: store.complete("one-token", upload, parts))
    assert set(met.values()) <= {"won", "NoSuchUpload"}
    assert len(store.versions("one-token")) == 1


def test_racing_conditional_completions_of_different_uploads_have_one_winner(store: Store) -> None:
    """Two transfers to one name cannot both appear."""
    if store.name == "seaweed":
        pytest.skip("SeaweedFS looks and then writes: several of them win now and then")
    for number in range(3):
        key = f"many-tokens-{number}"
        uploads = {str(each): store.upload(key, str(each).encode()) for each in range(16)}
        met = at_once(lambda who, key=key, uploads=uploads: store.complete(key, *uploads[who], IfNoneMatch="*"))
        assert sorted(met.values()) == ["PreconditionFailed"] * 15 + ["won"]
        assert met[store.get(key).decode()] == "won"
        assert len(store.versions(key)) == 1


# -- copies on the server ------------------------------------------------------------------------------------------------


def test_parts_are_copied_from_ranges_of_a_version(store: Store) -> None:
    """UploadPartCopy reads the version named, though the source has changed since."""
    source = store.put("source", PART + b"tail")
    store.put("source", b"newer")
    upload, _ = store.upload("copied")
    parts = []
    for number, span in enumerate((f"0-{len(PART) - 1}", f"{len(PART)}-{len(PART) + 3}"), start=1):
        copied = store.s3.upload_part_copy(
            Bucket=store.bucket,
            Key="copied",
            UploadId=upload,
            PartNumber=number,
            CopySource={"Bucket": store.bucket, "Key": "source", "VersionId": source},
            CopySourceRange=f"bytes={span}",
        )
        parts.append({"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]})
    store.complete("copied", upload, parts, IfNoneMatch="*")
    assert store.get("copied") == PART + b"tail"
    assert store.s3.head_object(Bucket=store.bucket, Key="copied")["Metadata"] == {"transfer": "t-1"}


def test_a_copy_from_a_source_that_changed_or_went_is_refused(store: Store) -> None:
    """CopySourceIfMatch answers 412, a missing source NoSuchKey."""
    store.put("changed", b"1")
    upload, _ = store.upload("refused")
    copy: Any = {"Bucket": store.bucket, "Key": "refused", "UploadId": upload, "PartNumber": 1}
    source: Any = {"Bucket": store.bucket, "Key": "changed"}
    refusal = refused(lambda: store.s3.upload_part_copy(**copy, CopySource=source, CopySourceIfMatch='"0123"'))
    assert refusal == ("PreconditionFailed", 412)
    missing: Any = {"Bucket": store.bucket, "Key": "not-there"}
    assert refused(lambda: store.s3.upload_part_copy(**copy, CopySource=missing)) == ("NoSuchKey", 404)


def test_a_conditional_copy_refuses_a_name_that_is_taken(store: Store) -> None:
    """CopyObject honours If-None-Match."""
    store.put("from", b"1")
    copy: Any = {"Bucket": store.bucket, "Key": "to", "CopySource": {"Bucket": store.bucket, "Key": "from"}}
    store.s3.copy_object(**copy, IfNoneMatch="*")
    assert refused(lambda: store.s3.copy_object(**copy, IfNoneMatch="*")) == ("PreconditionFailed", 412)


# -- checksums -----------------------------------------------------------------------------------------------------------


def test_wrong_checksums_of_an_object_are_refused(store: Store) -> None:
    """CRC64NVME, SHA-256 and MD5 are compared with the bytes received."""
    sha = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    md5 = base64.b64encode(hashlib.md5(b"other", usedforsecurity=False).digest()).decode()
    for wrong in ({"ChecksumCRC64NVME": crc64(b"other")}, {"ChecksumSHA256": sha}, {"ContentMD5": md5}):
        assert refused(lambda wrong=wrong: store.put("sum", b"bytes", **wrong)) == ("BadDigest", 400)
    store.put("sum", b"bytes", ChecksumCRC64NVME=crc64(b"bytes"))
    head = store.s3.head_object(Bucket=store.bucket, Key="sum", ChecksumMode="ENABLED")
    assert head["ChecksumCRC64NVME"] == crc64(b"bytes")


@pytest.mark.parametrize("own_sums", [True, False])
def test_a_full_object_crc64_is_judged_over_the_whole_upload(store: Store, own_sums: bool) -> None:
    """Combined from parts that arrived in any order, it is accepted if right and refused if wrong."""
    key, bodies = f"crc-{own_sums}", {1: PART, 2: PART[::-1], 3: b"tail"}
    kind: Any = {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"}
    upload, _ = store.upload(key, **kind)
    parts = []
    for number in (3, 1, 2):
        own: Any = {"ChecksumCRC64NVME": crc64(bodies[number])} if own_sums else {"ChecksumAlgorithm": "CRC64NVME"}
        done = store.part(key, upload, number, bodies[number], **own)
        assert done["ChecksumCRC64NVME"] == crc64(bodies[number])
        parts.append({"PartNumber": number, "ETag": done["ETag"], "ChecksumCRC64NVME": done["ChecksumCRC64NVME"]})
    parts.sort(key=lambda part: part["PartNumber"])
    whole = b"".join(bodies[number] for number in (1, 2, 3))
    named: Any = {"ChecksumType": "FULL_OBJECT", "IfNoneMatch": "*"}
    wrong = refused(lambda: store.complete(key, upload, parts, ChecksumCRC64NVME=crc64(PART), **named))
    assert wrong == ("BadDigest", 400)
    done = store.complete(key, upload, parts, ChecksumCRC64NVME=crc64(whole), **named)
    head = store.s3.head_object(Bucket=store.bucket, Key=key, ChecksumMode="ENABLED")
    for answer in (done, head):
        assert (answer["ChecksumCRC64NVME"], answer["ChecksumType"]) == (crc64(whole), "FULL_OBJECT")


def test_a_wrong_crc64_of_a_part_is_refused(store: Store) -> None:
    """Damage on the way is met at the part, not at the end."""
    upload, _ = store.upload("part-crc", ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT")
    refusal = refused(lambda: store.part("part-crc", upload, 1, b"bytes", ChecksumCRC64NVME=crc64(b"other")))
    assert refusal == ("BadDigest", 400)


# -- names, listings, access ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["uni/ä ö/€", "a b+c%20d", "line\nbreak", "e&<>\"'"])
def test_unusual_names_come_back_as_they_were_given(store: Store, key: str) -> None:
    """A listing shows the very name."""
    store.put(key, b"q")
    found = store.s3.list_objects_v2(Bucket=store.bucket, Prefix=key)["Contents"]
    assert key in [each["Key"] for each in found]


def test_a_listing_pages_and_starts_after_a_name(store: Store) -> None:
    """Every object is on one page, in the order of names."""
    names = [f"list/{number:03}" for number in range(25)]
    for name in names:
        store.put(name, b"")
    pages = store.s3.get_paginator("list_objects_v2").paginate(Bucket=store.bucket, Prefix="list/", PaginationConfig={"PageSize": 10})
    assert [each["Key"] for page in pages for each in page.get("Contents", [])] == names
    rest = store.s3.list_objects_v2(Bucket=store.bucket, Prefix="list/", StartAfter="list/020")["Contents"]
    assert [each["Key"] for each in rest] == names[21:]


def test_a_missing_bucket_is_told_apart_from_a_missing_object(store: Store) -> None:
    """NoSuchBucket and NoSuchKey."""
    assert refused(lambda: store.s3.get_object(Bucket=f"{store.bucket}-x", Key="x")) == ("NoSuchBucket", 404)
    assert refused(lambda: store.get("never-there")) == ("NoSuchKey", 404)


# -- what only one of them has -------------------------------------------------------------------------------------------


def test_the_emulator_keeps_large_objects_out_of_its_memory(aws: Aws) -> None:
    """After 256 MiB stored, its own memory has grown by a small part of that; ranges of a version are read fast."""
    store = Store("emulator", aws.server.client("s3", config=PLAIN))
    before = own_memory(aws.server.child.pid)
    body = os.urandom(16 * MIB)
    upload, _ = store.upload("large")
    parts = [{"PartNumber": n, "ETag": store.part("large", upload, n, body)["ETag"]} for n in range(1, 17)]
    version = store.complete("large", upload, parts)["VersionId"]
    assert own_memory(aws.server.child.pid) - before < 100 * MIB
    begun = time.monotonic()
    for number in range(16):
        span = f"bytes={number * len(body)}-{(number + 1) * len(body) - 1}"
        assert store.get("large", VersionId=version, Range=span) == body
    # Read whole for each range, as unrepaired, it takes minutes.
    assert time.monotonic() - begun < 60
    store.s3.delete_object(Bucket=store.bucket, Key="large", VersionId=version)


def test_seaweed_judges_signatures(store: Store, request: pytest.FixtureRequest) -> None:
    """A wrong secret and an unknown key are refused; the emulator takes any unless it enforces access."""
    if store.name == "emulator":
        pytest.skip("it does so with enforce_access")
    server = request.getfixturevalue("seaweed")
    wrong = server.client(PLAIN)
    wrong._request_signer._credentials.secret_key = "wrong"
    assert refused(lambda: wrong.list_objects_v2(Bucket=store.bucket)) == ("SignatureDoesNotMatch", 403)


def own_memory(pid: int) -> int:
    """Returns the bytes of memory that a process has for itself, mapped files left out."""
    with open(f"/proc/{pid}/status") as status:  # noqa: PTH123 - not a path to speak of
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon:"))


def at_once(action: Any) -> dict[str, str]:  # noqa: ANN401 - any callable of a name
    """Returns what each of 16 concurrent callers met: "won" or the error's code."""

    def attempt(number: int) -> str:
        try:
            action(str(number))
        except ClientError as error:
            return error.response["Error"]["Code"]
        return "won"

    with ThreadPoolExecutor(16) as pool:
        return dict(zip(map(str, range(16)), pool.map(attempt, range(16)), strict=True))
