"""A schedule of every second, three beats and two workers, all of them killed at random: each second's fire runs once."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

import pytest

from deploy.local.process import Child
from deploy.local.stack import LocalStack, command, says
from eft.bootstrap import build_engine
from eft.domain.flow import Flow
from eft.domain.instants import fire_time
from eft.ports import Engine, Fire
from eft.settings import Settings
from tests.running import Crew, Shop, eventually

SECOND = timedelta(seconds=1)


@contextmanager
def another_beat(stack: LocalStack, name: str) -> Iterator[Child]:
    """Runs one more beat."""
    log = stack.logs / f"{name}.log"
    child = stack._child(name, command("beat", "--pidfile", ""), ready=says(log, "beat: Starting"))
    try:
        yield child.start()
    finally:
        child.stop()


@pytest.fixture
def engine(stack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The stack's rows, past its API, which shows the latest hundred fires."""
    for name, value in stack.aws.environment.items():
        monkeypatch.setenv(name, value)
    return build_engine(Settings(region=stack.aws.region, prefix=stack.resources.prefix, aws_endpoint=stack.aws.url))


def discovered(stack: LocalStack, flow: str) -> Counter[str]:
    """Returns how often each fire was carried to its end, from the workers' logs."""
    lines = [line for log in stack.logs.glob("worker*.log") for line in log.read_text().splitlines() if f'"{flow}"' in line]
    told = [json.loads(line[line.index("{") :]) for line in lines if '"discovered"' in line]
    return Counter(one["fire"] for one in told if one["flow"] == flow)


@pytest.mark.parametrize("seconds", [20, pytest.param(300, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_each_second_fires_once(stack: LocalStack, shop: Shop, crew: Crew, engine: Engine, seconds: int) -> None:
    """From the first to the last second no fire is missing, and each was carried out to its end once."""
    dice = random.Random(seconds)
    source, target = shop.place("s3"), shop.place("s3")
    trigger = {"kind": "interval", "every": "PT1S", "misfire": "all"}
    body = {"name": "each second", "source": source.endpoint, "destination": target.endpoint, "trigger": trigger}
    flow_id = shop.customer.post("/flows", body)["id"]
    flow: Flow = engine.registry.flow(shop.customer.tenant, flow_id)
    with ExitStack() as more:
        beats = [more.enter_context(another_beat(stack, f"beat-{n}")) for n in (2, 3)]
        began = time.monotonic()
        kills = Counter[str]()
        while time.monotonic() - began < seconds or len(kills) < 2:
            time.sleep(dice.uniform(2, 5))
            if kills["beat"] <= kills["worker"]:
                beat = dice.choice(beats)
                beat.kill()
                beat.start()
                kills["beat"] += 1
            else:
                name = dice.choice(sorted(stack.workers))
                stack.workers.pop(name).kill()
                crew.hire(name)
                kills["worker"] += 1
    shop.customer.post(f"/flows/{flow_id}/pause", {})

    def fires() -> list[Fire]:
        return list(engine.ledger.fires(flow, limit=10_000))

    eventually(lambda: all(fire.outcome is not None for fire in fires()), limit=timedelta(minutes=4))
    planned = sorted(at for fire in fires() if (at := fire_time(fire.name)) is not None)
    assert planned == [planned[0] + n * SECOND for n in range(len(planned))]
    assert len(planned) >= seconds
    ran = discovered(stack, flow_id)
    assert set(ran.values()) == {1}
    # A worker may die between the end of a fire and the line that tells of it.
    assert len(ran) >= len(planned) - kills["worker"]
