"""The Celery app: SQS as its broker, no result backend, JSON only (the traps behind each setting: docs/architecture.md)."""

from __future__ import annotations

from celery import Celery, signals
from kombu import Exchange, Queue

from eft.domain.transfer import Step
from eft.settings import Settings
from eft.telemetry import log_to_stderr
from tasks import drain, sidechannel
from tasks.queues import ANNOUNCE, QUEUES, UPKEEP, queue_url
from tasks.sqs import SCHEME


def make_app(settings: Settings) -> Celery:
    """Returns the app of one process."""
    app = Celery("eft", include=["tasks.steps", "tasks.upkeep", "tasks.announcing"])
    app.conf.update(
        broker_url=f"{SCHEME}://",
        broker_transport_options={
            "queue_urls": {name: queue_url(name, base=settings.queue_base, prefix=settings.prefix) for name in QUEUES},
            # The lanes of a file are sent at once, and each is work for a while.
            "one_by_one": (Step.PARTS.value,),
            "region": settings.region,
            "endpoint_url": settings.sqs_endpoint or settings.aws_endpoint,
            "visibility_timeout": settings.visibility,
            "wait_time_seconds": settings.poll_wait,
            "health_file": None if settings.health_file is None else str(settings.health_file),
        },
        broker_connection_retry_on_startup=True,
        task_queues=[Queue(name, Exchange(name), routing_key=name) for name in QUEUES],
        task_default_queue=UPKEEP,
        task_routes={f"eft.{step}": {"queue": step.value} for step in Step}
        | {f"eft.{name}": {"queue": ANNOUNCE} for name in ("announce", "catch_up")},
        task_create_missing_queues=False,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_acks_on_failure_or_timeout=False,
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,
        task_send_sent_event=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        timezone="UTC",
    )
    drain.install(app)
    sidechannel.attach(app, None if settings.redis_url is None else settings.redis_url.get_secret_value())
    return app


@signals.setup_logging.connect
def _set_up_logging(**_: object) -> None:
    log_to_stderr(SETTINGS.log_level)


SETTINGS = Settings()
app = make_app(SETTINGS)
