"""`ports.Stores`: each endpoint is opened by the adapter of its kind."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from eft.domain.endpoint import Endpoint, S3Endpoint, SftpEndpoint
from eft.ports import ProbeReport, Staging, Store


class SftpSide(Protocol):
    """What SFTP endpoints are opened with."""

    def open(self, endpoint: SftpEndpoint) -> AbstractContextManager[Store]:
        """Gives a store on a pooled connection."""

    def probe(self, endpoint: SftpEndpoint) -> ProbeReport:
        """Tests the endpoint; never raises for what it finds."""


class S3Side(Protocol):
    """What buckets are opened with."""

    def open(self, endpoint: S3Endpoint) -> AbstractContextManager[Store]:
        """Gives a bucket's store."""

    def staging(self) -> AbstractContextManager[Staging]:
        """Gives the staging bucket's store."""

    def permit(self, endpoint: S3Endpoint) -> None:
        """Raises Permanent for a bucket that may not be opened like this."""

    def probe(self, endpoint: S3Endpoint) -> ProbeReport:
        """Tests the endpoint; never raises for what it finds."""


class StoresByKind:
    """Opens endpoints with the adapter of their kind."""

    def __init__(self, *, sftp: SftpSide, s3: S3Side) -> None:
        self._sftp = sftp
        self._s3 = s3

    def open(self, endpoint: Endpoint) -> AbstractContextManager[Store]:
        """Gives a store for the duration of the block."""
        return self._sftp.open(endpoint) if isinstance(endpoint, SftpEndpoint) else self._s3.open(endpoint)

    def staging(self) -> AbstractContextManager[Staging]:
        """Gives the staging bucket's store."""
        return self._s3.staging()

    def permit(self, endpoint: Endpoint) -> None:
        """Raises Permanent for an endpoint that may not be opened like this; an SFTP endpoint always may."""
        if isinstance(endpoint, S3Endpoint):
            self._s3.permit(endpoint)

    def probe(self, endpoint: Endpoint) -> ProbeReport:
        """Tests an endpoint; never raises for what it finds."""
        return self._sftp.probe(endpoint) if isinstance(endpoint, SftpEndpoint) else self._s3.probe(endpoint)
