"""The API as a process: it starts without AWS, says so, and leaves politely."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from api.operation import MAX_BODY
from api.wsgi import application
from deploy.local.identity import create_identity, issue
from deploy.local.process import Child, answers, free_port
from eft.settings import Settings

pytestmark = pytest.mark.enable_socket

PATIENCE = timedelta(seconds=120)
SLOW = """
import sys, time
from pathlib import Path
from flask import Flask
from api.__main__ import serve

app = Flask("slow")
here = Path(sys.argv[1])

@app.get("/")
def up():
    return "up"

@app.get("/slow")
def slow():
    (here / "begun").touch()
    while not (here / "go").exists():
        time.sleep(0.01)
    return "x" * 300_000

serve(app, host="127.0.0.1", port=int(sys.argv[2]))
"""

OVER_FAKES = """
import sys
from pathlib import Path
from api.__main__ import serve
from api.app import create_app
from api.auth import AuthSettings
from deploy.local.identity import create_identity
from tests.world import World

identity = create_identity(Path(sys.argv[1]))
auth = AuthSettings(issuer=identity.issuer, audience=identity.audience, jwks=str(identity.jwks))
serve(create_app(World().engine, lambda messages: None, auth), host="127.0.0.1", port=int(sys.argv[2]))
"""


def environment(tmp_path: Path, port: int) -> dict[str, str]:
    """Returns the environment of an API whose AWS cannot be reached."""
    return {
        "PATH": os.environ["PATH"],
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_MAX_ATTEMPTS": "1",
        "EFT_AWS_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "EFT_API_PORT": str(port),
        "EFT_JWKS": str(create_identity(tmp_path).jwks),
        "EFT_JWT_ISSUER": create_identity(tmp_path).issuer,
    }


@pytest.fixture
def port() -> int:
    """Returns a free port."""
    return free_port()


@pytest.fixture
def api(tmp_path: Path, port: int) -> Iterator[Child]:
    """Yields the API as its own process, without AWS."""
    child = Child(
        "api",
        [sys.executable, "-m", "api"],
        log=tmp_path / "api.log",
        environment=environment(tmp_path, port),
        ready=answers(f"http://127.0.0.1:{port}/v1/health/live"),
        deadline=PATIENCE,
    )
    with child:
        yield child


def test_without_aws(api: Child, port: int, tmp_path: Path) -> None:
    """Without AWS the process is alive, not ready, and answers a customer with 503 and when to come again; SIGTERM ends it with 0."""
    token = issue(create_identity(tmp_path), "acme", ["flows:read"], timedelta(hours=1))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/v1", timeout=PATIENCE.total_seconds(), trust_env=False) as http:
        not_ready = http.get("/health/ready")
        assert not_ready.status_code == 503
        assert not_ready.json() == {"ready": False, "checks": {"ledger": False, "registry": False, "token_keys": True}}
        refused = http.get("/flows", headers={"Authorization": f"Bearer {token}"})
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.json()["reason"]
    api.signal(signal.SIGTERM)
    assert api.wait(PATIENCE) == 0
    lines = [json.loads(line) for line in api.log.read_text().splitlines()]
    assert [line["status"] for line in lines if line["message"] == "request" and line["path"] == "/v1/flows"] == [503]
    assert all(line["request_id"] for line in lines if line["message"] == "request")
    assert token not in api.log.read_text()


def program(tmp_path: Path, port: int, text: str, *, ready: str) -> Child:
    """Returns a small program as a process, not yet started; it gets the directory and the port."""
    file = tmp_path / "program.py"
    file.write_text(text)
    return Child(
        "program",
        [sys.executable, str(file), str(tmp_path), str(port)],
        log=tmp_path / "program.log",
        environment={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])},
        ready=answers(f"http://127.0.0.1:{port}{ready}"),
        deadline=PATIENCE,
    )


def test_bodies_through_the_server(tmp_path: Path, port: int) -> None:
    """Behind the real server, whole and chunked, good and oversized bodies get the app's own answers, and none names the server."""
    good = json.dumps({"source": {"endpoint": "sftp-a", "path": "a"}, "destination": {"endpoint": "s3-a", "path": "a"}}).encode()
    large = b" " * (MAX_BODY + 1)
    with (
        program(tmp_path, port, OVER_FAKES, ready="/v1/health/ready"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}/v1", timeout=PATIENCE.total_seconds(), trust_env=False) as http,
    ):
        token = issue(create_identity(tmp_path), "acme", ["transfers:write"], timedelta(hours=1))
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        for body, status in ((good, 202), (large, 413)):
            for sent in (body, iter([body[:10], body[10:]])):
                answer = http.post("/transfers", content=sent, headers=headers)
                assert answer.status_code == status
                assert "Server" not in answer.headers
                assert status == 202 or answer.json()["reason"] == "body_too_large"


def test_requests_under_way_end(tmp_path: Path, port: int) -> None:
    """A request that is under way when SIGTERM comes gets its whole answer."""
    got: list[int] = []

    def ask() -> None:
        with httpx.Client(timeout=PATIENCE.total_seconds(), trust_env=False) as http:
            got.append(len(http.get(f"http://127.0.0.1:{port}/slow").content))

    with program(tmp_path, port, SLOW, ready="/") as child:
        asking = threading.Thread(target=ask)
        asking.start()
        give_up = time.monotonic() + PATIENCE.total_seconds()
        while not (tmp_path / "begun").exists() and time.monotonic() < give_up:
            time.sleep(0.01)
        child.signal(signal.SIGTERM)
        (tmp_path / "go").touch()
        assert child.wait(PATIENCE) == 0
        asking.join(PATIENCE.total_seconds())
    assert got == [300_000]


def test_without_keys() -> None:
    """An API that is not told where the token issuer's keys are does not start."""
    with pytest.raises(ValueError, match="EFT_JWKS"):
        application(Settings(jwks=""))
