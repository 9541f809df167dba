"""Flower in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import flower


@pytest.mark.slow
@pytest.mark.enable_socket
def test_workers_and_tasks_are_on_flowers_pages(tmp_path: Path) -> None:
    """While files move, Debian's chromium shows both workers and the tasks that ran."""
    flower.main(tmp_path / "flower.png")
    assert (tmp_path / "flower.png").read_bytes().startswith(b"\x89PNG")
