"""Telling AWS: an event bus and state machines, at the emulator and with the answers that it does not give."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from eft.adapters.aws import AwsSession, StaticKeys
from eft.adapters.telling import EventBridgeBus, StepFunctions
from eft.domain.announcement import Announcement, late
from eft.errors import EftError, NotFound, Permanent, Transient
from tests.fakes import START
from tests.running import eventually
from tests.servers import Aws


@pytest.fixture
def session(aws: Aws) -> AwsSession:
    """The engine's own, at the emulator."""
    credentials = aws.session().get_credentials()
    assert credentials is not None
    return AwsSession(
        region=aws.region, endpoint_url=aws.url, keys=StaticKeys(str(credentials.access_key), str(credentials.secret_key)), tries=1
    )


def alarms(count: int) -> list[Announcement]:
    """Returns so many announcements."""
    return [
        late(tenant="acme", flow=f"fl-{number}", name="daily", level="late", expected_by=START + timedelta(hours=number), now=START)
        for number in range(count)
    ]


@contextmanager
def answering(session: AwsSession, service: str, status: int, body: dict[str, Any]) -> Iterator[None]:
    """Has every request of a service meet this answer."""

    def instead(**_: object) -> tuple[AWSResponse, dict[str, Any]]:
        return AWSResponse("https://aws.test/", status, HTTPHeaders(), None), {
            "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}},
            **body,
        }

    client: Any = session.events() if service == "events" else session.stepfunctions()
    client.meta.events.register(f"before-call.{service if service == 'events' else 'sfn'}", instead)
    try:
        yield
    finally:
        client.meta.events.unregister(f"before-call.{service if service == 'events' else 'sfn'}", instead)


def test_a_bus_hears_every_event(aws: Aws, session: AwsSession) -> None:
    """More than one request holds arrive through a rule on source and type, each as it was told."""
    name = f"bus-{uuid.uuid4().hex[:8]}"
    events: Any = aws.session().client("events", endpoint_url=aws.url)
    events.create_event_bus(Name=name)
    queue = aws.sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = aws.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = {"source": ["eft"], "detail-type": ["flow.late"], "detail": {"tenant": ["acme"]}}
    events.put_rule(Name=name, EventBusName=name, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=name, EventBusName=name, Targets=[{"Id": "1", "Arn": arn}])
    assert EventBridgeBus(session, name=name).publish(alarms(25)) == []
    heard: dict[str, Any] = {}

    def received() -> bool:
        for message in aws.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", []):
            event = json.loads(message["Body"])
            heard[event["detail"]["id"]] = event
            aws.sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return len(heard) == 25

    eventually(received)
    assert {one.id for one in alarms(25)} == heard.keys()
    assert Announcement.model_validate(heard[alarms(1)[0].id]["detail"]) == alarms(1)[0]


def test_entries_that_are_not_taken_are_returned(session: AwsSession) -> None:
    """The others are not published again for their sake."""
    answer = {
        "FailedEntryCount": 1,
        "Entries": [{"EventId": "1"}, {"ErrorCode": "ThrottlingException", "ErrorMessage": "slow"}, {"EventId": "3"}],
    }
    with answering(session, "events", 200, answer):
        assert EventBridgeBus(session, name="default").publish(alarms(3)) == [alarms(3)[1]]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (500, "InternalException", Transient),
        (503, "ServiceUnavailable", Transient),
        (400, "ThrottlingException", Transient),
        (400, "AccessDeniedException", Permanent),
        (400, "ResourceNotFoundException", Permanent),
    ],
)
def test_a_bus_that_takes_nothing_is_told_in_our_words(session: AwsSession, status: int, code: str, kind: type[EftError]) -> None:
    """The vendor's error does not leave the adapter."""
    with answering(session, "events", status, {"Error": {"Code": code, "Message": "no"}}), pytest.raises(kind) as told:
        EventBridgeBus(session, name="default").publish(alarms(1))
    assert "bus" in str(told.value)


@pytest.mark.parametrize("code", ["TaskDoesNotExist", "TaskTimedOut", "InvalidToken"])
def test_a_token_that_nobody_waits_with_is_gone(session: AwsSession, code: str) -> None:
    """However the service says it; and the error shows no token."""
    with answering(session, "stepfunctions", 400, {"Error": {"Code": code, "Message": "secret-token"}}):
        with pytest.raises(NotFound) as good:
            StepFunctions(session).succeed("secret-token", output="{}")
        with pytest.raises(NotFound) as bad:
            StepFunctions(session).fail("secret-token", error="e", cause="c")
    for told in (good.value, bad.value):
        assert told.reason == "task_gone"
        assert "secret-token" not in str(told)


def test_a_token_that_never_was_is_gone(session: AwsSession) -> None:
    """The emulator says so as Step Functions does."""
    with pytest.raises(NotFound):
        StepFunctions(session).succeed("nobodys", output="{}")


def test_step_functions_that_does_not_answer_is_worth_another_try(session: AwsSession) -> None:
    """Nothing is known of the task then."""
    with answering(session, "stepfunctions", 503, {"Error": {"Code": "ServiceUnavailable", "Message": "no"}}), pytest.raises(Transient):
        StepFunctions(session).fail("token", error="x" * 999, cause="y")
