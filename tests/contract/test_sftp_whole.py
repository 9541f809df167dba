"""Small files read at once over SFTP: how many requests, in which order, and what each failure becomes; no file is left open."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.local.sftp import PasswordSftpServer, Quirks, SftpServer
from eft.adapters.sftp.session import SAFE_SIZE, Session, habits_of
from eft.adapters.sftp.store import SftpStore
from eft.adapters.sftp.wire import Code, Kind, Refused, string, uint32
from eft.domain.names import remote_path
from eft.errors import EftError, NotFound, Permanent, Transient
from eft.ports import Bytes
from tests.contract.sftp_bench import SftpBench
from tests.contract.sftp_script import Script, attributes, packet, status, store_on
from tests.contract.store_suite import content_of

OPENSSH, OTHER = "SSH-2.0-OpenSSH_9.2", "SSH-2.0-SFTPGo_2.6"
PATH = remote_path("in/a.csv")
needs_another_user = pytest.mark.skipif(os.geteuid() != 0, reason="only root serves another user")
both = pytest.mark.parametrize("version", [OPENSSH, OTHER])


class Served:
    """Answers for one file, and keeps count of what is open; `looks` are its attributes look by look, the last one for good."""

    def __init__(self, content: bytes, *, looks: list[bytes | int] | None = None, most: int = 1 << 20) -> None:
        self.content = content
        self.looks = looks or [attributes(size=len(content))]
        self.most = most
        self.open: set[bytes] = set()
        self.opened = 0
        self.refusals: dict[int, int] = {}
        """Statuses by the kind of request."""

    def __call__(self, kind: int, ident: int, body: bytes) -> bytes | None:
        if kind in self.refusals:
            return status(ident, self.refusals[kind])
        if kind in {Kind.LSTAT, Kind.FSTAT}:
            look = self.looks[0] if len(self.looks) == 1 else self.looks.pop(0)
            return status(ident, look) if isinstance(look, int) else packet(Kind.ATTRS, uint32(ident) + look)
        if kind == Kind.OPEN:
            self.opened += 1
            self.open.add(handle := b"h%d" % self.opened)
            return packet(Kind.HANDLE, uint32(ident) + string(handle))
        handle = body[4 : 4 + int.from_bytes(body[:4], "big")]
        if handle not in self.open:
            return status(ident, Code.INVALID_HANDLE)
        if kind == Kind.CLOSE:
            self.open.discard(handle)
            return status(ident, Code.OK)
        offset, length = struct.unpack(">QI", body[4 + len(handle) :])
        held = self.content[offset : offset + min(length, self.most)]
        return packet(Kind.DATA, uint32(ident) + string(held)) if held else status(ident, Code.EOF)


def whole(store: SftpStore, limit: int = 1 << 20) -> bytes:
    """Returns the file's bytes."""
    return b"".join(store.whole(PATH, limit=limit, listed=True)[1])


def left_in_order(store: SftpStore, served: Served) -> None:
    """Sees that no file is open and no reply outstanding, once another request has left."""
    assert store.session.at_rest
    store.session.realpath(b".")
    assert served.open == set()
    wire = store.session.wire
    assert (wire._arrived, wire._forgotten, wire._awaited, wire.broken) == ({}, set(), set(), False)


# -- how it is asked -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 10_240, 3 * SAFE_SIZE + 1])
def test_a_server_that_keeps_the_order_is_asked_twice(size: int) -> None:
    """A look and the opening leave together; then all READs, the closing and the second look: five requests for a small file."""
    served = Served(content_of(size))
    script = Script(served)
    store = store_on(script)
    script.sent.clear()
    assert whole(store) == served.content
    reads = [Kind.READ] * -(-size // SAFE_SIZE)
    assert script.sent == [[Kind.LSTAT, Kind.OPEN], [*reads, Kind.CLOSE, Kind.LSTAT]]
    left_in_order(store, served)


@pytest.mark.parametrize("size", [0, 1, 10_240, 3 * SAFE_SIZE + 1])
def test_any_other_server_is_asked_in_turn(size: int) -> None:
    """The file is opened when the look is answered, and looked at again when its bytes have come: no order of replies matters."""
    served = Served(content_of(size))
    script = Script(served)
    store = store_on(script, version=OTHER)
    script.sent.clear()
    assert whole(store) == served.content
    reads = [[Kind.READ] * -(-size // SAFE_SIZE)] if size else []
    assert script.sent == [[Kind.LSTAT], [Kind.OPEN], *reads, [Kind.CLOSE, Kind.LSTAT]]
    left_in_order(store, served)


def test_only_known_servers_are_trusted_to_keep_the_order() -> None:
    """OpenSSH and mod_sftp carry out one request after the other."""
    assert habits_of(OPENSSH).in_order
    assert habits_of("SSH-2.0-mod_sftp").in_order
    for other in (OTHER, "SSH-2.0-AWS_SFTP_1.1", "SSH-2.0-NotOpenSSH", ""):
        assert not habits_of(other).in_order


@both
def test_replies_may_come_in_any_order(version: str) -> None:
    """Bytes come out in the file's order, whatever the order of the replies."""
    served = Served(content_of(20 * SAFE_SIZE))
    script = Script(served)
    store = store_on(script, version=version)
    send = script.send

    def send_and_shuffle(pieces: list[Bytes], *, until: float) -> None:
        send(pieces, until=until)
        script.shuffled()

    script.send = send_and_shuffle  # type: ignore[method-assign, assignment]
    assert whole(store) == served.content
    script.send = send  # type: ignore[method-assign]
    left_in_order(store, served)


def test_a_file_beyond_what_may_be_under_way_is_read_in_turn() -> None:
    """A limit of many megabytes puts no more requests under way than any reading does."""
    served = Served(bytes(20_000_000))
    script = Script(served)
    store = store_on(script)
    assert len(whole(store, limit=20_000_000)) == 20_000_000
    assert script.most_under_way <= store.session.reads_ahead + 2
    left_in_order(store, served)


def test_what_was_read_ahead_is_let_go() -> None:
    """A file that was kept open for the part that follows is closed."""
    served = Served(content_of(1_000_000))
    store = store_on(Script(served))
    store.session.round_trip = 0.1
    file = store.stat(PATH)
    assert b"".join(store.read(file, start=0, size=100_000, until=file.size)) == served.content[:100_000]
    assert not store.session.at_rest
    assert whole(store) == served.content
    left_in_order(store, served)


# -- short answers -------------------------------------------------------------------------------------------------------


@both
def test_short_answers_are_completed(version: str) -> None:
    """A server that answers READs in part is asked for the rest before the file is closed."""
    served = Served(content_of(100_000), most=9_000)
    script = Script(served)
    store = store_on(script, version=version)
    assert whole(store) == served.content
    left_in_order(store, served)
    script.sent.clear()
    assert whole(store) == served.content
    assert served.opened == (3 if version == OPENSSH else 2)
    assert [Kind.CLOSE, Kind.LSTAT] in script.sent
    left_in_order(store, served)


@both
def test_a_file_that_ends_early_has_changed(version: str) -> None:
    """The end of the file before its size is `source_changed`."""
    for content in (b"", b"x" * 40_000):
        served = Served(content, looks=[attributes(size=80_000)])
        store = store_on(Script(served), version=version)
        with pytest.raises(Permanent) as error:
            whole(store)
        assert error.value.reason == "source_changed"
        left_in_order(store, served)


def test_a_short_answer_of_a_file_that_changed_is_a_change() -> None:
    """A file cut short is not read anew: whoever asked sees that it changed."""
    served = Served(content_of(5_000), looks=[attributes(size=10_000), attributes(size=5_000)])
    store = store_on(Script(served))
    with pytest.raises(Permanent) as error:
        whole(store)
    assert error.value.reason == "source_changed"
    assert served.opened == 1
    left_in_order(store, served)


@both
@pytest.mark.parametrize("held", [b"", bytes(SAFE_SIZE + 1)])
def test_data_that_was_not_asked_for_breaks_the_wire(version: str, held: bytes) -> None:
    """No bytes at all, or more than asked for, end the connection."""
    served = Served(content_of(100_000))

    def answer(kind: int, ident: int, body: bytes) -> bytes | None:
        return packet(Kind.DATA, uint32(ident) + string(held)) if kind == Kind.READ else served(kind, ident, body)

    store = store_on(Script(answer), version=version)
    with pytest.raises(Transient) as error:
        whole(store)
    assert error.value.reason == "protocol_error"
    assert store.session.wire.broken


# -- changes -------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (attributes(size=10_241), "source_changed"),
        (attributes(size=10_239), "source_changed"),
        (attributes(size=10_240, modified=1_700_000_001), "source_changed"),
        (attributes(size=10_240, mode=0o120777), "is_symlink"),
        (attributes(size=10_240, mode=0o040755), "not_a_file"),
        (Code.NO_SUCH_FILE, "source_missing"),
        (Code.PERMISSION_DENIED, "permission_denied"),
    ],
)
def test_the_second_look_decides(version: str, second: bytes | int, reason: str) -> None:
    """What is not afterwards as it was before is not returned; the same as before is."""
    served = Served(content_of(10_240), looks=[attributes(size=10_240), second])
    store = store_on(Script(served), version=version)
    with pytest.raises(Permanent) as error:
        whole(store)
    assert error.value.reason == reason
    left_in_order(store, served)
    served.looks = [attributes(size=10_240)]
    assert whole(store) == served.content


@both
def test_an_empty_file_that_is_being_written_has_changed(version: str) -> None:
    """A file that was empty at the first look, and is not at the second, is not returned as empty."""
    served = Served(b"", looks=[attributes(size=0), attributes(size=5)])
    store = store_on(Script(served), version=version)
    with pytest.raises(Permanent) as error:
        whole(store)
    assert error.value.reason == "source_changed"
    left_in_order(store, served)


# -- refusals ------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("mode", [0o120777, 0o040755, 0o010644])
def test_what_is_no_file_is_refused_and_closed(version: str, mode: int) -> None:
    """Links, directories and pipes are refused as a look refuses them, though a server opens what they lead to."""
    served = Served(content_of(10), looks=[attributes(size=10, mode=mode)])
    store = store_on(Script(served), version=version)
    with pytest.raises(Permanent) as expected:
        store.stat(PATH)
    with pytest.raises(Permanent) as error:
        whole(store)
    assert (error.value.reason, str(error.value)) == (expected.value.reason, str(expected.value))
    left_in_order(store, served)


@both
@pytest.mark.parametrize("denied", [False, True])
def test_a_larger_file_is_closed_unread(version: str, *, denied: bool) -> None:
    """A file larger than the limit is returned without bytes, and is not open; whether it could be opened does not matter."""
    served = Served(content_of(10_241))
    if denied:
        served.refusals[Kind.OPEN] = Code.PERMISSION_DENIED
    script = Script(served)
    store = store_on(script, version=version)
    file, chunks = store.whole(PATH, limit=10_240, listed=True)
    assert (file, chunks) == (store.stat(PATH), [])
    assert Kind.READ not in [kind for kind, _ in script.requests]
    left_in_order(store, served)


@both
@pytest.mark.parametrize("kind", [Kind.LSTAT, Kind.OPEN, Kind.READ])
@pytest.mark.parametrize(
    ("code", "error", "reason"),
    [
        (Code.NO_SUCH_FILE, NotFound, "source_missing"),
        (Code.PERMISSION_DENIED, Permanent, "permission_denied"),
        (Code.FAILURE, Transient, "read_failed"),
        (Code.CONNECTION_LOST, Transient, "connection_lost"),
    ],
)
def test_each_refusal_is_judged_and_leaves_nothing_open(version: str, kind: Kind, code: int, error: type[EftError], reason: str) -> None:
    """Whichever request is refused, the error is the one of a look or a read, and what was opened is closed."""
    served = Served(content_of(100_000))
    served.refusals[kind] = code
    store = store_on(Script(served), version=version)
    with pytest.raises(error) as refused:
        whole(store)
    assert refused.value.reason == ("server_failure" if (kind, code) == (Kind.LSTAT, Code.FAILURE) else reason)
    served.refusals.clear()
    left_in_order(store, served)
    assert whole(store) == served.content


@both
def test_a_refused_closing_costs_nothing(version: str) -> None:
    """The bytes were read; that the server fails to close the file is its own trouble."""
    served = Served(content_of(10_000))
    served.refusals[Kind.CLOSE] = Code.FAILURE
    store = store_on(Script(served), version=version)
    assert whole(store) == served.content


@both
@pytest.mark.parametrize("silent", [Kind.LSTAT, Kind.OPEN, Kind.READ])
def test_silence_is_stalled(version: str, silent: Kind) -> None:
    """A request without a reply is `stalled`, and the connection is given up."""
    served = Served(content_of(100_000))
    script = Script(lambda kind, ident, body: None if kind == silent else served(kind, ident, body))
    store = store_on(script, version=version)
    with pytest.raises(Transient) as error:
        whole(store)
    assert error.value.reason == "stalled"
    assert store.session.wire.broken


def test_a_stalled_server_is_waited_for_once() -> None:
    """A look that is never answered ends the reading; the answer to the opening is not waited for any more."""
    script = Script(lambda _kind, _ident, _body: None)
    store, waits = store_on(script), []

    def wait(_wanted: int, *, until: float) -> bytes:
        waits.append(until)
        raise TimeoutError

    script.receive = wait  # type: ignore[method-assign, assignment]
    with pytest.raises(Transient) as error:
        whole(store)
    assert (error.value.reason, len(waits)) == ("stalled", 1)


def test_a_link_that_leads_nowhere_is_still_a_link() -> None:
    """What the look says comes before what the opening says."""
    served = Served(b"", looks=[attributes(mode=0o120777)])
    served.refusals[Kind.OPEN] = Code.NO_SUCH_FILE
    with pytest.raises(Permanent) as error:
        whole(store_on(Script(served)))
    assert error.value.reason == "is_symlink"


def test_what_the_look_said_stands_where_the_opening_is_never_answered() -> None:
    """The connection is given up, and the transfer told what is wrong with its file."""
    served = Served(b"", looks=[attributes(mode=0o120777)])
    script = Script(lambda kind, ident, body: None if kind == Kind.OPEN else served(kind, ident, body))
    store = store_on(script)
    with pytest.raises(Permanent) as error:
        whole(store)
    assert error.value.reason == "is_symlink"
    assert store.session.wire.broken


# -- on real servers -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sshd", "password_sftp"])
def bench(request: pytest.FixtureRequest) -> Iterator[SftpBench]:
    """An endpoint on OpenSSH and on a server of unknown habits."""
    served: SftpServer | PasswordSftpServer = request.getfixturevalue(request.param)
    if isinstance(served, PasswordSftpServer):
        served.behave(Quirks())
    with SftpBench(served.account(uuid4().hex)) as bench:
        yield bench


def _grown(bench: SftpBench) -> None:
    bench.put("in/a.csv", b"half and half")


def _cut(bench: SftpBench) -> None:
    os.truncate(bench.directory / "in/a.csv", 1)


def _written_again(bench: SftpBench) -> None:
    bench.put("in/a.csv", b"HALF")
    os.utime(bench.directory / "in/a.csv", (1_800_000_000, 1_800_000_000))


def _replaced(bench: SftpBench) -> None:
    bench.put("in/b.csv", b"another")
    (bench.directory / "in/b.csv").rename(bench.directory / "in/a.csv")


@pytest.mark.parametrize("change", [_grown, _cut, _written_again, _replaced])
@pytest.mark.parametrize("before", ["ask_read", "drop"])
def test_a_file_that_changes_between_the_looks_is_refused(
    bench: SftpBench, monkeypatch: pytest.MonkeyPatch, change: Callable[[SftpBench], None], before: str
) -> None:
    """Whatever befalls the file once it was opened: before its bytes are read, or before the second look."""
    bench.put("in/a.csv", b"half")
    asked = getattr(Session, before)
    changes = [change]

    def meanwhile(session: Session, *given: object) -> object:
        if changes:
            changes.pop()(bench)
        return asked(session, *given)

    monkeypatch.setattr(Session, before, meanwhile)
    with bench.open() as store:
        with pytest.raises(Permanent) as error:
            store.whole(PATH, limit=1_000, listed=True)
        assert error.value.reason == "source_changed"
        file, chunks = store.whole(PATH, limit=1_000, listed=True)
        assert b"".join(chunks) == bench.get("in/a.csv")
        assert file == store.stat(PATH)


def test_only_regular_files_are_read_at_once(bench: SftpBench) -> None:
    """A link is `is_symlink` and a directory `not_a_file`; the connection serves on."""
    bench.put("in/a.csv", b"x")
    (bench.directory / "link.csv").symlink_to("in/a.csv")
    with bench.open() as store:
        for name, reason in (("link.csv", "is_symlink"), ("in", "not_a_file")):
            with pytest.raises(Permanent) as error:
                store.whole(remote_path(name), limit=1_000, listed=True)
            assert error.value.reason == reason
        assert b"".join(store.whole(PATH, limit=1_000, listed=True)[1]) == b"x"
    assert bench.limits.holders(bench.key)


@needs_another_user
def test_denied_is_permanent(sshd: SftpServer) -> None:
    """A file that may not be read is `permission_denied`."""
    with SftpBench(sshd.account(uuid4().hex, user="nobody")) as bench:
        bench.put("in/a.csv", b"x")
        (bench.directory / "in/a.csv").chmod(0o600)
        with bench.open() as store, pytest.raises(Permanent) as error:
            store.whole(PATH, limit=1_000, listed=True)
        assert error.value.reason == "permission_denied"


def test_nothing_stays_open_at_the_server(sshd: SftpServer) -> None:
    """After many files read, refused and left unread, on one connection, the server's process has none of them open."""
    with SftpBench(sshd.account(uuid4().hex)) as bench:
        bench.put("in/a.csv", b"x" * 10_000)
        (bench.directory / "link.csv").symlink_to("in/a.csv")
        with bench.open() as store:
            for _ in range(20):
                store.whole(PATH, limit=10_000, listed=True)
                store.whole(PATH, limit=1, listed=True)
                with pytest.raises(Permanent):
                    store.whole(remote_path("link.csv"), limit=10_000, listed=True)
            store.stat(PATH)
            assert _opened_below(bench) == []
            chunks = store.read(store.stat(PATH), start=0, size=10_000)
            next(iter(chunks))
            assert _opened_below(bench) == [str(bench.directory / "in/a.csv")]


def _opened_below(bench: SftpBench) -> list[str]:
    """Returns the files below an endpoint's directory that any process of this machine has open."""
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            found += [str(held.readlink()) for held in (process / "fd").iterdir()]
    return [target for target in found if target.startswith(f"{bench.directory}/")]


def test_a_named_pipe_is_not_opened() -> None:
    """What nobody has listed as a file is looked at first: a server waits for ever that opens a pipe, and its client with it."""
    opened: list[int] = []

    def answers(kind: int, ident: int, body: bytes) -> bytes | None:
        if kind == Kind.OPEN:
            opened.append(ident)
        return None if opened else packet(Kind.ATTRS, uint32(ident) + attributes(size=0, mode=0o010644))

    with pytest.raises(Permanent) as error:
        store_on(Script(answers)).whole(PATH, limit=1_000)
    assert (error.value.reason, opened) == ("not_a_file", [])


def test_a_source_that_was_gone_for_a_moment_is_moved_later(bench: SftpBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers dispose of it at once: one finds it away, and there again when it looks. That is no missing directory."""
    bench.put(PATH, b"x")

    def gone(*_: object) -> None:
        raise Refused(Code.NO_SUCH_FILE, "")

    with bench.open() as store:
        monkeypatch.setattr(Session, "rename", gone)
        with pytest.raises(Transient) as error:
            store.move(PATH, remote_path("in/.token.part"))
    assert error.value.reason == "rename_failed"
