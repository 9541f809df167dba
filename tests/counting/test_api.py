"""What a request to the API costs, with a hundred transfers stored and with a hundred thousand: the same."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from moto.dynamodb.models import dynamodb_backends

from api.app import create_app
from api.auth import AuthSettings
from deploy.local.provision import Provisioned
from eft.adapters.ledger_rows import transfer_row
from eft.bootstrap import build_engine
from eft.domain.endpoint import S3Endpoint
from eft.domain.names import RemotePath, partition_of, transfer_id
from eft.domain.transfer import Place, State, Transfer
from eft.settings import Settings
from tests.api.conftest import AUDIENCE, ISSUER, Client, Issuer, Queue
from tests.counting.conftest import REGION, TENANT
from tests.counting.counting import AwsCounted
from tests.fakes import START

FEW: Final = 100
MORE: Final = 3_000
MANY: Final = 100_000
ACCOUNT: Final = "123456789012"
FLOW: Final = "nightly"
STATES: Final = (State.SETTLED, State.DEAD, State.HELD)


@dataclass(frozen=True)
class Price:
    """Of one request to the API."""

    requests: tuple[tuple[str, int], ...]
    items_read: int
    item_writes: int


@dataclass
class Office:
    """The API on AWS in this process, and its ledger to fill behind its back."""

    client: Client
    aws: AwsCounted
    store: Any
    """The table, as moto keeps it."""
    stored: int = 0
    _keys = count(1)

    def fill(self, wanted: int) -> None:
        """Adds settled, dead and held transfers until so many are stored: all of one tenant, every other of one flow."""
        for number in range(self.stored, wanted):
            self.store.put_item(row(number))
        self.stored = wanted

    def price(self, method: str, path: str, body: object = None, **headers: str) -> Price:
        """Returns what a request costs; it must succeed."""
        self.aws.requests.clear()
        self.aws.items_read = self.aws.item_writes = 0
        answer = self.client.send(method, path, body, **headers)
        assert answer.status_code in {200, 201, 202}, answer.text
        assert self.aws.unindexed == []
        return Price(tuple(sorted(self.aws.requests.items())), self.aws.items_read, self.aws.item_writes)

    def prices(self) -> dict[str, Price]:
        """Returns the price of each kind of listing, of a look at one transfer, and of asking for one with and without a key."""
        # Pages that a hundred transfers fill, and one that none are on.
        listings = ["", "?state=dead&limit=10", f"?flow={FLOW}&limit=10", f"?flow={FLOW}&state=held&limit=10", "?state=cancelled"]
        found = {f"list{query}": self.price("GET", f"/v1/transfers{query}") for query in listings}
        for query in ("?limit=10", f"?flow={FLOW}&state=dead&limit=5"):
            cursor = self.client.get(f"/v1/transfers{query}").get_json()["next_cursor"]
            found[f"second page{query}"] = self.price("GET", f"/v1/transfers{query}&cursor={cursor}")
        found["show"] = self.price("GET", f"/v1/transfers/{id_of(0)}")
        asked = {"source": {"endpoint": "a", "path": "x.csv"}, "destination": {"endpoint": "b"}}
        found["ask"] = self.price("POST", "/v1/transfers", asked)
        found["ask with a key"] = self.price("POST", "/v1/transfers", asked, Idempotency_Key=f"key-{next(self._keys)}")
        return found


@pytest.fixture(scope="module")
def office(aws: tuple[AwsCounted, Provisioned], tmp_path_factory: pytest.TempPathFactory) -> Office:
    """The API, with two endpoints."""
    counted, resources = aws
    settings: Any = {"region": REGION, "prefix": resources.prefix}
    engine = build_engine(Settings(**settings))
    for name in ("a", "b"):
        bucket = S3Endpoint(id=name, tenant=TENANT, name=name, bucket=f"bucket-{name}", region=REGION, created=engine.clock.now())
        engine.registry.add_endpoint(bucket)
    directory: Path = tmp_path_factory.mktemp("issuer")
    issuer = Issuer(directory / "jwks.json", {"EdDSA": ed25519.Ed25519PrivateKey.generate()})
    issuer.publish()
    app = create_app(engine, Queue(), AuthSettings(issuer=ISSUER, audience=AUDIENCE, jwks=str(issuer.file)))
    table = dynamodb_backends[ACCOUNT][REGION].tables[resources.tables["ledger"]]
    return Office(Client(app, issuer.token("EdDSA", tenant=TENANT)), counted, table)


@pytest.fixture(scope="module")
def few(office: Office) -> dict[str, Price]:
    """What requests cost with a hundred transfers stored."""
    office.fill(FEW)
    # What is looked up once per process is looked up here.
    office.prices()
    return office.prices()


@pytest.mark.parametrize("stored", [MORE, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_a_request_costs_the_same_whatever_is_stored(office: Office, few: dict[str, Price], stored: int) -> None:
    """Each request reads as many items, in as many requests, with 100 transfers stored as with 3,000 (slow: 100,000)."""
    office.fill(stored)
    many = office.prices()
    print(stored, *(f"{what}: {price}" for what, price in many.items()), sep="\n")  # noqa: T201 - the true figures
    assert many == few


def test_the_counter_sees_a_scan(office: Office) -> None:
    """A read that grows with what is stored does not pass unnoticed."""
    list(office.client.app.extensions["eft"].engine.registry.tenants())
    assert office.aws.unindexed.pop() == "Scan"


def id_of(number: int) -> str:
    """Returns the id of a stored transfer."""
    return transfer_id(TENANT, str(number), partition=partition_of(TENANT, "b"))


def row(number: int) -> dict[str, Any]:
    """Returns a stored transfer as DynamoDB has it; each is a second younger than the one before."""
    return {name: attribute(value) for name, value in transfer_row(transfer(number)).items()}


def attribute(value: object) -> dict[str, Any]:
    """Returns a value in DynamoDB's notation."""
    return {"N": str(value)} if isinstance(value, int) else {"S": str(value)}


def transfer(number: int) -> Transfer:
    """Returns a transfer at rest."""
    path = RemotePath(f"{number}.csv")
    at = START + timedelta(seconds=number)
    return Transfer(
        id=id_of(number),
        tenant=TENANT,
        partition=partition_of(TENANT, "b"),
        flow=FLOW if number % 2 else None,
        source=Place(endpoint="a", kind="s3", path=path),
        destination=Place(endpoint="b", kind="s3", path=path),
        state=STATES[number % len(STATES)],
        created=at,
        since=at,
    )
