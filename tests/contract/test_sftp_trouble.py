"""What goes wrong on an SFTP server in use: hostile names, permissions, full disks, changing files, dead and slow connections."""

from __future__ import annotations

import os
import subprocess
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.local.sftp import PasswordSftpServer, Quirks, SftpAccount, SftpServer
from eft.adapters.sftp.connect import Patience
from eft.domain.endpoint import RenameMode
from eft.domain.fingerprint import RefusedName, RemoteFile
from eft.domain.names import RemotePath, remote_path
from eft.domain.parts import MIB
from eft.errors import EftError, NotFound, Permanent, Transient
from eft.ports import Store
from tests.contract.sftp_bench import Relay, SftpBench
from tests.contract.store_suite import content_of, frozen, listed, mint, read, uploaded, write

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root serves another user and mounts file systems")
STRANGER = "nobody"


@pytest.fixture
def bench(sshd: SftpServer) -> Iterator[SftpBench]:
    """An endpoint on OpenSSH."""
    with SftpBench(sshd.account(uuid4().hex)) as bench:
        yield bench


@pytest.fixture
def stranger(sshd: SftpServer) -> Iterator[SftpBench]:
    """An endpoint whose user is not the owner of the files put there."""
    with SftpBench(sshd.account(uuid4().hex, user=STRANGER)) as bench:
        yield bench


# -- names ---------------------------------------------------------------------------------------------------------------


def test_hostile_names_are_shown_and_never_taken(bench: SftpBench) -> None:
    """Links, bytes that are no UTF-8, control characters and special files are listed as refused, each with its reason."""
    bench.put("good.csv", b"good")
    root = os.fsencode(bench.directory)
    for name in (b"caf\xe9.csv", b"line\nbreak.csv", b"\x1b[31mred.csv"):
        Path(os.fsdecode(root + b"/" + name)).write_bytes(b"x")
    Path(os.fsdecode(root + b"/d\xff")).mkdir()
    (bench.directory / "link.csv").symlink_to("good.csv")
    (bench.directory / "link-out").symlink_to("/etc")
    (bench.directory / "loop").symlink_to(".")
    os.mkfifo(bench.directory / "pipe.csv")
    with bench.open() as store:
        found = list(store.list("", recursive=True))
    assert [f.path for f in found if isinstance(f, RemoteFile)] == ["good.csv"]
    refused = {f.shown: f.why for f in found if isinstance(f, RefusedName)}
    assert set(refused) == {
        "caf\\xe9.csv", "line\\nbreak.csv", "\\x1b[31mred.csv", "d\\xff", "link.csv", "link-out", "loop", "pipe.csv",
    }  # fmt: skip
    assert "UTF-8" in refused["caf\\xe9.csv"]
    assert "control character" in refused["line\\nbreak.csv"]
    assert "symbolic link" in refused["link.csv"]
    assert "no regular file" in refused["pipe.csv"]


def test_a_long_name_is_a_name(bench: SftpBench) -> None:
    """A name of 255 bytes is listed, read and delivered; one that the server does not take is permanent."""
    bench.put("n" * 255, b"long")
    with bench.open() as store:
        assert read(store, listed(store)["n" * 255]) == b"long"
        _, commit = uploaded(store, "o" * 255, b"content")
        store.commit(commit)
        assert bench.get("o" * 255) == b"content"
        # No RemotePath is that long; a server's own limit may be lower, though, and is reported alike.
        with pytest.raises(Permanent) as error:
            store.look(RemotePath("p" * 256))
        assert error.value.reason == "name_refused"


def test_a_listing_ends_at_a_depth(bench: SftpBench) -> None:
    """Directories deeper than 32 levels are shown as refused, not entered."""
    bench.put("/".join(["d"] * 32) + "/in.csv", b"x")
    bench.put("/".join(["d"] * 33) + "/out.csv", b"x")
    with bench.open() as store:
        found = list(store.list("", recursive=True))
    assert [f.path for f in found if isinstance(f, RemoteFile)] == ["/".join(["d"] * 32) + "/in.csv"]
    assert [f.why for f in found if isinstance(f, RefusedName)] == ["lies deeper than 32 directories"]


def test_only_regular_files_are_stated(bench: SftpBench) -> None:
    """A link is `is_symlink` and a directory `not_a_file`, also under a name that is to be delivered to."""
    bench.put("dir/a.csv", b"x")
    (bench.directory / "link.csv").symlink_to("dir/a.csv")
    with bench.open() as store:
        for act in (store.stat, store.look):
            with pytest.raises(Permanent) as error:
                act(remote_path("link.csv"))
            assert error.value.reason == "is_symlink"
            with pytest.raises(Permanent) as error:
                act(remote_path("dir"))
            assert error.value.reason == "not_a_file"


def test_a_file_is_no_directory(bench: SftpBench) -> None:
    """Listing a file, or delivering below one, is permanent."""
    bench.put("a.csv", b"x")
    with bench.open() as store:
        with pytest.raises(Permanent) as error:
            listed(store, "a.csv")
        assert error.value.reason in {"not_a_directory", "directory_missing"}
        with pytest.raises(Permanent) as error:
            mint(store, "a.csv/b.csv", b"x", create=False)
        assert error.value.reason == "directory_missing"


def test_a_root_that_is_missing_is_not_made(sshd: SftpServer) -> None:
    """Directories are made below the root only; a root that does not exist is a mistake in the endpoint."""
    account = sshd.account(uuid4().hex)
    with SftpBench(account, changes={"root": f"{account.directory}/absent"}) as bench, bench.open() as store:
        with pytest.raises(NotFound) as error:
            listed(store)
        assert error.value.reason == "directory_missing"
        with pytest.raises(NotFound) as error:
            mint(store, "out/a.csv", b"x", create=True)
        assert error.value.reason == "directory_missing"
    assert not (account.directory / "absent").exists()


# -- permissions and space -----------------------------------------------------------------------------------------------


@needs_root
def test_denied_is_permanent(stranger: SftpBench) -> None:
    """A file that may not be read, and directories that may not be listed, written or renamed in, are `permission_denied`."""
    stranger.put("locked.csv", b"secret")
    (stranger.directory / "locked.csv").chmod(0o600)
    stranger.put("closed/a.csv", b"x")
    (stranger.directory / "closed").chmod(0o700)
    stranger.put("readonly/a.csv", b"x")
    (stranger.directory / "readonly").chmod(0o755)
    a = remote_path("readonly/a.csv")
    with stranger.open() as store:
        file = store.stat(remote_path("locked.csv"))
        denied: list[Callable[[], object]] = [
            lambda: read(store, file),
            lambda: listed(store, "closed"),
            lambda: uploaded(store, "readonly/b.csv", b"x"),
            lambda: mint(store, "readonly/deeper/b.csv", b"x", create=True),
            lambda: store.move(a, remote_path("moved.csv")),
            lambda: store.remove(a),
            lambda: store.consume(a, a),
        ]
        for act in denied:
            with pytest.raises(Permanent) as error:
                act()
            assert error.value.reason == "permission_denied", act
        # The store is as good as before.
        assert read(store, store.stat(a)) == b"x"


@needs_root
def test_one_closed_directory_hides_no_other(stranger: SftpBench) -> None:
    """A directory below the listed one that may not be entered is shown as refused; the rest is listed."""
    stranger.put("in/a.csv", b"x")
    stranger.put("in/closed/b.csv", b"x")
    (stranger.directory / "in/closed").chmod(0o700)
    with stranger.open() as store:
        found = list(store.list("in", recursive=True))
    assert [f.path for f in found if isinstance(f, RemoteFile)] == ["in/a.csv"]
    (refused,) = [f for f in found if isinstance(f, RefusedName)]
    assert refused.shown == "in/closed"
    assert "permission denied" in refused.why


@pytest.fixture
def small_disk(sshd: SftpServer) -> Iterator[SftpBench]:
    """An endpoint on a file system of 2 MiB."""
    account = sshd.account(uuid4().hex)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", account.directory], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode()}")
    try:
        with SftpBench(account) as bench:
            yield bench
    finally:
        subprocess.run(["umount", "--lazy", account.directory], check=True)


@needs_root
def test_a_full_disk_is_transient_and_named(small_disk: SftpBench) -> None:
    """A disk that fills up while written is `disk_full`; the attempt's file can be removed and a smaller one delivered."""
    content = content_of(8 * MIB)
    with small_disk.open() as store:
        upload = mint(store, "big.bin", content)
        with pytest.raises(Transient) as error:
            write(store, upload, content, numbers=[1, 2], fresh=True)
        assert error.value.reason == "disk_full"
        assert error.value.endpoint is None
        assert store.consume(upload.token, upload.path)
        _, commit = uploaded(store, "small.bin", b"fits", attempt=2)
        store.commit(commit)
    assert small_disk.get("small.bin") == b"fits"


def test_an_unexplained_write_failure_suspects_the_disk(password_sftp: PasswordSftpServer) -> None:
    """Where nothing tells a full quota, the failure is `write_failed` and says what is likely."""
    password_sftp.behave(Quirks(full_after=100_000))
    content = content_of(MIB)
    with SftpBench(password_sftp.account(uuid4().hex)) as bench, bench.open() as store:
        upload = mint(store, "big.bin", content)
        with pytest.raises(Transient) as error:
            write(store, upload, content, numbers=[1], fresh=True)
        assert error.value.reason in {"write_failed", "disk_full"}
        assert "full" in str(error.value)


# -- changing files ------------------------------------------------------------------------------------------------------


def test_a_file_that_shrinks_while_read_is_refused(bench: SftpBench) -> None:
    """A file cut short between its first and last byte is `source_changed`, never a short delivery."""
    size = 64 * MIB
    bench.put("a.bin", b"")
    os.truncate(bench.directory / "a.bin", size)
    with bench.open() as store:
        file = store.stat(remote_path("a.bin"))
        chunks = iter(store.read(file, start=0, size=size))
        next(chunks)
        os.truncate(bench.directory / "a.bin", 1)
        with pytest.raises(Permanent) as error:
            deque(chunks, maxlen=0)
        assert error.value.reason == "source_changed"


def test_a_file_that_grew_is_refused(bench: SftpBench) -> None:
    """A file longer than it was found is another version."""
    bench.put("a.bin", b"half")
    with bench.open() as store:
        file = store.stat(remote_path("a.bin"))
        bench.put("a.bin", b"half and half")
        with pytest.raises(Permanent) as error:
            read(store, file)
        assert error.value.reason == "source_changed"


def test_a_source_that_yields_another_size_is_not_delivered(bench: SftpBench) -> None:
    """Chunks that are fewer or more than their part are an error of the part, and nothing is written beyond it."""
    content = content_of(100_000)
    with bench.open() as store:
        upload = mint(store, "a.bin", content)
        with store.upload(upload, fresh=True) as uploading:
            for wrong in (content[:-1], content + b"x"):
                with pytest.raises(Permanent) as error:
                    uploading.write(upload.plan.part(1), [wrong])
                assert error.value.reason == "part_size_differs"
        assert (bench.directory / upload.token).stat().st_size <= len(content)


# -- delivery ------------------------------------------------------------------------------------------------------------


def test_a_token_is_made_once(bench: SftpBench) -> None:
    """A token that exists is not opened as a fresh one: whoever made it may still write."""
    with bench.open() as store:
        upload, _ = uploaded(store, "a.bin", b"first")
        with pytest.raises(Transient) as error:
            write(store, upload, b"again", numbers=[1], fresh=True)
        assert error.value.reason == "token_exists"
        assert bench.get(upload.token) == b"first"


def test_a_vanished_token_does_not_verify(bench: SftpBench) -> None:
    """A token removed by somebody else is `token_gone`, to verify as to read back."""
    with bench.open() as store:
        upload, _ = uploaded(store, "a.bin", b"first")
        bench.remove(upload.token)
        for act in (lambda: store.verify(upload), lambda: list(store.read_back(upload) or ())):
            with pytest.raises(Permanent) as error:
                act()
            assert error.value.reason == "token_gone"


def test_what_is_read_back_short_differs(bench: SftpBench) -> None:
    """A token that lost bytes on the server is noticed when read back."""
    with bench.open() as store:
        upload, _ = uploaded(store, "a.bin", b"first")
        os.truncate(bench.directory / upload.token, 3)
        with pytest.raises(Transient) as error:
            list(store.read_back(upload) or ())
        assert error.value.reason == "size_differs"


def test_a_commit_into_a_removed_directory_is_permanent(bench: SftpBench) -> None:
    """A final directory that has vanished is an error; the token, still there, is not taken for gone."""
    with bench.open() as store:
        upload, commit = uploaded(store, "here/a.bin", b"content")
        moved = commit.model_copy(update={"path": remote_path("gone/a.bin")})
        with pytest.raises(Permanent) as error:
            store.commit(moved)
        assert error.value.reason == "directory_missing"
        assert store.token_exists(upload.token, upload.path)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_in_the_way_is_not_replaced(bench: SftpBench, *, overwrite: bool) -> None:
    """A commit never replaces a directory."""
    with bench.open() as store:
        _, commit = uploaded(store, "a.bin", b"content", overwrite=overwrite)
        bench.put("a.bin/inside", b"theirs")
        assert store.commit(commit).outcome == "exists"
    assert bench.get("a.bin/inside") == b"theirs"


def test_a_plain_rename_never_overwrites(sshd: SftpServer) -> None:
    """A frozen plain commit with overwrite on leaves a file that appeared meanwhile, and says so."""
    with SftpBench(sshd.account(uuid4().hex), changes={"rename": RenameMode.PLAIN}) as bench, bench.open() as store:
        _, commit = uploaded(store, "a.bin", b"ours", overwrite=True)
        bench.put("a.bin", b"theirs")
        assert commit.rename == "plain"
        assert store.commit(commit).outcome == "exists"
        assert bench.get("a.bin") == b"theirs"


def test_an_endpoint_may_insist_on_posix_rename(password_sftp: PasswordSftpServer) -> None:
    """An endpoint that demands posix-rename of a server without it learns so before any byte is sent."""
    password_sftp.behave(Quirks(posix_rename=False))
    with SftpBench(password_sftp.account(uuid4().hex), changes={"rename": RenameMode.POSIX}) as bench, bench.open() as store:
        with pytest.raises(Permanent) as error:
            mint(store, "a.bin", b"x")
        assert error.value.reason == "posix_rename_missing"


def test_a_server_that_only_appends_is_written_in_order(password_sftp: PasswordSftpServer) -> None:
    """On a server of unknown habits there is one lane, and its writes arrive in order, also over a clean slice end."""
    password_sftp.behave(Quirks(sequential=True))
    content = content_of(11 * MIB)
    with SftpBench(password_sftp.account(uuid4().hex)) as bench, bench.open() as store:
        assert store.lanes == 1
        upload = mint(store, "a.bin", content)
        done = write(store, upload, content, numbers=[1], fresh=True)
        done += write(store, upload, content, numbers=[2, 3], fresh=False)
        store.commit(frozen(store, upload, content, done, overwrite=False))
        assert bench.get("a.bin") == content


# -- connections ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def relay(sshd: SftpServer) -> Relay:
    """A relay in front of OpenSSH."""
    return Relay(sshd.port)


def behind(account: SftpAccount, port: int, patience: Patience | None = None) -> SftpBench:
    """An endpoint reached through a relay."""
    return SftpBench(account, changes={"port": port}, patience=patience or Patience())


def _reading(bench: SftpBench, store: Store, trouble: Callable[[], None]) -> None:
    bench.put("a.bin", b"")
    os.truncate(bench.directory / "a.bin", 256 * MIB)
    chunks = iter(store.read(store.stat(remote_path("a.bin")), start=0, size=256 * MIB))
    next(chunks)
    trouble()
    for _ in chunks:
        pass


def _writing(_: SftpBench, store: Store, trouble: Callable[[], None]) -> None:
    content = bytes(64 * MIB)
    upload = mint(store, "b.bin", content)
    with store.upload(upload, fresh=True) as uploading:
        for part in upload.plan.parts():
            uploading.write(part, [content[: part.size]])
            trouble()
        uploading.finish()


Work = Callable[[SftpBench, Store, Callable[[], None]], None]


@pytest.mark.parametrize("work", [_reading, _writing])
def test_a_cut_connection_is_transient(sshd: SftpServer, relay: Relay, work: Work) -> None:
    """A connection cut in mid-file is `connection_lost`, counted for the endpoint; the next block gets a new one."""
    with relay.running() as port, behind(sshd.account(uuid4().hex), port) as bench:
        with pytest.raises(EftError) as error, bench.open() as store:
            work(bench, store, relay.cut)
        assert isinstance(error.value, Transient)
        assert error.value.reason == "connection_lost"
        assert error.value.endpoint == bench.endpoint.id
        assert bench.limits.holders(bench.key) == set()
        bench.put("in/c.csv", b"c")
        with bench.open() as store:
            assert set(listed(store, "in")) == {"in/c.csv"}
        assert relay.connections == 2


@pytest.mark.parametrize("work", [_reading, _writing])
def test_a_stuck_connection_is_given_up(sshd: SftpServer, relay: Relay, work: Work) -> None:
    """A server that stops answering in mid-file, without closing, is `stalled` in bounded time, in both directions."""
    with relay.running() as port, behind(sshd.account(uuid4().hex), port, Patience(progress=2, disk=2)) as bench:
        with pytest.raises(EftError) as error, bench.open() as store:
            work(bench, store, relay.freeze)
        assert isinstance(error.value, Transient)
        assert error.value.reason in {"stalled", "connection_lost"}
        assert error.value.endpoint == bench.endpoint.id
        assert bench.limits.holders(bench.key) == set()


def test_a_trickle_is_no_progress(sshd: SftpServer, relay: Relay) -> None:
    """A server that sends a byte now and then never completes a reply: it is `stalled` like a silent one."""

    def slow_down() -> None:
        relay.trickle = 0.01

    with relay.running() as port, behind(sshd.account(uuid4().hex), port, Patience(progress=2, disk=2)) as bench:
        with pytest.raises(EftError) as error, bench.open() as store:
            _reading(bench, store, slow_down)
        assert error.value.reason == "stalled"


def test_a_server_that_cuts_each_connection_gets_the_file_in_the_end(password_sftp: PasswordSftpServer) -> None:
    """Cut after every few MiB, an upload goes on from its last durable part until it is whole."""
    password_sftp.behave(Quirks(cut_after=7 * MIB))
    content = content_of(18 * MIB)
    with SftpBench(password_sftp.account(uuid4().hex)) as bench:
        with bench.open() as store:
            upload = mint(store, "a.bin", content)
        missing = list(range(1, upload.plan.count + 1))
        fresh, tries = True, 0
        while missing:
            tries += 1
            assert tries <= 10
            with suppress(Transient), bench.open() as store, store.upload(upload, fresh=fresh) as uploading:
                fresh = False
                for number in list(missing):
                    part = upload.plan.part(number)
                    for done, _ in uploading.write(part, [content[part.start : part.start + part.size]]):
                        missing.remove(done)
                for done, _ in uploading.finish():
                    missing.remove(done)
        assert tries > 1
        with bench.open() as store:
            store.verify(upload)
        assert bench.get(upload.token) == content


def test_a_huge_directory_is_listed(bench: SftpBench) -> None:
    """A directory of many replies is listed whole, several of them asked for ahead."""
    directory = bench.directory / "many"
    directory.mkdir()
    for i in range(20_000):
        os.close(os.open(directory / f"{i:06}", os.O_CREAT | os.O_WRONLY))
    with bench.open() as store:
        assert sum(1 for _ in store.list("many", recursive=False)) == 20_000
