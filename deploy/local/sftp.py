"""SFTP servers of the local stack: OpenSSH's own sshd in user mode, and one in Python where there is no sshd.

Both serve *accounts*: a directory, and what proves that a client may use it. Paths are the machine's own (no chroot), a
session starts in the account's directory, and relative paths count from there. Accounts may be added while it runs.
"""

from __future__ import annotations

import getpass
import json
import os
import pwd
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from deploy.local import places
from deploy.local.process import LOOPBACK, Child, StartFailed, speaks
from deploy.local.servers import NetworkServer, passed_on

KeyKind = Literal["ed25519", "ecdsa", "rsa"]
Proof = Literal["publickey", "password", "keyboard-interactive"]
PRIVILEGE_SEPARATION: Final = Path("/run/sshd")


@dataclass(frozen=True, kw_only=True)
class SftpAccount:
    """What a customer knows of an account, and where its files are on this machine."""

    name: str
    host: str
    port: int
    username: str
    directory: Path
    host_key: str
    """In the form of known_hosts, without the host: `ssh-ed25519 AAAA…`."""
    private_key: str | None = field(default=None, repr=False)
    """In OpenSSH's format, encrypted if there is a passphrase."""
    passphrase: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    """For a password or a keyboard-interactive question alike."""


@dataclass(frozen=True, kw_only=True)
class Quirks:
    """How the server in Python misbehaves, from the next connection on. Counts are bytes."""

    posix_rename: bool = True
    fsync: bool = True
    sequential: bool = False
    """A write anywhere but at the end of the file fails, as on servers that only append."""
    short_reads: int | None = None
    """A read returns at most this many bytes."""
    max_packet: int | None = None
    """A write of more bytes closes the connection; a read returns at most so many; no limits are announced."""
    cut_after: int | None = None
    """The connection is cut once it has carried so many bytes of files in either direction."""
    cut_times: int | None = None
    """So many connections are cut, later ones live; None: all are cut."""
    cut_on: Literal["close", "rename"] | None = None
    """The connection is cut when a written file has been closed, or a file renamed, before the client is told."""
    full_after: int | None = None
    """A file that would grow beyond this size fails as on a full disk, after the bytes that fit are written; until there is room again."""
    bytes_per_second: int | None = None
    """The pace of one connection."""


class AccountServer(NetworkServer):
    """What both SFTP servers share: a host key of their own and accounts below `home`."""

    @property
    def home(self) -> Path:
        """Where the accounts' directories are, unless told otherwise."""
        return self.directory / "home"

    @property
    def host_key(self) -> str:
        """The server's public key as in known_hosts, without the host; the server need not run."""
        return self._host_key_file().with_suffix(".pub").read_text().strip()

    def _host_key_file(self) -> Path:
        path = self.directory / "host_key"
        if not path.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            private, public = new_key("ed25519")
            path.with_suffix(".pub").write_text(public + "\n")
            write_private(path, private)
        return path

    def _account_directory(self, name: str, directory: Path | None) -> Path:
        chosen = (directory or self.home / name).resolve()
        chosen.mkdir(parents=True, exist_ok=True)
        return chosen


class SftpServer(AccountServer):
    """OpenSSH's sshd with keys only: a user-mode sshd may not judge passwords.

    Everybody logs in as the user who runs it, each with a key of their own that leads to their own directory. Run by
    root, an account may also be that of another, unprivileged local user, so that permissions are real; the server's
    directory must then be reachable for that user.
    """

    @staticmethod
    def available() -> bool:
        """Whether this machine has OpenSSH's sshd."""
        return places.system_program("sshd") is not None

    def account(
        self,
        name: str,
        *,
        directory: Path | None = None,
        key: KeyKind = "ed25519",
        passphrase: str | None = None,
        user: str | None = None,
    ) -> SftpAccount:
        """Returns a new account with a new key; a second call with the same name adds a key.

        Raises `StartFailed` before the first start, and for another user unless root runs the server.
        """
        own = getpass.getuser()
        username = user or own
        if username != own and os.geteuid() != 0:
            raise StartFailed(f"only root's sshd lets {username} in")
        root = self._account_directory(name, directory)
        if username != own:
            entry = pwd.getpwnam(username)
            os.chown(root, entry.pw_uid, entry.pw_gid)
        private, public = new_key(key, passphrase=passphrase)
        keys = self.directory / "authorized_keys" / username
        keys.parent.mkdir(exist_ok=True)
        with keys.open("a") as file:
            file.write(f'restrict,command="internal-sftp -d {_quoted(root)}" {public}\n')
        keys.chmod(0o644)
        return SftpAccount(
            name=name,
            host=LOOPBACK,
            port=self.port,
            username=username,
            directory=root,
            host_key=self.host_key,
            private_key=private,
            passphrase=passphrase,
        )

    def _prepare(self) -> Child:
        program = places.system_program("sshd")
        if program is None:
            raise StartFailed("sshd is not installed (Debian: openssh-server)")
        if os.geteuid() == 0:
            PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        config = self.directory / "sshd_config"
        lines = [
            f"Port {self.port}",
            f"ListenAddress {LOOPBACK}",
            f"HostKey {_quoted(self._host_key_file())}",
            "PidFile none",
            f"AuthorizedKeysFile {_quoted(self.directory / 'authorized_keys')}/%u",
            "AuthenticationMethods publickey",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "UsePAM no",
            "PermitRootLogin prohibit-password",
            # Test directories belong to whom they belong; nobody else reaches this server.
            "StrictModes no",
            "Subsystem sftp internal-sftp",
            "LogLevel INFO",
            "UseDNS no",
            "MaxStartups 200",
            "MaxSessions 200",
        ]
        config.write_text("\n".join(lines) + "\n")
        # From OpenSSH 9.8 on, failed logins lock an address out for a while; here all customers share 127.0.0.1.
        lenient = [*lines, "PerSourcePenalties no"]
        trial = self.directory / "sshd_config.trial"
        trial.write_text("\n".join(lenient) + "\n")
        if subprocess.run([str(program), "-t", "-f", str(trial)], capture_output=True, check=False).returncode == 0:
            trial.replace(config)
        else:
            trial.unlink()
        command: list[str | Path] = [program, "-D", "-e", "-f", config]
        return Child("sshd", command, log=self.log, environment=passed_on(), ready=speaks(self.port, b"SSH-2.0-"))


class PasswordSftpServer(AccountServer):
    """An SFTP server in Python (asyncssh) for what a user-mode sshd cannot do: passwords, questions, misbehaviour.

    It also stands in for sshd where the machine has none: accounts with a key alone work as they do there.
    """

    def __init__(self, directory: Path, *, port: int | None = None, quirks: Quirks | None = None) -> None:
        """Takes how it misbehaves from the start."""
        super().__init__(directory, port=port)
        self._quirks = quirks or Quirks()
        self._generation = 0
        self._accounts: dict[str, dict[str, object]] = {}

    def account(
        self,
        name: str,
        *,
        proofs: tuple[Proof, ...] = ("password",),
        directory: Path | None = None,
        password: str | None = None,
        key: KeyKind = "ed25519",
        passphrase: str | None = None,
    ) -> SftpAccount:
        """Returns a new account that asks for all of the proofs, the key first; raises `StartFailed` before the start.

        Without a password given, one is made up.
        """
        root = self._account_directory(name, directory)
        private = public = None
        if "publickey" in proofs:
            private, public = new_key(key, passphrase=passphrase)
        secret = (password or os.urandom(12).hex()) if set(proofs) - {"publickey"} else None
        self._accounts[name] = {
            "directory": str(root),
            "proofs": list(proofs),
            "password": secret,
            "keys": [public] if public else [],
        }
        self._write()
        return SftpAccount(
            name=name,
            host=LOOPBACK,
            port=self.port,
            username=name,
            directory=root,
            host_key=self.host_key,
            private_key=private,
            passphrase=passphrase if private else None,
            password=secret,
        )

    def behave(self, quirks: Quirks | None = None) -> None:
        """Changes how connections made from now on misbehave; without quirks they are served well."""
        self._quirks = quirks or Quirks()
        self._generation += 1
        self._write()

    @property
    def _config(self) -> Path:
        return self.directory / "sftp.json"

    def _write(self) -> None:
        text = json.dumps({"generation": self._generation, "quirks": asdict(self._quirks), "accounts": self._accounts}, indent=1)
        draft = self._config.with_suffix(".draft")
        write_private(draft, text)
        draft.replace(self._config)

    def _prepare(self) -> Child:
        self._write()
        command: list[str | Path] = [sys.executable, "-m", "deploy.local.sftp_fallback"]
        command += ["--port", str(self.port), "--host-key", self._host_key_file(), "--config", self._config]
        environment = passed_on() | {"PYTHONUNBUFFERED": "1"}
        ready = speaks(self.port, b"SSH-2.0-")
        return Child("sftp", command, log=self.log, environment=environment, directory=places.ROOT, ready=ready)


def new_key(kind: KeyKind, *, passphrase: str | None = None) -> tuple[str, str]:
    """Returns a new key pair: the private key in OpenSSH's format, the public one as in authorized_keys."""
    private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if kind == "ed25519":
        private = ed25519.Ed25519PrivateKey.generate()
    elif kind == "ecdsa":
        private = ec.generate_private_key(ec.SECP256R1())
    else:
        private = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    sealing = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    text = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, sealing).decode()
    return text, private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner may read, from its first byte on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _quoted(path: Path) -> str:
    """Returns the path as sshd's files want it; raises `StartFailed` for one that they cannot hold."""
    text = str(path)
    if any(sign in text for sign in "\"'\\ \t\n%"):
        raise StartFailed(f"sshd cannot be told of this path: {text!r}")
    return text
