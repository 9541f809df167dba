"""The image's roles, as processes of this machine: each does its work, says so, and writes nothing where it stands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from deploy.entrypoint import COMMANDS
from deploy.local import places
from deploy.local.identity import ISSUER, create_identity, issue
from deploy.local.prepare import CUSTOMER_BUCKET
from deploy.local.process import LOOPBACK, Child, free_port
from eft.adapters.aws import AwsSession, StaticKeys
from eft.adapters.registry import DynamoRegistry
from eft.domain.flow import Flow, Interval
from tests.servers import Aws

ENTRYPOINT = (sys.executable, "-m", "deploy.entrypoint")
PATIENCE = timedelta(seconds=60)

Start = Callable[..., AbstractContextManager[Child]]


@pytest.fixture
def environment(aws: Aws, redis_url: str, tmp_path: Path) -> dict[str, str]:
    """What a container's environment says, with new tables and queues."""
    fresh = aws.fresh()
    return {
        **aws.environment,
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(places.ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "EFT_AWS_ENDPOINT": aws.url,
        "EFT_PREFIX": fresh.resources.prefix,
        "EFT_STAGING_BUCKET": fresh.resources.staging_bucket,
        "EFT_QUEUE_BASE": f"{aws.url}/000000000000/",
        "EFT_REDIS_URL": redis_url,
        "EFT_HEALTH_FILE": str(tmp_path / "queues.json"),
        "EFT_JWT_ISSUER": ISSUER,
        "EFT_JWKS": str(tmp_path / "state" / "identity" / "jwks.json"),
        "EFT_API_PORT": str(free_port()),
        "EFT_FLOWER_PORT": str(free_port()),
        "EFT_FLOWER_AUTH": "operator:in-a-test",
        "EFT_LOOK_EVERY": "1",
        "EFT_POLL_WAIT": "1",
    }


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a role in an empty directory and waits until its probe says that it is well."""

    def started(role: str, environment: Mapping[str, str], *more: str, ready: Callable[[], bool] | None = None) -> Child:
        where = tmp_path / role
        where.mkdir()
        return Child(
            role,
            [*ENTRYPOINT, role, *more],
            log=tmp_path / f"{role}.log",
            environment=environment,
            directory=where,
            ready=ready or (lambda: _well(role, environment)),
        )

    return started


def _well(role: str, environment: Mapping[str, str]) -> bool:
    probe = subprocess.run([*ENTRYPOINT, "probe", role], env=environment, cwd=places.ROOT, capture_output=True, check=False, timeout=60)
    return probe.returncode == 0


def test_a_prepared_api_serves_whom_the_local_issuer_vouches_for(environment: dict[str, str], start: Start, tmp_path: Path) -> None:
    """After `prepare` the api role answers, and accepts a token of the issuer that was made, and none without."""
    api = f"http://{LOOPBACK}:{environment['EFT_API_PORT']}"
    state = tmp_path / "state"
    state.mkdir()
    prepared = subprocess.run(
        [sys.executable, "-m", "deploy.local.prepare", str(state), api], env=environment, cwd=places.ROOT, check=False, timeout=120
    )
    assert prepared.returncode == 0
    assert (state / "api-url").read_text() == f"{api}\n"
    assert not _well("api", environment)
    token = issue(create_identity(state / "identity"), "acme", ["endpoints:read"], PATIENCE)
    with start("api", environment):
        assert httpx.get(f"{api}/v1/endpoints").status_code == 401
        answer = httpx.get(f"{api}/v1/endpoints", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200, answer.text
    assert list((tmp_path / "api").iterdir()) == []


def test_prepare_makes_the_customers_bucket_and_may_run_again(environment: dict[str, str], aws: Aws, tmp_path: Path) -> None:
    """`docker compose up` runs it each time; the second run finds everything and keeps the issuer's key."""
    keys = set()
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "deploy.local.prepare", str(tmp_path), "http://api:8080"], env=environment, cwd=places.ROOT, check=False
        )
        assert done.returncode == 0
        keys.add((tmp_path / "identity" / "issuer.pem").read_bytes())
    assert len(keys) == 1
    assert CUSTOMER_BUCKET in {bucket["Name"] for bucket in aws.s3.list_buckets()["Buckets"]}


def test_prepare_refuses_aws_itself(environment: dict[str, str], tmp_path: Path) -> None:
    """Without a stand-in's address nothing is made: a stray run must not reach a real account."""
    del environment["EFT_AWS_ENDPOINT"]
    done = subprocess.run(
        [sys.executable, "-m", "deploy.local.prepare", str(tmp_path), "http://api:8080"],
        env=environment,
        cwd=places.ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "EFT_AWS_ENDPOINT" in done.stderr
    assert not (tmp_path / "identity").exists()


def test_a_worker_is_well_while_it_hears_from_its_queues(environment: dict[str, str], start: Start, tmp_path: Path) -> None:
    """The probe of the worker role is false before it polls and true while it does."""
    assert not _well("worker", environment)
    with start("worker", environment, "--concurrency", "1", "--loglevel", "INFO"):
        assert _well("worker", environment)
    assert list((tmp_path / "worker").iterdir()) == []


def test_beat_fires_a_flow_by_its_schedule(environment: dict[str, str], start: Start, aws: Aws, tmp_path: Path) -> None:
    """The beat role puts the discover of a flow that is due into its queue, and keeps no schedule file."""
    session = AwsSession(region=aws.region, endpoint_url=aws.url, keys=StaticKeys(aws.server.ACCESS_KEY, aws.server.SECRET_KEY))
    created = datetime.now(UTC) - timedelta(hours=1)
    trigger = Interval(every=timedelta(minutes=5))
    flow = Flow(id="f1", tenant="acme", name="f", source="a", destination="b", trigger=trigger, created=created)
    DynamoRegistry(session, table=f"{environment['EFT_PREFIX']}registry").add_flow(flow)
    queue = aws.sqs.get_queue_url(QueueName=f"{environment['EFT_PREFIX']}discover")["QueueUrl"]

    def fired() -> bool:
        attributes = aws.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["ApproximateNumberOfMessages"])
        return int(attributes["Attributes"]["ApproximateNumberOfMessages"]) > 0

    assert not fired()
    with start("beat", environment, ready=fired):
        assert _well("beat", environment)
    assert list((tmp_path / "beat").iterdir()) == []


def test_flower_serves_behind_its_password(environment: dict[str, str], start: Start, tmp_path: Path) -> None:
    """The flower role answers its probe, and shows its pages only to whom knows the password."""
    with start("flower", environment):
        page = f"http://{LOOPBACK}:{environment['EFT_FLOWER_PORT']}/workers"
        assert httpx.get(page).status_code == 401
        assert httpx.get(page, auth=("operator", "in-a-test")).status_code == 200
    assert list((tmp_path / "flower").iterdir()) == []


@pytest.mark.parametrize("arguments", [(), ("manager",), ("probe",), ("probe", "manager")])
def test_an_unknown_role_is_a_mistake_that_names_the_roles(arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    """A mistyped role ends at once with EX_USAGE and the list of roles."""
    done = subprocess.run([*ENTRYPOINT, *arguments], env=environment, cwd=places.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 64
    assert all(role in done.stderr for role in COMMANDS)
