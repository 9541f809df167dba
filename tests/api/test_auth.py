"""Who gets in: tokens of the issuer, for us, now; nothing else."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.server
import json
import logging
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.auth import AuthSettings, KeySet, Scope, Verifier
from api.errors import Problem
from api.openapi import routes
from tests.api.conftest import AUDIENCE, ISSUER, Client, Issuer, problem

PATH = "/v1/endpoints"


def encoded(part: object) -> str:
    """Returns one segment of a token."""
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims(**changes: object) -> dict[str, object]:
    """Returns claims that would do."""
    later = int((datetime.now(UTC) + timedelta(hours=1)).timestamp())
    return {"iss": ISSUER, "aud": AUDIENCE, "sub": "eve", "tenant": "acme", "scope": " ".join(Scope), "exp": later, **changes}


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_algorithms(app: Flask, issuer: Issuer, algorithm: str) -> None:
    """A token signed with any of the three algorithms, by a published key, is let in."""
    assert Client(app, issuer.token(algorithm)).get(PATH).status_code == 200


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "bearer"])
def test_no_token(stranger: Client, header: str | None) -> None:
    """Without a bearer token the answer is 401 with a challenge, and says how to send one."""
    answer = stranger.get(PATH, **({} if header is None else {"Authorization": header}))
    told = problem(answer, 401, "token_missing")
    assert "Authorization: Bearer" in told["detail"]
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="eft"'


def test_alg_none(app: Flask) -> None:
    """A token that says it needs no signature is refused."""
    for algorithm in ("none", "None", "NONE", ""):
        for signature in ("", "eA"):
            token = f"{encoded({'alg': algorithm, 'kid': 'eddsa'})}.{encoded(claims())}.{signature}"
            problem(Client(app, token).get(PATH), 401, "token_invalid")


@pytest.mark.parametrize("form", [PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1])
def test_public_key_as_hmac_secret(app: Flask, issuer: Issuer, form: PublicFormat) -> None:
    """A token signed by HMAC with the public key as its secret is refused."""
    key = issuer.keys["RS256"]
    assert isinstance(key, rsa.RSAPrivateKey)
    secret = key.public_key().public_bytes(Encoding.PEM, form)
    signed = f"{encoded({'alg': 'HS256', 'kid': 'rs256', 'typ': 'JWT'})}.{encoded(claims())}"
    signature = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    problem(Client(app, f"{signed}.{encoded(signature)}").get(PATH), 401, "token_invalid")


def test_algorithm_of_another_key(app: Flask, issuer: Issuer) -> None:
    """A key counts only for its own algorithm: RS256 named with the EC key's id is refused, and RS384 with the right key too."""
    token = issuer.token("RS256", kid="es256")
    problem(Client(app, token).get(PATH), 401, "token_invalid")
    stronger = jwt.encode(claims(), issuer.keys["RS256"], algorithm="RS384", headers={"kid": "rs256"})
    problem(Client(app, stronger).get(PATH), 401, "token_invalid")


@pytest.mark.parametrize(
    ("changes", "reason", "why"),
    [
        ({"exp": datetime.now(UTC) - timedelta(minutes=5)}, "token_expired", "expired"),
        ({"exp": None}, "token_invalid", "lacks the claim exp"),
        ({"nbf": datetime.now(UTC) + timedelta(hours=5)}, "token_invalid", "not valid yet"),
        ({"aud": "someone-else"}, "token_invalid", "another audience"),
        ({"aud": None}, "token_invalid", "lacks the claim aud"),
        ({"iss": "https://evil.test/"}, "token_invalid", "another issuer"),
        ({"iss": None}, "token_invalid", "lacks the claim iss"),
        ({"exp": "soon"}, "token_invalid", "does not verify"),
        ({"sub": 5}, "token_invalid", "does not verify"),
    ],
)
def test_claims(app: Flask, issuer: Issuer, changes: dict[str, Any], reason: str, why: str) -> None:
    """Expired, not yet valid, for another audience, of another issuer, or without those claims: 401 that says which."""
    answer = Client(app, issuer.token(**changes)).get(PATH)
    assert why in problem(answer, 401, reason)["detail"]
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="eft", error="invalid_token"')


def test_leeway(app: Flask, issuer: Issuer) -> None:
    """A clock that is off by some seconds shuts nobody out."""
    token = issuer.token(exp=datetime.now(UTC) - timedelta(seconds=5), nbf=datetime.now(UTC) + timedelta(seconds=5))
    assert Client(app, token).get(PATH).status_code == 200


def test_unknown_key(app: Flask, issuer: Issuer) -> None:
    """A token signed by a key that the issuer does not publish is refused, whatever key id it names."""
    forged = ed25519.Ed25519PrivateKey.generate()
    for kid in ("eddsa", "unknown"):
        token = jwt.encode(claims(), forged, algorithm="EdDSA", headers={"kid": kid})
        problem(Client(app, token).get(PATH), 401, "token_invalid")
    problem(Client(app, jwt.encode(claims(), forged, algorithm="EdDSA")).get(PATH), 401, "token_invalid")


def test_crit(app: Flask, issuer: Issuer) -> None:
    """A token whose header demands that something be understood is refused (RFC 7515, section 4.1.11)."""
    token = jwt.encode(claims(), issuer.keys["EdDSA"], algorithm="EdDSA", headers={"kid": "eddsa", "crit": ["exp"]})
    problem(Client(app, token).get(PATH), 401, "token_invalid")


def test_changed_claims(app: Flask, issuer: Issuer) -> None:
    """A token whose claims were changed after it was signed is refused."""
    header, _, signature = issuer.token(tenant="other").split(".")
    problem(Client(app, f"{header}.{encoded(claims(tenant='acme'))}.{signature}").get(PATH), 401, "token_invalid")


@pytest.mark.parametrize("tenant", [None, "", "ACME", "a b", "a/b", "a#b", "-", "x" * 64, 5, ["acme"], {"acme": 1}])
def test_tenant_claim(app: Flask, issuer: Issuer, tenant: object) -> None:
    """A token without a usable tenant is refused: the tenant is part of keys of rows and names of secrets."""
    problem(Client(app, issuer.token(tenant=tenant)).get(PATH), 403, "tenant_missing")


def test_scope_as_list(app: Flask, issuer: Issuer) -> None:
    """Scopes may come as a list, as some issuers write them; anything but texts in it allows nothing."""
    assert Client(app, issuer.token(scope=["endpoints:read", 5])).get(PATH).status_code == 200
    problem(Client(app, issuer.token(scope={"endpoints:read": True})).get(PATH), 403, "scope_missing")
    problem(Client(app, issuer.token(scope=None)).get(PATH), 403, "scope_missing")


def test_missing_scope_names_it(app: Flask, issuer: Issuer) -> None:
    """A token without the scope gets 403 that names the scope, in words and in the challenge (RFC 6750, section 3.1)."""
    reader = Client(app, issuer.token(scopes=["endpoints:read", "endpoints:writer", "ENDPOINTS:WRITE"]))
    answer = reader.post(PATH, {})
    assert "endpoints:write" in problem(answer, 403, "scope_missing")["detail"]
    assert 'error="insufficient_scope", scope="endpoints:write"' in answer.headers["WWW-Authenticate"]


def test_every_route_asks_for_a_token(app: Flask, stranger: Client) -> None:
    """Every route but health and documentation answers 401 to a request without a token, also to HEAD and OPTIONS."""
    public = {"/", "/docs", "/docs/<name>", "/v1/openapi.json", "/v1/health/live", "/v1/health/ready"}
    found = list(routes(app))
    assert {path for path, _, view in found if view.contract.scope is None} == public
    for rule, method, view in found:
        path = rule.replace("<id:", "<").replace("<", "").replace(">", "")
        answers = [stranger.send(verb, path) for verb in (method.upper(), "OPTIONS")]
        if view.contract.scope is None:
            assert answers[0].status_code != 401, rule
        else:
            assert [a.status_code for a in answers] == [401, 401], rule


def test_every_route_asks_for_its_scope(app: Flask, issuer: Issuer) -> None:
    """Every route refuses a token that has all scopes but the one it needs; reading never asks for a write scope."""
    for rule, method, view in routes(app):
        scope = view.contract.scope
        if scope is None:
            continue
        path = rule.replace("<id:", "<").replace("<", "").replace(">", "")
        all_others = [each for each in Scope if each is not scope]
        problem(Client(app, issuer.token(scopes=all_others)).send(method.upper(), path), 403, "scope_missing")
        if scope is not Scope.OPERATOR:
            # A plan is asked for with a body, and changes nothing.
            assert scope.endswith(":read") is (method == "get" or rule.endswith("/plan")), rule


def test_route_without_contract(app: Flask, acme: Client, stranger: Client) -> None:
    """A route that somebody adds without a contract asks for a token all the same, and the drift test above cannot pass over it."""
    app.add_url_rule("/v1/forgotten", view_func=lambda: "seen", endpoint="forgotten")
    assert stranger.get("/v1/forgotten").status_code == 401
    assert acme.get("/v1/forgotten").status_code == 200
    with pytest.raises(TypeError, match="without a contract"):
        list(routes(app))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.text(alphabet=st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=200),
        st.tuples(
            st.dictionaries(
                st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jku", "jwk", "x5u"]), st.none() | st.text() | st.booleans()
            ),
            st.dictionaries(st.text(), st.none() | st.integers() | st.text()),
            st.binary(max_size=80),
        ).map(lambda t: ".".join(encoded(part) for part in t)),
    )
)
def test_any_rubbish(app: Flask, token: str) -> None:
    """No token that the issuer did not sign gets in, and none causes anything but a 401."""
    assert Client(app, None).get(PATH, Authorization=f"Bearer {token}").status_code == 401


def test_long_token(app: Flask) -> None:
    """A token of more than 8 KiB is refused before anything is decoded."""
    assert "longer" in problem(Client(app, "a" * 8193).get(PATH), 401, "token_invalid")["detail"]


def test_token_never_in_log(app: Flask, issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    """The log has one line per request, with who asked what and the outcome, and never a token."""
    token = issuer.token()
    with caplog.at_level(logging.DEBUG):
        answer = Client(app, token).get(f"{PATH}?cursor=s3cr3t", X_Request_Id="my-request.1")
    lines = [vars(record) for record in caplog.records if record.message == "request"]
    assert len(lines) == 1
    wanted = {"method": "GET", "path": PATH, "status": answer.status_code, "tenant": "acme", "by": "ada"}
    assert wanted.items() <= lines[0].items()
    everything = json.dumps([vars(record) for record in caplog.records], default=repr)
    assert token not in everything
    assert token.split(".")[2] not in everything
    assert "s3cr3t" not in everything
    assert answer.headers["X-Request-Id"] == "my-request.1"


# -- the issuer's keys ---------------------------------------------------------------------------------------------------


class Ticking:
    """A monotonic clock that tests set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def key_set(file: Path | str, clock: Ticking) -> KeySet:
    """Returns a key set over a file."""
    return KeySet(AuthSettings(issuer=ISSUER, audience=AUDIENCE, jwks=str(file)), monotonic=clock)


def test_rotation(issuer: Issuer) -> None:
    """A key published later is found when a token names it, but the document is looked at no more than once in 30 seconds."""
    clock = Ticking()
    keys = key_set(issuer.file, clock)
    assert keys.key("eddsa") is not None
    issuer.keys["ES384-not"] = ec.generate_private_key(ec.SECP256R1())
    document = {"keys": [issuer.public("EdDSA"), {**issuer.public("ES384-not"), "alg": "ES256", "kid": "new"}]}
    issuer.file.write_text(json.dumps(document))
    assert keys.key("new") is None
    clock.now += 29
    assert keys.key("new") is None
    clock.now += 2
    assert keys.key("new") is not None
    assert keys.key("rs256") is None


def test_key_withdrawn(issuer: Issuer) -> None:
    """A key that the issuer withdraws stops counting once the cache is old."""
    clock = Ticking()
    keys = key_set(issuer.file, clock)
    assert keys.key("rs256") is not None
    del issuer.keys["RS256"]
    issuer.publish()
    assert keys.key("rs256") is not None
    clock.now += timedelta(minutes=11).total_seconds()
    assert keys.key("rs256") is None


@pytest.mark.parametrize(
    "rubbish", ["", "{", "[]", "5", '{"keys": []}', '{"keys": 5}', '{"keys": [5, {}]}', '{"keys": [{"kty": "RSA", "kid": "x"}]}']
)
def test_keys_lost(issuer: Issuer, rubbish: str) -> None:
    """When the document turns bad, the keys known so far go on counting."""
    clock = Ticking()
    keys = key_set(issuer.file, clock)
    assert keys.ready()
    issuer.file.write_text(rubbish)
    clock.now += timedelta(hours=1).total_seconds()
    assert keys.key("eddsa") is not None


def test_no_keys_yet(issuer: Issuer, tmp_path: Path) -> None:
    """Without any keys the answer is 503, not 401, and they are found as soon as they are there."""
    clock = Ticking()
    file = tmp_path / "later.json"
    keys = key_set(file, clock)
    assert not keys.ready()
    with pytest.raises(Problem) as caught:
        keys.key("eddsa")
    assert caught.value.status == 503
    assert caught.value.reason == "keys_unavailable"
    file.write_bytes(issuer.file.read_bytes())
    clock.now += 2
    assert keys.key("eddsa") is not None


def test_keys_left_out(issuer: Issuer) -> None:
    """Symmetric keys, private ones, keys for encryption and keys without an id never count."""
    good = issuer.public("EdDSA")
    secret = {"kty": "oct", "kid": "oct", "alg": "HS256", "k": encoded(b"x" * 32)}
    private = {**good, "kid": "private", "d": encoded(b"x" * 32)}
    sealing = {**good, "kid": "sealing", "use": "enc"}
    nameless = {name: value for name, value in good.items() if name != "kid"}
    issuer.file.write_text(json.dumps({"keys": [secret, private, sealing, nameless, good]}))
    keys = key_set(issuer.file, Ticking())
    assert keys.key("eddsa") is not None
    assert [keys.key(kid) for kid in ("oct", "private", "sealing")] == [None, None, None]


def test_small_rsa_key(issuer: Issuer) -> None:
    """A token signed with an RSA key of 1024 bits is refused, even if the issuer publishes the key."""
    issuer.keys["RS256"] = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - that is the point
    issuer.publish()
    verifier = Verifier(AuthSettings(issuer=ISSUER, audience=AUDIENCE, jwks=str(issuer.file)))
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = issuer.token("RS256")
    with pytest.raises(Problem, match="does not verify"):
        verifier.caller(f"Bearer {token}")


def test_one_look_for_many(issuer: Issuer) -> None:
    """Many requests at once that find no keys cause one look at the document and are all served."""
    looks: list[None] = []

    class Counting(KeySet):
        def _read(self) -> object:
            looks.append(None)
            return super()._read()

    keys = Counting(AuthSettings(issuer=ISSUER, audience=AUDIENCE, jwks=f"file://{issuer.file}"))
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(keys.key("eddsa"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert all(found)
    assert len(looks) == 1


@pytest.mark.parametrize("jwks", ["http://issuer.test/keys", "http://10.0.0.1/keys", "http://localhost.evil.test/keys"])
def test_keys_over_plain_http(jwks: str) -> None:
    """Keys are not read over plain HTTP, but from this machine itself."""
    with pytest.raises(ValueError, match="https"):
        AuthSettings(issuer=ISSUER, audience=AUDIENCE, jwks=jwks)
    AuthSettings(issuer=ISSUER, audience=AUDIENCE, jwks="http://127.0.0.1:1/keys")
    AuthSettings(issuer=ISSUER, audience=AUDIENCE, jwks="http://localhost:1/keys")


class Documents(http.server.BaseHTTPRequestHandler):
    """Serves the issuer's document, a redirect to it, and one without end."""

    document: ClassVar[bytes] = b""

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/keys")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        if self.path == "/keys":
            self.wfile.write(self.document)
            return
        with contextlib.suppress(OSError):
            for _ in range(1000):
                self.wfile.write(b" " * 65536)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Says nothing."""


@pytest.mark.enable_socket
def test_keys_by_address(issuer: Issuer) -> None:
    """Keys are read from an address; a redirect is not followed, and a document without end is given up."""
    Documents.document = issuer.file.read_bytes()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Documents) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            base = f"http://127.0.0.1:{server.server_port}"
            assert key_set(f"{base}/keys", Ticking()).key("eddsa") is not None
            assert not key_set(f"{base}/moved", Ticking()).ready()
            assert not key_set(f"{base}/endless", Ticking()).ready()
        finally:
            server.shutdown()
            thread.join()
    assert not key_set(f"{base}/keys", Ticking()).ready()
