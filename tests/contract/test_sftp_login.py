"""From an endpoint to a session: what each thing that goes wrong is called; no credential leaves before the host key is known."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_FAILED_RESOURCE_SHORTAGE, OPEN_SUCCEEDED
from pydantic import SecretStr

from deploy.local.process import Child, Stack
from deploy.local.sftp import KeyKind, PasswordSftpServer, Proof, SftpAccount, SftpServer, new_key, write_private
from eft.adapters.sftp.connect import Patience
from eft.adapters.sftp.keys import private_key
from eft.domain.endpoint import Credential
from eft.errors import EftError, Permanent, Transient
from tests.contract.sftp_bench import Relay, SftpBench, credential_of, listening, pin

HASTY = Patience(resolve=5, connect=1, login=2, progress=2, disk=2)
"""For servers that never answer; whatever does answer has more time than it needs."""


class ManyKeysSshd(SftpServer):
    """An sshd with a host key of each type."""

    def line(self, kind: KeyKind) -> str:
        """The public host key of a type."""
        return (self.directory / f"host_{kind}.pub").read_text().strip()

    def _prepare(self) -> Child:
        child = super()._prepare()
        config = self.directory / "sshd_config"
        with config.open("a") as file:
            for kind in ("ecdsa", "rsa"):
                private, public = new_key(kind)
                write_private(self.directory / f"host_{kind}", private)
                (self.directory / f"host_{kind}.pub").write_text(public)
                file.write(f"HostKey {self.directory / f'host_{kind}'}\n")
        return child


@pytest.fixture(scope="module")
def many_keys(servers: Stack, servers_directory: Path) -> ManyKeysSshd:
    """An sshd with three host keys."""
    if not SftpServer.available():
        pytest.skip("this machine has no sshd")
    return servers.start(ManyKeysSshd(servers_directory / "sshd-many-keys"))


class Witness(paramiko.ServerInterface):
    """An SSH server that notes every attempt to log in, and lets nobody in unless told so."""

    def __init__(
        self, *, admits: bool = False, opens: bool = True, offers_sftp: bool = False, hangs_up: bool = False, ciphers: tuple[str, ...] = ()
    ) -> None:
        self.opens = opens
        self.ciphers = ciphers
        self.attempts: list[tuple[str, str]] = []
        self.admits = admits
        self.offers_sftp = offers_sftp
        self.hangs_up = hangs_up
        self.key = paramiko.RSAKey.generate(2048)

    @property
    def host_key(self) -> str:
        """As in known_hosts."""
        return f"ssh-rsa {self.key.get_base64()}"

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_auth_none(self, username: str) -> int:
        self.attempts.append(("none", username))
        return AUTH_FAILED

    def check_auth_password(self, username: str, password: str) -> int:
        self.attempts.append(("password", password))
        if self.hangs_up:
            raise EOFError
        return AUTH_SUCCESSFUL if self.admits else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED if self.opens else OPEN_FAILED_RESOURCE_SHORTAGE

    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        # It accepts, and never says a word of SFTP.
        return self.offers_sftp

    def serve(self, connection: socket.socket) -> None:
        """Handles one connection until its client is gone."""
        transport = paramiko.Transport(connection)
        transport.set_log_channel("eft.adapters.sftp.ssh")
        transport.add_server_key(self.key)
        if self.ciphers:
            transport.get_security_options().ciphers = self.ciphers
        with suppress(EOFError, paramiko.SSHException, OSError):
            transport.start_server(server=self)
            transport.join(60)
        transport.close()

    @contextmanager
    def account(self) -> Iterator[SftpAccount]:
        """Gives an account on it while it runs."""
        with listening(self.serve) as port:
            yield SftpAccount(
                name="w", host="127.0.0.1", port=port, username="carla", directory=Path("/"), host_key=self.host_key, password="open sesame"
            )


def failure(bench: SftpBench) -> EftError:
    """Returns the error with which an endpoint does not open; no slot stays taken."""
    with bench, pytest.raises(EftError) as error, bench.open():
        pass
    assert bench.limits.holders(bench.key) == set()
    return error.value


def works(bench: SftpBench) -> None:
    """Sees that an endpoint opens."""
    with bench:
        bench.put("a.txt", b"seen")
        with bench.open() as store:
            assert list(store.list("", recursive=False)) != []


# -- authentication ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("passphrase", [None, "a passphrase"])
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_keys_of_every_kind_log_in(sshd: SftpServer, kind: KeyKind, passphrase: str | None) -> None:
    """Ed25519, ECDSA and RSA keys log in, with and without a passphrase."""
    works(SftpBench(sshd.account(uuid4().hex, key=kind, passphrase=passphrase)))


@pytest.mark.parametrize(
    "proofs",
    [("password",), ("keyboard-interactive",), ("publickey", "password"), ("publickey", "keyboard-interactive"), ("publickey",)],
)
def test_all_that_the_server_asks_for_is_given(password_sftp: PasswordSftpServer, proofs: tuple[Proof, ...]) -> None:
    """A password, the same as an answer to a question, a key, and a key followed by either log in."""
    works(SftpBench(password_sftp.account(uuid4().hex, proofs=proofs)))


def test_a_wrong_password_names_what_the_server_wants(password_sftp: PasswordSftpServer) -> None:
    """A refused password is `auth_failed`, for the endpoint's breaker, with the methods that the server wants and no secret."""
    account = password_sftp.account(uuid4().hex, password="the right one")
    error = failure(SftpBench(account, credential=Credential(password=SecretStr("the wrong one"))))
    assert isinstance(error, Permanent)
    assert error.reason == "auth_failed"
    assert error.endpoint is not None
    assert "password" in str(error)
    assert "the wrong one" not in str(error)
    assert account.username in str(error)


def test_a_wrong_key_is_refused(sshd: SftpServer) -> None:
    """A key that the server does not know is `auth_failed` and names publickey as wanted."""
    account = sshd.account(uuid4().hex)
    error = failure(SftpBench(account, credential=Credential(private_key=SecretStr(new_key("ed25519")[0]))))
    assert error.reason == "auth_failed"
    assert "publickey" in str(error)


def test_half_of_two_proofs_is_not_enough(password_sftp: PasswordSftpServer) -> None:
    """Where key and password are asked for, a key alone fails and the error says what else is wanted."""
    account = password_sftp.account(uuid4().hex, proofs=("publickey", "password"))
    whole = credential_of(account)
    error = failure(SftpBench(account, credential=whole.model_copy(update={"password": None})))
    assert error.reason == "auth_failed"
    assert "wants password" in str(error)


def test_an_empty_credential_says_so(sshd: SftpServer) -> None:
    """A credential that holds nothing the server wants fails as such."""
    error = failure(SftpBench(sshd.account(uuid4().hex), credential=Credential()))
    assert error.reason == "auth_failed"
    assert "holds none" in str(error)


def test_a_password_is_tried_once() -> None:
    """A refused password is not sent a second time on the same connection: accounts lock."""
    witness = Witness()
    with witness.account() as account:
        assert failure(SftpBench(account)).reason == "auth_failed"
    # A second connection asks whether the credential has been rotated; it has not, so nothing more is sent.
    assert [method for method, _ in witness.attempts] == ["none", "password"]


def test_hanging_up_on_a_login_is_worth_another_try() -> None:
    """A server that hangs up instead of answering a login may be in trouble itself: `login_cut`, for its breaker."""
    witness = Witness(hangs_up=True)
    with witness.account() as account:
        error = failure(SftpBench(account))
    assert isinstance(error, Transient)
    assert error.reason == "login_cut"
    assert error.endpoint is not None


def test_a_server_without_sftp_is_told_apart() -> None:
    """An account without the SFTP subsystem is `sftp_unavailable`."""
    with Witness(admits=True).account() as account:
        error = failure(SftpBench(account))
    assert isinstance(error, Permanent)
    assert error.reason == "sftp_unavailable"


def test_a_server_without_a_free_session_is_transient() -> None:
    """A server that opens no session for now is `session_refused`, for its breaker."""
    with Witness(admits=True, opens=False).account() as account:
        error = failure(SftpBench(account))
    assert isinstance(error, Transient)
    assert error.reason == "session_refused"
    assert error.endpoint is not None


def test_weak_ciphers_are_not_spoken() -> None:
    """A server that knows only CBC and 3DES is `algorithms_differ`, to a transfer as to a probe; no credential is sent."""
    witness = Witness(admits=True, ciphers=("aes128-cbc", "3des-cbc"))
    with witness.account() as account, SftpBench(account) as bench:
        error = failure(bench)
        assert isinstance(error, Permanent)
        assert error.reason == "algorithms_differ"
        report = bench.connections.probe(bench.endpoint)
    assert "[algorithms_differ]" in report.checks[-1].message
    assert witness.attempts == []


# -- keys ----------------------------------------------------------------------------------------------------------------


def _formats() -> list[tuple[str, str | None]]:
    keys: list[ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey]
    keys = [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)]
    found: list[tuple[str, str | None]] = []
    for key in keys:
        for shape in (PrivateFormat.OpenSSH, PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            if shape is PrivateFormat.TraditionalOpenSSL and isinstance(key, ed25519.Ed25519PrivateKey):
                continue
            found.append((key.private_bytes(Encoding.PEM, shape, NoEncryption()).decode(), None))
            sealed = key.private_bytes(Encoding.PEM, shape, BestAvailableEncryption(b"sesame")).decode()
            found.append((sealed, "sesame"))
    return found


@pytest.mark.parametrize(("text", "passphrase"), _formats())
def test_private_keys_are_read_in_every_format(text: str, passphrase: str | None) -> None:
    """OpenSSH, PKCS#8, PKCS#1 and SEC 1 keys are read, sealed or not, also with a form's line ends around them."""
    sealed = None if passphrase is None else SecretStr(passphrase)
    pasted = "  \r\n" + text.replace("\n", "\r\n") + "\r\n "
    key = private_key(Credential(private_key=SecretStr(pasted), passphrase=sealed))
    assert key is not None
    assert key.can_sign()
    if passphrase is not None:
        for wrong in (None, SecretStr("wrong")):
            with pytest.raises(Permanent) as error:
                private_key(Credential(private_key=SecretStr(text), passphrase=wrong))
            assert error.value.reason == "passphrase_wrong"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        "PuTTY-User-Key-File-3: ssh-ed25519\n",
        new_key("ed25519")[1],
        dsa.generate_private_key(2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    ],
    ids=["empty", "no key", "rubbish", "putty", "public", "dsa"],
)
def test_what_is_no_usable_key_is_unreadable(text: str) -> None:
    """Anything but a private key of a known kind is `key_unreadable`, and the error shows none of it."""
    with pytest.raises(Permanent) as error:
        private_key(Credential(private_key=SecretStr(text)))
    assert error.value.reason == "key_unreadable"
    assert not text or text not in str(error.value)


def test_an_unreadable_key_touches_no_server() -> None:
    """A key that cannot be read is found before any connection is made."""
    relay = Relay(1)
    with relay.running() as port:
        account = SftpAccount(name="a", host="127.0.0.1", port=port, username="u", directory=Path("/"), host_key=new_key("ed25519")[1])
        error = failure(SftpBench(account, credential=Credential(private_key=SecretStr("hello"))))
    assert error.reason == "key_unreadable"
    assert relay.connections == 0


# -- host keys -----------------------------------------------------------------------------------------------------------


def test_nothing_is_sent_to_an_unknown_host_key() -> None:
    """A server with another host key than the pinned one is `host_key_mismatch` with the fingerprint seen; it learns no user, no secret."""
    witness = Witness(admits=True)
    with witness.account() as account:
        other = f"ssh-rsa {paramiko.RSAKey.generate(2048).get_base64()}"
        error = failure(SftpBench(account, changes={"host_keys": (pin(other),)}))
        assert isinstance(error, Permanent)
        assert error.reason == "host_key_mismatch"
        assert pin(witness.host_key).fingerprint in str(error)
        # Also when it holds no key of the pinned one's type at all.
        error = failure(SftpBench(account, changes={"host_keys": (pin(new_key("ed25519")[1]),)}))
        assert error.reason == "host_key_mismatch"
        assert pin(witness.host_key).fingerprint in str(error)
    assert witness.attempts == []


def test_an_endpoint_without_a_pinned_key_moves_nothing() -> None:
    """Without a pinned host key nothing is even connected to."""
    witness = Witness()
    with witness.account() as account:
        error = failure(SftpBench(account, changes={"host_keys": ()}))
    assert isinstance(error, Permanent)
    assert error.reason == "host_key_unpinned"
    assert witness.attempts == []


def test_a_pinned_key_of_an_unknown_type_is_no_pin(sshd: SftpServer) -> None:
    """A pin of a type that is not negotiated (DSA) counts as none."""
    blob = "ssh-dss AAAAB3NzaC1kc3MAAACBAP=="
    error = failure(SftpBench(sshd.account(uuid4().hex), changes={"host_keys": (pin(blob),)}))
    assert error.reason == "host_key_unpinned"


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_the_server_is_asked_for_the_pinned_key(many_keys: ManyKeysSshd, kind: KeyKind) -> None:
    """A server that prefers another host key shows the pinned one, for only its type is negotiated."""
    works(SftpBench(many_keys.account(uuid4().hex), changes={"host_keys": (pin(many_keys.line(kind)),)}))


def test_one_of_several_pinned_keys_is_enough(many_keys: ManyKeysSshd) -> None:
    """Of two pinned generations either will do."""
    old = pin(new_key("ed25519")[1])
    works(SftpBench(many_keys.account(uuid4().hex), changes={"host_keys": (old, pin(many_keys.host_key))}))


# -- network -------------------------------------------------------------------------------------------------------------


def account_at(port: int, *, host: str = "127.0.0.1") -> SftpAccount:
    """An account on whatever listens there."""
    return SftpAccount(
        name="a", host=host, port=port, username="u", directory=Path("/"), host_key=new_key("ed25519")[1], password="never sent"
    )


def test_a_name_that_does_not_resolve_is_transient() -> None:
    """An unknown host name is `dns_failed`, for the endpoint's breaker."""
    error = failure(SftpBench(account_at(22, host="no-such-host.invalid"), patience=HASTY))
    assert isinstance(error, Transient)
    assert error.reason == "dns_failed"
    assert error.endpoint is not None


def test_a_resolver_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's resolver knows no deadline; the endpoint does."""
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_named: answered.wait(60) and [])
    error = failure(SftpBench(account_at(22, host="slow.example"), patience=Patience(resolve=0.2)))
    answered.set()
    assert isinstance(error, Transient)
    assert error.reason == "dns_failed"


def test_what_is_no_name_never_resolves() -> None:
    """A text that cannot be a host name is a permanent error."""
    error = failure(SftpBench(account_at(22, host="a..b")))
    assert isinstance(error, Permanent)
    assert error.reason == "host_invalid"


def test_a_closed_port_is_unreachable() -> None:
    """A refused connection is `unreachable`, for the endpoint's breaker."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = failure(SftpBench(account_at(port)))
    assert isinstance(error, Transient)
    assert error.reason == "unreachable"
    assert error.endpoint is not None


def test_a_host_that_never_answers_times_out() -> None:
    """A connection that is neither accepted nor refused is `connect_timeout`."""
    with ExitStack() as stack:
        # A full queue of waiting connections: Linux drops what comes then, as a firewall does.
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        error = failure(SftpBench(account_at(listener.getsockname()[1]), patience=HASTY))
    assert isinstance(error, Transient)
    assert error.reason == "connect_timeout"
    assert error.endpoint is not None


def _silent(connection: socket.socket) -> None:
    while connection.recv(1 << 16):
        pass


def _trickling(connection: socket.socket) -> None:
    for _ in range(600):
        connection.sendall(b"x")
        time.sleep(0.1)


def _talking_http(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def _hanging_up(connection: socket.socket) -> None:
    connection.recv(1)


@pytest.mark.parametrize(
    ("serve", "reason"),
    [
        (_silent, "connect_timeout"),
        (_trickling, "connect_timeout"),
        (_talking_http, "connection_lost"),
        (_hanging_up, "connection_lost"),
    ],
)
def test_what_is_no_ssh_server_ends_in_time(serve: Callable[[socket.socket], None], reason: str) -> None:
    """A server that says nothing, trickles, speaks HTTP or hangs up is a transient error of the endpoint, in bounded time."""
    with listening(serve) as port:
        error = failure(SftpBench(account_at(port), patience=HASTY))
    assert isinstance(error, Transient)
    assert error.reason == reason
    assert error.endpoint is not None


def test_a_probe_of_no_ssh_server_shows_no_keys() -> None:
    """A probe of something that speaks no SSH fails at the host key, with the reason."""
    with listening(_hanging_up) as port, SftpBench(account_at(port), patience=HASTY) as bench:
        report = bench.connections.probe(bench.endpoint)
    assert report.host_keys == ()
    assert report.checks[-1].name == "host_key"
    assert "[connection_lost]" in report.checks[-1].message


def test_a_server_that_falls_silent_after_the_login_ends_in_time() -> None:
    """A subsystem that never answers is given up in bounded time."""
    with Witness(admits=True, offers_sftp=True).account() as account:
        error = failure(SftpBench(account, patience=Patience(login=5, progress=1)))
    assert isinstance(error, Transient)
    assert error.reason in {"stalled", "connect_timeout"}


def test_failed_logins_leave_nothing_running() -> None:
    """After a failed login no thread of its connection lives on."""
    before = set(threading.enumerate())
    with listening(_hanging_up) as port:
        failure(SftpBench(account_at(port), patience=HASTY))
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive(), thread
