"""Which option a field of a request comes from: the API tells what is wrong by its own names."""

from __future__ import annotations

from collections.abc import Container
from typing import Final

NAMES: Final = {
    "name": "NAME",
    "url": "URL",
    "source": "--from",
    "destination": "--to",
    "destination_directory": "--to",
    "selection.directory": "--from",
    "selection.stability.apart": "--looks-apart",
    "policy.name_template": "--name",
    "policy.disposition": "--dispose",
    "policy.archive_directory": "--archive-to",
    "trigger.blackouts": "--blackout",
    "expected.by": "--expect-by",
    "expected.files": "--expect-files",
    "expected.within": "--expect-within",
    "expected_sha256": "--sha256",
    "Idempotency-Key": "--key",
    "modified_from": "--from",
    "modified_until": "--until",
    "host_keys": "--host-key",
    "bandwidth": "--bandwidth",
    "credential.private_key": "--key-file",
    "events": "--event",
}
"""Fields that are called otherwise here; all others are called as their options."""


def option_of(field: str, options: Container[str]) -> str:
    """Returns the option or argument that a field comes from, of a command with these options; the field where there is none."""
    steps = [step for step in field.split(".") if not step.isdigit()]
    for length in range(len(steps), 0, -1):
        named = NAMES.get(".".join(steps[:length]))
        if named is not None and (named in options or not named.startswith("--")):
            return named
    plain = f"--{steps[-1].replace('_', '-')}" if steps else ""
    return plain if plain in options else field
