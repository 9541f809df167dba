"""CRC64NVME of parts and wholes, and what a tally has seen."""

import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eft.domain.checksum import (
    Tally,
    combine_crc64nvme,
    crc64nvme,
    crc64nvme_base64,
    crc64nvme_from_base64,
    crc64nvme_text,
    whole_crc64nvme,
)
from eft.domain.parts import Part, PartDone, PartPlan
from eft.errors import Permanent

CHECK = 0xAE8B14860A799888
"""CRC-64/NVME of "123456789" (catalogue of parametrised CRC algorithms)."""


def seen(tally: Tally, part: Part, *chunks: bytes) -> bytes:
    """Returns what comes out of a watched part."""
    return b"".join(tally.watch(part, chunks))


def test_known_value() -> None:
    """The CRC of "123456789" is the one that the catalogue of CRCs gives."""
    assert crc64nvme(b"123456789") == CHECK


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer(kind: type[bytes]) -> None:
    """Bytes, byte arrays and views of them give the same CRC."""
    assert crc64nvme(kind(b"123456789")) == CHECK


@given(st.binary(max_size=200), st.integers(0, 200))
def test_running_crc(content: bytes, cut: int) -> None:
    """Going on from a previous CRC equals one pass over all."""
    assert crc64nvme(content[cut:], crc64nvme(content[:cut])) == crc64nvme(content)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_combine(first: bytes, second: bytes) -> None:
    """The CRCs of two ranges combine into that of both, empty ones included."""
    assert combine_crc64nvme(crc64nvme(first), crc64nvme(second), len(second)) == crc64nvme(first + second)


@given(st.binary(max_size=100), st.integers(1, 30))
def test_whole_from_parts(content: bytes, part_size: int) -> None:
    """Parts cut by a plan combine into the CRC of the whole file."""
    plan = PartPlan(size=len(content), part_size=part_size)
    cut = [(p, content[p.start : p.start + p.size]) for p in plan.parts()]
    done = [PartDone(number=p.number, size=p.size, crc64nvme=crc64nvme(b)) for p, b in cut]
    assert whole_crc64nvme(done) == crc64nvme(content)


def test_whole_needs_every_part() -> None:
    """One part whose CRC the server did not tell leaves the whole without one."""
    assert whole_crc64nvme([PartDone(number=1, size=3, crc64nvme=1), PartDone(number=2, size=3, crc64nvme=None)]) is None


def test_text_is_padded() -> None:
    """A CRC with leading zeros keeps its 16 digits."""
    assert crc64nvme_text(0xAB) == "crc64nvme:00000000000000ab"


@given(st.integers(0, 2**64 - 1))
def test_header_round_trip(crc: int) -> None:
    """What goes into the header comes out of it."""
    assert crc64nvme_from_base64(crc64nvme_base64(crc)) == crc


@pytest.mark.parametrize("text", [None, "", "AAAA", "not base64!", "é", "AAAAAAAAAAAA-2"])
def test_unreadable_header(text: str | None) -> None:
    """A missing, short or foreign header (a composite one, say) is no CRC."""
    assert crc64nvme_from_base64(text) is None


def test_tally_in_order() -> None:
    """Parts in order from the first byte give each part's CRC and the SHA-256 of all."""
    tally, plan = Tally(), PartPlan(size=10, part_size=6)
    assert seen(tally, plan.part(1), b"abc", b"def") + seen(tally, plan.part(2), b"ghij") == b"abcdefghij"
    assert tally.crcs == {1: crc64nvme(b"abcdef"), 2: crc64nvme(b"ghij")}
    assert tally.sha256(10) == hashlib.sha256(b"abcdefghij").hexdigest()


def test_tally_of_a_resumed_file() -> None:
    """A worker that begins with the second part knows CRCs but no SHA-256."""
    tally, plan = Tally(), PartPlan(size=10, part_size=6)
    seen(tally, plan.part(2), b"ghij")
    assert tally.crcs == {2: crc64nvme(b"ghij")}
    assert tally.sha256(10) is None


def test_tally_of_a_beginning() -> None:
    """The SHA-256 of a beginning is not taken for that of the file."""
    tally, plan = Tally(), PartPlan(size=10, part_size=6)
    seen(tally, plan.part(1), b"abcdef")
    assert tally.sha256(10) is None


def test_tally_of_an_empty_file() -> None:
    """An empty file is one empty part with the SHA-256 of nothing."""
    tally = Tally()
    seen(tally, PartPlan(size=0, part_size=6).part(1))
    assert tally.crcs == {1: 0}
    assert tally.sha256(0) == hashlib.sha256().hexdigest()


@pytest.mark.parametrize("content", [b"abcde", b"abcdefg"])
def test_tally_of_another_length(content: bytes) -> None:
    """Fewer or more bytes than the part has mean that the source changed."""
    with pytest.raises(Permanent) as caught:
        seen(Tally(), Part(number=1, start=0, size=6), content)
    assert caught.value.reason == "source_changed"


def test_tally_of_a_part_broken_off() -> None:
    """A part that breaks off and is read again leaves no wrong SHA-256 behind."""
    tally, part = Tally(), Part(number=1, start=0, size=6)

    def breaks() -> Iterator[bytes]:
        yield b"abc"
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - raised three lines above
        list(tally.watch(part, breaks()))
    seen(tally, part, b"abcdef")
    assert tally.crcs == {1: crc64nvme(b"abcdef")}
    assert tally.sha256(6) is None


def test_a_digest_that_nobody_wants_is_not_made() -> None:
    """Without SHA-256 the parts' checksums are kept all the same."""
    tally, part = Tally(sha=False), Part(number=1, start=0, size=6)
    assert b"".join(tally.watch(part, [b"abc", b"def"])) == b"abcdef"
    assert tally.sha256(6) is None
    assert tally.crcs == {1: crc64nvme(b"abcdef")}
