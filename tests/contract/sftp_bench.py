"""SFTP endpoints for the contract tests: on OpenSSH, on asyncssh, and behind a relay that cuts and freezes."""

from __future__ import annotations

import select
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import SecretStr

from deploy.local.process import LOOPBACK, free_port
from deploy.local.sftp import SftpAccount
from eft.adapters.sftp.connect import Patience
from eft.adapters.sftp.pool import SftpConnections
from eft.domain.endpoint import Credential, HostKey, SftpEndpoint
from eft.ports import Store
from tests.fakes import START, FakeClock, FakeLimits, FakeSecrets


def pin(line: str) -> HostKey:
    """A host key from a line as in known_hosts, without the host."""
    algorithm, key = line.split()[:2]
    return HostKey(algorithm=algorithm, key=key)


def credential_of(account: SftpAccount) -> Credential:
    """What a customer would hand over."""

    def secret(text: str | None) -> SecretStr | None:
        return None if text is None else SecretStr(text)

    return Credential(password=secret(account.password), private_key=secret(account.private_key), passphrase=secret(account.passphrase))


@dataclass
class SftpBench:
    """`store_suite.Bench` on an account's directory, which is this machine's own."""

    account: SftpAccount
    changes: dict[str, Any] = field(default_factory=dict)
    """Fields of the endpoint other than the account's."""
    credential: Credential | None = None
    """Instead of the account's."""
    patience: Patience = field(default_factory=Patience)
    has_directories: bool = True
    keeps_versions: bool = False

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.limits = FakeLimits(self.clock)
        self.secrets = FakeSecrets()
        self.connections = SftpConnections(self.limits, self.secrets, self.clock, patience=self.patience)
        name = f"e{uuid.uuid4().hex[:12]}"
        secret = self.secrets.put(tenant="t1", endpoint=name, credential=self.credential or credential_of(self.account))
        fields: dict[str, Any] = {
            "host": self.account.host,
            "port": self.account.port,
            "username": self.account.username,
            "root": str(self.account.directory),
            "host_keys": (pin(self.account.host_key),),
            "secret": secret,
        }
        self.endpoint = SftpEndpoint(id=name, tenant="t1", name="under test", created=START, **(fields | self.changes))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.connections.close_all()

    @property
    def key(self) -> str:
        """Of the endpoint's slots."""
        return f"endpoint:{self.endpoint.id}"

    @property
    def directory(self) -> Path:
        """Where the files are."""
        return self.account.directory

    def open(self) -> AbstractContextManager[Store]:
        """Gives the store as the journey gets it."""
        return self.connections.open(self.endpoint)

    def put(self, path: str, content: bytes) -> None:
        """Writes a file past the store."""
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    def get(self, path: str) -> bytes | None:
        """Reads a file past the store."""
        target = self.directory / path
        return target.read_bytes() if target.exists() else None

    def remove(self, path: str) -> None:
        """Removes a file past the store."""
        (self.directory / path).unlink()


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Gives the port of a server whose every connection is handled by `serve`, in a thread of its own."""
    # No ephemeral port: clients of servers long gone still knock at those.
    listener = socket.create_server((LOOPBACK, free_port()))
    opened: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def handle(connection: socket.socket) -> None:
        with suppress(OSError):
            serve(connection)
        _cut(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                opened.append(connection)
                threads.append(threading.Thread(target=handle, args=(connection,)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join()
        for connection in opened:
            _cut(connection)
        for thread in threads:
            thread.join()
        listener.close()
        for connection in opened:
            connection.close()


class Relay:
    """Passes bytes between a client and a server until it is told to freeze or to cut.

    `trickle` makes it pass what the server says one byte at a time, each after so many seconds.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self._frozen = threading.Event()
        self._over = threading.Event()
        self._ends: list[socket.socket] = []
        self.trickle = 0.0
        self.passed = 0
        """Bytes that went to the server."""
        self.connections = 0
        """SSH clients that came."""
        self.most: int | None = None
        """Clients at a time beyond which one more is hung up on, as servers do that have enough."""
        self.refused = 0
        """Clients that were."""
        self._live = 0
        self._counting = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[int]:
        """Gives the port to connect to."""
        with listening(self._serve) as port:
            try:
                yield port
            finally:
                self._over.set()

    def freeze(self) -> None:
        """Passes nothing from now on, and reads nothing either."""
        self._frozen.set()

    def cut(self) -> None:
        """Closes all connections; later ones live."""
        ends, self._ends = self._ends, []
        for end in ends:
            _cut(end)

    def _serve(self, client: socket.socket) -> None:
        with self._counting:
            self._live += 1
            enough = self.most is not None and self._live > self.most
            self.refused += enough
        try:
            if not enough:
                self._pass_on(client)
        finally:
            with self._counting:
                self._live -= 1

    def _pass_on(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._server)) as server:
            known = False
            self._ends += [client, server]
            while not self._over.is_set():
                if self._frozen.wait(0.01 if self._frozen.is_set() else 0):
                    continue
                ready, _, _ = select.select([client, server], [], [], 0.05)
                for end in ready:
                    slow = end is server and self.trickle > 0
                    held = end.recv(1 if slow else 1 << 16)
                    if not held or (slow and self._over.wait(self.trickle)):
                        return
                    if end is client and not known:
                        known = True
                        self.connections += held.startswith(b"SSH-")
                    (server if end is client else client).sendall(held)
                    self.passed += len(held) if end is client else 0


def _cut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
