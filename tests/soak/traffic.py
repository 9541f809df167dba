"""Files that are asked to be moved, one after the other, between all kinds of endpoints."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx

from deploy.local.customer import Customer, Refused
from deploy.local.samples import KIB, MIB
from tests.soak.inboxes import Inbox

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

UNIT: Final = 32 * KIB
"""The size of every second file, so that a count of bytes can end just before the last of one."""
RETRY: Final = {"first": "PT0.2S", "longest": "PT2S", "tries": 100}
UNDER_WAY: Final = 48
"""Files that have not arrived yet, at most."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where files come from, and how one is put there."""

    endpoint: str
    kind: str
    put: Callable[[str, bytes], object]


@dataclass(slots=True)
class Asked:
    """One file that was asked to be moved."""

    name: str
    sha256: str
    origin: Origin
    inbox: Inbox
    transfer: str | None = None
    """The id that the API answered with; None: not acknowledged."""


class Traffic:
    """Asks for one file after the other while there is time."""

    def __init__(self, customer: Customer, origins: Sequence[Origin], inboxes: Sequence[Inbox], *, seed: int) -> None:
        self.asked: list[Asked] = []
        self.refused: list[str] = []
        self._customer, self._origins, self._inboxes = customer, origins, inboxes
        self._random = random.Random(seed)

    def acknowledged(self) -> list[str]:
        """Returns the ids so far."""
        return [one.transfer for one in self.asked if one.transfer is not None]

    def run(self, until: float) -> None:
        """Returns at the time given."""
        while time.monotonic() < until:
            arrived = sum(min(1, one.inbox.appeared[one.name]) for one in self.asked[-4 * UNDER_WAY :])
            if min(len(self.asked), 4 * UNDER_WAY) - arrived >= UNDER_WAY:
                time.sleep(0.05)
                continue
            self._ask()

    def _ask(self) -> None:
        name = f"{len(self.asked):06}-{self._random.getrandbits(32):08x}.bin"
        content = self._random.randbytes(self._size())
        origin, inbox = self._random.choice(self._origins), self._random.choice(self._inboxes)
        origin.put(name, content)
        asked = Asked(name, hashlib.sha256(content).hexdigest(), origin, inbox)
        self.asked.append(asked)
        policy: dict[str, Any] = {
            "receiver_removes": inbox.consuming,
            "disposition": self._random.choice(["keep", "delete"]),
            "retry": RETRY,
        }
        # One request in eight is sent twice: under its key it is one transfer.
        for _ in range(self._random.choice([1] * 7 + [2])):
            try:
                asked.transfer = self._customer.submit((origin.endpoint, name), (inbox.endpoint, name), key=name, policy=policy)
            except Refused as refused:
                self.refused.append(str(refused))
            except httpx.HTTPError as error:
                # It may have been accepted: whoever got no answer cannot say.
                self.refused.append(type(error).__name__)

    def _size(self) -> int:
        dice = self._random.random()
        if dice < 0.5:
            return UNIT
        if dice < 0.52:
            return 0
        if dice < 0.97:
            return self._random.randrange(1, 256 * KIB)
        return self._random.randrange(5 * MIB, 12 * MIB)


def into_directory(directory: Path) -> Callable[[str, bytes], object]:
    """Returns what puts a file into a directory, whole."""

    def put(name: str, content: bytes) -> None:
        draft = directory / f".{name}.draft"
        draft.write_bytes(content)
        draft.rename(directory / name)

    return put


def into_bucket(s3: S3Client, bucket: str) -> Callable[[str, bytes], object]:
    """Returns what puts an object into a bucket."""
    return lambda name, content: s3.put_object(Bucket=bucket, Key=name, Body=content)
