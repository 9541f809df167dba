"""The broker: Amazon SQS for kombu, under the alias `eftsqs://` once this package is imported."""

from typing import Final

from kombu.transport import TRANSPORT_ALIASES

SCHEME: Final = "eftsqs"

TRANSPORT_ALIASES[SCHEME] = "tasks.sqs.channel:Transport"
