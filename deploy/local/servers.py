"""The servers of the local stack that are no SSH servers: AWS emulator, Redis-compatible server, S3 server.

Each is started by `with Name(directory) as server:` or by `Stack.start`, listens on 127.0.0.1 only, keeps its files and
its log below its directory, and may be stopped and started again on the same port.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast

import boto3
from botocore.config import Config

from deploy.local import places
from deploy.local.process import LOOPBACK, Child, StartFailed, accepts, answers, free_port, speaks

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

GOVCLOUD: Final = "us-gov-west-1"
TRIES: Final = 3
# What a server needs of this process's environment. Nothing else passes: no credential, proxy or setting of the engine.
PASSED_ON: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE")


class NetworkServer(ABC):
    """A child process that serves one port of 127.0.0.1. A port not asked for is chosen at the first start."""

    def __init__(self, directory: Path, *, port: int | None = None) -> None:
        """Takes a directory of its own, made if missing."""
        self.directory = directory
        self._port = port
        self._child: Child | None = None

    @property
    def port(self) -> int:
        """The TCP port; raises `StartFailed` before the first start if none was asked for."""
        if self._port is None:
            raise StartFailed(f"{type(self).__name__} has not been started")
        return self._port

    @property
    def child(self) -> Child:
        """The process behind it, for tests that pause or kill it; raises `StartFailed` before the first start."""
        if self._child is None:
            raise StartFailed(f"{type(self).__name__} has not been started")
        return self._child

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.directory / "server.log"

    def start(self) -> Self:
        """Returns itself once it serves; raises `StartFailed` with the end of the log."""
        self.directory.mkdir(parents=True, exist_ok=True)
        chosen, tries = self._port is not None, 1
        while True:
            self._port = self._port if chosen else free_port()
            self._child = self._prepare()
            try:
                self._child.start()
            except StartFailed:
                # Somebody else took the port between choice and use: choose again.
                if chosen or tries == TRIES or not accepts(self.port)():
                    raise
                tries += 1
            else:
                return self

    def stop(self) -> None:
        """Ends the server; SIGTERM first, SIGKILL after the grace."""
        if self._child is not None:
            self._child.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @abstractmethod
    def _prepare(self) -> Child:
        """Returns the child for the chosen port, with the files that it reads already written."""


class RedisServer(NetworkServer):
    """A Redis-compatible server without persistence: what is lost with it is monitoring, which comes back."""

    @property
    def url(self) -> str:
        """The address for a Redis client."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def _prepare(self) -> Child:
        command: list[str | Path] = [
            places.redis_program(),
            *("--bind", LOOPBACK, "--port", str(self.port), "--dir", self.directory),
            *("--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning"),
        ]
        ready = speaks(self.port, b"+PONG\r\n", opening=b"PING\r\n")
        return Child("redis", command, log=self.log, environment=passed_on(), ready=ready)


class AwsEmulator(NetworkServer):
    """ministack: SQS, DynamoDB, S3, Secrets Manager, EventBridge, Step Functions, KMS, STS and IAM on one port.

    State is per region, S3 aside, and lives as long as the process; objects lie in files below the directory, so that
    large ones do not fill the memory. With `enforce_access` the access key must be known and its IAM policies allow
    the call (the root's secret is not compared); otherwise any access key will do.
    """

    ACCESS_KEY: Final = "test"
    SECRET_KEY: Final = "test"

    def __init__(self, directory: Path, *, port: int | None = None, region: str = GOVCLOUD, enforce_access: bool = False) -> None:
        """Takes the region that requests without one belong to."""
        super().__init__(directory, port=port)
        self.region = region
        self.enforce_access = enforce_access

    @property
    def url(self) -> str:
        """The endpoint of every service."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def broker_url(self) -> str:
        """The address of SQS in the form that Celery's transport takes, without its scheme's prefix."""
        return f"{self.ACCESS_KEY}:{self.SECRET_KEY}@{LOOPBACK}:{self.port}//"

    @property
    def environment(self) -> dict[str, str]:
        """What boto3 reads from the environment to end up here; and that the engine lends each of this stand-in's buckets to everybody."""
        return {
            "EFT_LENT_BUCKETS": '{"*": ["*"]}',
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": self.SECRET_KEY,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def session(self, region: str | None = None) -> boto3.Session:
        """Returns a session with the emulator's credential; each client still needs `endpoint_url=server.url`."""
        return boto3.Session(
            aws_access_key_id=self.ACCESS_KEY,
            aws_secret_access_key=self.SECRET_KEY,
            region_name=region or self.region,
        )

    # boto3's stubs overload on literal names; a name given at run time has no better type.
    def client(self, service: str, *, region: str | None = None, config: Config | None = None) -> Any:  # noqa: ANN401
        """Returns a boto3 client of the emulator."""
        make = cast("Any", self.session(region).client)
        return make(service, endpoint_url=self.url, config=config)

    def _prepare(self) -> Child:
        environment = passed_on() | {
            "BIND_HOST": LOOPBACK,
            "GATEWAY_PORT": str(self.port),
            "MINISTACK_REGION": self.region,
            "AUTH": "true" if self.enforce_access else "false",
            "AWS_ACCESS_KEY_ID": self.ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": self.SECRET_KEY,
            "LOG_LEVEL": "WARNING",
            "TMPDIR": str(self.directory),
            "S3_DATA_DIR": str(self.directory / "s3"),
            "STATE_DIR": str(self.directory / "state"),
            # Listeners and engines that it would otherwise look for or start: no fixed ports, no containers.
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "DOCKER_HOST": f"unix://{self.directory / 'none.sock'}",
            "PYTHONUNBUFFERED": "1",
        }
        command = [places.emulator_python(), Path(__file__).with_name("emulator.py")]
        ready = answers(f"{self.url}/_ministack/ready")
        return Child("aws", command, log=self.log, environment=environment, ready=ready, grace=timedelta(seconds=3))


class S3Server(NetworkServer):
    """SeaweedFS: an S3 server of another make, on disk, which judges signatures and checksums.

    It does not decide racing conditional completions of different uploads once, does not reject a wrong part list and
    has no public access block: for those the emulator is the better judge.
    """

    ACCESS_KEY: Final = "contract"
    SECRET_KEY: Final = "contract-secret"
    PORTS: Final = ("master.port", "volume.port", "filer.port", "s3.port")

    def __init__(self, directory: Path, *, port: int | None = None, region: str = GOVCLOUD) -> None:
        """Takes the region that its clients sign for."""
        super().__init__(directory, port=port)
        self.region = region

    @property
    def url(self) -> str:
        """The endpoint for S3 clients, which address buckets by path."""
        return f"http://{LOOPBACK}:{self.port}"

    def client(self, config: Config | None = None) -> S3Client:
        """Returns a boto3 client of the server."""
        by_path = Config(s3={"addressing_style": "path"})
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=self.region,
            aws_access_key_id=self.ACCESS_KEY,
            aws_secret_access_key=self.SECRET_KEY,
            config=by_path if config is None else by_path.merge(config),
        )

    def _prepare(self) -> Child:
        identity = {
            "name": "contract",
            "credentials": [{"accessKey": self.ACCESS_KEY, "secretKey": self.SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        identities = self.directory / "identities.json"
        identities.write_text(json.dumps({"identities": [identity]}))
        store = self.directory / "store"
        store.mkdir(exist_ok=True)
        # Left alone, each part takes a fixed port, and its second one at a fixed distance from the first.
        ports = {name: self.port if name == "s3.port" else free_port() for name in self.PORTS}
        ports |= {f"{name}.grpc": free_port() for name in self.PORTS}
        flags = {
            "dir": store,
            "ip": LOOPBACK,
            "ip.bind": LOOPBACK,
            "filer": "true",
            "s3": "true",
            "s3.config": identities,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.localSocket": self.directory / "s3.sock",
            "filer.localSocket": self.directory / "filer.sock",
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 1024,
            "volume.max": 100,
            **ports,
        }
        command: list[str | Path] = [places.seaweed_program(), "-logtostderr=true", "server"]
        command += [f"-{name}={setting}" for name, setting in flags.items()]
        # One volume per bucket instead of seven, and nothing read from or written to the real home.
        environment = passed_on() | {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1", "HOME": str(self.directory)}
        return Child(
            "seaweed",
            command,
            log=self.log,
            environment=environment,
            directory=self.directory,
            ready=answers(f"{self.url}/healthz"),
            # It takes ten seconds to say goodbye to a cluster that it has not got.
            grace=timedelta(milliseconds=200),
        )


def passed_on() -> dict[str, str]:
    """Returns the part of this process's environment that a server may see."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}
