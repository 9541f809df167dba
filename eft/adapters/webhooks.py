"""Posting to addresses that customers name: resolved, judged, and connected to exactly as judged; redirects are never followed.

What a name resolves to is judged each time, and the judged address is the one connected to, so that a name which points inward
a moment later (DNS rebinding) finds nobody who goes there.
"""

from __future__ import annotations

import http.client
import ipaddress
import queue
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final
from urllib.parse import SplitResult, urlsplit

from eft.domain.names import display
from eft.errors import EftError, Permanent, Transient
from eft.ports import Answer

RESOLVE_WITHIN: Final = timedelta(seconds=3)
ANSWER_READ: Final = 64 * 1024
"""Bytes of an answer's body that are read, so that the connection ends in order; nobody looks at them."""
_INWARD: Final = tuple(
    ipaddress.ip_network(one)
    for one in (
        # `is_global` is True for these, and what they carry may be anything.
        "2002::/16",
    )
)
_UNICAST: Final = ipaddress.ip_network("2000::/3")
"""All of IPv6 that is given to hosts of the public internet (IANA IPv6 Address Space); Python calls more of it global, as `fec0::/10`."""
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class HttpsReceiver:
    """`ports.Receiver` over HTTPS; with `loopback` also over HTTP and HTTPS to this machine, for the local stack and tests."""

    def __init__(self, *, loopback: bool = False, context: ssl.SSLContext | None = None) -> None:
        self._loopback = loopback
        self._context = context

    def check(self, url: str) -> None:
        """Resolves the host."""
        self._judged(_parsed(url, loopback=self._loopback), RESOLVE_WITHIN)

    def post(self, url: str, *, headers: Mapping[str, str], body: bytes, patience: timedelta) -> Answer:
        """Sends one request on a connection of its own, and ends it whatever the receiver does once `patience` is over."""
        target = _parsed(url, loopback=self._loopback)
        addresses = self._judged(target, min(patience, RESOLVE_WITHIN))
        path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        over = threading.Event()
        held: list[socket.socket] = []
        connection = http.client.HTTPConnection(str(target.hostname), _port(target), timeout=patience.total_seconds())
        timer = threading.Timer(patience.total_seconds(), _cut, (held, over))
        timer.daemon = True
        timer.start()
        try:
            connection.sock = self._connected(target, addresses, patience, held)
            if over.is_set():
                raise TimeoutError
            connection.request("POST", path, body=body, headers={"Host": target.netloc, "Connection": "close", **headers})
            answer = connection.getresponse()
            answer.read(ANSWER_READ)
            if over.is_set():
                # What was cut off may look like an answer that ended.
                raise TimeoutError
            return Answer(answer.status, _retry_after(answer.headers.get("Retry-After")))
        except EftError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _trouble(target, error, late=over.is_set()) from error
        finally:
            timer.cancel()
            connection.close()
            for one in held:
                one.close()

    def _judged(self, target: SplitResult, patience: timedelta) -> list[_Address]:
        """Returns the host's addresses, all of them fit to be connected to.

        Raises:
            Permanent: `webhook_address_refused`; Transient: `dns_failed`.
        """
        addresses = _resolved(str(target.hostname), _port(target), patience)
        for address in addresses:
            if not (_outward(address) or (self._loopback and address.is_loopback)):
                # Which one stays untold: the names of an inner network are not for customers to look up.
                raise _refused(target, "it leads to no address of the public internet")
            if target.scheme == "http" and not address.is_loopback:
                raise _refused(target, "only https:// addresses are told")
        return addresses

    def _connected(
        self, target: SplitResult, addresses: Sequence[_Address], patience: timedelta, held: list[socket.socket]
    ) -> socket.socket:
        """Returns a socket connected to the first address that answers; every one that was opened is in `held`."""
        last: OSError = TimeoutError()
        for address in addresses:
            try:
                plain = socket.create_connection((str(address), _port(target)), timeout=patience.total_seconds() / len(addresses))
            except OSError as error:
                last = error
                continue
            held.append(plain)
            plain.settimeout(patience.total_seconds())
            if target.scheme != "https":
                return plain
            context = self._context or ssl.create_default_context()
            secure = context.wrap_socket(plain, server_hostname=target.hostname, do_handshake_on_connect=False)
            held[-1] = secure
            secure.do_handshake()
            return secure
        raise last


def _parsed(url: str, *, loopback: bool) -> SplitResult:
    """Returns the parts of an address.

    Raises:
        Permanent: `webhook_address_refused`.
    """
    try:
        target = urlsplit(url)
        _port(target)
    except ValueError:
        target = urlsplit("")
    if not target.hostname or target.scheme not in {"https", "http"}:
        raise _refused(target, "it is no https:// address")
    if target.scheme == "http" and not loopback:
        raise _refused(target, "only https:// addresses are told")
    if "@" in target.netloc or target.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise _refused(target, "it holds a user name, a fragment, or characters that an address does not have")
    return target


def _port(target: SplitResult) -> int:
    return target.port or {"http": 80}.get(target.scheme, 443)


def _resolved(host: str, port: int, patience: timedelta) -> list[_Address]:
    """Returns a host's addresses.

    Raises:
        Transient: `dns_failed`.
    """
    answers: queue.Queue[list[_Address] | Exception] = queue.Queue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put(list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found)))
        except (OSError, UnicodeError, ValueError) as error:
            answers.put(error)

    # getaddrinfo knows no deadline, so it gets a thread that nobody waits for longer.
    threading.Thread(target=ask, name="webhook-resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=patience.total_seconds())
    except queue.Empty:
        answer = TimeoutError()
    if isinstance(answer, Exception) or not answer:
        msg = f"the host name '{display(host)}' does not resolve"
        raise Transient(msg, reason="dns_failed")
    return answer


def _outward(address: _Address) -> bool:
    """Returns whether an address is a host's on the public internet (RFC 6890), and cannot stand for another that is not."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return _outward(address.ipv4_mapped)
        if address not in _UNICAST or any(address in network for network in _INWARD):
            return False
    return address.is_global and not address.is_multicast


def _cut(held: list[socket.socket], over: threading.Event) -> None:
    over.set()
    for one in held:
        with suppress(OSError):
            # Past the TLS layer, which another thread is using.
            socket.socket.shutdown(one, socket.SHUT_RDWR)


def _retry_after(value: str | None) -> timedelta | None:
    """Returns a Retry-After in seconds (RFC 9110, 10.2.3); dates are not read."""
    return timedelta(seconds=min(int(value), 86400)) if value is not None and value.isascii() and value.isdigit() else None


def _trouble(target: SplitResult, error: Exception, *, late: bool) -> Transient:
    where = _where(target)
    if late or isinstance(error, TimeoutError):
        return Transient(f"{where} did not answer in time", reason="webhook_timeout")
    if isinstance(error, ssl.SSLError):
        return Transient(f"{where} offers no TLS that can be trusted: {display(str(error.reason))}", reason="webhook_tls_failed")
    return Transient(f"{where} cannot be reached: {type(error).__name__}", reason="webhook_unreachable")


def _where(target: SplitResult) -> str:
    """Returns what may be shown of an address: neither its path nor a user's name, for either may hold a secret."""
    return display(target.netloc.rpartition("@")[2])


def _refused(target: SplitResult, why: str) -> Permanent:
    return Permanent(f"the address {_where(target)} is not posted to: {why}", reason="webhook_address_refused")
