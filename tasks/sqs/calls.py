"""Calls to SQS that end in bounded time, whatever the other side does, with credentials that renew themselves."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Final, NotRequired, TypedDict, TypeVar, cast

import botocore.session
from botocore import exceptions
from botocore.config import Config

from eft.adapters.aws_models import new_session
from tasks.sqs.options import Options

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import BatchResultErrorEntryTypeDef, MessageAttributeValueTypeDef, MessageTypeDef

T = TypeVar("T")

BATCH: Final = 10
"""https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-batch-api-actions.html"""

DENIED: Final = frozenset({401, 403})
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html, and botocore.retries.standard
THROTTLED: Final = frozenset(
    {
        "KmsThrottled",
        "OverLimit",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
    }
)
STALE_CREDENTIALS: Final = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
NO_CREDENTIALS: Final = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.TokenRetrievalError,
    exceptions.SSOTokenLoadError,
)
CALL_ERRORS: Final = (exceptions.ClientError, exceptions.BotoCoreError, exceptions.HTTPClientError, OSError)


class UnreadableAnswerError(exceptions.BotoCoreError):
    """Something answered 200, but not as SQS does."""

    fmt = "the answer is not one of SQS"


class Sending(TypedDict):
    """What SendMessage takes beside the queue."""

    MessageBody: str
    DelaySeconds: NotRequired[int]
    MessageGroupId: NotRequired[str]
    MessageAttributes: NotRequired[Mapping[str, "MessageAttributeValueTypeDef"]]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a batch call said about its receipts; one that it did not mention is in none of the three."""

    done: frozenset[str]
    refused: frozenset[str]
    """SQS will never accept them: the hold is over."""

    def unsettled(self, receipts: Sequence[str]) -> list[str]:
        """Returns the receipts to try again, in their order."""
        return [receipt for receipt in receipts if receipt not in self.done and receipt not in self.refused]


class Calls:
    """One process's calls to SQS, usable from any thread. Each makes one attempt and raises botocore's errors."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._lock = Lock()
        self._session: botocore.session.Session | None = None
        self._clients: dict[float, SQSClient] = {}

    def receive(self, queue: str, limit: int) -> "list[MessageTypeDef]":
        """Waits for messages as long as the options say and returns at most `limit` of them."""
        options = self._options
        answer = self._run(
            lambda client: client.receive_message(
                QueueUrl=options.queue_urls[queue],
                MaxNumberOfMessages=min(limit, BATCH),
                WaitTimeSeconds=options.wait_time_seconds,
                VisibilityTimeout=options.visibility_timeout,
                MessageSystemAttributeNames=["ApproximateReceiveCount"],
            ),
            options.wait_time_seconds + options.call_timeout,
        )
        return answer.get("Messages", [])

    def delete(self, queue: str, receipts: Sequence[str]) -> Answers:
        """Deletes up to ten messages."""
        answer = self._run(
            lambda client: client.delete_message_batch(
                QueueUrl=self._options.queue_urls[queue],
                Entries=[{"Id": str(n), "ReceiptHandle": receipt} for n, receipt in enumerate(receipts)],
            ),
            self._options.call_timeout,
        )
        return _answers(receipts, [entry["Id"] for entry in answer.get("Successful", ())], answer.get("Failed", ()))

    def hide(self, queue: str, receipts: Sequence[str], *, seconds: int) -> Answers:
        """Lets up to ten messages reappear after `seconds`, counted from now; 0 shows them at once."""
        answer = self._run(
            lambda client: client.change_message_visibility_batch(
                QueueUrl=self._options.queue_urls[queue],
                Entries=[{"Id": str(n), "ReceiptHandle": receipt, "VisibilityTimeout": seconds} for n, receipt in enumerate(receipts)],
            ),
            self._options.call_timeout,
        )
        return _answers(receipts, [entry["Id"] for entry in answer.get("Successful", ())], answer.get("Failed", ()))

    def send(self, queue: str, sending: Sending) -> None:
        """Sends one message; raises UnreadableAnswerError when nothing says that SQS has it."""
        answer = self._run(
            lambda client: client.send_message(QueueUrl=self._options.queue_urls[queue], **sending),
            self._options.call_timeout,
        )
        # botocore reads any 200 as an answer without content.
        if not answer.get("MessageId"):
            raise UnreadableAnswerError

    def _run(self, call: "Callable[[SQSClient], T]", read_timeout: float) -> T:
        client = None
        try:
            client = self._client(read_timeout)
            return call(client)
        except exceptions.ClientError as error:
            if _status(error) in DENIED:
                self._renew_credentials(client)
            raise
        except NO_CREDENTIALS:
            self._renew_credentials(client)
            raise

    def _client(self, read_timeout: float) -> "SQSClient":
        with self._lock:
            client = self._clients.get(read_timeout)
            if client is None:
                if self._session is None:
                    self._session = new_session(self._options.region)
                made = self._session.create_client(
                    "sqs",
                    endpoint_url=self._options.endpoint_url,
                    config=Config(
                        connect_timeout=self._options.connect_timeout,
                        read_timeout=read_timeout,
                        retries={"total_max_attempts": 1},
                        max_pool_connections=50,
                        tcp_keepalive=True,
                    ),
                )
                client = self._clients[read_timeout] = cast("SQSClient", made)
            return client

    def _renew_credentials(self, used: "SQSClient | None") -> None:
        # Credentials that still look valid here may be revoked there. A new session asks the whole chain again.
        with self._lock:
            if used is None or used in self._clients.values():
                self._session = None
                self._clients = {}


def worth_retrying(error: Exception) -> bool:
    """Returns whether the same call may succeed a little later."""
    if isinstance(error, exceptions.ClientError):
        status = _status(error)
        return (
            status >= 500  # noqa: PLR2004 - HTTP's server errors
            or status in {408, 429}
            or error.response["Error"]["Code"] in THROTTLED | STALE_CREDENTIALS
        )
    return isinstance(error, CALL_ERRORS) and not isinstance(error, exceptions.ParamValidationError)


def described(error: Exception) -> str:
    """Returns the error's type, with code and status where it has them; never its text, which may quote a request."""
    if isinstance(error, exceptions.ClientError):
        return f"{error.operation_name} {error.response['Error']['Code']} (HTTP {_status(error)})"
    return type(error).__name__


def backoff(options: Options, failures: int) -> float:
    """Returns the seconds to pause after this many failures in a row."""
    ceiling = min(options.backoff_cap, options.backoff_base * 2.0 ** min(failures - 1, 30))
    return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


def send_within_deadline(calls: Calls, options: Options, queue: str, *, sending: Sending) -> None:
    """Sends one message, trying again until the deadline; raises botocore's last error."""
    began = time.monotonic()
    failures = 0
    while True:
        try:
            calls.send(queue, sending)
        except CALL_ERRORS as error:
            failures += 1
            pause = backoff(options, failures)
            if not worth_retrying(error) or time.monotonic() - began + pause > options.send_deadline:
                raise
            time.sleep(pause)
        else:
            return


def _answers(receipts: Sequence[str], done: Sequence[str], failed: "Sequence[BatchResultErrorEntryTypeDef]") -> Answers:
    by_id = {str(n): receipt for n, receipt in enumerate(receipts)}
    return Answers(
        done=frozenset(by_id[entry] for entry in done if entry in by_id),
        refused=frozenset(by_id[entry["Id"]] for entry in failed if entry["SenderFault"] and entry["Id"] in by_id),
    )


def _status(error: exceptions.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
