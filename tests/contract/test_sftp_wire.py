"""The SFTP codec against a scripted server: replies out of order, short, malformed, hostile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from socket import socket
from threading import Event

import pytest

from eft.adapters.sftp.pipe import PatientSocket
from eft.adapters.sftp.reading import Shorter
from eft.adapters.sftp.session import LARGEST_SIZE, SAFE_SIZE, habits_of
from eft.adapters.sftp.store import SftpStore
from eft.adapters.sftp.wire import Code, Kind, Refused, Wire, string, uint32, uint64
from eft.domain.fingerprint import RefusedName, RemoteFile
from eft.domain.names import remote_path
from eft.domain.parts import PartPlan
from eft.domain.transfer import Upload
from eft.errors import Permanent, Transient
from eft.ports import Bytes
from tests.contract.sftp_bench import listening
from tests.contract.sftp_script import File, Script, attributes, names, packet, session_on, status, store_on

# -- packets -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "version",
    [
        b"This account is currently not available.\n",
        packet(Kind.VERSION, uint32(2)),
        packet(Kind.STATUS, uint32(0) + uint32(0)),
        packet(Kind.VERSION, b"\0\0"),
        packet(Kind.VERSION, uint32(3) + b"\0\0\xff\xffshort"),
        b"\0\0\0\0",
        b"\x7f\xff\xff\xff",
    ],
)
def test_what_is_no_sftp_is_a_protocol_error(version: bytes) -> None:
    """A shell's greeting, an old version and lengths out of bounds are `protocol_error`, for the endpoint's breaker."""
    with pytest.raises(Transient) as error:
        session_on(Script(version=version + bytes(64)))
    assert error.value.reason == "protocol_error"
    assert error.value.endpoint == "ep"


def test_extensions_are_read_from_the_greeting() -> None:
    """The server's extension list decides what is used; without it nothing but version 3 is asked for."""
    greeting = packet(Kind.VERSION, uint32(3) + string(b"posix-rename@openssh.com") + string(b"1"))
    assert session_on(Script(version=greeting)).extensions == {b"posix-rename@openssh.com": b"1"}
    script = Script()
    plain = session_on(script)
    assert plain.extensions == {}
    assert (plain.read_size, plain.write_size) == (SAFE_SIZE, SAFE_SIZE)
    assert plain.free_bytes(b"/") is None
    plain.fsync(string(b"h"))
    assert {kind for kind, _ in script.requests} == {Kind.REALPATH}


@pytest.mark.parametrize(
    ("limits", "read", "write"),
    [
        ((256 * 1024, 261_120, 261_120, 0), 261_120, 261_120),
        ((0, 0, 0, 0), LARGEST_SIZE, LARGEST_SIZE),
        ((1 << 40, 1 << 40, 1 << 40, 0), LARGEST_SIZE, LARGEST_SIZE),
        ((34_000, 32_768, 32_768, 100), 32_976, 32_976),
        ((100_000, 65_536, 40_000, 100), 65_536, 40_000),
        ((1, 1, 1, 1), SAFE_SIZE, SAFE_SIZE),
    ],
)
def test_requests_are_sized_by_the_servers_limits(limits: tuple[int, ...], read: int, write: int) -> None:
    """Requests are as large as the server allows, at most 255 KiB, at least the 32 KiB that the protocol grants."""

    def answer(kind: int, ident: int, body: bytes) -> bytes:
        return packet(Kind.EXTENDED_REPLY, uint32(ident) + b"".join(uint64(n) for n in limits))

    session = session_on(Script(answer, version=packet(Kind.VERSION, uint32(3) + string(b"limits@openssh.com") + string(b"1"))))
    assert session.read_size == min(read, max(SAFE_SIZE, limits[1] or read))
    assert session.write_size == min(write, max(SAFE_SIZE, limits[2] or write))


def test_refused_limits_are_no_error() -> None:
    """A server that announces limits and refuses to tell them gets small requests."""
    session = session_on(Script(version=packet(Kind.VERSION, uint32(3) + string(b"limits@openssh.com") + string(b"1"))))
    assert session.read_size == SAFE_SIZE


def test_a_status_without_message_is_understood() -> None:
    """Some servers leave message and language out of a status."""
    script = Script(lambda _kind, ident, _body: packet(Kind.STATUS, uint32(ident) + uint32(Code.FAILURE)))
    with pytest.raises(Refused) as refused:
        session_on(script).lstat(b"/a")
    assert refused.value.code == Code.FAILURE


def test_a_reply_to_no_request_breaks_the_wire() -> None:
    """A reply with an unknown id ends the connection."""
    session = session_on(Script(lambda _kind, ident, _body: status(ident + 7, Code.OK)))
    with pytest.raises(Transient) as error:
        session.lstat(b"/a")
    assert error.value.reason == "protocol_error"
    assert session.wire.broken


@pytest.mark.parametrize("reply", [lambda i: packet(Kind.DATA, uint32(i) + string(b"x")), lambda i: packet(Kind.ATTRS, uint32(i) + b"\0")])
def test_a_reply_of_the_wrong_shape_breaks_the_wire(reply: Callable[[int], bytes]) -> None:
    """A reply of another type than asked for, or one that ends early, ends the connection."""
    session = session_on(Script(lambda _kind, ident, _body: reply(ident)))
    with pytest.raises(Transient) as error:
        session.lstat(b"/a")
    assert error.value.reason == "protocol_error"


def test_silence_is_stalled() -> None:
    """A request without a reply is `stalled`."""
    session = session_on(Script(lambda _kind, _ident, _body: None))
    with pytest.raises(Transient) as error:
        session.lstat(b"/a")
    assert error.value.reason == "stalled"


def test_replies_arrive_in_pieces() -> None:
    """Packets cut anywhere are put together."""
    content = bytes(range(256)) * 500
    store = store_on(Script(File(content), piece=7))
    file = store.stat(remote_path("a"))
    assert b"".join(bytes(c) for c in store.read(file, start=0, size=len(content))) == content


class Sent:
    """A pipe that keeps what is sent."""

    def __init__(self) -> None:
        self.sent = b""

    def send(self, pieces: Sequence[Bytes], *, until: float) -> None:
        """Keeps it."""
        self.sent += b"".join(pieces)

    def receive(self, wanted: int, *, until: float) -> Bytes:
        """Hears nothing."""
        raise TimeoutError

    def rest(self) -> None:
        """Holds no buffers."""

    def drop(self) -> None:
        """Holds none."""


def test_a_wire_at_rest_holds_no_buffer_of_what_it_has_to_send() -> None:
    """It is sent all the same, unless the connection is over."""
    pipe = Sent()
    wire = Wire(pipe, endpoint="ep1", patience=1)
    buffer = bytearray(b"some bytes")
    wire.post(Kind.WRITE, memoryview(buffer))
    wire.rest()
    buffer[:] = b"other bytes"
    wire.post(Kind.WRITE, memoryview(buffer)[:5])
    wire._flush()
    assert pipe.sent.count(b"some bytes") == 1
    assert pipe.sent.endswith(b"other")
    wire.post(Kind.WRITE, memoryview(buffer))
    wire.drop()
    buffer.append(0)


class Cut:
    """A pipe that hands out the bytes of one reply in pieces cut where a test says, and then no more."""

    def __init__(self, reply: bytes, *at: int) -> None:
        ends = [0, *at, len(reply)]
        self.pieces = [memoryview(bytearray(reply[a:b])) for a, b in pairwise(ends)]
        self._left = list(self.pieces)

    def send(self, pieces: Sequence[Bytes], *, until: float) -> None:
        """Sends nothing."""

    def receive(self, wanted: int, *, until: float) -> Bytes:
        if not self._left:
            raise TimeoutError
        return self._left.pop(0)

    def rest(self) -> None:
        """Keeps what it holds."""

    def drop(self) -> None:
        """Keeps what it holds, too."""


@pytest.mark.parametrize("cut", [(), (5,), (9,), (13,), (14,), (500,), (1012,), (4, 500), (500, 700), (4, 8, 13, 14)])
def test_a_reply_in_two_buffers_is_read_where_it_lies(cut: tuple[int, ...]) -> None:
    """The bytes of a READ come as views into what the pipe gave, wherever one buffer ends; only what came in more than two is copied."""
    content = bytes(range(250)) * 4
    pipe = Cut(packet(Kind.DATA, uint32(1) + string(content)), *cut)
    pieces = Wire(pipe, endpoint="ep1", patience=1).call(Kind.READ).expect(Kind.DATA).pieces()
    assert b"".join(pieces) == content
    if cut == (500,):
        assert [piece.obj for piece in pieces] == [piece.obj for piece in pipe.pieces]


@pytest.mark.parametrize("cut", [5, 9, 11, 17, 20])
def test_fields_that_lie_in_two_buffers_are_read(cut: int) -> None:
    """Names and numbers are whole, wherever a buffer ends."""
    pipe = Cut(packet(Kind.NAME, uint32(1) + uint32(7) + string(b"name") + string(b"more")), cut)
    reply = Wire(pipe, endpoint="ep1", patience=1).call(Kind.READDIR).expect(Kind.NAME)
    assert (reply.uint32(), bytes(reply.string()), b"".join(reply.pieces()), reply.more) == (7, b"name", b"more", False)


@pytest.mark.parametrize("cut", [(), (20,)])
def test_a_string_that_is_longer_than_its_reply_breaks_the_wire(cut: tuple[int, ...]) -> None:
    """In one buffer or two."""
    pipe = Cut(packet(Kind.DATA, uint32(1) + uint32(100) + bytes(50)), *cut)
    wire = Wire(pipe, endpoint="ep1", patience=1)
    with pytest.raises(Transient) as error:
        wire.call(Kind.READ).expect(Kind.DATA).pieces()
    assert error.value.reason == "protocol_error"
    assert wire.broken


# -- reading -------------------------------------------------------------------------------------------------------------


def test_reordered_replies_come_out_in_order() -> None:
    """Data that arrives in another order is yielded in the file's."""
    content = bytes(range(256)) * 2_000
    script = Script(File(content))
    session = session_on(script)
    handle = session.open(b"/a", 1)
    chunks = session.read(handle, start=5, size=len(content) - 5)
    got = bytes(next(chunks))
    for chunk in chunks:
        script.shuffled()
        got += bytes(chunk)
    assert got == content[5:]


def test_short_reads_are_completed() -> None:
    """A server that gives less than asked is asked for the rest, and for less from then on."""
    content = bytes(range(256)) * 1_200
    script = Script(File(content, most=10_000))
    session = session_on(script)
    held = b"".join(bytes(c) for c in session.read(session.open(b"/a", 1), start=0, size=len(content)))
    assert held == content


def test_a_file_that_ends_early_is_shorter() -> None:
    """The end of the file before the end of the range is told apart from all else."""
    session = session_on(Script(File(b"x" * 100_000)))
    with pytest.raises(Shorter):
        list(session.read(session.open(b"/a", 1), start=0, size=100_001))


def test_what_is_under_way_is_bounded() -> None:
    """However large the file, no more than the agreed number of requests is under way."""
    script = Script(File(bytes(20_000_000)))
    session = session_on(script)
    assert sum(len(c) for c in session.read(session.open(b"/a", 1), start=0, size=20_000_000)) == 20_000_000
    assert script.most_under_way <= session.reads_ahead
    assert session.reads_ahead * session.read_size <= 16 * 1024 * 1024


@pytest.mark.parametrize("held", [b"", bytes(SAFE_SIZE + 1)])
def test_data_that_was_not_asked_for_breaks_the_wire(held: bytes) -> None:
    """No bytes at all, or more than asked for, end the connection."""

    def answer(kind: int, ident: int, body: bytes) -> bytes | None:
        return packet(Kind.DATA, uint32(ident) + string(held)) if kind == Kind.READ else File(bytes(100_000))(kind, ident, body)

    session = session_on(Script(answer))
    with pytest.raises(Transient) as error:
        list(session.read(session.open(b"/a", 1), start=0, size=100_000))
    assert error.value.reason == "protocol_error"


def test_an_abandoned_read_leaves_no_replies_behind() -> None:
    """Replies to requests given up are dropped, and later requests get their own."""
    content = bytes(range(256)) * 4_000
    session = session_on(Script(File(content)))
    chunks = session.read(session.open(b"/a", 1), start=0, size=len(content))
    next(chunks)
    del chunks
    assert session.lstat(b"/a").size == len(content)
    assert session.wire._arrived == {}
    assert session.wire._forgotten == set()


def _read(store: SftpStore, file: RemoteFile, start: int, size: int) -> bytes:
    return b"".join(bytes(chunk) for chunk in store.read(file, start=start, size=size, until=file.size))


def _far(store: SftpStore) -> SftpStore:
    store.session.round_trip = 0.1
    return store


def test_a_far_server_is_asked_for_the_next_part_at_once() -> None:
    """Parts that follow each other are read from one opened file, and the next one's requests leave before this one is done with."""
    content = bytes(range(256)) * 20_000
    script = Script(File(content))
    store = _far(store_on(script))
    file = store.stat(remote_path("a"))
    sizes = [1_000_001, 2_000_000, 1, len(content) - 3_000_002]
    came = []
    for number, size in enumerate(sizes):
        came.append(_read(store, file, sum(sizes[:number]), size))
        if number == 0:
            assert [kind for kind, _ in script.requests].count(Kind.READ) * SAFE_SIZE > 2_000_000
    assert b"".join(came) == content
    kinds = [kind for kind, _ in script.requests]
    assert (kinds.count(Kind.OPEN), kinds.count(Kind.FSTAT)) == (1, len(sizes))
    assert store.session.at_rest


@pytest.mark.parametrize(("lanes", "expected"), [(4, 8), (1, 1)])
def test_a_far_server_has_more_writers(lanes: int, expected: int) -> None:
    """Where it takes several at all."""
    store = _far(store_on(Script(File(b""))))
    store.session.habits = replace(store.session.habits, lanes=lanes)
    assert store.far
    assert SftpStore(store.endpoint, store.session).lanes == expected


def test_what_was_read_ahead_in_vain_is_let_go() -> None:
    """Another part or file than the one that follows is read from the file opened anew; what was kept is closed."""
    content = bytes(range(256)) * 4_000
    script = Script(File(content))
    store = _far(store_on(script))
    file = store.stat(remote_path("a"))
    assert _read(store, file, 0, 100_000) == content[:100_000]
    assert not store.session.at_rest
    assert _read(store, file, 500_000, 100_000) == content[500_000:600_000]
    store.session.let_go()
    assert store.session.at_rest
    assert store.stat(remote_path("a")) == file
    assert store.session.wire._arrived == {}
    kinds = [kind for kind, _ in script.requests]
    assert (kinds.count(Kind.OPEN), kinds.count(Kind.CLOSE)) == (2, 2)


def test_a_near_server_is_asked_for_nothing_in_vain() -> None:
    """Where a round trip costs nothing, nothing is asked for beyond the part."""
    script = Script(File(bytes(1_000_000)))
    store = store_on(script)
    store.session.round_trip = 0.0
    assert len(_read(store, store.stat(remote_path("a")), 0, 100_000)) == 100_000
    assert sum(int.from_bytes(body[-4:], "big") for kind, body in script.requests if kind == Kind.READ) == 100_000
    assert store.session.at_rest


def test_a_part_read_ahead_of_a_change_is_refused() -> None:
    """A file that shrank after its bytes were asked for is `source_changed`."""
    served = File(bytes(1_000_000))
    store = _far(store_on(Script(served)))
    file = store.stat(remote_path("a"))
    assert len(_read(store, file, 0, 100_000)) == 100_000
    served.content = bytes(300_000)
    with pytest.raises(Permanent) as error:
        _read(store, file, 100_000, 100_000)
    assert error.value.reason == "source_changed"
    assert store.session.at_rest


# -- listing -------------------------------------------------------------------------------------------------------------


def test_missing_attributes_are_asked_for() -> None:
    """Entries without type or size are looked at one by one."""
    script = Script(names((b"full.csv", attributes()), (b"bare.csv", uint32(0))))
    found = {str(f.path): f for f in store_on(script).list("", recursive=True) if isinstance(f, RemoteFile)}
    assert found["full.csv"].size == 3
    assert found["full.csv"].modified == datetime.fromtimestamp(1_700_000_000, UTC)
    assert found["bare.csv"].size == 9
    assert [kind for kind, _ in script.requests].count(Kind.LSTAT) == 1


def test_names_that_point_elsewhere_are_refused() -> None:
    """A server's name with a slash, a dot-dot or a NUL in it becomes no path; `.` and `..` themselves are no business of ours."""
    hostile = [b"../../etc/passwd", b"/etc/shadow", b"a/b", b"x\0y", b"a\\b"]
    script = Script(names(*[(name, attributes()) for name in [b".", b"..", *hostile]]))
    found = list(store_on(script).list("", recursive=True))
    assert [f.path for f in found if isinstance(f, RemoteFile)] == ["a\\b"]
    assert len([f for f in found if isinstance(f, RefusedName)]) == 4


def test_a_listing_may_end_with_an_empty_reply() -> None:
    """Some servers say the end of a directory with no names instead of EOF."""

    def answer(kind: int, ident: int, body: bytes) -> bytes | None:
        return packet(Kind.NAME, uint32(ident) + uint32(0)) if kind == Kind.READDIR else names()(kind, ident, body)

    assert list(store_on(Script(answer)).list("", recursive=True)) == []


def test_a_directory_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that shows ever more directories is `listing_too_large`."""
    monkeypatch.setattr("eft.adapters.sftp.source.MOST_DIRECTORIES", 10)
    script = Script(names(*[(f"d{i}".encode(), attributes(mode=0o40755)) for i in range(12)]))
    with pytest.raises(Permanent) as error:
        list(store_on(script).list("", recursive=True))
    assert error.value.reason == "listing_too_large"


def test_a_directory_that_vanishes_is_passed_over() -> None:
    """A directory removed between its listing and its own opening is nobody's trouble."""
    first = names((b"gone", attributes(mode=0o40755)), (b"a.csv", attributes()))
    opened: list[bytes] = []

    def answer(kind: int, ident: int, body: bytes) -> bytes | None:
        if kind == Kind.OPENDIR:
            opened.append(body)
            if len(opened) > 1:
                return status(ident, Code.NO_SUCH_FILE)
        return first(kind, ident, body)

    assert [f.path for f in store_on(Script(answer)).list("", recursive=True) if isinstance(f, RemoteFile)] == ["a.csv"]


# -- refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (Code.NO_SUCH_FILE, Permanent, "source_missing"),
        (Code.NO_SUCH_PATH, Permanent, "source_missing"),
        (Code.PERMISSION_DENIED, Permanent, "permission_denied"),
        (Code.WRITE_PROTECT, Permanent, "permission_denied"),
        (Code.OP_UNSUPPORTED, Permanent, "unsupported_by_server"),
        (Code.INVALID_FILENAME, Permanent, "name_refused"),
        (Code.FAILURE, Transient, "read_failed"),
        (Code.CONNECTION_LOST, Transient, "connection_lost"),
        (Code.NO_SPACE_ON_FILESYSTEM, Transient, "disk_full"),
        (4711, Transient, "read_failed"),
    ],
)
def test_refusals_are_judged_by_their_code(code: int, kind: type[Exception], reason: str) -> None:
    """Each status code has one meaning; the server's own words are shown, printable, and judged by nobody."""

    def answer(what: int, ident: int, body: bytes) -> bytes | None:
        return status(ident, code, b"words\x1b[2J") if what == Kind.OPEN else File(b"x")(what, ident, body)

    store = store_on(Script(answer))
    with pytest.raises(kind) as error:
        list(store.read(store.stat(remote_path("a")), start=0, size=1))
    assert error.value.reason == reason  # type: ignore[attr-defined]
    assert "\x1b" not in str(error.value)


def test_a_close_that_fails_is_no_delivery() -> None:
    """A server that fails to close a file has not stored it: the error of CLOSE is raised, not swallowed."""

    def answer(what: int, ident: int, body: bytes) -> bytes | None:
        return status(ident, Code.FAILURE) if what == Kind.CLOSE else File(b"")(what, ident, body)

    session = session_on(Script(answer))
    with pytest.raises(Refused):
        session.close(session.open(b"/a", 2))


def test_an_upload_whose_close_fails_is_not_finished() -> None:
    """What the server says to CLOSE is what `finish` says."""

    def answer(what: int, ident: int, body: bytes) -> bytes | None:
        return status(ident, Code.QUOTA_EXCEEDED) if what == Kind.CLOSE else File(b"")(what, ident, body)

    store = store_on(Script(answer))
    upload = Upload(attempt=1, token=".t.part", path=remote_path("a"), plan=PartPlan(size=3, part_size=3))
    with store.upload(upload, fresh=True) as uploading:
        assert uploading.write(upload.plan.part(1), [b"abc"]) == [(1, None)]
        with pytest.raises(Transient) as error:
            uploading.finish()
    assert error.value.reason == "disk_full"


@pytest.mark.parametrize(("code", "raises"), [(Code.OP_UNSUPPORTED, False), (Code.FAILURE, True)])
def test_an_fsync_that_fails_counts_unless_it_is_unknown(code: int, *, raises: bool) -> None:
    """A server that offers fsync and then does not know it loses nothing; one that fails at it does."""
    greeting = packet(Kind.VERSION, uint32(3) + string(b"fsync@openssh.com") + string(b"1"))
    session = session_on(Script(lambda _kind, ident, _body: status(ident, code), version=greeting))
    if raises:
        with pytest.raises(Refused):
            session.fsync(string(b"h"))
    else:
        session.fsync(string(b"h"))


def test_a_file_in_the_place_of_a_directory_is_told_apart() -> None:
    """Where a server's refusal to list is generic, a look tells that the path is no directory."""

    def answer(what: int, ident: int, body: bytes) -> bytes | None:
        if what == Kind.OPENDIR:
            return status(ident, Code.FAILURE)
        return packet(Kind.ATTRS, uint32(ident) + attributes())

    with pytest.raises(Permanent) as error:
        list(store_on(Script(answer)).list("a.csv", recursive=True))
    assert error.value.reason == "not_a_directory"


def test_what_cannot_be_looked_at_is_shown() -> None:
    """An entry without attributes that may not be looked at is refused; one that vanished is left out."""
    answers = iter([Code.NO_SUCH_FILE, Code.PERMISSION_DENIED])
    listing = names((b"gone", uint32(0)), (b"closed", uint32(0)))

    def answer(what: int, ident: int, body: bytes) -> bytes | None:
        return status(ident, next(answers)) if what == Kind.LSTAT else listing(what, ident, body)

    (found,) = store_on(Script(answer)).list("", recursive=True)
    assert isinstance(found, RefusedName)
    assert found.shown == "closed"


def test_a_rename_that_fails_for_no_visible_reason_is_transient() -> None:
    """A refused move or commit whose file is still there, and whose target is free, is `rename_failed`."""

    def answer(what: int, ident: int, body: bytes) -> bytes | None:
        if what == Kind.LSTAT and body.endswith(b"target"):
            return status(ident, Code.NO_SUCH_FILE)
        return File(b"")(what, ident, body) if what in {Kind.LSTAT, Kind.STAT} else status(ident, Code.FAILURE)

    store = store_on(Script(answer))
    for act in (lambda: store.move(remote_path("a"), remote_path("target")), lambda: store.remove(remote_path("a"))):
        with pytest.raises(Transient) as error:
            act()
        assert error.value.reason in {"rename_failed", "remove_failed"}


def test_what_sftp_cannot_do_says_so() -> None:
    """Versions and copies on the server's side belong to other stores."""
    store = store_on(Script(File(b"abc")))
    file = store.stat(remote_path("a"))
    upload = Upload(attempt=1, token=".t.part", path=remote_path("a"), plan=PartPlan(size=3, part_size=3))
    assert store.copies_from(store) is False
    for act in (
        lambda: store.remove_version(file),
        lambda: store.copy_version(file, remote_path("b")),
        lambda: store.copy_part(upload, upload.plan.part(1), source=store, file=file),
    ):
        with pytest.raises(Permanent) as error:
            act()
        assert error.value.reason == "unsupported"


def test_a_peer_that_takes_nothing_is_given_up() -> None:
    """A socket whose peer never reads fails after its patience; paramiko, which retries for ever, then gives up too."""
    over = Event()

    def never_read(_connection: socket) -> None:
        over.wait(60)

    with listening(never_read) as port:
        held = PatientSocket()
        held.connect(("127.0.0.1", port))
        held.settimeout(0.05)
        held.patience = 0.2
        with held, pytest.raises(ConnectionAbortedError):
            _send_for_ever(held)
        over.set()


def _send_for_ever(held: PatientSocket) -> None:
    while True:
        with suppress(TimeoutError):
            held.send(bytes(1 << 20))


def test_only_known_servers_are_trusted_with_more() -> None:
    """Parallel writers and listings asked for ahead are for servers that are known to stand them."""
    assert habits_of("SSH-2.0-OpenSSH_9.2p1 Debian-2").lanes == 4
    assert habits_of("SSH-2.0-mod_sftp").names_ahead > 1
    for other in ("SSH-2.0-AWS_SFTP_1.1", "SSH-2.0-SFTPGo_2.6", "SSH-2.0-NotOpenSSH", "rubbish", ""):
        assert (habits_of(other).lanes, habits_of(other).names_ahead) == (1, 1)


def test_an_idle_wire_keeps_no_buffer() -> None:
    """Once a reply is dropped the buffer that it came in may be used again: a view of nothing would keep it, too."""
    buffer = bytearray(packet(Kind.STATUS, uint32(1) + uint32(Code.OK)))

    class Once:
        def send(self, pieces: Sequence[Bytes], *, until: float) -> None:
            """Sends nothing."""

        def receive(self, wanted: int, *, until: float) -> Bytes:
            return memoryview(buffer)

        def rest(self) -> None:
            """Keeps what it holds."""

        def drop(self) -> None:
            """Keeps what it holds, too."""

    wire = Wire(Once(), endpoint="ep1", patience=1)
    wire.call(Kind.CLOSE).expect(Kind.STATUS)
    buffer.append(0)
