"""Flower: knows only the side channel, never the queues. `python -m tasks.monitoring` serves it.

Behind basic authentication always, on the loopback address unless told otherwise. The password comes from the
environment, because everyone on the machine can read a command line.
"""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Final

from celery import Celery
from celery.events import EventReceiver
from flower.app import Flower
from flower.events import Events
from flower.options import options
from flower.urls import settings

from tasks.sidechannel import attach
from tasks.sidechannel.link import TRANSPORT_OPTIONS, pause

logger = logging.getLogger(__name__)

AUTH: Final = "EFT_FLOWER_AUTH"


def monitoring_app(redis_url: str, task_names: Iterable[str] = ()) -> Celery:
    """Returns the Celery app that Flower looks through.

    Flower sets limits only for tasks whose names it knows; they are named here and never run here.
    """
    app = Celery("monitoring", broker=redis_url, set_as_current=False)
    app.conf.update(
        broker_transport_options=TRANSPORT_OPTIONS,
        broker_connection_retry_on_startup=True,
        result_backend=None,
        accept_content=["json"],
    )
    attach(app, redis_url)
    for name in task_names:
        app.task(name=name)(_elsewhere)
    return app


class SteadyEvents(Events):  # type: ignore[misc] # Flower is published without types
    """Flower's ear. Flower doubles the pause between its attempts without end; here it stays within seconds."""

    def run(self) -> None:
        """Listens, for ever."""
        failures = 0
        while True:
            try:
                with self.capp.connection() as connection:
                    receiver = EventReceiver(connection, handlers={"*": self.on_event}, app=self.capp)
                    if failures:
                        logger.warning("events are heard again")
                    failures = 0
                    receiver.capture(limit=None, timeout=None, wakeup=True)
            except Exception as error:  # noqa: BLE001 - whatever happens to Redis, the view comes back
                failures += 1
                logger.warning("no events, %d attempts in a row: %s", failures, type(error).__name__)
                time.sleep(pause(failures))


def serve(redis_url: str, basic_auth: Sequence[str], *, address: str, port: int, task_names: Iterable[str] = ()) -> None:
    """Serves Flower until SIGTERM or SIGINT; `basic_auth` holds `user:password` entries, at least one."""
    if not basic_auth or not all(":" in entry for entry in basic_auth):
        raise ValueError("Flower is served only behind user:password")
    options.address, options.port, options.basic_auth = address, port, list(basic_auth)
    app = monitoring_app(redis_url, task_names)
    flower = Flower(capp=app, options=options, **settings)
    flower.events = SteadyEvents(
        app,
        io_loop=flower.io_loop,
        enable_events=options.enable_events,
        max_workers_in_memory=options.max_workers,
        max_tasks_in_memory=options.max_tasks,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        flower.io_loop.asyncio_loop.add_signal_handler(number, flower.stop)
    logger.info("Flower listens on http://%s:%d", address, flower.start_http_server())
    flower.start()


def main(arguments: Sequence[str]) -> None:
    """Reads the arguments, and the password from the environment, and serves."""
    parser = argparse.ArgumentParser(prog="python -m tasks.monitoring", description="Flower over the side channel")
    parser.add_argument("--redis-url", default=os.environ.get("EFT_REDIS_URL"), help="default: EFT_REDIS_URL")
    parser.add_argument("--address", default=os.environ.get("EFT_FLOWER_ADDRESS", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("EFT_FLOWER_PORT", "5555")))
    parser.add_argument("--task", action="append", default=[], help="a task whose limits may be set; repeatable")
    given = parser.parse_args(arguments)
    if not given.redis_url:
        parser.error("no Redis: give --redis-url or EFT_REDIS_URL")
    auth = [entry for entry in os.environ.get(AUTH, "").split(",") if entry]
    if not auth:
        parser.error(f"no password: set {AUTH}=user:password")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("tornado.access").setLevel(logging.WARNING)
    serve(given.redis_url, auth, address=given.address, port=given.port, task_names=given.task)
    # A command that still waits for a worker's answer must not keep the process.
    logging.shutdown()
    os._exit(0)


def _elsewhere() -> None:
    """Stands for a task that workers know."""


if __name__ == "__main__":
    main(sys.argv[1:])
