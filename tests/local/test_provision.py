"""The provisioner makes what `deploy.resources` describes, as often as it is run."""

import json

from deploy import resources
from deploy.local.provision import provision
from tests.servers import Aws


def test_tables_have_the_keys_and_indexes_described(aws: Aws) -> None:
    """Every table and index is there with its keys and projection."""
    for spec in resources.TABLES:
        found = aws.dynamodb.describe_table(TableName=aws.resources.tables[spec.suffix])["Table"]
        keys = {part["KeyType"]: part["AttributeName"] for part in found["KeySchema"]}
        assert keys.get("HASH") == spec.hash.name
        assert keys.get("RANGE") == (spec.range.name if spec.range else None)
        indexes = {each["IndexName"]: each for each in found.get("GlobalSecondaryIndexes", [])}
        assert set(indexes) == {index.name for index in spec.indexes}
        for index in spec.indexes:
            there = indexes[index.name]
            assert [part["AttributeName"] for part in there["KeySchema"]] == [index.hash.name, index.range.name]
            assert there["Projection"].get("ProjectionType") == index.projection


def test_the_ledger_forgets_what_has_expired(aws: Aws) -> None:
    """Time to live is on, on the attribute `expires`."""
    lifetime = aws.dynamodb.describe_time_to_live(TableName=aws.resources.tables["ledger"])["TimeToLiveDescription"]
    assert (lifetime.get("TimeToLiveStatus"), lifetime.get("AttributeName")) == ("ENABLED", "expires")


def test_every_queue_buries_into_its_own_dead_letter_queue(aws: Aws) -> None:
    """Ten receives lead to the queue of the same name with -dlq."""
    for spec in resources.QUEUES:
        url = aws.resources.queue_urls[spec.suffix]
        found = aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        redrive = json.loads(found["RedrivePolicy"])
        assert int(redrive["maxReceiveCount"]) == 10
        assert redrive["deadLetterTargetArn"].endswith(f":{aws.resources.prefix}{spec.suffix}-dlq")
        assert aws.resources.dead_letter_urls[spec.suffix].endswith(f"{spec.suffix}-dlq")


def test_the_staging_bucket_is_versioned_closed_and_rid_of_stale_uploads(aws: Aws) -> None:
    """Versioning, public access block and the lifecycle rule are set."""
    bucket = aws.resources.staging_bucket
    assert aws.s3.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled"
    assert all(aws.s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
    rules = aws.s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert [rule.get("AbortIncompleteMultipartUpload") for rule in rules] == [{"DaysAfterInitiation": 7}]


def test_provisioning_again_changes_nothing_and_puts_right_what_strayed(aws: Aws) -> None:
    """A second run finds everything, keeps items, and restores a queue's attributes."""
    fresh = aws.fresh()
    ledger, stage = fresh.resources.tables["ledger"], fresh.resources.queue_urls["stage"]
    aws.dynamodb.put_item(TableName=ledger, Item={"pk": {"S": "a"}, "sk": {"S": "b"}})
    aws.sqs.set_queue_attributes(QueueUrl=stage, Attributes={"VisibilityTimeout": "1"})
    again = provision(aws.session(), endpoint_url=aws.url, prefix=fresh.resources.prefix)
    assert again == fresh.resources
    assert aws.dynamodb.get_item(TableName=ledger, Key={"pk": {"S": "a"}, "sk": {"S": "b"}}).get("Item")
    found = aws.sqs.get_queue_attributes(QueueUrl=stage, AttributeNames=["VisibilityTimeout"])["Attributes"]
    assert found["VisibilityTimeout"] == "120"


def test_an_index_that_is_missing_is_added(aws: Aws) -> None:
    """A table made by an earlier release gains the index that a later one describes."""
    prefix = f"{aws.resources.prefix}old-"
    aws.dynamodb.create_table(
        TableName=f"{prefix}registry",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    )
    provision(aws.session(), endpoint_url=aws.url, prefix=prefix)
    found = aws.dynamodb.describe_table(TableName=f"{prefix}registry")["Table"]
    described = next(spec for spec in resources.TABLES if spec.suffix == "registry")
    assert described.indexes
    there = {index.get("IndexName") for index in found.get("GlobalSecondaryIndexes", [])}
    assert there == {index.name for index in described.indexes}
