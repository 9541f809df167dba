"""A trace in words that a person can follow: transfers by number, rows by what changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import UnionType
from typing import Any, Final

from eft.domain.endpoint import S3Endpoint, SftpEndpoint
from eft.domain.flow import Flow
from eft.domain.ownership import Intent, JournalEntry, Partition
from eft.domain.parts import PartDone
from eft.domain.transfer import Commit, Transfer
from eft.errors import EftError
from eft.journey.messages import Message
from tests.simulation.kernel import Actor
from tests.simulation.play import Play
from tests.simulation.sqs import Envelope
from tests.simulation.truth import Inode

ID: Final = 32
"""Letters of a transfer's id."""


def told(play: Play) -> list[str]:
    """Returns the trace, one line for each call."""
    numbers: dict[str, str] = {}

    def number(one: str) -> str:
        return numbers.setdefault(one, f"T{len(numbers) + 1}")

    def say(value: object) -> str:
        return _say(value, number)

    lines = []
    for at, who, site, call, args, named, result in play.kernel.trace:
        about = ", ".join([*(say(arg) for arg in args), *(f"{name}={say(arg)}" for name, arg in named.items() if name != "lease")])
        what = f"{site}.{call}({about})" if site else f"{call} {about}"
        answer = "" if result is None else f" → {say(result)}"
        lines.append(f"{at / 1000:10.3f} {who:14} {what}{answer}")
    return [*lines, *(f"{name} is {one}" for one, name in numbers.items())]


def _say(value: Any, number: Callable[[str], str]) -> str:  # noqa: ANN401 - anything that travels
    for kind, words in _WORDS.items():
        if isinstance(value, kind):
            return words(value, number)
    if hasattr(value, "fingerprint") and hasattr(value, "path"):
        return f"<file {value.path} {value.fingerprint.size}>"
    return "…" if isinstance(value, Iterator) else str(value)


def _transfer(value: Transfer, number: Callable[[str], str]) -> str:
    since = f" {value.reason}" if value.reason else ""
    gone = f" gone to {value.elsewhere}" if value.elsewhere else ""
    return f"<{number(value.id)} {value.state} fence {value.fence} era {value.region_epoch} attempt {value.attempt}{since}{gone}>"


def _intent(value: Intent, number: Callable[[str], str]) -> str:
    return f"<intent {number(value.transfer)} {value.token[-30:]} era {value.region_epoch}{' abandoned' if value.abandoned else ''}>"


def _partition(value: Partition, _: Callable[[str], str]) -> str:
    home = value.home[7:11]
    return f"<partition {value.number} {home} era {value.region_epoch} {value.mode} {value.phase} evidence {value.evidence}>"


def _message(value: Message, number: Callable[[str], str]) -> str:
    part = "" if value.part is None else f" part {value.part}"
    return f"<{value.step} {' '.join(one if '/' in one else number(one) for one in value.ids)}{part}>"


def _several(value: Any, number: Callable[[str], str]) -> str:  # noqa: ANN401
    # In the order of what is there, never of a set: a trace is the same in every process.
    shown = [_say(each, number) for each in (sorted(value) if isinstance(value, set | frozenset) else value)]
    return f"[{', '.join(shown)}]"


_WORDS: Final[dict[type | UnionType, Callable[[Any, Callable[[str], str]], str]]] = {
    Transfer: _transfer,
    Intent: _intent,
    Partition: _partition,
    Message: _message,
    JournalEntry: lambda value, number: f"<entry {number(value.transfer)}{' closed' if value.closed else ''}>",
    Envelope: lambda value, number: f"{_message(value.message, number)}×{value.receives}",
    Actor: lambda value, _: value.name,
    SftpEndpoint | S3Endpoint | Flow: lambda value, _: f"<{value.id}>",
    Inode: lambda value, _: f"<inode of {len(value.data)}>",
    Commit: lambda value, _: f"<commit {value.token[-30:]}>",
    PartDone: lambda value, _: f"<part {value.number}>",
    bytes: lambda value, _: f"<{len(value)} bytes>",
    EftError: lambda value, _: f"{type(value).__name__} {value.reason}: {value}",
    str: lambda value, number: number(value) if len(value) == ID and "-" not in value and "." not in value else value,
    list | tuple | set | frozenset: _several,
    dict: lambda value, number: f"{{{', '.join(f'{key}: {_say(each, number)}' for key, each in value.items())}}}",
}
"""How each kind of value is told; the first that fits."""
