"""The bytes under the SFTP packets: a TCP socket that gives up on a stuck peer, and paramiko's channel as a pipe.

Only paramiko's public interface is used. A faster pipe or packetizer replaces `open_pipe` and `PACKETIZER`, nothing else.
"""

from __future__ import annotations

import socket
import time

import paramiko
from paramiko.packet import Packetizer

from eft.ports import Bytes

WINDOW = 1 << 24
"""Bytes that a server may send ahead. 2 MiB would cap a 50 ms path at 34 MB/s; 2^27 makes paramiko move its buffer all the time."""
LARGEST_MESSAGE = 1 << 18
"""Bytes that a server may send in one SSH message; OpenSSH sends 32 KiB whatever is allowed."""
PACKETIZER: type[Packetizer] | None = None
"""None is paramiko's own."""


class PatientSocket(socket.socket):
    """A TCP socket whose `send` fails once nothing could be sent for `patience` seconds: paramiko itself would wait for ever."""

    patience = 30.0
    _stuck_since: float | None = None

    def send(self, held: Bytes, flags: int = 0, /) -> int:  # type: ignore[override]
        """Sends some bytes and returns how many.

        Raises:
            ConnectionAbortedError: the peer has taken nothing for too long. (ETIMEDOUT would be retried: it is a TimeoutError.)
        """
        try:
            sent = super().send(held, flags)
        except TimeoutError:
            now = time.monotonic()
            if self._stuck_since is None:
                self._stuck_since = now
            if now - self._stuck_since > self.patience:
                raise ConnectionAbortedError from None
            raise
        self._stuck_since = None
        return sent


class ChannelPipe:
    """A paramiko channel as a `wire.Pipe`."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def send(self, held: Bytes, *, until: float) -> None:
        """Sends all bytes."""
        rest = memoryview(held)
        while rest:
            self._wait_until(until)
            try:
                sent = self._channel.send(rest)  # type: ignore[arg-type] # any buffer will do
            except (EOFError, paramiko.SSHException) as error:
                raise ConnectionResetError from error
            except TimeoutError:
                raise
            except OSError as error:
                raise ConnectionResetError from error
            if not sent:
                raise ConnectionResetError
            rest = rest[sent:]

    def receive(self, *, until: float) -> bytes:
        """Returns what is there, at least one byte."""
        self._wait_until(until)
        try:
            # All at once: paramiko moves what it keeps to the front of its buffer.
            received = self._channel.recv(WINDOW)
        except (EOFError, paramiko.SSHException) as error:
            raise ConnectionResetError from error
        if not received:
            raise ConnectionResetError
        return received

    def _wait_until(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._channel.settimeout(left)


def open_pipe(transport: paramiko.Transport, *, patience: float) -> ChannelPipe:
    """Opens a session channel with the SFTP subsystem on an authenticated transport.

    Raises:
        paramiko.ChannelException: the server opens no session.
        paramiko.SSHException: it opens one without SFTP.
    """
    channel = transport.open_session(window_size=WINDOW, max_packet_size=LARGEST_MESSAGE, timeout=patience)
    channel.invoke_subsystem("sftp")
    return ChannelPipe(channel)
