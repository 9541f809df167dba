"""The fake store keeps the contract of the real ones, so that what the journey's tests prove on it holds on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest

from eft.ports import Store
from tests.contract.store_suite import StoreSuite
from tests.fake_store import FakeServer, FakeStore
from tests.fakes import FakeClock


class FakeBench:
    """`store_suite.Bench` in memory."""

    def __init__(self, kind: Literal["sftp", "s3"], rename: Literal["posix", "plain"] = "posix") -> None:
        self.clock = FakeClock()
        self.server = FakeServer(self.clock, kind=kind, rename=rename)
        self.has_directories = kind == "sftp"
        self.keeps_versions = kind == "s3"

    @contextmanager
    def open(self) -> Iterator[Store]:
        """Gives the store as the journey gets it."""
        yield FakeStore(self.server, "ep")

    def put(self, path: str, content: bytes) -> None:
        """Writes a file past the store."""
        self.clock.advance(1)
        self.server.put(path, content)

    def get(self, path: str) -> bytes | None:
        """Reads a file past the store."""
        return self.server.get(path)

    def remove(self, path: str) -> None:
        """Removes a file past the store."""
        del self.server.files[path]


class TestRenaming(StoreSuite):
    @pytest.fixture
    def bench(self) -> FakeBench:
        return FakeBench("sftp")


class TestPlain(StoreSuite):
    @pytest.fixture
    def bench(self) -> FakeBench:
        return FakeBench("sftp", "plain")


class TestVersioned(StoreSuite):
    @pytest.fixture
    def bench(self) -> FakeBench:
        return FakeBench("s3")
