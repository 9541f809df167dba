"""Credentials in Secrets Manager: one suite on the fake, moto and the emulator, and what the adapter does besides."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from pydantic import SecretStr

from eft.adapters.aws import AwsSession
from eft.adapters.secrets import CACHE_LIFE, CACHE_SIZE, SecretsManager
from eft.domain.endpoint import Credential, SecretRef
from eft.errors import Permanent, Transient
from eft.ports import Secrets
from tests.contract.buckets import MOTO_KEYS, REGION, Scripted, answer, emulator_session
from tests.fakes import FakeClock, FakeSecrets
from tests.servers import Aws

if TYPE_CHECKING:
    from botocore.awsrequest import AWSResponse

PASSWORD = "correct horse battery"
CREDENTIAL = Credential(password=SecretStr(PASSWORD), private_key=SecretStr("-----BEGIN…\nkey\n"), passphrase=SecretStr("ü"))


@pytest.fixture
def session() -> Iterator[AwsSession]:
    """AWS as moto has it."""
    with mock_aws():
        yield AwsSession(region=REGION, keys=MOTO_KEYS, tries=1)


@pytest.fixture
def clock() -> FakeClock:
    """The time by which the cache is judged."""
    return FakeClock()


@pytest.fixture
def manager(session: AwsSession, clock: FakeClock) -> SecretsManager:
    """The adapter on moto."""
    return SecretsManager(session, prefix="eft/", clock=clock)


@pytest.fixture(params=["fake", "moto", "emulator"])
def secrets(request: pytest.FixtureRequest) -> Secrets:
    """The port on each backend."""
    if request.param == "fake":
        return FakeSecrets()
    if request.param == "moto":
        adapter: SecretsManager = request.getfixturevalue("manager")
        return adapter
    aws: Aws = request.getfixturevalue("aws")
    return SecretsManager(emulator_session(aws), prefix=f"eft-{uuid.uuid4().hex}", clock=FakeClock())


# -- the contract ------------------------------------------------------------------------------------------------------


def test_gives_back_what_was_put(secrets: Secrets) -> None:
    """A credential comes back as it went in, line breaks and all."""
    ref = secrets.put(tenant="t1", endpoint="ep1", credential=CREDENTIAL)
    assert secrets.get(ref) == CREDENTIAL


def test_the_newest_is_the_current_one(secrets: Secrets) -> None:
    """A second put rotates: the same reference gives the new credential at once."""
    ref = secrets.put(tenant="t1", endpoint="ep1", credential=CREDENTIAL)
    assert secrets.get(ref) == CREDENTIAL
    rotated = Credential(password=SecretStr("new"))
    assert secrets.put(tenant="t1", endpoint="ep1", credential=rotated) == ref
    assert secrets.get(ref) == rotated


def test_tenants_do_not_meet(secrets: Secrets) -> None:
    """The same endpoint id of two tenants is two secrets."""
    one = secrets.put(tenant="t1", endpoint="ep1", credential=CREDENTIAL)
    two = secrets.put(tenant="t2", endpoint="ep1", credential=Credential(password=SecretStr("other")))
    assert one != two
    assert secrets.get(one) == CREDENTIAL


def test_removes_and_takes_again(secrets: Secrets, request: pytest.FixtureRequest) -> None:
    """A removed secret is missing, removing it again does nothing, and its endpoint may put a new one."""
    if "session" in request.fixturenames:
        pytest.skip("moto takes a new value of a deleted secret and leaves it deleted; AWS refuses it")
    ref = secrets.put(tenant="t1", endpoint="ep1", credential=CREDENTIAL)
    secrets.remove(ref)
    secrets.remove(ref)
    with pytest.raises(Permanent) as error:
        secrets.get(ref)
    assert error.value.reason == "secret_missing"
    assert secrets.put(tenant="t1", endpoint="ep1", credential=CREDENTIAL) == ref
    assert secrets.get(ref) == CREDENTIAL


def test_misses_what_was_never_put(secrets: Secrets) -> None:
    """An unknown secret is `secret_missing`; removing it does nothing."""
    prefix = secrets.put(tenant="t1", endpoint="ep1", credential=CREDENTIAL).name.removesuffix("/t1/ep1")
    ref = SecretRef(name=f"{prefix}/t1/none")
    secrets.remove(ref)
    with pytest.raises(Permanent) as error:
        secrets.get(ref)
    assert error.value.reason == "secret_missing"


# -- the adapter -------------------------------------------------------------------------------------------------------


def test_asks_once_a_minute(manager: SecretsManager, session: AwsSession, clock: FakeClock) -> None:
    """A credential is asked for once until a minute has passed, and what changed by then is seen after it."""
    ref = manager.put(tenant="t1", endpoint="ep1", credential=CREDENTIAL)
    manager.get(ref)
    session.secretsmanager().put_secret_value(SecretId=ref.name, SecretString='{"password": "elsewhere"}')
    clock.advance(CACHE_LIFE.total_seconds() - 1)
    assert manager.get(ref) == CREDENTIAL
    clock.advance(1)
    assert manager.get(ref) == Credential(password=SecretStr("elsewhere"))


def test_forgets_when_told(manager: SecretsManager, session: AwsSession) -> None:
    """A credential that a server refused is asked for anew."""
    ref = manager.put(tenant="t1", endpoint="ep1", credential=CREDENTIAL)
    manager.get(ref)
    session.secretsmanager().put_secret_value(SecretId=ref.name, SecretString='{"password": "elsewhere"}')
    manager.forget(ref)
    assert manager.get(ref) == Credential(password=SecretStr("elsewhere"))


def test_the_cache_is_bounded(manager: SecretsManager) -> None:
    """However many endpoints there are, memory holds a bounded number of credentials, and all are still given."""
    ref = manager.put(tenant="t1", endpoint="ep1", credential=CREDENTIAL)
    manager._cache.update({f"eft/t1/{n}": (0.0, CREDENTIAL) for n in range(CACHE_SIZE)})
    assert manager.get(ref) == CREDENTIAL
    assert len(manager._cache) <= CACHE_SIZE


@pytest.mark.parametrize("text", ["", "no json", "[1]", "null", '{"password": ["secret-content"]}', '{"pin": "secret-content"}'])
def test_a_malformed_secret_is_not_shown(manager: SecretsManager, session: AwsSession, text: str) -> None:
    """What is not a credential is `secret_malformed`, and the error does not quote it."""
    session.secretsmanager().create_secret(Name="eft/t1/ep1", SecretString=text or " ")
    with pytest.raises(Permanent) as error:
        manager.get(SecretRef(name="eft/t1/ep1"))
    assert error.value.reason == "secret_malformed"
    assert "secret-content" not in repr(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


def test_binary_secrets_are_malformed(manager: SecretsManager, session: AwsSession) -> None:
    """A secret of bytes is no credential."""
    session.secretsmanager().create_secret(Name="eft/t1/ep1", SecretBinary=b"\x00")
    with pytest.raises(Permanent) as error:
        manager.get(SecretRef(name="eft/t1/ep1"))
    assert error.value.reason == "secret_malformed"


def test_reads_nothing_beyond_its_prefix(manager: SecretsManager, session: AwsSession) -> None:
    """A reference to a secret that is not the engine's is refused without asking."""
    session.secretsmanager().create_secret(Name="payroll/database", SecretString='{"password": "theirs"}')
    for call in (manager.get, manager.remove):
        with pytest.raises(Permanent) as error:
            call(SecretRef(name="payroll/database"))
        assert error.value.reason == "secret_denied"
    assert session.secretsmanager().get_secret_value(SecretId="payroll/database")["SecretString"]


@pytest.mark.parametrize(("tenant", "endpoint"), [("a/b", "c"), ("a", "b/c"), ("", "b"), ("a", ""), ("ü", "b"), ("a" * 129, "b")])
def test_names_cannot_reach_another_tenant(manager: SecretsManager, tenant: str, endpoint: str) -> None:
    """An id that would change the path of a secret is refused."""
    with pytest.raises(Permanent) as error:
        manager.put(tenant=tenant, endpoint=endpoint, credential=CREDENTIAL)
    assert error.value.reason == "name_invalid"


def scripted(code: str, status: int = 400) -> AWSResponse:
    """An error of a JSON protocol."""
    return answer(status, {"Content-Type": "application/x-amz-json-1.1"}, f'{{"__type": "{code}", "message": "scripted"}}'.encode())


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("AccessDeniedException", "secret_denied"),
        ("DecryptionFailure", "secret_denied"),
        ("UnrecognizedClientException", "access_denied"),
        ("InvalidParameterException", "aws_refused"),
    ],
)
def test_what_the_engine_may_not_read(manager: SecretsManager, session: AwsSession, code: str, reason: str) -> None:
    """A secret that the engine's role or key does not reach says so."""
    ref = manager.put(tenant="t1", endpoint="ep1", credential=CREDENTIAL)
    with Scripted(session, "GetSecretValue", [scripted(code)], service="secrets-manager"), pytest.raises(Permanent) as error:
        manager.get(ref)
    assert error.value.reason == reason
    assert manager.get(ref) == CREDENTIAL


def test_a_busy_service_is_worth_another_try(manager: SecretsManager, session: AwsSession) -> None:
    """Throttling and failures of the service pass."""
    ref = manager.put(tenant="t1", endpoint="ep1", credential=CREDENTIAL)
    for code, status, reason in (("ThrottlingException", 400, "throttled"), ("InternalServiceError", 500, "aws_unavailable")):
        with Scripted(session, "GetSecretValue", [scripted(code, status)], service="secrets-manager"), pytest.raises(Transient) as error:
            manager.get(ref)
        assert error.value.reason == reason


def test_refused_writes_are_told(manager: SecretsManager, session: AwsSession) -> None:
    """A write or a removal that is denied is not taken for one that found nothing."""
    ref = manager.put(tenant="t1", endpoint="ep1", credential=CREDENTIAL)
    denied = scripted("AccessDeniedException")
    with Scripted(session, "PutSecretValue", [denied], service="secrets-manager"), pytest.raises(Permanent) as error:
        manager.put(tenant="t1", endpoint="ep1", credential=CREDENTIAL)
    assert error.value.reason == "secret_denied"
    with Scripted(session, "DeleteSecret", [denied], service="secrets-manager"), pytest.raises(Permanent) as error:
        manager.remove(ref)
    assert error.value.reason == "secret_denied"


def test_two_who_create_at_once_both_succeed(manager: SecretsManager, session: AwsSession) -> None:
    """When another process creates the secret first, ours becomes its newest version."""

    def first(**_: object) -> None:
        session.secretsmanager().meta.events.unregister("before-call.secrets-manager.CreateSecret", first)
        session.secretsmanager().create_secret(Name="eft/t1/ep1", SecretString="{}")

    session.secretsmanager().meta.events.register("before-call.secrets-manager.CreateSecret", first)
    ref = manager.put(tenant="t1", endpoint="ep1", credential=CREDENTIAL)
    assert manager.get(ref) == CREDENTIAL


def test_a_refused_creation_is_told(manager: SecretsManager, session: AwsSession) -> None:
    """A creation that is denied reaches the caller."""
    answers = Scripted(session, "CreateSecret", [scripted("AccessDeniedException")], service="secrets-manager")
    with answers, pytest.raises(Permanent) as error:
        manager.put(tenant="t1", endpoint="ep1", credential=CREDENTIAL)
    assert error.value.reason == "secret_denied"


def test_secrets_are_encrypted_under_the_given_key(session: AwsSession, clock: FakeClock) -> None:
    """With a key of its own, the engine has its secrets encrypted under it."""
    manager = SecretsManager(session, prefix="eft", clock=clock, kms_key="alias/eft")
    ref = manager.put(tenant="t1", endpoint="ep1", credential=CREDENTIAL)
    assert session.secretsmanager().describe_secret(SecretId=ref.name)["KmsKeyId"] == "alias/eft"


def test_a_removed_secret_can_be_restored(manager: SecretsManager, session: AwsSession) -> None:
    """Removing is a deletion that AWS can undo for a week."""
    ref = manager.put(tenant="t1", endpoint="ep1", credential=CREDENTIAL)
    manager.remove(ref)
    session.secretsmanager().restore_secret(SecretId=ref.name)
    assert manager.get(ref) == CREDENTIAL


def test_nothing_is_logged(manager: SecretsManager, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the adapter nor its repr shows a credential."""
    with caplog.at_level(logging.INFO):
        ref = manager.put(tenant="t1", endpoint="ep1", credential=CREDENTIAL)
        manager.get(ref)
    assert PASSWORD not in caplog.text
    assert PASSWORD not in repr(manager) + repr(vars(manager))


def test_a_malformed_answer_does_not_raise_botocores_errors(manager: SecretsManager) -> None:
    """Whatever goes wrong, no error of the SDK escapes."""
    with pytest.raises(Permanent) as error:
        manager.get(SecretRef(name="eft/" + "x" * 3000))
    assert not isinstance(error.value, ClientError)
