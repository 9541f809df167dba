"""The descriptions of AWS's services that botocore builds its clients from, held once per process and as small as can be."""

from __future__ import annotations

import gzip
import json
import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
from botocore.loaders import JSONFileLoader, Loader


def new_session(region: str | None) -> botocore.session.Session:
    """Returns a session of the process's own credentials, and of its own region where none is given."""
    session = botocore.session.Session()
    session.register_component("data_loader", _models())
    if region is not None:
        session.set_config_variable("region", region)
    return session


@cache
def _models() -> _Models:
    return _Models(file_loader=_Files())


# A fork may have copied the lock while another thread held it.
os.register_at_fork(after_in_child=_models.cache_clear)


class _Models(Loader):
    """Botocore's loader; its cache is not thread-safe, and sessions that begin at the same moment would each hold what they read."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - botocore's
        super().__init__(**options)
        self._loading = threading.Lock()

    def load_data_with_path(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - botocore's
        with self._loading:
            return super().load_data_with_path(*arguments, **named)


class _Files(JSONFileLoader):
    """Reads descriptions as plain dicts, without the texts that are for people to read: botocore's ordered ones take far more memory."""

    def load_file(self, file_path: str) -> Any:  # noqa: ANN401 - botocore's
        """Returns what the first file of this name holds, None if there is none."""
        if Path(f"{file_path}.json").is_file():
            return _read(Path(f"{file_path}.json").read_bytes())
        if Path(f"{file_path}.json.gz").is_file():
            return _read(gzip.decompress(Path(f"{file_path}.json.gz").read_bytes()))
        return None


def _read(text: bytes) -> Any:  # noqa: ANN401 - botocore's
    return json.loads(text, object_hook=_undocumented)


def _undocumented(held: dict[str, Any]) -> dict[str, Any]:
    # Botocore asks for some. A member of this name would hold a description, no text.
    if isinstance(held.get("documentation"), str):
        held["documentation"] = ""
    return held
