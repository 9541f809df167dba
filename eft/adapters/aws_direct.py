"""The short way to AWS, for the requests that every file is made of: without what boto3 spends on each (docs/adr/0013).

A request is signed and sent once. Whatever is not the answer that was hoped for (an error, a throttle, a redirect, a reset, an
expired credential) is not judged here: there is no answer then, and the caller asks boto3, which tries again and says what is
wrong. So this is only for what boto3, too, would send again by itself.
"""

from __future__ import annotations

import json
import os
import time
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from zlib import crc32

from botocore.awsrequest import AWSResponse
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.httpsession import URLLib3Session, get_cert_path
from botocore.utils import get_environ_proxies

from eft.adapters.aws_http import SOCKET, Answer, Connections, NotSent, Request
from eft.adapters.aws_signature import Signer
from eft.ports import Bytes

if TYPE_CHECKING:
    from datetime import datetime

    import botocore.session
    from botocore.client import BaseClient


class Direct:
    """One principal's short way to one service, beside its boto3 client and with its settings. Thread-safe."""

    def __init__(self, session: botocore.session.Session, client: BaseClient) -> None:
        self.client = client
        self.agent = session.user_agent()
        self._session = session
        self._service = client.meta.service_model.service_id.hyphenize()
        self._signer = Signer(client.meta.service_model.signing_name, client.meta.region_name)
        self._http = _http(session, client)

    def ask_json(self, operation: str, call: Mapping[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """Returns status and content of the answer in AWS's JSON protocol; bytes come as base64, as they lie on the wire."""
        model = self.client.meta.service_model.metadata
        headers = {
            "X-Amz-Target": f"{model['targetPrefix']}.{operation}",
            "Content-Type": f"application/x-amz-json-{model['jsonVersion']}",
        }
        body = json.dumps(call, default=_base64).encode()
        address = f"{self.client.meta.endpoint_url.rstrip('/')}/"
        answer = self.ask(operation, "POST", address, headers=headers, body=body, payload=sha256(body).hexdigest())
        if answer is None or answer.headers.get("x-amz-crc32") not in {None, str(crc32(answer.content))}:
            return None
        try:
            told = json.loads(answer.content)
        except ValueError:
            return None
        return (answer.status_code, told) if isinstance(told, dict) else None

    def ask(
        self,
        operation: str,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | list[Bytes],
        payload: str,
        streamed: bool = False,
    ) -> Answer | AWSResponse | None:
        """Returns the answer, whatever its status, or None where none came; `payload` is what is signed of the body."""
        try:
            return self._sent(operation, self._signed(method, url, headers=headers, body=body, payload=payload, streamed=streamed))
        except (BotoCoreError, OSError):
            return None

    @property
    def sends_once(self) -> bool:
        """Whether what is sent is known to be sent once, and whether it has left: a proxy's pool may say neither."""
        return isinstance(self._http, Connections)

    def ask_once(
        self, operation: str, url: str, *, headers: Mapping[str, str], body: bytes, payload: str, signed_at: datetime
    ) -> Answer | AWSResponse:
        """Returns the answer to a PUT that is not to be sent again, signed as of a time. Only where it `sends_once`.

        Raises:
            NotSent: it has not left; OSError: it may have arrived.
        """
        try:
            request = self._signed("PUT", url, headers=headers, body=body, payload=payload, signed_at=signed_at)
        except (BotoCoreError, ClientError) as error:
            raise NotSent("no credential") from error
        return self._sent(operation, request)

    def _signed(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | list[Bytes],
        payload: str,
        streamed: bool = False,
        signed_at: datetime | None = None,
    ) -> Request:
        credentials = self._session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        size = len(body) if isinstance(body, bytes) else sum(len(piece) for piece in body)
        told = {"User-Agent": self.agent, **headers} | ({"Content-Length": str(size)} if method in {"POST", "PUT"} else {})
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime() if signed_at is None else signed_at.utctimetuple())
        signed = self._signer.signed(method, url, headers=told, payload=payload, keys=credentials.get_frozen_credentials(), at=at)
        return Request(method, url, headers=signed, body=body, streamed=streamed, once=signed_at is not None)

    def _sent(self, operation: str, request: Request) -> Answer | AWSResponse:
        events = self.client.meta.events
        try:
            # What instruments boto3 sees these requests as well, and may answer in the service's place.
            answered = events.emit(f"before-send.{self._service}.{operation}", request=request)
            return next((each for _, each in answered if each is not None), None) or self._http.send(request)
        finally:
            events.emit(
                f"response-received.{self._service}.{operation}", response_dict=None, parsed_response=None, context={}, exception=None
            )


def _http(session: botocore.session.Session, client: BaseClient) -> Connections | URLLib3Session:
    """Returns what sends a service's requests: botocore's own session where a proxy stands between."""
    # The stubs leave out most of what these hold and take.
    config: Any = client.meta.config
    timeout: Any = (config.connect_timeout, config.read_timeout)
    # Where botocore's own clients look for it, too.
    verify: Any = session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE") or True
    kept = config.max_pool_connections
    if proxies := get_environ_proxies(client.meta.endpoint_url):
        options: Any = list(SOCKET)
        return URLLib3Session(verify=verify, proxies=proxies, timeout=timeout, max_pool_connections=kept, socket_options=options)
    return Connections(bundle=get_cert_path(verify), timeout=timeout, kept=kept)


def _base64(value: bytes) -> str:
    return b64encode(value).decode()
