"""The store contract on real SFTP servers, and what SFTP adds to it."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from deploy.local.sftp import PasswordSftpServer, Quirks, SftpServer
from eft.domain.endpoint import RenameMode
from tests.contract.sftp_bench import SftpBench
from tests.contract.store_suite import StoreSuite


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
