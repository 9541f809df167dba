"""Live monitoring beside the queues: Celery's events and remote control travel over Redis, tasks never do.

SQS carries neither broadcasts nor events. Losing Redis loses nothing but the view: no task, worker or request waits for
it, what is told meanwhile is kept up to a bound, and everything comes back by itself.
"""

from celery import Celery

from tasks.sidechannel.link import remember


def attach(app: Celery, redis_url: str | None) -> None:
    """Gives the app its side channel; None leaves it without one, silent. To be called before the app is used."""
    remember(app, redis_url)
    app.events_cls = "tasks.sidechannel.events:SideEvents"
    app.control_cls = "tasks.sidechannel.control:SideControl"
    if redis_url is not None:
        app.steps["consumer"].add("tasks.sidechannel.control:ControlStep")
