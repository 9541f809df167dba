"""`eft flow`: standing orders."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from eft.cli import flow_add, trigger
from eft.cli.amounts import parse_duration, parse_moment, shown_moment, shown_size
from eft.cli.failure import EXIT_CODES, examples, usage
from eft.cli.flow_words import from_words, outcome, show_flow, to_words
from eft.cli.session import JsonFlag, YesFlag, begin, confirm, endpoint_names, session_of

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Standing orders: which files go from where to where, and when.", epilog=EXIT_CODES
)

_OUTLOOKS = {"move": "would move", "wait": "wait", "refuse": "cannot be moved", "known": "known", "skip": "skipped"}
Reference = Annotated[str, typer.Argument(metavar="FLOW", help="Id or name.")]


app.command("add", epilog=flow_add.EXAMPLES)(flow_add.add)


@app.command(
    "run",
    epilog=examples(
        "eft flow run invoices",
        "eft flow run invoices --watch --timeout 10m",
    ),
)
def run(
    ctx: typer.Context,
    flow: Reference,
    *,
    watch: Annotated[
        bool,
        typer.Option("--watch", "-w", help="Follow its transfers until they rest; exit code 1 if it fails or one did not settle."),
    ] = False,
    quiet: Annotated[
        timedelta | None,
        typer.Option(
            "--quiet-for",
            parser=parse_duration,
            help="With --watch: end, too, when no new file has come for so long, though the run goes on.",
            metavar="DURATION",
        ),
    ] = None,
    timeout: Annotated[
        timedelta | None, typer.Option("--timeout", parser=parse_duration, help="With --watch: give up after so long.", metavar="DURATION")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a flow now, rather than at its next fire."""
    if not watch and (quiet is not None or timeout is not None):
        raise usage("--quiet-for and --timeout go with --watch", advice="Add --watch.")
    from eft.cli.client import new_key, path  # noqa: PLC0415 - loads httpx
    from eft.cli.watch import FlowWatch, RunWatch, follow  # noqa: PLC0415 - as above

    api, out = begin(ctx, as_json=as_json)
    found = api.find("flows", flow).body
    coming = FlowWatch.begin(api, found["id"], moving=False) if watch else None
    fired = api.post(path("flows", found["id"], "run"), key=new_key()).body
    if coming is None:
        out.document(fired)
        out.say(f"Flow {found['name']} runs: {fired['fire']}. Follow it: eft transfer watch --flow {found['id']}")
        return
    session = session_of(ctx)
    watching = RunWatch(api, coming, flow=found["id"], fire=fired["fire"], quiet=quiet, monotonic=session.monotonic)
    follow(session, out, watching, timeout=timeout)
    watching.conclude()
    if not watching.ended:
        out.say(f"The run may go on, and find more: eft flow next {found['id']}")
    elif watching.fire is not None and not watching.seen:
        out.say(f"The run: {outcome(watching.fire)}. Why: eft flow plan {found['id']}")


@app.command(
    "list",
    epilog=examples(
        "eft flow list --json | jq -r '.items[] | select(.enabled | not) | .name'",
    ),
)
def list_flows(
    ctx: typer.Context,
    *,
    limit: Annotated[int | None, typer.Option("--limit", help="At most so many; else all.", min=1)] = None,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Go on where a list with --limit ended.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the flows."""
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    page = api.listing(path("flows"), limit=limit, cursor=cursor)
    out.document(page)
    names = endpoint_names(api) if page["items"] and not as_json else {}
    rows = [
        (
            item["id"],
            item["name"],
            from_words(item, names),
            to_words(item, names),
            trigger.when(item),
            "on" if item["enabled"] else "paused",
        )
        for item in page["items"]
    ]
    out.table(("ID", "NAME", "FROM", "TO", "WHEN", "STATE"), rows, empty="No flows yet: eft flow add --help")
    out.more(page["next_cursor"])


@app.command("show")
def show(ctx: typer.Context, flow: Reference, *, as_json: JsonFlag = False) -> None:
    """Show one flow with its selection and policy."""
    api, out = begin(ctx, as_json=as_json)
    found = api.find("flows", flow).body
    out.document(found)
    if not as_json:
        show_flow(out, found, names=endpoint_names(api))


@app.command(
    "plan",
    epilog=examples(
        "eft flow plan invoices",
        "eft flow plan invoices --json | jq -r '.items[] | select(.outlook == \"wait\") | .path'",
    ),
)
def plan(
    ctx: typer.Context,
    flow: Reference,
    *,
    limit: Annotated[int, typer.Option("--limit", help="Show at most so many files.", min=1, max=1000)] = 100,
    as_json: JsonFlag = False,
) -> None:
    """Say for each file what a run would do now, and why. Nothing is moved or changed."""
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    found = api.find("flows", flow).body
    made = api.post(f"{path('flows', found['id'], 'plan')}?limit={limit}").body
    out.document(made)
    rows = [(item["path"], shown_size(item["size"]), shown_moment(item["modified"]), item["why"]) for item in made["items"]]
    out.table(("FILE", "SIZE", "MODIFIED", "WHAT WOULD HAPPEN"), rows, empty="The source shows no file.")
    if made["destination_trouble"]:
        out.say(f"The destination could not be looked at: {made['destination_trouble']}")
    counted = ", ".join(f"{count} {_OUTLOOKS[outlook]}" for outlook, count in made["counts"].items())
    out.say(f"{counted or 'Nothing'}{'.' if made['complete'] else '; the listing goes on, this is its beginning.'}")


@app.command(
    "next",
    epilog=examples(
        "eft flow next invoices --count 10",
    ),
)
def next_fires(
    ctx: typer.Context,
    flow: Reference,
    *,
    count: Annotated[int, typer.Option("--count", "-n", help="So many of each.", min=1, max=100)] = 5,
    as_json: JsonFlag = False,
) -> None:
    """Show when a flow runs next, and what came of its latest runs."""
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    found = api.find("flows", flow).body
    fires = api.get(path("flows", found["id"], "fires"), limit=count).body
    out.document(fires)
    rows = [(shown_moment(at), "to come", "") for at in fires["coming"]]
    rows += [(shown_moment(fire["at"]), fire["kind"], outcome(fire)) for fire in fires["latest"]]
    nothing = "runs by no schedule" if found["enabled"] else "is paused"
    out.table(("TIME", "FIRE", "FILES"), rows, empty=f"Flow {found['name']} {nothing}, and never ran.")


@app.command(
    "backfill",
    epilog=examples(
        "eft flow backfill invoices --from 2025-01-01T00:00:00Z --until 2025-01-08T00:00:00Z",
    ),
)
def backfill(
    ctx: typer.Context,
    flow: Reference,
    *,
    begin_at: Annotated[str, typer.Option("--from", parser=parse_moment, help="Files modified from then on …", metavar="TIME")],
    end_at: Annotated[str, typer.Option("--until", parser=parse_moment, help="… and before this time.", metavar="TIME")],
    as_json: JsonFlag = False,
) -> None:
    """Run a flow now for files of a time in the past, whatever their age. What was moved before is not moved again."""
    from eft.cli.client import new_key, path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    found = api.find("flows", flow).body
    fired = api.post(path("flows", found["id"], "backfill"), {"modified_from": begin_at, "modified_until": end_at}, key=new_key()).body
    out.document(fired)
    out.say(f"Flow {found['name']} runs: {fired['fire']}. Follow it: eft transfer watch --flow {found['id']}")


@app.command("pause")
def pause(ctx: typer.Context, flow: Reference, *, as_json: JsonFlag = False) -> None:
    """Pause a flow: it fires no more until it is resumed. Transfers under way go on."""
    _switch(ctx, flow, "pause", as_json=as_json)


@app.command("resume")
def resume(ctx: typer.Context, flow: Reference, *, as_json: JsonFlag = False) -> None:
    """Resume a paused flow."""
    _switch(ctx, flow, "resume", as_json=as_json)


@app.command(
    "remove",
    epilog=examples(
        "eft flow remove invoices --yes",
    ),
)
def remove(ctx: typer.Context, flow: Reference, *, yes: YesFlag = False, as_json: JsonFlag = False) -> None:
    """Remove a flow. Its transfers stay, and those under way go on."""
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    found = api.find("flows", flow)
    confirm(ctx, f"Remove the flow {found.body['name']} ({found.body['id']})?", yes=yes)
    api.change("DELETE", path("flows", found.body["id"]), etag=found.etag)
    out.document({"removed": found.body["id"]})
    out.say(f"Flow {found.body['id']} is removed.")


def _switch(ctx: typer.Context, flow: str, verb: str, *, as_json: bool) -> None:
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    found = api.find("flows", flow)
    changed = api.post(path("flows", found.body["id"], verb)).body
    out.document(changed)
    out.say(f"Flow {changed['name']} is {'on' if changed['enabled'] else 'paused'}.")
