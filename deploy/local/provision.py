"""Creates what `deploy.resources` describes, through the services' own APIs: tables, queues, the staging bucket.

May be run again on what is there: it adds what is missing and puts right what may be changed. Deployed stacks are made by
the infrastructure code from the same description; this is for the local stack and the tests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from deploy import resources
from deploy.resources import IndexSpec, Key, QueueSpec, TableSpec

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeDefinitionTypeDef, GlobalSecondaryIndexTypeDef
    from mypy_boto3_dynamodb.type_defs import CreateTableInputTypeDef as CreateTable
    from mypy_boto3_dynamodb.type_defs import KeySchemaElementTypeDef as KeyPart
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Provisioned:
    """The names and addresses of a stack's resources, by the suffixes that `deploy.resources` gives them."""

    prefix: str
    region: str
    tables: Mapping[str, str] = field(default_factory=dict)
    queue_urls: Mapping[str, str] = field(default_factory=dict)
    dead_letter_urls: Mapping[str, str] = field(default_factory=dict)
    staging_bucket: str = ""


def provision(
    session: boto3.Session,
    *,
    endpoint_url: str | None = None,
    prefix: str = resources.DEFAULT_PREFIX,
    staging_bucket: str | None = None,
) -> Provisioned:
    """Returns the stack's resources once all of them can be used.

    Without a name given, the staging bucket is `<prefix>staging`; bucket names are shared by all regions and accounts.
    """
    # SigV4 addresses buckets by path: an emulator on 127.0.0.1 has no host names for buckets.
    config = Config(retries={"mode": "standard", "total_max_attempts": 5}, s3={"addressing_style": "path"})
    dynamodb = session.client("dynamodb", endpoint_url=endpoint_url, config=config)
    sqs = session.client("sqs", endpoint_url=endpoint_url, config=config)
    s3 = session.client("s3", endpoint_url=endpoint_url, config=config)
    tables = {spec.suffix: make_table(dynamodb, spec, prefix) for spec in resources.TABLES}
    queues = {spec.suffix: _queue(sqs, spec, prefix) for spec in resources.QUEUES}
    return Provisioned(
        prefix=prefix,
        region=session.region_name,
        tables=tables,
        queue_urls={suffix: url for suffix, (url, _) in queues.items()},
        dead_letter_urls={suffix: url for suffix, (_, url) in queues.items()},
        staging_bucket=make_bucket(s3, staging_bucket or f"{prefix}{resources.STAGING_SUFFIX}"),
    )


def make_bucket(s3: S3Client, name: str) -> str:
    """Returns the name of a bucket that is versioned, closed to the public and rid of abandoned uploads after a week."""
    region = s3.meta.region_name
    try:
        # S3's oldest region may not be named.
        if region == "us-east-1":
            s3.create_bucket(Bucket=name)
        else:
            s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": region})  # type: ignore[typeddict-item]
    except s3.exceptions.BucketAlreadyOwnedByYou:
        pass
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    s3.put_public_access_block(
        Bucket=name,
        PublicAccessBlockConfiguration={
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        },
    )
    s3.put_bucket_lifecycle_configuration(
        Bucket=name,
        LifecycleConfiguration={
            "Rules": [
                {
                    "ID": "abort-stale-uploads",
                    "Status": "Enabled",
                    "Filter": {"Prefix": ""},
                    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": resources.STALE_UPLOAD // DAY},
                }
            ]
        },
    )
    return name


def watch_bucket(session: boto3.Session, bucket: str, queue_url: str, *, endpoint_url: str | None = None) -> str:
    """Has EventBridge tell a queue of every object created in a bucket; returns the rule's name. What the bucket told before stays.

    Sources: Amazon S3 User Guide, "Enabling Amazon EventBridge"; Amazon EventBridge User Guide, "Amazon SQS permissions".
    """
    config = Config(s3={"addressing_style": "path"})
    s3 = session.client("s3", endpoint_url=endpoint_url, config=config)
    sqs = session.client("sqs", endpoint_url=endpoint_url)
    events = session.client("events", endpoint_url=endpoint_url)
    told: Any = s3.get_bucket_notification_configuration(Bucket=bucket)
    told.pop("ResponseMetadata", None)
    wanted: Any = {**told, "EventBridgeConfiguration": {}}
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=wanted)
    # A rule's name has at most 64 characters, a bucket's 63.
    queue = queue_url.rpartition("/")[2]
    name = f"{queue[:40]}-{hashlib.sha256(bucket.encode()).hexdigest()[:16]}"
    pattern = {"source": ["aws.s3"], "detail-type": ["Object Created"], "detail": {"bucket": {"name": [bucket]}}}
    rule = events.put_rule(Name=name, EventPattern=json.dumps(pattern), Description=f"objects created in {bucket}")["RuleArn"]
    target = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allowed = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "events.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": target,
                # One statement for the rules of all buckets that this queue hears of.
                "Condition": {"ArnLike": {"aws:SourceArn": f"{rule[: rule.rindex('/')]}/{queue[:40]}-*"}},
            }
        ],
    }
    sqs.set_queue_attributes(QueueUrl=queue_url, Attributes={"Policy": json.dumps(allowed)})
    failed = events.put_targets(Rule=name, Targets=[{"Id": "arrivals", "Arn": target}])["FailedEntryCount"]
    if failed:
        msg = f"the rule {name} did not take its target"
        raise RuntimeError(msg)
    return name


def make_table(dynamodb: DynamoDBClient, spec: TableSpec, prefix: str) -> str:
    """Returns the name of a table that can be used, with the indexes that its description has."""
    name = spec.name(prefix)
    keys = [spec.hash, *([spec.range] if spec.range else []), *(k for i in spec.indexes for k in (i.hash, i.range))]
    request: CreateTable = {
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": _attributes(keys),
        "KeySchema": _schema(spec.hash, spec.range),
    }
    if spec.indexes:
        request["GlobalSecondaryIndexes"] = [_index(index) for index in spec.indexes]
    try:
        dynamodb.create_table(**request)
    except dynamodb.exceptions.ResourceInUseException:
        _add_indexes(dynamodb, spec, name)
    dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
    if spec.expires is not None:
        lifetime = dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        if lifetime.get("TimeToLiveStatus") not in {"ENABLED", "ENABLING"}:
            dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": spec.expires})
    return name


def _add_indexes(dynamodb: DynamoDBClient, spec: TableSpec, name: str) -> None:
    there = dynamodb.describe_table(TableName=name)["Table"].get("GlobalSecondaryIndexes", [])
    for index in spec.indexes:
        if index.name in {each["IndexName"] for each in there}:
            continue
        # One index per call is DynamoDB's limit.
        dynamodb.update_table(
            TableName=name,
            AttributeDefinitions=_attributes([index.hash, index.range]),
            GlobalSecondaryIndexUpdates=[{"Create": _index(index)}],
        )
        dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120})


def _attributes(keys: list[Key]) -> list[AttributeDefinitionTypeDef]:
    return [{"AttributeName": key.name, "AttributeType": key.type} for key in dict.fromkeys(keys)]


def _schema(hash_key: Key, range_key: Key | None) -> list[KeyPart]:
    schema: list[KeyPart] = [{"AttributeName": hash_key.name, "KeyType": "HASH"}]
    if range_key is not None:
        schema.append({"AttributeName": range_key.name, "KeyType": "RANGE"})
    return schema


def _index(index: IndexSpec) -> GlobalSecondaryIndexTypeDef:
    return {
        "IndexName": index.name,
        "KeySchema": _schema(index.hash, index.range),
        "Projection": {"ProjectionType": index.projection},
    }


def _queue(sqs: SQSClient, spec: QueueSpec, prefix: str) -> tuple[str, str]:
    retention = str(int(resources.RETENTION.total_seconds()))
    dead_letters = _existing_or_new(sqs, spec.dead_letter_name(prefix), {"MessageRetentionPeriod": retention})
    found = sqs.get_queue_attributes(QueueUrl=dead_letters, AttributeNames=["QueueArn"])
    redrive = {"deadLetterTargetArn": found["Attributes"]["QueueArn"], "maxReceiveCount": resources.MAX_RECEIVES}
    url = _existing_or_new(
        sqs,
        spec.name(prefix),
        {
            "MessageRetentionPeriod": retention,
            "VisibilityTimeout": str(int(spec.visibility.total_seconds())),
            "ReceiveMessageWaitTimeSeconds": "20",
            "RedrivePolicy": json.dumps(redrive),
        },
    )
    return url, dead_letters


def _existing_or_new(sqs: SQSClient, name: str, attributes: dict[str, str]) -> str:
    try:
        return sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]  # type: ignore[arg-type]
    except sqs.exceptions.QueueNameExists:
        # It is there with other attributes.
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)  # type: ignore[arg-type]
        return url
