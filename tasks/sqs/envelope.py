"""The shape of a message in a queue: kombu's envelope as readable JSON, checked before anyone trusts it."""

from typing import TYPE_CHECKING, Any, Final, Protocol

from kombu.transport import virtual
from kombu.utils.json import dumps, loads

from tasks.sqs.calls import Sending

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

JSON: Final = "application/json"

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
LONGEST_DELAY: Final = 900


class BrokenMessageError(ValueError):
    """What lies in the queue was not sent by us, or was cut."""


class Message(virtual.Message):
    """A received message whose payload is JSON; any other raises here, before Celery could drop it."""

    def __init__(self, payload: dict[str, Any], channel: virtual.Channel, **kwargs: object) -> None:
        super().__init__(payload, channel=channel, accept=frozenset({JSON}), **kwargs)
        # Celery deletes what it cannot decode. The payload is kept, so looking now costs nothing later.
        self.decode()


class HasProperties(Protocol):
    """Celery's request of a running task."""

    properties: Any


def receive_count(request: HasProperties) -> int:
    """Returns how often SQS has handed out the message of this request, itself included; 1 for a direct call."""
    properties = request.properties or {}
    return int(properties.get("delivery_info", {}).get("receive_count", 1))


def sealed(message: dict[str, Any]) -> Sending:
    """Returns what SendMessage takes for kombu's message.

    `delay_seconds` (at most 900), `MessageGroupId` and `message_attributes` in the properties become SQS's own; so
    `apply_async(delay_seconds=…)` waits in the queue, not in a worker. Raises ValueError for a delay out of range.
    """
    properties = message["properties"]
    delay = properties.pop("delay_seconds", None)
    group = properties.pop("MessageGroupId", None)
    attributes = properties.pop("message_attributes", None)
    sending: Sending = {"MessageBody": dumps(message)}
    if delay is not None:
        if not 0 <= delay <= LONGEST_DELAY:
            raise ValueError(f"SQS delays a message by at most {LONGEST_DELAY} s")
        sending["DelaySeconds"] = int(delay)
    if group is not None:
        sending["MessageGroupId"] = group
    if attributes is not None:
        sending["MessageAttributes"] = attributes
    return sending


def opened(received: "MessageTypeDef", queue: str) -> dict[str, Any]:
    """Returns kombu's message, with what SQS says about it in its delivery_info; raises BrokenMessageError."""
    try:
        message = loads(received["Body"])
    except (ValueError, RecursionError, TypeError) as error:
        raise BrokenMessageError("not JSON") from error
    if not isinstance(message, dict):
        raise BrokenMessageError("not an envelope")
    properties = message.get("properties")
    for name, part, kind in (
        ("properties", properties, dict),
        ("headers", message.get("headers"), dict),
        ("body", message.get("body"), str),
        ("content-type", message.get("content-type"), str),
    ):
        if not isinstance(part, kind):
            raise BrokenMessageError(f"an envelope without {name}")
    assert isinstance(properties, dict)  # noqa: S101 - said above; for the type checker
    delivery = properties.get("delivery_info")
    if not isinstance(delivery, dict):
        raise BrokenMessageError("an envelope without delivery_info")
    receives = int(received.get("Attributes", {}).get("ApproximateReceiveCount", 1))
    delivery.setdefault("exchange", queue)
    delivery.setdefault("routing_key", queue)
    delivery.update(receive_count=receives, redelivered=receives > 1)
    properties["delivery_tag"] = received["ReceiptHandle"]
    return message
