"""From an endpoint and its credential to an SFTP session: resolve, connect, log in; each with a deadline."""

from __future__ import annotations

import errno
import os
import queue
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import paramiko

from eft.adapters.sftp.keys import private_key
from eft.adapters.sftp.login import EVERY_HOST_KEY, authenticate, check_host_key, greet, pinned_algorithms, set_policy
from eft.adapters.sftp.packets import GcmPacketizer
from eft.adapters.sftp.pipe import PatientSocket, new_transport, open_pipe
from eft.adapters.sftp.session import Session
from eft.domain.endpoint import Credential, HostKey, SftpEndpoint
from eft.errors import EftError, Permanent, Transient

ENDS_IN = 1.0
"""Seconds to wait for the thread of a connection that is over; it ends by itself, too."""

Address = tuple[socket.AddressFamily, Any]


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that each thing may take."""

    resolve: float = 10
    connect: float = 10
    """To reach one of the server's addresses."""
    login: float = 30
    """From the connected socket to the first SFTP reply."""
    progress: float = 30
    """Between two whole replies of the server."""
    disk: float = 90
    """For the server to bring a file to its disk."""


class Connection:
    """An authenticated SSH connection with one SFTP session on it."""

    def __init__(self, held: PatientSocket, transport: paramiko.Transport, session: Session) -> None:
        self._socket = held
        self._transport = transport
        self.session = session

    @property
    def usable(self) -> bool:
        """Whether it may serve another block: not cut, not out of step."""
        return self._transport.is_active() and not self.session.wire.broken

    def close(self) -> None:
        """Ends the connection at once."""
        self.session.wire.broken = True
        hang_up(self._socket, self._transport)
        # Paramiko's objects hang together in circles, and live on until those are collected.
        self.session.wire.drop()

    def abandon(self) -> None:
        """Lets go of a connection that a forked child inherited, without a word to the server: it is its parent's."""
        self.session.wire.broken = True
        self._socket.close()


def connect(endpoint: SftpEndpoint, credential: Credential, patience: Patience) -> Connection:
    """Returns a connection.

    Raises:
        Transient: `dns_failed`, `unreachable`, `connect_timeout`, `connection_lost`, `login_cut`, `session_refused`; the endpoint is named.
        Permanent: `host_key_unpinned`, `host_key_mismatch`, `auth_failed`, `key_unreadable`, `passphrase_wrong`, `sftp_unavailable`,
            `algorithms_differ`, `host_invalid`.
    """
    offered = pinned_algorithms(endpoint)
    # Before anything is sent: a key that cannot be read is nobody's fault over there.
    key = private_key(credential)
    with ExitStack() as undo:
        held, transport = reach(endpoint, patience)
        undo.callback(hang_up, held, transport)
        with deadline(endpoint, held, patience.login):
            try:
                shown = greet(transport, offered)
            except Permanent as error:
                # Perhaps it holds host keys of other types only: then that is what to say.
                raise _other_key(endpoint, patience) or error from None
            check_host_key(endpoint, shown)
            authenticate(endpoint, transport, credential, key)
            session = open_session(endpoint, transport, patience)
        undo.pop_all()
    return Connection(held, transport, session)


def reach(endpoint: SftpEndpoint, patience: Patience) -> tuple[PatientSocket, paramiko.Transport]:
    """Returns a connected socket and a transport on it that has sent nothing yet.

    Raises:
        Transient: `dns_failed`, `unreachable`, `connect_timeout`.
        Permanent: `host_invalid`.
    """
    held = dial(endpoint, resolve(endpoint, patience), patience)
    transport = new_transport(held)
    set_policy(transport, patience=patience.login)
    return held, transport


def show(endpoint: SftpEndpoint, offered: Sequence[str], patience: Patience) -> HostKey:
    """Returns the host key that the server shows when it is offered these algorithms; nothing but the key exchange takes place.

    Raises:
        Transient: as `reach`; `connection_lost`.
        Permanent: `algorithms_differ` when it holds none of them; `host_invalid`.
    """
    held, transport = reach(endpoint, patience)
    try:
        with deadline(endpoint, held, patience.login):
            return greet(transport, offered)
    finally:
        hang_up(held, transport)


def resolve(endpoint: SftpEndpoint, patience: Patience) -> list[Address]:
    """Returns the addresses of the endpoint's host.

    Raises:
        Transient: `dns_failed`.
        Permanent: `host_invalid`.
    """
    answers: queue.Queue[list[Address] | Exception] = queue.Queue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
            answers.put([(family, address) for family, _, _, _, address in found])
        except (OSError, UnicodeError) as error:
            answers.put(error)

    # getaddrinfo knows no deadline, so it gets a thread that nobody waits for longer.
    threading.Thread(target=ask, name="sftp-resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=patience.resolve)
    except queue.Empty:
        answer = TimeoutError()
    if isinstance(answer, UnicodeError):
        raise Permanent(f"'{endpoint.host}' is not a host name", reason="host_invalid")
    if isinstance(answer, Exception):
        raise Transient(f"the host name '{endpoint.host}' does not resolve", reason="dns_failed", endpoint=endpoint.id) from answer
    return answer


def dial(endpoint: SftpEndpoint, addresses: Sequence[Address], patience: Patience) -> PatientSocket:
    """Returns a socket connected to the first address that answers.

    Raises:
        Transient: `connect_timeout`, `unreachable`.
    """
    until = time.monotonic() + patience.connect
    last: OSError = TimeoutError()
    for family, address in addresses:
        held = None
        try:
            held = PatientSocket(family, socket.SOCK_STREAM)
            held.patience = patience.progress
            held.settimeout(max(0.01, until - time.monotonic()))
            held.connect(address)
            # Without it each small request waits for the acknowledgement of the one before.
            held.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except OSError as error:
            if held is not None:
                held.close()
            last = error
        else:
            return held
    where = f"{endpoint.host} port {endpoint.port}"
    if isinstance(last, TimeoutError):
        raise Transient(f"{where} does not answer", reason="connect_timeout", endpoint=endpoint.id) from last
    name = errno.errorcode.get(last.errno or 0, "error")
    raise Transient(
        f"{where} cannot be reached: {os.strerror(last.errno or 0)} ({name})", reason="unreachable", endpoint=endpoint.id
    ) from last


def open_session(endpoint: SftpEndpoint, transport: paramiko.Transport, patience: Patience) -> Session:
    """Opens the SFTP session.

    Raises:
        Permanent: `sftp_unavailable`.
        Transient: `session_refused` when the server has no session free; `connection_lost`, `protocol_error`.
        paramiko.SSHException: the connection is cut.
    """
    try:
        pipe = open_pipe(transport, patience=patience.login)
    except paramiko.ChannelException as error:
        raise Transient("the server opens no session", reason="session_refused", endpoint=endpoint.id) from error
    except paramiko.SSHException as error:
        if not transport.is_active():
            raise
        raise Permanent(f"the server offers user '{endpoint.username}' no SFTP", reason="sftp_unavailable") from error
    return Session(
        pipe,
        endpoint=endpoint.id,
        version=transport.remote_version,
        patience=patience.progress,
        patience_for_disk=patience.disk,
    )


def hang_up(held: PatientSocket, transport: paramiko.Transport) -> None:
    """Ends a connection at once, whatever state it is in."""
    # Wakes paramiko's thread; closing alone would let it wait on.
    with suppress(OSError):
        held.shutdown(socket.SHUT_RDWR)
    # Stops the timer of an unfinished handshake, which would keep the process alive.
    transport.packetizer.complete_handshake()
    transport.close()
    held.close()
    if transport.is_alive() and transport is not threading.current_thread():
        transport.join(ENDS_IN)
    if isinstance(transport.packetizer, GcmPacketizer) and not transport.is_alive():
        transport.packetizer.rest()


@contextmanager
def deadline(endpoint: SftpEndpoint, held: PatientSocket, seconds: float) -> Iterator[None]:
    """Cuts the connection after so many seconds, for some waits of paramiko's have no end, and names what its thread met.

    Raises:
        Transient: `connect_timeout`, `connection_lost`.
    """
    over = threading.Event()

    def cut() -> None:
        over.set()
        with suppress(OSError):
            held.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    where = f"{endpoint.host} port {endpoint.port}"
    try:
        yield
    except Exception as error:
        if over.is_set():
            raise Transient(
                f"{where} did not complete the login in {seconds:g} seconds",
                reason="connect_timeout",
                endpoint=endpoint.id,
            ) from error
        if isinstance(error, EftError):
            raise
        # Whatever a broken or hostile server makes of paramiko.
        raise Transient(f"{where} does not complete an SSH login", reason="connection_lost", endpoint=endpoint.id) from error
    finally:
        timer.cancel()


def _other_key(endpoint: SftpEndpoint, patience: Patience) -> Permanent | None:
    try:
        check_host_key(endpoint, show(endpoint, EVERY_HOST_KEY, patience))
    except Permanent as error:
        return error if error.reason == "host_key_mismatch" else None
    return None
