"""What goes wrong at a customer's endpoints is told to the customer, each with its reason, and nothing is lost by it."""

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from deploy.local.customer import Customer, Refused
from deploy.local.process import free_port
from deploy.local.samples import MIB, Sample, digest_of
from deploy.local.servers import S3Server
from deploy.local.sftp import PasswordSftpServer, Quirks, SftpServer, new_key
from deploy.local.stack import LocalStack
from tests.e2e.refusing_s3 import RefusingS3
from tests.running import PATIENCE, Crew, Place, Shop

NAME = "report.bin"
SIZE = 3 * MIB
IMPATIENT = {"retry": {"tries": 2, "first": "PT1S", "longest": "PT1S"}}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root serves another user and mounts file systems")


@dataclass(frozen=True)
class Attempt:
    """A transfer that cannot go well, and what must be as it was before."""

    transfer: str
    kept: Path | None = None
    sample: Sample | None = None
    target: Path | None = None


class Day:
    """One customer's bad day: every attempt is begun at once, each test looks at one."""

    def __init__(self, shop: Shop, exits: ExitStack, seaweed: S3Server) -> None:
        self.shop = shop
        self.exits = exits
        self.seaweed = seaweed

    def good_source(self) -> tuple[Place, Sample]:
        """Returns an account with a file to send."""
        source = self.shop.place("sftp")
        return source, source.fill({NAME: SIZE})[NAME]

    def to(self, endpoint: str, *, target: Path | None = None, policy: Mapping[str, object] | None = None) -> Attempt:
        """Sends a good file to a place where it cannot arrive."""
        source, sample = self.good_source()
        transfer = self.shop.customer.submit((source.endpoint, NAME), (endpoint, None), policy={**IMPATIENT, **(policy or {})})
        return Attempt(transfer, source.directory / NAME, sample, target)

    def since(self, endpoint: str, *, path: str = NAME) -> Attempt:
        """Asks for a file where none can be had."""
        target = self.shop.place("sftp")
        transfer = self.shop.customer.submit((endpoint, path), (target.endpoint, None), policy=IMPATIENT)
        return Attempt(transfer, target=target.directory)

    def sftp(self, **changed: object) -> str:
        """Onboards an account with something about it that is wrong."""
        return self.shop.customer.add_sftp("wrong", self.shop.account(), **changed)

    def s3(self, **changed: object) -> str:
        """Onboards a bucket with something about it that is wrong."""
        return self.shop.customer.add_s3("wrong", "no-such-bucket-anywhere", **changed)

    def s3_that_refuses(self, status: int, code: str, headers: dict[str, str] | None = None) -> str:
        """Onboards a store that refuses everything."""
        return self.s3(endpoint_url=self.exits.enter_context(RefusingS3(status, code, headers)).url)


def wrong_password(day: Day) -> Attempt:
    """Another password than the account's."""
    account = replace(day.shop.quirky_account(), password="wrong")
    return day.to(day.shop.customer.add_sftp("wrong", account), target=account.directory)


def wrong_key(day: Day) -> Attempt:
    """A stranger's key."""
    account = replace(day.shop.account(), private_key=new_key("ed25519")[0])
    return day.since(day.shop.customer.add_sftp("wrong", account))


def changed_host_key(day: Day) -> Attempt:
    """The server shows another host key than the pinned one."""
    algorithm, key = new_key("ed25519")[1].split()[:2]
    return day.to(day.sftp(host_keys=[{"algorithm": algorithm, "key": key}]))


def missing_directory(day: Day) -> Attempt:
    """A destination directory that is not there and not to be made."""
    target = day.shop.place("sftp")
    source, sample = day.good_source()
    policy = {**IMPATIENT, "create_directories": False}
    transfer = day.shop.customer.submit((source.endpoint, NAME), (target.endpoint, "not/there/x"), policy=policy)
    return Attempt(transfer, source.directory / NAME, sample, target.directory)


def wrong_checksum(day: Day) -> Attempt:
    """The file is not what the request says that it is."""
    source, sample = day.good_source()
    target = day.shop.place("sftp")
    transfer = day.shop.customer.submit((source.endpoint, NAME), (target.endpoint, None), expected_sha256="0" * 64)
    return Attempt(transfer, source.directory / NAME, sample, target.directory)


def denied_by_s3(day: Day) -> Attempt:
    """A wrong secret at a store that checks signatures."""
    bucket = f"denied-{uuid.uuid4().hex[:8]}"
    day.seaweed.client().create_bucket(Bucket=bucket)
    credential = {"access_key_id": S3Server.ACCESS_KEY, "secret_access_key": "wrong"}
    return day.to(day.shop.customer.add_s3("wrong", bucket, endpoint_url=day.seaweed.url, credential=credential))


MOVED = {"x-amz-bucket-region": "us-gov-east-1"}
CASES: Mapping[str, tuple[Callable[[Day], Attempt], str, str]] = {
    "wrong password": (wrong_password, "auth_failed", ""),
    "wrong key": (wrong_key, "auth_failed", ""),
    "changed host key": (changed_host_key, "host_key_mismatch", "SHA256:"),
    "unreachable host": (lambda day: day.to(day.sftp(port=free_port())), "unreachable", "127.0.0.1"),
    "unknown host": (lambda day: day.since(day.sftp(host="no-such-host.invalid")), "dns_failed", "no-such-host.invalid"),
    "missing source": (lambda day: day.since(day.shop.place("sftp").endpoint, path="gone.bin"), "source_missing", "gone.bin"),
    "missing object": (lambda day: day.since(day.shop.place("s3").endpoint, path="gone.bin"), "source_missing", "gone.bin"),
    "missing directory": (missing_directory, "directory_missing", "not/there"),
    "wrong checksum": (wrong_checksum, "checksum_mismatch", "0000"),
    "missing bucket": (lambda day: day.to(day.s3()), "bucket_missing", "no-such-bucket-anywhere"),
    "denied key": (denied_by_s3, "access_denied", "credential"),
    "wrong region": (lambda day: day.to(day.s3_that_refuses(301, "PermanentRedirect", MOVED)), "wrong_region", "us-gov-east-1"),
    "expired credential": (lambda day: day.to(day.s3_that_refuses(400, "ExpiredToken")), "credential_expired", "rotate"),
}


@pytest.fixture(scope="module")
def bad_day(stack: LocalStack, _crew: Crew, seaweed: S3Server) -> Iterator[tuple[Customer, dict[str, Attempt]]]:
    """A customer and all of the attempts, under way."""
    _crew.be_as_usual()
    with ExitStack() as exits, stack.customer(f"t{uuid.uuid4().hex[:8]}") as unlucky:
        day = Day(Shop(stack, unlucky), exits, seaweed)
        yield unlucky, {name: begin(day) for name, (begin, _, _) in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_it_ends_with_its_reason(bad_day: tuple[Customer, dict[str, Attempt]], name: str) -> None:
    """The transfer rests as dead with a reason and words that help; the source is untouched, nothing stands at the destination."""
    (unlucky, attempts), (_, reason, word) = bad_day, CASES[name]
    attempt = attempts[name]
    seen = unlucky.rested(attempt.transfer, limit=PATIENCE)
    assert (seen["state"], seen["reason"]) == ("dead", reason), seen["error"]
    assert word in seen["error"]
    assert seen["receipt"] is None
    if attempt.kept is not None:
        assert digest_of(attempt.kept) == attempt.sample
    if attempt.target is not None:
        assert [path for path in attempt.target.rglob("*") if path.is_file()] == []


def test_a_wrong_passphrase_is_refused_at_once(shop: Shop) -> None:
    """A key that its passphrase does not open is never stored: the answer names the field."""
    sealed, _ = new_key("ed25519", passphrase="right")
    with pytest.raises(Refused) as refused:
        shop.customer.add_sftp("sealed", shop.account(), credential={"private_key": sealed, "passphrase": "wrong"})
    assert refused.value.status == 422
    assert "credential" in str(refused.value.problem["errors"])
    assert shop.customer.get("/endpoints")["items"] == []


def test_an_unpinned_endpoint_is_tested_and_moves_nothing(shop: Shop) -> None:
    """Without a pinned host key the test shows the server's keys, and a transfer is refused until one is pinned."""
    account, target = shop.account(), shop.place("s3")
    expected = {"a": b"unpinned"}
    (account.directory / "a").write_bytes(expected["a"])
    endpoint = shop.customer.add_sftp("new", account, host_keys=[])
    report = shop.customer.post(f"/endpoints/{endpoint}/test")
    (shown,) = report["host_keys"]
    assert f"{shown['algorithm']} {shown['key']}" == " ".join(account.host_key.split()[:2])
    with pytest.raises(Refused) as refused:
        shop.customer.submit((endpoint, "a"), (target.endpoint, None))
    assert refused.value.problem["reason"] == "host_key_unpinned"
    shop.customer.post(f"/endpoints/{endpoint}/host-keys", {"host_keys": [{"algorithm": shown["algorithm"], "key": shown["key"]}]})
    seen = shop.customer.rested(shop.customer.submit((endpoint, "a"), (target.endpoint, None)), limit=PATIENCE)
    assert seen["state"] == "settled", seen


@pytest.mark.parametrize("path", ["../../etc/passwd", "a/./b", "a\nb", "x" * 256, "", "dir/"])
def test_a_path_that_no_file_can_have_is_refused(shop: Shop, path: str) -> None:
    """A request for a name with `..`, a control character or more than 255 bytes in a component is refused, and names the field."""
    source = shop.place("sftp")
    with pytest.raises(Refused) as refused:
        shop.customer.submit((source.endpoint, path), (source.endpoint, "b"))
    assert refused.value.status == 422
    assert refused.value.problem["errors"][0]["field"] == "/source/path"


def test_hostile_names_on_a_server_are_shown_and_left_alone(shop: Shop) -> None:
    """Links and names that cannot be moved become dead transfers that say why; all others beside them arrive."""
    source, target = shop.place("sftp"), shop.place("sftp")
    longest = "l" * 251 + ".csv"
    good = source.fill({"..twodots": 5, "blank in it": 5, longest: 5, "\u202eright-to-left\u00fc": 5})
    root = os.fsencode(source.directory)
    for name in (b"caf\xe9.csv", b"line\nbreak.csv", b"\x1b[31mred.csv"):
        Path(os.fsdecode(root + b"/" + name)).write_bytes(b"hostile")
    (source.directory / "link.csv").symlink_to("/etc/passwd")
    flow = shop.customer.add_flow("hostile", source.endpoint, target.endpoint)
    shop.customer.run(flow)
    shop.customer.flow_rested(flow, count=len(good) + 4, limit=PATIENCE)
    seen = [shop.customer.transfer(one["id"]) for one in shop.customer.transfers(flow=flow)]
    found = target.findings(good, seen)
    assert found.clean, str(found)
    refused = {one["source"]["path"]: one["reason"] for one in seen if one["state"] != "settled"}
    assert sorted(refused.values()) == ["is_symlink", "name_invalid", "name_invalid", "name_invalid"]
    assert all(path.isprintable() for path in refused)
    assert len(list(source.directory.iterdir())) == len(good) + 4


def test_hostile_keys_in_a_bucket_are_shown_and_left_alone(shop: Shop) -> None:
    """Keys that would leave a directory, or that no file can be called, become dead transfers; the others arrive."""
    source, target = shop.place("s3"), shop.place("sftp")
    good = source.fill({"in/good": 5})
    bad = ("../up", "in/../../up", "in//twice", "line\nbreak", f"{'x' * 300}", "/lead")
    for key in bad:
        shop.s3.put_object(Bucket=source.bucket, Key=key, Body=b"hostile")
    flow = shop.customer.add_flow("hostile", source.endpoint, target.endpoint, selection={"recursive": True})
    shop.customer.run(flow)
    shop.customer.flow_rested(flow, count=len(good) + len(bad), limit=PATIENCE)
    seen = [shop.customer.transfer(one["id"]) for one in shop.customer.transfers(flow=flow)]
    found = target.findings(good, seen)
    assert found.clean, str(found)
    assert [one["reason"] for one in seen if one["state"] != "settled"] == ["name_invalid"] * len(bad)
    assert not (target.directory.parent / "up").exists()


def test_a_cut_connection_is_ridden_through(shop: Shop, quirky: PasswordSftpServer) -> None:
    """A server that cuts two connections in mid-file gets the file once and whole all the same."""
    account, source = shop.quirky_account(), shop.place("s3")
    expected = source.fill({NAME: 24 * MIB})
    target = Place(shop, "sftp", shop.customer.add_sftp("cutting", account), directory=account.directory)
    quirky.behave(Quirks(cut_after=10 * MIB, cut_times=2))
    patient = {"retry": {"tries": 8, "first": "PT1S", "longest": "PT1S"}}
    transfer = shop.customer.submit((source.endpoint, NAME), (target.endpoint, None), policy=patient)
    seen = shop.customer.rested(transfer, limit=PATIENCE)
    assert seen["state"] == "settled", seen
    assert [event["reason"] for event in seen["timeline"] if event["reason"]] != []
    found = target.findings(expected, [seen])
    assert found.clean, str(found)


def test_a_full_quota_is_told(shop: Shop, quirky: PasswordSftpServer) -> None:
    """A server that takes no more bytes leaves a dead transfer; with room again, the re-drive brings the file."""
    account, source = shop.quirky_account(), shop.place("sftp")
    expected = source.fill({NAME: SIZE})
    target = Place(shop, "sftp", shop.customer.add_sftp("full", account), directory=account.directory)
    quirky.behave(Quirks(full_after=MIB))
    transfer = shop.customer.submit((source.endpoint, NAME), (target.endpoint, None), policy=IMPATIENT)
    seen = shop.customer.rested(transfer, limit=PATIENCE)
    assert (seen["state"], seen["reason"]) == ("dead", "write_failed"), seen
    assert not (account.directory / NAME).exists()
    quirky.behave(Quirks())
    _redriven(shop, transfer, target, expected)


@pytest.fixture
def tiny(shop: Shop) -> Iterator[Place]:
    """An account on a file system of 2 MiB."""
    account = shop.account()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(account.directory)], check=True)
    try:
        yield Place(shop, "sftp", shop.customer.add_sftp("tiny", account), directory=account.directory)
    finally:
        subprocess.run(["umount", "--lazy", str(account.directory)], check=True)


@needs_root
def test_a_full_disk_is_told(shop: Shop, tiny: Place) -> None:
    """A file that does not fit leaves a dead transfer that says so; once there is room, the re-drive brings it."""
    source = shop.place("sftp")
    expected = source.fill({NAME: SIZE})
    transfer = shop.customer.submit((source.endpoint, NAME), (tiny.endpoint, None), policy=IMPATIENT)
    seen = shop.customer.rested(transfer, limit=PATIENCE)
    assert (seen["state"], seen["reason"]) == ("dead", "disk_full"), seen
    subprocess.run(["mount", "-o", "remount,size=16m", str(tiny.directory)], check=True)
    _redriven(shop, transfer, tiny, expected)


@needs_root
def test_permissions_are_told(shop: Shop) -> None:
    """A source that may not be read, and a directory that may not be written to, each leave a dead transfer."""
    sshd = shop.stack.sftp
    if not isinstance(sshd, SftpServer):
        pytest.skip("this machine has no sshd")
    account = sshd.account(f"{shop.customer.tenant}-nobody", user="nobody")
    stranger = shop.customer.add_sftp("nobody's", account)
    (account.directory / "secret.bin").write_bytes(b"root's")
    (account.directory / "secret.bin").chmod(0o600)
    (account.directory / "closed").mkdir(mode=0o755)
    source, bucket = shop.place("sftp"), shop.place("s3")
    source.fill({NAME: SIZE})
    unreadable = shop.customer.submit((stranger, "secret.bin"), (bucket.endpoint, None), policy=IMPATIENT)
    unwritable = shop.customer.submit((source.endpoint, NAME), (stranger, f"closed/{NAME}"), policy=IMPATIENT)
    for transfer in (unreadable, unwritable):
        seen = shop.customer.rested(transfer, limit=PATIENCE)
        assert (seen["state"], seen["reason"]) == ("dead", "permission_denied"), seen
    assert list((account.directory / "closed").iterdir()) == []
    assert (account.directory / "secret.bin").read_bytes() == b"root's"
    assert shop.s3.list_objects_v2(Bucket=bucket.bucket)["KeyCount"] == 0


def _redriven(shop: Shop, transfer: str, target: Place, expected: Mapping[str, Sample]) -> None:
    shop.customer.redrive(transfer)
    seen = shop.customer.rested(transfer, limit=PATIENCE)
    assert seen["state"] == "settled", seen
    found = target.findings(expected, [seen])
    assert found.clean, str(found)
