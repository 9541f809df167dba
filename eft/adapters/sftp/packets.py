"""SSH packets under AES-GCM, a few at a time and without copies: what paramiko's own packetizer does in ten copies a packet.

A `GcmPacketizer` stands in for paramiko's through `Transport(packetizer_class=…)`. Until AES-GCM is agreed on, and where it never
is, paramiko's own code does the work. Nothing here reads or writes attributes that paramiko keeps private to a class; which of
its other parts are leaned on is tried out before the first use (`fit.py`, ADR 0010). Formats: RFC 4253, section 6, and RFC 5647,
section 7, as OpenSSH's `aes128-gcm@openssh.com` has them: the length goes in clear and is authenticated.
"""

from __future__ import annotations

import errno
import select
import threading
from typing import TYPE_CHECKING, Any

import paramiko
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from paramiko.message import Message
from paramiko.packet import NeedRekeyException, Packetizer

from eft.adapters.buffers import BUFFERS
from eft.adapters.sftp.inflow import Piece
from eft.adapters.sftp.sealing import BLOCK, CHANNEL_DATA, HEADER, TAG, Burst, Nonces, Sealer

if TYPE_CHECKING:
    from socket import socket

INBOX = 1 << 19
"""Bytes that are taken from the socket at a time, at most; twice the largest packet that a server may send."""
LARGEST_PACKET = INBOX - 64
"""Bytes of one packet, all counted; an arena takes any."""
WAIT = 100
"""Milliseconds for which paramiko has a socket wait at a time."""
QUIET = 10
"""Waits in which nothing comes after which a connection holds no memory for what might."""


class Arrived:
    """A data message, or several of one channel that came together; with as much of paramiko's Message as its channel asks for."""

    __slots__ = ("channel", "piece", "seqno")

    def __init__(self, channel: int, piece: Piece) -> None:
        self.channel = channel
        self.piece = piece
        self.seqno = 0

    def get_int(self) -> int:
        """Returns the channel's number; Transport asks once, for the first field."""
        return self.channel

    def get_binary(self) -> Piece:
        """Hands over the payload, for `Inflow.feed`; Transport keeps the message until the next one comes."""
        piece = self.piece
        del self.piece
        return piece


class GcmPacketizer(Packetizer):
    """A `paramiko.packet.Packetizer`. One thread reads; any may send."""

    REKEY_BYTES = 1 << 30
    """RFC 4253, section 9."""

    def __init__(self, held: socket) -> None:
        super().__init__(held)
        self._socket = held
        self._opener: AESGCM | None = None
        self._nonces = Nonces(b"")
        self._sealer: Sealer | None = None
        self._sending = threading.RLock()
        self._seen = 0
        self._received = self._received_packets = self._ignored = 0
        self._sent = self._sent_packets = 0
        self._scratch = bytearray()
        """The buffer of which the inbox is the first half; packets are opened into the second. There is none at rest."""
        self._inbox = self._opened = memoryview(b"")
        self._from = self._to = 0
        """Where in the inbox what has not been opened yet begins and ends."""
        self._arena = bytearray()
        """The buffer that packets are opened into, one after the other."""
        self._view = memoryview(b"")
        self._filled = 0
        self._held: tuple[int, Any] | None = None

    @property
    def seals_bursts(self) -> bool:
        """Whether AES-GCM is agreed on for what is sent."""
        return self._sealer is not None

    # -- what Transport tells ----------------------------------------------------------------------------------------

    def set_inbound_cipher(self, **keys: Any) -> None:  # type: ignore[override] # noqa: ANN401 - as Transport names them
        """Goes over to new keys for what is received.

        Raises:
            paramiko.SSHException: a server that had agreed on AES-GCM wants something else.
        """
        super().set_inbound_cipher(**keys)
        if not keys["aead"]:
            _never_back(self._opener)
            return
        self._received = self._received_packets = self._ignored = 0
        self._opener, self._nonces = keys["block_engine"], Nonces(keys["iv_in"])

    def set_outbound_cipher(self, **keys: Any) -> None:  # type: ignore[override] # noqa: ANN401 - as Transport names them
        """Goes over to new keys for what is sent.

        Raises:
            paramiko.SSHException: a server that had agreed on AES-GCM wants something else.
        """
        with self._sending:
            super().set_outbound_cipher(**keys)
            if not keys["aead"]:
                _never_back(self._sealer)
                return
            self._sent = self._sent_packets = 0
            self._sealer = Sealer(keys["block_engine"], keys["iv_out"])

    def reset_seqno_in(self) -> None:
        """Counts received packets from 0."""
        super().reset_seqno_in()
        self._seen = 0

    # -- receiving ---------------------------------------------------------------------------------------------------

    def read_message(self) -> tuple[int, Any]:
        """Returns the type of the next message and the message; payload of one channel that came together comes as one.

        Raises:
            paramiko.SSHException: a packet is malformed or not authentic.
            EOFError: the connection is closed.
            NeedRekeyException: keys are to be exchanged, and nothing comes.
        """
        if self._opener is None:
            self._seen += 1
            return super().read_message()
        if self._held is not None:
            held, self._held = self._held, None
            return held
        while not self._whole_packet():
            self._receive()
        kind, message = self._open()
        if kind == CHANNEL_DATA:
            while self._whole_packet() and not self.need_rekey():
                following = self._open()
                more = following[1]
                if following[0] != CHANNEL_DATA or more.channel != message.channel or more.piece.view is not message.piece.view:
                    self._held = following
                    break
                message.piece.end = more.piece.end
        return kind, message

    def _whole_packet(self) -> bool:
        """Returns whether the inbox begins with all of a packet."""
        held = self._to - self._from
        if held <= 4:  # noqa: PLR2004 - the length's own bytes
            return False
        size = int.from_bytes(self._inbox[self._from : self._from + 4], "big")
        if not BLOCK <= size <= LARGEST_PACKET - 4 - TAG or size % BLOCK:
            raise paramiko.SSHException("a packet of an impossible length")
        return held >= 4 + size + TAG

    def _receive(self) -> None:
        """Takes what the socket has, waiting for it."""
        if self._from == self._to:
            self._from = self._to = 0
        elif INBOX - self._to < INBOX // 4:
            left = self._to - self._from
            self._inbox[:left] = self._inbox[self._from : self._to]
            self._from, self._to = 0, left
        waits = 0
        while not (size := self._take()):
            if self.closed:
                raise EOFError
            if self.need_rekey():
                raise NeedRekeyException
            self._check_keepalive()  # type: ignore[attr-defined]
            waits += 1
            if waits == QUIET and not self._to:
                self.rest()
        self._to += size

    def _take(self) -> int:
        """Returns how many bytes came; 0 if none did for as long as the socket waits."""
        if self.handshake_timed_out():
            raise EOFError
        if not (self._scratch or self._comes()):
            return 0
        try:
            size = self._socket.recv_into(self._inbox[self._to :])
        except TimeoutError:
            return 0
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return 0
            raise (EOFError() if self.closed else error) from None
        if not size:
            raise EOFError
        return size

    def _comes(self) -> bool:
        """Waits for something to come and finds room for it."""
        heard = select.poll()
        try:
            heard.register(self._socket, select.POLLIN)
        except ValueError:
            raise EOFError from None
        if not heard.poll(WAIT):
            return False
        self._scratch = BUFFERS.take()
        view = memoryview(self._scratch)
        self._inbox, self._opened = view[:INBOX], view[INBOX:]
        return True

    def rest(self) -> None:
        """Gives back all memory that holds nothing. For the thread that reads, or once it is over."""
        self._inbox = self._opened = self._view = memoryview(b"")
        for buffer in filter(None, (self._scratch, self._arena)):
            BUFFERS.give(buffer)
        self._scratch, self._arena = bytearray(), bytearray()
        self._filled = 0
        # There is one only where the connection ended before it was handed on.
        self._held = None
        if self._sealer is not None and self._sending.acquire(blocking=False):
            self._sealer.rest()
            self._sending.release()

    def _open(self) -> tuple[int, Any]:
        """Opens the packet at the beginning of the inbox and puts its payload directly behind the last one's in the arena.

        Opened in place, its header would for a moment stand where somebody may be reading already.
        """
        inbox, begin, opened = self._inbox, self._from, self._opened
        size = int.from_bytes(inbox[begin : begin + 4], "big")
        end = begin + 4 + size + TAG
        try:
            self._opener.decrypt_into(self._nonces.following(), inbox[begin + 4 : end], inbox[begin : begin + 4], opened[:size])  # type: ignore[union-attr]
        except InvalidTag:
            raise paramiko.SSHException("a packet is not authentic") from None
        self._from = end
        self._count_received(size + 4 + TAG)
        padding, kind = opened[0], opened[1]
        payload = size - padding
        if padding < 4 or payload < 2:  # noqa: PLR2004 - least padding; a type at least
            raise paramiko.SSHException("a packet with impossible padding")
        message: Any
        if kind == CHANNEL_DATA:
            length = int.from_bytes(opened[6:HEADER], "big")
            if length != payload - HEADER:
                raise paramiko.SSHException("a data message of another length than its packet")
            message = Arrived(int.from_bytes(opened[2:6], "big"), self._keep(opened[HEADER:payload]))
        else:
            message = Message(bytes(opened[2:payload]))
        message.seqno = self._seen
        self._seen = (self._seen + 1) & 0xFFFFFFFF
        return kind, message

    def _keep(self, payload: memoryview) -> Piece:
        start, end = self._filled, self._filled + len(payload)
        if end > len(self._view) or not self._view:
            self._change_arena()
            start, end = 0, len(payload)
        self._view[start:end] = payload
        self._filled = end
        return Piece(self._view, start, end)

    def _change_arena(self) -> None:
        """Goes over to an arena that nobody looks into any more, or to a new one."""
        self._view = memoryview(b"")
        if self._arena:
            BUFFERS.give(self._arena)
        self._arena = BUFFERS.take()
        self._view = memoryview(self._arena)

    def _count_received(self, size: int) -> None:
        self._received += size
        self._received_packets += 1
        if self.need_rekey():
            self._ignored += size
            if self._ignored >= self.REKEY_BYTES_OVERFLOW_MAX:
                raise paramiko.SSHException("the server ignores that keys are to be exchanged")
        elif self._received >= self.REKEY_BYTES or self._received_packets >= self.REKEY_PACKETS:
            self._ignored = 0
            self._trigger_rekey()  # type: ignore[attr-defined]

    # -- sending -----------------------------------------------------------------------------------------------------

    def send_message(self, data: Message | Burst) -> None:
        """Sends a message of paramiko's, or a Burst.

        Raises:
            EOFError: the connection is closed.
        """
        with self._sending:
            if self._sealer is None:
                for message in data.messages() if isinstance(data, Burst) else [data]:
                    super().send_message(message)
                return
            if isinstance(data, Burst):
                self._send_sealed(self._sealer.burst(data), packets=len(data.sizes))
            else:
                self._send_sealed(self._sealer.one(data.asbytes()), packets=1)

    def _send_sealed(self, sealed: memoryview, *, packets: int) -> None:
        self.write_all(sealed)
        self._sent += len(sealed)
        self._sent_packets += packets
        if (self._sent >= self.REKEY_BYTES or self._sent_packets >= self.REKEY_PACKETS) and not self.need_rekey():
            self._ignored = 0
            self._trigger_rekey()  # type: ignore[attr-defined]


def _never_back(engine: AESGCM | Sealer | None) -> None:
    if engine is not None:
        # paramiko's count of packets stood still meanwhile, and other ciphers need it.
        raise paramiko.SSHException("the server goes back behind AES-GCM")
