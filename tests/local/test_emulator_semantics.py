"""What the engine leans on in DynamoDB, SQS and Secrets Manager holds on the emulator that the stack and the tests run on.

Its S3 is judged in test_s3_semantics.py, beside a server of another make.
"""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.servers import Aws

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.contract

CALLERS = 16
ROUNDS = 10


def unique(stem: str = "x") -> str:
    """Returns a name that no other test uses."""
    return f"{stem}-{uuid.uuid4().hex[:12]}"


def code(error: ClientError) -> str:
    """Returns the service's own code."""
    return error.response.get("Error", {}).get("Code", "")


def all_at_once(action: Any) -> list[str]:  # noqa: ANN401 - any callable of one number
    """Returns what each of 16 concurrent callers met: "won" or the error's code."""

    def attempt(number: int) -> str:
        try:
            action(number)
        except ClientError as error:
            return code(error)
        return "won"

    with ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(attempt, range(CALLERS)))


@pytest.fixture(scope="module")
def ddb(aws: Aws) -> DynamoDBClient:
    """A client whose calls are not repeated, so that nothing hides behind a retry."""
    return aws.dynamodb


def key(pk: str) -> dict[str, dict[str, str]]:
    """Returns a ledger key."""
    return {"pk": {"S": pk}, "sk": {"S": "row"}}


# -- DynamoDB ------------------------------------------------------------------------------------------------------------


def test_a_conditional_put_has_one_winner(aws: Aws, ddb: DynamoDBClient) -> None:
    """Of 16 callers that create the same item, one does, and the item is that one's."""
    table = aws.resources.tables["ledger"]
    for _ in range(ROUNDS):
        pk = unique()

        def put(number: int, pk: str = pk) -> None:
            item = {**key(pk), "owner": {"N": str(number)}}
            ddb.put_item(TableName=table, Item=item, ConditionExpression="attribute_not_exists(pk)")

        met = all_at_once(put)
        assert sorted(met) == ["ConditionalCheckFailedException"] * (CALLERS - 1) + ["won"]
        stored = ddb.get_item(TableName=table, Key=key(pk), ConsistentRead=True)["Item"]
        assert int(stored["owner"]["N"]) == met.index("won")


def test_a_fenced_update_has_one_winner(aws: Aws, ddb: DynamoDBClient) -> None:
    """Of 16 callers that raise the same fence, one does."""
    table = aws.resources.tables["ledger"]
    pk = unique()
    ddb.put_item(TableName=table, Item={**key(pk), "fence": {"N": "0"}})
    for fence in range(ROUNDS):

        def claim(_: int, fence: int = fence) -> None:
            ddb.update_item(
                TableName=table,
                Key=key(pk),
                UpdateExpression="SET fence = fence + :one",
                ConditionExpression="attribute_exists(pk) AND fence = :seen",
                ExpressionAttributeValues={":one": {"N": "1"}, ":seen": {"N": str(fence)}},
            )

        assert all_at_once(claim).count("won") == 1
    assert ddb.get_item(TableName=table, Key=key(pk))["Item"]["fence"] == {"N": str(ROUNDS)}


def test_the_loser_is_told_what_stands_there(aws: Aws, ddb: DynamoDBClient) -> None:
    """ReturnValuesOnConditionCheckFailure=ALL_OLD brings the winner's item in the error, for put, update and delete."""
    table = aws.resources.tables["ledger"]
    pk = unique()
    item = {**key(pk), "owner": {"S": "first"}}
    ddb.put_item(TableName=table, Item=item)
    refused: Any = {
        "TableName": table,
        "ConditionExpression": "attribute_not_exists(pk)",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    change = {"UpdateExpression": "SET a = :a", "ExpressionAttributeValues": {":a": {"S": "a"}}}
    for operation, named in (
        ("put_item", {"Item": key(pk)}),
        ("update_item", {"Key": key(pk), **change}),
        ("delete_item", {"Key": key(pk)}),
    ):
        with pytest.raises(ClientError) as caught:
            getattr(ddb, operation)(**refused, **named)
        assert code(caught.value) == "ConditionalCheckFailedException"
        assert caught.value.response.get("Item") == item


def test_an_update_without_a_condition_makes_a_phantom_row(aws: Aws, ddb: DynamoDBClient) -> None:
    """So a claim needs attribute_exists(pk): with it, an item that is not there stays away."""
    table = aws.resources.tables["ledger"]
    pk = unique()
    change: Any = {
        "TableName": table,
        "Key": key(pk),
        "UpdateExpression": "SET a = :a",
        "ExpressionAttributeValues": {":a": {"S": "a"}},
    }
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        ddb.update_item(**change, ConditionExpression="attribute_exists(pk)")
    assert "Item" not in ddb.get_item(TableName=table, Key=key(pk))
    ddb.update_item(**change)
    assert "Item" in ddb.get_item(TableName=table, Key=key(pk))


def test_a_transaction_is_all_or_nothing_and_says_which_condition_failed(aws: Aws, ddb: DynamoDBClient) -> None:
    """The cancellation names a reason per item, in order, with the item that stood in the way."""
    table = aws.resources.tables["ledger"]
    there, new = unique("there"), unique("new")
    ddb.put_item(TableName=table, Item={**key(there), "owner": {"S": "first"}})
    put: Any = {"TableName": table, "ConditionExpression": "attribute_not_exists(pk)"}
    put["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    puts: Any = [{"Put": {**put, "Item": key(pk)}} for pk in (new, there)]
    with pytest.raises(ClientError) as caught:
        ddb.transact_write_items(TransactItems=puts)
    assert code(caught.value) == "TransactionCanceledException"
    reasons: Any = caught.value.response.get("CancellationReasons")
    assert [reason["Code"] for reason in reasons] == ["None", "ConditionalCheckFailed"]
    assert reasons[1]["Item"] == {**key(there), "owner": {"S": "first"}}
    assert "Item" not in ddb.get_item(TableName=table, Key=key(new))


def test_racing_transactions_have_one_winner(aws: Aws, ddb: DynamoDBClient) -> None:
    """Of 16 transactions that create the same pair, one does; both items are its."""
    table = aws.resources.tables["ledger"]
    one, two = unique("one"), unique("two")

    def both(number: int) -> None:
        owner = {"owner": {"N": str(number)}}
        put: Any = {"TableName": table, "ConditionExpression": "attribute_not_exists(pk)"}
        pair = (one, two) if number % 2 else (two, one)
        puts: Any = [{"Put": {**put, "Item": {**key(pk), **owner}}} for pk in pair]
        ddb.transact_write_items(TransactItems=puts)

    met = all_at_once(both)
    assert met.count("won") == 1
    owners = [ddb.get_item(TableName=table, Key=key(pk))["Item"]["owner"]["N"] for pk in (one, two)]
    assert owners == [str(met.index("won"))] * 2


def test_a_repeated_transaction_with_the_same_token_is_done_once(aws: Aws, ddb: DynamoDBClient) -> None:
    """A lost reply may be asked again: ClientRequestToken makes it a success without effect."""
    table = aws.resources.tables["ledger"]
    pk, token = unique(), uuid.uuid4().hex
    ddb.put_item(TableName=table, Item={**key(pk), "count": {"N": "0"}})
    for _ in range(2):
        ddb.transact_write_items(
            ClientRequestToken=token,
            TransactItems=[
                {
                    "Update": {
                        "TableName": table,
                        "Key": key(pk),
                        "UpdateExpression": "ADD #c :one",
                        "ExpressionAttributeNames": {"#c": "count"},
                        "ExpressionAttributeValues": {":one": {"N": "1"}},
                    }
                }
            ],
        )
    assert ddb.get_item(TableName=table, Key=key(pk))["Item"]["count"] == {"N": "1"}


def test_an_index_pages_in_both_directions(aws: Aws, ddb: DynamoDBClient) -> None:
    """Pages of an index, followed by their last key, hold each item once, in order or in reverse."""
    table, tenant = aws.resources.tables["ledger"], unique("tenant")
    times = [f"2026-01-{day:02}" for day in range(1, 26)]
    for number, created in enumerate(times):
        ddb.put_item(
            TableName=table,
            Item={**key(f"{tenant}-{number}"), "tenant": {"S": tenant}, "created": {"S": created}},
        )
    for forward in (True, False):
        query: Any = {
            "TableName": table,
            "IndexName": "by_tenant",
            "KeyConditionExpression": "tenant = :t",
            "ExpressionAttributeValues": {":t": {"S": tenant}},
            "ScanIndexForward": forward,
            "Limit": 10,
        }
        seen, pages = [], 0
        while True:
            page = ddb.query(**query)
            pages += 1
            seen += [item["created"]["S"] for item in page["Items"]]
            if "LastEvaluatedKey" not in page:
                break
            assert set(page["LastEvaluatedKey"]) == {"pk", "sk", "tenant", "created"}
            query["ExclusiveStartKey"] = page["LastEvaluatedKey"]
        assert seen == (times if forward else times[::-1])
        assert pages == 3


def test_the_due_index_holds_only_what_is_due_and_only_its_keys(aws: Aws, ddb: DynamoDBClient) -> None:
    """An item enters the index with its attributes, is found by a bound, and leaves it when they are removed."""
    table, shard = aws.resources.tables["ledger"], unique("shard")
    for number in range(4):
        due = {"due_shard": {"S": shard}, "due_at": {"N": str(number)}} if number else {}
        ddb.put_item(TableName=table, Item={**key(f"{shard}-{number}"), "note": {"S": "n"}, **due})

    def due_by(limit: int) -> list[dict[str, Any]]:
        return ddb.query(
            TableName=table,
            IndexName="due",
            KeyConditionExpression="due_shard = :s AND due_at <= :t",
            ExpressionAttributeValues={":s": {"S": shard}, ":t": {"N": str(limit)}},
        )["Items"]

    found = due_by(2)
    assert [item["due_at"]["N"] for item in found] == ["1", "2"]
    assert all(set(item) == {"pk", "sk", "due_shard", "due_at"} for item in found)
    ddb.update_item(TableName=table, Key=key(f"{shard}-1"), UpdateExpression="REMOVE due_shard, due_at")
    assert [item["due_at"]["N"] for item in due_by(9)] == ["2", "3"]


def test_tables_belong_to_a_region(aws: Aws) -> None:
    """The other region has none of this region's tables."""
    other = aws.server.client("dynamodb", region="us-gov-east-1")
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        other.describe_table(TableName=aws.resources.tables["ledger"])


# -- SQS -----------------------------------------------------------------------------------------------------------------


def make_queue(aws: Aws, **attributes: str) -> str:
    """Returns the address of a new queue."""
    given: Any = {"VisibilityTimeout": "30", **attributes}
    return aws.sqs.create_queue(QueueName=unique("queue"), Attributes=given)["QueueUrl"]


def receive(aws: Aws, url: str, *, wait: int = 10, **named: Any) -> list[Any]:  # noqa: ANN401 - SQS's own options
    """Returns what one receive brings; a long wait ends with the first message."""
    found = aws.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=wait, MessageSystemAttributeNames=["All"], **named)
    return list(found.get("Messages", []))


def test_a_delayed_message_rests(aws: Aws) -> None:
    """DelaySeconds keeps a message away at first and brings it later."""
    url = make_queue(aws)
    aws.sqs.send_message(QueueUrl=url, MessageBody="later", DelaySeconds=4)
    assert receive(aws, url, wait=0) == []
    counts = aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert counts["ApproximateNumberOfMessagesDelayed"] == "1"
    assert [message["Body"] for message in receive(aws, url, wait=20)] == ["later"]


def test_a_received_message_is_invisible_until_given_back(aws: Aws) -> None:
    """It comes again once its visibility is set to zero, counted as a second receive."""
    url = make_queue(aws)
    aws.sqs.send_message(QueueUrl=url, MessageBody="m")
    first = receive(aws, url)[0]
    assert receive(aws, url, wait=0) == []
    aws.sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=first["ReceiptHandle"], VisibilityTimeout=0)
    second = receive(aws, url)[0]
    assert second["Attributes"]["ApproximateReceiveCount"] == "2"
    aws.sqs.delete_message(QueueUrl=url, ReceiptHandle=second["ReceiptHandle"])
    assert receive(aws, url, wait=0) == []


def test_visibility_runs_out_unless_extended(aws: Aws) -> None:
    """A message whose visibility is extended stays away when another's has run out."""
    url = make_queue(aws, VisibilityTimeout="2")
    for body in ("kept", "lost"):
        aws.sqs.send_message(QueueUrl=url, MessageBody=body)
    held: list[Any] = []
    while len(held) < 2:
        held += receive(aws, url, MaxNumberOfMessages=2)
    kept = next(message for message in held if message["Body"] == "kept")
    aws.sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=kept["ReceiptHandle"], VisibilityTimeout=600)
    assert [message["Body"] for message in receive(aws, url, wait=20)] == ["lost"]


def test_a_message_received_too_often_is_moved_to_the_dead_letter_queue(aws: Aws) -> None:
    """After maxReceiveCount receives the next one finds it gone, and the dead-letter queue has it."""
    buried = make_queue(aws)
    arn = aws.sqs.get_queue_attributes(QueueUrl=buried, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    url = make_queue(aws, RedrivePolicy=json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 3}))
    aws.sqs.send_message(QueueUrl=url, MessageBody="bad")
    for _ in range(3):
        handle = receive(aws, url)[0]["ReceiptHandle"]
        aws.sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0)
    assert receive(aws, url, wait=0) == []
    assert [message["Body"] for message in receive(aws, buried)] == ["bad"]


# -- Secrets Manager -----------------------------------------------------------------------------------------------------


def test_a_rotated_secret_keeps_its_previous_version(aws: Aws) -> None:
    """Putting a value moves AWSCURRENT to it and AWSPREVIOUS to the one before."""
    name = unique("eft/tenant/secret")
    aws.secrets.create_secret(Name=name, SecretString="first")
    second = aws.secrets.put_secret_value(SecretId=name, SecretString="second")
    current = aws.secrets.get_secret_value(SecretId=name)
    assert (current["SecretString"], current["VersionId"]) == ("second", second["VersionId"])
    assert current["VersionStages"] == ["AWSCURRENT"]
    assert aws.secrets.get_secret_value(SecretId=name, VersionStage="AWSPREVIOUS")["SecretString"] == "first"
    again = aws.secrets.get_secret_value(SecretId=name, VersionId=second["VersionId"])
    assert again["SecretString"] == "second"


def test_a_repeated_put_of_the_same_version_is_a_success(aws: Aws) -> None:
    """ClientRequestToken names the version: a lost reply may be asked for again."""
    name, version = unique("eft/tenant/secret"), str(uuid.uuid4())
    aws.secrets.create_secret(Name=name, SecretString="one", ClientRequestToken=version)
    for _ in range(2):
        aws.secrets.put_secret_value(SecretId=name, SecretString="one", ClientRequestToken=version)
    assert aws.secrets.get_secret_value(SecretId=name)["VersionId"] == version


@pytest.mark.xfail(reason="AWS refuses it with ResourceExistsException; the emulator takes it")
def test_another_value_for_the_same_version_is_refused(aws: Aws) -> None:
    """A version, once written, does not change."""
    name, version = unique("eft/tenant/secret"), str(uuid.uuid4())
    aws.secrets.create_secret(Name=name, SecretString="one", ClientRequestToken=version)
    with pytest.raises(ClientError, match="ResourceExistsException"):
        aws.secrets.put_secret_value(SecretId=name, SecretString="two", ClientRequestToken=version)


def test_a_secret_that_is_not_there_or_there_already_is_told_by_its_code(aws: Aws) -> None:
    """Get, create and delete answer with ResourceNotFound, ResourceExists, and InvalidRequest once deleted."""
    name = unique("eft/tenant/secret")
    with pytest.raises(ClientError) as missing:
        aws.secrets.get_secret_value(SecretId=name)
    assert code(missing.value) == "ResourceNotFoundException"
    aws.secrets.create_secret(Name=name, SecretString="one")
    with pytest.raises(ClientError) as twice:
        aws.secrets.create_secret(Name=name, SecretString="one")
    assert code(twice.value) == "ResourceExistsException"
    aws.secrets.delete_secret(SecretId=name, RecoveryWindowInDays=7)
    with pytest.raises(ClientError) as deleted:
        aws.secrets.get_secret_value(SecretId=name)
    assert code(deleted.value) == "InvalidRequestException"


def test_a_secret_deleted_for_good_may_be_created_again(aws: Aws) -> None:
    """ForceDeleteWithoutRecovery frees the name."""
    name = unique("eft/tenant/secret")
    aws.secrets.create_secret(Name=name, SecretString="one")
    aws.secrets.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
    with pytest.raises(ClientError) as missing:
        aws.secrets.get_secret_value(SecretId=name)
    assert code(missing.value) == "ResourceNotFoundException"
    aws.secrets.create_secret(Name=name, SecretString="two")
    assert aws.secrets.get_secret_value(SecretId=name)["SecretString"] == "two"
