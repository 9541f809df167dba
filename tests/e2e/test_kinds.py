"""Files of every size travel between every two kinds of endpoint, once and whole."""

import pytest

from deploy.local.customer import Customer
from deploy.local.samples import KIB, MIB, many
from tests.running import PATIENCE, Crew, Place, Shop

MIXED = {"empty": 0, "one-byte": 1, **many("deep/down/small", 20, size=10 * KIB), "a part.bin": 16 * MIB, "parts.bin": 16 * MIB + 1}
LANES = {"lanes.bin": 5 * 16 * MIB - 7}


def deliver_all(shop: Shop, source: Place, target: Place, sizes: dict[str, int], **flow: object) -> None:
    """Fills the source, runs a flow, and proves that the target holds exactly that."""
    expected = source.fill(sizes)
    order = shop.customer.add_flow("all", source.endpoint, target.endpoint, selection={"recursive": True}, **flow)
    shop.customer.run(order)
    shop.customer.flow_rested(order, count=len(sizes), limit=PATIENCE)
    seen = [shop.customer.transfer(one["id"]) for one in shop.customer.transfers(flow=order)]
    assert [one for one in seen if one["state"] != "settled"] == []
    found = target.findings(expected, seen)
    assert found.clean, str(found)


@pytest.mark.parametrize("to", ["s3", "sftp"])
@pytest.mark.parametrize("origin", ["s3", "sftp"])
def test_files_of_every_size_arrive(shop: Shop, origin: str, to: str) -> None:
    """Empty, small, one-part and many-part files arrive once and whole, and nothing else stands there."""
    deliver_all(shop, shop.place(origin), shop.place(to), MIXED | LANES)


def test_small_files_of_a_receiver_that_keeps_them_arrive_in_one_request(shop: Shop) -> None:
    """Into a store that refuses taken names; larger ones in parts, as ever. An object's etag says how it came."""
    bucket = shop.bucket()
    told = {"endpoint_url": shop.stack.aws.url, "refuses_taken": True}
    target = Place(shop, "s3", shop.customer.add_s3(bucket, bucket, **told), bucket=bucket)
    deliver_all(shop, shop.place("sftp"), target, MIXED, policy={"receiver_keeps": True})
    etags = {one["Key"]: one["ETag"].strip('"') for one in shop.s3.list_objects_v2(Bucket=bucket)["Contents"]}
    assert {key for key, etag in etags.items() if "-" in etag} == {"a part.bin", "parts.bin"}


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_either_pool_moves_files(shop: Shop, crew: Crew, pool: str) -> None:
    """Workers with processes move what workers with threads move."""
    crew.dismiss()
    crew.hire("pooled", pool="prefork" if pool == "prefork" else "threads", concurrency=3)
    deliver_all(shop, shop.place("sftp"), shop.place("sftp"), {"empty": 0, **many("small", 8)} | LANES)


def test_beat_fires_a_scheduled_pull(shop: Shop) -> None:
    """A flow with an interval moves what is there, and what comes later, without anybody asking."""
    source, target = shop.place("sftp"), shop.place("s3")
    expected = source.fill(many("first", 2))
    order = shop.customer.add_flow("pull", source.endpoint, target.endpoint, trigger={"kind": "interval", "every": "PT2S"})
    shop.customer.flow_rested(order, count=2, limit=PATIENCE)
    expected |= source.fill({"later": 5})
    shop.customer.flow_rested(order, count=3, limit=PATIENCE)
    seen = [shop.customer.transfer(one["id"]) for one in shop.customer.transfers(flow=order)]
    found = target.findings(expected, seen)
    assert found.clean, str(found)


def test_a_failed_delivery_is_redriven_from_staging(shop: Shop) -> None:
    """A delivery that was blocked is finished from our own copy, though its source is gone by then."""
    source, target = shop.place("sftp"), shop.place("sftp")
    expected = source.fill({"report.pdf": 3 * MIB})
    (target.directory / "report.pdf").write_text("in the way")
    blocked = shop.customer.submit((source.endpoint, "report.pdf"), (target.endpoint, None))
    dead = shop.customer.rested(blocked, limit=PATIENCE)
    assert (dead["state"], dead["reason"], dead["staged"]) == ("dead", "destination_exists", True)
    assert (target.directory / "report.pdf").read_text() == "in the way"
    (target.directory / "report.pdf").unlink()
    (source.directory / "report.pdf").unlink()
    shop.customer.redrive(blocked)
    again = shop.customer.rested(blocked, limit=PATIENCE)
    assert again["state"] == "settled", again
    found = target.findings(expected, [again])
    assert found.clean, str(found)


def test_a_request_repeated_under_its_key_moves_once(shop: Shop) -> None:
    """The same Idempotency-Key is the same transfer, however often it is sent."""
    source, target = shop.place("s3"), shop.place("s3")
    expected = source.fill({"a": 100})
    ids = {shop.customer.submit((source.endpoint, "a"), (target.endpoint, "b"), key="once") for _ in range(5)}
    (only,) = ids
    seen = shop.customer.rested(only, limit=PATIENCE)
    found = target.findings({"b": expected["a"]}, [seen])
    assert found.clean, str(found)


def test_tenants_do_not_see_each_other(shop: Shop, customer: Customer) -> None:
    """Another tenant's endpoint is unknown, not forbidden."""
    source = shop.place("s3")
    with shop.stack.customer("stranger") as stranger:
        answer = stranger.http.get(f"/v1/endpoints/{source.endpoint}")
    assert answer.status_code == 404
    assert shop.customer.get(f"/endpoints/{source.endpoint}")["id"] == source.endpoint
