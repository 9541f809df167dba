"""Whether the paramiko and the cryptography library at hand are such that the fast pipes may stand on them (ADR 0010).

What those lean on beyond paramiko's documented interface is tried once per process, on a pair of sockets, with packets made and
read by paramiko's own packetizer. Where a trial fails, a slower pipe serves, and the log says why.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from functools import cache
from typing import Any

import paramiko
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from paramiko.message import Message
from paramiko.packet import Packetizer

from eft.adapters.sftp.inflow import Inflow
from eft.adapters.sftp.packets import GcmPacketizer
from eft.adapters.sftp.sealing import CHANNEL_DATA, Burst

LOG = logging.getLogger(__name__)
VERSIONS = range(4, 6)
"""Paramiko's major versions that the fast pipes were written for; the project's dependencies say the same."""
_KEY = bytes(range(16))
_IV = bytes(range(12))


class Footing(IntEnum):
    """On how much of paramiko's inside the pipes stand."""

    PUBLIC = 0
    FLOW = 1
    PACKETS = 2


class Unfit(Exception):
    """A trial came out wrong."""


@cache
def footing() -> Footing:
    """Returns the fastest footing that holds; found out once per process, in a few milliseconds."""
    found = Footing.PUBLIC
    for candidate, trial in ((Footing.FLOW, try_flow), (Footing.PACKETS, try_packets)):
        if (why := failure_of(trial)) is not None:
            LOG.warning("SFTP connections are slower than they could be", extra={"footing": found.name, "why": why})
            break
        found = candidate
    return found


def failure_of(trial: Callable[[], None]) -> str | None:
    """Returns what a trial raises, or None."""
    try:
        trial()
    except Exception as error:  # noqa: BLE001 - whatever another version of paramiko may raise
        return f"{type(error).__name__}: {error}"
    return None


def try_flow() -> None:
    """A channel takes another buffer, and what it is fed comes out of `recv`."""
    _expect(int(paramiko.__version__.split(".")[0]) in VERSIONS, f"paramiko {paramiko.__version__}")
    channel = paramiko.Channel(0)
    channel.in_buffer = Inflow()  # type: ignore[assignment]
    message = Message()
    message.add_string(b"some bytes")
    message.rewind()
    channel._feed(message)  # type: ignore[attr-defined] # noqa: SLF001 - what Transport calls
    channel.settimeout(1)
    # All of it, though less was asked for: `Inflow` cuts no small piece.
    _expect(channel.recv(4) == b"some bytes", "Channel.recv")
    channel.in_buffer.close()
    _expect(channel.recv(1) == b"", "Channel.recv at the end")


def try_packets() -> None:
    """A channel's window is granted as it should be, and packets pass between our packetizer and paramiko's own, both ways."""
    channel = paramiko.Channel(0)
    channel.out_window_size, channel.out_max_packet_size = 100_000, 32_768
    with channel.lock:
        _expect(channel.out_buffer_cv.wait_for(lambda: channel.out_window_size > 0, 1), "the window's condition")
        _expect(channel._wait_for_send_window(100) == 100, "the window")  # type: ignore[attr-defined] # noqa: PLR2004, SLF001
        _expect(0 < channel._wait_for_send_window(100_000) <= 32_768, "the largest packet")  # type: ignore[attr-defined] # noqa: PLR2004, SLF001
    _expect(callable(paramiko.Transport._send_user_message), "Transport._send_user_message")  # type: ignore[attr-defined] # noqa: SLF001
    ends = socket.socketpair()
    ours, theirs = GcmPacketizer(ends[0]), Packetizer(ends[1])
    try:
        for end in ends:
            end.settimeout(5)
        _set_keys(ours, theirs)
        _try_sending(ours, theirs)
        _try_receiving(ours, theirs)
    finally:
        for packetizer in (ours, theirs):
            with suppress(OSError):
                packetizer.close()


def _set_keys(ours: Packetizer, theirs: Packetizer) -> None:
    """Sets keys as Transport does; twice, as after an exchange of new ones."""
    for _ in range(2):
        engine: Any = AESGCM(_KEY)
        for packetizer in (ours, theirs):
            named: dict[str, Any] = {"block_size": 16, "mac_engine": None, "mac_size": 16, "mac_key": None, "etm": False, "aead": True}
            packetizer.set_outbound_cipher(block_engine=engine, sdctr=False, iv_out=_IV, **named)
            packetizer.set_inbound_cipher(block_engine=engine, iv_in=_IV, **named)
            _expect(not packetizer.need_rekey(), "a new key")


def _try_sending(ours: GcmPacketizer, theirs: Packetizer) -> None:
    ours.send_message(_message(b"one message"))
    _expect(theirs.read_message()[1].get_binary() == b"one message", "a message sent")
    ours.send_message(Burst(7, [b"abc", memoryview(b"defgh" * 999)], [1, 4000, 997]))
    came = b""
    for _ in range(3):
        kind, message = theirs.read_message()
        _expect((kind, message.get_int()) == (CHANNEL_DATA, 7), "a packet of a burst")
        came += message.get_binary()
    _expect(came == b"abc" + b"defgh" * 999, "a burst")


def _try_receiving(ours: Packetizer, theirs: Packetizer) -> None:
    inflow = Inflow()
    expected = [b"x" * 1000, b"y" * 17, b"z" * 4000]
    for payload in expected:
        message = _message(payload, kind=CHANNEL_DATA, channel=3)
        theirs.send_message(message)
    theirs.send_message(_message(b"after them"))
    while len(inflow) < sum(map(len, expected)):
        kind, arrived = ours.read_message()
        _expect((kind, arrived.get_int()) == (CHANNEL_DATA, 3), "a packet received")
        inflow.feed(arrived.get_binary())
    _expect(bytes(inflow.read(len(inflow), 1)) == b"".join(expected), "payload received")
    _expect(ours.read_message()[1].get_binary() == b"after them", "a message received")


def _message(payload: bytes, *, kind: int = 80, channel: int | None = None) -> Message:
    message = Message()
    message.add_byte(bytes((kind,)))
    if channel is not None:
        message.add_int(channel)
    message.add_string(payload)
    return message


def _expect(held: bool, what: str) -> None:  # noqa: FBT001 - an assertion
    if not held:
        raise Unfit(what)
