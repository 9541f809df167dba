"""Memory that is used again: never while somebody looks into it, and not without bound."""

from __future__ import annotations

from eft.adapters.buffers import SPARE, Buffers


def test_a_buffer_serves_again_once_nobody_looks_into_it() -> None:
    """Until then another one does."""
    buffers = Buffers(size=100, kept=4)
    first = buffers.take()
    view = memoryview(first)[10:20]
    buffers.give(first)
    second = buffers.take()
    assert second is not first
    assert len(second) == 100
    view.release()
    assert buffers.take() is first
    assert len(first) == 100


def test_no_more_are_kept_than_allowed() -> None:
    """The oldest go."""
    buffers = Buffers(size=100, kept=2)
    three = [buffers.take() for _ in range(3)]
    for one in three:
        buffers.give(one)
    again = [buffers.take() for _ in range(3)]
    assert [any(one is other for other in three) for one in again] == [True, True, False]


def test_idle_memory_goes_but_for_a_little() -> None:
    """What is looked into stays."""
    buffers = Buffers(size=100, kept=80)
    taken = [buffers.take() for _ in range(40)]
    views = [memoryview(one) for one in taken[:5]]
    for one in taken:
        buffers.give(one)
    buffers.trim()
    again = [buffers.take() for _ in range(40)]
    assert sum(any(one is other for other in taken) for one in again) == SPARE
    views.clear()
    assert any(buffers.take() is one for one in taken[:5])


def test_a_buffer_has_one_user() -> None:
    """What was taken is not given to another."""
    buffers = Buffers(size=100, kept=2)
    buffers.give(buffers.take())
    assert buffers.take() is not buffers.take()
