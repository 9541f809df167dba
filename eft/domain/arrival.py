"""What S3 tells of its objects: EventBridge's `Object Created` events and S3's own notifications, read from a message's text.

Sources: Amazon S3 User Guide, "Using EventBridge" (keys as they are) and "Event message structure" (keys URL-encoded).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_plus

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eft.errors import Permanent

CREATED: Final = "Object Created"
CREATED_PREFIX: Final = "ObjectCreated:"
TEST: Final = "s3:TestEvent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """An object was created. It is a hint: what counts is what stands under the key when somebody looks."""

    bucket: str
    key: str
    version: str | None = None
    etag: str | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Passed:
    """An event that is of no concern."""

    why: str
    """`test_event`, `other_event`."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Bucket(_Part):
    name: str = Field(min_length=1)


class _Told(_Part):
    """EventBridge's object."""

    key: str = Field(min_length=1)
    size: int | None = None
    etag: str | None = None
    version: str | None = Field(default=None, alias="version-id")


class _Detail(_Part):
    bucket: _Bucket
    object: _Told


class _Noted(_Part):
    """A notification's object."""

    key: str = Field(min_length=1)
    size: int | None = None
    etag: str | None = Field(default=None, alias="eTag")
    version: str | None = Field(default=None, alias="versionId")


class _Subject(_Part):
    bucket: _Bucket
    object: _Noted


def events_in(body: str) -> list[Arrived | Passed]:
    """Returns what a message tells, in its order: one event of EventBridge, or the records of a notification.

    Raises:
        Permanent: `event_malformed`: it is neither, or a part of it is missing.
    """
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise _malformed("is no JSON") from None
    if not isinstance(told, dict):
        raise _malformed("is no object")
    try:
        if told.get("Event") == TEST:
            return [Passed("test_event")]
        if isinstance(records := told.get("Records"), list):
            return [_record(one) for one in records]
        if isinstance(told.get("detail-type"), str) and isinstance(told.get("source"), str):
            return [_event(told)]
    except ValidationError as error:
        where = ".".join(str(one) for one in error.errors(include_input=False)[0]["loc"])
        raise _malformed(f"lacks a good '{where}'") from None
    raise _malformed("is no event of S3")


def _event(told: dict[str, Any]) -> Arrived | Passed:
    if told["source"] != "aws.s3" or told["detail-type"] != CREATED:
        return Passed("other_event")
    detail = _Detail.model_validate(told.get("detail"))
    found = detail.object
    return Arrived(bucket=detail.bucket.name, key=found.key, version=found.version, etag=found.etag, size=found.size)


def _record(record: object) -> Arrived | Passed:
    if not isinstance(record, dict) or not isinstance(record.get("eventName"), str):
        raise _malformed("has a record without 'eventName'")
    # In Records without the prefix `s3:`, which configurations of notifications have.
    if record.get("eventSource") != "aws:s3" or not record["eventName"].removeprefix("s3:").startswith(CREATED_PREFIX):
        return Passed("other_event")
    subject = _Subject.model_validate(record.get("s3"))
    found = subject.object
    try:
        key = unquote_plus(found.key, errors="strict")
    except UnicodeDecodeError:
        raise _malformed("has a key that is no UTF-8") from None
    return Arrived(bucket=subject.bucket.name, key=key, version=found.version, etag=found.etag, size=found.size)


def _malformed(why: str) -> Permanent:
    return Permanent(f"the message {why}", reason="event_malformed")
