"""What stands between two regions on one machine: a link that can be cut, and what AWS would replicate."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from deploy.local.link import Link, LinkState
from deploy.local.process import LOOPBACK
from deploy.local.provision import Provisioned, provision
from deploy.local.regions import EAST, WEST
from deploy.local.replicate import RegistryRows, Replicated, RowStamp, SecretValues, Side, StagedObjects, chosen
from deploy.local.servers import AwsEmulator

PATIENCE: Final = timedelta(seconds=60)
OLD, NEW, NEWER = RowStamp(1, "a"), RowStamp(2, "b"), RowStamp(3, "c")


class Echo:
    """A server that sends back what it gets."""

    def __init__(self) -> None:
        self.listener = socket.create_server((LOOPBACK, 0))
        self.port = int(self.listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    @staticmethod
    def _echo(connection: socket.socket) -> None:
        with connection:
            try:
                while block := connection.recv(1024):
                    connection.sendall(block)
            except OSError:
                return


@pytest.fixture
def link() -> Iterator[Link]:
    """A link to a server that echoes."""
    echo = Echo()
    made = Link(lambda: echo.port).start()
    yield made
    made.stop()
    echo.listener.close()


def connect(link: Link, *, patience: float = PATIENCE.total_seconds()) -> socket.socket:
    """Returns a connection through the link."""
    return socket.create_connection((LOOPBACK, link.port), timeout=patience)


def answered(connection: socket.socket) -> bytes:
    """Returns what comes back for a word; nothing where the connection was dropped."""
    try:
        connection.sendall(b"word")
        return connection.recv(4)
    except (ConnectionError, BrokenPipeError):
        return b""


def test_a_link_carries_both_ways(link: Link) -> None:
    """What is sent comes back; the far end's closing is the near end's."""
    with connect(link) as connection:
        assert answered(connection) == b"word"
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""


def test_a_cut_link_drops_and_refuses_until_it_is_healed(link: Link) -> None:
    """Connections of before are gone for good; new ones are refused, and pass again afterwards."""
    with connect(link) as before:
        assert answered(before) == b"word"
        link.cut()
        assert answered(before) == b""
    with pytest.raises(ConnectionRefusedError):
        connect(link)
    link.heal()
    with connect(link) as after:
        assert answered(after) == b"word"


def test_a_silent_link_takes_everything_and_gives_nothing(link: Link) -> None:
    """Neither an old connection nor a new one hears anything, nor that anything is wrong; healed, both are dropped."""
    with connect(link) as before, ExitStack() as ends:
        assert answered(before) == b"word"
        link.silence()
        new = ends.enter_context(connect(link))
        for connection in (before, new):
            connection.settimeout(0.3)
            with pytest.raises(TimeoutError):
                answered(connection)
            connection.settimeout(PATIENCE.total_seconds())
        link.become(LinkState.UP)
        assert (before.recv(1), new.recv(1)) == (b"", b"")
    with connect(link) as after:
        assert answered(after) == b"word"


def test_a_slow_link_takes_its_time(link: Link) -> None:
    """An answer needs two delays: there and back."""
    link.delay = timedelta(milliseconds=150)
    with connect(link) as connection:
        began = time.monotonic()
        assert answered(connection) == b"word"
        assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize(
    ("near", "far", "equal", "stays"),
    [
        (OLD, OLD, OLD, None),
        (None, None, OLD, None),
        (OLD, None, None, 0),
        (None, OLD, None, 1),
        (NEW, OLD, OLD, 0),
        (OLD, NEW, OLD, 1),
        (None, OLD, OLD, 0),
        (OLD, None, OLD, 1),
        (NEW, NEWER, OLD, 1),
        (NEWER, NEW, OLD, 0),
        (None, NEW, OLD, 1),
        (NEW, None, OLD, 0),
        (NEW, OLD, None, 0),
    ],
)
def test_the_side_that_changed_stays(near: RowStamp | None, far: RowStamp | None, equal: RowStamp | None, stays: int | None) -> None:
    """A change or a removal wins over what stood still, the higher revision over the lower, a change over a removal."""
    assert chosen((near, far), equal) == stays


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AwsEmulator, AwsEmulator]]:
    """Two regions' AWS, provisioned."""
    directory: Path = tmp_path_factory.mktemp("sides")
    with AwsEmulator(directory / "west", region=WEST) as west, AwsEmulator(directory / "east", region=EAST) as east:
        for one in (west, east):
            provision(one.session(), endpoint_url=one.url)
        yield west, east


Make = Callable[[type[Replicated[Any]]], Replicated[Any]]


@pytest.fixture
def make(sides: tuple[AwsEmulator, AwsEmulator]) -> Make:
    """Makes what replicates one kind of thing."""

    def made(kind: type[Replicated[Any]]) -> Replicated[Any]:
        both = (Side(WEST, sides[0].url, sides[0].url), Side(EAST, sides[1].url, sides[1].url))
        names = Provisioned(prefix="eft-", region=WEST)
        if kind is RegistryRows:
            return RegistryRows(both, table=f"{names.prefix}registry")
        return StagedObjects(both, bucket="eft-staging") if kind is StagedObjects else SecretValues(both)

    return made


def test_registry_rows_come_over_and_the_higher_revision_stays(sides: tuple[AwsEmulator, AwsEmulator], make: Make) -> None:
    """Added, changed on both sides, and removed: each time both tables end alike, and then nothing is left to do."""
    west, east = (side.client("dynamodb") for side in sides)
    replication = make(RegistryRows)

    def row(revision: int, body: str) -> dict[str, dict[str, str]]:
        return {"pk": {"S": "N#t"}, "sk": {"S": "E#1"}, "revision": {"N": str(revision)}, "body": {"S": body}}

    def bodies() -> list[str | None]:
        key = {"pk": {"S": "N#t"}, "sk": {"S": "E#1"}}
        found = [client.get_item(TableName="eft-registry", Key=key, ConsistentRead=True).get("Item") for client in (west, east)]
        return [None if item is None else item["body"]["S"] for item in found]

    west.put_item(TableName="eft-registry", Item=row(1, "first"))
    assert (replication.once(), bodies()) == (1, ["first", "first"])
    west.put_item(TableName="eft-registry", Item=row(2, "west's"))
    east.put_item(TableName="eft-registry", Item=row(3, "east's"))
    assert (replication.once(), bodies()) == (1, ["east's", "east's"])
    west.delete_item(TableName="eft-registry", Key={"pk": {"S": "N#t"}, "sk": {"S": "E#1"}})
    assert (replication.once(), bodies(), replication.once()) == (1, [None, None], 0)


def test_secrets_come_over_with_their_version(sides: tuple[AwsEmulator, AwsEmulator], make: Make) -> None:
    """Created, rotated on the other side, deleted, and created once more."""
    west, east = (side.client("secretsmanager") for side in sides)
    replication = make(SecretValues)
    west.create_secret(Name="eft/t/1", SecretString="first")
    replication.once()
    assert east.get_secret_value(SecretId="eft/t/1")["SecretString"] == "first"
    east.put_secret_value(SecretId="eft/t/1", SecretString="rotated")
    replication.once()
    there, here = (client.get_secret_value(SecretId="eft/t/1") for client in (east, west))
    assert (here["SecretString"], here["VersionId"]) == ("rotated", there["VersionId"])
    west.delete_secret(SecretId="eft/t/1", RecoveryWindowInDays=7)
    replication.once()
    assert "DeletedDate" in east.describe_secret(SecretId="eft/t/1")
    west.restore_secret(SecretId="eft/t/1")
    west.put_secret_value(SecretId="eft/t/1", SecretString="again")
    replication.once()
    assert east.get_secret_value(SecretId="eft/t/1")["SecretString"] == "again"
    assert replication.once() == 0


def test_a_staged_object_keeps_its_version_and_etag(sides: tuple[AwsEmulator, AwsEmulator], make: Make) -> None:
    """A row that pins a staged version finds it in the other region, as with S3's own replication; its removal comes over, too."""
    west, east = (side.client("s3") for side in sides)
    replication = make(StagedObjects)
    upload = west.create_multipart_upload(Bucket="eft-staging", Key="t/x/1", Metadata={"eft-transfer": "x"})["UploadId"]
    part = west.upload_part(Bucket="eft-staging", Key="t/x/1", UploadId=upload, PartNumber=1, Body=b"bytes")
    made = west.complete_multipart_upload(
        Bucket="eft-staging", Key="t/x/1", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    )
    replication.once()
    copy = east.get_object(Bucket="eft-staging", Key="t/x/1", VersionId=made["VersionId"])
    assert (copy["Body"].read(), copy["ETag"], copy["Metadata"]) == (b"bytes", made["ETag"], {"eft-transfer": "x"})
    west.delete_object(Bucket="eft-staging", Key="t/x/1", VersionId=made["VersionId"])
    replication.once()
    assert "Versions" not in east.list_object_versions(Bucket="eft-staging")
    assert replication.once() == 0
