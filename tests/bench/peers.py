"""What users would pick instead: each tool's command for one case, run as a process of its own and measured."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local import places
from deploy.local.servers import passed_on
from deploy.local.sftp import SftpAccount
from tests.bench.gauge import Watch, cpu_seconds, tree
from tests.bench.measured import Measured
from tests.bench.outside import FROM, Bucket, Outside, Place
from tests.bench.workloads import Workload

CIPHER: Final = "aes128-gcm@openssh.com"
LIMIT: Final = 420.0
RCLONE: Final = Path(sys.executable).with_name("rclone")
RCLONE_TUNED: Final = (
    *("--multi-thread-streams", "0", "--transfers", "16", "--checkers", "16"),
    *("--sftp-chunk-size", "255k", "--sftp-concurrency", "64"),
    *("--s3-chunk-size", "16M", "--s3-upload-concurrency", "4", "--s3-disable-checksum"),
)
"""The fastest that was found: one stream per file with requests of 255 KiB, 16 files at a time, and no MD5 over large files."""


class PeerFailed(RuntimeError):
    """A tool did not do what it was told."""


@dataclass(frozen=True, slots=True)
class Case:
    """One move: from where, to where, and below which directory it arrives."""

    source: Place
    target: Place
    workload: Workload
    into: str


Tool = Callable[[Outside, Case], Measured]


def rclone(*options: str) -> Tool:
    """Returns rclone with options; without any it is as installed."""

    def run(outside: Outside, case: Case) -> Measured:
        config = outside.directory / "rclone.conf"
        config.write_text(_remote(outside, "source", case.source) + _remote(outside, "target", case.target))
        source = f"source:{_root(case.source)}{case.workload.name}"
        words: list[str | Path] = [
            RCLONE,
            "--config",
            config,
            "--retries",
            "1",
            "copy",
            source,
            f"target:{_root(case.target)}{case.into}",
            *options,
        ]
        return timed(outside, case, words)

    return run


def script(name: str, **more: object) -> Tool:
    """Returns a module of this package, told of the case, and of `more`, as JSON on its command line; it says itself how long its work
    took.
    """

    def run(outside: Outside, case: Case) -> Measured:
        told = {
            "source": _told(outside, case.source),
            "target": _told(outside, case.target),
            "into": case.into,
            "paths": case.workload.paths,
            **more,
        }
        local = outside.account(FROM).directory / case.workload.paths[0]
        told |= {"directory": case.workload.name, "temporary": str(outside.directory), "local": str(local)}
        return timed(outside, case, [sys.executable, "-m", f"tests.bench.{name}", json.dumps(told)], says_seconds=True)

    return run


def sftp(outside: Outside, case: Case) -> Measured:
    """OpenSSH's `sftp` with AES-GCM; its clock runs from the command to the prompt after it, without the login."""
    batch = "!date +%s.%N\n" + _command(outside, case, get="get {0} /dev/null", put="put {0} {1}") + "!date +%s.%N\n"
    account = _account(case)
    words: list[str | Path] = [
        "sftp",
        "-q",
        "-b",
        "-",
        "-P",
        str(account.port),
        *_ssh_options(outside, account),
        f"{account.username}@{account.host}",
    ]
    return timed(outside, case, words, stdin=batch, stamped=True)


def lftp(outside: Outside, case: Case) -> Measured:
    """Lftp over OpenSSH's ssh with AES-GCM; its clock runs as that of `sftp`."""
    account = _account(case)
    options = " ".join(str(word) for word in _ssh_options(outside, account))
    settings = [f'set sftp:connect-program "ssh -a -x {options}"', "set xfer:clobber on", "set cmd:fail-exit on", "set net:max-retries 1"]
    moved = _command(outside, case, get="get {0} -o /dev/null", put="put {0} -o {1}")
    commands = [*settings, f"open -u {account.username},none -p {account.port} sftp://{account.host}", "cls -1 .", "!date +%s.%N"]
    return timed(outside, case, ["lftp", "-f", "/dev/stdin"], stdin="\n".join([*commands, moved.strip(), "!date +%s.%N", ""]), stamped=True)


def timed(
    outside: Outside,
    case: Case,
    words: Sequence[str | Path],
    *,
    stdin: str = "",
    stamped: bool = False,
    says_seconds: bool = False,
) -> Measured:
    """Runs a command to its end and returns what it and the servers used.

    Raises:
        PeerFailed: it ended with another status than 0, or not in time.
    """
    servers, far = cpu_seconds(outside.servers), cpu_seconds(outside.distances)
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=passed_on(),
        cwd=places.ROOT,
        text=True,
        process_group=0,
    )
    with Watch(process.pid) as watch:
        try:
            said, complained = process.communicate(stdin, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            for pid in list(tree(process.pid)):
                subprocess.run(["kill", "-9", str(pid)], check=False)
            process.wait()
            raise PeerFailed(f"{words[0]} was not done after {LIMIT:g} s") from None
    seconds = time.perf_counter() - began
    if process.returncode:
        raise PeerFailed(f"{words[0]} ended with {process.returncode}: {(said + complained)[-2000:]}")
    if stamped:
        stamps = [float(line) for line in said.splitlines() if line[:1].isdigit() and line.replace(".", "").isdigit()]
        seconds = stamps[-1] - stamps[-2]
    if says_seconds:
        seconds = float(said.split()[-1])
    return Measured(
        seconds=seconds,
        bytes=case.workload.bytes,
        files=len(case.workload.sizes),
        client_cpu=watch.cpu,
        server_cpu=cpu_seconds(outside.servers) - servers,
        distance_cpu=cpu_seconds(outside.distances) - far,
        peak=watch.peak,
    )


def installed(name: str) -> bool:
    """Returns whether a program is there."""
    return RCLONE.exists() if name == "rclone" else shutil.which(name) is not None


def _remote(outside: Outside, name: str, place: Place) -> str:
    if isinstance(place, Bucket):
        lines = {
            "type": "s3",
            "provider": "Other",
            "endpoint": place.url,
            "access_key_id": place.access_key,
            "secret_access_key": place.secret_key,
            "region": "us-gov-west-1",
            "force_path_style": "true",
            "no_check_bucket": "true",
            "use_multipart_etag": "false",
        }
    else:
        lines = {
            "type": "sftp",
            "host": place.host,
            "port": str(place.port),
            "user": place.username,
            "key_file": str(outside.key_file(place)),
            "known_hosts_file": str(outside.known_hosts(place)),
            "shell_type": "none",
            "disable_hashcheck": "true",
        }
    return f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())


def _root(place: Place) -> str:
    return f"{place.name}/" if isinstance(place, Bucket) else ""


def _told(outside: Outside, place: Place) -> dict[str, object]:
    if isinstance(place, Bucket):
        return {"kind": "s3", "url": place.url, "bucket": place.name, "access_key": place.access_key, "secret_key": place.secret_key}
    return {
        "kind": "sftp",
        "host": place.host,
        "port": place.port,
        "username": place.username,
        "root": str(place.directory),
        "key_file": str(outside.key_file(place)),
        "host_key": place.host_key,
    }


def _account(case: Case) -> SftpAccount:
    account = case.source if isinstance(case.source, SftpAccount) else case.target
    assert isinstance(account, SftpAccount)
    return account


def _command(outside: Outside, case: Case, *, get: str, put: str) -> str:
    """A file is read to nowhere where the case reads, and written from memory where it writes."""
    (path,) = case.workload.paths
    if isinstance(case.source, SftpAccount):
        return get.format(path) + "\n"
    return put.format(outside.account(FROM).directory / path, f"{case.into}.bin") + "\n"


def _ssh_options(outside: Outside, account: SftpAccount) -> list[str | Path]:
    known = f"UserKnownHostsFile={outside.known_hosts(account)}"
    return ["-o", "BatchMode=yes", "-o", known, "-o", f"Ciphers={CIPHER}", "-o", "LogLevel=ERROR", "-i", outside.key_file(account)]
