"""Posting to customers' addresses: whatever answers, or does not, and never inward."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from eft.adapters.webhooks import HttpsReceiver
from eft.errors import EftError, Permanent, Transient

PATIENCE = timedelta(seconds=10)
SHORT = timedelta(seconds=0.5)


class Site:
    """An HTTP server on this machine that answers as it is told, and keeps what it was sent."""

    def __init__(self, *, context: ssl.SSLContext | None = None) -> None:
        self.status, self.headers = 200, dict[str, str]()
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        site = self

        class Answering(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                site.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(site.status)
                for name, value in {"Content-Length": "0", **site.headers}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends it."""
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    """A server that answers 200."""
    with closing(Site()) as made:
        yield made


@pytest.fixture
def receiver() -> HttpsReceiver:
    """As in the local stack."""
    return HttpsReceiver(loopback=True)


def post(receiver: HttpsReceiver, url: str, *, patience: timedelta = PATIENCE) -> int:
    """Posts a little and returns the status."""
    return receiver.post(url, headers={"webhook-id": "x"}, body=b"{}", patience=patience).status


def test_a_post_arrives_whole(receiver: HttpsReceiver, site: Site) -> None:
    """Path, query, headers and body are what was asked for, and the host is the one named."""
    assert post(receiver, f"http://localhost:{site.port}/a/b?c=d") == 200
    ((path, headers, body),) = site.seen
    assert (path, headers["webhook-id"], headers["host"], body) == ("/a/b?c=d", "x", f"localhost:{site.port}", b"{}")


@pytest.mark.parametrize("status", [204, 400, 410, 500, 503])
def test_whatever_is_answered_is_returned(receiver: HttpsReceiver, site: Site, status: int) -> None:
    """Which answers are good is not the adapter's to say."""
    site.status = status
    assert post(receiver, f"http://127.0.0.1:{site.port}/") == status


@pytest.mark.parametrize(("said", "meant"), [("17", 17), ("999999999", 86400), ("Fri, 31 Dec 1999 23:59:59 GMT", None), ("-1", None)])
def test_a_pause_that_is_asked_for_is_returned(receiver: HttpsReceiver, site: Site, said: str, meant: int | None) -> None:
    """In seconds, at most a day; a date is not read."""
    site.status, site.headers = 503, {"Retry-After": said}
    answer = receiver.post(f"http://127.0.0.1:{site.port}/", headers={}, body=b"", patience=PATIENCE)
    assert answer.retry_after == (None if meant is None else timedelta(seconds=meant))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(receiver: HttpsReceiver, site: Site, status: int) -> None:
    """The answer is the redirect itself; nobody goes where it leads, inward least of all."""
    with closing(Site()) as inward:
        site.status, site.headers = status, {"Location": f"http://127.0.0.1:{inward.port}/secret"}
        assert post(receiver, f"http://127.0.0.1:{site.port}/") == status
        assert inward.seen == []


def test_nobody_listens(receiver: HttpsReceiver) -> None:
    """A refused connection is worth another try."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Transient) as told:
        post(receiver, f"http://127.0.0.1:{port}/")
    assert told.value.reason == "webhook_unreachable"


def silent(held: socket.socket) -> None:
    """Reads, and says nothing until the other side ends it."""
    while held.recv(4096):
        pass


def dripping(held: socket.socket) -> None:
    """Says a byte of an endless header every few milliseconds."""
    held.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        held.sendall(b"x")
        time.sleep(0.01)


def babbling(held: socket.socket) -> None:
    """Says what is no HTTP."""
    held.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * 10)
    held.shutdown(socket.SHUT_WR)
    silent(held)


@pytest.mark.parametrize(
    ("manner", "reason"), [(silent, "webhook_timeout"), (dripping, "webhook_timeout"), (babbling, "webhook_unreachable")]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_hostile_receiver_holds_nobody(
    receiver: HttpsReceiver, manner: Callable[[socket.socket], None], reason: str, scheme: str
) -> None:
    """Whatever it does instead of answering, it is left within the patience that was given, many times over on a busy machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            held, _ = server.accept()
            with held:
                try:
                    manner(held)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(Transient) as told:
            post(receiver, f"{scheme}://127.0.0.1:{server.getsockname()[1]}/", patience=SHORT if reason == "webhook_timeout" else PATIENCE)
        assert time.monotonic() - began < 30
        assert told.value.reason == reason if scheme == "http" else told.value.reason in {reason, "webhook_tls_failed"}


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fec0::1]",
        "[::ffff:0:7f00:1]",
        "2130706433",
        "0x7f.1",
    ],
)
def test_nothing_inward_is_posted_to(host: str) -> None:
    """Loopback, private, link-local, shared and multicast addresses are refused, in whatever notation, before anything is sent."""
    with pytest.raises(EftError) as told:
        HttpsReceiver().check(f"https://{host}/")
    assert told.value.reason in {"webhook_address_refused", "dns_failed"}
    with pytest.raises(EftError) as refused:
        post(HttpsReceiver(), f"https://{host}/")
    assert refused.value.reason == told.value.reason
    if host in {"127.0.0.1", "localhost", "169.254.169.254", "10.1.2.3"}:
        assert isinstance(told.value, Permanent)
        assert "no address of the public internet" in str(told.value)


def test_a_refusal_does_not_tell_what_a_name_stands_for() -> None:
    """Nobody looks up names of an inner network by naming them."""
    with pytest.raises(Permanent) as told:
        HttpsReceiver().check("https://localhost/")
    assert "localhost" in str(told.value)
    assert not {"127.0.0.1", "::1"} & set(str(told.value).replace(",", " ").split())


def test_with_loopback_allowed_only_loopback_is() -> None:
    """The setting of the local stack opens this machine, not its network."""
    receiver = HttpsReceiver(loopback=True)
    receiver.check("http://127.0.0.1:1/")
    for url in ("http://10.0.0.1/", "http://169.254.169.254/latest/meta-data", "https://192.168.0.1/", "http://9.9.9.9/"):
        with pytest.raises(Permanent) as told:
            receiver.check(url)
        assert told.value.reason == "webhook_address_refused"


@pytest.mark.parametrize(
    "url",
    [
        "http://9.9.9.9/",
        "ftp://9.9.9.9/",
        "file:///etc/passwd",
        "https:///nowhere",
        "https://user:secret@9.9.9.9/",
        "https://9.9.9.9:99999/",
        "https://9.9.9.9/#part",
        "https://9.9.9.9/a b",
        "https://9.9.9.9/\r\nX: y",
        "https://[9.9.9.9/",
        "nonsense",
    ],
)
def test_what_is_no_good_address_is_refused(url: str) -> None:
    """Only https, without a user's name, and nothing that could become a second header; the refusal shows no secret."""
    with pytest.raises(Permanent) as told:
        HttpsReceiver().check(url)
    assert told.value.reason == "webhook_address_refused"
    assert "secret" not in str(told.value)


def test_a_name_that_does_not_resolve_is_worth_another_try() -> None:
    """Names under .invalid never resolve (RFC 6761)."""
    with pytest.raises(Transient) as told:
        HttpsReceiver().check("https://nowhere.invalid/")
    assert told.value.reason == "dns_failed"


def test_the_address_that_was_judged_is_the_one_connected_to(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that points elsewhere the second time it is asked for is asked for once."""
    asked: list[object] = []
    real = socket.getaddrinfo

    def rebinding(host: object, port: int, *rest: object, **named: object) -> object:
        asked.append(host)
        if isinstance(host, str) and not host[0].isdigit():
            return real("127.0.0.1" if len(asked) == 1 else "127.0.0.2", port, type=socket.SOCK_STREAM)
        assert ipaddress.ip_address(str(host)) == ipaddress.ip_address("127.0.0.1")
        return real(str(host), port, type=socket.SOCK_STREAM)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    assert post(HttpsReceiver(loopback=True), f"http://rebinding.test:{site.port}/") == 200
    assert asked.count("rebinding.test") == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and its key for localhost, signed by nobody but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "localhost.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(Encoding.PEM),
    )
    return file


@pytest.fixture
def secure_site(certificate: Path) -> Iterator[Site]:
    """A server with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with closing(Site(context=context)) as made:
        yield made


def test_a_receiver_with_a_certificate_is_told(secure_site: Site, certificate: Path) -> None:
    """Over TLS, to the name that the certificate holds."""
    trusting = HttpsReceiver(loopback=True, context=ssl.create_default_context(cafile=str(certificate)))
    assert post(trusting, f"https://localhost:{secure_site.port}/") == 200
    with pytest.raises(Transient) as told:
        post(trusting, f"https://127.0.0.1:{secure_site.port}/")
    assert told.value.reason == "webhook_tls_failed"


def test_a_receiver_that_nobody_vouches_for_is_not_told(secure_site: Site) -> None:
    """Nothing is sent to whom no authority knows."""
    with pytest.raises(Transient) as told:
        post(HttpsReceiver(loopback=True), f"https://localhost:{secure_site.port}/")
    assert told.value.reason == "webhook_tls_failed"
    assert secure_site.seen == []
