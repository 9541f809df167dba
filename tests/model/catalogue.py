"""What is explored: the protocol within its bounds, and each weakened variant, which must be found unsafe."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol

from tests.model.delivery import DeliveryModel
from tests.model.disposal import DisposalModel
from tests.model.explorer import Explored, Model, explore
from tests.model.ownership import OwnershipModel
from tests.model.regions import Pair, Row, Table
from tests.model.reservations import ReservationModel


class AnyModel(Model[Any], Hashable, Protocol):
    """A model of whatever state."""


@dataclass(frozen=True, slots=True)
class Sound:
    """The protocol with all its guards: no violation, and with `must_rest` no state without a way to rest."""

    name: str
    model: AnyModel
    must_rest: bool = False

    def run(self) -> Explored:
        """Explores all of it."""
        return explore(self.model, must_rest=self.must_rest)

    def holds(self, explored: Explored) -> bool:
        """Returns whether the exploration found nothing wrong and left nothing out."""
        return explored.complete and explored.found is None and explored.cannot_rest is None


@dataclass(frozen=True, slots=True)
class Weakened:
    """The protocol without one guard; the smallest bounds that show why the guard is there."""

    name: str
    model: AnyModel
    must_rest: bool = False

    def run(self) -> Explored:
        """Explores until the first violation."""
        return explore(self.model, must_rest=self.must_rest)

    def found(self, explored: Explored) -> bool:
        """Returns whether the variant was seen to be unsafe."""
        return explored.found is not None or explored.cannot_rest is not None


def _pair(**changed: Any) -> OwnershipModel:  # noqa: ANN401 - a bound or a guard
    """Returns two regions with one worker each, a promotion, and nothing else that operators do."""
    bounds: dict[str, Any] = {"workers": (1, 1), "epochs": 2, "solos": False, "switches": False, "decisions": False, "cuts": False}
    return OwnershipModel(**{**bounds, **changed})


ACCEPTED = Pair(rows=(Row("accepted", 1), Row()), tables=(Table(), Table(journal=True)))
"""Accepted by its home and on record at the peer."""
ANNOUNCED = ACCEPTED._replace(rows=(Row("committing", 1, 1), Row()), tables=(Table(intent=1), Table(journal=True)), made=1, named=1 << 1)
"""Committing, with its intent at home; the peer has not heard of it."""
ALONE = ACCEPTED._replace(tables=(Table(solo=True), Table()), alone=(True, False))
"""Accepted by a solo home while the peer was out of reach."""

SHORT = (
    *(
        Sound(
            f"delivery, {rename}{', receiver_removes' if removes else ''}",
            DeliveryModel(workers=3, rename=rename, receiver_removes=removes),
            must_rest=True,
        )
        for rename in ("posix", "plain", "s3")
        for removes in (True, False)
    ),
    Sound("ownership, promotion and rejoin", _pair(receiver_removes=False), must_rest=True),
    Sound("ownership, planned switch", _pair(switches=True, rejoins=False), must_rest=True),
    Sound("reservations", ReservationModel(workers=2)),
    Sound("reservations, overwriting", ReservationModel(workers=2, overwrite=True)),
    Sound("disposal", DisposalModel(workers=3, claims=3), must_rest=True),
)

LONG = (
    *(
        Sound(
            f"delivery, {rename}{', receiver_removes' if removes else ''}",
            DeliveryModel(rename=rename, receiver_removes=removes),
            must_rest=True,
        )
        for rename in ("posix", "plain", "s3")
        for removes in (True, False)
    ),
    *(
        Sound(
            f"delivery, three tries, {rename}{', receiver_removes' if removes else ''}",
            DeliveryModel(workers=3, attempts=3, rename=rename, receiver_removes=removes),
        )
        for rename in ("posix", "plain")
        for removes in (True, False)
    ),
    Sound("ownership, promotion and rejoin", _pair(workers=(2, 2), cuts=True)),
    Sound("ownership, promotion and rejoin, receiver_removes unset", _pair(workers=(2, 2), cuts=True, receiver_removes=False)),
    Sound("ownership, solo", _pair(solos=True, cuts=True), must_rest=True),
    Sound("ownership, planned switch", _pair(workers=(2, 2), switches=True, cuts=True)),
    Sound("ownership, there and back", _pair(switches=True, epochs=3)),
    Sound("ownership, solo, there and back", _pair(solos=True, epochs=3, receiver_removes=False)),
    Sound("ownership, tokens written off", _pair(decisions=True, cuts=True)),
    Sound("ownership, tokens written off, many workers", _pair(workers=(2, 2), attempts=1, decisions=True)),
    Sound("reservations", ReservationModel()),
    Sound("reservations, overwriting", ReservationModel(overwrite=True)),
    Sound("disposal", DisposalModel(), must_rest=True),
)

WEAKENED = (
    Weakened("no fence on the commit write", DeliveryModel(workers=3, cancels=False, receiver_removes=False, fence_on_commit_write=False)),
    Weakened("no intent", _pair(intents=False)),
    Weakened("no re-assertion at the peer by recovery", _pair(acks_on_recovery=False)),
    Weakened("blind solo", _pair(solos=True, solo_looks=False)),
    Weakened("promotion without the gate", _pair(promote_raises_gate=False)),
    Weakened("recovery by a look at the final name", DeliveryModel(workers=2, cancels=False, recover_by_token=False)),
    Weakened("one number for chores and region", _pair(epochs=3, receiver_removes=False, start=ACCEPTED, leases_apart=False)),
    Weakened("a new token without a consumed old one", DeliveryModel(workers=2, cancels=False, consumed_before_anew=False)),
    Weakened("the source deleted by its path", DisposalModel(workers=2, claims=2, by_token=False)),
    Weakened("reservations of each region's own", ReservationModel(workers=2, one_ledger=False)),
    Weakened("a lease and a rename that overwrites nothing", DeliveryModel(workers=2, cancels=False, one_token=False)),
)
"""What the design rules out."""

FOUND = (
    Weakened("ABANDON(token) not kept on the row", DeliveryModel(workers=2, cancels=False, write_off_kept=False)),
    Weakened("a plain rename begun again", DeliveryModel(workers=2, cancels=False, rename="plain", rename_begun_once=False)),
    Weakened(
        "the token of a half-done plain rename removed", DeliveryModel(workers=2, cancels=False, rename="plain", half_renamed_kept=False)
    ),
    Weakened("one disposal token for all claims", DisposalModel(token_per_claim=False)),
    Weakened("no look at what is left under disposal tokens", DisposalModel(workers=2, claims=2, versions=1, listed=False), must_rest=True),
    Weakened(
        "reservations made and released in the transfer's name alone", ReservationModel(workers=3, claims=(3, 1), release_fenced=False)
    ),
    Weakened(
        "ABANDON taken back by a late intent", _pair(workers=(2, 1), attempts=1, rejoins=False, decisions=True, write_off_final=False)
    ),
    Weakened("a token adopted as given up that was not consumed", _pair(rejoins=False, decisions=True, written_off_is_held=False)),
    Weakened("delivered by absence, in a region that was fenced meanwhile", _pair(rejoins=False, decisions=True, absence_reasserted=False)),
    Weakened("discovered without evidence, and not held", _pair(solos=True, cuts=True, unknown_is_held=False)),
    Weakened("intents not asked by who discovers", _pair(cuts=True, intents_known=False)),
    Weakened("rows of earlier eras left to nobody", _pair(epochs=3, eras_told_apart=False)),
    Weakened(
        "a planned switch away from a solo home", _pair(solos=True, switches=True, rejoins=False, start=ALONE, switch_with_evidence=False)
    ),
    Weakened("a drain taken back after the release", _pair(switches=True, rejoins=False, release_final=False)),
    Weakened(
        "rejoin does not learn what the old home did alone", _pair(solos=True, receiver_removes=False, start=ALONE, rejoin_learns=False)
    ),
    Weakened(
        "rejoin leaves an unacknowledged intent at the peer", _pair(epochs=3, receiver_removes=False, start=ANNOUNCED, peer_is_told=False)
    ),
    Weakened(
        "a journal that only the other region has", _pair(epochs=1, cuts=True, discovers=False, journals_passed_on=False), must_rest=True
    ),
    Weakened(
        "a row that has just arrived sent back as a stray",
        _pair(switches=True, rejoins=False, start=ACCEPTED, arrivals_stay=False),
        must_rest=True,
    ),
)
"""What a first build of the design did, and the checker found."""
