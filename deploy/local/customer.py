"""A customer of the local stack, who knows nothing but the REST API: onboards endpoints, orders flows, follows transfers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self

import httpx

from deploy.local.servers import GOVCLOUD
from deploy.local.sftp import SftpAccount

JsonObject = dict[str, Any]
RESTING: Final = frozenset({"settled", "held", "dead", "cancelled"})
PAGE: Final = 200
LOOK_EVERY: Final = 0.2
ANY_KEY: Final = {"access_key_id": "test", "secret_access_key": "test"}
"""The local stores that are not asked to check signatures take any."""


class Refused(RuntimeError):
    """The API answered with a problem (RFC 9457)."""

    def __init__(self, message: str, *, status: int = 0, problem: JsonObject | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.problem = problem or {}


class TooLate(AssertionError):
    """What was waited for has not come true in time; the message says what was seen last."""


class Customer:
    """One tenant's view. Ends with its `with` block."""

    def __init__(self, tenant: str, http: httpx.Client) -> None:
        """Takes a client that carries the tenant's token."""
        self.tenant = tenant
        self.http = http

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.http.close()

    def get(self, path: str, **params: object) -> JsonObject:
        """Returns what stands at a path below /v1; raises `Refused`."""
        asked: dict[str, Any] = {name: value for name, value in params.items() if value is not None}
        return _body(self.http.get(f"/v1{path}", params=asked))

    def post(self, path: str, body: Mapping[str, object] | None = None, *, key: str | None = None) -> JsonObject:
        """Returns the answer to a request below /v1, under an Idempotency-Key if given; raises `Refused`."""
        headers = {} if key is None else {"Idempotency-Key": key}
        return _body(self.http.post(f"/v1{path}", json=dict(body or {}), headers=headers))

    # -- onboarding ----------------------------------------------------------------------------------------------------

    def add_sftp(self, name: str, account: SftpAccount, **changed: object) -> str:
        """Onboards an SFTP account with its host key pinned and returns the endpoint's id; `changed` goes over the request."""
        return str(self.post("/endpoints", {**sftp_endpoint(name, account), **changed})["id"])

    def add_s3(self, name: str, bucket: str, **changed: object) -> str:
        """Onboards a bucket and returns the endpoint's id: reached as the engine itself, or at its own address with any key."""
        own = {"credential": ANY_KEY} if "endpoint_url" in changed else {}
        return str(self.post("/endpoints", {"kind": "s3", "name": name, "bucket": bucket, "region": GOVCLOUD, **own, **changed})["id"])

    def add_flow(self, name: str, source: str, destination: str, **more: object) -> str:
        """Orders a flow between two endpoints and returns its id."""
        return str(self.post("/flows", {"name": name, "source": source, "destination": destination, **more})["id"])

    # -- moving --------------------------------------------------------------------------------------------------------

    def run(self, flow: str) -> None:
        """Has a flow look at its source now."""
        self.post(f"/flows/{flow}/run")

    def submit(self, source: tuple[str, str], destination: tuple[str, str | None], *, key: str | None = None, **more: object) -> str:
        """Asks for one file to be moved, each end as (endpoint, path), and returns the transfer's id."""
        body = {
            "source": {"endpoint": source[0], "path": source[1]},
            "destination": {"endpoint": destination[0]} | ({} if destination[1] is None else {"path": destination[1]}),
            **more,
        }
        return str(self.post("/transfers", body, key=key)["id"])

    def redrive(self, transfer: str) -> JsonObject:
        """Sends a dead or held transfer round again."""
        return self.post(f"/transfers/{transfer}/redrive")

    def transfer(self, transfer: str) -> JsonObject:
        """Returns a transfer with timeline, progress and receipt."""
        return self.get(f"/transfers/{transfer}")

    def transfers(self, **filters: object) -> Iterator[JsonObject]:
        """Yields the transfers of a flow or a state, newest first."""
        cursor: object = None
        while True:
            page = self.get("/transfers", limit=PAGE, cursor=cursor, **filters)
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    # -- waiting -------------------------------------------------------------------------------------------------------

    def wait(self, transfer: str, *, until: Callable[[JsonObject], bool], limit: timedelta, every: float = LOOK_EVERY) -> JsonObject:
        """Returns a transfer once it is as wanted, looking every so many seconds; raises `TooLate` with its timeline."""
        ends = time.monotonic() + limit.total_seconds()
        while True:
            seen = self.transfer(transfer)
            if until(seen):
                return seen
            if time.monotonic() > ends:
                raise TooLate(f"after {limit.total_seconds():g} s: {told(seen)}")
            time.sleep(every)

    def rested(self, transfer: str, *, limit: timedelta, every: float = LOOK_EVERY) -> JsonObject:
        """Returns a transfer once nothing happens to it any more by itself."""
        return self.wait(transfer, until=lambda seen: seen["state"] in RESTING, limit=limit, every=every)

    def flow_rested(self, flow: str, *, count: int, limit: timedelta) -> list[JsonObject]:
        """Returns a flow's transfers once there are `count` and all rest."""
        ends = time.monotonic() + limit.total_seconds()
        while True:
            seen = list(self.transfers(flow=flow))
            if len(seen) >= count and all(one["state"] in RESTING for one in seen):
                return seen
            if time.monotonic() > ends:
                moving = [one for one in seen if one["state"] not in RESTING]
                stories = "; ".join(told(self.transfer(one["id"])) for one in moving[:3])
                raise TooLate(f"after {limit.total_seconds():g} s: {len(seen)} of {count} transfers, {len(moving)} still move: {stories}")
            time.sleep(LOOK_EVERY)


def sftp_endpoint(name: str, account: SftpAccount) -> JsonObject:
    """Returns the request that onboards an account, its server's host key pinned."""
    algorithm, key = account.host_key.split()[:2]
    secrets = {"password": account.password, "private_key": account.private_key, "passphrase": account.passphrase}
    return {
        "kind": "sftp",
        "name": name,
        "host": account.host,
        "port": account.port,
        "username": account.username,
        "root": str(account.directory),
        "host_keys": [{"algorithm": algorithm, "key": key}],
        "credential": {field: secret for field, secret in secrets.items() if secret is not None},
    }


def told(transfer: JsonObject) -> str:
    """Returns a transfer's story in one line."""
    events = " → ".join(
        f"{event['state']}{'/' + event['reason'] if event['reason'] else ''} ({event['at'][11:23]})" for event in transfer["timeline"]
    )
    return f"{transfer['id']} {transfer['source']['path']} is {transfer['state']} ({transfer['reason']}: {transfer['error']}); {events}"


def _body(answer: httpx.Response) -> JsonObject:
    if answer.is_success:
        found: JsonObject = answer.json() if answer.content else {}
        return found
    try:
        problem = answer.json()
    except ValueError:
        problem = {}
    where = f"{answer.request.method} {answer.request.url.path}"
    raise Refused(f"{where}: {answer.status_code} {answer.text[:500]}", status=answer.status_code, problem=problem)
