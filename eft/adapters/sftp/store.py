"""Both sides of an SFTP endpoint."""

from __future__ import annotations

from eft.adapters.sftp.sink import SftpSink
from eft.adapters.sftp.source import SftpSource


class SftpStore(SftpSource, SftpSink):
    """ports.Store on one session, used by one thread at a time."""
