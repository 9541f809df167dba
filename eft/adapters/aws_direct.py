"""The short way to AWS, for the requests that every file is made of: without what boto3 spends on each (docs/adr/0013).

A request is signed and sent once, by botocore's own signer and HTTP session. Whatever is not the answer that was hoped for (an
error, a throttle, a redirect, a reset, an expired credential) is not judged here: there is no answer then, and the caller asks
boto3, which tries again and says what is wrong. So this is only for what boto3, too, would send again by itself.
"""

from __future__ import annotations

import json
import os
import socket
from base64 import b64encode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

if TYPE_CHECKING:
    import botocore.session
    from botocore.awsrequest import AWSResponse
    from botocore.client import BaseClient

SOCKET: Final = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))


class Direct:
    """One principal's short way to one service, beside its boto3 client and with its settings. Thread-safe."""

    def __init__(self, session: botocore.session.Session, client: BaseClient) -> None:
        # The stubs leave out most of what these hold and take.
        config: Any = client.meta.config
        options: Any = list(SOCKET)
        timeout: Any = (config.connect_timeout, config.read_timeout)
        # Where botocore's own clients look for it, too.
        verify: Any = session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE") or True
        self.client = client
        self.agent = session.user_agent()
        self._session = session
        self._service = client.meta.service_model.service_id.hyphenize()
        self._http = URLLib3Session(
            verify=verify,
            proxies=get_environ_proxies(client.meta.endpoint_url),
            timeout=timeout,
            max_pool_connections=config.max_pool_connections,
            socket_options=options,
        )

    def ask_json(self, operation: str, call: Mapping[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """Returns status and content of the answer in AWS's JSON protocol; bytes come as base64, as they lie on the wire."""
        model = self.client.meta.service_model.metadata
        headers = {
            "User-Agent": self.agent,
            "X-Amz-Target": f"{model['targetPrefix']}.{operation}",
            "Content-Type": f"application/x-amz-json-{model['jsonVersion']}",
        }
        body = json.dumps(call, default=_base64).encode()
        address = f"{self.client.meta.endpoint_url.rstrip('/')}/"
        answer = self.ask(operation, AWSRequest("POST", address, headers=headers, data=body), SigV4Auth)
        if answer is None or answer.headers.get("x-amz-crc32") not in {None, str(crc32(answer.content))}:
            return None
        try:
            told = json.loads(answer.content)
        except ValueError:
            return None
        return (answer.status_code, told) if isinstance(told, dict) else None

    def ask(self, operation: str, request: AWSRequest, signer: type[SigV4Auth]) -> AWSResponse | None:
        """Returns the answer, whatever its status, or None where none came."""
        credentials = self._session.get_credentials()
        if credentials is None:
            return None
        service, region = self.client.meta.service_model.signing_name, self.client.meta.region_name
        signer(credentials.get_frozen_credentials(), service, region).add_auth(request)
        prepared, events = request.prepare(), self.client.meta.events
        try:
            # What instruments boto3 sees these requests as well, and may answer in the service's place.
            answered = events.emit(f"before-send.{self._service}.{operation}", request=prepared)
            return next((each for _, each in answered if each is not None), None) or self._http.send(prepared)
        except BotoCoreError:
            return None
        finally:
            events.emit(
                f"response-received.{self._service}.{operation}", response_dict=None, parsed_response=None, context={}, exception=None
            )


def _base64(value: bytes) -> str:
    return b64encode(value).decode()
