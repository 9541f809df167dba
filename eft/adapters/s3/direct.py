"""The requests to S3 that every file is made of, on the short way (aws_direct.py); each returns None where boto3 is to be asked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from html import unescape
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote
from xml.sax.saxutils import escape

from botocore.exceptions import BotoCoreError, ClientError
from botocore.response import StreamingBody

from eft.adapters.aws_direct import Direct
from eft.adapters.aws_http import Answer, NotSent
from eft.adapters.aws_signature import UNSIGNED
from eft.ports import Bytes

if TYPE_CHECKING:
    import botocore.session
    from botocore.awsrequest import AWSResponse
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, HeadObjectOutputTypeDef

OK, PARTIAL, MISSING, NOT_SATISFIABLE = 200, 206, 404, 416
METADATA: Final = "x-amz-meta-"
ABSENT: Final = "absent"
"""What `head` returns for an object that is not there; None says that boto3 is to be asked."""
NO_BYTES: Final = "no bytes"
"""What `first` returns for an object that holds none."""
HEADERS: Final = {
    "ChecksumAlgorithm": "x-amz-checksum-algorithm",
    "ChecksumCRC64NVME": "x-amz-checksum-crc64nvme",
    "ChecksumType": "x-amz-checksum-type",
    "IfNoneMatch": "If-None-Match",
    "MpuObjectSize": "x-amz-mp-object-size",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    "ServerSideEncryption": "x-amz-server-side-encryption",
}
"""What boto3's arguments are called on the wire."""
JOINED: Final = 1 << 16
"""Bytes from which a body is sent from the buffers that it came in."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store says of an object that it has made visible."""

    etag: str
    version: str | None


class S3Direct:
    """One principal's way to S3, beside its boto3 client. Thread-safe."""

    def __init__(self, session: botocore.session.Session, client: S3Client) -> None:
        self._way = Direct(session, client)
        self._client = client
        self._addresses: dict[str, str] = {}

    @property
    def sends_once(self) -> bool:
        """Whether `put` is offered."""
        return self._way.sends_once

    def head(self, bucket: str, key: str, *, version: str | None = None) -> HeadObjectOutputTypeDef | str | None:
        """Returns an object's headers as far as `S3Bucket.found` reads them, or ABSENT."""
        answer = self._ask("HeadObject", "HEAD", bucket, key, query=_version(version))
        if answer is None or answer.status_code not in {OK, MISSING}:
            return None
        if answer.status_code == MISSING:
            return ABSENT
        length, looked = _number(answer.headers.get("content-length")), _looked(answer.headers)
        if length is None or looked is None:
            return None
        return cast("HeadObjectOutputTypeDef", {"ContentLength": length, **looked})

    def first(self, bucket: str, key: str, *, size: int, version: str | None) -> GetObjectOutputTypeDef | str | None:
        """Returns an object's headers as `head` does and a body of its first bytes, so many if it has them, or NO_BYTES."""
        answer = self._range(bucket, key, start=0, size=size, version=version, if_match=None)
        if answer is None:
            return None
        told, looked = _body(answer), _looked(answer.headers)
        if told is None or looked is None:
            if answer.status_code == NOT_SATISFIABLE and isinstance(answer, Answer):
                # Read to its end, the connection serves on.
                with suppress(OSError):
                    answer.raw.read(JOINED)
            answer.raw.close()
            return NO_BYTES if answer.status_code == NOT_SATISFIABLE else None
        return cast("GetObjectOutputTypeDef", {**told, **looked})

    def get(self, bucket: str, key: str, *, start: int, size: int, version: str | None, if_match: str | None) -> dict[str, Any] | None:
        """Returns `Body`, `ContentLength` and `ContentRange` of a range, as boto3 does."""
        answer = self._range(bucket, key, start=start, size=size, version=version, if_match=if_match)
        told = None if answer is None else _body(answer)
        if answer is not None and told is None:
            answer.raw.close()
        return told

    def begin(self, bucket: str, key: str, *, headers: Mapping[str, str]) -> str | None:
        """Returns the id of a new upload. A lost answer leaves one that nobody knows, as a crash after it does."""
        answer = self._ask("CreateMultipartUpload", "POST", bucket, key, query={"uploads": ""}, headers=headers)
        return None if answer is None or answer.status_code != OK else _field(answer, "UploadId")

    def part(self, bucket: str, key: str, *, upload: str, number: int, pieces: Sequence[Bytes], headers: Mapping[str, str]) -> str | None:
        """Sends a part from the buffers that it came in and returns its etag."""
        query = {"partNumber": str(number), "uploadId": upload}
        answer = self._ask("UploadPart", "PUT", bucket, key, query=query, headers=headers, pieces=pieces)
        return None if answer is None or answer.status_code != OK else answer.headers.get("etag")

    def complete(
        self, bucket: str, key: str, *, upload: str, parts: Sequence[tuple[int, str]], headers: Mapping[str, str]
    ) -> Stored | None:
        """Completes an upload from parts (number, etag). An error may come with status 200 (Amazon S3 API, CompleteMultipartUpload)."""
        listed = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>" for number, etag in parts)
        body = f'<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{listed}</CompleteMultipartUpload>'.encode()
        answer = self._ask("CompleteMultipartUpload", "POST", bucket, key, query={"uploadId": upload}, headers=headers, pieces=[body])
        if answer is None or answer.status_code != OK or b"<CompleteMultipartUploadResult" not in answer.content:
            return None
        etag = _field(answer, "ETag")
        return None if etag is None else Stored(etag=etag, version=answer.headers.get("x-amz-version-id"))

    def put(
        self, bucket: str, key: str, *, pieces: Sequence[Bytes], headers: Mapping[str, str], signed_at: datetime
    ) -> Stored | ClientError:
        """Sends an object, once, and returns what the store said to it.

        Raises:
            NotSent: it never left; another OSError: it may have arrived.
        """
        try:
            url = self._address(bucket) + quote(key, safe="/~")
        except (BotoCoreError, ClientError) as error:
            raise NotSent("no credential") from error
        body = b"".join(pieces)
        payload = UNSIGNED if url.startswith("https:") else _sha256([body])
        told = {**headers, "X-Amz-Content-SHA256": payload}
        answer = self._way.ask_once("PutObject", url, headers=told, body=body, payload=payload, signed_at=signed_at)
        etag = answer.headers.get("etag")
        if answer.status_code == OK and etag is not None:
            return Stored(etag=etag, version=answer.headers.get("x-amz-version-id"))
        said: Any = {
            "Error": {"Code": _field(answer, "Code") or str(answer.status_code), "Message": _field(answer, "Message") or ""},
            "ResponseMetadata": {"HTTPStatusCode": answer.status_code, "HTTPHeaders": dict(answer.headers)},
        }
        return ClientError(said, "PutObject")

    def _range(
        self, bucket: str, key: str, *, start: int, size: int, version: str | None, if_match: str | None
    ) -> Answer | AWSResponse | None:
        headers = {"Range": f"bytes={start}-{start + size - 1}"} | ({"If-Match": if_match} if if_match is not None else {})
        return self._ask("GetObject", "GET", bucket, key, query=_version(version), headers=headers, streamed=True)

    def _ask(
        self,
        operation: str,
        method: str,
        bucket: str,
        key: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        pieces: Sequence[Bytes] = (),
        streamed: bool = False,
    ) -> Answer | AWSResponse | None:
        url = self._address(bucket) + quote(key, safe="/~")
        if query:
            url += "?" + "&".join([f"{name}={quote(value, safe='')}" for name, value in query.items()])
        payload = UNSIGNED if url.startswith("https:") else _sha256(pieces)
        return self._way.ask(
            operation,
            method,
            url,
            headers={**(headers or {}), "X-Amz-Content-SHA256": payload},
            # Small ones leave in one packet with their headers.
            body=b"".join(pieces) if sum(len(piece) for piece in pieces) < JOINED else list(pieces),
            payload=payload,
            streamed=streamed,
        )

    def _address(self, bucket: str) -> str:
        """Returns what a key is put behind: where and how boto3 itself addresses the bucket."""
        if (address := self._addresses.get(bucket)) is None:
            signed = self._client.generate_presigned_url("head_object", Params={"Bucket": bucket, "Key": "key"})
            address = self._addresses[bucket] = signed.partition("?")[0].removesuffix("key")
        return address


def _body(answer: Answer | AWSResponse) -> dict[str, Any] | None:
    """Returns what boto3 tells of an answer's body; None where it is no object's, or of no sensible length."""
    length = _number(answer.headers.get("content-length"))
    if answer.status_code not in {OK, PARTIAL} or length is None:
        return None
    raw: Any = answer.raw
    told: dict[str, Any] = {"Body": StreamingBody(raw, length), "ContentLength": length}
    return told | ({"ContentRange": answer.headers["content-range"]} if "content-range" in answer.headers else {})


def _looked(headers: Mapping[str, str]) -> dict[str, Any] | None:
    """Returns what boto3 tells of the headers that `S3Bucket.found` reads, but for the length; None where they lack some."""
    modified, etag = _time(headers.get("last-modified")), headers.get("etag")
    if modified is None or etag is None:
        return None
    metadata = {name.lower()[len(METADATA) :]: value for name, value in headers.items() if name.lower().startswith(METADATA)}
    return {"LastModified": modified, "ETag": etag, "Metadata": metadata, "VersionId": headers.get("x-amz-version-id")}


def _sha256(pieces: Sequence[Bytes]) -> str:
    sha = hashlib.sha256()
    for piece in pieces:
        sha.update(piece)
    return sha.hexdigest()


def _field(answer: Answer | AWSResponse, name: str) -> str | None:
    """Returns the content of an element that occurs once; no parser of XML sees what a store sends."""
    found = re.search(f"<{name}>([^<]*)</{name}>".encode(), answer.content)
    try:
        return unescape(found[1].decode()) if found else None
    except UnicodeDecodeError:
        return None


def _version(version: str | None) -> dict[str, str]:
    return {} if version is None else {"versionId": version}


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _time(text: str | None) -> datetime | None:
    """Returns the time of a header (RFC 9110, 5.6.7), None where it holds none."""
    try:
        return None if text is None else parsedate_to_datetime(text)
    except ValueError:
        return None
