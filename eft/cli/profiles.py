"""Where the API is and with which token: the environment, else a profile of the configuration file.

```toml
[profiles.default]
api_url = "https://eft.example.gov"
token = "eyJ…"
```
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eft.cli.failure import Failure, usage

DEFAULT_PROFILE = "default"
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_OWNER_ONLY = 0o077
_HEADER = re.compile(r"^\s*\[")


@dataclass(frozen=True, slots=True)
class Profile:
    """One named pair of address and token; either may be absent."""

    name: str
    api_url: str | None = None
    token: str | None = field(default=None, repr=False)


def default_path(environ: Mapping[str, str]) -> Path:
    """Returns where the configuration file is unless EFT_CONFIG says otherwise (XDG Base Directory Specification)."""
    base = environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "eft" / "config.toml"


def read_profile(path: Path, name: str) -> Profile:
    """Returns a profile of the file; an absent file or profile is an empty one.

    Raises:
        Failure: the file cannot be read or is malformed.
    """
    found = _load(path).get("profiles", {})
    section = found.get(name, {}) if isinstance(found, dict) else None
    if not isinstance(section, dict):
        raise usage(f"{path}: [profiles.{name}] is no table", advice="Write it as in `eft --help`.")
    unknown = sorted(set(section) - {"api_url", "token"})
    if unknown:
        raise usage(f"{path}: [profiles.{name}] has the unknown key '{unknown[0]}'", advice="Known keys are api_url and token.")
    for key, value in section.items():
        if not isinstance(value, str):
            raise usage(f"{path}: {key} of [profiles.{name}] is no string", advice=f'Write {key} = "…".')
    return Profile(name=name, api_url=section.get("api_url"), token=section.get("token"))


def save_profile(path: Path, profile: Profile) -> None:
    """Writes a profile into the file, readable by its owner only; other profiles and their comments stay as they are.

    Raises:
        Failure: the file cannot be written, or is laid out so that the profile cannot be placed in it.
    """
    check_name(profile.name)
    values = {key: value for key, value in (("api_url", profile.api_url), ("token", profile.token)) if value is not None}
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        changed = _with_section(text, f"[profiles.{profile.name}]", values)
        if tomllib.loads(changed).get("profiles", {}).get(profile.name) != values:
            raise usage(f"{path} is laid out in a way that cannot be changed", advice="Edit it by hand.")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as draft:  # mode 0600
            draft.write(changed)
        Path(draft.name).replace(path)
    except tomllib.TOMLDecodeError as error:
        raise usage(f"{path} is no valid TOML: {error}", advice="Correct it, or remove it.") from None
    except OSError as error:
        raise usage(f"{path} cannot be written: {error.strerror}", advice="Choose another with EFT_CONFIG.") from None


def exposed(path: Path) -> bool:
    """Returns whether others than its owner can read the file."""
    try:
        return bool(path.stat().st_mode & _OWNER_ONLY)
    except OSError:
        return False


def check_name(name: str) -> str:
    """Returns the profile's name.

    Raises:
        Failure: it is no bare TOML key.
    """
    if not _NAME.fullmatch(name):
        raise usage(f"'{name}' is no name for a profile", advice="Use letters, digits, - and _.")
    return name


def environment() -> Mapping[str, str]:
    """Returns the process's environment: the one place where the command line reads it."""
    return os.environ


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise usage(f"{path} is no valid TOML: {error}", advice="Correct it, or choose another with EFT_CONFIG.") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> Failure:
    return usage(f"{path} cannot be read: {error.strerror}", advice="Choose another with EFT_CONFIG.")


def _with_section(text: str, header: str, values: dict[str, str]) -> str:
    section = [header, *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())]
    lines = text.splitlines()
    starts = [n for n, line in enumerate(lines) if line.partition("#")[0].strip() == header]
    if not starts:
        before = [*lines, ""] if lines else []
        return "\n".join([*before, *section, ""])
    start = starts[0]
    end = next((n for n in range(start + 1, len(lines)) if _HEADER.match(lines[n])), len(lines))
    after = ["", *lines[end:]] if end < len(lines) else []
    return "\n".join([*lines[:start], *section, *after, ""])
