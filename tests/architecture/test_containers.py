"""Image and compose file follow the code, and give nothing away."""

from __future__ import annotations

import re
from importlib.util import find_spec

from deploy import entrypoint
from deploy.local.identity import ISSUER
from eft.settings import Settings
from tests.architecture.project import COMPOSE, DOCKERFILE, PACKAGES, PYPROJECT, ROOT, engine_services

# Read by `tasks.monitoring` (Flower) and by the command line, which are no parts of the engine.
BESIDE_THE_SETTINGS = {"EFT_FLOWER_AUTH", "EFT_FLOWER_ADDRESS", "EFT_FLOWER_PORT", "EFT_LOCAL", "EFT_CONFIG"}


def test_every_role_is_a_module_that_exists() -> None:
    """A moved module would break a container only when it starts."""
    for role, (module, *_) in entrypoint.COMMANDS.items():
        found = find_spec(module)
        assert found is not None, role
        assert found.submodule_search_locations is None or find_spec(f"{module}.__main__") is not None, role


def test_compose_runs_every_service_role_of_the_image() -> None:
    """Each role but the client runs, and none that the entrypoint does not know."""
    running = {command[0] for command in engine_services(COMPOSE).values()}
    assert running == set(entrypoint.COMMANDS) - {"cli"}


def test_every_container_is_closed_in() -> None:
    """No service may write to its image, gain a privilege, or run as root."""
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
        assert "user" not in service, name
    for target in ("engine", "standins", "sftp"):
        users = [line.split()[1] for line in _stage(target) if line.startswith("USER ")]
        assert users, target
        assert not users[-1].startswith(("0", "root")), target


def test_ports_are_published_on_the_loopback_address_only() -> None:
    """A laptop in a café offers nothing to its neighbours."""
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert published
    assert all(str(port).startswith("127.0.0.1:") for port in published)


def test_every_variable_of_the_containers_is_read_by_somebody() -> None:
    """A misspelt EFT_ variable would silently leave the default."""
    known = {f"EFT_{name.upper()}" for name in Settings.model_fields} | BESIDE_THE_SETTINGS
    given = {name for service in COMPOSE["services"].values() for name in service.get("environment", {})}
    given |= set(re.findall(r"(EFT_\w+)=", "\n".join(DOCKERFILE)))
    assert {name for name in given if name.startswith("EFT_")} <= known


def test_compose_trusts_the_issuer_that_it_prepares() -> None:
    """The API's issuer is the local stack's, of whose keys `prepare` makes the document."""
    assert COMPOSE["services"]["api"]["environment"]["EFT_JWT_ISSUER"] == ISSUER


def test_the_image_holds_every_package() -> None:
    """The packages of pyproject.toml, the Dockerfile and the build context are the same."""
    assert tuple(PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == PACKAGES
    copied = {line.split()[1] for line in _stage("engine") if line.startswith("COPY ") and "--from" not in line}
    assert copied == set(PACKAGES)
    context = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{package}" for package in PACKAGES} <= set(context)


def _stage(target: str) -> list[str]:
    """Returns the lines of one stage of the Dockerfile."""
    begin = next(number for number, line in enumerate(DOCKERFILE) if re.fullmatch(rf"FROM \S+ AS {target}", line))
    rest = DOCKERFILE[begin + 1 :]
    end = next((number for number, line in enumerate(rest) if line.startswith("FROM ")), len(rest))
    return rest[:end]


def test_each_image_is_built_by_one_service() -> None:
    """Built by each service that runs it, an image would replace itself, and the containers of the service before with it."""
    built = [service["image"] for service in COMPOSE["services"].values() if "build" in service]
    assert sorted(built) == sorted({service["image"] for service in COMPOSE["services"].values()})
