"""The project's own files, read once for the tests beside this."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("eft", "tasks", "api", "beat_schedules", "deploy")
PYPROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
DOCKERFILE: Final = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()


def engine_services(compose: dict[str, Any]) -> dict[str, list[str]]:
    """Returns the command of each service that runs a role of the engine's image, by the service's name."""
    services: dict[str, Any] = compose["services"]
    return {
        name: service["command"] for name, service in services.items() if service["image"] == "eft:local" and "entrypoint" not in service
    }
