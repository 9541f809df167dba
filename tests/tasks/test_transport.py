"""Workers on real queues: what is sent is done once, what is held stays held, what is broken goes away."""

import pytest

from tests.tasks.conftest import MakeQueues, StartEngine, eventually

POOLS = ("prefork", "threads")


@pytest.mark.parametrize("pool", POOLS)
def test_every_task_of_every_queue_is_done_once(pool: str, make_queues: MakeQueues, engine: StartEngine) -> None:
    """Twenty tasks on two queues run once each, and their messages are gone."""
    queues = make_queues("a", "b")
    here = engine(queues.transport())
    worker = here.worker(pool)
    names = [f"t{n}" for n in range(20)]
    for n, name in enumerate(names):
        here.send("work", name, queue=queues.names[n % 2])
    eventually(lambda: set(here.times("ended")) == set(names))
    eventually(lambda: all(queues.empty(name) for name in queues.names))
    assert here.times("began") == dict.fromkeys(names, 1)
    assert worker.alive
