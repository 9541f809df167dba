"""The configuration that the tiny app's workers and its senders share."""

from collections.abc import Mapping
from typing import Any

from celery import Celery
from kombu import Exchange, Queue

from tasks import sidechannel
from tasks.sqs import SCHEME


def configured(settings: Mapping[str, Any]) -> Celery:
    """Returns an app on the product's broker and side channel."""
    app = Celery("engine", set_as_current=False)
    queues = list(settings["transport"]["queue_urls"])
    app.conf.update(
        broker_url=f"{SCHEME}://",
        broker_transport_options=settings["transport"],
        task_queues=[Queue(name, Exchange(name), routing_key=name) for name in queues],
        task_default_queue=queues[0],
        task_default_exchange=queues[0],
        task_default_routing_key=queues[0],
        task_create_missing_queues=False,
        task_serializer="json",
        accept_content=["json"],
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_acks_on_failure_or_timeout=False,
        task_ignore_result=True,
        worker_prefetch_multiplier=settings.get("prefetch", 1),
        worker_send_task_events=True,
        worker_lost_wait=1.0,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
    )
    sidechannel.attach(app, settings.get("redis"))
    return app
