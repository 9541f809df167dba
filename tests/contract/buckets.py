"""Buckets for the contract tests of S3: on the emulator, on SeaweedFS, and on moto in this process, where they are AWS's own."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError

from eft.adapters.aws import AwsSession, StaticKeys
from eft.adapters.s3.bucket import Place
from eft.adapters.s3.store import S3Staging
from tests.servers import Aws

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest
    from botocore.client import BaseClient
    from mypy_boto3_s3.client import S3Client

    from deploy.local.servers import S3Server

REGION = "us-gov-west-1"
MOTO_KEYS = StaticKeys("testing", "testing")


@dataclass
class Bucket:
    """`store_suite.Bench` on a bucket of its own."""

    session: AwsSession
    name: str
    prefix: str = ""
    keeps_versions: bool = False
    has_directories: bool = False
    full_object_checksum: bool | None = None
    refuses_taken: bool | None = None

    @property
    def s3(self) -> S3Client:
        """A client past the store."""
        return self.session.s3()

    @property
    def store(self) -> S3Staging:
        """A store, with what upkeep needs."""
        judges, refuses = self.full_object_checksum, self.refuses_taken
        return S3Staging(self.session, Place(self.name, self.prefix, endpoint="ep1", full_object_checksum=judges, refuses_taken=refuses))

    @contextmanager
    def open(self) -> Iterator[S3Staging]:
        """Gives the store as the journey gets it."""
        store = self.store
        try:
            yield store
        finally:
            store.let_go()

    def key(self, path: str) -> str:
        """The key of a path below the prefix."""
        return f"{self.prefix}/{path}" if self.prefix else path

    def put(self, path: str, content: bytes) -> None:
        """Writes an object past the store."""
        self.s3.put_object(Bucket=self.name, Key=self.key(path), Body=content)

    def get(self, path: str) -> bytes | None:
        """Reads an object past the store; None if there is none."""
        try:
            return self.s3.get_object(Bucket=self.name, Key=self.key(path))["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchKey":
                return None
            raise

    def remove(self, path: str) -> None:
        """Removes an object past the store."""
        self.s3.delete_object(Bucket=self.name, Key=self.key(path))


def new_bucket(session: AwsSession, *, prefix: str = "", versioned: bool = False) -> Bucket:
    """Makes a bucket with a neighbour's object beside the prefix."""
    name = f"contract-{uuid.uuid4().hex[:20]}"
    session.s3().create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "us-gov-west-1"})
    if versioned:
        session.s3().put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    if prefix:
        session.s3().put_object(Bucket=name, Key=f"{prefix}-of-another/theirs.csv", Body=b"theirs")
    return Bucket(session, name, prefix=prefix, keeps_versions=versioned)


def emulator_session(aws: Aws) -> AwsSession:
    """A session on the emulator."""
    return AwsSession(region=aws.region, endpoint_url=aws.url, keys=StaticKeys(aws.server.ACCESS_KEY, aws.server.SECRET_KEY))


def seaweed_session(server: S3Server) -> AwsSession:
    """A session on SeaweedFS."""
    return AwsSession(region=server.region, endpoint_url=server.url, keys=StaticKeys(server.ACCESS_KEY, server.SECRET_KEY))


class _Raw:
    """The body of an answer, as urllib3 gives it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: object) -> Iterator[bytes]:
        yield self._body


@dataclass
class Scripted:
    """Answers the calls of one operation from a script instead of its server; the rest go through."""

    session: AwsSession
    operation: str
    answers: list[AWSResponse | Exception | None]
    """None lets a call through."""
    service: str = "s3"
    met: int = 0

    def __post_init__(self) -> None:
        self._client: BaseClient = self.session.s3() if self.service == "s3" else self.session.secretsmanager()

    def __enter__(self) -> Self:
        self._events().register(f"before-send.{self.service}.{self.operation}", self._answer)
        return self

    def __exit__(self, *_: object) -> None:
        self._events().unregister(f"before-send.{self.service}.{self.operation}", self._answer)

    def _events(self) -> Any:  # noqa: ANN401 - see below
        # The stubs say that a hook returns nothing; before-send's may return the answer (botocore, Endpoint._send).
        return self._client.meta.events

    def _answer(self, request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
        self.met += 1
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


def refusal(status: int, code: str, *, headers: dict[str, str] | None = None, extra: str = "") -> AWSResponse:
    """Returns an S3 error as it comes over the wire; without a code, as an answer to HEAD comes."""
    body = f"<Error><Code>{code}</Code><Message>scripted</Message>{extra}</Error>".encode() if code else b""
    return answer(status, {"Content-Type": "application/xml", **(headers or {})}, body)


def answer(status: int, headers: dict[str, str], body: bytes) -> AWSResponse:
    """Returns an answer as it comes over the wire."""
    return AWSResponse("https://aws.example", status, HTTPHeaders.from_dict(headers), _Raw(body))


@contextmanager
def serving(status: int, headers: dict[str, str], body: bytes) -> Iterator[str]:
    """Gives the address of a server that answers every request with this and hangs up."""

    class Answer(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
            self.close_connection = True

        do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815 - http.server looks these names up

        def log_message(self, *_: object) -> None:
            """The test speaks."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
