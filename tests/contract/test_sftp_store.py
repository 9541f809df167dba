"""The store contract on real SFTP servers, and what SFTP adds to it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.local import places
from deploy.local.process import LOOPBACK, Child, Stack, speaks
from deploy.local.servers import passed_on
from deploy.local.sftp import AccountServer, PasswordSftpServer, Quirks, SftpAccount, SftpServer
from eft.domain.endpoint import RenameMode
from tests.contract.sftp_bench import SftpBench
from tests.contract.store_suite import StoreSuite


class Proftpd(AccountServer):
    """ProFTPD's mod_sftp with one account, root's own under another name and with a password."""

    USER = "carla"
    PASSWORD = "a long enough password"

    @staticmethod
    def available() -> bool:
        """Whether this machine has it, and may run it."""
        return os.geteuid() == 0 and all(places.system_program(name) for name in ("proftpd", "ftpasswd"))

    def account(self) -> SftpAccount:
        """Returns the account, in a directory of its own."""
        return SftpAccount(
            name=self.USER,
            host=LOOPBACK,
            port=self.port,
            username=self.USER,
            directory=self._account_directory(uuid4().hex, None),
            host_key=self.host_key,
            password=self.PASSWORD,
        )

    def _prepare(self) -> Child:
        users = self.directory / "passwd"
        maker = ["ftpasswd", "--passwd", f"--name={self.USER}", "--uid=0", "--gid=0", "--shell=/bin/sh", "--stdin"]
        maker += [f"--home={self.directory}", f"--file={users}"]
        subprocess.run(maker, input=self.PASSWORD.encode(), capture_output=True, check=True)
        users.chmod(0o600)
        config = self.directory / "proftpd.conf"
        lines = [
            "ModulePath /usr/lib/proftpd",
            "LoadModule mod_sftp.c",
            "ServerType standalone",
            f"DefaultAddress {LOOPBACK}",
            f"Port {self.port}",
            "UseIPv6 off",
            "User root",
            "Group root",
            f"ScoreboardFile {self.directory}/scoreboard",
            f"PidFile {self.directory}/pid",
            f"AuthUserFile {users}",
            "AuthOrder mod_auth_file.c",
            "RootLogin on",
            "WtmpLog off",
            "TransferLog none",
            "AllowOverwrite on",
            "AllowStoreRestart on",
            "SFTPEngine on",
            f"SFTPHostKey {self._host_key_file()}",
            "SFTPAuthMethods password",
        ]
        config.write_text("\n".join(lines) + "\n")
        command: list[str | Path] = ["proftpd", "--nodaemon", "--quiet", "--config", config]
        return Child("proftpd", command, log=self.log, environment=passed_on(), ready=speaks(self.port, b"SSH-2.0-"))


@pytest.fixture(scope="module")
def proftpd(servers: Stack, servers_directory: Path) -> Proftpd:
    """A server whose packets are 32 KiB at most, and which forks for each connection."""
    if not Proftpd.available():
        pytest.skip("this machine has no ProFTPD, or not for us")
    return servers.start(Proftpd(servers_directory / "proftpd"))


class TestProftpd(StoreSuite):
    @pytest.fixture
    def bench(self, proftpd: Proftpd) -> Iterator[SftpBench]:
        with SftpBench(proftpd.account()) as bench:
            yield bench


class TestOpenSsh(StoreSuite):
    @pytest.fixture
    def bench(self, sshd: SftpServer) -> Iterator[SftpBench]:
        with SftpBench(sshd.account(uuid4().hex)) as bench:
            yield bench


class TestPlainRename(StoreSuite):
    """An endpoint that chose plain rename, as on servers without posix-rename."""

    @pytest.fixture
    def bench(self, sshd: SftpServer) -> Iterator[SftpBench]:
        with SftpBench(sshd.account(uuid4().hex), changes={"rename": RenameMode.PLAIN}) as bench:
            yield bench


class TestRelativeRoot(StoreSuite):
    """An endpoint whose root is the login directory."""

    @pytest.fixture
    def bench(self, sshd: SftpServer) -> Iterator[SftpBench]:
        with SftpBench(sshd.account(uuid4().hex), changes={"root": ""}) as bench:
            yield bench


class TestAsyncssh(StoreSuite):
    """A server of another make, of unknown habits."""

    @pytest.fixture
    def bench(self, password_sftp: PasswordSftpServer) -> Iterator[SftpBench]:
        with SftpBench(password_sftp.account(uuid4().hex)) as bench:
            yield bench


class TestPoorServer(StoreSuite):
    """A server without extensions, that reads short, takes 32 KiB at most and only appends."""

    @pytest.fixture
    def bench(self, password_sftp: PasswordSftpServer) -> Iterator[SftpBench]:
        password_sftp.behave(Quirks(posix_rename=False, fsync=False, short_reads=20_000, max_packet=32_768))
        with SftpBench(password_sftp.account(uuid4().hex)) as bench:
            yield bench
