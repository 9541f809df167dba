"""Opening the two ends of a transfer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from eft.domain.fingerprint import RemoteFile
from eft.domain.transfer import State, Transfer
from eft.journey.copying import read_place
from eft.ports import Engine, Source, Store


@contextmanager
def destination(engine: Engine, transfer: Transfer) -> Iterator[Store]:
    """Opens the destination endpoint."""
    with engine.stores.open(engine.registry.endpoint(transfer.tenant, transfer.destination.endpoint)) as store:
        yield store


@contextmanager
def both_ends(engine: Engine, transfer: Transfer) -> Iterator[tuple[Source, RemoteFile, Store]]:
    """Opens where the bytes are read from (source endpoint or staging) and where they go (staging while staging, else the destination)."""
    endpoint, file = read_place(engine, transfer)
    to_staging = transfer.state is State.STAGING or (transfer.state is State.ACCEPTED and transfer.via_staging)
    with ExitStack() as stack:
        source = stack.enter_context(engine.stores.staging() if endpoint is None else engine.stores.open(endpoint))
        sink = stack.enter_context(engine.stores.staging() if to_staging else destination(engine, transfer))
        yield source, file, sink
