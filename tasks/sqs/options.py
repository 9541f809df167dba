"""What an operator may set about the queues; Celery hands it over as `broker_transport_options`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html
LONGEST_WAIT = 20
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html
LONGEST_VISIBILITY = 43_200


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The settings of the broker; an unknown name is a TypeError, a value that SQS refuses a ValueError.

    Durations are numbers of seconds, because Celery shows its configuration as JSON. Credentials are no option: they
    come from boto3's default chain.
    """

    queue_urls: Mapping[str, str] = field(default_factory=dict)
    """Celery's queue name to SQS's queue URL; no other queue exists."""

    one_by_one: tuple[str, ...] = ()
    """Queues that are asked for one message at a time: what is sent together spreads over the workers, and does not go to whoever asks
    first. Who has some in hand leaves the next one to others for a moment."""

    region: str | None = None
    endpoint_url: str | None = None

    visibility_timeout: int = 90
    """How long a message stays hidden after its worker died; while the worker lives it is extended."""

    longest_hold: int = 11 * 3600
    """After this a message is no longer extended; SQS itself ends every hold after 12 hours."""

    wait_time_seconds: int = 5
    """The long poll. A worker that stops waits for its last poll for at most `close_grace`, so keep it near that."""

    requeue_visibility: int = 0
    """How long a message stays hidden that a task gives back with Reject(requeue=True)."""

    reject_visibility: int = 30
    """How long a rejected or broken message stays hidden: the pause between the looks after which SQS moves it to the
    dead-letter queue."""

    connect_timeout: float = 3.0
    call_timeout: float = 5.0
    """One call ends within connect_timeout + call_timeout; a long poll may wait wait_time_seconds longer."""

    send_deadline: float = 20.0
    """No attempt to send begins later than this; the last one may still take one call."""

    backoff_base: float = 0.5
    backoff_cap: float = 15.0
    """A failing queue is asked again after base · 2ⁿ seconds, at most cap, with jitter."""

    close_grace: float = 3.0
    """How long a closing worker waits for its polls to end and for SQS to hear what becomes of its messages."""

    health_file: str | None = None
    """Where the worker notes when it last heard from each queue; tasks.sqs.health reads it."""

    def __post_init__(self) -> None:
        if not 0 <= self.wait_time_seconds <= LONGEST_WAIT:
            raise ValueError(f"wait_time_seconds must be 0 to {LONGEST_WAIT}")
        if not 1 <= self.visibility_timeout <= LONGEST_VISIBILITY:
            raise ValueError(f"visibility_timeout must be 1 to {LONGEST_VISIBILITY}")
        if not 0 <= self.requeue_visibility <= LONGEST_VISIBILITY:
            raise ValueError(f"requeue_visibility must be 0 to {LONGEST_VISIBILITY}")
        if not 1 <= self.reject_visibility <= LONGEST_VISIBILITY:
            raise ValueError(f"reject_visibility must be 1 to {LONGEST_VISIBILITY}")
