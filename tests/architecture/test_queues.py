"""Queues in code = entrypoint = compose = provisioner, and each has somewhere for what nobody can use."""

from __future__ import annotations

from typing import Any

from celery.app.task import Task

from beat_schedules.upkeep import entries
from deploy import entrypoint, resources
from deploy.local.stack import TASKS as FLOWERS_TASKS
from eft.domain.transfer import NEXT_STEP, Step
from eft.settings import Settings
from tasks import queues
from tasks.app import app
from tests.architecture.project import COMPOSE, engine_services

app.loader.import_default_modules()

# What `apply_async` takes from a task's attributes (celery.app.task: extract_exec_options).
SENDING = {
    "compression",
    "delivery_mode",
    "exchange",
    "expires",
    "immediate",
    "mandatory",
    "priority",
    "queue",
    "routing_key",
    "serializer",
    "soft_time_limit",
    "time_limit",
}


def queue_of(name: str) -> str:
    """Returns the queue that a task's messages go to unless their sender says otherwise."""
    return str(app.amqp.router.route({}, name)["queue"].name)


def own_tasks() -> dict[str, Task[Any, Any]]:
    """Returns our tasks by name; Celery has a few of its own."""
    return {name: task for name, task in app.tasks.items() if not name.startswith("celery.")}


def test_the_provisioner_makes_the_queues_that_the_code_uses() -> None:
    """A queue that only one of the two knows would be read by nobody, or polled in vain."""
    assert sorted(spec.suffix for spec in resources.CELERY_QUEUES) == sorted(queues.QUEUES)
    assert len(set(queues.QUEUES)) == len(queues.QUEUES)


def test_ingress_has_queues_that_no_worker_reads() -> None:
    """Events of buckets and what state machines ask for are no tasks: a worker would bury them. Both sides hide a message equally long."""
    for spec, name in ((resources.ARRIVALS, queues.ARRIVALS), (resources.REQUESTS, queues.REQUESTS)):
        assert spec.suffix == name
        assert name not in queues.QUEUES
        assert spec.visibility.total_seconds() == Settings().arrival_visibility
    assert set(resources.QUEUES) == {*resources.CELERY_QUEUES, resources.ARRIVALS, resources.REQUESTS}


def test_every_queue_has_its_dead_letter_queue() -> None:
    """Both sides give the dead-letter queue the same name, and count the same number of receives."""
    for spec in resources.QUEUES:
        url = queues.queue_url(spec.suffix, base="https://sqs.test/", prefix="p-")
        assert url == f"https://sqs.test/{spec.name('p-')}"
        assert f"{url}{queues.DEAD_LETTER_SUFFIX}" == f"https://sqs.test/{spec.dead_letter_name('p-')}"
    assert resources.MAX_RECEIVES == queues.MAX_RECEIVES


def test_workers_poll_every_queue_and_no_other() -> None:
    """Celery's own list is the code's, and no message can make it invent another."""
    assert [queue.name for queue in app.conf.task_queues] == list(queues.QUEUES)
    assert sorted(app.conf.broker_transport_options["queue_urls"]) == sorted(queues.QUEUES)
    assert app.conf.task_create_missing_queues is False


def test_the_containers_workers_take_from_every_queue() -> None:
    """Neither the entrypoint nor docker-compose.yml names queues, for then a new one would be forgotten there."""
    workers = [command for command in engine_services(COMPOSE).values() if command[0] == "worker"]
    assert workers
    for words in [*workers, entrypoint.COMMANDS["worker"]]:
        assert not {"-Q", "--queues", "-X", "--exclude-queues"} & {word.partition("=")[0] for word in words}


def test_every_task_travels_in_a_known_queue() -> None:
    """What is not routed goes to the default queue, which is ours too."""
    assert own_tasks()
    for name in own_tasks():
        assert queue_of(name) in queues.QUEUES, name


def test_every_step_is_a_task_on_the_queue_of_its_name() -> None:
    """`forward()` sends to names that it derives from the step."""
    for step in Step:
        assert f"eft.{step}" in own_tasks()
        assert queue_of(f"eft.{step}") == step.value
    assert set(NEXT_STEP.values()) <= set(Step)


def test_flower_is_told_only_of_tasks_that_exist() -> None:
    """Flower offers limits for the names that it is given; a renamed task would be offered in vain."""
    assert set(FLOWERS_TASKS) <= set(own_tasks())


def test_every_option_of_a_task_is_known_to_celery() -> None:
    """Celery stores a misspelt option silently; here it is an error."""
    known = set(dir(Task)) | SENDING | {"run"} | {option for option, _ in Task.from_config}
    assert own_tasks()
    for name, task in own_tasks().items():
        given = {option for option in vars(type(task)) if not option.startswith("_")}
        assert given - known == set(), name


def test_every_beat_entry_names_a_registered_task_and_its_queue() -> None:
    """An entry for a task that no worker knows would fill a dead-letter queue, one a minute."""
    planned = entries(Settings())
    assert planned
    for name, entry in planned.items():
        assert entry["task"] in own_tasks(), name
        assert entry["options"]["queue"] == queue_of(entry["task"]), name
        assert entry["schedule"].total_seconds() > 0, name
