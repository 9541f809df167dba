"""The measuring instruments themselves: a figure is worth as much as they are."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree as ET

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from deploy.local.process import LOOPBACK, Stack
from eft.domain.names import remote_path
from tests.bench import fleet, peers
from tests.bench.gauge import cpu_seconds, tree
from tests.bench.measured import Measured, outcome
from tests.bench.outside import FROM, TO, Distance, Outside
from tests.bench.peers import Case
from tests.bench.report import BEGIN, END, Report
from tests.bench.rows import Wanted, matrix
from tests.bench.workloads import GIB, KIB, MIB, ONE, SMALL, Workload
from tests.contract.sftp_bench import SftpBench
from tests.running import eventually

LITTLE = Workload("little", "3 × 10 KiB", (10 * KIB,) * 3)
SOME = Workload("some", "1 × 3 MiB", (3 * MIB,))


@pytest.fixture(scope="module")
def outside(servers_directory: Path) -> Iterator[Outside]:
    """The SSH server and the sink, and what is asked for besides."""
    with Stack() as stack:
        yield Outside(servers_directory / "bench", stack)


def test_the_sink_counts_and_keeps_nothing_but_sizes(outside: Outside) -> None:
    """A client finds the size and metadata of what it put, whole or in parts, and a lost upload is gone; bytes are counted, not kept."""
    sink = outside.sink()
    s3 = cast("Any", boto3).client(
        "s3",
        endpoint_url=sink.url,
        region_name="us-gov-west-1",
        aws_access_key_id=sink.access_key,
        aws_secret_access_key=sink.secret_key,
        config=Config(s3={"addressing_style": "path"}),
    )
    before = outside.discarding.counted()
    s3.put_object(Bucket=TO, Key="a b/ü.bin", Body=b"x" * 100_000, Metadata={"eft-transfer": "t1"})
    head = s3.head_object(Bucket=TO, Key="a b/ü.bin")
    assert (head["ContentLength"], head["Metadata"]) == (100_000, {"eft-transfer": "t1"})
    upload = s3.create_multipart_upload(Bucket=TO, Key="large", ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT")
    assert upload["ChecksumAlgorithm"] == "CRC64NVME"
    sizes = [5 * MIB, 5 * MIB, 17]
    for number, size in enumerate(sizes, start=1):
        s3.upload_part(Bucket=TO, Key="large", UploadId=upload["UploadId"], PartNumber=number, Body=b"y" * size)
    listed = s3.list_parts(Bucket=TO, Key="large", UploadId=upload["UploadId"])["Parts"]
    assert [part["Size"] for part in listed] == sizes
    parts = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in listed]
    s3.complete_multipart_upload(Bucket=TO, Key="large", UploadId=upload["UploadId"], MultipartUpload={"Parts": parts})
    assert s3.head_object(Bucket=TO, Key="large")["ContentLength"] == sum(sizes)
    with pytest.raises(ClientError, match="NoSuchUpload"):
        s3.list_parts(Bucket=TO, Key="large", UploadId=upload["UploadId"])
    s3.close()
    counted = outside.discarding.counted() - before
    assert (counted["PutObject"], counted["UploadPart"], counted["HeadObject"]) == (1, 3, 2)
    assert counted["bytes"] >= 100_000 + sum(sizes)


def test_a_distance_delays_and_changes_nothing(servers_directory: Path) -> None:
    """Bytes come back whole and in order, not before the round trip is over; a megabyte takes no longer per byte."""
    with socket.create_server((LOOPBACK, 0)) as far, Stack() as stack:
        port = int(far.getsockname()[1])
        distance = stack.start(Distance(servers_directory / "distance", target=port, milliseconds=200))
        # The probe that waited for the start has been passed on, too.
        far.accept()[0].close()
        with socket.create_connection((LOOPBACK, distance.port)) as near:
            end, _ = far.accept()
            with end:
                began = time.monotonic()
                near.sendall(b"ping")
                assert end.recv(4, socket.MSG_WAITALL) == b"ping"
                end.sendall(b"pong")
                assert near.recv(4, socket.MSG_WAITALL) == b"pong"
                assert time.monotonic() - began >= 0.2
                sent = bytes(n * 7 % 251 for n in range(MIB))
                near.sendall(sent)
                near.shutdown(socket.SHUT_WR)
                assert end.recv(MIB, socket.MSG_WAITALL) == sent
                assert end.recv(1) == b""


def test_processor_time_of_what_has_ended_counts(outside: Outside) -> None:
    """A server's time includes that of sessions that are over: sshd's work is done by its children."""
    outside.fill("sftp", ONE_LARGE)
    case = Case(outside.account(FROM), outside.sink(), ONE_LARGE, "cpu")
    before = cpu_seconds(outside.servers)
    measured = peers.sftp(outside, case)
    assert measured.server_cpu > 0.05
    assert cpu_seconds(outside.servers) - before >= measured.server_cpu - 0.1
    assert measured.client_cpu > 0.05
    assert measured.peak > MIB


def test_processor_time_of_a_session_that_is_cut_off_counts(outside: Outside) -> None:
    """The connections of a program that ends, and of the engine's pool, are not logged out of."""
    outside.fill("sftp", ONE_LARGE)
    account = outside.account(FROM)
    used: list[float] = []
    for _ in range(2):
        with SftpBench(account) as bench:
            with bench.open() as store:
                file = store.stat(remote_path(ONE_LARGE.paths[0]))
                for _chunk in store.read(file, start=0, size=file.size):
                    pass
            used.append(cpu_seconds(outside.servers))
    eventually(lambda: len(list(tree(outside.sshd.child.pid))) == SSHD_ALONE)
    assert used[1] - used[0] > 0.05
    assert cpu_seconds(outside.servers) >= used[1]


SSHD_ALONE = 2
"""Processes: sshd, and who waits for what its sessions leave."""
ONE_LARGE = Workload("large", "1 × 128 MiB", (128 * MIB,))


@pytest.mark.parametrize("name", ["airflow_style", "in_memory"])
def test_scripts_move_all_files_to_the_sink(outside: Outside, name: str) -> None:
    """Airflow's way, and the engine with its rows in memory, bring each byte to S3 once."""
    outside.fill("sftp", LITTLE)
    before = outside.discarding.counted()
    measured = peers.script(name)(outside, Case(outside.account(FROM), outside.sink(), LITTLE, name))
    counted = outside.discarding.counted() - before
    assert measured.files == 3
    assert LITTLE.bytes <= counted["bytes"] <= LITTLE.bytes + 5000


@pytest.mark.parametrize("name", ["airflow_style", "in_memory"])
def test_scripts_move_all_files_to_sshd(outside: Outside, name: str) -> None:
    """Both bring each byte to an SFTP server, from a bucket and, the engine, from another account."""
    source = outside.bucket(FROM) if name == "airflow_style" else outside.account(FROM)
    outside.fill("s3" if name == "airflow_style" else "sftp", LITTLE)
    peers.script(name)(outside, Case(source, outside.account(TO), LITTLE, name))
    arrived = outside.account(TO).directory / name
    sent = outside.account(FROM).directory / LITTLE.name
    assert sorted(path.read_bytes() for path in arrived.iterdir()) == sorted(path.read_bytes() for path in sent.iterdir())
    outside.empty(name)
    assert not arrived.exists()


def test_the_engine_alone_reads_and_writes(outside: Outside) -> None:
    """What is written alone is the file that lies in memory."""
    outside.fill("sftp", SOME)
    alone = peers.script("alone")
    assert alone(outside, Case(outside.account(FROM), outside.sink(), SOME, "alone")).seconds > 0
    assert alone(outside, Case(outside.sink(), outside.account(TO), SOME, "alone")).seconds > 0
    (written,) = (outside.account(TO).directory / "alone").iterdir()
    assert written.read_bytes() == (outside.account(FROM).directory / SOME.paths[0]).read_bytes()


def test_ratios_are_so_that_higher_is_better(tmp_path: Path) -> None:
    """Twice as fast, with half of the processor time, in half of the memory, is 2 each time; figures stand in all three files."""
    report = Report()
    ours = [Measured(seconds=s, bytes=GIB, files=1, client_cpu=1.0, server_cpu=0, peak=125_000_000) for s in (5.0, 1.0, 2.0)]
    theirs = [Measured(seconds=4.0, bytes=GIB, files=1, client_cpu=2.0, server_cpu=0, peak=1)]
    less = [replace(one, peak=1_000_000) for one in ours]
    report.results = [outcome("row", "ours", less, ONE), outcome("row", "theirs", theirs, ONE), outcome("other row", "ours", ours, ONE)]
    of_each = (Wanted("ours", "theirs", 1.5, 3.0), Wanted("ours", "theirs", 2.5, 3.0, "cpu"), Wanted("ours", "allowed", 1.0, 1.0, "memory"))
    report.compare("row", of_each, allowed_mb=250.0)
    assert [(ratio.value, ratio.met) for ratio in report.ratios] == [(2.0, True), (2.0, False), (2.0, True)]
    (tmp_path / "README.md").write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    report.write(tmp_path, profile="test")
    written = json.loads((tmp_path / "latest.json").read_text())
    assert [row["value"] for row in written["ratios"]] == [2.0, 2.0, 2.0]
    assert written["results"][0]["runs"] == 3
    assert written["results"][0]["mb_per_s"] == pytest.approx(GIB / 1e6 / 2, abs=0.01)
    assert "missed by 20%" in (text := (tmp_path / "README.md").read_text())
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert ET.fromstring((tmp_path / "latest.svg").read_text()).tag.endswith("svg")  # noqa: S314 - our own


def test_a_fleet_that_is_too_small_falls_behind() -> None:
    """With half of the slots that the day's work fills, files wait and are not done in time; with ten times as many, nobody waits."""
    times = {"small, far": [1.0], "small, near": [1.0], "large": [10.0]}
    work = 100_000 * (1 + 0.09)
    slots = int(work / fleet.DAY / 2) or 1
    short = fleet.simulate(times, workers=1, slots=slots, files=200_000)
    ample = fleet.simulate(times, workers=10 * slots, slots=10, files=200_000)
    assert not short.done_in_time
    assert short.busy == 1.0
    assert ample.done_in_time
    assert ample.wait_p99 == 0
    assert 0 < ample.busy < 0.1


def test_the_matrix_has_every_case_once() -> None:
    """Each workload in each direction at each distance, the engine beside rclone."""
    rows = matrix()
    cells = {(row.kind, row.workload.name, row.delay) for row in rows if row.tools[:2] == ("engine", "rclone tuned")}
    assert len({row.name for row in rows}) == len(rows) == len(cells) == 4 * 4 * 3
    assert {workload for _, workload, _ in cells} == {"one", "eight", "small", "mixed"}
    assert SMALL.small
    assert not ONE.small
