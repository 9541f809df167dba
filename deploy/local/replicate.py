"""Stands in for what AWS replicates between two regions: the registry table, the secrets, the staging bucket's objects.

    python -m deploy.local.replicate --near REGION URL --far REGION URL --out URL --back URL --prefix eft- --staging BUCKET

It reads each region where it is and writes to the other over the link (`--out` leads from near to far, `--back` the other
way), so that a link that is cut stops it, too. What has changed on one side since both were last equal goes to the other,
removals as well; of two changes the one with the higher revision, or the later one, stays. As with AWS nobody waits for it.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from eft.telemetry import log_to_stderr

log = logging.getLogger(__name__)

EVERY_SECONDS: Final = 0.4
REPLICA_VERSION: Final = "eft-replica-version"
REPLICA_ETAG: Final = "eft-replica-etag"
"""Metadata by which the local emulator gives a replica the version id and etag of its source, as S3's replication does."""
ANY_KEY: Final = "replica"
"""The emulator judges none."""
CONFIG: Final = Config(
    connect_timeout=2, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 1}, s3={"addressing_style": "path"}
)


class Stamp(Protocol):
    """What tells two versions of a thing apart, and which of them is the newer one."""

    @property
    def order(self) -> Any:  # noqa: ANN401 - whatever compares
        """Rises with each change."""


StampT = TypeVar("StampT", bound=Stamp)


@dataclass(frozen=True, slots=True)
class RowStamp:
    """A row of the registry."""

    revision: int
    digest: str

    @property
    def order(self) -> tuple[int, str]:
        """The revision; where both sides have used the same one, one of them stays, the same on both sides."""
        return (self.revision, self.digest)


@dataclass(frozen=True, slots=True)
class VersionStamp:
    """A secret's or an object's current version."""

    version: str
    changed: float

    @property
    def order(self) -> tuple[float, str]:
        """When it was written."""
        return (self.changed, self.version)


@dataclass(frozen=True)
class Side:
    """One region: where it is read, and where it is written to from the other."""

    region: str
    url: str
    over_link: str

    def client(self, service: str, *, writing: bool) -> Any:  # noqa: ANN401 - boto3's stubs overload on literal names
        """Returns a client of one of its services."""
        session = boto3.Session(aws_access_key_id=ANY_KEY, aws_secret_access_key=ANY_KEY, region_name=self.region)
        make = cast("Any", session.client)
        return make(service, endpoint_url=self.over_link if writing else self.url, config=CONFIG)


class Replicated(ABC, Generic[StampT]):
    """One kind of thing, by name, on both sides."""

    service: str

    def __init__(self, sides: tuple[Side, Side]) -> None:
        self._read = [side.client(self.service, writing=False) for side in sides]
        self._write = [side.client(self.service, writing=True) for side in sides]
        self._equal: dict[str, StampT] = {}
        """What both sides were last seen to have."""
        self._first_seen: dict[str, float] = {}

    def once(self) -> int:
        """Brings both sides together; returns how many things were copied or removed."""
        near, far = (self.seen(client) for client in self._read)
        done = 0
        for name in sorted(near.keys() | far.keys() | self._equal.keys()):
            both = (near.get(name), far.get(name))
            source = chosen(both, self._equal.get(name))
            if source is not None:
                self._bring(name, both[source], both[1 - source], source=source)
                done += 1
            stamp = both[source or 0]
            if stamp is None:
                self._equal.pop(name, None)
            else:
                self._equal[name] = stamp
        return done

    def stamp(self, version: str, changed: float) -> VersionStamp:
        """Returns a version's stamp. A replica's own time is that of its copying: the first one seen counts for both sides."""
        return VersionStamp(version, self._first_seen.setdefault(version, changed))

    def _bring(self, name: str, new: StampT | None, old: StampT | None, *, source: int) -> None:
        reader, writer = self._read[source], self._write[1 - source]
        if new is not None:
            self.copy(name, new, reader=reader, writer=writer)
        elif old is not None:
            self.remove(name, old, writer=writer)

    @abstractmethod
    def seen(self, client: Any) -> dict[str, StampT]:  # noqa: ANN401 - a boto3 client
        """Returns what there is."""

    @abstractmethod
    def copy(self, name: str, stamp: StampT, *, reader: Any, writer: Any) -> None:  # noqa: ANN401 - boto3 clients
        """Makes the other side's like this one; an older writer loses."""

    @abstractmethod
    def remove(self, name: str, stamp: StampT, *, writer: Any) -> None:  # noqa: ANN401 - a boto3 client
        """Removes the other side's."""


def chosen(both: tuple[StampT | None, StampT | None], equal: StampT | None) -> int | None:
    """Returns the side whose version stays where they differ: the one that has changed, else the newer one; None where they agree."""
    near, far = both
    if near == far:
        return None
    if near == equal:
        return 1
    if far == equal:
        return 0
    if near is None or far is None:
        return 1 if near is None else 0
    return 0 if near.order > far.order else 1


class RegistryRows(Replicated[RowStamp]):
    """The registry table. A row that has come to a higher revision meanwhile is not written over."""

    service = "dynamodb"

    def __init__(self, sides: tuple[Side, Side], *, table: str) -> None:
        super().__init__(sides)
        self._table = table
        self._rows: dict[tuple[str, RowStamp], Any] = {}
        """What this round has read."""

    def once(self) -> int:
        """Brings both tables together."""
        self._rows.clear()
        return super().once()

    def seen(self, client: Any) -> dict[str, RowStamp]:  # noqa: ANN401 - a boto3 client
        """Reads the whole table: on one machine it is small."""
        found = {}
        for page in client.get_paginator("scan").paginate(TableName=self._table, ConsistentRead=True):
            for item in page["Items"]:
                name = f"{item['pk']['S']}\n{item['sk']['S']}"
                revision = int(item.get("revision", {"N": "0"})["N"])
                found[name] = RowStamp(revision, hashlib.sha256(repr(sorted(item.items())).encode()).hexdigest())
                self._rows[name, found[name]] = item
        return found

    def copy(self, name: str, stamp: RowStamp, *, reader: Any, writer: Any) -> None:  # noqa: ANN401, ARG002 - boto3 clients
        """Puts the row."""
        self._write_if(
            lambda: writer.put_item(
                TableName=self._table,
                Item=self._rows[name, stamp],
                ConditionExpression="attribute_not_exists(pk) OR attribute_not_exists(revision) OR revision <= :revision",
                ExpressionAttributeValues={":revision": {"N": str(stamp.revision)}},
            )
        )

    def remove(self, name: str, stamp: RowStamp, *, writer: Any) -> None:  # noqa: ANN401 - a boto3 client
        """Deletes the row, unless it has been changed."""
        pk, _, sk = name.partition("\n")
        self._write_if(
            lambda: writer.delete_item(
                TableName=self._table,
                Key={"pk": {"S": pk}, "sk": {"S": sk}},
                ConditionExpression="attribute_not_exists(revision) OR revision = :revision",
                ExpressionAttributeValues={":revision": {"N": str(stamp.revision)}},
            )
        )

    @staticmethod
    def _write_if(write: Any) -> None:  # noqa: ANN401 - a call
        try:
            write()
        except ClientError as error:
            # A newer one stands there by now: the next round sees it.
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise


class SecretValues(Replicated[VersionStamp]):
    """The secrets: a replica has the version id of its source, as those of a multi-region secret."""

    service = "secretsmanager"

    def seen(self, client: Any) -> dict[str, VersionStamp]:  # noqa: ANN401 - a boto3 client
        """Lists the secrets; one that is scheduled for deletion is not there."""
        found = {}
        for page in client.get_paginator("list_secrets").paginate():
            for secret in page["SecretList"]:
                current = [version for version, stages in secret.get("SecretVersionsToStages", {}).items() if "AWSCURRENT" in stages]
                if current:
                    found[secret["Name"]] = self.stamp(current[0], secret["LastChangedDate"].timestamp())
        return found

    def copy(self, name: str, stamp: VersionStamp, *, reader: Any, writer: Any) -> None:  # noqa: ANN401 - boto3 clients
        """Puts the value, bringing the secret back where it was removed."""
        text = reader.get_secret_value(SecretId=name)["SecretString"]
        try:
            writer.create_secret(Name=name, SecretString=text, ClientRequestToken=stamp.version)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code not in {"ResourceExistsException", "InvalidRequestException"}:
                raise
            if writer.describe_secret(SecretId=name).get("DeletedDate") is not None:
                writer.restore_secret(SecretId=name)
            writer.put_secret_value(SecretId=name, SecretString=text, ClientRequestToken=stamp.version)

    def remove(self, name: str, stamp: VersionStamp, *, writer: Any) -> None:  # noqa: ANN401, ARG002 - a boto3 client
        """Schedules the secret's deletion."""
        writer.delete_secret(SecretId=name, RecoveryWindowInDays=7)


class StagedObjects(Replicated[VersionStamp]):
    """The objects of the staging bucket, each in its current version."""

    service = "s3"

    def __init__(self, sides: tuple[Side, Side], *, bucket: str) -> None:
        super().__init__(sides)
        self._bucket = bucket

    def seen(self, client: Any) -> dict[str, VersionStamp]:  # noqa: ANN401 - a boto3 client
        """Lists the current versions."""
        found = {}
        for page in client.get_paginator("list_object_versions").paginate(Bucket=self._bucket):
            for version in page.get("Versions", []):
                if version["IsLatest"]:
                    found[version["Key"]] = self.stamp(version["VersionId"], version["LastModified"].timestamp())
        return found

    def copy(self, name: str, stamp: VersionStamp, *, reader: Any, writer: Any) -> None:  # noqa: ANN401 - boto3 clients
        """Puts the version, with its metadata."""
        answer = reader.get_object(Bucket=self._bucket, Key=name, VersionId=stamp.version)
        kept = {**answer["Metadata"], REPLICA_VERSION: stamp.version, REPLICA_ETAG: answer["ETag"].strip('"')}
        writer.put_object(Bucket=self._bucket, Key=name, Body=answer["Body"].read(), Metadata=kept)

    def remove(self, name: str, stamp: VersionStamp, *, writer: Any) -> None:  # noqa: ANN401 - a boto3 client
        """Deletes this version."""
        writer.delete_object(Bucket=self._bucket, Key=name, VersionId=stamp.version)


def run(kinds: Sequence[Replicated[Any]]) -> None:
    """Brings both sides together again and again, until it is ended."""
    while True:
        for kind in kinds:
            try:
                done = kind.once()
            except (BotoCoreError, ClientError) as error:
                log.info("a region is out of reach", extra={"what": kind.service, "error": type(error).__name__})
            else:
                if done:
                    log.info("replicated", extra={"what": kind.service, "count": done})
        time.sleep(EVERY_SECONDS)


def main() -> None:
    """Reads the command line and replicates."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--near", nargs=2, metavar=("REGION", "URL"), required=True)
    parser.add_argument("--far", nargs=2, metavar=("REGION", "URL"), required=True)
    parser.add_argument("--out", metavar="URL", required=True)
    parser.add_argument("--back", metavar="URL", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--staging", required=True)
    told = parser.parse_args()
    log_to_stderr("INFO")
    (near, near_url), (far, far_url) = told.near, told.far
    sides = (Side(near, near_url, over_link=told.back), Side(far, far_url, over_link=told.out))
    kinds: list[Replicated[Any]] = [
        RegistryRows(sides, table=f"{told.prefix}registry"),
        SecretValues(sides),
        StagedObjects(sides, bucket=told.staging),
    ]
    log.info("replicating", extra={"near": sides[0].region, "far": sides[1].region})
    run(kinds)


if __name__ == "__main__":
    main()
