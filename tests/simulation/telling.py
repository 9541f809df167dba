"""A trace in words that a person can follow: transfers by number, rows by what changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


def _say(value: Any, number: Callable[[str], str]) -> str:  # noqa: ANN401, PLR0911 - anything that travels
    match value:
        case Transfer():
            since = f" {value.reason}" if value.reason else ""
            gone = f" gone to {value.elsewhere}" if value.elsewhere else ""
            return f"<{number(value.id)} {value.state} fence {value.fence} era {value.region_epoch} attempt {value.attempt}{since}{gone}>"
        case Intent():
            return (
                f"<intent {number(value.transfer)} {value.token[-30:]} era {value.region_epoch}{' abandoned' if value.abandoned else ''}>"
            )
        case JournalEntry():
            return f"<entry {number(value.transfer)}{' closed' if value.closed else ''}>"
        case Partition():
            return f"<partition {value.number} {value.home[7:11]} era {value.region_epoch} {value.mode} {value.phase} evidence {value.evidence}>"
        case Actor():
            return value.name
        case SftpEndpoint() | S3Endpoint():
            return value.id
        case Message():
            part = "" if value.part is None else f" part {value.part}"
            return f"<{value.step} {' '.join(number(one) if '/' not in one else one for one in value.ids)}{part}>"
        case Envelope():
            return f"{_say(value.message, number)}×{value.receives}"
        case Flow():
            return f"<flow {value.id}>"
        case Inode():
            return f"<inode of {len(value.data)}>"
        case Commit():
            return f"<commit {value.token[-30:]}>"
        case PartDone():
            return f"<part {value.number}>"
        case bytes():
            return f"<{len(value)} bytes>"
        case EftError():
            return f"{type(value).__name__} {value.reason}: {value}"
        case str():
            return number(value) if len(value) == 32 and "-" not in value and "." not in value else value
        case list() | tuple() | set() | frozenset():
            shown = sorted(_say(each, number) for each in value) if isinstance(value, set) else [_say(each, number) for each in value]
            return f"[{', '.join(shown)}]"
        case dict():
            return f"{{{', '.join(f'{key}: {_say(each, number)}' for key, each in value.items())}}}"
        case _ if hasattr(value, "fingerprint") and hasattr(value, "path"):
            return f"<file {value.path} {value.fingerprint.size}>"
        case _ if type(value).__name__.endswith("iterator"):
            return "…"
        case _:
            return str(value)
