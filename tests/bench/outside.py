"""What stands around a measurement: SSH and S3 servers, and a distance to each; the files to move lie in memory (tmpfs), not on a disk."""

from __future__ import annotations

import json
import shutil
import sys
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from boto3.s3.transfer import TransferConfig

from deploy.local import places
from deploy.local.process import LOOPBACK, Child, Stack, accepts
from deploy.local.servers import NetworkServer, S3Server, passed_on
from deploy.local.sftp import SftpAccount, SftpServer, write_private
from tests.bench.gauge import cpu_seconds
from tests.bench.workloads import Workload

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FROM, TO = "from-here", "to-there"
PART: Final = 16 << 20
WARM: Final = 200
"""Objects that a new bucket takes before anything is measured."""


class InheritedSftp(SftpServer):
    """An sshd that leaves no processor time uncounted."""

    def _prepare(self) -> Child:
        child = super()._prepare()
        child.command = [sys.executable, "-m", "tests.bench.heir", *child.command]
        child.directory = places.ROOT
        return child


class DiscardingS3(NetworkServer):
    """`tests.bench.sink` in a process of its own."""

    ACCESS_KEY: Final = "bench"
    SECRET_KEY: Final = "bench-secret"

    @property
    def url(self) -> str:
        """The endpoint for S3 clients, which address buckets by path."""
        return f"http://{LOOPBACK}:{self.port}"

    def counted(self) -> Counter[str]:
        """Returns the requests by operation since its start, and the bytes of bodies."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.url}/-/counted", timeout=30) as answer:
            return Counter(json.load(answer))

    def _prepare(self) -> Child:
        return module("sink", [str(self.port)], log=self.log, port=self.port)


class Distance(NetworkServer):
    """`tests.bench.distance` in a process of its own."""

    def __init__(self, directory: Path, *, target: int, milliseconds: float) -> None:
        """Takes the port of 127.0.0.1 that is to be far away, and the round trip."""
        super().__init__(directory)
        self._target = target
        self._milliseconds = milliseconds

    def _prepare(self) -> Child:
        return module("distance", [str(self.port), str(self._target), str(self._milliseconds)], log=self.log, port=self.port)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket as a client is told of it."""

    url: str
    name: str
    access_key: str
    secret_key: str


QUIET: Final = 0.3
"""Seconds of which servers at rest use a tenth at the most."""
SETTLED_IN: Final = 10.0

Place = SftpAccount | Bucket


class Outside:
    """Starts servers as they are asked for; they end with the `Stack`. Both ends of a transfer may be far away."""

    def __init__(self, directory: Path, stack: Stack) -> None:
        """Takes a directory of its own, in memory if figures are to be had."""
        self.directory = directory
        self._stack = stack
        self.sshd = stack.start(InheritedSftp(directory / "sshd"))
        self.discarding = stack.start(DiscardingS3(directory / "sink"))
        self._seaweed: S3Server | None = None
        self._distances: dict[tuple[int, float], Distance] = {}
        self._accounts = {name: self.sshd.account(name) for name in (FROM, TO)}
        self._filled: set[tuple[str, str]] = set()

    @property
    def seaweed(self) -> S3Server:
        """The S3 server that keeps what it gets, with a bucket of each name."""
        if self._seaweed is None:
            self._seaweed = self._stack.start(S3Server(self.directory / "seaweed"))
            for name in (FROM, TO):
                self._s3().create_bucket(Bucket=name)
                self._warm(name)
        return self._seaweed

    @property
    def servers(self) -> list[int]:
        """The process numbers of all servers, without distances."""
        seaweed = [] if self._seaweed is None else [self._seaweed.child.pid]
        return [self.sshd.child.pid, self.discarding.child.pid, *seaweed]

    @property
    def distances(self) -> list[int]:
        """The process numbers of the distances."""
        return [distance.child.pid for distance in self._distances.values()]

    def account(self, name: str, *, delay: float = 0) -> SftpAccount:
        """Returns an account so many milliseconds away."""
        account = self._accounts[name]
        return replace(account, port=self._far(account.port, delay))

    def sink(self, *, delay: float = 0) -> Bucket:
        """Returns the bucket that throws everything away."""
        server = self.discarding
        return Bucket(f"http://{LOOPBACK}:{self._far(server.port, delay)}", TO, server.ACCESS_KEY, server.SECRET_KEY)

    def bucket(self, name: str, *, delay: float = 0) -> Bucket:
        """Returns a bucket of the server that keeps things."""
        server = self.seaweed
        return Bucket(f"http://{LOOPBACK}:{self._far(server.port, delay)}", name, server.ACCESS_KEY, server.SECRET_KEY)

    def key_file(self, account: SftpAccount) -> Path:
        """Returns a file with the account's private key."""
        path = self.directory / f"{account.name}.key"
        if not path.exists():
            write_private(path, account.private_key or "")
        return path

    def known_hosts(self, account: SftpAccount) -> Path:
        """Returns a file that pins the server's key."""
        path = self.directory / f"known-hosts-{account.port}"
        path.write_text(f"[{account.host}]:{account.port} {account.host_key}\n")
        return path

    def fill(self, kind: str, workload: Workload) -> None:
        """Lays the workload's files where they are moved from, below a directory of its name; once."""
        if (kind, workload.name) in self._filled:
            return
        directory = self._accounts[FROM].directory
        workload.write(directory)
        if kind == "s3":
            s3 = self._s3()
            config = TransferConfig(multipart_chunksize=PART, multipart_threshold=PART)
            for path in workload.paths:
                s3.upload_file(str(directory / path), FROM, path, Config=config)
        self._filled.add((kind, workload.name))

    def make_room(self, size: int) -> None:
        """Touches so many bytes of memory and gives them back: else whoever comes after a pause pays for what a later one finds ready."""
        path = self._accounts[TO].directory / ".room"
        block = bytes(16 << 20)
        with path.open("wb") as file:
            for _ in range(-(-size // len(block))):
                file.write(block)
        path.unlink()

    def settle(self) -> None:
        """Waits until the servers have nothing to do: what one tool left them is not to be the next one's."""
        until = time.monotonic() + SETTLED_IN
        used = cpu_seconds(self.servers)
        while time.monotonic() < until:
            time.sleep(QUIET)
            before, used = used, cpu_seconds(self.servers)
            if used - before <= QUIET / 10:
                return

    def empty(self, into: str) -> None:
        """Removes what arrived under a name, so that memory lasts."""
        directory = self._accounts[TO].directory
        shutil.rmtree(directory / into, ignore_errors=True)
        (directory / f"{into}.bin").unlink(missing_ok=True)
        if self._seaweed is not None:
            bucket = self._s3()
            keys = [
                one["Key"]
                for page in bucket.get_paginator("list_objects_v2").paginate(Bucket=TO, Prefix=f"{into}/")
                for one in page.get("Contents", [])
            ]
            for start in range(0, len(keys), 1000):
                bucket.delete_objects(Bucket=TO, Delete={"Objects": [{"Key": key} for key in keys[start : start + 1000]]})

    def _warm(self, bucket: str) -> None:
        """SeaweedFS makes a bucket's volumes as objects come, and lets those wait for a second or four that come meanwhile."""
        keys = [f"warm/{n}" for n in range(WARM)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda key: self._s3().put_object(Bucket=bucket, Key=key, Body=bytes(10_000)), keys))
        self._s3().delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})

    def _s3(self) -> S3Client:
        return self.seaweed.client()

    def _far(self, port: int, delay: float) -> int:
        if not delay:
            return port
        if (port, delay) not in self._distances:
            place = self.directory / f"distance-{port}-{delay:g}"
            self._distances[port, delay] = self._stack.start(Distance(place, target=port, milliseconds=delay))
        return self._distances[port, delay].port


def module(name: str, arguments: list[str], *, log: Path, port: int) -> Child:
    """Returns a module of this package as a process that serves a port."""
    words = [sys.executable, "-m", f"tests.bench.{name}", *arguments]
    return Child(name, words, log=log, environment=passed_on(), directory=places.ROOT, ready=accepts(port))
