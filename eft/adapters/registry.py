"""Tenants' endpoints and flows in DynamoDB.

    pk            sk                    what                                   sparse, each in an index of its name
    N#<tenant>    E#<id>                an endpoint                            arrivals = its bucket, where it has one
    N#<tenant>    F#<id>                a flow                                 scheduled = its shard, while it has times
                                                                               arrivals = its source, while it waits for arrivals

From a bucket the index `arrivals` leads to endpoints and from each of these to flows, so that a change of either moves only its own row.
`revision` is an attribute, for conditions read it; the rest is the JSON text `body`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from eft.adapters.aws import AwsSession
from eft.adapters.table import Row, Table
from eft.domain.cursor import cursor_after, read_cursor
from eft.domain.endpoint import Endpoint, S3Endpoint
from eft.domain.flow import Arrival, Flow, Manual
from eft.domain.names import shard_of
from eft.errors import Conflict, NotFound, Permanent
from eft.ports import Clock, Page

log = logging.getLogger(__name__)

REGISTRY_FORMAT: Final = 1
SHARDS: Final = 4
"""Values of the index's partition key: all schedules are read in as many requests, one more per MB."""
RECENT: Final = 1000
"""Endpoints remembered at most."""
T = TypeVar("T", Endpoint, Flow)
_ENDPOINTS: Final[TypeAdapter[Endpoint]] = TypeAdapter(Endpoint)


class DynamoRegistry:
    """`ports.Registry` in a DynamoDB table with the indexes `scheduled` and `arrivals` (their partition keys, all attributes).

    Every call is one request, but for `scheduled_flows` and `arrival_flows`.
    """

    def __init__(self, session: AwsSession, *, table: str, clock: Clock | None = None, remember: timedelta = timedelta(0)) -> None:
        self._table = Table(session, table, what="the registry")
        self._clock = clock
        self._remember = remember.total_seconds()
        """How long `endpoint` and `arrival_flows` answer from memory: they are asked several times for each file."""
        self._recent: dict[tuple[str, str], tuple[float, Endpoint]] = {}
        self._recent_arrivals: dict[str, tuple[float, tuple[tuple[Flow, S3Endpoint], ...]]] = {}

    def add_endpoint(self, endpoint: Endpoint) -> None:
        """Our own row, met again after a lost answer, counts as added."""
        self._add(_row(endpoint), "endpoint")

    def change_endpoint(self, endpoint: Endpoint) -> None:
        """Our own change, met again after a lost answer, counts as made."""
        self._change(_row(endpoint))

    def endpoint(self, tenant: str, endpoint_id: str) -> Endpoint:
        """Read consistently, or remembered; a remembered one is at most `remember` old."""
        key = (tenant, endpoint_id)
        now = 0.0 if self._clock is None else self._clock.monotonic()
        if self._remember and key in self._recent and now - self._recent[key][0] < self._remember:
            return self._recent[key][1]
        endpoint = _endpoint(self._get(tenant, f"E#{endpoint_id}", what=f"endpoint '{endpoint_id}'"))
        if self._remember:
            if len(self._recent) >= RECENT:
                self._recent.clear()
            self._recent[key] = (now, endpoint)
        return endpoint

    def endpoints(self, tenant: str, *, limit: int = 50, cursor: str | None = None) -> Page[Endpoint]:
        """Read consistently."""
        return self._page(tenant, "E#", _endpoint, scope=("endpoints", tenant), limit=limit, cursor=cursor)

    def remove_endpoint(self, tenant: str, endpoint_id: str, *, revision: int) -> None:
        """A removal repeated after a lost answer finds nothing and says so."""
        self._remove(tenant, f"E#{endpoint_id}", revision=revision)

    def add_flow(self, flow: Flow) -> None:
        """Our own row, met again after a lost answer, counts as added."""
        self._add(_row(flow), "flow")

    def change_flow(self, flow: Flow) -> None:
        """Our own change, met again after a lost answer, counts as made."""
        self._change(_row(flow))

    def flow(self, tenant: str, flow_id: str) -> Flow:
        """Read consistently."""
        return _flow(self._get(tenant, f"F#{flow_id}", what=f"flow '{flow_id}'"))

    def flows(self, tenant: str, *, limit: int = 50, cursor: str | None = None) -> Page[Flow]:
        """Read consistently."""
        return self._page(tenant, "F#", _flow, scope=("flows", tenant), limit=limit, cursor=cursor)

    def remove_flow(self, tenant: str, flow_id: str, *, revision: int) -> None:
        """A removal repeated after a lost answer finds nothing and says so."""
        self._remove(tenant, f"F#{flow_id}", revision=revision)

    def tenants(self) -> Sequence[str]:
        """A scan: once an hour, over a table of endpoints and flows."""
        return sorted({row["pk"].removeprefix("N#") for row in self._table.scan_keys()})

    def scheduled_flows(self) -> Iterator[Flow]:
        """Four requests, one more per MB, to an index that lags by moments. A row that cannot be read is left out; the log names it."""
        for shard in range(SHARDS):
            rows = self._table.query("#scheduled = :shard", values={":shard": str(shard)}, index="scheduled")
            yield from _readable(rows, _flow)

    def arrival_flows(self, bucket: str) -> Iterator[tuple[Flow, S3Endpoint]]:
        """One request and one more per endpoint in the bucket, to an index that lags by moments; or from memory, at most `remember` old."""
        now = 0.0 if self._clock is None else self._clock.monotonic()
        recent = self._recent_arrivals.get(bucket)
        if recent is not None and now - recent[0] < self._remember:
            yield from recent[1]
            return
        found = tuple(self._arrival_flows(bucket))
        if self._remember:
            if len(self._recent_arrivals) >= RECENT:
                self._recent_arrivals.clear()
            self._recent_arrivals[bucket] = (now, found)
        yield from found

    def _arrival_flows(self, bucket: str) -> Iterator[tuple[Flow, S3Endpoint]]:
        for endpoint in _readable(self._by_arrivals(_in_bucket(bucket)), _endpoint):
            assert isinstance(endpoint, S3Endpoint)  # noqa: S101 - no other row has such a key
            for flow in _readable(self._by_arrivals(_from_endpoint(endpoint.tenant, endpoint.id)), _flow):
                yield flow, endpoint

    def _by_arrivals(self, key: str) -> Iterator[Row]:
        return self._table.query("#arrivals = :key", values={":key": key}, index="arrivals")

    def _add(self, row: Row, what: str) -> None:
        done, stands = self._table.put(row, condition="attribute_not_exists(#pk)")
        if not done and stands != row:
            raise Conflict(f"the {what} '{row['sk'][2:]}' exists", reason=f"{what}_exists")

    def _change(self, row: Row) -> None:
        done, stands = self._table.put(row, condition="#revision = :before", values={":before": row["revision"] - 1})
        if not done and stands != row:
            raise _changed(row["sk"][2:])

    def _remove(self, tenant: str, sk: str, *, revision: int) -> None:
        if not self._table.delete(_pk(tenant), sk, condition="#revision = :seen", values={":seen": revision}).done:
            raise _changed(sk[2:])

    def _get(self, tenant: str, sk: str, *, what: str) -> Row:
        row = self._table.get(_pk(tenant), sk)
        if row is None:
            raise NotFound(f"there is no {what}", reason="endpoint_unknown" if sk.startswith("E#") else "flow_unknown")
        return row

    def _page(
        self,
        tenant: str,
        prefix: str,
        read: Callable[[Row], T],
        *,
        scope: tuple[str, str],
        limit: int,
        cursor: str | None,
    ) -> Page[T]:
        after = None if cursor is None else (_pk(tenant), prefix + read_cursor(cursor, scope=scope))
        rows = list(
            self._table.query(
                "#pk = :pk AND begins_with(#sk, :prefix)",
                values={":pk": _pk(tenant), ":prefix": prefix},
                after=after,
                limit=limit + 1,
            )
        )
        items = [read(row) for row in rows[:limit]]
        return Page(items, cursor_after(items[-1].id, scope=scope) if len(rows) > limit else None)


def _pk(tenant: str) -> str:
    return f"N#{tenant}"


def _row(value: Endpoint | Flow) -> Row:
    row: Row = {
        "pk": _pk(value.tenant),
        "sk": f"F#{value.id}" if isinstance(value, Flow) else f"E#{value.id}",
        "format": REGISTRY_FORMAT,
        "revision": value.revision,
        "body": value.model_dump_json(),
    }
    if isinstance(value, Flow) and value.enabled and (value.expected is not None or not isinstance(value.trigger, Manual)):
        row["scheduled"] = str(shard_of(value.tenant, value.id, shards=SHARDS))
        if isinstance(value.trigger, Arrival):
            row["arrivals"] = _from_endpoint(value.tenant, value.source)
    if isinstance(value, S3Endpoint):
        row["arrivals"] = _in_bucket(value.bucket)
    return row


def _in_bucket(bucket: str) -> str:
    return f"B#{bucket}"


def _from_endpoint(tenant: str, endpoint_id: str) -> str:
    return f"E#{tenant}#{endpoint_id}"


def _readable(rows: Iterable[Row], read: Callable[[Row], T]) -> Iterator[T]:
    """Yields what can be read of all tenants' rows: one of a later release, or that our libraries refuse, stops nobody else's."""
    for row in rows:
        try:
            found = read(row)
        except (Permanent, ValidationError) as error:
            log.warning("a row of the registry cannot be read", extra={"row": f"{row['pk']} {row['sk']}", "reason": _why(error)})
            continue
        yield found


def _why(error: Permanent | ValidationError) -> str:
    return error.reason if isinstance(error, Permanent) else "row_invalid"


def _endpoint(row: Row) -> Endpoint:
    return _ENDPOINTS.validate_json(_body(row))


def _flow(row: Row) -> Flow:
    return Flow.model_validate_json(_body(row))


def _body(row: Row) -> str:
    if row["format"] > REGISTRY_FORMAT:
        msg = f"this row has format {row['format']} and this release knows up to {REGISTRY_FORMAT}; update the engine"
        raise Permanent(msg, reason="row_format_unknown")
    return str(row["body"])


def _changed(what: str) -> Conflict:
    return Conflict(f"'{what}' has changed meanwhile; read it again", reason="revision_differs")
