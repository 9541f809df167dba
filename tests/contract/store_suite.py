"""What every store promises, whatever it stands on: SFTP, S3 and the fake all run this suite.

A store's test module subclasses `StoreSuite` and provides the fixture `bench`: one endpoint and its owner's back door.
Multipart stores demand parts of at least 5 MiB, so that is the size of the parts here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Protocol

import pytest
from awscrt.checksums import crc64nvme

from eft.domain.fingerprint import RefusedName, RemoteFile
from eft.domain.names import RemotePath, remote_path, token_name
from eft.domain.parts import MIN_PART_SIZE, PartDone, PartPlan
from eft.domain.transfer import Commit, Upload
from eft.errors import NotFound, Permanent, Transient
from eft.ports import CommitOutcome, MoveOutcome, Sink, Store

TRANSFER = "0123456789abcdef0123456789abcdef"
NONCE = "00112233aabbccdd"


class Bench(Protocol):
    """One endpoint under test, and the back door of the party that owns its files."""

    has_directories: bool
    """Whether a directory exists apart from the files below it."""
    keeps_versions: bool
    """Whether a version that was overwritten or removed can still be read."""

    def open(self) -> AbstractContextManager[Store]:
        """Gives the store as the journey gets it."""

    def put(self, path: str, content: bytes) -> None:
        """Writes a file past the store, with the directories it needs."""

    def get(self, path: str) -> bytes | None:
        """Reads a file past the store; None if there is none."""

    def remove(self, path: str) -> None:
        """Removes a file past the store."""


def content_of(size: int, *, seed: str = "eft") -> bytes:
    """Returns `size` bytes in which no two blocks are alike, the same each time."""
    block = hashlib.shake_256(seed.encode()).digest(min(size, 1 << 16))
    blocks = (i.to_bytes(8, "big") + block[8:] for i in range(-(-size // len(block)) if block else 0))
    return b"".join(blocks)[:size]


def mint(sink: Sink, path: str, content: bytes, *, attempt: int = 1, create: bool = True, part_size: int = MIN_PART_SIZE) -> Upload:
    """Mints an attempt's token for a path."""
    final = remote_path(path)
    proposed = token_name(final, transfer=TRANSFER, region_epoch=1, attempt=attempt, nonce=NONCE)
    token = sink.mint(final, token=proposed, transfer=TRANSFER, size=len(content), create_directories=create)
    return Upload(attempt=attempt, token=token, path=final, plan=PartPlan(size=len(content), part_size=max(part_size, 1)))


def write(sink: Sink, upload: Upload, content: bytes, *, numbers: Iterable[int], fresh: bool) -> list[PartDone]:
    """Writes some parts in one go and returns what became durable."""
    noted: dict[int, str | None] = {}
    with sink.upload(upload, fresh=fresh) as uploading:
        for number in numbers:
            part = upload.plan.part(number)
            held = memoryview(content)[part.start : part.start + part.size]
            # Uneven pieces, as a source yields them; the last is empty.
            cut = min(70_000, len(held))
            noted.update(uploading.write(part, [held[:cut], held[cut:], held[:0]]))
        noted.update(uploading.finish())
    parts = [(upload.plan.part(number), etag) for number, etag in sorted(noted.items())]
    return [
        PartDone(
            number=part.number,
            size=part.size,
            crc64nvme=crc64nvme(content[part.start : part.start + part.size]),
            etag=etag,
        )
        for part, etag in parts
    ]


def frozen(sink: Sink, upload: Upload, content: bytes, parts: Iterable[PartDone], *, overwrite: bool) -> Commit:
    """Returns what D4 would freeze."""
    return Commit(
        attempt=upload.attempt,
        token=upload.token,
        path=upload.path,
        overwrite=overwrite,
        rename=sink.rename_mode,
        parts=tuple(parts),
        size=len(content),
        checksum=f"crc64nvme:{crc64nvme(content):016x}",
        region_epoch=1,
    )


def uploaded(sink: Sink, path: str, content: bytes, *, attempt: int = 1, overwrite: bool = False) -> tuple[Upload, Commit]:
    """Uploads a whole file under a token and returns what is left to commit."""
    upload = mint(sink, path, content, attempt=attempt)
    parts = write(sink, upload, content, numbers=range(1, upload.plan.count + 1), fresh=True)
    return upload, frozen(sink, upload, content, parts, overwrite=overwrite)


def listed(store: Store, directory: str = "", *, recursive: bool = True) -> dict[str, RemoteFile]:
    """Returns the files of a listing by path; refused names are left to the tests about them."""
    found = list(store.list(directory, recursive=recursive))
    assert not [f for f in found if isinstance(f, RefusedName)]
    return {f.path: f for f in found if isinstance(f, RemoteFile)}


def read(store: Store, file: RemoteFile, *, start: int = 0, size: int | None = None) -> bytes:
    """Returns a range of a file."""
    wanted = file.size - start if size is None else size
    return b"".join(bytes(chunk) for chunk in store.read(file, start=start, size=wanted))


class StoreSuite:
    """The contract of ports.Store."""

    @pytest.fixture
    def bench(self) -> Iterator[Bench]:
        """The endpoint under test."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, bench: Bench) -> Iterator[Store]:
        """Its store."""
        with bench.open() as store:
            yield store

    # -- source ------------------------------------------------------------------------------------------------------

    def test_lists_nothing_in_an_empty_root(self, store: Store) -> None:
        """An empty root lists as empty."""
        assert listed(store) == {}

    def test_lists_files_with_paths_below_the_root(self, bench: Bench, store: Store) -> None:
        """A recursive listing shows every file by its path from the root, with its size."""
        bench.put("a.csv", b"a")
        bench.put("in/b.csv", b"bb")
        bench.put("in/deep/ü c.csv", b"")
        found = listed(store)
        assert {path: file.size for path, file in found.items()} == {"a.csv": 1, "in/b.csv": 2, "in/deep/ü c.csv": 0}

    def test_lists_one_directory_alone(self, bench: Bench, store: Store) -> None:
        """A listing that is not recursive shows only a directory's own files, a recursive one what lies below it."""
        bench.put("a.csv", b"a")
        bench.put("in/b.csv", b"bb")
        bench.put("in/deep/c.csv", b"ccc")
        bench.put("inbox/d.csv", b"dddd")
        assert set(listed(store, "in", recursive=False)) == {"in/b.csv"}
        assert set(listed(store, "in")) == {"in/b.csv", "in/deep/c.csv"}
        assert set(listed(store, recursive=False)) == {"a.csv"}

    def test_leaves_tokens_out_of_listings(self, bench: Bench, store: Store) -> None:
        """A listing never shows our temporary files, finished or not."""
        bench.put("in/a.csv", b"a")
        token = token_name(remote_path("in/x.csv"), transfer=TRANSFER, region_epoch=1, attempt=1, nonce=NONCE)
        bench.put(token, b"half")
        assert set(listed(store)) == {"in/a.csv"}

    def test_lists_disposals_where_asked(self, bench: Bench, store: Store) -> None:
        """Names that sources were renamed to are shown to who asks for them, where sources are renamed; tokens of uploads never are."""
        upload, disposal = (
            token_name(remote_path("in/x.csv"), transfer=TRANSFER, region_epoch=1, attempt=attempt, nonce=NONCE) for attempt in (1, 0)
        )
        for path in ("in/a.csv", upload, disposal):
            bench.put(path, b"a")
        shown = {entry.path for entry in store.list("in", recursive=True, disposals=True) if isinstance(entry, RemoteFile)}
        assert shown == ({"in/a.csv"} if store.pins_versions else {"in/a.csv", disposal})

    def test_lists_a_thousand_files(self, bench: Bench, store: Store) -> None:
        """A listing longer than any page of the protocol is complete."""
        for i in range(1_050):
            bench.put(f"many/f{i:04}", b"")
        assert set(listed(store)) == {f"many/f{i:04}" for i in range(1_050)}

    def test_refuses_to_list_what_is_missing(self, bench: Bench, store: Store) -> None:
        """Listing a directory that does not exist is an error where directories exist, and empty where they do not."""
        if bench.has_directories:
            with pytest.raises(NotFound) as error:
                listed(store, "nowhere")
            assert error.value.reason == "directory_missing"
        else:
            assert listed(store, "nowhere") == {}

    def test_stats_the_version_that_it_lists(self, bench: Bench, store: Store) -> None:
        """A look at one file gives the fingerprint of the listing."""
        bench.put("in/a.csv", b"12345")
        seen = store.stat(remote_path("in/a.csv"))
        assert seen.path == "in/a.csv"
        assert seen.size == 5
        assert seen.fingerprint.matches(listed(store)["in/a.csv"].fingerprint)

    def test_stat_misses_what_is_not_there(self, store: Store) -> None:
        """A file that does not exist is `source_missing`."""
        with pytest.raises(NotFound) as error:
            store.stat(remote_path("in/none.csv"))
        assert error.value.reason == "source_missing"

    def test_sees_that_a_file_changed(self, bench: Bench, store: Store) -> None:
        """Another size is another version."""
        bench.put("a.csv", b"one")
        before = store.stat(remote_path("a.csv"))
        bench.put("a.csv", b"three")
        assert not store.stat(remote_path("a.csv")).fingerprint.matches(before.fingerprint)

    @pytest.mark.parametrize("size", [0, 1, 32_768, 1_000_003])
    def test_reads_a_whole_file(self, bench: Bench, store: Store, size: int) -> None:
        """A file of any size is read byte for byte."""
        content = content_of(size)
        bench.put("a.bin", content)
        assert read(store, store.stat(remote_path("a.bin"))) == content

    def test_reads_a_range(self, bench: Bench, store: Store) -> None:
        """A range is exactly the bytes asked for, and neighbouring ranges join without gap or overlap."""
        content = content_of(700_001)
        bench.put("a.bin", content)
        file = store.stat(remote_path("a.bin"))
        assert read(store, file, start=300_000, size=1) == content[300_000:300_001]
        assert read(store, file, start=1, size=0) == b""
        cuts = [0, 1, 262_144, 700_000, 700_001]
        ranges = [read(store, file, start=a, size=b - a) for a, b in pairwise(cuts)]
        assert b"".join(ranges) == content

    def test_goes_on_after_a_read_that_was_given_up(self, bench: Bench, store: Store) -> None:
        """A read abandoned after its first bytes leaves the store fit for use."""
        content = content_of(3_000_000)
        bench.put("a.bin", content)
        file = store.stat(remote_path("a.bin"))
        chunks = iter(store.read(file, start=0, size=file.size))
        first = bytes(next(chunks))
        assert content.startswith(first)
        del chunks
        assert read(store, file) == content

    def test_never_mixes_two_versions(self, bench: Bench, store: Store) -> None:
        """A version that was replaced by a shorter one is read as it was, or refused as changed."""
        content = content_of(100_000)
        bench.put("a.bin", content)
        file = store.stat(remote_path("a.bin"))
        bench.put("a.bin", b"short")
        if bench.keeps_versions:
            assert read(store, file) == content
        else:
            with pytest.raises(Permanent) as error:
                read(store, file)
            assert error.value.reason == "source_changed"

    def test_reads_nothing_that_vanished(self, bench: Bench, store: Store) -> None:
        """A file that vanished after it was listed is read as it was, or missing."""
        bench.put("a.bin", b"content")
        file = store.stat(remote_path("a.bin"))
        bench.remove("a.bin")
        if bench.keeps_versions:
            assert read(store, file) == b"content"
        else:
            with pytest.raises(Permanent) as error:
                read(store, file)
            assert error.value.reason == "source_missing"

    @pytest.mark.parametrize("size", [0, 1, 10_240, 300_000, 1_200_003])
    def test_reads_a_small_file_at_once(self, bench: Bench, store: Store, size: int) -> None:
        """A file no larger than the limit comes whole, as a look and a read would have it, time after time."""
        content = content_of(size)
        bench.put("in/a.bin", content)
        for _ in range(3):
            file, chunks = store.whole(remote_path("in/a.bin"), limit=max(size, 1))
            assert b"".join(chunks) == content
            assert file == store.stat(remote_path("in/a.bin"))

    @pytest.mark.parametrize(("size", "limit"), [(10_241, 10_240), (3_000_000, 1), (1, 0)])
    def test_leaves_a_larger_file_unread(self, bench: Bench, store: Store, size: int, limit: int) -> None:
        """A file larger than the limit is looked at alone, and can be read by ranges."""
        content = content_of(size)
        bench.put("a.bin", content)
        file, chunks = store.whole(remote_path("a.bin"), limit=limit)
        assert chunks == []
        assert file == store.stat(remote_path("a.bin"))
        assert read(store, file) == content

    def test_reads_nothing_at_once_that_is_not_there(self, bench: Bench, store: Store) -> None:
        """A file that does not exist is `source_missing`, and blames no endpoint."""
        bench.put("in/other.csv", b"x")
        with pytest.raises(NotFound) as error:
            store.whole(remote_path("in/none.csv"), limit=1_000)
        assert (error.value.reason, error.value.endpoint) == ("source_missing", None)
        assert b"".join(store.whole(remote_path("in/other.csv"), limit=1_000)[1]) == b"x"

    def test_bytes_read_at_once_may_be_kept(self, bench: Bench, store: Store) -> None:
        """What is read later never comes into the bytes of a file read before."""
        paths = [remote_path(f"{number}.bin") for number in range(40)]
        for path in paths:
            bench.put(path, content_of(60_000, seed=path))
        kept = [(path, store.whole(path, limit=60_000)[1]) for path in paths]
        for path, chunks in kept:
            assert b"".join(chunks) == content_of(60_000, seed=path)

    # -- disposal ----------------------------------------------------------------------------------------------------

    def test_moves_without_overwriting(self, bench: Bench, store: Store) -> None:
        """A move renames once, says when the source is missing, and never touches what stands at its target."""
        if store.pins_versions:
            pytest.skip("disposes by version")
        bench.put("in/a.csv", b"mine")
        bench.put("done/b.csv", b"theirs")
        a, b = remote_path("in/a.csv"), remote_path("done/b.csv")
        assert store.move(a, b) is MoveOutcome.EXISTS
        assert bench.get("in/a.csv") == b"mine"
        assert bench.get("done/b.csv") == b"theirs"
        assert store.move(a, remote_path("done/a.csv")) is MoveOutcome.DONE
        assert bench.get("in/a.csv") is None
        assert bench.get("done/a.csv") == b"mine"
        assert store.move(a, remote_path("done/c.csv")) is MoveOutcome.MISSING
        assert store.move(a, b) is MoveOutcome.MISSING

    def test_moves_into_directories_made_for_it(self, bench: Bench, store: Store) -> None:
        """A move creates the directories of its target when asked to."""
        if store.pins_versions:
            pytest.skip("disposes by version")
        bench.put("in/a.csv", b"mine")
        moved = store.move(remote_path("in/a.csv"), remote_path("old/2024/05/a.csv"), create_directories=True)
        assert moved is MoveOutcome.DONE
        assert bench.get("old/2024/05/a.csv") == b"mine"

    def test_removes_once(self, bench: Bench, store: Store) -> None:
        """Removing a token of ours says whether it was there."""
        if store.pins_versions:
            pytest.skip("disposes by version")
        bench.put("in/.token.part", b"mine")
        assert store.remove(remote_path("in/.token.part")) is True
        assert bench.get("in/.token.part") is None
        assert store.remove(remote_path("in/.token.part")) is False

    def test_disposes_of_this_version_only(self, bench: Bench, store: Store) -> None:
        """A version is copied and removed by its identity; a newer one under the same name stays."""
        if not store.pins_versions:
            pytest.skip("disposes by renaming")
        bench.put("in/a.csv", b"old")
        old = store.stat(remote_path("in/a.csv"))
        store.copy_version(old, remote_path("archive/a.csv"))
        assert bench.get("archive/a.csv") == b"old"
        bench.put("in/a.csv", b"newer")
        store.remove_version(old)
        assert bench.get("in/a.csv") == b"newer"
        newer = store.stat(remote_path("in/a.csv"))
        assert newer.size == 5
        assert store.remove_version(newer) is True
        assert store.remove_version(newer) is False

    # -- sink --------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [0, 1, 300_000, 2 * MIN_PART_SIZE + 3])
    def test_delivers_whole_or_not_at_all(self, bench: Bench, store: Store, size: int) -> None:
        """Nothing shows under the final name before the commit, everything after it, and the token is used up."""
        content = content_of(size)
        upload, commit = uploaded(store, "out/a.bin", content)
        assert [p.number for p in commit.parts] == list(range(1, upload.plan.count + 1))
        store.verify(upload)
        assert bench.get("out/a.bin") is None
        assert store.look(upload.path) is None
        assert store.token_exists(upload.token, upload.path)
        assert store.commit(commit).outcome is CommitOutcome.DONE
        assert bench.get("out/a.bin") == content
        assert not store.token_exists(upload.token, upload.path)
        seen = store.look(upload.path)
        assert seen is not None
        assert seen.size == size

    def test_commits_once(self, bench: Bench, store: Store) -> None:
        """A commit repeated after it succeeded changes nothing, whoever has touched the file since.

        A renaming store always finds the token gone; S3 may also answer as it did the first time, or see the file.
        """
        _, commit = uploaded(store, "out/a.bin", b"first")
        repeated = set(CommitOutcome) - {CommitOutcome.PART_DIFFERS}
        if store.rename_mode is not None:
            repeated = {CommitOutcome.TOKEN_GONE}
        assert store.commit(commit).outcome is CommitOutcome.DONE
        assert store.commit(commit).outcome in repeated
        assert bench.get("out/a.bin") == b"first"
        bench.put("out/a.bin", b"replaced by its owner")
        assert store.commit(commit).outcome in repeated
        assert bench.get("out/a.bin") == b"replaced by its owner"
        bench.remove("out/a.bin")
        assert store.commit(commit).outcome in repeated
        assert bench.get("out/a.bin") is None

    def test_does_not_overwrite(self, bench: Bench, store: Store) -> None:
        """A commit that must not overwrite leaves a foreign file alone and its token unused."""
        upload, commit = uploaded(store, "out/a.bin", b"ours")
        bench.put("out/a.bin", b"theirs")
        assert store.commit(commit).outcome is CommitOutcome.EXISTS
        assert bench.get("out/a.bin") == b"theirs"
        assert store.token_exists(upload.token, upload.path)
        bench.remove("out/a.bin")
        assert store.commit(commit).outcome is CommitOutcome.DONE
        assert bench.get("out/a.bin") == b"ours"

    def test_overwrites_when_told_to(self, bench: Bench, store: Store) -> None:
        """A commit that overwrites replaces the file in one instant; a store that cannot says so before any byte is sent."""
        bench.put("out/a.bin", b"old")
        if store.rename_mode == "plain":
            with pytest.raises(Permanent) as error:
                mint(store, "out/a.bin", b"new one")
            assert error.value.reason == "cannot_overwrite"
            return
        _, commit = uploaded(store, "out/a.bin", b"new one", overwrite=True)
        assert bench.get("out/a.bin") == b"old"
        assert store.commit(commit).outcome is CommitOutcome.DONE
        assert bench.get("out/a.bin") == b"new one"

    def test_only_one_attempt_wins(self, bench: Bench, store: Store) -> None:
        """Of two attempts at one name that must not overwrite, the first commit wins."""
        _, first = uploaded(store, "out/a.bin", b"first", attempt=1)
        _, second = uploaded(store, "out/a.bin", b"second", attempt=2)
        assert store.commit(second).outcome is CommitOutcome.DONE
        assert store.commit(first).outcome is CommitOutcome.EXISTS
        assert bench.get("out/a.bin") == b"second"

    def test_resumes_from_the_last_part(self, bench: Bench, store: Store) -> None:
        """Another worker continues an upload with the parts that are missing."""
        content = content_of(3 * MIN_PART_SIZE - 7)
        upload = mint(store, "out/a.bin", content)
        done = write(store, upload, content, numbers=[1], fresh=True)
        with bench.open() as other:
            done += write(other, upload, content, numbers=[2, 3], fresh=False)
            other.verify(upload)
            commit = frozen(other, upload, content, done, overwrite=False)
            assert other.commit(commit).outcome is CommitOutcome.DONE
        assert bench.get("out/a.bin") == content

    def test_writes_parts_in_any_order_over_lanes(self, bench: Bench, store: Store) -> None:
        """Where a store has lanes, two workers write one upload at a time, in any order of parts."""
        if store.lanes == 1:
            pytest.skip("writes in order")
        content = content_of(4 * MIN_PART_SIZE)
        upload = mint(store, "out/a.bin", content)
        done = write(store, upload, content, numbers=[4], fresh=True)
        with bench.open() as other, other.upload(upload, fresh=False) as theirs:
            done += write(store, upload, content, numbers=[3], fresh=False)
            part = upload.plan.part(2)
            etags = dict(theirs.write(part, [content[part.start : part.start + part.size]]))
            done += write(store, upload, content, numbers=[1], fresh=False)
            etags.update(theirs.finish())
        second = content[part.start : part.start + part.size]
        done.append(PartDone(number=2, size=part.size, crc64nvme=crc64nvme(second), etag=etags[2]))
        done.sort(key=lambda p: p.number)
        assert store.commit(frozen(store, upload, content, done, overwrite=False)).outcome is CommitOutcome.DONE
        assert bench.get("out/a.bin") == content

    def test_a_part_may_be_sent_again(self, bench: Bench, store: Store) -> None:
        """A part written twice, as after a crash, is there once."""
        content = content_of(2 * MIN_PART_SIZE)
        upload = mint(store, "out/a.bin", content)
        write(store, upload, content, numbers=[1], fresh=True)
        done = write(store, upload, content, numbers=[1, 2], fresh=False)
        store.verify(upload)
        assert store.commit(frozen(store, upload, content, done, overwrite=False)).outcome is CommitOutcome.DONE
        assert bench.get("out/a.bin") == content

    def test_an_upload_cut_short_does_not_verify(self, store: Store) -> None:
        """A token that holds fewer bytes than planned is not fit to be committed."""
        content = content_of(2 * MIN_PART_SIZE)
        upload = mint(store, "out/a.bin", content)
        write(store, upload, content, numbers=[1], fresh=True)
        with pytest.raises(Transient) as error:
            store.verify(upload)
        assert error.value.reason == "size_differs"

    def test_reads_back_what_was_written_or_says_that_it_cannot(self, store: Store) -> None:
        """Reading back gives the token's own bytes, or None."""
        content = content_of(600_000)
        upload, _ = uploaded(store, "out/a.bin", content)
        back = store.read_back(upload)
        if back is not None:
            assert b"".join(bytes(chunk) for chunk in back) == content

    def test_a_consumed_token_never_commits(self, bench: Bench, store: Store) -> None:
        """Consuming a token says who did it, and nobody commits or continues it afterwards."""
        content = b"never seen"
        upload, commit = uploaded(store, "out/a.bin", content)
        assert store.consume(upload.token, upload.path) is True
        assert store.consume(upload.token, upload.path) is False
        assert not store.token_exists(upload.token, upload.path)
        assert store.commit(commit).outcome is CommitOutcome.TOKEN_GONE
        assert bench.get("out/a.bin") is None
        with pytest.raises(Permanent) as error:
            write(store, upload, content, numbers=[1], fresh=False)
        assert error.value.reason == "token_gone"

    def test_a_committed_token_is_not_consumed(self, bench: Bench, store: Store) -> None:
        """Whoever comes to consume a token after its commit finds it gone, and the file stays."""
        upload, commit = uploaded(store, "out/a.bin", b"delivered")
        assert store.commit(commit).outcome is CommitOutcome.DONE
        assert store.consume(upload.token, upload.path) is False
        assert bench.get("out/a.bin") == b"delivered"

    def test_makes_directories_only_when_asked(self, bench: Bench, store: Store) -> None:
        """A missing directory is created on request, and an error before any byte is sent without one."""
        upload = mint(store, "new/deep/a.bin", b"x", create=True)
        assert isinstance(upload.token, str)
        if bench.has_directories:
            with pytest.raises(Permanent) as error:
                mint(store, "absent/a.bin", b"x", create=False)
            assert error.value.reason == "directory_missing"

    def test_shows_no_unfinished_upload(self, bench: Bench, store: Store) -> None:
        """What is uploaded but not committed appears in no listing."""
        uploaded(store, "out/a.bin", b"waiting")
        assert listed(store) == {}

    def test_looks_at_nothing(self, store: Store) -> None:
        """A free name is None."""
        assert store.look(remote_path("out/free.bin")) is None
        assert store.look(RemotePath("free.bin")) is None
