"""The short form of `make model`: smaller bounds, and every weakened variant."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.model.catalogue import FOUND, SHORT, WEAKENED, Sound, Weakened
from tests.model.delivery import DeliveryModel
from tests.model.explorer import explore, until
from tests.model.ownership import OwnershipModel


@pytest.mark.parametrize("entry", SHORT, ids=lambda one: one.name)
def test_the_protocol_holds_within_its_bounds(entry: Sound) -> None:
    """No order of steps delivers twice, loses a transfer, shows a part, or leaves a transfer without a way to rest."""
    explored = entry.run()
    assert explored.complete
    assert explored.found is None, explored.found
    assert explored.cannot_rest is None, explored.cannot_rest


@pytest.mark.parametrize("entry", WEAKENED + FOUND, ids=lambda one: one.name)
def test_without_a_guard_the_protocol_is_unsafe(entry: Weakened) -> None:
    """Each guard bears load: without it the checker finds a way to fail, and the same model with it has none that short."""
    explored = entry.run()
    assert entry.found(explored)
    trace = explored.found or explored.cannot_rest
    assert trace is not None
    assert trace.trace


def test_the_models_are_not_empty() -> None:
    """What must not happen twice does happen once: a file is delivered after a crash, and by a promoted region."""
    delivered = until(DeliveryModel(workers=2), lambda s: s.state == "delivered" and s.made == 2 and s.taken)
    assert delivered is not None
    assert any("crashes" in step or "claims" in step for step in delivered.trace)
    switched = until(
        OwnershipModel(workers=(1, 1), epochs=2),
        lambda s: s.seat == 1 and s.rows[1].state == "delivered" and s.appeared == 1,
    )
    assert switched is not None


class Counter(NamedTuple):
    """Two workers that read, add one, and write."""

    value: int = 0
    read: tuple[int, ...] = (-1, -1)
    done: int = 0


class LostUpdate:
    """The oldest race there is: what the explorer must find, in the fewest steps."""

    def initial(self) -> Counter:
        return Counter()

    def steps(self, state: Counter) -> list[tuple[str, Counter]]:
        steps = []
        for n, read in enumerate(state.read):
            if read == -1:
                steps.append((f"{n} reads", state._replace(read=(*state.read[:n], state.value, *state.read[n + 1 :]))))
            elif read >= 0:
                written = state._replace(value=read + 1, read=(*state.read[:n], -2, *state.read[n + 1 :]), done=state.done + 1)
                steps.append((f"{n} writes", written))
        return steps

    def violation(self, state: Counter) -> str | None:
        return "an update was lost" if state.done == 2 and state.value < 2 else None

    def tidied(self, state: Counter) -> Counter:
        return state

    def canonical(self, state: Counter) -> Counter:
        return state._replace(read=tuple(sorted(state.read)))

    def resting(self, state: Counter) -> bool:
        return state.done == 2


def test_the_explorer_finds_the_shortest_way_to_a_known_race() -> None:
    """Two reads, two writes: no shorter trace, and told with the same names all along."""
    explored = explore(LostUpdate())
    assert explored.found is not None
    assert explored.found.what == "an update was lost"
    readers = [step for step in explored.found.trace if step.endswith("reads")]
    assert sorted(readers) == ["0 reads", "1 reads"]
    assert len(explored.found.trace) == 4
