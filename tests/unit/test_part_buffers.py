"""Buffers for the bodies of parts, used again and again."""

from __future__ import annotations

from eft.adapters.s3.uploading import Shelf
from eft.domain.parts import MIB, MIN_PART_SIZE


def test_a_buffer_given_back_serves_the_next_part_of_its_size() -> None:
    """A part of the same size gets the buffer that was given back, one of another size does not."""
    shelf = Shelf(most=48 * MIB)
    held = shelf.take(8 * MIB)
    assert len(held) == 8 * MIB
    assert shelf.take(8 * MIB) is not held
    shelf.give(held)
    assert len(shelf.take(6 * MIB)) == 6 * MIB
    assert shelf.take(8 * MIB) is held


def test_small_buffers_are_not_kept() -> None:
    """A small file's buffer is no part's, and malloc has it back."""
    shelf = Shelf(most=48 * MIB)
    held = shelf.take(MIN_PART_SIZE - 1)
    shelf.give(held)
    assert shelf.take(MIN_PART_SIZE - 1) is not held


def test_what_lies_unused_is_bounded() -> None:
    """Beyond the bound the buffer that was asked for longest ago goes, whatever its size."""
    shelf = Shelf(most=20 * MIB)
    held = [shelf.take(8 * MIB) for _ in range(3)]
    for buffer in held:
        shelf.give(buffer)
    assert shelf.take(8 * MIB) is held[1]
    assert shelf.take(8 * MIB) is held[2]
    assert all(shelf.take(8 * MIB) is not buffer for buffer in held)
    shelf.give(bytearray(21 * MIB))
    assert shelf._free == []
