"""The bytes under the SFTP packets: a TCP socket that gives up on a stuck peer, and paramiko's channel as a pipe.

There are three pipes. `BurstPipe` is the fast one: packets sealed in bursts (`packets.py`), received without being moved. `FlowPipe`
receives like that and sends through paramiko's public `Channel.send`; it serves where AES-GCM is not agreed on. `ChannelPipe`
uses nothing but paramiko's public interface. Which of them this process has is found out once (`fit.py`, ADR 0010).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

import paramiko

from eft.adapters.sftp.fit import Footing, footing
from eft.adapters.sftp.inflow import Inflow
from eft.adapters.sftp.packets import GcmPacketizer
from eft.adapters.sftp.sealing import BURST, BURST_PACKETS, LARGEST_SEALED, Burst
from eft.ports import Bytes

WINDOW = 1 << 24
"""Bytes that a server may send ahead. 2 MiB would cap a 50 ms path at 34 MB/s; 2^27 makes paramiko move its buffer all the time."""
LARGEST_MESSAGE = 1 << 18
"""Bytes that a server may send in one SSH message; OpenSSH sends 32 KiB whatever is allowed."""
WORTH_SENDING = 1 << 17
"""Bytes of window for which a burst waits, or for a quarter of the window where that is small."""
DROPS_GATHER = 0.01
"""Seconds that it waits for them."""


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

    def __init__(self, transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        self._transport = transport
        self._channel = channel

    def send(self, pieces: Sequence[Bytes], *, until: float) -> None:
        """Sends all bytes."""
        rest = memoryview(b"".join(pieces))
        while rest:
            self._wait_until(until)
            with _cuts_named:
                sent = self._channel.send(rest)  # type: ignore[arg-type] # any buffer will do
            if not sent:
                raise ConnectionResetError
            rest = rest[sent:]

    def receive(self, wanted: int, *, until: float) -> Bytes:  # noqa: ARG002 - the port's
        """Returns what is there, at least one byte."""
        # All at once: paramiko moves what it keeps to the front of its buffer.
        return self._take(WINDOW, until)

    def rest(self) -> None:
        """Gives back memory: the pipe is not used for a while."""

    def drop(self) -> None:
        """Gives back memory: the connection is over."""

    def _take(self, size: int, until: float) -> Bytes:
        self._wait_until(until)
        with _cuts_named:
            received = self._channel.recv(size)
        if not received:
            raise ConnectionResetError
        return received

    def _wait_until(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._channel.settimeout(left)


class FlowPipe(ChannelPipe):
    """Receives without moving bytes: the channel's buffer is replaced before anything can have arrived."""

    def __init__(self, transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        super().__init__(transport, channel)
        self._inflow = Inflow()
        channel.in_buffer = self._inflow  # type: ignore[assignment]

    def receive(self, wanted: int, *, until: float) -> Bytes:
        """Waits for the `wanted` bytes and returns as many of them as lie together."""
        return self._take(wanted, until)

    def rest(self) -> None:
        """Gives back the arenas in which something waits to be taken."""
        self._inflow.rest()

    def drop(self) -> None:
        """Gives back the arenas of what nobody took."""
        self._inflow.drop()


class BurstPipe(FlowPipe):
    """Sends several packets at once, each sealed from the caller's own buffers."""

    _widest = 0
    """The most that the server's window was seen to let out."""

    def send(self, pieces: Sequence[Bytes], *, until: float) -> None:
        """Sends all bytes."""
        packetizer = self._transport.packetizer
        if not (isinstance(packetizer, GcmPacketizer) and packetizer.seals_bursts):
            super().send(pieces, until=until)
            return
        size = sum(len(piece) for piece in pieces)
        rest = memoryview(b"".join(pieces)) if size < LARGEST_SEALED or len(pieces) > BURST_PACKETS else None
        queue = [rest] if rest is not None else [memoryview(piece) for piece in pieces]
        while size:
            self._wait_until(until)
            with _cuts_named:
                sizes = self._grants(size)
                self._transport._send_user_message(Burst(self._channel.remote_chanid, queue, sizes))  # type: ignore[attr-defined] # noqa: SLF001 - ADR 0010
            size -= sum(sizes)
            queue = _after(queue, sum(sizes)) if size else []

    def _grants(self, size: int) -> list[int]:
        """Returns the sizes of the packets that the server's window lets out now, waiting for the first one."""
        channel = self._channel
        grants: list[int] = []
        granted = 0
        with channel.lock:
            self._widest = max(self._widest, channel.out_window_size)
            # Servers open their window by drops; a packet for each would cost more than it carries.
            worth = min(size, WORTH_SENDING, self._widest // 4)
            channel.out_buffer_cv.wait_for(lambda: channel.closed or channel.out_window_size >= worth, DROPS_GATHER)
            while granted < min(size, BURST) and len(grants) < BURST_PACKETS and (not grants or channel.out_window_size):
                grant = channel._wait_for_send_window(min(size - granted, BURST - granted, LARGEST_SEALED))  # type: ignore[attr-defined] # noqa: SLF001 - ADR 0010
                if not grant:
                    raise ConnectionResetError
                grants.append(grant)
                granted += grant
        return grants


def new_transport(held: PatientSocket) -> paramiko.Transport:
    """Returns a transport on a connected socket that has sent nothing yet."""
    return paramiko.Transport(held, packetizer_class=GcmPacketizer if footing() is Footing.PACKETS else None)


def open_pipe(transport: paramiko.Transport, *, patience: float) -> ChannelPipe:
    """Opens a session channel with the SFTP subsystem on an authenticated transport.

    Raises:
        paramiko.ChannelException: the server opens no session.
        paramiko.SSHException: it opens one without SFTP.
    """
    channel = transport.open_session(window_size=WINDOW, max_packet_size=LARGEST_MESSAGE, timeout=patience)
    pipe = {Footing.PUBLIC: ChannelPipe, Footing.FLOW: FlowPipe, Footing.PACKETS: BurstPipe}[footing()](transport, channel)
    channel.invoke_subsystem("sftp")
    return pipe


class _CutsNamed:
    """Whatever paramiko makes of a connection that is gone is a ConnectionError."""

    def __enter__(self) -> None:
        """Holds nothing: one serves all, without what a generator costs each packet."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, EOFError | paramiko.SSHException | OSError) and not isinstance(error, TimeoutError):
            raise ConnectionResetError from error


_cuts_named = _CutsNamed()


def _after(pieces: Sequence[memoryview], size: int) -> list[memoryview]:
    """Returns what is left of the pieces without their first `size` bytes."""
    left: list[memoryview] = []
    for piece in pieces:
        gone = min(size, len(piece))
        size -= gone
        if gone < len(piece):
            left.append(piece[gone:])
    return left
