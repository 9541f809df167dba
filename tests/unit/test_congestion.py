"""How many connections are best: what rates say, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from eft.adapters.sftp.easing import Easing, InUse, slots_key
from eft.domain.congestion import CLEARLY, EASES, LASTS, TRUSTED, WIDENS, Gradient, after_cut, after_refusal
from eft.domain.endpoint import SftpEndpoint
from tests.fakes import FakeClock, FakeLimits

MINUTE = timedelta(minutes=1)
END = SftpEndpoint(id="ep1", tenant="t", name="n", host="h", username="u", max_connections=8, created=datetime(2026, 1, 1, tzinfo=UTC))


def feed(gradient: Gradient, looks: Iterable[tuple[int, float]], *, at: float = 0) -> list[int | None]:
    """Tells of connections and rates, a second apart."""
    return [gradient.note(connections, rate, now=at + second) for second, (connections, rate) in enumerate(looks)]


def test_fewer_that_clearly_move_more_are_found() -> None:
    """Once both numbers have been seen often enough; then what was taken back has to show itself anew."""
    gradient = Gradient()
    looks = [(4, 100.0)] * TRUSTED + [(8, 60.0)] * (2 * TRUSTED)
    found = feed(gradient, looks)
    assert found == [None] * (2 * TRUSTED - 1) + [4] + [None] * (TRUSTED - 1) + [4]


def test_what_moves_about_as_much_is_left_alone() -> None:
    """A little less, more, or a number that nothing is known to compare with: no reason to change."""
    for rate in (100 * CLEARLY, 100.0, 300.0):
        assert not any(feed(Gradient(), [(4, 100.0)] * TRUSTED + [(8, rate)] * (3 * TRUSTED)))
    assert not any(feed(Gradient(), [(4, 100.0)] * (TRUSTED - 1) + [(8, 1.0)] * (3 * TRUSTED)))
    # More connections than now are no fewer.
    assert not any(feed(Gradient(), [(8, 100.0)] * TRUSTED + [(4, 1.0)] * (3 * TRUSTED)))


def test_one_bad_second_is_no_trend() -> None:
    """A stall between good seconds changes nothing."""
    looks = ([(8, 100.0)] * 5 + [(8, 30.0)]) * 6
    assert not any(feed(Gradient(), [(4, 90.0)] * TRUSTED + looks))


def test_old_rates_are_forgotten() -> None:
    """What a link did minutes ago says nothing of now, neither of few connections nor of many."""
    gradient = Gradient()
    feed(gradient, [(4, 100.0)] * TRUSTED)
    assert not any(feed(gradient, [(8, 10.0)] * (3 * TRUSTED), at=TRUSTED + LASTS))
    gradient = Gradient()
    feed(gradient, [(8, 10.0)] * (TRUSTED - 1))
    assert not any(feed(gradient, [(4, 100.0)] * TRUSTED + [(8, 10.0)], at=TRUSTED + LASTS))


def test_steps_down() -> None:
    """One less than was refused, half of what was cut, and never none."""
    assert [after_refusal(n) for n in (1, 2, 8)] == [1, 1, 7]
    assert [after_cut(n) for n in (1, 2, 7, 8)] == [1, 1, 4, 4]


class _Server:
    """Sessions that move bytes at a rate that depends on how many there are; above four they hinder each other."""

    def __init__(self) -> None:
        self.sessions = [cast("Any", _Session()) for _ in range(8)]

    def second(self, connections: int, way: str = "read") -> list[InUse]:
        """Lets a second pass and returns those in use."""
        used = self.sessions[:connections]
        for session in used:
            session.streamed[way] += 1000 // connections if connections <= 4 else 300 // connections
        return [(END, session, connections) for session in used]


class _Session:
    def __init__(self) -> None:
        self.streamed = {"read": 0, "written": 0}


def _eased(looks: Iterable[list[InUse]], *, late: bool = False) -> list[int]:
    clock, allowed = FakeClock(), list[int]()

    def ease(key: str, *, to: int) -> bool:
        assert key == slots_key(END)
        allowed.append(to)
        return True

    easing = Easing(cast("Any", SimpleNamespace(ease=ease)))
    for used in looks:
        clock.advance(5 if late else 1)
        easing.compare(used, now=clock.monotonic())
    return allowed


def test_a_server_that_many_connections_slow_down_is_given_fewer() -> None:
    """Down to what moved most; with the same connections reading and writing are compared with themselves alone."""
    many = [4] * (TRUSTED + 1) + [8] * TRUSTED
    server = _Server()
    assert _eased(server.second(n) for n in many) == [4]
    server = _Server()
    assert _eased(server.second(n, "read" if n == 4 else "written") for n in many) == []


def test_a_second_of_unknown_length_is_not_compared() -> None:
    """A keeper that slept does not know when the bytes moved."""
    server = _Server()
    assert _eased((server.second(n) for n in [4] * (TRUSTED + 1) + [8] * (3 * TRUSTED)), late=True) == []


def test_connections_settle_at_what_a_server_stands() -> None:
    """Eight workers at a server that refuses the sixth: one more is tried at a time, and mostly there are five."""
    clock = FakeClock()
    limits, key, seen = FakeLimits(clock), slots_key(END), list[int]()
    held: set[str] = set()
    for second in range(600):
        clock.advance(1)
        for worker in ({f"w{n}" for n in range(8)} - held) if second % 5 == 0 else ():
            slots = limits.acquire(key, limit=8, holder=worker, lease=MINUTE)
            if slots and slots.taken > 5:
                limits.release(key, holder=worker)
                limits.ease(key, to=after_refusal(slots.taken))
            elif slots:
                held.add(worker)
        for worker in held:
            assert limits.acquire(key, limit=8, holder=worker, lease=MINUTE)
        seen.append(len(held))
        if second % 30 == 29:
            limits.release(key, holder=held.pop())
    assert min(seen[60:]) >= 4
    assert sum(seen) / len(seen) > 4.5
    assert EASES < WIDENS
