"""Upkeep: what beat asks for at fixed times. Each run may happen twice or not at all without harm."""

from __future__ import annotations

import logging

from eft.errors import EftError
from eft.journey import disposal, upkeep
from eft.journey.reconcile import reconcile as reconcile_rows
from eft.regions.adoption import adopt as adopt_journals
from eft.regions.strays import return_strays
from tasks.app import app
from tasks.base import engine, forward

log = logging.getLogger(__name__)


@app.task(name="eft.adopt")
def adopt() -> None:
    """Makes rows of what the other region journalled for this one, and takes there what is its.

    A partition that has to wait for the link keeps no other one waiting.
    """
    ports = engine()
    if ports.peer is None:
        return
    for partition in ports.peer.own.partitions():
        try:
            if partition.home == ports.ownership.region:
                forward(list(adopt_journals(ports, partition.number)))
            else:
                return_strays(ports, partition.number)
        except EftError as error:
            log.info("a partition's upkeep waits", extra={"partition": partition.number, "reason": error.reason})


@app.task(name="eft.reconcile")
def reconcile() -> None:
    """Looks for what must not be, and logs it."""
    reconcile_rows(engine())


@app.task(name="eft.give_back")
def give_back() -> None:
    """Gives back sources that were left under hidden names."""
    disposal.give_back(engine())


@app.task(name="eft.expire_staging")
def expire_staging() -> None:
    """Removes staged copies that nobody needs any more."""
    upkeep.expire_staging(engine())


@app.task(name="eft.abort_stale_uploads")
def abort_stale_uploads() -> None:
    """Aborts multipart uploads that no live transfer names."""
    upkeep.abort_stale_uploads(engine())
