"""Telling AWS: an event bus of EventBridge, and state machines of Step Functions that wait by a task token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from botocore.exceptions import ClientError

from eft.adapters.aws import AwsSession
from eft.adapters.aws_errors import code_of, translated
from eft.domain.announcement import Announcement
from eft.errors import NotFound

SOURCE: Final = "eft"
BATCH: Final = 10
"""Entries in one PutEvents (Amazon EventBridge API Reference, PutEvents)."""
ERROR_LENGTH: Final = 256
CAUSE_LENGTH: Final = 32768
"""Characters that SendTaskFailure takes (AWS Step Functions API Reference)."""
_GONE: Final = frozenset({"InvalidToken", "TaskDoesNotExist", "TaskTimedOut"})


class EventBridgeBus:
    """`ports.Bus` on EventBridge: the detail is the announcement, the detail-type its type, the source `eft`."""

    def __init__(self, session: AwsSession, *, name: str) -> None:
        self._session = session
        self._name = name

    def publish(self, announcements: Sequence[Announcement]) -> Sequence[Announcement]:
        """One request per ten."""
        left: list[Announcement] = []
        for start in range(0, len(announcements), BATCH):
            some = announcements[start : start + BATCH]
            entries: list[Any] = [
                {
                    "EventBusName": self._name,
                    "Source": SOURCE,
                    "DetailType": one.type.value,
                    "Time": one.timestamp,
                    "Resources": [],
                    "Detail": one.model_dump_json(),
                }
                for one in some
            ]
            with translated("the event bus", session=self._session):
                answer = self._session.events().put_events(Entries=entries)
            left += [one for one, entry in zip(some, answer["Entries"], strict=True) if "ErrorCode" in entry]
        return left


class StepFunctions:
    """`ports.Callbacks` on AWS Step Functions."""

    def __init__(self, session: AwsSession) -> None:
        self._session = session

    def succeed(self, token: str, *, output: str) -> None:
        """One request."""
        self._send("send_task_success", token, output=output)

    def fail(self, token: str, *, error: str, cause: str) -> None:
        """One request."""
        self._send("send_task_failure", token, error=error[:ERROR_LENGTH], cause=cause[:CAUSE_LENGTH])

    def _send(self, operation: str, token: str, **words: str) -> None:
        with translated("the state machine", session=self._session):
            try:
                getattr(self._session.stepfunctions(), operation)(taskToken=token, **words)
            except ClientError as error:
                if code_of(error) not in _GONE:
                    raise
                msg = f"no state machine waits with this token any more ({code_of(error)})"
                raise NotFound(msg, reason="task_gone") from None
