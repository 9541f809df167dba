"""The writing side of a bucket: the one-shot token is an upload id, the commit is CompleteMultipartUpload."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from threading import Thread
from typing import Any, Final, Literal

from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError

from eft.adapters.aws_errors import code_of, status_of
from eft.adapters.aws_http import NotSent
from eft.adapters.s3.bucket import PRECONDITION_FAILED, TRANSFER_METADATA, S3Bucket, bare, pinning, quoted
from eft.adapters.s3.direct import HEADERS, METADATA, Stored
from eft.adapters.s3.source import S3Source
from eft.adapters.s3.uploading import S3Uploading, token_gone
from eft.domain.checksum import crc64nvme, crc64nvme_base64, crc64nvme_from_base64, whole_crc64nvme
from eft.domain.fingerprint import RemoteFile
from eft.domain.names import RemotePath, display, put_by, remote_path
from eft.domain.parts import Part, PartDone
from eft.domain.transfer import Commit, Upload
from eft.errors import EftError, Permanent, Transient
from eft.ports import Bytes, CommitOutcome, Committed, Source

LOG: Final = logging.getLogger(__name__)
LANES: Final = 64
ALGORITHM: Final = "CRC64NVME"
JUDGED: Final[Any] = {"ChecksumAlgorithm": ALGORITHM, "ChecksumType": "FULL_OBJECT"}
PROBE_NAME: Final = ".eft-probe"
CONFLICT: Final = 409
REFUSED, ELSEWHERE = 4, 3
"""Hundreds of the status with which a store refuses a request, or says where to send it."""
TURNED_AWAY: Final = frozenset({"SlowDown"})
"""What AWS says with status 503 of requests that it has not carried out (Amazon S3 API, "List of error codes"). Other stores say it of what
they have written in part."""
PART_DIFFERS: Final = frozenset({"InvalidPart", "InvalidPartOrder", "EntityTooSmall", "BadDigest"})
"""The listed parts are not those uploaded, or not those that the full-object checksum speaks of."""
NO_CHECKSUMS: Final = frozenset({"InvalidArgument", "InvalidRequest", "NotImplemented"})


class S3Sink(S3Bucket):
    """`ports.Sink` on a bucket."""

    rename_mode: Literal["posix", "plain"] | None = None
    holds_parts: bool = True
    lanes: int = LANES

    @property
    def refuses_taken(self) -> bool:
        """Whether If-None-Match is known to be honoured: by AWS, and where an endpoint says so; some other stores ignore it."""
        return self._is_aws if self.place.refuses_taken is None else self.place.refuses_taken

    @property
    def puts(self) -> bool:
        """Whether `put` is offered: it goes the short way, where nothing is sent anew unasked.

        A store of which it is not known whether it judges checksums is asked now, while nothing depends on the answer.
        """
        direct = self.direct
        if not self.refuses_taken or direct is None or not direct.sends_once:
            return False
        self.judges_whole()
        return True

    def look(self, path: RemotePath) -> RemoteFile | None:
        """Returns the object under a name, with the transfer that wrote it, or None."""
        return self.standing(path)

    def mint(self, path: RemotePath, *, token: RemotePath, transfer: str, size: int, create_directories: bool) -> str:  # noqa: ARG002 - the port's
        """Returns a new upload id, with the transfer's id in its metadata. A bucket has no directories to create."""
        with self.translated():
            return self._begin(path, metadata={TRANSFER_METADATA: transfer})

    @contextmanager
    def upload(self, upload: Upload, *, fresh: bool) -> Iterator[S3Uploading]:
        """Opens the upload id for writing.

        Raises:
            Permanent: `token_gone`: it was completed or aborted.
        """
        if not fresh and not self.token_exists(upload.token, upload.path):
            raise token_gone(upload.path)
        uploading = S3Uploading(self, path=upload.path, token=upload.token, checksum=self.judges_whole())
        try:
            yield uploading
        except BaseException:
            uploading.close(broken_off=True)
            raise
        uploading.close(broken_off=False)

    def verify(self, upload: Upload, parts: Sequence[PartDone] = ()) -> None:
        """Checks that the store has exactly the planned parts, each in its size, and that they are those on record.

        A worker that stalled may have sent a part again after its etag was recorded, or recorded one that is overwritten by now.

        A single part was answered for a moment ago, and a store that judges the whole compares size, etag and checksum of it once more
        when the upload is completed.

        Raises:
            Transient: `size_differs`, `part_differs`; Permanent: `token_gone`.
        """
        if upload.plan.count == 1 and self._judgement:
            return
        try:
            pages = list(self.pages("list_parts", Key=self.key(upload.path), UploadId=upload.token))
        except Permanent as error:
            if isinstance(error.__cause__, ClientError) and code_of(error.__cause__) == "NoSuchUpload":
                raise token_gone(upload.path) from error
            raise
        # By number: SeaweedFS lists a part that was sent twice twice.
        listed = {part["PartNumber"]: part for page in pages for part in page.get("Parts", [])}
        stored = {number: part["Size"] for number, part in listed.items()}
        if stored != {part.number: part.size for part in upload.plan.parts()}:
            raise Transient(
                f"the store has {len(stored)} parts with {sum(stored.values())} bytes of '{upload.path}' "
                f"instead of {upload.plan.count} with {upload.plan.size}",
                reason="size_differs",
            )
        for part in parts:
            if part.etag is not None and part.etag != bare(listed[part.number]["ETag"]):
                msg = f"part {part.number} of '{upload.path}' is not the one that was recorded: two workers sent it"
                raise Transient(msg, reason="part_differs")

    def read_back(self, upload: Upload) -> Iterator[Bytes] | None:  # noqa: ARG002 - the port's
        """Returns None: S3 does not show an upload before it is complete."""
        return None

    def commit(self, commit: Commit) -> Committed:
        """Completes the upload with exactly the frozen parts, under If-None-Match unless overwriting.

        Where the store judges it, a CRC64NVME over the whole object goes along. Stores that may ignore If-None-Match are asked directly
        before whether the name is free.

        Raises:
            Transient: `conditional_conflict` and what else may pass; nothing is decided, and repeating it is safe.
        """
        if put_by(commit.token) is not None:
            return Committed(outcome=CommitOutcome.TOKEN_GONE)
        if not commit.overwrite and not self.refuses_taken and self.standing(remote_path(commit.path)) is not None:
            return Committed(outcome=CommitOutcome.EXISTS)
        parts = [(part.number, quoted(part.etag or "")) for part in commit.parts]
        with self.translated():
            asked = {"MpuObjectSize": commit.size, **self._conditions(commit)}
            if direct := self.direct:
                headers = {HEADERS[name]: str(value) for name, value in asked.items()}
                done = direct.complete(self.bucket, self.key(commit.path), upload=commit.token, parts=parts, headers=headers)
                if done is not None:
                    return Committed(outcome=CommitOutcome.DONE, etag=bare(done.etag), version=pinning(done.version))
            try:
                answer = self.s3.complete_multipart_upload(
                    Bucket=self.bucket,
                    Key=self.key(commit.path),
                    UploadId=commit.token,
                    MultipartUpload={"Parts": [{"PartNumber": number, "ETag": etag} for number, etag in parts]},
                    **asked,
                )
            except ClientError as error:
                return self._outcome_of(error)
        return Committed(outcome=CommitOutcome.DONE, etag=bare(answer["ETag"]), version=pinning(answer.get("VersionId")))

    def put(self, commit: Commit, pieces: Sequence[Bytes], *, asked_at: datetime) -> Committed:
        """Writes the whole object under If-None-Match by one request, sent once.

        An answer says whether it was stored, unless a server in trouble gave it: what that has done is not known.

        Raises:
            Transient: `answer_lost`.
        """
        direct = self.direct
        if direct is None or not direct.sends_once:
            raise Permanent("an object is put where what is sent is known to be sent once", reason="not_supported")
        asked = {"IfNoneMatch": "*", **self.encryption()} | ({"ChecksumCRC64NVME": _whole(commit)} if self._judgement else {})
        headers = {f"{METADATA}{TRANSFER_METADATA}": put_by(commit.token) or ""} | {HEADERS[name]: value for name, value in asked.items()}
        try:
            said = direct.put(self.bucket, self.key(commit.path), pieces=pieces, headers=headers, signed_at=asked_at)
        except NotSent as error:
            cause = error.__cause__
            known = cause if isinstance(cause, ClientError | BotoCoreError) else EndpointConnectionError(endpoint_url=self.bucket)
            return self._not_stored(known)
        except (BotoCoreError, OSError) as error:
            raise self._lost(commit, type(error).__name__) from error
        if isinstance(said, Stored):
            return Committed(outcome=CommitOutcome.DONE, etag=bare(said.etag), version=pinning(said.version))
        code, status = code_of(said), status_of(said)
        if code in PRECONDITION_FAILED:
            return Committed(outcome=CommitOutcome.EXISTS)
        if status // 100 == REFUSED or (self._is_aws and code in TURNED_AWAY):
            return self._not_stored(said)
        if status // 100 == ELSEWHERE:
            return Committed(outcome=CommitOutcome.NOT_STORED)
        # A success that tells no etag, a server or a gateway in trouble.
        raise self._lost(commit, f"{status} {code}")

    def _not_stored(self, error: ClientError | BotoCoreError) -> Committed:
        try:
            with self.translated():
                raise error
        except EftError as why:
            return Committed(outcome=CommitOutcome.NOT_STORED, why=why)

    def _lost(self, commit: Commit, cause: str) -> Transient:
        msg = f"the answer to the upload of '{commit.path}' was lost ({display(cause)})"
        return Transient(msg, reason="answer_lost", endpoint=self.place.endpoint)

    def token_exists(self, token: str, path: RemotePath) -> bool:
        """Returns whether the upload id is neither completed nor aborted."""
        if put_by(token) is not None:
            return False
        with self.translated():
            try:
                self.s3.list_parts(Bucket=self.bucket, Key=self.key(path), UploadId=token, MaxParts=1)
            except ClientError as error:
                if code_of(error) == "NoSuchUpload":
                    return False
                raise
        return True

    def consume(self, token: str, path: RemotePath) -> bool:
        """Aborts the upload; returns True only if it was this that ended it.

        Some stores answer an abort with success whether or not they know the upload, so the answer alone proves nothing:
        the upload is seen before and gone afterwards, and no other object came to stand under the name in between.

        Raises:
            Transient: `token_remains`: the store took the abort and has the upload still.
        """
        before = self.look(path)
        if (putter := put_by(token)) is not None:
            return before is None or before.transfer != putter
        if not self.token_exists(token, path):
            return False
        with self.translated():
            try:
                self.s3.abort_multipart_upload(Bucket=self.bucket, Key=self.key(path), UploadId=token)
            except ClientError as error:
                if code_of(error) == "NoSuchUpload":
                    return False
                raise
        if self.token_exists(token, path):
            raise Transient(f"the upload to '{path}' is there still after its abort", reason="token_remains")
        after = self.look(path)
        return after is None or (before is not None and after.fingerprint == before.fingerprint)

    def copies_from(self, source: Source) -> bool:
        """Returns whether the source is a bucket of the same service that the same principal reaches."""
        return isinstance(source, S3Source) and source.session.principal == self.session.principal

    def copy_part(self, upload: Upload, part: Part, *, source: Source, file: RemoteFile) -> PartDone:
        """Copies one part on the server's side, from the file's version.

        Raises:
            Permanent: `source_changed`, `source_missing`, `token_gone`.
        """
        if not isinstance(source, S3Source):
            raise Permanent("only a bucket is copied from on the server's side", reason="not_supported")
        if part.size == 0:
            return self._copy_nothing(upload, part, source, file)
        with source.pinned(file.path):
            try:
                copied = self.s3.upload_part_copy(
                    Bucket=self.bucket,
                    Key=self.key(upload.path),
                    UploadId=upload.token,
                    PartNumber=part.number,
                    CopySourceRange=f"bytes={part.start}-{part.start + part.size - 1}",
                    **source.copy_source(file),
                )["CopyPartResult"]
            except ClientError as error:
                if code_of(error) == "NoSuchUpload":
                    raise token_gone(upload.path) from error
                raise
        crc = crc64nvme_from_base64(copied.get("ChecksumCRC64NVME"))
        return PartDone(number=part.number, size=part.size, crc64nvme=crc, etag=bare(copied["ETag"]))

    @property
    def _is_aws(self) -> bool:
        return self.session.endpoint_url is None

    def _begin(self, path: str, *, metadata: dict[str, str]) -> str:
        """Creates an upload that is judged by a full-object checksum where the store can, and notes whether it can."""
        asked: dict[str, Any] = {"Bucket": self.bucket, "Key": self.key(path), "Metadata": metadata, **self.encryption()}
        if (direct := self.direct) and self._judgement is not None:
            told = {f"{METADATA}{name}": value for name, value in metadata.items()}
            told |= {HEADERS[name]: value for name, value in {**self.encryption(), **(JUDGED if self._judgement else {})}.items()}
            if (begun := direct.begin(self.bucket, self.key(path), headers=told)) is not None:
                return begun
        if self.place.full_object_checksum is False:
            return self.s3.create_multipart_upload(**asked)["UploadId"]
        try:
            answer = self.s3.create_multipart_upload(**asked, **JUDGED)
        except ClientError as error:
            if self._is_aws or code_of(error) not in NO_CHECKSUMS:
                raise
            self.session.capabilities[ALGORITHM] = False
            return self.s3.create_multipart_upload(**asked)["UploadId"]
        self.session.capabilities[ALGORITHM] = answer.get("ChecksumAlgorithm") == ALGORITHM
        return answer["UploadId"]

    def judges_whole(self) -> bool:
        """Returns whether the store judges full-object checksums; one that is not known is asked by an upload begun and aborted."""
        if self._judgement is None:
            with self.translated():
                probe = self._begin(PROBE_NAME, metadata={})
            # Some stores take seconds over it, and nobody has to wait for that.
            Thread(target=self._abort_probe, args=(probe,), name="s3-probe", daemon=True).start()
        return bool(self._judgement)

    def _abort_probe(self, upload: str) -> None:
        # One that stays holds nothing, and goes as others do that nobody completes.
        try:
            self.s3.abort_multipart_upload(Bucket=self.bucket, Key=self.key(PROBE_NAME), UploadId=upload)
        except (ClientError, BotoCoreError):
            LOG.warning("an upload that was begun to try a bucket out is left", extra={"bucket": self.bucket}, exc_info=True)

    @property
    def _judgement(self) -> bool | None:
        if self.place.full_object_checksum is not None:
            return self.place.full_object_checksum
        return True if self._is_aws else self.session.capabilities.get(ALGORITHM)

    def _conditions(self, commit: Commit) -> dict[str, Any]:
        conditions: dict[str, Any] = {}
        if not commit.overwrite:
            conditions["IfNoneMatch"] = "*"
        crc = whole_crc64nvme(commit.parts)
        if crc is not None and self.judges_whole():
            conditions |= {"ChecksumCRC64NVME": crc64nvme_base64(crc), "ChecksumType": "FULL_OBJECT"}
        return conditions

    def _outcome_of(self, error: ClientError) -> Committed:
        code = code_of(error)
        if code in PRECONDITION_FAILED:
            return Committed(outcome=CommitOutcome.EXISTS)
        if code == "NoSuchUpload":
            return Committed(outcome=CommitOutcome.TOKEN_GONE)
        if code in PART_DIFFERS:
            return Committed(outcome=CommitOutcome.PART_DIFFERS)
        if status_of(error) == CONFLICT:
            raise Transient(
                f"bucket '{self.bucket}' was writing the same name at that moment ({code})", reason="conditional_conflict"
            ) from error
        raise error

    def _copy_nothing(self, upload: Upload, part: Part, source: S3Source, file: RemoteFile) -> PartDone:
        """An empty file has no range to copy: its one part is written."""
        for _ in source.read(file, start=part.start, size=0):
            pass
        with self.upload(upload, fresh=True) as uploading:
            uploading.write(part, [])
            ((number, etag),) = uploading.finish()
        return PartDone(number=number, size=0, crc64nvme=crc64nvme(b""), etag=etag)


def _whole(commit: Commit) -> str:
    return crc64nvme_base64(whole_crc64nvme(commit.parts) or 0)
