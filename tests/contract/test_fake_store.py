"""The fake store keeps the contract of the real ones, so that what the journey's tests prove on it holds on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest

from eft.domain.names import remote_path
from eft.errors import NotFound, Permanent
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


@pytest.mark.parametrize("moment", ["whole:looked", "whole:chunk"])
def test_what_changes_between_the_looks_is_refused(moment: str) -> None:
    """Whatever a test does to a file between the looks of a reading at once is seen, where no version is pinned."""

    def replaced(bench: FakeBench) -> None:
        bench.put("a.csv", b"other")

    def cut(bench: FakeBench) -> None:
        del bench.server.files["a.csv"].data[2:]

    def removed(bench: FakeBench) -> None:
        bench.remove("a.csv")

    for change in (replaced, cut, removed):
        bench = FakeBench("sftp")
        bench.put("a.csv", b"first")
        bench.server.watch = lambda label, bench=bench, change=change: change(bench) if label == moment else None  # type: ignore[misc]
        with bench.open() as store, pytest.raises(Permanent) as error:
            store.whole(remote_path("a.csv"), limit=10)
        assert error.value.reason == ("source_missing" if change is removed else "source_changed")


def test_a_pinned_version_does_not_change() -> None:
    """Where versions are kept, a reading at once is of one version, asked for by its id or not."""
    bench = FakeBench("s3")
    bench.put("a.csv", b"first")
    with bench.open() as store:
        first = store.stat(remote_path("a.csv"))
        bench.server.watch = lambda label: bench.put("a.csv", b"second") if label == "whole:looked" else None
        assert store.whole(remote_path("a.csv"), limit=10) == (first, [b"first"])
        assert store.whole(remote_path("a.csv"), limit=10, version=first.fingerprint.version) == (first, [b"first"])
        assert store.whole(remote_path("a.csv"), limit=10)[1] == [b"second"]
        with pytest.raises(NotFound):
            store.whole(remote_path("a.csv"), limit=10, version="never")
