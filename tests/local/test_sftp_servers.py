"""The SFTP servers let the right clients in, and misbehave as told."""

import errno
import io
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import paramiko
import pytest

from deploy.local.sftp import PasswordSftpServer, Proof, Quirks, SftpAccount, SftpServer

KEYS: dict[str, type[paramiko.Ed25519Key | paramiko.ECDSAKey | paramiko.RSAKey]] = {
    "ed25519": paramiko.Ed25519Key,
    "ecdsa": paramiko.ECDSAKey,
    "rsa": paramiko.RSAKey,
}


@contextmanager
def session(account: SftpAccount, kind: str = "ed25519") -> Iterator[paramiko.SFTPClient]:
    """Logs in with every proof that the account has, having compared the host key."""
    with paramiko.Transport((account.host, account.port)) as transport:
        transport.start_client(timeout=60)
        seen = transport.get_remote_server_key()
        assert f"{seen.get_name()} {seen.get_base64()}" == account.host_key
        further = [""]
        if account.private_key is not None:
            key = KEYS[kind].from_private_key(io.StringIO(account.private_key), account.passphrase)
            further = transport.auth_publickey(account.username, key)
        if account.password is not None and "keyboard" in (account.name + "".join(further)):
            transport.auth_interactive(account.username, lambda *_: [account.password or ""])
        elif account.password is not None:
            transport.auth_password(account.username, account.password, fallback=False)
        client = paramiko.SFTPClient.from_transport(transport)
        assert client is not None
        with client:
            yield client


@pytest.mark.parametrize(("kind", "passphrase"), [("ed25519", None), ("ed25519", "secret"), ("ecdsa", None), ("rsa", None)])
def test_sshd_lets_a_customer_in_with_the_own_key_only(sshd: SftpServer, kind: str, passphrase: str | None) -> None:
    """Each customer's key leads to the customer's directory; a stranger's key leads nowhere."""
    account = sshd.account(f"acme-{kind}-{bool(passphrase)}", key=kind, passphrase=passphrase)  # type: ignore[arg-type]
    (account.directory / "hello.txt").write_text("hello")
    with session(account, kind) as client:
        assert client.normalize(".") == str(account.directory)
        assert client.listdir(".") == ["hello.txt"]
        client.posix_rename("hello.txt", "moved.txt")
    assert (account.directory / "moved.txt").read_text() == "hello"
    stranger = PasswordSftpServer(sshd.directory / "elsewhere", port=1).account("stranger", proofs=("publickey",))
    with pytest.raises(paramiko.AuthenticationException), session(replace(account, private_key=stranger.private_key)):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's sshd lets other users in")
def test_roots_sshd_gives_an_unprivileged_user_real_permissions(sshd: SftpServer) -> None:
    """A directory that the user may not write to refuses the file."""
    account = sshd.account("unprivileged", user="nobody")
    closed = account.directory / "closed"
    closed.mkdir(mode=0o755)
    with session(account) as client:
        client.putfo(io.BytesIO(b"mine"), "mine.txt")
        with pytest.raises(PermissionError):
            client.open("closed/theirs.txt", "w")
    assert (account.directory / "mine.txt").stat().st_uid == pwd.getpwnam("nobody").pw_uid


@pytest.mark.parametrize(
    "proofs",
    [
        ("password",),
        ("keyboard-interactive",),
        ("publickey",),
        ("publickey", "password"),
        ("publickey", "keyboard-interactive"),
    ],
)
def test_the_server_in_python_asks_for_every_proof(password_sftp: PasswordSftpServer, proofs: tuple[Proof, ...]) -> None:
    """All of an account's proofs let the client in, any one left out does not."""
    account = password_sftp.account("-and-".join(proofs), proofs=proofs)
    with session(account) as client:
        client.putfo(io.BytesIO(b"hello"), "hello.txt")
        assert client.normalize(".") == str(account.directory)
    assert (account.directory / "hello.txt").read_bytes() == b"hello"
    short = [replace(account, password=None)] if "publickey" in proofs and len(proofs) > 1 else []
    if account.password is not None:
        short += [replace(account, password="wrong"), replace(account, username="nobody-we-know")]
    for attempt in short:
        with pytest.raises((paramiko.SSHException, EOFError)), session(attempt):
            pass


def test_a_server_without_posix_rename_says_so(password_sftp: PasswordSftpServer) -> None:
    """The request is refused as unsupported, and plain rename still works without replacing."""
    account = password_sftp.account("plain")
    password_sftp.behave(Quirks(posix_rename=False))
    with session(account) as client:
        client.putfo(io.BytesIO(b"1"), "a")
        client.putfo(io.BytesIO(b"2"), "b")
        with pytest.raises(OSError, match="Unsupported request"):
            client.posix_rename("a", "c")
        with pytest.raises(OSError, match=r"Failure|exists"):
            client.rename("a", "b")
        client.rename("a", "c")
    assert sorted(each.name for each in account.directory.iterdir()) == ["b", "c"]


def test_a_server_that_only_appends_refuses_a_write_elsewhere(password_sftp: PasswordSftpServer) -> None:
    """Writes at the file's end pass, all others fail."""
    account = password_sftp.account("sequential")
    password_sftp.behave(Quirks(sequential=True))
    with session(account) as client, client.open("f", "w") as file:
        file.write(b"12345")
        file.seek(2)
        with pytest.raises(OSError, match="sequential"):
            file.write(b"x")
    assert (account.directory / "f").read_bytes() == b"12345"


def test_short_reads_return_less_than_asked(password_sftp: PasswordSftpServer) -> None:
    """A client that takes a short read for the end of the file would lose bytes here."""
    account = password_sftp.account("short")
    (account.directory / "f").write_bytes(bytes(range(256)) * 100)
    password_sftp.behave(Quirks(short_reads=1000))
    with session(account) as client, client.open("f") as file:
        assert client.stat("f").st_size == 25600
        assert file.read() == bytes(range(256)) * 100


def test_the_connection_is_cut_at_the_byte_told(password_sftp: PasswordSftpServer) -> None:
    """Just so many bytes arrive; after the number of cuts told, connections live."""
    account = password_sftp.account("cut")
    password_sftp.behave(Quirks(cut_after=50_000, cut_times=2))
    for _ in range(2):
        with pytest.raises((paramiko.SSHException, EOFError, OSError)), session(account) as client:
            client.putfo(io.BytesIO(b"x" * 100_000), "f")
        assert (account.directory / "f").stat().st_size == 50_000
    with session(account) as client:
        client.putfo(io.BytesIO(b"x" * 100_000), "f")
    assert (account.directory / "f").stat().st_size == 100_000


@pytest.mark.parametrize("renames", ["rename", "posix_rename"])
def test_the_connection_is_cut_when_the_rename_is_done(password_sftp: PasswordSftpServer, renames: str) -> None:
    """The file has its new name, and the client is not told."""
    account = password_sftp.account(f"cut-{renames}")
    (account.directory / "old").write_bytes(b"x")
    password_sftp.behave(Quirks(cut_on="rename", cut_times=1))
    with pytest.raises((paramiko.SSHException, EOFError, OSError)), session(account) as client:
        getattr(client, renames)("old", "new")
    assert {path.name for path in account.directory.iterdir()} == {"new"}
    with session(account) as client:
        getattr(client, renames)("new", "newer")


def test_the_connection_is_cut_when_the_file_is_closed(password_sftp: PasswordSftpServer) -> None:
    """All bytes are there, and the client is not told; a file that was only read is closed in peace."""
    account = password_sftp.account("cut-close")
    (account.directory / "read").write_bytes(b"x")
    password_sftp.behave(Quirks(cut_on="close", cut_times=1))
    with session(account) as client:
        with client.open("read") as file:
            assert file.read() == b"x"
        written = client.open("f", "w")
        written.write(b"y" * 1000)
        with pytest.raises((paramiko.SSHException, EOFError, OSError)):
            written.close()
    assert (account.directory / "f").read_bytes() == b"y" * 1000


def test_a_full_disk_takes_what_fits(password_sftp: PasswordSftpServer) -> None:
    """The write beyond the room fails, and the file stays cut short."""
    account = password_sftp.account("full")
    password_sftp.behave(Quirks(full_after=10))
    full = pytest.raises(OSError, match=os.strerror(errno.ENOSPC))
    with session(account) as client, client.open("f", "w") as file, full:
        file.write(b"x" * 20)
    assert (account.directory / "f").stat().st_size == 10


def test_a_write_above_the_packet_limit_ends_the_connection(password_sftp: PasswordSftpServer) -> None:
    """As old servers do with packets that they cannot hold."""
    account = password_sftp.account("narrow")
    password_sftp.behave(Quirks(max_packet=1000))
    with pytest.raises((paramiko.SSHException, EOFError, OSError)), session(account) as client:
        client.putfo(io.BytesIO(b"x" * 5000), "f")
    assert (account.directory / "f").stat().st_size == 0


def test_a_slow_server_keeps_the_order_of_writes(password_sftp: PasswordSftpServer) -> None:
    """Pipelined writes arrive whole though each waits."""
    account = password_sftp.account("slow")
    password_sftp.behave(Quirks(bytes_per_second=10_000_000, sequential=True))
    content = os.urandom(300_000)
    with session(account) as client:
        client.putfo(io.BytesIO(content), "f")
    assert (account.directory / "f").read_bytes() == content


def test_no_secret_shows_in_an_accounts_repr(password_sftp: PasswordSftpServer) -> None:
    """Password, key and passphrase stay out of failure reports."""
    account = password_sftp.account("quiet", proofs=("publickey", "password"), password="hush-hush", passphrase="hidden")
    assert account.private_key is not None
    for secret in ("hush-hush", "hidden", account.private_key):
        assert secret not in repr(account)
