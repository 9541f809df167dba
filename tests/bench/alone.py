"""The engine's SFTP side alone: one file read to nowhere, or written from memory, over a connection that is open already.

The part's path through `Source.read` and `Uploading.write` is the engine's own; hashing, S3 and rows are left out.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eft.domain.names import remote_path, token_name
from eft.domain.parts import plan_parts
from eft.domain.transfer import Upload
from eft.ports import Store, Tuning
from tests.bench.composed import Composed

CHUNK = 1 << 20


def main(told: dict[str, Any]) -> None:
    """Prints the seconds from the first request to the last answer, closing included."""
    ports = Composed()
    end = told["source"] if told["source"]["kind"] == "sftp" else told["target"]
    endpoint = ports.endpoint("there", end, key=Path(end["key_file"]).read_text())
    with ports.stores.open(endpoint) as store:
        began = time.perf_counter()
        if end is told["source"]:
            read(store, told["paths"][0])
        else:
            write(store, Path(told["local"]), told["into"])
        sys.stdout.write(f"{time.perf_counter() - began}\n")
    ports.sftp.close_all()


def read(store: Store, path: str) -> None:
    """Reads a file from its begin to its end, part after part."""
    file = store.stat(remote_path(path))
    for part in plan_parts(file.size, part_size=Tuning().part_size).parts():
        for _ in store.read(file, start=part.start, size=part.size):
            pass


def write(store: Store, local: Path, name: str) -> None:
    """Writes a file under a temporary name, part after part."""
    path = remote_path(f"{name}/alone.bin")
    plan = plan_parts(local.stat().st_size, part_size=Tuning().part_size)
    token = token_name(path, transfer="0" * 32, region_epoch=1, attempt=1, nonce="0" * 16)
    minted = store.mint(path, token=token, transfer="0" * 32, size=plan.size, create_directories=True)
    upload = Upload(attempt=1, token=minted, path=path, plan=plan)
    with local.open("rb") as file, store.upload(upload, fresh=True) as uploading:
        for part in plan.parts():
            uploading.write(part, _chunks(file.read, part.size))
        uploading.finish()
    store.verify(upload)


def _chunks(take: Any, size: int) -> Iterator[bytes]:  # noqa: ANN401 - a file's read
    for start in range(0, size, CHUNK):
        yield take(min(CHUNK, size - start))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
