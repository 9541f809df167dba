"""The states of a transfer: none without a way on, none that a transfer falls into for ever."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from eft.domain.transfer import MOVES, NEXT_STEP, RESTING, State, Step
from eft.journey import committing
from tests.world import World

JOURNEY = Path(committing.__file__).parent
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_every_state_has_its_row_in_the_table_of_moves() -> None:
    """A state that was added and forgotten in MOVES would fail at its first write."""
    assert set(MOVES) == set(State)


@pytest.mark.parametrize("state", State)
def test_every_state_rests_or_has_a_next_step(state: State) -> None:
    """What neither rests nor has a step would stand still and be swept in vain."""
    transfer = World().submit("sftp-a", "s3-a").model_copy(update={"state": state})
    assert (transfer.next_step is None) == (state in RESTING)
    assert transfer.next_step is None or transfer.next_step in set(Step)


def test_a_state_without_a_move_rests() -> None:
    """From an end nothing follows: no step, no sweep."""
    ends = {state for state, targets in MOVES.items() if not targets}
    assert ends == {State.SETTLED, State.CANCELLED}
    assert ends <= RESTING
    assert not ends & set(NEXT_STEP)


def test_every_state_is_reached_and_leads_to_an_end() -> None:
    """From `accepted` each state is reached, and from each one an end is."""
    reached = {State.ACCEPTED}
    while more := set().union(*(MOVES[state] for state in reached)) - reached:
        reached |= more
    assert reached == set(State)
    ending = {state for state, targets in MOVES.items() if not targets}
    while more := {state for state, targets in MOVES.items() if targets & ending} - ending:
        ending |= more
    assert ending == set(State)


def test_what_may_have_been_committed_is_delivered_or_held() -> None:
    """`committing` leads to no cancel and no burial, and to a new upload by one way alone: they could deliver twice or lose."""
    assert MOVES[State.COMMITTING] == {State.DELIVERED, State.HELD, State.DELIVERING}
    going_back = [path.name for path in JOURNEY.glob("*.py") if "commit=None, upload=None" in path.read_text()]
    assert sorted(going_back) == ["held.py", "refused.py"]
    assert MOVES[State.DELIVERED] <= {State.SETTLED, State.HELD}


@pytest.mark.parametrize(("state", "target"), [(a, b) for a in State for b in State if b not in MOVES[a]])
def test_a_move_that_is_not_in_the_table_is_refused(state: State, target: State) -> None:
    """`to()` is the one writer of state, and it knows the table."""
    transfer = World().submit("sftp-a", "s3-a").model_copy(update={"state": state})
    with pytest.raises(ValueError, match=f"from {state} to {target}"):
        transfer.to(target, now=NOW)
