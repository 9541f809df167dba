"""Endpoints: onboarded with their credential, tested, pinned, changed by version, removed when nothing uses them."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from eft.domain.endpoint import Credential, Endpoint, HostKey, SecretRef, SftpEndpoint
from eft.errors import Conflict, Permanent, Transient
from eft.ports import Check, ProbeReport
from tests.api.conftest import Client, fields, problem
from tests.fake_store import NOT_LENT
from tests.world import World

PATH = "/v1/endpoints"
# A real Ed25519 host key and a real RSA one, public parts.
ED25519 = {"algorithm": "ssh-ed25519", "key": "AAAAC3NzaC1lZDI1NTE5AAAAIDlFQ0oYBMkzBmdiWNRxDpVxNH1y8zq8NQMtOoxZWM7X"}
OTHER = {"algorithm": "ssh-ed25519", "key": "AAAAC3NzaC1lZDI1NTE5AAAAIAbcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ"}


def sftp(**changes: object) -> dict[str, Any]:
    """Returns an SFTP endpoint to onboard; a change of None leaves the field out."""
    whole = {
        "kind": "sftp",
        "name": "Bank, incoming",
        "host": "sftp.bank.test",
        "username": "acme",
        "root": "/outbox",
        "credential": {"password": "correct horse"},
        **changes,
    }
    return {name: value for name, value in whole.items() if value is not None}


def s3(**changes: object) -> dict[str, Any]:
    """Returns an S3 endpoint to onboard."""
    whole = {"kind": "s3", "name": "Lake", "bucket": "acme-lake", "prefix": "in", "region": "us-gov-west-1", **changes}
    return {name: value for name, value in whole.items() if value is not None}


def onboard(client: Client, body: dict[str, Any]) -> dict[str, Any]:
    """Onboards an endpoint and returns it."""
    answer = client.post(PATH, body)
    assert answer.status_code == 201, answer.text
    shown: dict[str, Any] = json.loads(answer.data)
    return shown


def secret_of(world: World, endpoint_id: str, *, tenant: str = "acme") -> Credential:
    """Returns the credential that the secrets store holds for an endpoint."""
    ref = world.registry.endpoint(tenant, endpoint_id).secret
    assert ref is not None
    return world.secrets.get(ref)


def test_onboard_sftp(acme: Client, world: World, private_key: Callable[..., str]) -> None:
    """An SFTP endpoint is kept with every field given, its credential goes to the secrets store, and the answer shows all but that."""
    key = private_key(passphrase="open sesame")
    credential = {"password": "correct horse", "private_key": key, "passphrase": "open sesame"}
    answer = acme.post(PATH, sftp(port=2222, host_keys=[ED25519], rename="plain", max_connections=3, credential=credential))
    assert answer.status_code == 201
    shown = answer.get_json()
    assert answer.headers["Location"] == f"{PATH}/{shown['id']}"
    assert answer.headers["ETag"] == '"1"'
    assert shown == {
        "id": shown["id"],
        "kind": "sftp",
        "name": "Bank, incoming",
        "host": "sftp.bank.test",
        "port": 2222,
        "username": "acme",
        "root": "/outbox",
        "host_keys": [{**ED25519, "fingerprint": HostKey(**ED25519).fingerprint}],
        "rename": "plain",
        "max_connections": 3,
        "bandwidth": [],
        "has_credential": True,
        "revision": 1,
        "created": "2025-01-06T09:00:00Z",
        "warnings": [],
    }
    kept = secret_of(world, shown["id"])
    assert kept.password == SecretStr("correct horse")
    assert kept.private_key == SecretStr(key)
    assert kept.passphrase == SecretStr("open sesame")
    assert acme.get(answer.headers["Location"]).get_json() == shown


def test_onboard_s3(acme: Client, world: World) -> None:
    """An S3 endpoint needs no credential; a static key, a role, an encryption key and another address are kept when given."""
    plain = onboard(acme, s3())
    assert plain["has_credential"] is False
    assert world.registry.endpoint("acme", plain["id"]).secret is None
    extra = {
        "role_arn": "arn:aws-us-gov:iam::123456789012:role/eft/reader",
        "kms_key": "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/1234-ab",
        "endpoint_url": "https://minio.acme.test:9000",
        "refuses_taken": True,
    }
    static = {"access_key_id": "AKIA1", "secret_access_key": "shh", "session_token": "tok"}
    shown = onboard(acme, s3(bucket="other-lake", credential=static, **extra))
    assert extra.items() <= shown.items()
    kept = secret_of(world, shown["id"])
    assert (kept.access_key_id, kept.secret_access_key, kept.session_token) == tuple(SecretStr(v) for v in static.values())


def test_a_bucket_that_is_not_lent_needs_a_credential(acme: Client, world: World) -> None:
    """Onboarding and changing an endpoint tell at once that the engine's own role does not open a bucket, and what to give instead."""
    static = {"access_key_id": "AKIA1", "secret_access_key": "shh"}
    refused = acme.post(PATH, s3(bucket=NOT_LENT))
    assert (refused.status_code, [error["field"] for error in refused.get_json()["errors"]]) == (422, ["/credential"])
    made = onboard(acme, s3(bucket=NOT_LENT, credential=static))
    where, etag = f"{PATH}/{made['id']}", {"if_match": '"1"'}
    for change in ({"credential": None}, {"credential": None, "prefix": "x"}):
        assert acme.patch(where, change, **etag).status_code == 422
    assert secret_of(world, made["id"]).access_key_id == SecretStr("AKIA1")
    assert acme.patch(where, {"credential": {**static, "access_key_id": "AKIA2"}}, **etag).status_code == 200
    plain = onboard(acme, s3())
    assert acme.patch(f"{PATH}/{plain['id']}", {"bucket": NOT_LENT}, **etag).status_code == 422
    assert acme.patch(f"{PATH}/{plain['id']}", {"bucket": NOT_LENT, "credential": static}, **etag).status_code == 200


def test_secret_nowhere(acme: Client, world: World, caplog: pytest.LogCaptureFixture, private_key: Callable[..., str]) -> None:
    """No answer, row or log line holds any part of a credential, neither when it is accepted nor when it is refused."""
    key = private_key(passphrase="s3cr3t-phrase")
    good = {"password": "s3cr3t-word", "private_key": key, "passphrase": "s3cr3t-phrase"}
    bad: list[dict[str, Any]] = [
        sftp(credential={**good, "passphrase": "s3cr3t-wrong"}),
        sftp(credential={**good, "extra": "s3cr3t-extra"}),
        sftp(credential={"password": ["s3cr3t-list"]}),
        sftp(credential="s3cr3t-text"),
        sftp(credential={"private_key": "s3cr3t-no-key"}),
        sftp(credential=good, port="s3cr3t-port"),
        s3(credential={"access_key_id": "s3cr3t-id"}),
        s3(credential={"access_key_id": "s3cr3t-id", "secret_access_key": 5}),
        s3(endpoint_url="https://user:s3cr3t-url@minio.test"),
    ]
    with caplog.at_level(logging.DEBUG):
        answers = [acme.post(PATH, sftp(credential=good))]
        shown = answers[0].get_json()
        answers += [acme.post(PATH, body) for body in bad]
        answers += [acme.get(PATH), acme.get(f"{PATH}/{shown['id']}")]
        world.secrets.trip("put", Permanent("no", reason="secret_denied"))
        answers.append(acme.post(PATH, sftp(credential=good)))
        world.secrets.trip("put", RuntimeError("s3cr3t-word in a bug"))
        answers.append(acme.post(PATH, sftp(credential=good)))
    assert [a.status_code for a in answers] == [201, *[422] * len(bad), 200, 200, 503, 500]
    logged = json.dumps([vars(record) for record in caplog.records], default=repr)
    row = world.registry.endpoint("acme", shown["id"])
    for text in (*(a.text for a in answers), logged, row.model_dump_json(), repr(row)):
        assert "s3cr3t" not in text
        assert key.splitlines()[1] not in text


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": None}, "/name"),
        ({"name": ""}, "/name"),
        ({"name": "x" * 121}, "/name"),
        ({"name": "two\nlines"}, "/name"),
        ({"name": 5}, "/name"),
        ({"host": None}, "/host"),
        ({"host": ""}, "/host"),
        ({"host": "a b"}, "/host"),
        ({"host": "evil.test/path"}, "/host"),
        ({"host": "-oProxyCommand=x"}, "/host"),
        ({"host": "x" * 254}, "/host"),
        ({"host": "169.254.169.254"}, "/host"),
        ({"host": "2852039166"}, "/host"),
        ({"host": "fe80::1"}, "/host"),
        ({"port": 0}, "/port"),
        ({"port": 65536}, "/port"),
        ({"port": "22"}, "/port"),
        ({"port": 22.5}, "/port"),
        ({"port": True}, "/port"),
        ({"username": ""}, "/username"),
        ({"username": "a\x00b"}, "/username"),
        ({"root": "/a/../b"}, "/root"),
        ({"root": "/a\x00b"}, "/root"),
        ({"root": "/" + "x" * 256}, "/root"),
        ({"rename": "sometimes"}, "/rename"),
        ({"max_connections": 0}, "/max_connections"),
        ({"max_connections": 257}, "/max_connections"),
        ({"tenant": "other"}, "/tenant"),
        ({"secret": {"name": "eft/other/x"}}, "/secret"),
        ({"id": "mine"}, "/id"),
        ({"bucket": "b"}, "/bucket"),
        ({"host_keys": [{"algorithm": "ssh-ed25519", "key": "!!"}]}, "/host_keys/0/key"),
        ({"host_keys": [{"algorithm": "ssh-rsa", "key": ED25519["key"]}]}, "/host_keys/0"),
        ({"host_keys": [ED25519, {"algorithm": "ssh-ed25519"}]}, "/host_keys/1/key"),
        ({"host_keys": ED25519}, "/host_keys"),
        ({"host_keys": [ED25519] * 21}, "/host_keys"),
        ({"credential": None}, "/credential"),
        ({"credential": {}}, "/credential"),
        ({"credential": "password"}, "/credential"),
        ({"credential": {"password": ""}}, "/credential/password"),
        ({"credential": {"password": 5}}, "/credential/password"),
        ({"credential": {"passphrase": "x", "password": "y"}}, "/credential"),
        ({"credential": {"private_key": "x"}}, "/credential"),
        ({"credential": {"access_key_id": "a", "secret_access_key": "b"}}, "/credential/access_key_id"),
        ({"kind": None}, "/kind"),
        ({"kind": "ftp"}, "/kind"),
        ({"kind": 5}, "/kind"),
    ],
)
def test_bad_sftp(acme: Client, world: World, changes: dict[str, Any], field: str) -> None:
    """Each bad value is refused with 422 that names its field and says what is wrong; nothing is kept."""
    told = problem(acme.post(PATH, sftp(**changes)), 422, "request_invalid")
    assert field in fields(told)
    assert all(error["message"] and error["where"] == "body" for error in told["errors"])
    assert world.secrets.calls["put"] == 0
    assert len(world.registry.endpoints("acme").items) == 4


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"bucket": "A"}, "/bucket"),
        ({"bucket": "a..b/c"}, "/bucket"),
        ({"prefix": "a/../b"}, "/prefix"),
        ({"prefix": 5}, "/prefix"),
        ({"region": ""}, "/region"),
        ({"region": "us-gov-west-1/../x"}, "/region"),
        ({"role_arn": "arn:aws:s3:::x"}, "/role_arn"),
        ({"role_arn": "arn:aws:iam::123456789012:role/x\ny"}, "/role_arn"),
        ({"endpoint_url": "ftp://x"}, "/endpoint_url"),
        ({"endpoint_url": "https://user:password@minio.test"}, "/endpoint_url"),
        ({"endpoint_url": "https://minio.test/path"}, "/endpoint_url"),
        ({"endpoint_url": "https://minio.test:99999"}, "/endpoint_url"),
        ({"endpoint_url": "https://minio.test:0"}, "/endpoint_url"),
        ({"endpoint_url": "https://mi_nio.test"}, "/endpoint_url"),
        ({"endpoint_url": "https://mi\0nio.test"}, "/endpoint_url"),
        ({"endpoint_url": "https://münio.test"}, "/endpoint_url"),
        ({"endpoint_url": "https://[::1"}, "/endpoint_url"),
        ({"endpoint_url": "https://[nonsense]"}, "/endpoint_url"),
        ({"endpoint_url": "http://169.254.169.254"}, "/endpoint_url"),
        ({"endpoint_url": "http://2852039166"}, "/endpoint_url"),
        ({"endpoint_url": "http://0xa9.0376.43518"}, "/endpoint_url"),
        ({"endpoint_url": "http://[::ffff:169.254.170.2]:80"}, "/endpoint_url"),
        ({"endpoint_url": "http://[fe80::1]"}, "/endpoint_url"),
        ({"endpoint_url": "http://0.0.0.0:9000"}, "/endpoint_url"),
        ({"kms_key": "a b"}, "/kms_key"),
        ({"credential": {"access_key_id": "a"}}, "/credential/secret_access_key"),
        ({"credential": {"password": "x"}}, "/credential/password"),
        ({"host": "x"}, "/host"),
    ],
)
def test_bad_s3(acme: Client, changes: dict[str, Any], field: str) -> None:
    """Each bad value of an S3 endpoint is refused with 422 that names its field."""
    assert field in fields(problem(acme.post(PATH, s3(**changes)), 422, "request_invalid"))


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9000", "https://[2001:db8::1]:9000", "https://10.0.0.7/", "https://minio", "https://a-b.minio.test:443"]
)
def test_a_stores_address(acme: Client, address: str) -> None:
    """Names and addresses of stores are taken as they are written, private ones too."""
    assert onboard(acme, s3(endpoint_url=address))["endpoint_url"] == address


def test_private_keys(acme: Client, private_key: Callable[..., str]) -> None:
    """Ed25519, ECDSA and RSA keys are taken, in OpenSSH and PEM text, with and without passphrase."""
    for name in ("EdDSA", "ES256", "RS256"):
        for pem in (False, True):
            for passphrase in (None, "open sesame"):
                credential = {"private_key": private_key(name, pem=pem, passphrase=passphrase)}
                if passphrase is not None:
                    credential["passphrase"] = passphrase
                onboard(acme, sftp(host=f"{name}.test".lower(), credential=credential))


@pytest.mark.parametrize("pem", [False, True])
def test_passphrase(acme: Client, private_key: Callable[..., str], pem: bool) -> None:
    """A missing passphrase, one too many and, for OpenSSH text, a wrong one are told at once."""

    def refused(credential: dict[str, str]) -> str:
        told = problem(acme.post(PATH, sftp(credential=credential)), 422, "request_invalid")
        assert fields(told) == ["/credential"]
        message: str = told["errors"][0]["message"]
        return message

    locked, bare = private_key(passphrase="right", pem=pem), private_key(pem=pem)
    assert "give its passphrase" in refused({"private_key": locked})
    assert "leave the passphrase out" in refused({"private_key": bare, "passphrase": "any"})
    if not pem:
        assert "does not open" in refused({"private_key": locked, "passphrase": "wrong"})
    assert "no OpenSSH or PEM" in refused({"private_key": bare[: len(bare) // 2]})


def test_expensive_key(acme: Client, private_key: Callable[..., str]) -> None:
    """A key that asks for very many bcrypt rounds is refused without being opened: that work would be ours."""
    head, body, tail = (
        private_key(passphrase="x").partition("\n")[0],
        *private_key(passphrase="x").strip().split("\n", 1)[1].rsplit("\n", 1),
    )
    raw = bytearray(base64.b64decode("".join(body.split())))
    at = raw.index(b"bcrypt") + len(b"bcrypt") + 4 + 4 + 16
    raw[at : at + 4] = (2**31).to_bytes(4, "big")
    costly = "\n".join([head, base64.b64encode(bytes(raw)).decode(), tail])
    told = problem(acme.post(PATH, sftp(credential={"private_key": costly, "passphrase": "x"})), 422, "request_invalid")
    assert "rounds" in told["errors"][0]["message"]


def test_listing(acme: Client, other: Client) -> None:
    """A list shows a tenant's own endpoints, page by page, each once; another tenant's list is empty."""
    made = {onboard(acme, s3(bucket=f"bucket-{n}"))["id"] for n in range(5)}
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = acme.get(f"{PATH}?limit=2" + (f"&cursor={cursor}" if cursor else "")).get_json()
        assert len(page["items"]) <= 2
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert len(seen) == len(set(seen)) == 9
    assert made < set(seen)
    assert other.get(PATH).get_json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("limt=5", "limt"),
        ("limit=1&limit=2", "limit"),
        ("cursor=", "cursor"),
        ("cursor=x", "cursor"),
    ],
)
def test_bad_query(acme: Client, query: str, field: str) -> None:
    """A bad, unknown or doubled query parameter, or a cursor that is none, is refused with 422 that names it."""
    answer = acme.get(f"{PATH}?{query}")
    assert answer.status_code == 422
    told = answer.get_json()
    assert fields(told) == [field]
    assert told["errors"][0]["where"] == "query"


def test_overlap_warnings(acme: Client, other: Client) -> None:
    """Onboarding the same server and path again, or a path within another, warns and names the other; elsewhere, or for others, nothing."""

    def warned(body: dict[str, Any]) -> list[str]:
        return [w["endpoint"] for w in onboard(acme, body)["warnings"]]

    first = onboard(acme, sftp())
    assert first["warnings"] == []
    assert warned(sftp(host="SFTP.bank.test.", username="another")) == [first["id"]]
    assert warned(sftp(port=2222)) == []
    assert warned(sftp(host="other.bank.test")) == []
    assert warned(sftp(root="/outbox2")) == []
    assert warned(sftp(root="outbox")) == []
    assert first["id"] in warned(sftp(root="/outbox/daily"))
    assert first["id"] in warned(sftp(root="/"))
    bucket = onboard(acme, s3())
    assert warned(s3(prefix="in/")) == [bucket["id"]]
    assert warned(s3(prefix="inbox")) == []
    assert warned(s3(endpoint_url="https://minio.test")) == []
    assert bucket["id"] in warned(s3(prefix=""))
    text = onboard(acme, sftp())["warnings"][0]
    assert text["reason"] == "endpoint_overlaps"
    assert first["id"] in text["message"] or text["endpoint"] != first["id"]
    assert onboard(other, sftp())["warnings"] == []


def test_others_do_not_exist(acme: Client, other: Client, world: World) -> None:
    """Another tenant's endpoint answers 404 to everything, exactly as one that does not exist, and stays as it is."""
    mine = onboard(acme, sftp())
    for id_ in (mine["id"], "ep-unknown"):
        base = f"{PATH}/{id_}"
        answers = [
            other.get(base),
            other.patch(base, {"name": "x"}, If_Match='"1"'),
            other.patch(base, {"name": "x"}),
            other.delete(base),
            other.post(f"{base}/test"),
            other.post(f"{base}/host-keys", {"host_keys": [ED25519]}),
        ]
        for answer in answers:
            problem(answer, 404, "endpoint_unknown")
    assert world.registry.endpoint("acme", mine["id"]).revision == 1


@pytest.mark.parametrize("id_", ["a b", "a%2Fb", "%00", "x" * 65, "a%23b", "..", "%F0%9F%98%80"])
def test_impossible_ids(acme: Client, id_: str) -> None:
    """What cannot be an id is an unknown address."""
    assert acme.get(f"{PATH}/{id_}").status_code == 404


def test_change(acme: Client, world: World) -> None:
    """A change replaces the fields named and no others, sets those given as null back to their defaults, and raises the ETag."""
    made = onboard(acme, sftp(port=2222, max_connections=3))
    base = f"{PATH}/{made['id']}"
    answer = acme.patch(base, {"name": "Bank", "root": "/in", "port": None}, If_Match='"1"')
    assert answer.status_code == 200, answer.text
    assert answer.headers["ETag"] == '"2"'
    assert answer.get_json() == {**made, "name": "Bank", "root": "/in", "port": 22, "revision": 2}
    assert acme.get(base).headers["ETag"] == '"2"'
    assert secret_of(world, made["id"]).password == SecretStr("correct horse")
    assert world.secrets.calls["put"] == 1
    merge = acme.patch(base, {"name": "Bank 2"}, If_Match='"2"', Content_Type="application/merge-patch+json")
    assert merge.get_json()["name"] == "Bank 2"
    assert acme.patch(base, {"name": "Bank 3"}, If_Match="*").get_json()["revision"] == 4


def test_what_was_said_of_a_store_is_not_taken_for_another(acme: Client) -> None:
    """At another address nobody has said that names are refused, unless the same change says so."""
    static = {"access_key_id": "AKIA1", "secret_access_key": "shh"}
    made = onboard(acme, s3(endpoint_url="https://one.acme.test", refuses_taken=True, credential=static))
    place = f"{PATH}/{made['id']}"

    def change(patch: dict[str, object], revision: int) -> bool:
        answer = acme.patch(place, patch, If_Match=f'"{revision}"')
        assert answer.status_code == 200, answer.text
        return bool(answer.get_json()["refuses_taken"])

    assert change({"name": "Lake again", "endpoint_url": "https://one.acme.test"}, made["revision"])
    assert not change({"endpoint_url": "https://two.acme.test"}, made["revision"] + 1)
    assert change({"endpoint_url": "https://one.acme.test", "refuses_taken": True}, made["revision"] + 2)


def test_change_needs_version(acme: Client) -> None:
    """A change without If-Match is 428, one with an old, weak or odd one 412; neither changes anything."""
    base = f"{PATH}/{onboard(acme, sftp())['id']}"
    assert fields(problem(acme.patch(base, {"name": "x"}), 428, "precondition_missing")) == ["If-Match"]
    for etag in ('"2"', '"0"', 'W/"1"', '""', '"x"'):
        assert fields(problem(acme.patch(base, {"name": "x"}, If_Match=etag), 412, "revision_differs")) == ["If-Match"]
    assert acme.get(base).headers["ETag"] == '"1"'
    problem(acme.delete(base, If_Match='"2"'), 412, "revision_differs")
    problem(acme.post(f"{base}/host-keys", {"host_keys": [ED25519]}, If_Match='"2"'), 412, "revision_differs")


def test_race_of_changes(acme: Client, world: World) -> None:
    """When another change wins between look and write the answer is 412, and the credential of the loser is not kept."""
    base = f"{PATH}/{onboard(acme, sftp())['id']}"
    world.registry.trip("change_endpoint", Conflict("it changed", reason="revision_differs"))
    problem(acme.patch(base, {"credential": {"password": "loser"}}, If_Match='"1"'), 412, "revision_differs")
    assert secret_of(world, base.rpartition("/")[2]).password == SecretStr("correct horse")


def test_rotation_of_credentials(acme: Client, world: World, private_key: Callable[..., str]) -> None:
    """A credential given in a change replaces the present one as a whole."""
    made = onboard(acme, sftp())
    credential = {"private_key": private_key()}
    answer = acme.patch(f"{PATH}/{made['id']}", {"credential": credential}, If_Match='"1"')
    assert answer.status_code == 200
    kept = secret_of(world, made["id"])
    assert kept.password is None
    assert kept.private_key == SecretStr(credential["private_key"])


def test_credential_of_s3_comes_and_goes(acme: Client, world: World) -> None:
    """An S3 endpoint gains a static key by a change and loses it by null, secret and all; an SFTP endpoint cannot lose its own."""
    made = onboard(acme, s3())
    base = f"{PATH}/{made['id']}"
    static = {"access_key_id": "AKIA1", "secret_access_key": "shh"}
    gained = acme.patch(base, {"credential": static}, If_Match='"1"')
    assert gained.get_json()["has_credential"] is True
    ref = world.registry.endpoint("acme", made["id"]).secret
    assert ref is not None
    lost = acme.patch(base, {"credential": None}, If_Match=gained.headers["ETag"])
    assert lost.get_json()["has_credential"] is False
    with pytest.raises(Permanent, match="no secret"):
        world.secrets.get(ref)
    bank = onboard(acme, sftp())
    told = problem(acme.patch(f"{PATH}/{bank['id']}", {"credential": None}, If_Match='"1"'), 422, "request_invalid")
    assert fields(told) == ["/credential"]


@pytest.mark.parametrize(
    ("patch", "field"),
    [
        ({"kind": "s3"}, "/kind"),
        ({"name": None}, "/name"),
        ({"id": "x"}, "/id"),
        ({"revision": 9}, "/revision"),
        ({"secret": {"name": "x"}}, "/secret"),
        ({"port": "22"}, "/port"),
        ({"credential": {"password": None}}, "/credential"),
        ([], ""),
        ("name", ""),
        (None, ""),
    ],
)
def test_bad_change(acme: Client, patch: object, field: str) -> None:
    """A change that would make something impossible is refused with 422 that names the field, and changes nothing."""
    base = f"{PATH}/{onboard(acme, sftp())['id']}"
    told = problem(
        acme.patch(base, raw=json.dumps(patch).encode(), If_Match='"1"', Content_Type="application/json"), 422, "request_invalid"
    )
    assert field in fields(told)
    assert acme.get(base).headers["ETag"] == '"1"'


def test_remove(acme: Client, world: World) -> None:
    """A removed endpoint is gone with its secret; removing it again is 404."""
    made = onboard(acme, sftp())
    base = f"{PATH}/{made['id']}"
    ref = world.registry.endpoint("acme", made["id"]).secret
    assert ref is not None
    answer = acme.delete(base, If_Match='"1"')
    assert (answer.status_code, answer.data) == (204, b"")
    with pytest.raises(Permanent, match="no secret"):
        world.secrets.get(ref)
    problem(acme.get(base), 404, "endpoint_unknown")
    problem(acme.delete(base), 404, "endpoint_unknown")


@pytest.mark.parametrize("error", [Conflict("changed", reason="revision_differs"), Transient("later")])
def test_remove_with_a_lost_answer(acme: Client, world: World, error: Exception) -> None:
    """A row that is gone although the answer was lost leaves no secret behind; one that stands keeps its own."""
    made = onboard(acme, sftp())
    base = f"{PATH}/{made['id']}"
    ref = world.registry.endpoint("acme", made["id"]).secret
    assert ref is not None
    world.registry.trip("remove_endpoint", error)
    assert acme.delete(base).status_code >= 400
    assert world.secrets.get(ref).password is not None
    world.registry.trip("remove_endpoint", error, after=True)
    assert acme.delete(base).status_code == 204
    with pytest.raises(Permanent, match="no secret"):
        world.secrets.get(ref)


def test_remove_while_used(acme: Client) -> None:
    """An endpoint that a flow uses, as source or destination, is not removed, and the answer names the flow; afterwards it is."""
    source, destination = onboard(acme, sftp()), onboard(acme, s3())
    flow = acme.post("/v1/flows", {"name": "daily", "source": source["id"], "destination": destination["id"]}).get_json()
    for endpoint in (source, destination):
        told = problem(acme.delete(f"{PATH}/{endpoint['id']}"), 409, "endpoint_in_use")
        assert flow["id"] in told["detail"]
    assert acme.delete(f"/v1/flows/{flow['id']}").status_code == 204
    assert acme.delete(f"{PATH}/{source['id']}").status_code == 204


def test_secret_that_cannot_be_removed(acme: Client, world: World, caplog: pytest.LogCaptureFixture) -> None:
    """When the secrets store fails, a removed endpoint is removed all the same, and the log names the secret for the operators."""
    made = onboard(acme, sftp())
    world.secrets.trip("remove", Transient("later"))
    assert acme.delete(f"{PATH}/{made['id']}").status_code == 204
    left = [record for record in caplog.records if record.message == "a secret is left over"]
    assert [vars(record)["secret"] for record in left] == [f"eft/acme/{made['id']}"]


def test_row_that_cannot_be_written(acme: Client, world: World) -> None:
    """When the row cannot be written, the secret does not stay behind."""
    world.registry.trip("add_endpoint", Transient("later"))
    problem(acme.post(PATH, sftp()), 503, "transient")
    assert world.secrets.calls["remove"] == world.secrets.calls["put"] == 1


def test_probe(acme: Client, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection test answers with each check, the host keys seen and their fingerprints, and what the server offers."""
    made = onboard(acme, sftp())
    asked: list[Endpoint] = []

    def probe(endpoint: Endpoint) -> ProbeReport:
        asked.append(endpoint)
        return ProbeReport(
            ok=False,
            checks=(Check(name="connect", ok=True, message="in 3 ms"), Check(name="host_key", ok=False, message="not pinned")),
            host_keys=(HostKey(**ED25519),),
            capabilities={"rename": "posix"},
        )

    monkeypatch.setattr(world.stores, "probe", probe)
    answer = acme.post(f"{PATH}/{made['id']}/test")
    assert answer.status_code == 200
    assert answer.get_json() == {
        "ok": False,
        "checks": [{"name": "connect", "ok": True, "message": "in 3 ms"}, {"name": "host_key", "ok": False, "message": "not pinned"}],
        "host_keys": [{**ED25519, "fingerprint": HostKey(**ED25519).fingerprint}],
        "capabilities": {"rename": "posix"},
    }
    assert asked[0].secret == SecretRef(name=f"eft/acme/{made['id']}")


def test_tests_at_once(acme: Client, other: Client, world: World) -> None:
    """A tenant whose servers hang holds three tests at once and no more; others test on, and a test that ends makes room."""
    theirs = onboard(other, sftp())
    for number in range(3):
        held = f"elsewhere-{number}"
        assert world.limits.acquire("test/acme", limit=3, holder=held, lease=timedelta(minutes=1))
    answer = acme.post(f"{PATH}/sftp-a/test")
    problem(answer, 429, "too_many_tests")
    assert answer.headers["Retry-After"] == "10"
    assert other.post(f"{PATH}/{theirs['id']}/test").status_code == 200
    world.limits.release("test/acme", holder="elsewhere-0")
    for _ in range(2):
        assert acme.post(f"{PATH}/sftp-a/test").status_code == 200


def test_pin(acme: Client, world: World) -> None:
    """Pinned keys are added to those before, once each; `replace` drops those before."""
    base = f"{PATH}/{onboard(acme, sftp())['id']}"

    def pinned(body: dict[str, Any], **headers: str) -> list[str]:
        answer = acme.post(f"{base}/host-keys", body, **headers)
        assert answer.status_code == 200, answer.text
        return [key["key"] for key in answer.get_json()["host_keys"]]

    assert pinned({"host_keys": [ED25519]}, If_Match='"1"') == [ED25519["key"]]
    assert pinned({"host_keys": [OTHER, ED25519]}) == [ED25519["key"], OTHER["key"]]
    assert pinned({"host_keys": [OTHER], "replace": True}) == [OTHER["key"]]
    row = world.registry.endpoint("acme", base.rpartition("/")[2])
    assert isinstance(row, SftpEndpoint)
    assert row.host_keys == (HostKey(**OTHER),)
    assert row.revision == 4


@pytest.mark.parametrize(
    "body", [{}, {"host_keys": []}, {"host_keys": [{"algorithm": "ssh-rsa", "key": ED25519["key"]}]}, {"host_keys": ["x"]}]
)
def test_bad_pins(acme: Client, body: dict[str, Any]) -> None:
    """No keys, or what is none, is refused."""
    problem(acme.post(f"{PATH}/sftp-a/host-keys", body), 422, "request_invalid")


def test_pin_s3(acme: Client) -> None:
    """An S3 endpoint has no host keys to pin."""
    problem(acme.post(f"{PATH}/s3-a/host-keys", {"host_keys": [ED25519]}), 409, "not_sftp")


def test_pin_races(acme: Client, world: World) -> None:
    """Pinning without If-Match rides over changes by others, though not for ever; with If-Match it tells of them."""
    changed = Conflict("it changed", reason="revision_differs")
    world.registry.trip("change_endpoint", changed, times=2)
    assert acme.post(f"{PATH}/sftp-a/host-keys", {"host_keys": [ED25519]}).status_code == 200
    world.registry.trip("change_endpoint", changed, times=3)
    problem(acme.post(f"{PATH}/sftp-a/host-keys", {"host_keys": [OTHER]}), 412, "revision_differs")
    world.registry.trip("change_endpoint", changed)
    problem(acme.post(f"{PATH}/sftp-a/host-keys", {"host_keys": [OTHER]}, If_Match='"2"'), 412, "revision_differs")


def test_bandwidth(acme: Client, world: World) -> None:
    """Windows by time of day are kept, shown and changed; one that cannot work is refused with its field."""
    window = {"begin": "08:00:00", "end": "18:00:00", "timezone": "Europe/Berlin", "bytes_per_second": 1 << 20}
    base = f"{PATH}/s3-a"
    shown = acme.patch(base, {"bandwidth": [window]}, If_Match="*").get_json()
    assert [{name: one[name] for name in window} for one in shown["bandwidth"]] == [window]
    assert world.registry.endpoint("acme", "s3-a").bandwidth[0].bytes_per_second == 1 << 20
    told = problem(acme.patch(base, {"bandwidth": [{**window, "bytes_per_second": 5}]}, If_Match="*"), 422, "request_invalid")
    assert fields(told) == ["/bandwidth/0/bytes_per_second"]
    assert acme.patch(base, {"bandwidth": None}, If_Match="*").get_json()["bandwidth"] == []
