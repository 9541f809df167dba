"""The way to the peer region's tables: one caller finds that it is shut, the others do not wait for it."""

from __future__ import annotations

import pytest

from eft.adapters.table import Link
from eft.errors import Conflict, Transient
from tests.fakes import FakeClock


def ask(link: Link, error: Exception | None = None) -> None:
    """Sends a request over the link, which the peer answers, or not."""
    with link.passing():
        if error is not None:
            raise error


def silent() -> Transient:
    """Returns what a peer that does not answer looks like to the SDK's translator."""
    return Transient("nothing comes back", reason="aws_unavailable")


def test_a_peer_that_does_not_answer_is_not_asked_again_at_once() -> None:
    """After one request without an answer the next is refused without being sent, and costs no try."""
    link = Link(FakeClock())
    with pytest.raises(Transient) as first:
        ask(link, silent())
    with pytest.raises(Transient) as second:
        ask(link, AssertionError("this request must not be sent"))
    assert {first.value.reason, second.value.reason} == {"peer_unreachable"}
    assert (first.value.counts, second.value.counts) == (False, False)


def test_one_caller_tries_and_opens_the_way_for_all() -> None:
    """After the pause one request probes while others are still refused; its answer opens the way."""
    clock = FakeClock()
    link = Link(clock)
    with pytest.raises(Transient):
        ask(link, silent())
    clock.advance(3.1)
    with link.passing(), pytest.raises(Transient) as other:
        ask(link, AssertionError("another caller must not wait for the probe"))
    assert other.value.reason == "peer_unreachable"
    ask(link)
    ask(link)


def test_a_refusal_is_an_answer() -> None:
    """A peer that refuses a request is there: the next one is sent."""
    link = Link(FakeClock())
    with pytest.raises(Transient) as refused:
        ask(link, Conflict("throttled", reason="throttled"))
    assert refused.value.reason == "peer_unreachable"
    ask(link)
