"""`eft region`: which region is home of which partitions, and moving them. For operators; each order goes to the region that is to act."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from eft.cli.amounts import parse_duration, shown_moment
from eft.cli.failure import EXIT_CODES, Failure, examples, usage
from eft.cli.output import Output
from eft.cli.region_table import by_reason, counted, table
from eft.cli.session import JsonFlag, Session, YesFlag, begin, confirm, session_of

if TYPE_CHECKING:
    from eft.cli.client import Api, JsonObject

HANDS: Final = 6
"""Partitions ordered at a time."""
PAUSE_SECONDS: Final = 2.0
PASSING: Final = frozenset({"still_busy", "peer_unreachable", "partition_changed"})
"""Refusals that are worth another try while `--wait` lasts."""
SHOWN_IDS: Final = 5
_RANGE: Final = re.compile(r"(?P<first>\d{1,3})(-(?P<last>\d{1,3})(/(?P<step>[1-9]\d?))?)?")

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Homes of partitions: look, switch, promote, go on alone, come together. Every order is on record with who, why and ticket.",
    epilog=EXIT_CODES,
)

Numbers = Annotated[list[str] | None, typer.Argument(metavar="PARTITION", help="Numbers, ranges such as 0-9, or every second: 0-62/2.")]
Why = Annotated[str, typer.Option("--why", help="Why; it stays on record.", metavar="TEXT")]
Ticket = Annotated[str, typer.Option("--ticket", help="Under which ticket.", metavar="ID")]
Pick = Callable[[Mapping[str, Any], str], bool]


def _all(which: str) -> Any:  # noqa: ANN401 - the framework's own type
    return typer.Option("--all", help=f"All {which}.")


def _wait(default: str) -> Any:  # noqa: ANN401 - the framework's own type
    return typer.Option(
        "--wait", parser=parse_duration, help=f"Ask again for so long where it is busy. [default: {default}]", metavar="DURATION"
    )


@dataclass(slots=True)
class Order:
    """One order for many partitions, and what came of it."""

    verb: str
    body: Mapping[str, object]
    numbers: Sequence[int]
    done: dict[int, JsonObject] = field(default_factory=dict)
    proposals: list[JsonObject] = field(default_factory=list)
    refused: dict[int, Failure] = field(default_factory=dict)

    def carry_out(self, api: Api, session: Session, *, wait: timedelta | None = None) -> None:
        """Sends it, several partitions at a time; what is refused for the moment is sent again while `wait` lasts."""
        from eft.cli.client import path  # noqa: PLC0415 - loads httpx

        def one(number: int) -> JsonObject | Failure:
            try:
                return api.post(path("partitions", str(number), self.verb), self.body).body
            except Failure as failure:
                return failure

        ends = session.monotonic() + (0.0 if wait is None else wait.total_seconds())
        left = list(self.numbers)
        while True:
            with ThreadPoolExecutor(max_workers=HANDS) as hands:
                self._take(zip(left, hands.map(one, left), strict=True))
            left = [number for number, failure in self.refused.items() if (failure.problem or {}).get("reason") in PASSING]
            if not left or session.monotonic() >= ends:
                return
            session.sleep(PAUSE_SECONDS)

    def _take(self, answers: Iterable[tuple[int, JsonObject | Failure]]) -> None:
        for number, answer in answers:
            self.refused.pop(number, None)
            if isinstance(answer, Failure):
                self.refused[number] = answer
            elif answer["proposal"] is not None:
                self.proposals.append(answer["proposal"])
            else:
                self.done[number] = answer["partition"]

    def tell(self, out: Output, **more: object) -> None:
        """Says what came of it.

        Raises:
            Failure: the first refusal's exit code.
        """
        refused = [
            {"partition": number, "reason": str((failure.problem or {}).get("reason", "")), "message": str(failure)}
            for number, failure in sorted(self.refused.items())
        ]
        out.document(
            {"items": [self.done[number] for number in sorted(self.done)], "proposals": self.proposals, "refused": refused, **more}
        )
        if self.done:
            table(out, [self.done[number] for number in sorted(self.done)])
        for proposal in self.proposals:
            until = shown_moment(proposal["expires"])
            out.say(f"Partition {proposal['partition']}: until {until} UTC another operator may confirm it with")
            out.say(f"  eft region confirm {proposal['id']}")
        if refused:
            out.table(("REFUSED", "REASON", ""), by_reason(refused), empty="")
            raise Failure(f"{len(refused)} refused", code=next(iter(self.refused.values())).code)


@app.command(
    "status",
    epilog=examples(
        "eft region status",
        "eft region status --json | jq '.items[] | select(.mode == \"solo\") | .number'",
    ),
)
def status(
    ctx: typer.Context,
    *,
    each: Annotated[bool, typer.Option("--each", help="A line for each partition.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show the homes of all partitions, as this region has them and as the other one does where the link is up."""
    api, out = begin(ctx, as_json=as_json)
    page = _page(api)
    out.document(page)
    out.say(f"This is {page['region']}; the other region {'answers' if page['link'] else 'does not answer'}.")
    table(out, page["items"], each=each, peer=True)


@app.command("drain", epilog=examples("eft region drain --all --why 'monthly switch' --ticket OPS-12"))
def drain(
    ctx: typer.Context,
    partitions: Numbers = None,
    *,
    everything: Annotated[bool, _all("that are at home here")] = False,
    why: Why,
    ticket: Ticket,
    as_json: JsonFlag = False,
) -> None:
    """Begin a planned switch, at home: nothing new begins in the partitions, what is under way ends. Then: hand-over."""
    _simple(ctx, "drain", partitions, everything, why=why, ticket=ticket, as_json=as_json, pick=_home("active"))


@app.command("undrain", epilog=examples("eft region undrain --all --why 'not today' --ticket OPS-12"))
def undrain(
    ctx: typer.Context,
    partitions: Numbers = None,
    *,
    everything: Annotated[bool, _all("that drain here")] = False,
    why: Why,
    ticket: Ticket,
    as_json: JsonFlag = False,
) -> None:
    """Take a drain back: the partitions work on where they are."""
    _simple(ctx, "undrain", partitions, everything, why=why, ticket=ticket, as_json=as_json, pick=_home("draining"))


@app.command("hand-over", epilog=examples("eft region hand-over --all --why 'monthly switch' --ticket OPS-12 --wait 5m"))
def hand_over(
    ctx: typer.Context,
    partitions: Numbers = None,
    *,
    everything: Annotated[bool, _all("that drain here")] = False,
    why: Why,
    ticket: Ticket,
    wait: Annotated[timedelta | None, _wait("2m")] = None,
    as_json: JsonFlag = False,
) -> None:
    """End a planned switch: the other region becomes the partitions' home, with all that is under way there."""
    _simple(
        ctx,
        "hand-over",
        partitions,
        everything,
        why=why,
        ticket=ticket,
        as_json=as_json,
        pick=_home("draining", "released"),
        wait=timedelta(minutes=2) if wait is None else wait,
    )


@app.command("rejoin", epilog=examples("eft region rejoin --all --why 'the link is back' --ticket OPS-13"))
def rejoin(
    ctx: typer.Context,
    partitions: Numbers = None,
    *,
    everything: Annotated[bool, _all("that are at home here")] = False,
    why: Why,
    ticket: Ticket,
    wait: Annotated[timedelta | None, _wait("2m")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Bring what went on alone together again, once the other region is back: ask at the home. Commits need both regions again."""
    _simple(
        ctx,
        "rejoin",
        partitions,
        everything,
        why=why,
        ticket=ticket,
        as_json=as_json,
        pick=_home("active", "draining"),
        wait=timedelta(minutes=2) if wait is None else wait,
    )


@app.command(
    "promote",
    epilog=examples(
        "eft --profile east region promote --all --old-home-was-dual --why 'west is dark' --ticket INC-7",
        "eft --profile east region promote 3 5 --old-home-may-be-solo --why 'west is dark' --ticket INC-7 --yes",
    ),
)
def promote(
    ctx: typer.Context,
    partitions: Numbers = None,
    *,
    everything: Annotated[bool, _all("that are at home in the other region")] = False,
    old_home_may_be_solo: Annotated[
        bool,
        typer.Option(
            "--old-home-may-be-solo/--old-home-was-dual",
            help="Whether the old home may have delivered without us. Then what has no evidence here is held until the regions rejoin.",
        ),
    ],
    why: Why,
    ticket: Ticket,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Make this region the partitions' home without asking the other, which can commit nothing from then on, dead or alive."""
    api, out = begin(ctx, as_json=as_json)
    page = _page(api)
    numbers = _chosen(page, partitions, everything=everything, pick=lambda item, region: item["home"] != region)
    held = _will_be_held(api, out, numbers, old_home_may_be_solo=old_home_may_be_solo)
    if numbers:
        question = f"Make {page['region']} the home of {counted(numbers)} without asking the other region? {held} transfers will be held."
        confirm(ctx, question, yes=yes)
    order = Order("promote", {"why": why, "ticket": ticket, "old_home_may_be_solo": old_home_may_be_solo}, numbers)
    order.carry_out(api, session_of(ctx))
    order.tell(out, will_be_held=held)


@app.command("solo", epilog=examples("eft region solo --all --why 'east is dark' --ticket INC-7"))
def solo(
    ctx: typer.Context,
    partitions: Numbers = None,
    *,
    everything: Annotated[bool, _all("that are at home here")] = False,
    why: Why,
    ticket: Ticket,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Let homes commit without the other region's ack. Only while nobody promotes the other region: that is your word."""
    api, out = begin(ctx, as_json=as_json)
    page = _page(api)
    numbers = _chosen(page, partitions, everything=everything, pick=lambda item, region: item["home"] == region and item["mode"] == "dual")
    if numbers:
        question = f"Let {page['region']} deliver alone in {counted(numbers)}? The other region must not be promoted before they rejoin."
        confirm(ctx, question, yes=yes)
    order = Order("solo", {"why": why, "ticket": ticket}, numbers)
    order.carry_out(api, session_of(ctx))
    order.tell(out)


@app.command(
    "confirm", epilog=examples("eft region confirm 0f3a… --why 'seen it, too'", "eft region confirm 0f3a… 77b0… --why 'seen it, too' --yes")
)
def confirm_proposals(
    ctx: typer.Context,
    proposals: Annotated[list[str], typer.Argument(metavar="PROPOSAL", help="Ids.")],
    *,
    why: Annotated[str | None, typer.Option("--why", help="Your own reason, beside the proposal's.", metavar="TEXT")] = None,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Carry out what another operator has proposed, where two persons are asked for. What it would hold is shown first."""
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    asked = [api.get(path("partitions", "proposals", proposal)).body for proposal in proposals]
    for one in asked:
        out.say(f"{one['by']} proposes to {one['action']} partition {one['partition']}: {one['why']} ({one['ticket']})")
    promoted = [one for one in asked if one["action"] == "promote"]
    held = sum(
        _will_be_held(api, out, [one["partition"] for one in promoted if one["old_home_may_be_solo"] is solo_], old_home_may_be_solo=solo_)
        for solo_ in (False, True)
    )
    confirm(ctx, f"Confirm {len(asked)} proposal{'' if len(asked) == 1 else 's'}? {held} transfers will be held.", yes=yes)
    done = []
    for proposal in proposals:
        done.append(api.post(path("partitions", "proposals", proposal, "confirm"), {} if why is None else {"why": why}).body["partition"])
        out.say(f"Partition {done[-1]['number']} is confirmed.")
    out.document({"items": done, "proposals": [], "refused": [], "will_be_held": held})
    table(out, done)


def _simple(
    ctx: typer.Context,
    verb: str,
    partitions: list[str] | None,
    everything: bool,  # noqa: FBT001 - as the commands have it
    *,
    why: str,
    ticket: str,
    as_json: bool,
    pick: Pick,
    wait: timedelta | None = None,
) -> None:
    api, out = begin(ctx, as_json=as_json)
    numbers = _chosen(_page(api), partitions, everything=everything, pick=pick)
    order = Order(verb, {"why": why, "ticket": ticket}, numbers)
    with out.waiting(f"{verb}: {counted(numbers)} …"):
        order.carry_out(api, session_of(ctx), wait=wait)
    if not numbers:
        out.say("There is nothing to do.")
    order.tell(out)


def _page(api: Api) -> JsonObject:
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    return api.get(path("partitions")).body


def _home(*phases: str) -> Pick:
    """Returns what picks the partitions that are at home here, in one of these phases."""
    return lambda item, region: item["home"] == region and item["phase"] in phases


def _chosen(page: JsonObject, partitions: Sequence[str] | None, *, everything: bool, pick: Pick) -> list[int]:
    if bool(partitions) == everything:
        raise usage("Name partitions, or --all", advice="`eft region status --each` shows their numbers.")
    if partitions:
        return list(dict.fromkeys(number for text in partitions for number in _range(text)))
    return [item["number"] for item in page["items"] if pick(item, page["region"])]


def _range(text: str) -> range:
    match = _RANGE.fullmatch(text)
    if match is None:
        raise usage(f"'{text}' is no partition", advice="Write for example 7, 0-9 or 0-62/2.")
    first, last, step = match["first"], match["last"] or match["first"], match["step"] or "1"
    return range(int(first), int(last) + 1, int(step))


def _will_be_held(api: Api, out: Output, numbers: Sequence[int], *, old_home_may_be_solo: bool) -> int:
    """Shows which transfers a promotion would hold; returns how many they are."""
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    def one(number: int) -> JsonObject:
        solo_ = "true" if old_home_may_be_solo else "false"
        return api.get(path("partitions", str(number), "preview"), old_home_may_be_solo=solo_).body

    with ThreadPoolExecutor(max_workers=HANDS) as hands:
        found = list(hands.map(one, numbers))
    total = sum(int(preview["will_be_held"]) for preview in found)
    ids = [one for preview in found for one in preview["ids"]]
    if total:
        more = f" … and {total - SHOWN_IDS} more" if total > SHOWN_IDS else ""
        out.say(f"{total} accepted transfers will be held, for nobody here knows whether they were delivered:")
        out.say(f"  {' '.join(ids[:SHOWN_IDS])}{more}")
    return total
