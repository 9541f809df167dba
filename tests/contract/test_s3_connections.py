"""Opening buckets for endpoints: whose credential, which session, and what a connection test says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from moto import mock_aws
from pydantic import SecretStr

from deploy.local.servers import S3Server
from eft.adapters.aws import AwsSession
from eft.adapters.s3.connections import SESSIONS, S3Connections, StagingBucket
from eft.domain.endpoint import Credential, S3Endpoint, SecretRef
from eft.domain.names import remote_path
from eft.errors import Permanent, Transient
from eft.ports import ProbeReport
from tests.contract.buckets import REGION, Bucket, Scripted, emulator_session, new_bucket, refusal, seaweed_session, serving
from tests.contract.store_suite import uploaded
from tests.fakes import FakeClock, FakeSecrets
from tests.servers import Aws

ROLE = "arn:aws-us-gov:iam::123456789012:role/eft"


def keys(access_key_id: str, secret_access_key: str, *, session_token: str | None = None) -> Credential:
    """A static credential."""
    return Credential(
        access_key_id=SecretStr(access_key_id),
        secret_access_key=SecretStr(secret_access_key),
        session_token=None if session_token is None else SecretStr(session_token),
    )


def endpoint(at: Bucket, **more: object) -> S3Endpoint:
    """An endpoint at a bucket."""
    fields: dict[str, Any] = {
        "id": "ep1",
        "tenant": "tenant one",
        "name": "in",
        "bucket": at.name,
        "prefix": at.prefix,
        "region": REGION,
        "endpoint_url": at.session.endpoint_url,
        "created": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return S3Endpoint(**{**fields, **more})


@pytest.fixture
def secrets() -> FakeSecrets:
    """Customers' credentials."""
    return FakeSecrets()


@pytest.fixture
def moto() -> Iterator[Bucket]:
    """A bucket of AWS; the process has a credential of its own."""
    with mock_aws():
        yield new_bucket(AwsSession(region=REGION), prefix="p")


EVERY: Final = {"*": ("*",)}


def connections(
    secrets: FakeSecrets, *, endpoint_url: str | None = None, bucket: str = "staging", lent: Mapping[str, tuple[str, ...]] = EVERY
) -> S3Connections:
    """What buckets are opened with."""
    staging = StagingBucket(bucket, REGION, prefix="staged", kms_key=None)
    return S3Connections(secrets, FakeClock(), staging=staging, lent=lent, endpoint_url=endpoint_url, tries=1)


def checks(report: ProbeReport) -> dict[str, bool]:
    """The outcome of each check by name."""
    return {check.name: check.ok for check in report.checks}


@pytest.mark.parametrize("own", [False, True], ids=["endpoint", "staging"])
@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
def test_lets_go_at_the_end(seaweed: S3Server, secrets: FakeSecrets, own: bool, fails: bool) -> None:
    """What was fetched along with the last range is given up when the store is, whatever ended its use: else its connection stays."""
    bucket = new_bucket(seaweed_session(seaweed))
    bucket.put("a.bin", bytes(200_000))
    closed: list[bool] = []
    ref = secrets.put(tenant="t", endpoint="ep1", credential=keys(seaweed.ACCESS_KEY, seaweed.SECRET_KEY))
    made = connections(secrets)
    with suppress(Transient), made.staging() if own else made.open(endpoint(bucket, secret=ref)) as store:
        # The staging bucket's credential is the process's own; there is none here.
        store.session, store.place = bucket.session, bucket.store.place
        file = store.stat(remote_path("a.bin"))
        assert sum(len(chunk) for chunk in store.read(file, start=0, size=100_000, until=200_000)) == 100_000
        assert store._kept is not None
        store._kept.body.close = lambda: closed.append(True)
        if fails:
            raise Transient("cut")
    assert closed == [True]


def test_opens_with_the_customers_own_key(seaweed: S3Server, secrets: FakeSecrets) -> None:
    """An endpoint's static credential opens its bucket on a store that judges signatures."""
    bucket = new_bucket(seaweed_session(seaweed), prefix="p")
    ref = secrets.put(tenant="t", endpoint="ep1", credential=keys(seaweed.ACCESS_KEY, seaweed.SECRET_KEY))
    with connections(secrets).open(endpoint(bucket, secret=ref)) as store:
        _, commit = uploaded(store, "a.csv", b"content")
        store.commit(commit)
    assert bucket.get("a.csv") == b"content"


def test_a_wrong_key_is_denied(seaweed: S3Server, secrets: FakeSecrets) -> None:
    """A wrong secret key is `access_denied`, and the message shows neither key."""
    bucket = new_bucket(seaweed_session(seaweed))
    ref = secrets.put(tenant="t", endpoint="ep1", credential=keys(seaweed.ACCESS_KEY, "not-the-secret"))
    with pytest.raises(Permanent) as error, connections(secrets).open(endpoint(bucket, secret=ref)) as store:
        list(store.list("", recursive=True))
    assert error.value.reason == "access_denied"
    assert "not-the-secret" not in str(error.value)
    assert secrets.calls["forget"] == 1


def test_a_key_that_was_rotated_meanwhile_is_tried_again(seaweed: S3Server, secrets: FakeSecrets) -> None:
    """A refused key that is not the current one any more costs the transfer no try; the next opening uses the new one."""
    bucket = new_bucket(seaweed_session(seaweed))
    opened = connections(secrets)
    ref = secrets.put(tenant="t", endpoint="ep1", credential=keys(seaweed.ACCESS_KEY, "revoked"))
    current = keys(seaweed.ACCESS_KEY, seaweed.SECRET_KEY)
    with pytest.raises(Transient) as error, opened.open(endpoint(bucket, secret=ref)) as store:
        secrets.put(tenant="t", endpoint="ep1", credential=current), list(store.list("", recursive=True))
    assert (error.value.reason, error.value.counts) == ("credential_rotated", False)
    with opened.open(endpoint(bucket, secret=ref)) as store:
        assert list(store.list("", recursive=True)) == []


def test_an_expired_session_token_is_fetched_anew(aws: Aws, secrets: FakeSecrets) -> None:
    """An expired temporary credential is worth another try, for which Secrets Manager is asked again."""
    bucket = new_bucket(emulator_session(aws))
    ref = secrets.put(tenant="t", endpoint="ep1", credential=keys("test", "test", session_token="token"))
    with (
        pytest.raises(Transient) as error,
        connections(secrets).open(endpoint(bucket, secret=ref)) as store,
        Scripted(store.session, "ListObjectsV2", [refusal(400, "ExpiredToken")]),
    ):
        list(store.list("", recursive=True))
    assert error.value.reason == "credential_expired"
    assert secrets.calls["forget"] == 1


def test_other_errors_leave_the_credential_alone(aws: Aws, secrets: FakeSecrets) -> None:
    """A missing file is no reason to doubt the credential."""
    bucket = new_bucket(emulator_session(aws))
    ref = secrets.put(tenant="t", endpoint="ep1", credential=keys("test", "test"))
    with pytest.raises(Permanent) as error, connections(secrets).open(endpoint(bucket, secret=ref)) as store:
        store.stat(remote_path("none.csv"))
    assert error.value.reason == "source_missing"
    assert secrets.calls["forget"] == 0


def test_half_a_key_is_malformed(moto: Bucket, secrets: FakeSecrets) -> None:
    """A credential for a server of the other kind does not open a bucket."""
    ref = secrets.put(tenant="t", endpoint="ep1", credential=Credential(password=SecretStr("hidden")))
    with pytest.raises(Permanent) as error, connections(secrets).open(endpoint(moto, secret=ref)):
        pass
    assert error.value.reason == "secret_malformed"
    assert "hidden" not in str(error.value)


def test_endpoints_of_one_principal_share_a_session(moto: Bucket, secrets: FakeSecrets) -> None:
    """Two endpoints that one principal reaches share their connections, two tenants' roles never do."""
    opened = connections(secrets)

    def session(**more: object) -> AwsSession:
        with opened.open(endpoint(moto, **more)) as store:
            return store.session

    assert session() is session(id="ep2", prefix="other")
    assert session(role_arn=ROLE) is session(role_arn=ROLE, id="ep2")
    assert session(role_arn=ROLE) is not session()
    assert session(role_arn=ROLE, tenant="another") is not session(role_arn=ROLE)
    assert session(region="us-gov-east-1") is not session()


def test_sessions_are_bounded(moto: Bucket, secrets: FakeSecrets) -> None:
    """The session least used goes when there are too many, and comes back when asked for."""
    opened = connections(secrets)

    def session(tenant: int) -> AwsSession:
        with opened.open(endpoint(moto, tenant=f"t{tenant}", role_arn=ROLE)) as store:
            return store.session

    kept = [session(n) for n in range(SESSIONS)]
    assert session(0) is kept[0]
    session(SESSIONS)
    assert session(0) is kept[0]
    assert session(1) is not kept[1]


def test_a_role_is_assumed_for_the_tenant(moto: Bucket, secrets: FakeSecrets) -> None:
    """A role is assumed under a session name that says whose work it is, and with the tenant as external id."""
    with connections(secrets).open(endpoint(moto, role_arn=ROLE)) as store:
        _, commit = uploaded(store, "a.csv", b"content")
        store.commit(commit)
        assert store.session.role is not None
        assert (store.session.role.external_id, store.session.role.session_name) == ("tenant one", "eft-tenant-one")
    assert moto.get("a.csv") == b"content"


def test_staging_is_the_engines_own(aws: Aws, secrets: FakeSecrets, monkeypatch: pytest.MonkeyPatch) -> None:
    """The staging bucket is reached with the process's own credential, below its prefix, at the stand-in's address."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", aws.server.ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", aws.server.SECRET_KEY)
    bucket = new_bucket(emulator_session(aws))
    with connections(secrets, endpoint_url=aws.url, bucket=bucket.name).staging() as store:
        _, commit = uploaded(store, "t/1/1", b"staged")
        store.commit(commit)
        assert store.look(remote_path("t/1/1")) is not None
    assert bucket.get("staged/t/1/1") == b"staged"


@pytest.mark.parametrize("address", [None, "http://stand-in.test"])
def test_staging_is_no_customers_bucket(moto: Bucket, secrets: FakeSecrets, address: str | None) -> None:
    """The staging bucket, where other customers' files lie, is neither opened nor tested for an endpoint, whatever its credential."""
    opened = connections(secrets, endpoint_url=address, bucket=moto.name)
    ref = secrets.put(tenant="t", endpoint="ep1", credential=keys("a", "b"))
    for more in ({}, {"secret": ref}, {"role_arn": ROLE}):
        named = endpoint(moto, endpoint_url=address, **more)
        with pytest.raises(Permanent) as error, opened.open(named):
            pass
        assert error.value.reason == "bucket_reserved"
        assert checks(opened.probe(named)) == {"credential": False}


def test_the_engines_credential_goes_to_no_address_of_a_customer(moto: Bucket, secrets: FakeSecrets) -> None:
    """A store at an address of its own is asked with the customer's credential or role, never with the engine's."""
    opened = connections(secrets, endpoint_url="http://stand-in.test")
    named = endpoint(moto, endpoint_url="http://store.test")
    with pytest.raises(Permanent) as error, opened.open(named):
        pass
    assert error.value.reason == "credential_missing"
    assert checks(opened.probe(named)) == {"credential": False}
    with opened.open(endpoint(moto, endpoint_url="http://stand-in.test")) as store:
        assert store.session.keys is None
    with opened.open(endpoint(moto, endpoint_url="http://store.test", role_arn=ROLE)) as store:
        assert store.session.role is not None


def test_the_engines_credential_opens_what_its_operator_lends(moto: Bucket, secrets: FakeSecrets) -> None:
    """Without a credential or role of its own an endpoint reaches the buckets lent to its tenant, no other tenant's and no others."""
    opened = connections(secrets, lent={"acme": (f"{moto.name[:3]}*",), "*": ("public",)})
    with opened.open(endpoint(moto, tenant="acme")) as store:
        assert store.session.keys is None
    opened.permit(endpoint(moto, tenant="acme", bucket="public"))
    for tenant, bucket in (("acme", "another"), ("globex", moto.name), ("*", "another")):
        named = endpoint(moto, tenant=tenant, bucket=bucket)
        with pytest.raises(Permanent, match="give a credential or a role_arn") as error, opened.open(named):
            pass
        assert error.value.reason == "credential_missing"
        assert checks(opened.probe(named)) == {"credential": False}
        opened.permit(endpoint(moto, tenant=tenant, bucket=bucket, role_arn=ROLE))


def test_objects_are_encrypted_under_the_endpoints_key(moto: Bucket, secrets: FakeSecrets) -> None:
    """What is delivered to an endpoint with a KMS key is encrypted under that key, copies for the archive too."""
    key = "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/11111111-2222-3333-4444-555555555555"
    with connections(secrets).open(endpoint(moto, kms_key=key)) as store:
        _, commit = uploaded(store, "a.csv", b"content")
        store.commit(commit)
        store.copy_version(store.stat(remote_path("a.csv")), remote_path("old/a.csv"))
    for name in ("p/a.csv", "p/old/a.csv"):
        head = moto.s3.head_object(Bucket=moto.name, Key=name)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key)


# -- connection tests --------------------------------------------------------------------------------------------------


def test_a_good_bucket_passes(moto: Bucket, secrets: FakeSecrets) -> None:
    """A bucket in its region that can be listed and written passes, and the test leaves nothing behind."""
    report = connections(secrets).probe(endpoint(moto))
    assert report.ok
    assert checks(report) == {"credential": True, "bucket": True, "list": True, "write": True}
    assert report.capabilities == {"versioning": "off", "conditional_commit": "server", "full_object_checksum": "crc64nvme"}
    assert moto.s3.list_objects_v2(Bucket=moto.name, Prefix="p/").get("Contents", []) == []
    assert moto.s3.list_multipart_uploads(Bucket=moto.name).get("Uploads", []) == []


def test_a_compatible_store_tells_what_it_can(seaweed: S3Server, secrets: FakeSecrets) -> None:
    """A compatible store passes too, and its capabilities are found out."""
    bucket = new_bucket(seaweed_session(seaweed), versioned=True)
    ref = secrets.put(tenant="t", endpoint="ep1", credential=keys(seaweed.ACCESS_KEY, seaweed.SECRET_KEY))
    report = connections(secrets).probe(endpoint(bucket, secret=ref))
    assert report.ok
    assert report.capabilities == {
        "versioning": "enabled",
        "conditional_commit": "server, after a look",
        "full_object_checksum": "crc64nvme",
    }


def test_a_wrong_key_fails_with_words(seaweed: S3Server, secrets: FakeSecrets) -> None:
    """A wrong key fails every check against the bucket, each with words and without the key."""
    bucket = new_bucket(seaweed_session(seaweed))
    ref = secrets.put(tenant="t", endpoint="ep1", credential=keys(seaweed.ACCESS_KEY, "not-the-secret"))
    report = connections(secrets).probe(endpoint(bucket, secret=ref))
    assert not report.ok
    assert checks(report) == {"credential": True, "bucket": False, "list": False, "write": False}
    assert all("denied" in check.message for check in report.checks if not check.ok)
    assert not [check for check in report.checks if "not-the-secret" in check.message]


def test_a_missing_secret_fails_first(moto: Bucket, secrets: FakeSecrets) -> None:
    """Without a credential nothing is tried."""
    report = connections(secrets).probe(endpoint(moto, secret=SecretRef(name="eft/t/none")))
    assert not report.ok
    assert checks(report) == {"credential": False}


def test_a_refused_role_fails_first(aws: Aws, secrets: FakeSecrets) -> None:
    """A role that may not be assumed is named, and nothing else is tried."""
    bucket = new_bucket(emulator_session(aws))
    ref = secrets.put(tenant="t", endpoint="ep1", credential=keys("test", "test"))
    refused = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
    with serving(403, {"Content-Type": "text/xml", "Content-Length": str(len(refused))}, refused) as sts:
        report = connections(secrets, endpoint_url=sts).probe(endpoint(bucket, secret=ref, role_arn=ROLE))
    assert not report.ok
    assert checks(report) == {"credential": False}
    assert "assuming the role" in report.checks[0].message


def test_a_missing_bucket_fails(moto: Bucket, secrets: FakeSecrets) -> None:
    """A bucket that does not exist is said not to."""
    report = connections(secrets).probe(endpoint(moto, bucket="contract-no-such-bucket"))
    assert not report.ok
    assert "does not exist" in " ".join(check.message for check in report.checks)


def test_a_bucket_elsewhere_names_its_region(moto: Bucket, secrets: FakeSecrets) -> None:
    """A bucket in another region than the endpoint's fails and names the right one, although requests would find their way."""
    report = connections(secrets).probe(endpoint(moto, region="us-gov-east-1"))
    assert not report.ok
    (bucket,) = [check for check in report.checks if check.name == "bucket"]
    assert not bucket.ok
    assert REGION in bucket.message


@pytest.mark.parametrize(("operation", "check"), [("CreateMultipartUpload", "write"), ("ListObjectsV2", "list")])
def test_half_the_rights_are_enough(moto: Bucket, secrets: FakeSecrets, operation: str, check: str) -> None:
    """A credential that may only read, or only list nothing, serves one side of a flow; the report says what it cannot."""
    opened = connections(secrets)
    with opened.open(endpoint(moto)) as store, Scripted(store.session, operation, [refusal(403, "AccessDenied")] * 2):
        report = opened.probe(endpoint(moto))
    assert report.ok
    assert [name for name, ok in checks(report).items() if not ok] == [check]


def test_who_may_only_write_may_not_look(aws: Aws, secrets: FakeSecrets) -> None:
    """A credential that may write but neither list nor look at the bucket still serves as a destination."""
    bucket = new_bucket(emulator_session(aws))
    opened = connections(secrets)
    ref = secrets.put(tenant="t", endpoint="ep1", credential=keys("test", "test"))
    where = endpoint(bucket, secret=ref)
    denied = refusal(403, "")
    with (
        opened.open(where) as store,
        Scripted(store.session, "HeadBucket", [denied] * 2),
        Scripted(store.session, "ListObjectsV2", [refusal(403, "AccessDenied")] * 2),
        Scripted(store.session, "GetBucketVersioning", [refusal(403, "AccessDenied")] * 2),
    ):
        report = opened.probe(where)
    assert report.ok
    assert checks(report) == {"credential": True, "bucket": True, "list": False, "write": True}
    assert report.capabilities["versioning"] == "unknown"


def test_a_dead_store_fails(secrets: FakeSecrets) -> None:
    """Where nothing listens, the report says so and no error escapes."""
    lost = Bucket(AwsSession(region=REGION, endpoint_url="http://127.0.0.1:1"), "b" * 3)
    ref = secrets.put(tenant="t", endpoint="ep1", credential=keys("a", "b"))
    report = connections(secrets).probe(endpoint(lost, secret=ref))
    assert not report.ok
    assert not any(check.ok for check in report.checks if check.name != "credential")
