"""One bucket below one prefix, as one principal reaches it: what the reading and the writing side share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from botocore.exceptions import ClientError

from eft.adapters.aws import AwsSession
from eft.adapters.aws_errors import code_of, translated
from eft.adapters.s3.direct import S3Direct
from eft.domain.fingerprint import Fingerprint, RemoteFile
from eft.domain.names import RemotePath
from eft.errors import EftError, NotFound, Permanent, Transient

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

TRANSFER_METADATA: Final = "eft-transfer"
"""User metadata that names the transfer which wrote an object: x-amz-meta-eft-transfer."""
NOT_FOUND: Final = frozenset({"404", "NoSuchKey", "NotFound"})
VERSION_GONE: Final = frozenset({"NoSuchVersion", "405", "MethodNotAllowed"})
"""405: the version is a delete marker (Amazon S3 API, GetObject)."""
PRECONDITION_FAILED: Final = frozenset({"412", "PreconditionFailed"})
OUT_OF_RANGE: Final = frozenset({"416", "InvalidRange"})
BAD_REQUEST: Final = "400"
_Paged = Literal["list_multipart_uploads", "list_objects_v2", "list_parts"]


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket, a prefix in it without slashes at its ends, and how objects there are written."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    """Id of the endpoint, whose circuit breaker counts errors."""
    kms_key: str | None = None
    full_object_checksum: bool | None = None
    """Whether the store judges a CRC64NVME over the whole object; None: AWS does, any other store is asked."""
    refuses_taken: bool | None = None
    """Whether it honours If-None-Match; None: AWS does, any other store may ignore it."""


class S3Bucket:
    """A bucket's objects by path, and the errors of reaching them."""

    far: bool = False
    """S3 takes as many streams from elsewhere as from next door, and each at its speed."""

    def __init__(self, session: AwsSession, place: Place) -> None:
        self.session = session
        self.place = place

    @property
    def s3(self) -> S3Client:
        """The client, from the session each time: a renewed session has a new one."""
        return self.session.s3()

    @property
    def direct(self) -> S3Direct | None:
        """The short way to S3, which takes the first of several tries; None where there is but one."""
        return self.session.beside("s3", S3Direct) if self.session.tries > 1 else None

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self.place.bucket

    @property
    def root(self) -> str:
        """What every key begins with: empty, or the prefix and a slash."""
        return f"{self.place.prefix}/" if self.place.prefix else ""

    def key(self, path: str) -> str:
        """Returns the key of a path."""
        return self.root + path

    def encryption(self) -> dict[str, Any]:
        """Returns the arguments that have an object encrypted under the endpoint's key."""
        if self.place.kms_key is None:
            return {}
        return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.place.kms_key}

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raises `eft.errors` for what botocore raises in the block.

        A customer's store may answer anything: what botocore's parsers and our readers meet there is the store's fault, and transient.
        """
        try:
            with translated(f"bucket '{self.bucket}'", endpoint=self.place.endpoint, session=self.session):
                yield
        except (KeyError, ValueError) as error:
            if isinstance(error, EftError):
                raise
            raise Transient(
                f"bucket '{self.bucket}' answers with something that makes no sense ({type(error).__name__}); it is tried again",
                reason="answer_malformed",
                endpoint=self.place.endpoint,
            ) from error

    def pages(self, operation: _Paged, **which: Any) -> Iterator[Any]:  # noqa: ANN401 - as boto3 has it
        """Yields the pages of a listing of this bucket; errors of fetching one are ours, those of its user are not."""
        with self.translated():
            # Overloaded on literal names; the callers know what their operation's pages hold.
            pages = iter(cast("Any", self.s3).get_paginator(operation).paginate(Bucket=self.bucket, **which))
        while True:
            with self.translated():
                page = next(pages, None)
            if page is None:
                return
            yield page

    def head(self, path: str, *, version: str | None = None) -> HeadObjectOutputTypeDef | None:
        """Returns an object's headers, or None if there is none (also where the bucket is missing: HEAD does not tell)."""
        which: dict[str, Any] = {} if version is None else {"VersionId": version}
        with self.translated():
            try:
                return self.s3.head_object(Bucket=self.bucket, Key=self.key(path), **which)
            except ClientError as error:
                if code_of(error) in NOT_FOUND | VERSION_GONE:
                    return None
                if code_of(error) == BAD_REQUEST:
                    # An answer to HEAD has no body. The same question by GET says why: an expired credential, another region.
                    self.s3.get_object(Bucket=self.bucket, Key=self.key(path), Range="bytes=0-0", **which)["Body"].close()
                raise

    def standing(self, path: RemotePath, *, version: str | None = None) -> RemoteFile | None:
        """Returns the object under a name as it is now, or a version of it, with the transfer that wrote it, or None."""
        with self.translated():
            head = direct.head(self.bucket, self.key(path), version=version) if (direct := self.direct) else None
        if head is None:
            head = self.head(path, version=version)
        return None if head is None or isinstance(head, str) else self.found(path, head)

    def found(self, path: RemotePath, head: HeadObjectOutputTypeDef) -> RemoteFile:
        """Returns the remote file that headers speak of.

        Raises:
            Transient: `answer_malformed`: they do not say what it takes.
        """
        with self.translated():
            fingerprint = Fingerprint(
                size=head["ContentLength"],
                modified=head["LastModified"],
                etag=bare(head["ETag"]),
                version=pinning(head.get("VersionId")),
            )
        return RemoteFile(path=path, fingerprint=fingerprint, transfer=head.get("Metadata", {}).get(TRANSFER_METADATA))

    @contextmanager
    def pinned(self, path: str) -> Iterator[None]:
        """Raises `source_changed` or `source_missing` where the block finds another version than it asked for, or none."""
        with self.translated():
            try:
                yield
            except ClientError as error:
                if (refusal := self._not_that_version(path, error)) is not None:
                    raise refusal from error
                raise

    def _not_that_version(self, path: str, error: ClientError) -> Permanent | None:
        # None of these is the endpoint's fault, so none counts against it.
        code = code_of(error)
        if code in NOT_FOUND:
            return NotFound(f"'{path}' does not exist", reason="source_missing")
        if code in VERSION_GONE | PRECONDITION_FAILED | OUT_OF_RANGE:
            return Permanent(f"'{path}' is not the version any more that was accepted", reason="source_changed")
        if code == "InvalidObjectState":
            return Permanent(f"'{path}' is archived; restore it in its bucket first", reason="source_archived")
        return None


def pin(file: RemoteFile, *, prefix: str = "") -> dict[str, Any]:
    """Returns the arguments that hold a request to a file's version: its id, or else its etag (`<prefix>IfMatch`)."""
    fingerprint = file.fingerprint
    if fingerprint.version is not None:
        return {"VersionId": fingerprint.version}
    return {} if fingerprint.etag is None else {f"{prefix}IfMatch": quoted(fingerprint.etag)}


def bare(etag: str) -> str:
    """Returns an etag without its quotes, the form in which fingerprints and parts hold it; some stores leave them out."""
    return etag.strip('"')


def quoted(etag: str) -> str:
    """Returns an etag as headers have it (RFC 9110, 8.8.3)."""
    return f'"{etag}"'


def pinning(version: str | None) -> str | None:
    """Returns a version id that pins content; `null` does not: it is overwritten in place (S3 User Guide, "Suspending versioning")."""
    return None if version in {None, "", "null"} else version
