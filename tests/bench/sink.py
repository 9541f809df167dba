"""`python -m tests.bench.sink PORT`: an S3 server that throws every body away, so that no server is the limit of a measurement.

It takes PutObject and multipart uploads, judges nothing, and remembers what clients ask about afterwards: sizes, etags and
metadata. Bodies are dropped inside the kernel (recv with MSG_TRUNC, tcp(7)), never copied to this process. `GET /-/counted`
answers with the requests by operation and the bytes of bodies so far.
"""

from __future__ import annotations

import itertools
import json
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from deploy.local.process import LOOPBACK

HEAD_LIMIT: Final = 1 << 16
SCRATCH: Final = 1 << 20
METADATA: Final = "x-amz-meta-"
ALGORITHM: Final = "x-amz-checksum-algorithm"
NAMESPACE: Final = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
ETAG: Final = '"00000000000000000000000000000000-1"'
"""Of the shape that multipart etags have: no client takes it for the MD5 of a body."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What is left of an object."""

    size: int
    metadata: dict[str, str]
    modified: float


@dataclass(slots=True)
class Begun:
    """An upload: where it goes and the sizes of its parts."""

    key: str
    metadata: dict[str, str]
    parts: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose body has been dropped, but for that of a POST."""

    method: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    size: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client is told."""

    status: str = "200 OK"
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)


MISSING: Final = Answer("404 Not Found")


class Bucket:
    """What clients may ask about later; all buckets are one."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self._objects: dict[str, Stored] = {}
        self._uploads: dict[str, Begun] = {}
        self._ids = itertools.count(1)

    def answer(self, asked: Request) -> Answer:
        """Does what was asked for and counts it."""
        if asked.key == "-/counted":
            return Answer(body=json.dumps(self.counted))
        operation = _operation(asked)
        self.counted[operation] += 1
        self.counted["bytes"] += asked.size
        return _OPERATIONS[operation](self, asked)

    def put(self, asked: Request) -> Answer:
        """PutObject; also CreateBucket, which is a put without a key."""
        size = int(asked.headers.get("x-amz-decoded-content-length", asked.size))
        self._objects[asked.key] = Stored(size, _metadata(asked), time.time())
        return Answer(headers={"ETag": ETAG})

    def begin(self, asked: Request) -> Answer:
        """CreateMultipartUpload; it claims to judge the checksum that it is asked to judge, as AWS does."""
        upload = f"upload-{next(self._ids)}"
        self._uploads[upload] = Begun(asked.key, _metadata(asked))
        bucket, _, key = asked.key.partition("/")
        told = {ALGORITHM: asked.headers[ALGORITHM], "x-amz-checksum-type": "FULL_OBJECT"} if ALGORITHM in asked.headers else {}
        names = f"<Bucket>{bucket}</Bucket><Key>{escape(key)}</Key>"
        return Answer(body=_xml("InitiateMultipartUploadResult", f"{names}<UploadId>{upload}</UploadId>"), headers=told)

    def part(self, asked: Request) -> Answer:
        """UploadPart."""
        upload = self._uploads.get(asked.query["uploadId"])
        if upload is None:
            return _no_such_upload()
        upload.parts[int(asked.query["partNumber"])] = int(asked.headers.get("x-amz-decoded-content-length", asked.size))
        return Answer(headers={"ETag": ETAG})

    def parts(self, asked: Request) -> Answer:
        """ListParts, all in one page."""
        upload = self._uploads.get(asked.query["uploadId"])
        if upload is None:
            return _no_such_upload()
        listed = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(ETAG)}</ETag><Size>{size}</Size></Part>"
            for number, size in sorted(upload.parts.items())
        )
        return Answer(body=_xml("ListPartsResult", f"<IsTruncated>false</IsTruncated>{listed}"))

    def complete(self, asked: Request) -> Answer:
        """CompleteMultipartUpload; the list of parts is not read."""
        upload = self._uploads.pop(asked.query["uploadId"], None)
        if upload is None:
            return _no_such_upload()
        self._objects[upload.key] = Stored(sum(upload.parts.values()), upload.metadata, time.time())
        bucket, _, key = upload.key.partition("/")
        names = f"<Bucket>{bucket}</Bucket><Key>{escape(key)}</Key><ETag>{escape(ETAG)}</ETag>"
        return Answer(body=_xml("CompleteMultipartUploadResult", names))

    def abort(self, asked: Request) -> Answer:
        """AbortMultipartUpload."""
        return Answer("204 No Content") if self._uploads.pop(asked.query["uploadId"], None) else _no_such_upload()

    def head(self, asked: Request) -> Answer:
        """HeadObject; HeadBucket for a path without a key."""
        if "/" not in asked.key.rstrip("/"):
            return Answer()
        found = self._objects.get(asked.key)
        if found is None:
            return MISSING
        told = {"ETag": ETAG, "Content-Length": str(found.size), "Last-Modified": formatdate(found.modified, usegmt=True)}
        return Answer(headers={**told, **found.metadata})

    def remove(self, asked: Request) -> Answer:
        """DeleteObject."""
        self._objects.pop(asked.key, None)
        return Answer("204 No Content")

    def versioning(self, _asked: Request) -> Answer:
        """GetBucketVersioning."""
        return Answer(body=_xml("VersioningConfiguration", ""))

    def listing(self, _asked: Request) -> Answer:
        """ListObjectsV2: whoever looks finds the bucket empty, so that nothing is taken for copied already."""
        return Answer(body=_xml("ListBucketResult", "<KeyCount>0</KeyCount><IsTruncated>false</IsTruncated>"))

    def refused(self, _asked: Request) -> Answer:
        """What else there is in S3."""
        return Answer("501 Not Implemented", "<Error><Code>NotImplemented</Code></Error>")


_OPERATIONS: Final = {
    "AbortMultipartUpload": Bucket.abort,
    "CompleteMultipartUpload": Bucket.complete,
    "CreateMultipartUpload": Bucket.begin,
    "DeleteObject": Bucket.remove,
    "GetBucketVersioning": Bucket.versioning,
    "HeadObject": Bucket.head,
    "ListObjectsV2": Bucket.listing,
    "ListParts": Bucket.parts,
    "PutObject": Bucket.put,
    "UploadPart": Bucket.part,
    "other": Bucket.refused,
}
_BY_METHOD: Final = {"HEAD": "HeadObject", "DELETE": "DeleteObject", "PUT": "PutObject", "POST": "other"}
_OF_UPLOADS: Final = {
    "DELETE": "AbortMultipartUpload",
    "GET": "ListParts",
    "POST": "CompleteMultipartUpload",
    "PUT": "UploadPart",
}


def _operation(asked: Request) -> str:
    if "uploadId" in asked.query:
        return _OF_UPLOADS.get(asked.method, "other")
    if asked.method == "POST" and "uploads" in asked.query:
        return "CreateMultipartUpload"
    if asked.method == "GET":
        if "versioning" in asked.query:
            return "GetBucketVersioning"
        return "other" if "/" in asked.key.rstrip("/") else "ListObjectsV2"
    return _BY_METHOD.get(asked.method, "other")


def _metadata(asked: Request) -> dict[str, str]:
    return {name: value for name, value in asked.headers.items() if name.startswith(METADATA)}


def _xml(name: str, content: str) -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?><{name} {NAMESPACE}>{content}</{name}>'


def _no_such_upload() -> Answer:
    # Errors have no namespace (Amazon S3 API, "Error responses").
    return Answer("404 Not Found", "<Error><Code>NoSuchUpload</Code><Message>gone</Message></Error>")


class Connection:
    """One client's connection, served by one thread."""

    def __init__(self, held: socket.socket, bucket: Bucket) -> None:
        self._socket = held
        self._bucket = bucket
        self._ahead = b""
        """Bytes that were read beyond the end of a head."""
        self._scratch = bytearray(SCRATCH)

    def serve(self) -> None:
        """Answers requests until the client leaves."""
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with self._socket:
                while (asked := self._next()) is not None:
                    self._tell(self._bucket.answer(asked), asked.method)
        except OSError:
            # Clients leave as they like.
            return

    def _next(self) -> Request | None:
        while b"\r\n\r\n" not in self._ahead:
            more = self._socket.recv(HEAD_LIMIT)
            if not more:
                return None
            self._ahead += more
        head, _, self._ahead = self._ahead.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("expect", "").lower() == "100-continue":
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        size = int(headers.get("content-length", 0))
        self._drop(size)
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        return Request(method, unquote(parts.path).lstrip("/"), query, headers, size)

    def _drop(self, size: int) -> None:
        held = min(size, len(self._ahead))
        self._ahead = self._ahead[held:]
        left = size - held
        while left:
            gone = self._socket.recv_into(self._scratch, min(left, SCRATCH), socket.MSG_TRUNC)
            if not gone:
                raise ConnectionResetError
            left -= gone

    def _tell(self, answer: Answer, method: str) -> None:
        body = answer.body.encode()
        headers = {"Content-Length": str(len(body)), "Content-Type": "application/xml", **answer.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._socket.sendall(f"HTTP/1.1 {answer.status}\r\n{head}\r\n".encode() + (b"" if method == "HEAD" else body))


def serve(port: int) -> None:
    """Serves a port of 127.0.0.1 until the process ends."""
    bucket = Bucket()
    with socket.create_server((LOOPBACK, port), backlog=256) as listener:
        while True:
            held, _ = listener.accept()
            threading.Thread(target=Connection(held, bucket).serve, daemon=True).start()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
