"""The fast data path: the store contract on each pipe, keys exchanged in mid-file, and what is found unfit."""

from __future__ import annotations

import socket
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import paramiko
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from packaging.requirements import Requirement
from packaging.version import Version
from paramiko.buffered_pipe import PipeTimeout
from paramiko.message import Message
from paramiko.packet import Packetizer

from deploy.local.sftp import PasswordSftpServer, Quirks, SftpServer
from eft.adapters.buffers import BUFFERS, Buffers
from eft.adapters.sftp import fit, login, packets, pipe
from eft.adapters.sftp.fit import Footing
from eft.adapters.sftp.inflow import SMALL, Inflow, Piece
from eft.adapters.sftp.packets import GcmPacketizer
from eft.adapters.sftp.sealing import CHANNEL_DATA, Burst
from eft.domain.names import remote_path
from eft.domain.parts import MIB
from tests.contract.sftp_bench import SftpBench
from tests.contract.store_suite import StoreSuite, content_of, read, uploaded

Ends = tuple[GcmPacketizer, Packetizer]


# -- the store contract on each pipe -------------------------------------------------------------------------------------


@pytest.fixture
def _public(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "footing", lambda: Footing.PUBLIC)


@pytest.fixture
def _flow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "footing", lambda: Footing.FLOW)


@pytest.fixture
def _no_gcm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "CIPHERS", tuple(name for name in login.CIPHERS if "gcm" not in name))


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Keys are exchanged every 200 KB; gets an entry each time."""
    counted: list[int] = []
    set_keys = GcmPacketizer.set_inbound_cipher

    def count(packetizer: GcmPacketizer, **keys: Any) -> None:  # noqa: ANN401 - as Transport names them
        counted.append(1)
        set_keys(packetizer, **keys)

    monkeypatch.setattr(GcmPacketizer, "REKEY_BYTES", 200_000)
    monkeypatch.setattr(GcmPacketizer, "set_inbound_cipher", count)
    return counted


@pytest.mark.usefixtures("_public")
class TestPublicInterfaceAlone(StoreSuite):
    """Where nothing of paramiko's inside may be used."""

    @pytest.fixture
    def bench(self, sshd: SftpServer) -> Iterator[SftpBench]:
        with SftpBench(sshd.account(uuid4().hex)) as bench:
            yield bench


@pytest.mark.usefixtures("_flow")
class TestFlow(StoreSuite):
    """Where only the channel's buffer is replaced."""

    @pytest.fixture
    def bench(self, sshd: SftpServer) -> Iterator[SftpBench]:
        with SftpBench(sshd.account(uuid4().hex)) as bench:
            yield bench


@pytest.mark.usefixtures("_no_gcm")
class TestWithoutGcm(StoreSuite):
    """A server that has no AES-GCM; its packets are paramiko's business."""

    @pytest.fixture
    def bench(self, sshd: SftpServer) -> Iterator[SftpBench]:
        with SftpBench(sshd.account(uuid4().hex)) as bench:
            yield bench


@pytest.mark.usefixtures("exchanges")
class TestKeysExchangedOften(StoreSuite):
    """Keys change all the time."""

    @pytest.fixture
    def bench(self, sshd: SftpServer) -> Iterator[SftpBench]:
        with SftpBench(sshd.account(uuid4().hex)) as bench:
            yield bench


@pytest.mark.parametrize("server", ["sshd", "password_sftp"])
def test_keys_change_in_mid_file(request: pytest.FixtureRequest, server: str, exchanges: list[int]) -> None:
    """A file is read and written right while keys are exchanged again and again, with OpenSSH and another make."""
    served: SftpServer | PasswordSftpServer = request.getfixturevalue(server)
    if isinstance(served, PasswordSftpServer):
        served.behave(Quirks())
    content = content_of(20 * MIB)
    with SftpBench(served.account(uuid4().hex)) as bench, bench.open() as store:
        bench.put("in.bin", content)
        assert read(store, store.stat(remote_path("in.bin"))) == content
        reading = len(exchanges)
        upload, _commit = uploaded(store, "out.bin", content)
        assert bench.get(upload.token) == content
    assert reading > 3
    assert len(exchanges) - reading > 3


@pytest.mark.parametrize("quirks", [Quirks(short_reads=1_000), Quirks(max_packet=32_768, sequential=True, fsync=False)])
def test_small_steps_add_up(password_sftp: PasswordSftpServer, quirks: Quirks) -> None:
    """Short reads and a server that takes little at a time, in order, cost speed and nothing else."""
    password_sftp.behave(quirks)
    content = content_of(2 * MIB + 17)
    with SftpBench(password_sftp.account(uuid4().hex)) as bench, bench.open() as store:
        bench.put("in.bin", content)
        assert read(store, store.stat(remote_path("in.bin"))) == content
        upload, _commit = uploaded(store, "out.bin", content)
        assert bench.get(upload.token) == content


# -- fitness -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def _asked_anew() -> Iterator[None]:
    fit.footing.cache_clear()
    yield
    fit.footing.cache_clear()


@pytest.mark.usefixtures("_asked_anew")
def test_the_libraries_pinned_carry_the_fast_path() -> None:
    """With the versions that the project installs, all trials pass."""
    assert fit.failure_of(fit.try_flow) is None
    assert fit.failure_of(fit.try_packets) is None
    assert fit.footing() is Footing.PACKETS


def test_the_project_pins_what_the_fast_path_was_written_for() -> None:
    """The range of paramiko's versions that may be installed is the one that is tried."""
    project = tomllib.loads(Path("pyproject.toml").read_text())
    (wanted,) = [r for line in project["project"]["dependencies"] if (r := Requirement(line)).name == "paramiko"]
    for major in fit.VERSIONS:
        assert Version(f"{major}.9") in wanted.specifier
    assert Version(f"{fit.VERSIONS.stop}.0") not in wanted.specifier
    assert Version(f"{fit.VERSIONS.start - 1}.9") not in wanted.specifier


def _another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paramiko, "__version__", "6.0.0")


def _another_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paramiko.Channel, "_wait_for_send_window", lambda _channel, size: size)


def _another_packetizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Packetizer, "_trigger_rekey", None)
    monkeypatch.setattr(GcmPacketizer, "REKEY_BYTES", 1)


def _another_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paramiko.Channel, "recv", lambda _channel, _size: b"")


@pytest.mark.usefixtures("_asked_anew")
@pytest.mark.parametrize(
    ("change", "left"),
    [
        (_another_version, Footing.PUBLIC),
        (_another_buffer, Footing.PUBLIC),
        (_another_window, Footing.FLOW),
        (_another_packetizer, Footing.FLOW),
    ],
)
def test_what_changed_is_not_stood_on(monkeypatch: pytest.MonkeyPatch, change: Callable[[pytest.MonkeyPatch], None], left: Footing) -> None:
    """A paramiko of another version, or with another inside, leaves the pipes that do not need what changed."""
    change(monkeypatch)
    assert fit.footing() is left


# -- packets -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Our packetizer and paramiko's own, joined, with keys."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    theirs.settimeout(5)
    with ours, theirs:
        pair = (GcmPacketizer(ours), Packetizer(theirs))
        fit._set_keys(*pair)
        yield pair


def data_message(payload: bytes, *, channel: int = 0, length: int | None = None) -> Message:
    """A message with payload of a channel."""
    message = Message()
    message.add_byte(bytes((CHANNEL_DATA,)))
    message.add_int(channel)
    message.add_int(len(payload) if length is None else length)
    message.add_bytes(payload)
    return message


def bytes_of(piece: Piece) -> bytes:
    """What a piece holds."""
    return bytes(piece.view[piece.start : piece.end])


def test_a_changed_packet_is_refused() -> None:
    """A packet whose bits were turned on the way is not opened."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    with ours, theirs:
        receiver = GcmPacketizer(ours)
        fit._set_keys(receiver, GcmPacketizer(theirs))
        sealed = bytearray((16).to_bytes(4, "big") + AESGCM(fit._KEY).encrypt(fit._IV, bytes((4, 80)) + bytes(14), (16).to_bytes(4, "big")))
        sealed[9] ^= 1
        theirs.sendall(sealed)
        with pytest.raises(paramiko.SSHException, match="not authentic"):
            receiver.read_message()


@pytest.mark.parametrize("length", [0, 15, 17, 1 << 20, 0xFFFFFFFF])
def test_an_impossible_length_is_refused(length: int) -> None:
    """A length that no packet has ends the connection before its bytes are waited for."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    with ours, theirs:
        receiver = GcmPacketizer(ours)
        fit._set_keys(receiver, GcmPacketizer(theirs))
        theirs.sendall(length.to_bytes(4, "big") + bytes(64))
        with pytest.raises(paramiko.SSHException, match="impossible length"):
            receiver.read_message()


@pytest.mark.parametrize("length", [3, 5, 0xFFFFFFFF])
def test_a_data_message_of_another_length_is_refused(ends: Ends, length: int) -> None:
    """Payload that says another length than it has ends the connection."""
    ends[1].send_message(data_message(b"four", length=length))
    with pytest.raises(paramiko.SSHException, match="another length"):
        ends[0].read_message()


def test_payload_of_one_channel_comes_together_and_others_apart(ends: Ends) -> None:
    """Packets that came together are one message, up to what is another channel's or another kind of message; the order stays."""
    for message in (
        data_message(b"a"),
        data_message(b"b" * 40_000),
        data_message(b"c", channel=1),
        Message(b"\x50rest"),
        data_message(b"d"),
    ):
        ends[1].send_message(message)
    came: list[tuple[int, int, bytes]] = []
    while len(b"".join(payload for _, _, payload in came)) < 40_007:
        kind, message = ends[0].read_message()
        if kind == CHANNEL_DATA:
            came.append((kind, message.get_int(), bytes_of(message.get_binary())))
        else:
            came.append((kind, -1, message.asbytes()))
    assert [(kind, channel) for kind, channel, _ in came if channel != 0] == [(CHANNEL_DATA, 1), (0x50, -1)]
    assert b"".join(payload for _, _, payload in came) == b"a" + b"b" * 40_000 + b"crest" + b"d"


def test_a_buffer_in_use_is_not_used_again(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was received stays as it is for as long as anybody looks at it, and buffers that nobody looks at serve again."""
    buffers = Buffers(kept=16)
    monkeypatch.setattr(packets, "BUFFERS", buffers)
    held: list[memoryview] = []

    def receive(number: int) -> memoryview:
        ends[1].send_message(data_message(bytes((number,)) * 100_000))
        piece: Piece = ends[0].read_message()[1].get_binary()
        return piece.view[piece.start : piece.end]

    for number in range(60):
        view = receive(number)
        if number % 7 == 0:
            held.append(view)
    assert [bytes(view) for view in held] == [bytes((number,)) * 100_000 for number in range(0, 60, 7)]
    held.clear()
    before = ends[0]._arena
    known = {id(arena) for arena in buffers._given} | {id(before)}
    for number in range(60):
        view = receive(number)
    assert id(ends[0]._arena) in known


def test_a_packet_without_payload_is_nothing(ends: Ends) -> None:
    """RFC 4254 allows it, to a connection at rest, too."""
    ours, theirs = ends
    inflow = Inflow()
    for content in (b"abc", b"defg"):
        ours.rest()
        for payload in (b"", content, b""):
            theirs.send_message(data_message(payload))
        while len(inflow) < len(content):
            inflow.feed(ours.read_message()[1].get_binary())
        assert bytes(inflow.read(len(content), 0)) == content
    assert BUFFERS.size >= 2 * packets.INBOX


def test_a_burst_without_gcm_leaves_as_single_messages() -> None:
    """Before AES-GCM is agreed on a burst is sent as paramiko sends messages."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    with ours, theirs:
        GcmPacketizer(ours).send_message(Burst(7, [b"abc", b"defg"], [2, 5]))
        receiver = Packetizer(theirs)
        read_back = [receiver.read_message()[1] for _ in range(2)]
    assert [(message.get_int(), message.get_binary()) for message in read_back] == [(7, b"ab"), (7, b"cdefg")]


def test_a_large_message_is_sealed_too(ends: Ends) -> None:
    """A message larger than the buffers for bursts is sent all the same."""
    sent = data_message(bytes(range(256)) * 800)
    ends[0].send_message(sent)
    kind, message = ends[1].read_message()
    assert (kind, message.asbytes()) == (CHANNEL_DATA, sent.asbytes()[1:])


def test_a_server_does_not_go_back_behind_gcm(ends: Ends) -> None:
    """Once agreed on, AES-GCM stays."""
    for set_keys in (ends[0].set_inbound_cipher, ends[0].set_outbound_cipher):
        with pytest.raises(paramiko.SSHException, match="behind AES-GCM"):
            set_keys(block_engine=None, block_size=8, mac_engine=None, mac_size=0, mac_key=b"", aead=False)


def test_a_server_that_ignores_an_exchange_is_left(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who goes on sending instead of exchanging keys is not listened to for ever."""
    monkeypatch.setattr(GcmPacketizer, "REKEY_BYTES", 10_000)
    monkeypatch.setattr(GcmPacketizer, "REKEY_BYTES_OVERFLOW_MAX", 50_000)

    def receive_all() -> None:
        for _ in range(7):
            ends[1].send_message(data_message(bytes(10_000)))
            ends[0].read_message()

    with pytest.raises(paramiko.SSHException, match="ignores"):
        receive_all()


def test_a_window_that_stays_small_is_used_all_the_same() -> None:
    """A burst waits a moment for a window that opens by drops, and no longer; it never sends more than the window lets out."""
    channel = paramiko.Channel(0)
    channel.out_max_packet_size = 32_768
    ours, theirs = socket.socketpair()
    with ours, theirs:
        burst_pipe = pipe.BurstPipe(paramiko.Transport(ours), channel)
        for window, granted in ((1_000_000, [32_704] * 8), (700, [700]), (40_000, [32_704, 7_296])):
            channel.out_window_size = window
            assert burst_pipe._grants(8 * 32_704) == granted
        channel.closed = True
        with pytest.raises(ConnectionResetError):
            burst_pipe._grants(1)


# -- the buffer of a channel -----------------------------------------------------------------------------------------------


def test_an_inflow_gives_what_lies_together() -> None:
    """A read waits for all of its bytes and gets those that lie together, without a copy: a small piece whole, a large one cut."""
    held = bytes(range(256)) * (SMALL // 128)
    arena = memoryview(bytearray(held))
    inflow = Inflow()
    inflow.feed(Piece(arena, 0, 3))
    inflow.feed(Piece(arena, 3, SMALL + 6))
    inflow.feed(b"other")
    assert len(inflow) == SMALL + 11
    first = inflow.read(4, 0)
    assert (bytes(first), first.obj is arena.obj) == (held[:4], True)
    assert bytes(inflow.read(2, 0)) == held[4:6]
    assert bytes(inflow.read(7, 0)) == held[6 : SMALL + 6]
    assert bytes(inflow.read(3, 0)) == b"other"
    assert not inflow.read_ready()
    assert len(inflow) == 0


def test_an_inflow_at_rest_holds_its_bytes_by_itself() -> None:
    """Once: what it holds by itself stays where it is."""
    arena = bytearray(b"0123456789")
    inflow = Inflow()
    view = memoryview(arena)
    inflow.feed(Piece(view, 2, 5))
    inflow.rest()
    inflow.feed(Piece(view, 5, 7))
    whole = bytearray(b"789")
    inflow.feed(Piece(memoryview(whole), 0, 3))
    del view
    first = inflow._pieces[0].view
    inflow.rest()
    assert inflow._pieces[0].view is first
    arena.append(0)
    whole.append(0)
    assert b"".join(inflow.read(size, 0) for size in (3, 2, 3)) == b"23456789"


def test_an_inflow_that_is_dropped_holds_nothing() -> None:
    """Nor does it take more."""
    arena = bytearray(10)
    inflow = Inflow()
    inflow.feed(Piece(memoryview(arena), 0, 10))
    inflow.drop()
    inflow.feed(Piece(memoryview(arena), 0, 10))
    arena.append(0)
    assert bytes(inflow.read(1, 0)) == b""


def test_an_inflow_takes_no_notice_of_nothing() -> None:
    """Nothing is what a reader gets at the end."""
    inflow = Inflow()
    inflow.feed(b"")
    inflow.feed(b"abcd")
    assert bytes(inflow.read(4, 0)) == b"abcd"


def test_an_inflow_that_ends_gives_what_it_has() -> None:
    """At the end a read gets what is left, then nothing; before it, too little in time is a timeout."""
    inflow = Inflow()
    inflow.feed(b"abc")
    with pytest.raises(PipeTimeout):
        inflow.read(4, 0.01)
    inflow.close()
    assert bytes(inflow.read(4, 0.01)) == b"abc"
    assert bytes(inflow.read(4, 0.01)) == b""
