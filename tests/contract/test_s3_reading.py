"""Ranges of an object that are read one after the other: one request brings them all, and another only where they do not follow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from eft.adapters.s3.source import S3Source
from eft.domain.fingerprint import RemoteFile
from eft.domain.names import remote_path
from eft.errors import Permanent, Transient
from eft.ports import Store
from tests.contract.buckets import Bucket, emulator_session, new_bucket, seaweed_session
from tests.contract.store_suite import content_of

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest

CONTENT = content_of(2_000_003)
PATH = remote_path("in/a.bin")
CUTS = (0, 700_000, 1_400_000, len(CONTENT))


@pytest.fixture(params=["boto3", "direct", "seaweed"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    """A bucket asked by boto3 and the short way, and one on a store of another make, with the object in it."""
    if request.param == "seaweed":
        made = new_bucket(seaweed_session(request.getfixturevalue("seaweed")), prefix="p")
    else:
        session = emulator_session(request.getfixturevalue("aws"))
        session.tries = 1 if request.param == "boto3" else 3
        # Without versions: what is replaced is gone, but for an answer that has begun.
        made = new_bucket(session, prefix="p")
    made.put(PATH, CONTENT)
    return made


@contextmanager
def ranges(bucket: Bucket) -> Iterator[list[str]]:
    """Notes the ranges that are asked for."""
    asked: list[str] = []

    def note(request: AWSPreparedRequest, **_: object) -> None:
        told: Any = request.headers["Range"]
        asked.append(told.decode() if isinstance(told, bytes) else told)

    events = bucket.session.s3().meta.events
    events.register("before-send.s3.GetObject", note)
    try:
        yield asked
    finally:
        events.unregister("before-send.s3.GetObject", note)


def part(store: Store, file: RemoteFile, number: int, *, until: int | None = None) -> bytes:
    """Reads from one cut to the next."""
    start, end = CUTS[number], CUTS[number + 1]
    return b"".join(bytes(chunk) for chunk in store.read(file, start=start, size=end - start, until=until))


def test_ranges_that_follow_each_other_are_one_request(bucket: Bucket) -> None:
    """However it is cut, one request brings what is read up to `until`; the bytes are the object's."""
    with ranges(bucket) as asked, bucket.open() as store:
        file = store.stat(PATH)
        assert b"".join(part(store, file, n, until=file.size) for n in range(3)) == CONTENT
    assert asked == [f"bytes=0-{len(CONTENT) - 1}"]


def test_nothing_is_fetched_beyond_what_is_asked_for(bucket: Bucket) -> None:
    """Without `until` each range is a request, and ends where it ends."""
    with ranges(bucket) as asked, bucket.open() as store:
        file = store.stat(PATH)
        assert b"".join(part(store, file, n) for n in range(3)) == CONTENT
        assert b"".join(part(store, file, n, until=CUTS[2]) for n in range(2)) == CONTENT[: CUTS[2]]
    assert asked == [f"bytes={a}-{b - 1}" for a, b in pairwise(CUTS)] + [f"bytes=0-{CUTS[2] - 1}"]


def test_what_does_not_follow_is_asked_for_anew(bucket: Bucket) -> None:
    """Another range, a longer one than was asked for, or another file: what was fetched along is dropped, and no byte of it is taken."""
    bucket.put("in/b.bin", CONTENT[::-1])
    with ranges(bucket) as asked, bucket.open() as store:
        file, other = store.stat(PATH), store.stat(remote_path("in/b.bin"))
        assert part(store, file, 0, until=file.size) == CONTENT[: CUTS[1]]
        assert part(store, file, 2) == CONTENT[CUTS[2] :]
        assert part(store, file, 0, until=CUTS[1] + 10) == CONTENT[: CUTS[1]]
        assert part(store, file, 1) == CONTENT[CUTS[1] : CUTS[2]]
        assert part(store, file, 0, until=file.size) == CONTENT[: CUTS[1]]
        assert part(store, other, 1) == CONTENT[::-1][CUTS[1] : CUTS[2]]
    assert len(asked) == 6


def test_a_range_that_was_given_up_is_not_gone_on_with(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stops in the middle of a part leaves nothing behind that could be taken for the next one; its connection is closed."""
    closed: list[bool] = []
    with ranges(bucket) as asked, bucket.open() as store:
        file = store.stat(PATH)
        fetched = store._fetched(file, 0, CUTS[1], until=file.size)
        monkeypatch.setattr(fetched.body, "close", lambda: closed.append(True))
        monkeypatch.setattr(store, "_resumed", lambda *_: fetched)
        chunks = iter(store.read(file, start=0, size=CUTS[1], until=file.size))
        next(chunks)
        chunks.close()  # type: ignore[attr-defined] # a generator's
        monkeypatch.undo()
        fetched.body.close()
        assert closed == [True]
        assert part(store, file, 1, until=file.size) == CONTENT[CUTS[1] : CUTS[2]]
    assert len(asked) == 2


def test_an_answer_that_breaks_off_between_two_parts_is_asked_for_again(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads while a part is written, and a store may hang up: once, and that is nobody's failure; a second time in a row it is."""
    with ranges(bucket) as asked, bucket.open() as store:
        file = store.stat(PATH)
        came = part(store, file, 0, until=file.size)
        assert store._kept is not None
        monkeypatch.setattr(store._kept.body, "readinto", lambda _: 0)
        came += part(store, file, 1, until=file.size) + part(store, file, 2, until=file.size)
        assert came == CONTENT
        monkeypatch.setattr(S3Source, "_bytes", cut)
        with pytest.raises(Transient) as error:
            part(store, file, 0, until=file.size)
        assert error.value.reason == "aws_unavailable"
    assert asked == [f"bytes={begin}-{len(CONTENT) - 1}" for begin in (0, CUTS[1], 0)]


def cut(*_: object) -> Iterator[bytes]:
    """A body that ends at once."""
    raise Transient("cut", reason="aws_unavailable")


def test_an_answer_goes_on_with_the_version_that_it_began_with(bucket: Bucket, request: pytest.FixtureRequest) -> None:
    """An object that is replaced between two parts never comes half old and half new."""
    with ranges(bucket) as asked, bucket.open() as store:
        file = store.stat(PATH)
        came = part(store, file, 0, until=file.size)
        bucket.put(PATH, CONTENT[::-1])
        with suppress(Permanent, Transient):
            for number in (1, 2):
                came += part(store, file, number, until=file.size)
        requests = len(asked)
        # Asked for now it is refused, as the parts of a file that changed are.
        with pytest.raises(Permanent) as error:
            part(store, file, 1)
        assert error.value.reason == "source_changed"
    assert CONTENT.startswith(came)
    assert len(came) in CUTS
    # The emulator sends what stood there when it was asked; SeaweedFS may break off.
    if "seaweed" not in request.node.name:
        assert came == CONTENT
        assert requests == 1
