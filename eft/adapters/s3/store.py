"""Both sides of one bucket, and what the upkeep of the staging bucket asks of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from eft.adapters.s3.sink import S3Sink
from eft.adapters.s3.source import S3Source
from eft.domain.fingerprint import RemoteFile
from eft.domain.names import RemotePath


class S3Store(S3Source, S3Sink):
    """`ports.Store` on a bucket of S3 or of an S3-compatible store."""


class S3Staging(S3Store):
    """`ports.Staging` on the staging bucket, where every key below the prefix is ours: nobody else's upload is ever named."""

    def stale_uploads(self, *, before: datetime) -> Iterator[tuple[RemotePath, str]]:
        """Yields (path, upload id) of the unfinished uploads begun before a time."""
        for page in self.pages("list_multipart_uploads", Prefix=self.root):
            for upload in page.get("Uploads", []):
                if upload["Initiated"] < before:
                    yield RemotePath(upload["Key"].removeprefix(self.root)), upload["UploadId"]

    def stale_objects(self, *, before: datetime) -> Iterator[RemoteFile]:
        """Yields the staged objects last written before a time."""
        for file in self.list("", recursive=True):
            if isinstance(file, RemoteFile) and file.modified is not None and file.modified < before:
                yield file
