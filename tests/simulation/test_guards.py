"""Each load-bearing guard of the real code bears load: taken away, a promise breaks."""

from __future__ import annotations

import pytest

from tests.simulation.guards import GUARDS, Guard, found_without

SLOW = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("guard", [pytest.param(one, id=one.name, marks=SLOW if one.slow else []) for one in GUARDS])
def test_a_promise_breaks_without_the_guard(guard: Guard) -> None:
    """Within its seeds there is one that breaks the guard's promise without it, and keeps every promise with it."""
    found = found_without(guard)
    assert found is not None, f"{guard.name}: {guard.holds}; {guard.seeds} seeds do not miss it"
