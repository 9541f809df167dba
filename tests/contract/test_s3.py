"""What S3 stores do beyond the contract: pinning, conditions, checksums, copies, names, upkeep."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from botocore.awsrequest import AWSPreparedRequest
from moto import mock_aws

from deploy.local.servers import S3Server
from eft.adapters.aws import AwsSession, StaticKeys
from eft.adapters.s3.store import S3Staging
from eft.domain.checksum import crc64nvme, whole_crc64nvme
from eft.domain.fingerprint import Fingerprint, RefusedName, RemoteFile
from eft.domain.names import remote_path
from eft.domain.parts import LARGEST_HELD, MIB, MIN_PART_SIZE, PartDone, PartPlan, plan_parts
from eft.domain.transfer import Upload
from eft.errors import NotFound, Permanent, Transient
from eft.ports import CommitOutcome, Source
from tests.contract.buckets import MOTO_KEYS, REGION, Bucket, Scripted, emulator_session, new_bucket, seaweed_session
from tests.contract.store_suite import TRANSFER, content_of, frozen, mint, read, uploaded, write
from tests.fake_store import FakeServer, FakeStore
from tests.fakes import FakeClock
from tests.servers import Aws


@pytest.fixture(params=["emulator", "seaweed"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    """A prefix of a bucket on each server that judges conditions and checksums."""
    if request.param == "emulator":
        return new_bucket(emulator_session(request.getfixturevalue("aws")), prefix="p")
    return new_bucket(seaweed_session(request.getfixturevalue("seaweed")), prefix="p")


@pytest.fixture
def moto() -> Iterator[Bucket]:
    """A bucket of AWS itself, as far as the store can tell."""
    with mock_aws():
        yield new_bucket(AwsSession(region=REGION, keys=MOTO_KEYS), prefix="p")


def copied(store: S3Staging, upload: Upload, file: RemoteFile, *, source: Source | None = None) -> list[PartDone]:
    """Copies all parts on the server's side."""
    return [store.copy_part(upload, part, source=source or store, file=file) for part in upload.plan.parts()]


# -- names -------------------------------------------------------------------------------------------------------------


def test_refuses_keys_that_are_no_paths(moto: Bucket) -> None:
    """A key that does not survive normalising is shown with its reason and never moved; folder markers are no files."""
    for path in ("in/good.csv", "in/a//b", "in/../c", "in/tab\there", "in/folder/", "in/" + "n" * 256, "/lead"):
        moto.put(path, b"x")
    found = list(moto.store.list("", recursive=True))
    assert [f.path for f in found if isinstance(f, RemoteFile)] == ["in/good.csv"]
    refused = {f.shown: f.why for f in found if isinstance(f, RefusedName)}
    assert set(refused) == {"in/a//b", "in/../c", "in/tab\\there", "in/" + "n" * 256, "/lead"}
    assert refused["in/a//b"] == "has an empty component ('//')"
    assert "'..'" in refused["in/../c"]


@pytest.mark.parametrize("name", ["a b+c&d.csv", "ü/öäß.csv", "percent%2Fx", "q?a=1#f.csv", "'quotes\"<&>.csv"])
def test_moves_any_legal_name(bucket: Bucket, name: str) -> None:
    """Names with characters that URLs and XML escape are listed, delivered, copied and read as they are."""
    _, commit = uploaded(bucket.store, name, b"content")
    assert bucket.store.commit(commit).outcome is CommitOutcome.DONE
    (listed,) = bucket.store.list("", recursive=True)
    assert isinstance(listed, RemoteFile)
    assert listed.path == name
    assert read(bucket.store, listed) == b"content"
    second = mint(bucket.store, f"copy of {name}", b"content")
    parts = copied(bucket.store, second, listed)
    assert bucket.store.commit(frozen(bucket.store, second, b"content", parts, overwrite=False)).outcome is CommitOutcome.DONE
    bucket.store.copy_version(listed, remote_path(f"archive/{name}"))
    assert bucket.get(f"archive/{name}") == b"content"
    assert bucket.store.remove_version(listed) is True


# -- source ------------------------------------------------------------------------------------------------------------


def test_a_missing_bucket_is_no_missing_file(bucket: Bucket) -> None:
    """A look at a file in a bucket that does not exist names the bucket."""
    lost = Bucket(bucket.session, "contract-no-such-bucket")
    with pytest.raises(NotFound) as error:
        lost.store.stat(remote_path("a.csv"))
    assert error.value.reason == "bucket_missing"
    assert error.value.endpoint == "ep1"
    with pytest.raises(NotFound) as error:
        list(lost.store.list("", recursive=True))
    assert error.value.reason == "bucket_missing"


def test_an_upload_to_a_missing_bucket_says_so(moto: Bucket) -> None:
    """An attempt at a bucket that does not exist names the bucket (SeaweedFS would begin it)."""
    with pytest.raises(NotFound) as error:
        mint(Bucket(moto.session, "contract-no-such-bucket").store, "a.csv", b"x")
    assert error.value.reason == "bucket_missing"


def test_a_missing_file_blames_no_endpoint(bucket: Bucket) -> None:
    """A file that is not there is no failure of its endpoint, so that no breaker counts it."""
    with pytest.raises(NotFound) as error:
        bucket.store.stat(remote_path("a.csv"))
    assert error.value.endpoint is None


def test_an_empty_file_that_changed_is_noticed(bucket: Bucket) -> None:
    """An empty file is read as a version too: with content in its place, the read refuses."""
    bucket.put("a.csv", b"")
    file = bucket.store.stat(remote_path("a.csv"))
    assert read(bucket.store, file) == b""
    bucket.put("a.csv", b"content")
    with pytest.raises(Permanent) as error:
        read(bucket.store, file)
    assert error.value.reason == "source_changed"


def test_a_version_that_was_removed_is_gone(aws: Aws) -> None:
    """A pinned version that somebody deleted for good is `source_changed`, whatever stands under the name."""
    bucket = new_bucket(emulator_session(aws), versioned=True)
    bucket.put("a.csv", b"one")
    file = bucket.store.stat(remote_path("a.csv"))
    bucket.put("a.csv", b"two")
    assert file.fingerprint.version is not None
    bucket.s3.delete_object(Bucket=bucket.name, Key="a.csv", VersionId=file.fingerprint.version)
    for range_size in (3, 0):
        with pytest.raises(Permanent) as error:
            list(bucket.store.read(file, start=0, size=range_size))
        assert error.value.reason in {"source_changed", "source_missing"}
    assert bucket.store.remove_version(file) is False
    with pytest.raises(NotFound):
        bucket.store.copy_version(file, remote_path("b.csv"))


def test_a_version_is_looked_at_by_its_id(aws: Aws) -> None:
    """Though another one stands under the name, or none; one that is gone is `source_missing`, as is one that never was."""
    bucket = new_bucket(emulator_session(aws), versioned=True)
    bucket.put("a.csv", b"one")
    first = bucket.store.stat(remote_path("a.csv"))
    version = first.fingerprint.version
    assert version is not None
    bucket.put("a.csv", b"two, longer")
    assert bucket.store.stat(remote_path("a.csv"), version=version) == first
    bucket.s3.delete_object(Bucket=bucket.name, Key="a.csv")
    assert bucket.store.stat(remote_path("a.csv"), version=version) == first
    assert read(bucket.store, first) == b"one"
    bucket.s3.delete_object(Bucket=bucket.name, Key="a.csv", VersionId=version)
    with pytest.raises(NotFound) as error:
        bucket.store.stat(remote_path("a.csv"), version=version)
    assert error.value.reason == "source_missing"


def test_a_suspended_version_pins_nothing(aws: Aws) -> None:
    """The version `null` of a bucket with suspended versions is overwritten in place, so files are pinned by etag."""
    bucket = new_bucket(emulator_session(aws), versioned=True)
    bucket.s3.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Suspended"})
    bucket.put("a.csv", b"one")
    file = bucket.store.stat(remote_path("a.csv"))
    assert file.fingerprint.version is None
    with pytest.raises(NotFound):
        bucket.store.stat(remote_path("a.csv"), version="null")
    bucket.put("a.csv", b"two")
    with pytest.raises(Permanent) as error:
        read(bucket.store, file)
    assert error.value.reason == "source_changed"


def test_a_listed_file_is_pinned_by_its_etag(aws: Aws) -> None:
    """A listing tells no version; with the etag alone a newer version is neither read nor removed."""
    bucket = new_bucket(emulator_session(aws), versioned=True)
    bucket.put("a.csv", b"one")
    (file,) = bucket.store.list("", recursive=True)
    assert isinstance(file, RemoteFile)
    bucket.put("a.csv", b"two")
    with pytest.raises(Permanent) as error:
        read(bucket.store, file)
    assert error.value.reason == "source_changed"
    assert bucket.store.remove_version(file) is False
    assert bucket.get("a.csv") == b"two"


def test_removal_is_conditional_in_itself(bucket: Bucket) -> None:
    """A file that changes between the look and the removal stays: the removal carries the etag."""
    bucket.put("a.csv", b"one")
    file = bucket.store.stat(remote_path("a.csv"))

    def changes(**_: object) -> None:
        bucket.session.s3().meta.events.unregister("before-call.s3.DeleteObject", changes)
        bucket.put("a.csv", b"newer")

    bucket.session.s3().meta.events.register("before-call.s3.DeleteObject", changes)
    assert bucket.store.remove_version(file) is False
    assert bucket.get("a.csv") == b"newer"


def test_renames_are_not_for_buckets(moto: Bucket) -> None:
    """What only renaming stores do is refused."""
    for call in (lambda: moto.store.move(remote_path("a"), remote_path("b")), lambda: moto.store.remove(remote_path("a"))):
        with pytest.raises(Permanent) as error:
            call()
        assert error.value.reason == "not_supported"


def test_archiving_keeps_what_the_file_carries(bucket: Bucket) -> None:
    """A copy keeps content type and metadata, is harmless to repeat, and never overwrites another file."""
    bucket.s3.put_object(Bucket=bucket.name, Key="p/a.csv", Body=b"one", ContentType="text/csv", Metadata={"origin": "bank"})
    file = bucket.store.stat(remote_path("a.csv"))
    for _ in range(2):
        bucket.store.copy_version(file, remote_path("old/a.csv"))
    head = bucket.s3.head_object(Bucket=bucket.name, Key="p/old/a.csv")
    assert (head["ContentType"], head["Metadata"]["origin"]) == ("text/csv", "bank")
    bucket.put("a.csv", b"the next day's")
    later = bucket.store.stat(remote_path("a.csv"))
    with pytest.raises(Permanent) as error:
        bucket.store.copy_version(later, remote_path("old/a.csv"))
    assert error.value.reason == "archive_exists"
    assert bucket.get("old/a.csv") == b"one"
    with pytest.raises(Permanent) as error:
        bucket.store.copy_version(file, remote_path("old/b.csv"))
    assert error.value.reason == "source_changed"


@pytest.mark.parametrize("by_parts", [False, True])
def test_archiving_does_not_overwrite_what_comes_meanwhile(bucket: Bucket, by_parts: bool) -> None:
    """A file that appears at the target between the look and the copy stays, however the copy is made."""
    bucket.put("a.csv", b"ours")
    store = bucket.store
    store.copy_whole_up_to = 0 if by_parts else MIB
    file = store.stat(remote_path("a.csv"))
    operation = "UploadPartCopy" if by_parts else "CopyObject"

    def appears(**_: object) -> None:
        bucket.put("old/a.csv", b"theirs")

    bucket.session.s3().meta.events.register(f"before-call.s3.{operation}", appears)
    try:
        with pytest.raises(Permanent) as error:
            store.copy_version(file, remote_path("old/a.csv"))
    finally:
        bucket.session.s3().meta.events.unregister(f"before-call.s3.{operation}", appears)
    assert error.value.reason == "archive_exists"
    assert bucket.get("old/a.csv") == b"theirs"
    assert list(store.stale_uploads(before=datetime.now(UTC) + timedelta(days=1))) == []


def test_archives_large_files_by_parts(bucket: Bucket) -> None:
    """A file that is too large for one copy is copied by parts, whole, with its metadata."""
    content = content_of(2 * MIN_PART_SIZE + 11)
    bucket.s3.put_object(Bucket=bucket.name, Key="p/a.bin", Body=content, Metadata={"origin": "bank"})
    store = bucket.store
    store.copy_whole_up_to, store.copy_part_size = MIB, MIN_PART_SIZE
    store.copy_version(store.stat(remote_path("a.bin")), remote_path("old/a.bin"))
    assert bucket.get("old/a.bin") == content
    assert bucket.s3.head_object(Bucket=bucket.name, Key="p/old/a.bin")["Metadata"]["origin"] == "bank"


# -- sink --------------------------------------------------------------------------------------------------------------


def test_an_object_names_its_transfer(bucket: Bucket) -> None:
    """A delivered object carries its transfer's id; a foreign one none."""
    _, commit = uploaded(bucket.store, "a.csv", b"ours")
    bucket.store.commit(commit)
    ours = bucket.store.look(remote_path("a.csv"))
    bucket.put("b.csv", b"theirs")
    theirs = bucket.store.look(remote_path("b.csv"))
    assert ours is not None
    assert theirs is not None
    assert (ours.transfer, theirs.transfer) == (TRANSFER, None)


def test_aws_alone_is_trusted_to_refuse_a_taken_name(moto: Bucket) -> None:
    """AWS honours If-None-Match, so that a commit there needs no look; a store with an address of its own may ignore it."""
    other = AwsSession(region=REGION, endpoint_url="http://store.test", keys=MOTO_KEYS)
    assert (moto.store.refuses_taken, Bucket(other, "bucket").store.refuses_taken) == (True, False)
    upload, commit = uploaded(moto.store, "a.csv", b"ours")
    moto.put("a.csv", b"theirs")
    with Scripted(moto.session, "HeadObject", []) as looks:
        assert moto.store.commit(commit).outcome is CommitOutcome.EXISTS
    assert (looks.met, moto.get("a.csv"), moto.store.token_exists(upload.token, upload.path)) == (0, b"theirs", True)


def test_a_commit_tells_etag_and_version(aws: Aws) -> None:
    """The answer to a commit names the version that a look at the object shows."""
    bucket = new_bucket(emulator_session(aws), versioned=True)
    _, commit = uploaded(bucket.store, "a.csv", b"ours")
    committed = bucket.store.commit(commit)
    seen = bucket.store.look(remote_path("a.csv"))
    assert seen is not None
    assert (committed.etag, committed.version) == (seen.fingerprint.etag, seen.fingerprint.version)
    assert committed.version is not None


def test_racing_commits_of_one_token_happen_once(bucket: Bucket) -> None:
    """One token committed by eight workers at once gives one object, and nobody an error that is not worth another try."""
    _, commit = uploaded(bucket.store, "a.csv", b"ours")
    outcomes: list[object] = []

    def try_it() -> None:
        try:
            outcomes.append(bucket.store.commit(commit).outcome)
        except Transient as error:
            outcomes.append(error.reason)

    threads = [threading.Thread(target=try_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bucket.get("a.csv") == b"ours"
    assert set(outcomes) <= {CommitOutcome.DONE, CommitOutcome.TOKEN_GONE, CommitOutcome.EXISTS, "conditional_conflict"}
    assert CommitOutcome.DONE in outcomes
    assert bucket.store.commit(commit).outcome in {CommitOutcome.DONE, CommitOutcome.TOKEN_GONE, CommitOutcome.EXISTS}


def test_racing_commits_of_two_tokens_deliver_one(aws: Aws) -> None:
    """Of several attempts at one free name, committed at once, one wins and the others see it."""
    bucket = new_bucket(emulator_session(aws))
    commits = [uploaded(bucket.store, "a.csv", b"attempt %d" % n, attempt=n)[1] for n in range(6)]
    outcomes: list[CommitOutcome] = []
    threads = [threading.Thread(target=lambda c=c: outcomes.append(bucket.store.commit(c).outcome)) for c in commits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [CommitOutcome.DONE] + [CommitOutcome.EXISTS] * 5


def test_a_name_that_appears_after_the_look_is_not_overwritten(bucket: Bucket) -> None:
    """A foreign object that comes between the look and the completion stays: the completion carries If-None-Match."""
    _, commit = uploaded(bucket.store, "a.csv", b"ours")

    def appears(**_: object) -> None:
        bucket.put("a.csv", b"theirs")

    bucket.session.s3().meta.events.register("before-send.s3.CompleteMultipartUpload", appears)
    try:
        assert bucket.store.commit(commit).outcome is CommitOutcome.EXISTS
    finally:
        bucket.session.s3().meta.events.unregister("before-send.s3.CompleteMultipartUpload", appears)
    assert bucket.get("a.csv") == b"theirs"


def test_a_store_without_conditions_is_looked_at_first(bucket: Bucket) -> None:
    """Where a store ignores If-None-Match, the look directly before the completion keeps a foreign object."""
    _, commit = uploaded(bucket.store, "a.csv", b"ours")
    bucket.put("a.csv", b"theirs")

    def without_condition(request: AWSPreparedRequest, **_: object) -> None:
        del request.headers["If-None-Match"]

    bucket.session.s3().meta.events.register("before-send.s3.CompleteMultipartUpload", without_condition)
    try:
        assert bucket.store.commit(commit).outcome is CommitOutcome.EXISTS
    finally:
        bucket.session.s3().meta.events.unregister("before-send.s3.CompleteMultipartUpload", without_condition)
    assert bucket.get("a.csv") == b"theirs"


def test_a_part_sent_anew_with_other_bytes_is_not_committed(aws: Aws) -> None:
    """A frozen part list does not fit parts that were replaced: nothing becomes visible."""
    bucket = new_bucket(emulator_session(aws))
    upload, commit = uploaded(bucket.store, "a.csv", b"frozen")
    write(bucket.store, upload, b"zombie", numbers=[1], fresh=False)
    assert bucket.store.commit(commit).outcome is CommitOutcome.PART_DIFFERS
    assert bucket.get("a.csv") is None


def test_the_server_judges_the_whole_by_its_checksum(bucket: Bucket) -> None:
    """A wrong CRC64NVME over the whole object is refused by the server, and the right one is kept with the object."""
    content = content_of(MIN_PART_SIZE + 7)
    _, commit = uploaded(bucket.store, "a.bin", content)
    wrong = tuple(p.model_copy(update={"crc64nvme": (p.crc64nvme or 0) ^ 1}) for p in commit.parts)
    assert bucket.store.commit(commit.model_copy(update={"parts": wrong})).outcome is CommitOutcome.PART_DIFFERS
    assert bucket.get("a.bin") is None
    assert bucket.store.commit(commit).outcome is CommitOutcome.DONE
    assert bucket.get("a.bin") == content
    assert whole_crc64nvme(commit.parts) == crc64nvme(content)


def test_another_process_knows_that_the_server_judges(bucket: Bucket) -> None:
    """A process that did not begin the upload finds out by itself that its store judges checksums, once, and leaves nothing behind."""
    _, commit = uploaded(bucket.store, "a.bin", b"content")
    assert isinstance(bucket.session.keys, StaticKeys)
    fresh = AwsSession(region=REGION, endpoint_url=bucket.session.endpoint_url, keys=bucket.session.keys)
    other = Bucket(fresh, bucket.name, prefix=bucket.prefix)
    wrong = tuple(p.model_copy(update={"crc64nvme": 7}) for p in commit.parts)
    with Scripted(fresh, "CreateMultipartUpload", []) as creates:
        for _ in range(2):
            assert other.store.commit(commit.model_copy(update={"parts": wrong})).outcome is CommitOutcome.PART_DIFFERS
    assert creates.met == 1
    assert other.store.commit(commit).outcome is CommitOutcome.DONE
    assert list(other.store.stale_uploads(before=datetime.now(UTC) + timedelta(days=1))) == []


def test_parts_are_judged_on_arrival(seaweed: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes damaged on their way are refused by the server and worth another try."""
    bucket = new_bucket(seaweed_session(seaweed))
    upload = mint(bucket.store, "a.bin", b"content")
    # What is said of the bytes is not true of them: as if they had changed on their way.
    monkeypatch.setattr("eft.adapters.s3.uploading.crc64nvme", lambda _chunk, _crc: 0)
    with pytest.raises(Transient) as error:
        write(bucket.store, upload, b"content", numbers=[1], fresh=True)
    assert error.value.reason == "part_damaged"


def test_a_store_may_be_told_that_it_knows_no_checksums(aws: Aws) -> None:
    """With checksums switched off, uploads carry none."""
    bucket = new_bucket(emulator_session(aws))
    bucket.full_object_checksum = False
    seen: list[dict[str, str]] = []

    def notice(request: AWSPreparedRequest, **_: object) -> None:
        seen.append({name.lower(): str(value) for name, value in request.headers.items()})

    events = bucket.session.s3().meta.events
    for operation in ("CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"):
        events.register(f"before-send.s3.{operation}", notice)
    _, commit = uploaded(bucket.store, "a.bin", b"content")
    assert bucket.store.commit(commit).outcome is CommitOutcome.DONE
    assert len(seen) == 3
    assert not [name for headers in seen for name in headers if "checksum" in name]


def test_chunks_short_of_their_part_are_not_sent(bucket: Bucket) -> None:
    """A part with fewer bytes than planned is refused before it is sent."""
    upload = mint(bucket.store, "a.bin", b"content")
    with pytest.raises(Transient) as error, bucket.store.upload(upload, fresh=True) as uploading:
        uploading.write(upload.plan.part(1), [b"con"])
    assert error.value.reason == "size_differs"


def test_a_broken_read_leaves_the_parts_before_it(bucket: Bucket) -> None:
    """When the source breaks in the middle of a part, the parts before it become durable and are told."""
    content = content_of(3 * MIN_PART_SIZE)
    upload = mint(bucket.store, "a.bin", content)
    plan = upload.plan

    def breaks() -> Iterator[bytes]:
        yield content[:100]
        raise Transient("cut", reason="unreachable")

    noted: list[tuple[int, str | None]] = []
    with bucket.store.upload(upload, fresh=True) as uploading:
        for number in (1, 2):
            part = plan.part(number)
            noted += uploading.write(part, [content[part.start : part.start + part.size]])
        with pytest.raises(Transient):
            uploading.write(plan.part(3), breaks())
        noted += uploading.finish()
    assert [number for number, _ in sorted(noted)] == [1, 2]
    assert all(etag for _, etag in noted)


def test_a_token_that_vanishes_while_writing_is_gone(bucket: Bucket) -> None:
    """An upload aborted under a writer's hands is `token_gone` by the end of the write."""
    content = content_of(2 * MIN_PART_SIZE)
    upload = mint(bucket.store, "a.bin", content)
    with bucket.store.upload(upload, fresh=True) as uploading:
        assert bucket.store.consume(upload.token, upload.path) is True
        uploading.write(upload.plan.part(1), [content[: upload.plan.part(1).size]])
        with pytest.raises(Permanent) as error:
            uploading.finish()
    assert error.value.reason == "token_gone"
    with pytest.raises(Permanent) as error:
        bucket.store.verify(upload)
    assert error.value.reason == "token_gone"


def test_a_commit_in_the_middle_of_an_abort_is_not_taken_for_the_abort(bucket: Bucket) -> None:
    """Whoever aborts an upload that is completed at that moment does not believe to have consumed it."""
    upload, commit = uploaded(bucket.store, "a.bin", b"content")

    def completes(**_: object) -> None:
        bucket.session.s3().meta.events.unregister("before-call.s3.AbortMultipartUpload", completes)
        assert bucket.store.commit(commit).outcome is CommitOutcome.DONE

    bucket.session.s3().meta.events.register("before-call.s3.AbortMultipartUpload", completes)
    assert bucket.store.consume(upload.token, upload.path) is False
    assert bucket.get("a.bin") == b"content"


def test_holds_at_most_two_parts(bucket: Bucket) -> None:
    """While one part is being sent and one is read, the next one waits: memory stays bounded, however slow the server is."""
    content = content_of(6 * MIN_PART_SIZE)
    upload = mint(bucket.store, "a.bin", content)
    gate, second, lock = threading.Event(), threading.Event(), threading.Lock()
    sent = 0
    held: list[int] = []

    def slow(**_: object) -> None:
        gate.wait(60)

    def done(**_: object) -> None:
        nonlocal sent
        with lock:
            sent += 1

    def run() -> None:
        with bucket.store.upload(upload, fresh=True) as uploading:
            for part in upload.plan.parts():
                with lock:
                    held.append(part.number - sent)
                if part.number == 2:
                    second.set()
                uploading.write(part, [content[part.start : part.start + part.size]])
            uploading.finish()

    events = bucket.session.s3().meta.events
    events.register("before-send.s3.UploadPart", slow)
    events.register("response-received.s3.UploadPart", done)
    writer = threading.Thread(target=run)
    writer.start()
    assert second.wait(60)
    gate.set()
    writer.join()
    events.unregister("before-send.s3.UploadPart", slow)
    events.unregister("response-received.s3.UploadPart", done)
    assert held[:2] == [1, 2]
    assert len(held) == 6
    assert max(held) == 2
    bucket.store.verify(upload)


def test_a_part_that_was_sent_again_is_not_committed_under_its_old_etag(bucket: Bucket) -> None:
    """Where etags are no hash of the bytes, two workers' sendings of a part differ: the attempt is abandoned before it is decided."""
    content = content_of(2 * MIN_PART_SIZE)
    upload = mint(bucket.store, "a.bin", content)
    parts = write(bucket.store, upload, content, numbers=[1, 2], fresh=True)
    bucket.store.verify(upload, parts)
    with pytest.raises(Transient) as error:
        bucket.store.verify(upload, [parts[0], parts[1].model_copy(update={"etag": "0" * 32})])
    assert error.value.reason == "part_differs"


# -- copies on the server's side ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2 * MIN_PART_SIZE + 3])
def test_copies_on_the_servers_side(bucket: Bucket, size: int) -> None:
    """A file of any size is copied part by part without its bytes passing through, and committed whole."""
    content = content_of(size)
    bucket.put("in/a.bin", content)
    file = bucket.store.stat(remote_path("in/a.bin"))
    upload = mint(bucket.store, "out/a.bin", content)
    assert bucket.store.copies_from(bucket.store)
    parts = copied(bucket.store, upload, file)
    bucket.store.verify(upload)
    committed = bucket.store.commit(frozen(bucket.store, upload, content, parts, overwrite=False))
    assert committed.outcome is CommitOutcome.DONE
    assert bucket.get("out/a.bin") == content
    if all(p.crc64nvme is not None for p in parts):
        assert whole_crc64nvme(parts) == crc64nvme(content)


def test_a_server_that_tells_checksums_of_copies_is_believed(seaweed: S3Server) -> None:
    """SeaweedFS tells the CRC64NVME of a part that it copied, and it is the bytes' own."""
    bucket = new_bucket(seaweed_session(seaweed))
    bucket.put("a.bin", b"content")
    upload = mint(bucket.store, "b.bin", b"content")
    (part,) = copied(bucket.store, upload, bucket.store.stat(remote_path("a.bin")))
    assert part.crc64nvme == crc64nvme(b"content")


def test_copies_only_the_pinned_version(bucket: Bucket) -> None:
    """A part copy of a file that changed is refused, one of a file that vanished too, and one into a token that is gone as well."""
    bucket.put("a.bin", b"content")
    file = bucket.store.stat(remote_path("a.bin"))
    upload = mint(bucket.store, "b.bin", b"content")
    bucket.put("a.bin", b"changed")
    with pytest.raises(Permanent) as error:
        copied(bucket.store, upload, file)
    assert error.value.reason == "source_changed"
    bucket.remove("a.bin")
    with pytest.raises(Permanent) as error:
        copied(bucket.store, upload, file)
    assert error.value.reason == "source_missing"
    bucket.put("a.bin", b"content")
    bucket.store.consume(upload.token, upload.path)
    with pytest.raises(Permanent) as error:
        copied(bucket.store, upload, bucket.store.stat(remote_path("a.bin")))
    assert error.value.reason == "token_gone"


def test_copies_between_buckets_of_one_principal_alone(aws: Aws, seaweed: S3Server) -> None:
    """Another region of the same principal is copied from; another principal's, another service's and a renaming store are not."""
    ours, other = emulator_session(aws), emulator_session(aws)
    elsewhere = AwsSession(region="us-gov-east-1", endpoint_url=aws.url, keys=ours.keys)
    stranger = AwsSession(region=REGION, endpoint_url=aws.url, keys=StaticKeys("somebody", "else"))
    store = Bucket(ours, "b").store
    assert store.copies_from(Bucket(other, "c").store)
    assert store.copies_from(Bucket(elsewhere, "c").store)
    assert not store.copies_from(Bucket(stranger, "c").store)
    assert not store.copies_from(Bucket(seaweed_session(seaweed), "c").store)
    foreign = FakeStore(FakeServer(FakeClock()))
    assert not store.copies_from(foreign)
    upload = Upload(attempt=1, token="t", path=remote_path("a"), plan=PartPlan(size=1, part_size=1))
    file = RemoteFile(path=remote_path("a"), fingerprint=Fingerprint(size=1))
    with pytest.raises(Permanent) as error:
        store.copy_part(upload, upload.plan.part(1), source=foreign, file=file)
    assert error.value.reason == "not_supported"


# -- upkeep ------------------------------------------------------------------------------------------------------------


def test_finds_uploads_left_behind(bucket: Bucket) -> None:
    """Uploads begun before a time are named with path and token, those of other prefixes never."""
    upload = mint(bucket.store, "t/1/1", b"x")
    neighbour = Bucket(bucket.session, bucket.name, prefix="p-of-another")
    mint(neighbour.store, "t/1/1", b"x")
    later = datetime.now(UTC) + timedelta(days=1)
    assert list(bucket.store.stale_uploads(before=later)) == [("t/1/1", upload.token)]
    assert list(bucket.store.stale_uploads(before=later - timedelta(days=2))) == []
    assert bucket.store.consume(upload.token, upload.path) is True
    assert list(bucket.store.stale_uploads(before=later)) == []


def test_finds_objects_past_their_time(bucket: Bucket) -> None:
    """Objects written before a time are named as versions that can be removed."""
    bucket.put("t/1/1", b"staged")
    later = datetime.now(UTC) + timedelta(days=1)
    assert list(bucket.store.stale_objects(before=later - timedelta(days=2))) == []
    (file,) = bucket.store.stale_objects(before=later)
    assert file.path == "t/1/1"
    assert bucket.store.remove_version(file) is True
    assert bucket.get("t/1/1") is None


def test_a_claimed_size_takes_no_memory(moto: Bucket) -> None:
    """A source that claims more than can be streamed is refused before a byte of it is held; the largest part that fits is planned for."""
    store, path = moto.store, remote_path("vast.bin")
    taken: list[int] = []
    plan = plan_parts(2**60, part_size=8 * MIB)
    token = store.mint(path, token=path, transfer=TRANSFER, size=plan.size, create_directories=False)

    def endless() -> Iterator[bytes]:
        for number in range(64):
            taken.append(number)
            yield bytes(MIB)

    with pytest.raises(Permanent) as error, store.upload(Upload(attempt=1, token=token, path=path, plan=plan), fresh=True) as uploading:
        uploading.write(plan.part(1), endless())
    assert (error.value.reason, taken) == ("file_too_large", [])
    assert plan_parts(2**40, part_size=8 * MIB).part_size <= LARGEST_HELD
