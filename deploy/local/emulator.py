"""Starts the AWS emulator (ministack) with the repairs to its S3 that the engine's promises need.

Run by the emulator's own interpreter as a file; it imports nothing of the project. Repaired, each measured wrong in
ministack 1.5.33 and each proved by tests/local/test_s3_semantics.py:

- GetObject with a version id ignores Range and answers 200 with the whole object.
- A full-object CRC64NVME of a multipart upload is computed as a composite, so that right ones are rejected.
- CRC64NVME and CRC32C are computed byte by byte in Python, at about 10 MB/s.
- Object and part bodies are held in memory: here larger ones lie in unlinked files and are mapped.
- CopyObject ignores If-None-Match.

Added: the replica of an object keeps the version id and etag of its source, as S3's replication has it (Amazon S3 User Guide,
"What does Amazon S3 replicate?"); the stand-in that replicates (replicate.py) names them in the object's metadata.
"""

from __future__ import annotations

import base64
import importlib
import mmap
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any, TypeAlias, cast
from xml.etree import ElementTree as ET

Answer: TypeAlias = tuple[int, dict[str, str], Any]
Body: TypeAlias = bytes | mmap.mmap

SPILLED_FROM = 1 << 16
PARTIAL_CONTENT = 206
OK = 200
FULL_OBJECT = "FULL_OBJECT"
REPLICA_VERSION = "x-amz-meta-eft-replica-version"
REPLICA_ETAG = "x-amz-meta-eft-replica-etag"
REPAIRED = (
    "_check_put_preconditions",
    "_complete_multipart_upload",
    "_composite_checksum",
    "_copy_object",
    "_crc32c",
    "_crc64nvme",
    "_create_multipart_upload",
    "_get_object",
    "_record_object_version",
    "_upload_part",
    "_upload_part_copy",
)


class Repairs:
    """The repaired functions of the emulator's S3 module; each calls the original."""

    def __init__(self, s3: dict[str, Any]) -> None:
        """Takes the module's namespace; raises `SystemExit` when this release of the emulator is built differently."""
        missing = [name for name in REPAIRED if not callable(s3.get(name))]
        if missing:
            raise SystemExit(f"this release of ministack is not the one that emulator.py repairs: {missing}")
        self.s3 = s3
        self.original: dict[str, Callable[..., Any]] = {name: s3[name] for name in REPAIRED}
        self.whole = threading.local()

    def install(self) -> None:
        """Puts the repaired functions in place."""
        checksums = importlib.import_module("awscrt.checksums")
        self.s3.update(
            _crc64nvme=checksums.crc64nvme,
            _crc32c=checksums.crc32c,
            _get_object=self.get_object,
            _copy_object=self.copy_object,
            _create_multipart_upload=self.create_multipart_upload,
            _upload_part=self.upload_part,
            _upload_part_copy=self.upload_part_copy,
            _complete_multipart_upload=self.complete_multipart_upload,
            _composite_checksum=self.composite_checksum,
            _record_object_version=self.record_object_version,
        )

    def get_object(self, bucket: str, key: str, headers: dict[str, str], query: dict[str, Any] | None = None) -> Answer:
        """Applies Range to a version too."""
        status, answered, body = cast("Answer", self.original["_get_object"](bucket, key, headers, query))
        asked = headers.get("range", "")
        if status == OK and asked and (query or {}).get("versionId"):
            span = self.s3["_parse_range"](asked, len(body))
            if span is None:
                refusal = self.s3["_xml_body"](self.s3["_range_error_xml"](bucket, key))
                return 416, {"Content-Type": "application/xml", "Content-Range": f"bytes */{len(body)}"}, refusal
            first, last = span
            answered["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            answered["Content-Length"] = str(last - first + 1)
            for name in [name for name in answered if name.startswith("x-amz-checksum-")]:
                del answered[name]
            return PARTIAL_CONTENT, answered, body[first : last + 1]
        return status, answered, body[:] if isinstance(body, mmap.mmap) else body

    def copy_object(self, bucket: str, key: str, headers: dict[str, str]) -> Answer:
        """Judges If-None-Match and If-Match against the destination first."""
        held = self.s3["_ensure_bucket"](bucket)
        if held is not None:
            refusal = self.s3["_check_put_preconditions"](headers, held["objects"].get(key))
            if refusal:
                return cast("Answer", refusal)
        return cast("Answer", self.original["_copy_object"](bucket, key, headers))

    def create_multipart_upload(self, *args: Any, **named: Any) -> Answer:  # noqa: ANN401 - as the original
        """Names the type of checksum that CRC64NVME always has."""
        status, answered, body = cast("Answer", self.original["_create_multipart_upload"](*args, **named))
        if answered.get("x-amz-checksum-algorithm") == "CRC64NVME":
            answered["x-amz-checksum-type"] = FULL_OBJECT
        return status, answered, body

    def upload_part(self, bucket: str, key: str, body: bytes, query: dict[str, Any], headers: dict[str, str]) -> Answer:
        """Keeps the part's body in a file."""
        answer = cast("Answer", self.original["_upload_part"](bucket, key, body, query, headers))
        self.spill_part(answer, query)
        return answer

    def upload_part_copy(self, bucket: str, key: str, query: dict[str, Any], headers: dict[str, str]) -> Answer:
        """Keeps the part's body in a file."""
        answer = cast("Answer", self.original["_upload_part_copy"](bucket, key, query, headers))
        self.spill_part(answer, query)
        return answer

    def spill_part(self, answer: Answer, query: dict[str, Any]) -> None:
        """Moves the body of the part just stored to a file."""
        if answer[0] == OK and (upload := self.upload(query)) is not None:
            part = upload["parts"].get(int(self.s3["_qp"](query, "partNumber")))
            if part is not None:
                part["body"] = spilled(part["body"])

    def upload(self, query: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the upload that the request names, None if it is unknown, completed or aborted."""
        return cast("dict[str, Any] | None", self.s3["_multipart_uploads"].get(self.s3["_qp"](query, "uploadId")))

    def complete_multipart_upload(
        self, bucket: str, key: str, body: bytes, query: dict[str, Any], headers: dict[str, str] | None = None
    ) -> Answer:
        """Judges CRC64NVME over the whole object."""
        upload = self.upload(query)
        if upload is None or upload.get("checksum_algorithm") != "CRC64NVME":
            return cast("Answer", self.original["_complete_multipart_upload"](bucket, key, body, query, headers))
        self.whole.checksum = self.whole_crc64(upload, body)
        try:
            status, answered, text = self.original["_complete_multipart_upload"](bucket, key, body, query, headers)
        finally:
            self.whole.checksum = None
        if status == OK:
            text = text.replace(b"<ChecksumType>COMPOSITE<", b"<ChecksumType>FULL_OBJECT<")
            held = self.s3["_ensure_bucket"](bucket)["objects"].get(key)
            if held is not None and held.get("checksum_type"):
                held["checksum_type"] = FULL_OBJECT
            # What a repeated completion is answered with.
            repeated = self.s3["_completed_multipart_uploads"].get(self.s3["_qp"](query, "uploadId"))
            if repeated is not None:
                repeated["response"] = (status, answered, text)
        return status, answered, text

    def composite_checksum(self, algorithm: str, parts: list[str | None]) -> str | None:
        """Returns the whole object's checksum where one is being completed, else the original's composite."""
        whole = getattr(self.whole, "checksum", None)
        if algorithm == "CRC64NVME" and whole is not None:
            return cast("str", whole)
        return cast("str | None", self.original["_composite_checksum"](algorithm, parts))

    def whole_crc64(self, upload: dict[str, Any], listed: bytes) -> str | None:
        """Returns the CRC64NVME over the listed parts, None when the list names a part that there is not."""
        try:
            numbers = sorted(
                int(element.text or "")
                for element in ET.fromstring(listed).iter()  # noqa: S314 - from our own tests
                if element.tag.rpartition("}")[2] == "PartNumber"
            )
            bodies = [upload["parts"][number]["body"] for number in numbers]
        except (ET.ParseError, KeyError, ValueError):
            return None
        crc = 0
        for body in bodies:
            crc = self.s3["_crc64nvme"](body, crc)
        return base64.b64encode(crc.to_bytes(8, "big")).decode()

    def record_object_version(self, bucket: str, key: str, prior: dict[str, Any] | None, stored: dict[str, Any], body: Body) -> str | None:
        """Keeps the object's body in a file, shared by the object and its version; a replica has its source's version id."""
        if stored.get("body") is not None:
            body = stored["body"] = spilled(body)
        metadata: dict[str, str] = stored.get("metadata") or {}
        source, etag = metadata.pop(REPLICA_VERSION, None), metadata.pop(REPLICA_ETAG, None)
        if etag is not None:
            stored["etag"] = f'"{etag}"'
        version = cast("str | None", self.original["_record_object_version"](bucket, key, prior, stored, body))
        if version is None or source is None:
            return version
        self.s3["_object_versions"][bucket, key][-1]["version_id"] = stored["version_id"] = source
        return source


def spilled(body: Body) -> Body:
    """Returns the same bytes, mapped from an unlinked file if there are many."""
    if isinstance(body, mmap.mmap) or len(body) < SPILLED_FROM:
        return body
    with tempfile.TemporaryFile() as file:
        file.write(body)
        file.flush()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def main() -> None:
    """Repairs the emulator and hands over to it."""
    Repairs(vars(importlib.import_module("ministack.services.s3"))).install()
    sys.argv = ["ministack"]
    importlib.import_module("ministack.app").main()


if __name__ == "__main__":
    main()
