"""Sessions: clients of threads and forked processes, credentials that are renewed, roles that are assumed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ClientError
from moto import mock_aws

from eft.adapters.aws import AwsSession, Role, StaticKeys
from eft.adapters.aws_errors import translated
from eft.adapters.aws_models import _models, new_session
from eft.errors import Permanent, Transient
from tests.contract.buckets import MOTO_KEYS, REGION, emulator_session, serving
from tests.servers import Aws

ROLE = Role("arn:aws-us-gov:iam::123456789012:role/eft", "tenant")
GRANTED = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>ASIAGRANTED</AccessKeyId><SecretAccessKey>granted</SecretAccessKey><SessionToken>token</SessionToken>
<Expiration>{}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""


@pytest.fixture
def moto() -> Iterator[None]:
    """AWS in this process."""
    with mock_aws():
        yield


def test_reaches_each_service(aws: Aws) -> None:
    """One session reaches all services that the engine uses, at one address."""
    session = emulator_session(aws)
    session.s3().list_buckets()
    session.dynamodb().list_tables()
    session.sqs().list_queues()
    session.secretsmanager().list_secrets()


def test_threads_share_one_client(moto: None) -> None:
    """However many threads ask at once, one client is built."""
    session = AwsSession(region=REGION, keys=MOTO_KEYS)
    start = threading.Barrier(16)
    clients: list[object] = []

    def ask() -> None:
        start.wait()
        clients.append(session.s3())

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(clients) == 16
    assert len({id(client) for client in clients}) == 1


def test_descriptions_of_services_are_held_once() -> None:
    """However many sessions begin at once; as plain dicts, without the texts for people."""
    start = threading.Barrier(8)
    held: list[object] = []

    def begin() -> None:
        loader = new_session(REGION).get_component("data_loader")
        start.wait()
        held.append(loader.load_service_model("sns", "service-2"))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 8
    assert len({id(model) for model in held}) == 1
    texts = list(_texts(held[0]))
    assert len(texts) > 100
    assert set(texts) == {""}


def test_a_fork_while_descriptions_are_read_stops_nobody() -> None:
    """The child does not wait for a lock that a thread of its parent held at that moment."""
    with _models()._loading:
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os._exit(0 if new_session(REGION).get_component("data_loader").load_service_model("sts", "service-2") else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def _texts(held: object) -> Iterator[str]:
    """Yields the texts for people in a description, which holds plain dicts."""
    if isinstance(held, dict):
        assert type(held) is dict
        if isinstance(held.get("documentation"), str):
            yield held["documentation"]
    for each in held.values() if isinstance(held, dict) else held if isinstance(held, list) else ():
        yield from _texts(each)


def test_a_forked_process_builds_its_own(moto: None) -> None:
    """A child neither shares its parent's connections nor waits for a lock that another thread held at the fork."""
    session = AwsSession(region=REGION, keys=MOTO_KEYS)
    inherited = session.s3()
    with session._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if session.s3() is not inherited else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert session.s3() is inherited


def test_renewing_builds_anew(moto: None) -> None:
    """A renewed session has new clients; those in use go on."""
    session = AwsSession(region=REGION, keys=MOTO_KEYS)
    before = session.s3()
    session.renew()
    assert session.s3() is not before
    assert before.list_buckets()["Buckets"] == []


def test_an_expired_credential_renews_the_session(moto: None) -> None:
    """An expired credential is worth another try, which begins with new clients; other errors keep them."""
    session = AwsSession(region=REGION, keys=MOTO_KEYS)
    before = session.s3()
    with pytest.raises(Permanent), translated("x", session=session):
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "Call")
    assert session.s3() is before
    with pytest.raises(Transient), translated("x", session=session):
        raise ClientError({"Error": {"Code": "ExpiredToken"}}, "Call")
    assert session.s3() is not before


def test_a_role_is_assumed_and_renewed_before_it_ends() -> None:
    """The credential of a role is fetched again when it is about to end."""
    soon = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    body = GRANTED.format(soon).encode()
    with serving(200, {"Content-Type": "text/xml", "Content-Length": str(len(body))}, body) as sts:
        session = AwsSession(region=REGION, keys=MOTO_KEYS, role=ROLE, sts_endpoint_url=sts)
        session.resolve_credential()
        assert session._session is not None
        credential = session._session.get_credentials()
        assert credential is not None
        assert credential.get_frozen_credentials().access_key == "ASIAGRANTED"
        assumed: list[Role] = []
        assume = session._assume

        def counted(role: Role) -> dict[str, str]:
            assumed.append(role)
            return assume(role)

        # It lasts for five minutes, less than botocore's fifteen: each use asks again.
        session._assume = counted  # type: ignore[method-assign]
        session.renew()
        session.resolve_credential()
        session.resolve_credential()
        assert len(assumed) >= 2
        assert set(assumed) == {ROLE}


def test_a_role_that_lasts_is_not_asked_for_again() -> None:
    """A role with an hour to go is assumed once."""
    body = GRANTED.format((datetime.now(UTC) + timedelta(hours=1)).isoformat()).encode()
    with serving(200, {"Content-Type": "text/xml", "Content-Length": str(len(body))}, body) as sts:
        session = AwsSession(region=REGION, keys=MOTO_KEYS, role=ROLE, sts_endpoint_url=sts)
        session.resolve_credential()
    session.resolve_credential()


def test_without_any_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without a credential says so, instead of failing with each call."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    session = AwsSession(region=REGION)
    with pytest.raises(Permanent) as error, translated("bucket 'b'", session=session):
        session.resolve_credential()
    assert error.value.reason == "credential_missing"


def test_who_asks_is_compared(moto: None) -> None:
    """Two sessions are of one principal only with equal keys, role and address; the region does not count."""
    keys = StaticKeys("a", "b")
    one = AwsSession(region=REGION, keys=keys)
    assert one.principal == AwsSession(region="us-gov-east-1", keys=StaticKeys("a", "b")).principal
    for other in (
        AwsSession(region=REGION),
        AwsSession(region=REGION, keys=StaticKeys("a", "c")),
        AwsSession(region=REGION, keys=keys, role=ROLE),
        AwsSession(region=REGION, keys=keys, endpoint_url="http://127.0.0.1:1"),
    ):
        assert one.principal != other.principal


@pytest.mark.parametrize(("url", "signed"), [(None, False), ("https://s3.example", False), ("http://127.0.0.1:1", True)])
def test_bodies_are_hashed_only_without_tls(url: str | None, signed: bool) -> None:
    """Over HTTPS a body is protected already; over plain HTTP its hash is signed."""
    session = AwsSession(region=REGION, keys=MOTO_KEYS, endpoint_url=url)
    seen: list[str] = []

    def stop(request: AWSPreparedRequest, **_: object) -> None:
        seen.append(str(request.headers["X-Amz-Content-SHA256"]))
        raise Permanent("far enough")

    session.s3().meta.events.register("before-send.s3.UploadPart", stop)
    with pytest.raises(Permanent, match="far enough"):
        session.s3().upload_part(Bucket="bucket", Key="k", UploadId="u", PartNumber=1, Body=b"content")
    assert ("UNSIGNED-PAYLOAD" not in seen[0]) is signed
