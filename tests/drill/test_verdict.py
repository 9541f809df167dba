"""What makes a run of the drill clean, without any region."""

from __future__ import annotations

import pytest

from tests.drill.drill import Verdict, summary

NO_EVIDENCE = frozenset({"no_evidence"})


def test_a_run_in_which_all_arrives_is_clean() -> None:
    """Nothing noted, nothing wrong."""
    assert Verdict(1, "dark", "a story").clean


@pytest.mark.parametrize(
    ("state", "reason", "may_hold", "clean"),
    [
        ("held", "no_evidence", NO_EVIDENCE, True),
        ("held", "no_evidence", frozenset[str](), False),
        ("held", "token_gone", NO_EVIDENCE, False),
        ("dead", "no_evidence", NO_EVIDENCE, False),
    ],
)
def test_a_run_is_clean_only_with_what_its_scene_cannot_but_hold(state: str, reason: str, may_hold: frozenset[str], *, clean: bool) -> None:
    """What is dead, or held for another reason, is printed as such with its reason, and ends the drill with another status than 0."""
    verdict = Verdict(1, "dark", "a story", files=1)
    verdict.note_resting({"state": state, "reason": reason}, f"a.bin {state}: {reason}", may_hold=may_hold)
    assert verdict.clean is clean
    said: list[str] = []
    assert summary([verdict], said.append) is clean
    assert ("1 dead" if state == "dead" else "1 held") in said[-1]
    kind = "DEAD" if state == "dead" else "held" if clean else "HELD NEEDLESSLY"
    assert f"    {kind}: a.bin {state}: {reason}" in str(verdict)
