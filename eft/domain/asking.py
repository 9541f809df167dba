"""What a state machine asks for: one transfer, and to be told by its task token how that ended (docs/events.md)."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import Field, ValidationError

from eft.domain.endpoint import Frozen
from eft.domain.flow import Policy
from eft.errors import Permanent

LONGEST_TOKEN = 2048
"""Characters of a task token (AWS Step Functions API Reference, SendTaskSuccess)."""


class PlaceAsked(Frozen):
    """One end of a transfer; without a path the policy's template names the destination."""

    endpoint: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    path: str | None = None


class TransferAsked(Frozen):
    """A message in the queue `requests`."""

    format: Literal[1] = 1
    tenant: str = Field(min_length=1, max_length=128)
    source: PlaceAsked
    destination: PlaceAsked
    policy: Policy = Policy()
    expected_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    task_token: str = Field(min_length=1, max_length=LONGEST_TOKEN, repr=False)

    @property
    def key(self) -> str:
        """What makes the request unique: queues deliver twice, a state machine's next try has another token."""
        return f"task:{hashlib.sha256(self.task_token.encode()).hexdigest()}"


class NoRequest(Permanent):
    """A message that asks for nothing that can be carried out; `task_token` is whom to tell, where that can be read."""

    def __init__(self, message: str, *, reason: str = "request_invalid", task_token: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.task_token = task_token


def request_in(body: str) -> TransferAsked:
    """Returns what a message's text asks for.

    Raises:
        NoRequest: `request_invalid`, naming the fields at fault.
    """
    try:
        return TransferAsked.model_validate_json(body)
    except ValidationError as error:
        # Neither values nor contexts: one of them is the token.
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        named = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'the message'}: {fault['msg']}" for fault in faults[:3])
    raise NoRequest(f"the request is not acceptable: {named}", task_token=_token_in(body))


def _token_in(body: str) -> str | None:
    try:
        parsed: Any = json.loads(body)
    except (ValueError, RecursionError):
        # Text that is nested too deeply for its parser never becomes better.
        return None
    token = parsed.get("task_token") if isinstance(parsed, dict) else None
    return token if isinstance(token, str) and 0 < len(token) <= LONGEST_TOKEN else None
