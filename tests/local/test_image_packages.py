"""What the image installs is all that its roles import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from deploy.local import places

MODULES: Final = (
    "api.wsgi",
    "beat_schedules.scheduler",
    "deploy.entrypoint",
    "eft.cli.main",
    "kombu.transport.redis",
    "tasks.app",
    "tasks.ingress",
    "tasks.monitoring",
    "tasks.steps",
)


@pytest.mark.slow
@pytest.mark.enable_socket
def test_the_images_lock_carries_every_role(tmp_path: Path) -> None:
    """A fresh environment with requirements/run.txt and nothing else imports each role, and the transport of Flower's side channel."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True, timeout=300)
    lock = places.ROOT / "requirements" / "run.txt"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", lock], check=True, timeout=900)
    for module in MODULES:
        found = subprocess.run(
            [python, "-c", f"import {module}"], cwd=places.ROOT, check=False, capture_output=True, text=True, timeout=120
        )
        assert found.returncode == 0, f"{module}: {found.stderr[-2000:]}"
