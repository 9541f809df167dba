"""What every test has: the marker of its folder, and sockets only where the folder speaks to real servers."""

from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parent
MARKED: Final = frozenset({"contract", "crash", "e2e"})
SPEAKS: Final = MARKED | {"bench", "counting", "drill", "killpoints", "local", "simulation", "soak", "tasks"}
STACK: Final = frozenset({"crash", "drill", "e2e", "killpoints", "soak"})
"""Folders whose tests start the whole stack, or load the machine: they run one after the other."""

pytest_plugins = ["tests.servers", "tests.running"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test by its top folder, so that `-m "not e2e"` needs no marker in the files."""
    for item in items:
        if not item.path.is_relative_to(TESTS):
            continue
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in MARKED:
            item.add_marker(folder)
        if folder in SPEAKS:
            item.add_marker(pytest.mark.enable_socket)
        # Under xdist one process has the whole stack, and each file's servers start once.
        item.add_marker(pytest.mark.xdist_group("stack" if folder in STACK else str(item.path)))
