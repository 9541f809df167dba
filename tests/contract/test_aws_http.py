"""HTTP as the short way to AWS speaks it, against a server that answers with bytes from a script."""

from __future__ import annotations

import gc
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from eft.adapters.aws_connection import NotHttp
from eft.adapters.aws_http import FRESH, ORIGINS, Answer, Connections, NotSent, Request
from eft.ports import Bytes

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers each request with the next bytes of its script, hangs up after None and when the script is over."""

    def __init__(self, *script: bytes | None, tls: ssl.SSLContext | None = None) -> None:
        self._script = list(script)
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.connections = 0
        self.heard: list[bytes] = []
        self.port = self._listener.getsockname()[1]
        self.idle = threading.Event()
        """Set when a connection has ended."""

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _begin(self, what: Any, *given: Any) -> None:  # noqa: ANN401 - passed on
        thread = threading.Thread(target=what, args=given, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                held, _ = self._listener.accept()
                self.connections += 1
                self._begin(self._serve, held)

    def _serve(self, held: socket.socket) -> None:
        with held, suppress(OSError), self._tls.wrap_socket(held, server_side=True) if self._tls else held as wire:
            while self._script:
                heard = b""
                while b"\r\n\r\n" not in heard or not _whole(heard):
                    if not (more := wire.recv(1 << 16)):
                        raise ConnectionResetError
                    heard += more
                self.heard.append(heard)
                told, ends = self._script.pop(0) or b"", self._script[:1] == [None]
                del self._script[: 1 if ends else 0]
                wire.sendall(told)
                if ends:
                    break
        self.idle.set()


def _whole(heard: bytes) -> bool:
    head, _, body = heard.partition(b"\r\n\r\n")
    sizes = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
    return len(body) >= sum(sizes)


def _connections(*, bundle: Path | None = None, kept: int = 4, patience: float = 10.0) -> Connections:
    return Connections(bundle=str(bundle), timeout=(300.0, patience), kept=kept)


def _send(
    connections: Connections,
    server: Server,
    *,
    method: str = "GET",
    body: bytes | list[Bytes] = b"",
    streamed: bool = False,
    scheme: str = "http",
    headers: dict[str, str] | None = None,
    once: bool = False,
) -> Answer:
    url = f"{scheme}://127.0.0.1:{server.port}/b/k%20?a=1"
    return connections.send(Request(method, url, headers=headers or {}, body=body, streamed=streamed, once=once))


def test_a_request_is_sent_whole_and_its_answer_is_read() -> None:
    """Request line, host, headers and body go out; status, headers under small names and content come back."""
    with Server(b"HTTP/1.1 404 Not Found\r\nX-Amz-A:  b\r\nContent-Length: 2\r\n\r\nno") as server:
        answer = _send(_connections(), server, method="PUT", body=b"body", headers={"Content-Length": "4", "A": "é"})
    assert (answer.status_code, answer.content, answer.headers["x-amz-a"]) == (404, b"no", "b")
    head, body = b"".join(server.heard).split(b"\r\n\r\n")
    assert body == b"body"
    first, *headers = head.split(b"\r\n")
    assert first == b"PUT /b/k%20?a=1 HTTP/1.1"
    assert sorted(headers) == [b"A: \xe9", b"Accept-Encoding: identity", b"Content-Length: 4", f"Host: 127.0.0.1:{server.port}".encode()]


def test_a_hook_may_change_the_headers() -> None:
    """What somebody does to a request's headers, in whatever case, is what is sent."""
    request = Request("HEAD", "http://127.0.0.1/", headers={"If-None-Match": "*", "A": "b"}, body=b"", streamed=False)
    del request.headers["if-none-match"]
    request.headers["C"] = "d"
    assert request.told == {"A": "b", "C": "d"}


def test_a_body_of_several_buffers_is_sent_from_them() -> None:
    """Bytes, byte arrays and views leave one after the other."""
    with Server(PLAIN) as server:
        pieces: list[Bytes] = [b"a" * 70_000, bytearray(b"b"), memoryview(b"c")]
        _send(_connections(), server, method="PUT", body=pieces, headers={"Content-Length": "70002"})
    assert server.heard[0].endswith(b"aabc")


@pytest.mark.parametrize(
    ("told", "content"),
    [
        (PLAIN, b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nX: y\r\n\r\n", b"abcd"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", b""),
    ],
)
def test_a_connection_serves_again(told: bytes, content: bytes) -> None:
    """Once an answer is read to its end the next request takes the same connection."""
    connections = _connections()
    with Server(told, told) as server:
        assert [_send(connections, server).content for _ in range(2)] == [content, content]
        assert server.connections == 1


@pytest.mark.parametrize(
    ("method", "told", "content"),
    [
        ("GET", PLAIN + b"?", b"ok"),
        ("GET", PLAIN + PLAIN, b"ok"),
        ("GET", PLAIN + b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nBAD\r\n0\r\n\r\n", b"ok"),
        ("GET", PLAIN + b"HTTP/1.1 408 No\r\nConnection: close\r\n\r\n", b"ok"),
        ("GET", PLAIN + b"HTTP/1.1 100 Continue\r\n\r\n", b"ok"),
        ("HEAD", PLAIN, b""),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2f\r\n", b""),
    ],
)
def test_what_follows_an_answer_is_no_answer_to_the_next_request(method: str, told: bytes, content: bytes) -> None:
    """Nor does it change the one that came; the connection, which the server leaves open, is not used again."""
    connections = _connections()
    with Server(told, PLAIN) as server:
        answer = _send(connections, server, method=method)
        assert (answer.status_code, answer.content) == (200, content)
        assert _send(connections, server).content == b"ok"
        assert server.connections == 2
        del answer, connections


@pytest.mark.parametrize(
    "told",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 400_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;" + b"x" * 400_000,
    ],
)
def test_what_has_no_end_is_given_up(told: bytes) -> None:
    """It would fill the memory."""
    with Server(told) as server, pytest.raises(NotHttp, match="has no end"):
        _send(_connections(), server)


def test_trailers_are_no_headers() -> None:
    """They come behind the body, from whoever made it up."""
    told = b"HTTP/1.1 200 OK\r\nETag: real\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nETag: fake\r\n\r\n"
    with Server(told) as server:
        answer = _send(_connections(), server)
    assert (answer.content, answer.headers["etag"]) == (b"ok", "real")


def test_an_answer_to_head_has_no_body() -> None:
    """It names the size of one; the connection serves again."""
    connections = _connections()
    with Server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", PLAIN) as server:
        answer = _send(connections, server, method="HEAD")
        assert (answer.content, answer.headers["content-length"]) == (b"", "2")
        assert _send(connections, server).content == b"ok"
        assert server.connections == 1


def test_a_streamed_body_comes_in_pieces_of_any_size() -> None:
    """What came with the head, and what comes behind it; chunked or of a known length."""
    whole = bytes(range(256)) * 1000
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (whole[:10], whole[10:100_000], whole[100_000:]))
    for told in (
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(whole), whole),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % chunked,
    ):
        connections = _connections()
        with Server(told, PLAIN) as server:
            body, buffer = _send(connections, server, streamed=True).raw, bytearray(70_000)
            came = body.read(7)
            while filled := body.readinto(memoryview(buffer)):
                assert filled == min(len(buffer), len(whole) - len(came))
                came += buffer[:filled]
            assert came == whole
            assert body.read(1) == b""
            assert _send(connections, server).content == b"ok"
            assert server.connections == 1


@pytest.mark.parametrize(
    ("method", "told", "content"),
    [
        ("GET", b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        ("GET", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        ("GET", b"HTTP/1.1 200 OK\r\n\r\nall until the end", b"all until the end"),
    ],
)
def test_a_connection_that_is_not_clean_serves_once(method: str, told: bytes, content: bytes) -> None:
    """What closes answers no second request."""
    connections = _connections()
    with Server(told, None, PLAIN) as server:
        assert _send(connections, server, method=method).content == content
        assert _send(connections, server).content == b"ok"
        assert server.connections == 2


def test_a_connection_that_was_closed_meanwhile_is_not_used() -> None:
    """A server may end an idle connection: the next request is sent on a new one, and does not fail."""
    connections = _connections()
    with Server(PLAIN, None, PLAIN) as server:
        _send(connections, server)
        assert server.idle.wait(10)
        assert _send(connections, server).content == b"ok"
        assert server.connections == 2


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
        b"HTTP/1.1 ok\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + PLAIN,
        b"HTTP/1.1 110 Wait\r\nContent-Length: 3\r\n\r\nBAD" + PLAIN,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: " + b"x" * 400_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n0\r\n\r\n",
        b"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 400_000,
    ],
)
def test_what_breaks_off_or_is_not_http_is_no_answer(told: bytes) -> None:
    """An answer that cannot be read to its end is an error, and its connection is not used again."""
    connections = _connections()
    with Server(told, None, PLAIN) as server:
        with pytest.raises(OSError):  # noqa: PT011 - any: boto3 is asked
            _send(connections, server)
        assert _send(connections, server).content == b"ok"


@pytest.mark.timeout(30)
def test_a_silent_server_is_not_waited_for_longer_than_the_timeout() -> None:
    """Without an answer in time there is none."""
    with Server(b"HTTP/1.1 200 OK\r\n", PLAIN) as server, pytest.raises(TimeoutError):
        _send(_connections(patience=0.2), server)


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb: c", "a\rb", "☃"])
def test_a_header_has_one_line(value: str) -> None:
    """No value can add a header to a request, whoever made it up; nothing is sent then."""
    with Server(PLAIN) as server:
        with pytest.raises(OSError):  # noqa: PT011 - any: boto3 is asked
            _send(_connections(), server, headers={"A": value})
        assert server.heard == []


def test_a_streamed_body_leaves_a_connection_that_serves_again() -> None:
    """A body is read as it comes; read to its end it frees its connection, given up before it ends it."""
    content = bytes(range(256)) * 1000
    told = b"HTTP/1.1 206 Partial\r\nContent-Length: 256000\r\n\r\n" + content
    connections = _connections()
    with Server(told, told, told, PLAIN) as server:
        for read in ([100_000, 100_000, 100_000], [None]):
            body = _send(connections, server, streamed=True).raw
            assert b"".join(body.read(size) for size in read) == content
            assert body.read(1) == b""
            body.close()
        assert server.connections == 1
        given_up = _send(connections, server, streamed=True).raw
        assert given_up.read(3) == content[:3]
        given_up.close()
        assert _send(connections, server).content == b"ok"
        assert server.connections == 2


def test_so_many_idle_connections_are_kept() -> None:
    """Of many connections that were used at once no more stay open than are to be kept."""
    connections = _connections(kept=2)
    told = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"
    with Server(*[told] * 8) as server:
        bodies = [_send(connections, server, streamed=True).raw for _ in range(4)]
        for body in bodies:
            body.read()
        more = [_send(connections, server, streamed=True).raw for _ in range(4)]
        assert server.connections == 6
        for body in more:
            body.close()


def test_connections_to_few_hosts_are_kept() -> None:
    """On AWS each bucket is a host of its own: those that were asked least recently are let go."""
    connections = _connections()
    with ExitStack() as ends:
        servers = [ends.enter_context(Server(PLAIN, PLAIN)) for _ in range(ORIGINS + 1)]
        for server in servers:
            _send(connections, server)
        assert servers[0].idle.wait(10)
        assert _send(connections, servers[-1]).content == b"ok"
        assert servers[-1].connections == 1
        # The servers end once nobody keeps a connection to them.
        del connections


def test_a_streamed_body_that_is_malformed_is_an_error_of_the_connection() -> None:
    """Whoever reads it need not know of this module's library."""
    told = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"
    with Server(told) as server, pytest.raises(ConnectionError):
        _send(_connections(), server, streamed=True).raw.readinto(memoryview(bytearray(9)))


def test_a_host_that_is_none_is_no_answer() -> None:
    """Its name has a label that is too long."""
    with pytest.raises(OSError):  # noqa: PT011 - any: boto3 is asked
        _connections().send(Request("GET", f"http://{'a' * 70}.test/", headers={}, body=b"", streamed=False))


def test_who_drops_everything_leaves_no_connection_open() -> None:
    """Connections that nobody keeps any more are closed, also where what held them was part of a cycle."""
    with Server(PLAIN, PLAIN) as server:
        connections: Any = _connections()
        _send(connections, server)
        connections.itself = connections
        del connections
        gc.collect()
        assert server.idle.wait(10)


def test_what_tls_holds_back_is_no_answer_to_the_next_request(tmp_path: Path) -> None:
    """Bytes behind an answer that came in one record with it lie in the TLS library, where the system does not see them."""
    stale = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale"
    # More than one record holds: the rest comes past the parser.
    body = b"x" * 20_000
    with _served(tmp_path / "one", "127.0.0.1", b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + body + stale, PLAIN) as (
        server,
        bundle,
    ):
        connections = _connections(bundle=bundle)
        raw = _send(connections, server, scheme="https", streamed=True).raw
        held = bytearray(len(body))
        assert raw.readinto(memoryview(held)) == len(body)
        assert held == body
        assert _send(connections, server, scheme="https").content == b"ok"


def test_a_server_proves_its_name(tmp_path: Path) -> None:
    """Over TLS a server is believed whose certificate is trusted and names it, and no other."""
    with _served(tmp_path / "right", "127.0.0.1") as (right, bundle), _served(tmp_path / "wrong", "127.0.0.2") as (wrong, wrong_bundle):
        assert _send(_connections(bundle=bundle), right, scheme="https").content == b"ok"
        for server, trusted in ((right, wrong_bundle), (wrong, wrong_bundle)):
            with pytest.raises(OSError, match=r"HTTP|certificate"):
                _send(_connections(bundle=trusted), server, scheme="https")
        assert wrong.heard == []


@contextmanager
def _served(directory: Path, address: str, *script: bytes) -> Iterator[tuple[Server, Path]]:
    """Gives a server with a certificate of its own for an address, and that as a bundle."""
    directory.mkdir()
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now - timedelta(hours=1), now + timedelta(hours=1)
    )
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
    certificate, private = directory / "certificate.pem", directory / "key.pem"
    certificate.write_bytes(made.sign(key, SHA256()).public_bytes(serialization.Encoding.PEM))
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    with Server(*(script or (PLAIN, PLAIN)), tls=context) as server:
        yield server, certificate


def test_what_is_sent_once_goes_over_a_connection_that_was_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has rested may be about to be closed: then nobody could say whether the request has arrived."""
    now = [100.0]
    monkeypatch.setattr("eft.adapters.aws_http.time.monotonic", lambda: now[0])
    with Server(PLAIN, PLAIN, PLAIN, PLAIN) as server:
        connections = _connections()
        _send(connections, server)
        now[0] += FRESH
        _send(connections, server, once=True)
        assert server.connections == 1
        now[0] += FRESH + 0.1
        _send(connections, server, once=True)
        assert server.connections == 2
        now[0] += FRESH + 0.1
        _send(connections, server)
        assert server.connections == 2


def test_what_never_left_is_known() -> None:
    """Nobody listens there; a connection that is cut later may have carried it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    with pytest.raises(NotSent):
        _connections().send(Request("PUT", url, headers={}, body=b"x", streamed=False, once=True))
    with Server(b"") as server, pytest.raises(OSError, match="HTTP") as error:
        _send(_connections(), server, once=True)
    assert not isinstance(error.value, NotSent)
