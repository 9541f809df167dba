"""The whole engine on one machine, as one object: stand-ins, API, workers, beat and Flower, each a process of its own.

`eft up`, `eft demo` and the tests that go through the running stack start it from here.
"""

from __future__ import annotations

import secrets
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import httpx

from deploy.entrypoint import ALLOCATOR, COMMANDS
from deploy.local import places
from deploy.local.customer import Customer
from deploy.local.identity import Identity, create_identity, issue
from deploy.local.process import LOOPBACK, Child, Stack, StartFailed, answers, free_port
from deploy.local.provision import Provisioned, make_bucket, provision
from deploy.local.servers import GOVCLOUD, AwsEmulator, NetworkServer, RedisServer, passed_on
from deploy.local.sftp import PasswordSftpServer, SftpAccount, SftpServer

Pool = Literal["threads", "prefork"]

SCOPES: Final = tuple(f"{what}:{may}" for what in ("endpoints", "flows", "transfers", "webhooks") for may in ("read", "write"))
"""What a customer's token allows."""
TOKEN_LIFE: Final = timedelta(hours=12)
FIGURES: Final[Mapping[str, str]] = {
    "EFT_SLICE": "10",
    "EFT_LEASE": "20",
    "EFT_VISIBILITY": "25",
    "EFT_STALL": "30",
    "EFT_POLL_WAIT": "1",
    "EFT_SWEEP_EVERY": "5",
    "EFT_LOOK_EVERY": "2",
}
"""Short ones, so that what a crash leaves is taken up within a minute."""
TASKS: Final = ("eft.discover", "eft.stage", "eft.deliver", "eft.parts", "eft.settle", "eft.adopt")
"""Names that Flower offers limits for."""
FLOWER_USER: Final = "eft"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """Who belongs to no region: the customers' SFTP servers and the issuer of tokens. Two stacks of a pair share them."""

    sftp: SftpServer | PasswordSftpServer
    password_sftp: PasswordSftpServer
    identity: Identity

    @property
    def servers(self) -> list[NetworkServer]:
        """What is to be started."""
        return [self.password_sftp, *([self.sftp] if self.sftp is not self.password_sftp else [])]


class LocalStack:
    """Starts and stops everything; stopped, it may be started again, empty.

    ```python
    with LocalStack(directory) as stack, stack.client("acme") as client:
        client.get("/v1/endpoints")
    ```
    """

    def __init__(
        self,
        directory: Path,
        *,
        workers: int = 2,
        pool: Pool = "threads",
        concurrency: int = 4,
        api_port: int | None = None,
        figures: Mapping[str, str] = FIGURES,
        sqs_endpoint: Callable[[AwsEmulator], str] | None = None,
        region: str = GOVCLOUD,
        monitored: bool = True,
        ingress: bool = False,
        outside: Outside | None = None,
    ) -> None:
        """Takes a directory of its own, made if missing, and where the processes find SQS if not at the emulator.

        `ingress` starts the process that buckets' events go to.
        What is `outside` is started and stopped by whoever made it. Without monitoring there is neither Redis nor Flower.
        """
        self.directory = directory.resolve()
        self.figures = dict(figures)
        self.pool: Pool = pool
        self.concurrency = concurrency
        self.flower_password = secrets.token_urlsafe(9)
        self.region = region
        self.aws = AwsEmulator(self.directory / "aws", region=region)
        self.redis = RedisServer(self.directory / "redis")
        self.monitored = monitored
        self.ingress = ingress
        self.outside = outside or make_outside(self.directory)
        self.password_sftp = self.outside.password_sftp
        self.sftp: SftpServer | PasswordSftpServer = self.outside.sftp
        self.identity: Identity = self.outside.identity
        self.workers: dict[str, Child] = {}
        self._wanted = workers
        self._api_port = api_port
        self._flower_port = 0
        self._sqs_endpoint = sqs_endpoint
        self._resources: Provisioned | None = None
        self._own_outside = outside is None
        self._engine: dict[str, Child] = {}
        self._stack = Stack()
        self.beat: Child | None = None

    # -- where it is ---------------------------------------------------------------------------------------------------

    @property
    def api_url(self) -> str:
        """The address of the API; raises `StartFailed` before the start."""
        if not self._api_port:
            raise StartFailed("the stack has not been started")
        return f"http://{LOOPBACK}:{self._api_port}"

    @property
    def page_url(self) -> str:
        """The address of the API's try-it page."""
        return f"{self.api_url}/docs"

    @property
    def flower_url(self) -> str:
        """The address of Flower; its user is `FLOWER_USER`, its password `flower_password`."""
        return f"http://{LOOPBACK}:{self._flower_port}"

    @property
    def logs(self) -> Path:
        """Where API, workers, beat and Flower write their logs."""
        return self.directory / "logs"

    @property
    def resources(self) -> Provisioned:
        """Tables, queues and the staging bucket; raises `StartFailed` before the start."""
        if self._resources is None:
            raise StartFailed("the stack has not been started")
        return self._resources

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self, told: Callable[[str], object] = lambda _: None, *, provisioned: Callable[[], object] = lambda: None) -> Self:
        """Returns itself once everything serves; `told` hears of each thing that does.

        `provisioned` is called when the tables are there and nothing works on them yet.

        Raises:
            StartFailed: something did not; what had been started is stopped.
        """
        try:
            self._start_stand_ins(told)
            provisioned()
            self._start_engine(told)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends everything, the engine before the stand-ins."""
        with ThreadPoolExecutor(max_workers=8) as ends:
            list(ends.map(Child.stop, self.workers.values()))
        self._stack.stop()
        self.workers.clear()

    def kill_engine(self) -> None:
        """Ends API, workers, beat and Flower with SIGKILL, all at once; what they kept in AWS stays."""
        for child in [*self.workers.values(), *self._engine.values()]:
            child.signal(signal.SIGKILL)
        for child in [*self.workers.values(), *self._engine.values()]:
            child.kill()
        self.workers.clear()

    def start_engine(self) -> None:
        """Starts API, workers, beat and Flower again, at the same addresses; raises `StartFailed`."""
        self._start_engine(lambda _: None)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def add_worker(
        self, name: str, *, pool: Pool | None = None, concurrency: int | None = None, settings: Mapping[str, str] | None = None
    ) -> Child:
        """Returns a new worker once it takes tasks, told other settings if given. Whoever had its name before must have ended."""
        log = self.logs / f"{name}.log"
        options = ("--pool", pool or self.pool, "--concurrency", str(concurrency or self.concurrency), "--hostname", f"{name}@local")
        environment = self.environment | {"EFT_HEALTH_FILE": str(self.directory / f"{name}.health"), **(settings or {})}
        child = self._child(
            name, command("worker", *options), ready=says(log, " ready."), environment=environment, grace=timedelta(seconds=8)
        )
        self.workers[name] = child
        return child.start()

    def worker_pids(self, name: str) -> list[int]:
        """Returns the numbers of a worker's process and, in the prefork pool, of its children."""
        pid = self.workers[name].pid
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *(int(child) for child in below)]

    # -- for its users -------------------------------------------------------------------------------------------------

    def token(self, tenant: str, *, scopes: Iterable[str] = SCOPES, lifetime: timedelta = TOKEN_LIFE) -> str:
        """Returns a bearer token of a tenant."""
        return issue(self.identity, tenant, scopes, lifetime)

    def client(self, tenant: str, *, scopes: Iterable[str] = SCOPES) -> httpx.Client:
        """Returns an HTTP client of the API with a tenant's token; paths begin with `/v1`."""
        headers = {"Authorization": f"Bearer {self.token(tenant, scopes=scopes)}"}
        return httpx.Client(base_url=self.api_url, headers=headers, timeout=60, trust_env=False)

    def customer(self, tenant: str, *, scopes: Iterable[str] = SCOPES) -> Customer:
        """Returns a tenant's view through the REST API."""
        return Customer(tenant, self.client(tenant, scopes=scopes))

    def account(self, name: str) -> SftpAccount:
        """Returns a new account with a key on the SFTP server: sshd, or its stand-in where the machine has none."""
        if isinstance(self.sftp, SftpServer):
            return self.sftp.account(name)
        return self.sftp.account(name, proofs=("publickey",))

    def bucket(self, name: str) -> str:
        """Returns a new, versioned bucket of a customer, in the emulator."""
        return make_bucket(self.aws.client("s3"), name)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the engine's processes."""
        url = self.aws.url if self._sqs_endpoint is None else self._sqs_endpoint(self.aws)
        queue = self.resources.queue_urls["upkeep"]
        return (
            passed_on()
            | ALLOCATOR
            | self.aws.environment
            | {
                "PYTHONUNBUFFERED": "1",
                "EFT_REGION": self.aws.region,
                "EFT_PREFIX": self.resources.prefix,
                "EFT_STAGING_BUCKET": self.resources.staging_bucket,
                "EFT_AWS_ENDPOINT": self.aws.url,
                "EFT_SQS_ENDPOINT": url,
                "EFT_QUEUE_BASE": queue[: queue.rindex("/") + 1],
                "EFT_API_PORT": str(self._api_port or 0),
                "EFT_JWT_ISSUER": self.identity.issuer,
                "EFT_JWT_AUDIENCE": self.identity.audience,
                "EFT_JWKS": str(self.identity.jwks),
                "EFT_FLOWER_AUTH": f"{FLOWER_USER}:{self.flower_password}",
                "EFT_FLOWER_PORT": str(self._flower_port),
                "EFT_WEBHOOKS_TO_LOOPBACK": "true",
            }
            | ({"EFT_REDIS_URL": self.redis.url} if self.monitored else {})
            | self.figures
        )

    # -- how it starts -------------------------------------------------------------------------------------------------

    def _start_stand_ins(self, told: Callable[[str], object]) -> None:
        servers: list[NetworkServer] = [self.redis] if self.monitored else []
        servers += self.outside.servers if self._own_outside else []
        with ThreadPoolExecutor(max_workers=4) as starts:
            waiting = [starts.submit(self._stack.start, server) for server in servers]
            self._stack.start(self.aws)
            told("AWS emulator")
            self._resources = provision(self.aws.session(), endpoint_url=self.aws.url)
            told("tables, queues and buckets")
            for started in waiting:
                started.result()
        told("Redis stand-in and SFTP server" if self._own_outside else "Redis stand-in")

    def _start_engine(self, told: Callable[[str], object]) -> None:
        self._api_port = self._api_port or free_port()
        self._flower_port = self._flower_port or free_port()
        offered = [word for task in TASKS for word in ("--task", task)]
        self.beat = self._child("beat", command("beat", "--pidfile", ""), ready=says(self.logs / "beat.log", "beat: Starting"))
        children = [self._child("api", command("api"), ready=answers(f"{self.api_url}/v1/health/ready")), self.beat]
        if self.monitored:
            children.append(self._child("flower", command("flower", *offered), ready=answers(self.flower_url)))
        if self.ingress:
            log = self.logs / "ingress.log"
            environment = self.environment | {"EFT_HEALTH_FILE": str(self.directory / "ingress.health")}
            children.append(self._child("ingress", command("ingress"), ready=says(log, "takes arrivals"), environment=environment))
        self._engine = {child.name: child for child in children}

        def begin(name: str, child: Child | None) -> None:
            if child is None:
                self.add_worker(name)
            else:
                self._stack.start(child)
            told(name)

        waiting: dict[str, Child | None] = dict(self._engine)
        waiting |= dict.fromkeys(f"worker-{number}" for number in range(1, self._wanted + 1))
        # Each spends its first seconds on imports.
        with ThreadPoolExecutor(max_workers=4) as starts:
            for started in [starts.submit(begin, name, child) for name, child in waiting.items()]:
                started.result()

    def _child(
        self,
        name: str,
        words: list[str],
        *,
        ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
        grace: timedelta = timedelta(seconds=5),
    ) -> Child:
        return Child(
            name,
            words,
            log=self.logs / f"{name}.log",
            environment=environment or self.environment,
            directory=places.ROOT,
            ready=ready,
            grace=grace,
        )


def make_outside(directory: Path) -> Outside:
    """Returns SFTP servers, not started, and an issuer in a directory."""
    password_sftp = PasswordSftpServer(directory / "password-sftp")
    # sshd's files cannot hold every path; the stand-in takes any.
    plain = not any(sign in str(directory) for sign in "\"'\\ \t\n%")
    sftp = SftpServer(directory / "sftp") if plain and SftpServer.available() else password_sftp
    return Outside(sftp=sftp, password_sftp=password_sftp, identity=create_identity(directory / "identity"))


def command(role: str, *arguments: str) -> list[str]:
    """Returns what starts a role's process: the same as in the image."""
    return [sys.executable, "-m", *COMMANDS[role], *arguments]


def says(log: Path, words: str) -> Callable[[], bool]:
    """Returns a probe that is true once the log holds the words, beyond what it holds now."""
    begun = log.stat().st_size if log.exists() else 0

    def probe() -> bool:
        if not log.exists():
            return False
        with log.open("rb") as file:
            file.seek(begun)
            return words.encode() in file.read()

    return probe
