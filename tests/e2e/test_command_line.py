"""The `eft` command against the running stack: what a person, or a script, does from the first endpoint to a re-drive."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.local import places
from deploy.local.sftp import write_private
from deploy.local.stack import LocalStack
from tests.running import Shop

Eft = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def eft(stack: LocalStack, shop: Shop, tmp_path: Path) -> Eft:
    """Runs `eft` as the customer of the test."""
    environment = {
        **os.environ,
        "EFT_API_URL": stack.api_url,
        "EFT_TOKEN": stack.token(shop.customer.tenant),
        "EFT_CONFIG": str(tmp_path / "config.toml"),
        "COLUMNS": "200",
    }

    def run(*words: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "eft.cli", *words]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=places.ROOT, timeout=180, check=False)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


def answer(done: "subprocess.CompletedProcess[str]") -> Any:  # noqa: ANN401 - JSON
    """Returns the one document on standard output."""
    return json.loads(done.stdout)


def test_from_the_first_endpoint_to_a_redrive(shop: Shop, eft: Eft, tmp_path: Path) -> None:
    """Endpoints are onboarded, a file is submitted and watched, a flow runs, a blocked delivery is found and re-driven."""
    outbox, inbox, bucket = shop.account(), shop.quirky_account(), shop.bucket()
    (outbox.directory / "orders").mkdir()
    for name in ("a.csv", "b.csv"):
        (outbox.directory / "orders" / name).write_text(name)
    key, password = tmp_path / "key", tmp_path / "password"
    write_private(key, outbox.private_key or "")
    write_private(password, f"{inbox.password}\n")
    common = ("--root", str(outbox.directory), "--key-file", str(key), "--host-key", outbox.host_key)
    eft("endpoint", "add", "sftp", "outbox", "--host", outbox.host, "--port", str(outbox.port), "-u", outbox.username, *common)
    common = ("--root", str(inbox.directory), "--password-file", str(password), "--host-key", inbox.host_key)
    eft("endpoint", "add", "sftp", "inbox", "--host", inbox.host, "--port", str(inbox.port), "-u", inbox.username, *common)
    eft("endpoint", "add", "s3", "landing", "--bucket", bucket, "--region", "us-gov-west-1")
    assert {one["name"] for one in answer(eft("endpoint", "list", "--json"))["items"]} == {"outbox", "inbox", "landing"}

    eft("transfer", "submit", "--from", "outbox:orders/a.csv", "--to", "landing:in/", "--watch")
    assert shop.s3.get_object(Bucket=bucket, Key="in/a.csv")["Body"].read() == b"a.csv"

    (inbox.directory / "b.csv").write_text("in the way")
    eft("flow", "add", "orders", "--from", "outbox:orders", "--to", "inbox")
    eft("flow", "run", "orders", "--watch", code=1)
    (dead,) = answer(eft("transfer", "list", "--state", "dead", "--json"))["items"]
    assert (dead["source"]["path"], dead["reason"]) == ("orders/b.csv", "destination_exists")
    assert "destination_exists" in eft("transfer", "show", dead["id"]).stdout

    (inbox.directory / "b.csv").unlink()
    eft("transfer", "redrive", dead["id"])
    eft("transfer", "watch", dead["id"])
    assert {path.name: path.read_text() for path in inbox.directory.iterdir()} == {"a.csv": "a.csv", "b.csv": "b.csv"}
    eft("transfer", "cancel", dead["id"], code=5)
    eft("transfer", "show", "0" * 32, code=3)
