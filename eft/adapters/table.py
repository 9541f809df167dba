"""One DynamoDB table as plain values: every write has a condition, and one that fails says what stands there instead.

Rows are dicts of str, int, bool, bytes and such dicts. In expressions each attribute is written `#name`, which spares us
DynamoDB's list of reserved words.
"""

from __future__ import annotations

import re
import threading
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, cast

from botocore.exceptions import ClientError

from eft.adapters.aws import AwsSession
from eft.adapters.aws_direct import Direct
from eft.adapters.aws_errors import code_of, translated
from eft.errors import EftError, Transient
from eft.ports import Clock

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

Value: TypeAlias = "str | int | bool | bytes | dict[str, Value]"
Row: TypeAlias = dict[str, Any]
"""Attribute values by name; `Any`, for a reader knows its own attributes."""

OK: Final = 200
CONDITION_FAILED: Final = "ConditionalCheckFailedException"
BATCH: Final = 100
"""Keys in one BatchGetItem (Amazon DynamoDB API Reference, BatchGetItem)."""
_ROUNDS: Final = 8
_NAME: Final = re.compile(r"#\w+")


class Outcome(NamedTuple):
    """What a conditional write came to: the row after it, or, where the condition failed, the row that stands there."""

    done: bool
    row: Row | None


class Check(NamedTuple):
    """A condition on another row of the table, for a transaction."""

    pk: str
    sk: str
    condition: str
    values: Mapping[str, Value]


class Link:
    """The way to the other region's tables, shared by a process's threads. Thread-safe.

    Whatever keeps us from the peer is `peer_unreachable`. Once nothing has come back nobody waits on it for a while but one
    caller at a time, who tries: a peer that swallows everything would else take all workers' time.
    """

    def __init__(self, clock: Clock, *, pause: timedelta = timedelta(seconds=3)) -> None:
        self._clock = clock
        self._pause = pause.total_seconds()
        self._lock = threading.Lock()
        self._shut_until: float | None = None

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Surrounds a request.

        Raises:
            Transient: `peer_unreachable`, at once where it was found so moments ago; it uses up no try.
        """
        self._refuse_shut()
        try:
            yield
        except EftError as error:
            if error.reason == "aws_unavailable":
                with self._lock:
                    self._shut_until = self._clock.monotonic() + self._pause
            raise _unreachable(str(error)) from error
        self._shut_until = None

    def _refuse_shut(self) -> None:
        with self._lock:
            now = self._clock.monotonic()
            if self._shut_until is None:
                return
            if now < self._shut_until:
                raise _unreachable("it did not answer a moment ago")
            self._shut_until = now + self._pause


def _unreachable(why: str) -> Transient:
    return Transient(f"the peer region cannot be reached: {why}", reason="peer_unreachable", counts=False)


class Table:
    """One table, or a named thing that lives in one; `what` names it in errors, `link` is the way to one of the other region's."""

    def __init__(self, session: AwsSession, name: str, *, what: str, link: Link | None = None) -> None:
        self._session = session
        self._name = name
        self._what = what
        self._link = link

    def get(self, pk: str, sk: str, *, consistent: bool = True) -> Row | None:
        """Returns a row, or None."""
        call: Any = {"TableName": self._name, "Key": _key(pk, sk), "ConsistentRead": consistent}
        with self._translated() as client:
            asked = self._direct("GetItem", call)
            answer: Any = client.get_item(**call) if asked is None else asked[0]
        return _from_item(answer["Item"]) if "Item" in answer else None

    def get_many(self, keys: Sequence[tuple[str, str]], *, only: str | None = None) -> dict[str, Row]:
        """Returns the rows that exist, by partition key, not read consistently; `only` names the one attribute wanted.

        One request per 100 rows, more where they exceed 16 MB.

        Raises:
            Transient: `throttled`.
        """
        return {row["pk"]: row for row in self._get_all(keys, only=only)}

    def each(self, keys: Sequence[tuple[str, str]]) -> Iterator[Row]:
        """Yields the rows that exist, in any order, not read consistently; one request per 100 rows, more where they exceed 16 MB.

        Raises:
            Transient: `throttled`.
        """
        return self._get_all(keys, only=None)

    def _get_all(self, keys: Sequence[tuple[str, str]], *, only: str | None) -> Iterator[Row]:
        for start in range(0, len(keys), BATCH):
            wanted: Any = {self._name: {"Keys": [_key(*key) for key in keys[start : start + BATCH]]}}
            if only is not None:
                wanted[self._name] |= _named({"ProjectionExpression": f"#{only}"})
            for _ in range(_ROUNDS):
                with self._translated() as client:
                    answer = client.batch_get_item(RequestItems=wanted)
                yield from (_from_item(item) for item in answer["Responses"].get(self._name, []))
                wanted = answer.get("UnprocessedKeys")
                if not wanted:
                    break
            else:
                raise Transient(f"{self._what} asks to slow down", reason="throttled")

    def put(self, row: Row, *, condition: str, values: Mapping[str, Value] | None = None) -> Outcome:
        """Puts a whole row IF the condition holds of the row that stands there."""
        call: Any = _named({"ConditionExpression": condition}, values=values)
        return self._write("PutItem", call | {"Item": _to_item(row)})

    def update(
        self,
        pk: str,
        sk: str,
        expression: str,
        *,
        condition: str,
        values: Mapping[str, Value] | None = None,
        names: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Changes a row, or makes it, IF the condition holds; `names` are those that an attribute's `#name` does not say."""
        call = _named({"UpdateExpression": expression, "ConditionExpression": condition}, values=values, names=names)
        return self._write("UpdateItem", call | {"Key": _key(pk, sk), "ReturnValues": "ALL_NEW"})

    def delete(self, pk: str, sk: str, *, condition: str, values: Mapping[str, Value] | None = None) -> Outcome:
        """Deletes a row IF the condition holds."""
        return self._write("DeleteItem", _named({"ConditionExpression": condition}, values=values) | {"Key": _key(pk, sk)})

    def query(
        self,
        condition: str,
        *,
        values: Mapping[str, Value],
        index: str | None = None,
        after: tuple[str, str] | None = None,
        backward: bool = False,
        limit: int | None = None,
    ) -> Iterator[Row]:
        """Yields rows by key in order: consistent reads on the table, eventual ones on an index. `after` is a (pk, sk) passed by.

        One request per MB.
        """
        call: Any = _named({"KeyConditionExpression": condition}, values=values)
        call |= {"ScanIndexForward": not backward}
        call |= {"ConsistentRead": True} if index is None else {"IndexName": index}
        if after is not None:
            call["ExclusiveStartKey"] = _key(*after)
        left = limit
        while left is None or left > 0:
            if left is not None:
                call["Limit"] = left
            with self._translated() as client:
                answer = client.query(TableName=self._name, **call)
            yield from map(_from_item, answer["Items"])
            if left is not None:
                left -= len(answer["Items"])
            if "LastEvaluatedKey" not in answer:
                return
            call["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def _write(self, operation: Literal["PutItem", "UpdateItem", "DeleteItem"], call: Any) -> Outcome:  # noqa: ANN401 - their parameters
        call |= {"TableName": self._name, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        with self._translated() as client:
            answer: Any
            if (asked := self._direct(operation, call)) is not None:
                answer, done = asked
            else:
                made: Any = {"PutItem": client.put_item, "UpdateItem": client.update_item, "DeleteItem": client.delete_item}
                try:
                    answer, done = made[operation](**call), True
                except ClientError as error:
                    if code_of(error) != CONDITION_FAILED:
                        raise
                    answer, done = error.response, False
        row = answer.get("Attributes" if done else "Item")
        return Outcome(done=done, row=_from_item(row) if row else None)

    def _direct(self, operation: str, call: Mapping[str, Any]) -> tuple[Any, bool] | None:
        """Returns the answer on the short way, and whether the condition held; None where boto3 is to be asked."""
        asked = self._session.beside("dynamodb", Direct).ask_json(operation, call) if self._session.tries > 1 else None
        if asked is None:
            return None
        status, told = asked
        if status == OK:
            return told, True
        return (told, False) if str(told.get("__type")).rpartition("#")[2] == CONDITION_FAILED else None

    def count(self, condition: str, *, values: Mapping[str, Value], index: str) -> int:
        """Returns how many rows a query on an index finds; one request per MB of them."""
        call: Any = _named({"KeyConditionExpression": condition}, values=values) | {"IndexName": index, "Select": "COUNT"}
        found = 0
        while True:
            with self._translated() as client:
                answer = client.query(TableName=self._name, **call)
            found += answer["Count"]
            if "LastEvaluatedKey" not in answer:
                return found
            call["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def scan_keys(self) -> Iterator[Row]:
        """Yields the keys of a whole table: for small ones, and for what is done once an hour. One request per MB of rows."""
        call: Any = _named({"ProjectionExpression": "#pk, #sk"})
        while True:
            with self._translated() as client:
                answer = client.scan(TableName=self._name, **call)
            yield from map(_from_item, answer["Items"])
            if "LastEvaluatedKey" not in answer:
                return
            call["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def existing(self, keys: Sequence[tuple[str, str]]) -> set[str]:
        """Returns the sort keys of those rows that exist, for keys whose sort keys differ; not read consistently."""
        return {row["sk"] for row in self._get_all(keys, only="sk")}

    def put_if(self, row: Row, *, condition: str, values: Mapping[str, Value], check: Check) -> Literal["put", "check"] | None:
        """Puts a row IF its own condition and the check on another row hold, in one transaction; returns which failed, the check first."""
        put: Any = _named({"ConditionExpression": condition}, values=values) | {"TableName": self._name, "Item": _to_item(row)}
        other: Any = _named({"ConditionExpression": check.condition}, values=check.values)
        other |= {"TableName": self._name, "Key": _key(check.pk, check.sk)}
        with self._translated() as client:
            try:
                client.transact_write_items(TransactItems=[{"ConditionCheck": other}, {"Put": put}])
            except client.exceptions.TransactionCanceledException as error:
                causes = [cause.get("Code") for cause in cast("Any", error).response.get("CancellationReasons", [])]
                if "ConditionalCheckFailed" not in causes:
                    raise
                return "check" if causes[0] == "ConditionalCheckFailed" else "put"
        return None

    @contextmanager
    def _translated(self) -> Iterator[DynamoDBClient]:
        way = nullcontext() if self._link is None else self._link.passing()
        with way, translated(self._what, session=self._session):
            yield self._session.dynamodb()


def _named(
    expressions: dict[str, str],
    *,
    values: Mapping[str, Value] | None = None,
    names: Mapping[str, str] | None = None,
) -> Any:  # noqa: ANN401 - parameters of a call
    mentioned = {name for expression in expressions.values() for name in _NAME.findall(expression)}
    call: dict[str, Any] = dict(expressions)
    call["ExpressionAttributeNames"] = {name: name[1:] for name in mentioned} | {**(names or {})}
    if values:
        call["ExpressionAttributeValues"] = _to_item(values)
    return call


def _key(pk: str, sk: str) -> Any:  # noqa: ANN401 - an item
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def _to_item(row: Mapping[str, Value]) -> Any:  # noqa: ANN401 - an item
    return {name: _to_attribute(value) for name, value in row.items()}


def _to_attribute(value: Value) -> dict[str, Any]:
    match value:
        case bool():
            return {"BOOL": value}
        case int():
            return {"N": str(value)}
        case str():
            return {"S": value}
        case bytes():
            return {"B": value}
        case _:
            return {"M": _to_item(value)}


def _from_item(item: Mapping[str, Any]) -> Row:
    return {name: _from_attribute(attribute) for name, attribute in item.items()}


def _from_attribute(attribute: Mapping[str, Any]) -> Value:
    ((kind, value),) = attribute.items()
    if kind == "N":
        return int(value)
    if kind == "B" and isinstance(value, str):
        return b64decode(value)
    return _from_item(value) if kind == "M" else value
