"""The reading side of a bucket: listing, reads pinned to a version, disposal by version."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from botocore.exceptions import ClientError

from eft.adapters.aws_errors import code_of
from eft.adapters.buffers import BUFFERS
from eft.adapters.s3.bucket import NOT_FOUND, OUT_OF_RANGE, PRECONDITION_FAILED, VERSION_GONE, S3Bucket, bare, pin, quoted
from eft.domain.fingerprint import Fingerprint, RefusedName, RemoteFile
from eft.domain.names import RemotePath, display, is_token, remote_path
from eft.domain.parts import MAX_PART_SIZE, MIB, PartPlan
from eft.errors import NotFound, Permanent, Transient
from eft.ports import Bytes, MoveOutcome, Whole

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, HeadObjectOutputTypeDef, ObjectTypeDef

COPY_WHOLE_UP_TO: Final = MAX_PART_SIZE
"""Bytes that one CopyObject takes (Amazon S3 API, CopyObject)."""
COPY_PART: Final = 512 * MIB
SOURCE_METADATA: Final = "eft-source"
"""User metadata of a copy: the version that it was made from, so that a repeated copy knows its own."""
CARRIED: Final = (
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    "Expires",
)
"""Headers that a copy keeps."""


_SPAN: Final = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)")
"""Content-Range: first byte, last byte, size (RFC 9110, 14.4)."""


@dataclass(slots=True)
class _Fetched:
    """A range of a file's version that a store is sending."""

    file: RemoteFile
    body: Any
    """Closed before its end, it takes its connection with it, which cannot serve another request."""
    at: int
    """The byte that comes next."""
    end: int


class S3Source(S3Bucket):
    """`ports.Source` on a bucket. For one thread, which lets go at the end."""

    pins_versions: bool = True
    copy_whole_up_to = COPY_WHOLE_UP_TO
    copy_part_size = COPY_PART
    _kept: _Fetched | None = None
    """What is left of the last range, for whoever goes on with it."""

    def list(
        self,
        directory: str,
        *,
        recursive: bool,
        disposals: bool = False,  # noqa: ARG002 - the port's; a bucket renames nothing
    ) -> Iterator[RemoteFile | RefusedName]:
        """Yields the objects below a directory; a key that is no path in normal form is refused, for it could not be found again.

        A bucket has no directories: one that does not exist lists as empty. Keys that end in a slash are the folder
        markers of consoles, and no files. A listing shows no version ids.
        """
        prefix = self.key(f"{directory}/" if directory else "")
        delimited: dict[str, Any] = {} if recursive else {"Delimiter": "/"}
        for page in self.pages("list_objects_v2", Prefix=prefix, **delimited):
            for entry in page.get("Contents", []):
                # A store that leaves a key out has listed nothing that could be asked for.
                key = entry.get("Key", "/")
                if not key.endswith("/") and not is_token(key):
                    yield self._listed(entry)

    def stat(self, path: RemotePath, *, version: str | None = None) -> RemoteFile:
        """Returns the object as it is now, or a version of it by its id.

        Raises:
            NotFound: `source_missing`, or `bucket_missing`.
        """
        found = self.standing(path, version=version)
        if found is None or version not in {None, found.fingerprint.version}:
            raise self._missing(path)
        return found

    def read(self, file: RemoteFile, *, start: int, size: int, until: int | None = None) -> Iterator[Bytes]:
        """Yields exactly the bytes [start, start + size) of the file's version. One request brings all up to `until`, read by read.

        Raises:
            Permanent: `source_changed`, `source_missing`, `source_archived`.
            Transient: `aws_unavailable`: the answer was cut off, or is not the range that was asked for.
        """
        if size == 0:
            self._see_that_version_stands(file)
            return
        end = start + size
        resumed = self._resumed(file, start, end)
        fetched = resumed or self._fetched(file, start, end, until=until)
        try:
            while fetched.at < end:
                try:
                    yield from self._bytes(fetched, end)
                except Transient:
                    if fetched is not resumed:
                        raise
                    # While the part before was written nobody read, and a store may have lost patience: that is no failure of the source's.
                    fetched.body.close()
                    fetched = self._fetched(file, fetched.at, end, until=until)
            if fetched.at < fetched.end:
                self._kept = fetched
        finally:
            if self._kept is not fetched:
                fetched.body.close()

    def let_go(self) -> None:
        """Gives up what was asked for along with what was read."""
        if self._kept is not None:
            self._kept.body.close()
            self._kept = None

    def whole(self, path: RemotePath, *, limit: int, version: str | None = None, listed: bool = False) -> Whole:  # noqa: ARG002 - the port's
        """Reads a small object, or a version of it, by one request, whose answer is of one version from its headers to its last byte.

        Returns it without bytes where it is larger than `limit`.

        Raises:
            NotFound: `source_missing`, or `bucket_missing`.
            Permanent: `source_changed`, `source_archived`.
            Transient: `aws_unavailable`: the answer was cut off.
        """
        answer = self._first(path, size=max(limit, 1), version=version)
        if answer is None:
            return self._looked_at_and_read(path, limit=limit, version=version)
        body: Any = answer["Body"]
        try:
            if (size := _size(answer)) is None:
                return self._looked_at_and_read(path, limit=limit, version=version)
            file = self.found(path, cast("HeadObjectOutputTypeDef", {**answer, "ContentLength": size}))
            if version not in {None, file.fingerprint.version}:
                raise self._missing(path)
            return file, list(self._bytes(_Fetched(file, body, 0, size), size)) if size <= limit else []
        finally:
            body.close()

    def move(self, path: RemotePath, to: RemotePath, *, create_directories: bool = False) -> MoveOutcome:  # noqa: ARG002 - the port's
        """Is not offered: a bucket disposes by version."""
        raise Permanent(f"'{path}' is in a bucket, which does not rename", reason="not_supported")

    def remove(self, path: RemotePath) -> bool:
        """Is not offered: a bucket disposes by version."""
        raise Permanent(f"'{path}' is in a bucket, which removes by version", reason="not_supported")

    def remove_version(self, file: RemoteFile) -> bool:
        """Removes this very version, for good by its id, else with If-Match on its etag; returns False if it does not stand there.

        A store that ignores If-Match is guarded by the look directly before alone. Where the bucket keeps versions
        but the file's is not known, the object gets a delete marker and its content stays.
        """
        head = self.head(file.path, version=file.fingerprint.version)
        if head is None or not self.found(file.path, head).fingerprint.matches(file.fingerprint):
            return False
        with self.translated():
            try:
                self.s3.delete_object(Bucket=self.bucket, Key=self.key(file.path), **pin(file))
            except ClientError as error:
                if code_of(error) in NOT_FOUND | VERSION_GONE | PRECONDITION_FAILED:
                    return False
                raise
        return True

    def copy_version(self, file: RemoteFile, to: RemotePath) -> None:
        """Copies this very version, with its headers and metadata, to another path of the same bucket. Repeating it is harmless.

        Raises:
            NotFound: `source_missing`; Permanent: `source_changed`.
            Permanent: `archive_exists`: another object stands at the target, and it is not overwritten.
        """
        head = self.head(file.path, version=file.fingerprint.version)
        if head is None:
            raise NotFound(f"'{file.path}' does not exist", reason="source_missing")
        if not self.found(file.path, head).fingerprint.matches(file.fingerprint):
            raise Permanent(f"'{file.path}' is not the version any more that was accepted", reason="source_changed")
        mark = _mark(file)
        if (standing := self.head(to)) is not None:
            if standing.get("Metadata", {}).get(SOURCE_METADATA) == mark:
                return
            raise _taken(to)
        carried = self._carried(head, mark)
        with self.pinned(file.path):
            try:
                if file.size <= self.copy_whole_up_to:
                    self._copy_whole(file, to, carried)
                else:
                    self._copy_by_parts(file, to, carried)
            except ClientError as error:
                if code_of(error) in PRECONDITION_FAILED and self.head(to) is not None:
                    raise _taken(to) from error
                raise

    def copy_source(self, file: RemoteFile) -> dict[str, Any]:
        """Returns the arguments by which a copy names this very version as its source."""
        source = {"Bucket": self.bucket, "Key": self.key(file.path)}
        pinned = pin(file, prefix="CopySource")
        version = pinned.pop("VersionId", None)
        return {"CopySource": source if version is None else {**source, "VersionId": version}, **pinned}

    def _listed(self, entry: ObjectTypeDef) -> RemoteFile | RefusedName:
        below = entry["Key"].removeprefix(self.root)
        with self.translated():
            fingerprint = self._listed_version(entry)
        try:
            path = remote_path(below)
        except Permanent as error:
            return RefusedName(shown=display(below), why=str(error), fingerprint=fingerprint)
        if path != below:
            return RefusedName(shown=display(below), why="has an empty component ('//')", fingerprint=fingerprint)
        return RemoteFile(path=path, fingerprint=fingerprint)

    @staticmethod
    def _listed_version(entry: ObjectTypeDef) -> Fingerprint:
        # Whole seconds, as a HEAD's header has them: some stores list milliseconds, and a version must look the same both ways.
        modified = entry["LastModified"].replace(microsecond=0)
        return Fingerprint(size=entry["Size"], modified=modified, etag=bare(entry["ETag"]))

    def _resumed(self, file: RemoteFile, start: int, end: int) -> _Fetched | None:
        """Returns what is left of the last range if it goes on with these bytes; anything else is given up."""
        kept = self._kept
        if kept is None or kept.file != file or kept.at != start or kept.end < end:
            self.let_go()
            return None
        self._kept = None
        return kept

    def _fetched(self, file: RemoteFile, start: int, end: int, *, until: int | None) -> _Fetched:
        asked = max(end, until or end)
        with self.pinned(file.path):
            answer = self._range(file, start, asked - start)
        try:
            return _Fetched(file, answer["Body"], start, self._end_of(file, answer, start=start, end=end, asked=asked))
        except BaseException:
            answer["Body"].close()
            raise

    def _range(self, file: RemoteFile, start: int, size: int) -> GetObjectOutputTypeDef:
        pinned, key = pin(file), self.key(file.path)
        if direct := self.direct:
            version, if_match = pinned.get("VersionId"), pinned.get("IfMatch")
            answer = direct.get(self.bucket, key, start=start, size=size, version=version, if_match=if_match)
            if answer is not None:
                return cast("GetObjectOutputTypeDef", answer)
        return self.s3.get_object(Bucket=self.bucket, Key=key, Range=f"bytes={start}-{start + size - 1}", **pinned)

    def _first(self, path: RemotePath, *, size: int, version: str | None) -> GetObjectOutputTypeDef | None:
        """Returns an object's headers with a body of its first bytes; None where the store has none to give, as of an empty one."""
        which: dict[str, Any] = {} if version is None else {"VersionId": version}
        with self.pinned(path):
            answer = direct.first(self.bucket, self.key(path), size=size, version=version) if (direct := self.direct) else None
            if answer is not None:
                return None if isinstance(answer, str) else answer
            try:
                return self.s3.get_object(Bucket=self.bucket, Key=self.key(path), Range=f"bytes=0-{size - 1}", **which)
            except ClientError as error:
                if code_of(error) in OUT_OF_RANGE:
                    return None
                if code_of(error) in NOT_FOUND | VERSION_GONE:
                    raise self._missing(path) from error
                raise

    def _looked_at_and_read(self, path: RemotePath, *, limit: int, version: str | None) -> Whole:
        file = self.stat(path, version=version)
        return file, list(self.read(file, start=0, size=file.size)) if 0 < file.size <= limit else []

    def _bytes(self, fetched: _Fetched, end: int) -> Iterator[Bytes]:
        """Yields what comes up to `end`, which the body holds."""
        while left := end - fetched.at:
            buffer = BUFFERS.take()
            view = memoryview(buffer)
            # Given back while it is looked into: it serves again once whoever gets the bytes has let go of them.
            BUFFERS.give(buffer)
            with self.translated():
                filled = fetched.body.readinto(view[:left])
            if not filled:
                raise self._cut_short(fetched.file)
            fetched.at += filled
            yield view[:filled]

    def _missing(self, path: RemotePath) -> NotFound:
        """Returns the error of an object that is not there, once its bucket is seen: some answers are 404 for either."""
        with self.translated():
            self.s3.list_objects_v2(Bucket=self.bucket, Prefix=self.root, MaxKeys=1)
        return NotFound(f"'{path}' does not exist", reason="source_missing")

    def _see_that_version_stands(self, file: RemoteFile) -> None:
        with self.pinned(file.path):
            self.s3.head_object(Bucket=self.bucket, Key=self.key(file.path), **pin(file))

    def _end_of(self, file: RemoteFile, answer: GetObjectOutputTypeDef, *, start: int, end: int, asked: int) -> int:
        """Returns where the bytes end that are sent, of those that were `asked` for: at `end` at least.

        A store without ranges answers with the whole object, one that sends but so much at a time with less, and a file that is shorter
        than it was with what is left of it.
        """
        span = cast("str | None", answer.get("ContentRange"))
        first, after = -1, -1
        if span is None and end - start == file.size:
            first, after = 0, file.size
        elif span is not None and (told := _SPAN.fullmatch(span)):
            first, after = int(told[1]), int(told[2]) + 1
        if first == start and end <= after <= asked and answer.get("ContentLength", after - start) == after - start:
            return after
        if span is not None:
            raise Permanent(f"'{file.path}' is shorter than the version that was accepted", reason="source_changed")
        raise Permanent(f"the store of bucket '{self.bucket}' does not serve ranges", reason="ranges_missing", endpoint=self.place.endpoint)

    def _cut_short(self, file: RemoteFile) -> Transient:
        return Transient(f"the answer with '{file.path}' was cut short", reason="aws_unavailable", endpoint=self.place.endpoint)

    def _carried(self, head: HeadObjectOutputTypeDef, mark: str) -> dict[str, Any]:
        kept: dict[str, Any] = {name: head[name] for name in CARRIED if head.get(name)}
        # Headers carry ASCII alone; what a store shows beyond that cannot be sent back.
        metadata = {name: value for name, value in head.get("Metadata", {}).items() if name.isascii() and value.isascii()}
        return {**kept, "Metadata": {**metadata, SOURCE_METADATA: mark}, **self.encryption()}

    def _copy_whole(self, file: RemoteFile, to: RemotePath, carried: dict[str, Any]) -> None:
        self.s3.copy_object(
            Bucket=self.bucket,
            Key=self.key(to),
            MetadataDirective="REPLACE",
            IfNoneMatch="*",
            **self.copy_source(file),
            **carried,
        )

    def _copy_by_parts(self, file: RemoteFile, to: RemotePath, carried: dict[str, Any]) -> None:
        key = self.key(to)
        upload = self.s3.create_multipart_upload(Bucket=self.bucket, Key=key, **carried)["UploadId"]
        try:
            etags = [
                self.s3.upload_part_copy(
                    Bucket=self.bucket,
                    Key=key,
                    UploadId=upload,
                    PartNumber=part.number,
                    CopySourceRange=f"bytes={part.start}-{part.start + part.size - 1}",
                    **self.copy_source(file),
                )["CopyPartResult"]["ETag"]
                for part in PartPlan(size=file.size, part_size=self.copy_part_size).parts()
            ]
            self.s3.complete_multipart_upload(
                Bucket=self.bucket,
                Key=key,
                UploadId=upload,
                IfNoneMatch="*",
                MultipartUpload={"Parts": [{"PartNumber": n, "ETag": quoted(bare(etag))} for n, etag in enumerate(etags, 1)]},
            )
        except BaseException:
            self.s3.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)
            raise


def _size(answer: GetObjectOutputTypeDef) -> int | None:
    """Returns the size of an object whose first bytes came; None where the answer does not tell, or is of other bytes."""
    span = answer.get("ContentRange")
    if span is None:
        return answer.get("ContentLength")
    told = _SPAN.fullmatch(span)
    if told is None or int(told[1]) or told[3] == "*" or answer.get("ContentLength", int(told[2]) + 1) != int(told[2]) + 1:
        return None
    return int(told[3])


def _mark(file: RemoteFile) -> str:
    return file.fingerprint.version or file.fingerprint.etag or ""


def _taken(to: RemotePath) -> Permanent:
    return Permanent(f"another file stands at '{to}' already", reason="archive_exists")
