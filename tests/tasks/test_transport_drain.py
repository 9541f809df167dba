"""SIGTERM: a worker gives back what it holds and leaves."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from tests.tasks.conftest import Engine, MakeQueues, Process, StartEngine, eventually, until_ready

POOLS: Final = ("prefork", "threads")


def _terminate(workers: list[Process]) -> list[float]:
    with ThreadPoolExecutor() as ends:
        return list(ends.map(Process.terminate, workers))


def _two_began(here: Engine) -> bool:
    return len(here.story("began")) == 2


def test_a_worker_leaves_within_five_seconds(make_queues: MakeQueues, engine: StartEngine) -> None:
    """Running tasks see the drain and give themselves back, prefetched ones never begin; all messages are there again
    at once, and another worker takes them.
    """
    both, workers = [], []
    for pool in POOLS:
        queues = make_queues("a", "b", visibility=60)
        here = engine(queues.transport(visibility_timeout=60, requeue_visibility=30), prefetch=3)
        workers.append(here.begin_worker(pool))
        for n in range(6):
            here.send("slice", f"s{n}", 60, queue=queues.names[n % 2])
        both.append((here, queues))
    for here, queues in both:
        for name in queues.names:
            queues.until_counted(name, 0, 3)
        eventually(partial(_two_began, here))
    assert all(seconds < 5 for seconds in _terminate(workers))
    assert [worker.popen.returncode for worker in workers] == [0, 0]
    for here, queues in both:
        assert [queues.count(name) for name in queues.names] == [(3, 0), (3, 0)]
        assert here.times("began") == here.times("left")
        assert len(here.story("began")) == 2
    here.worker("threads", settings={"prefetch": 1})
    eventually(lambda: len(here.story("began")) == 4)


def test_prefetched_messages_do_not_wait_for_running_tasks(make_queues: MakeQueues, engine: StartEngine) -> None:
    """While a task that takes no notice still runs, and is finished, the others are back in the queue already."""
    both, workers = [], []
    for pool in POOLS:
        queues = make_queues(visibility=60)
        here = engine(queues.transport(visibility_timeout=60), prefetch=4)
        workers.append(here.begin_worker(pool, concurrency=1))
        both.append((here, queues))
    for here, queues in both:
        here.send("work", "stubborn", 6)
        here.until_told("began", "stubborn")
        for n in range(2):
            here.send("work", f"later{n}")
        here.send("work", "counted", countdown=60)
        queues.until_counted(queues.names[0], 0, 4)
    for worker in workers:
        worker.popen.terminate()
    for (here, queues), worker in zip(both, workers, strict=True):
        queues.until_counted(queues.names[0], 3, 1)
        assert worker.alive
        assert not here.story("ended")
    for (here, queues), worker in zip(both, workers, strict=True):
        worker.popen.wait(30)
        assert here.times("ended") == {"stubborn": 1}
        assert queues.count(queues.names[0]) == (3, 0)


def test_an_idle_worker_leaves_at_once_and_swallows_nothing(make_queues: MakeQueues, engine: StartEngine) -> None:
    """A message that comes while the last poll is under way is there for the next worker."""
    both, workers = [], []
    for pool in POOLS:
        queues = make_queues(visibility=60)
        here = engine(queues.transport(visibility_timeout=60, wait_time_seconds=2))
        workers.append(here.begin_worker(pool))
        both.append((here, queues))
    until_ready(*workers)
    for worker in workers:
        worker.popen.terminate()
    for here, _ in both:
        here.send("work", "next")
    assert all(seconds < 5 for seconds in _terminate(workers))
    for here, queues in both:
        assert queues.count(queues.names[0]) == (1, 0)
        assert not here.story()
