"""`eft flow`: standing orders."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from eft.cli import policy, selecting, trigger
from eft.cli.amounts import parse_duration, shown_duration, shown_moment, shown_size
from eft.cli.failure import EXIT_CODES, examples, usage
from eft.cli.output import Output
from eft.cli.session import JsonFlag, YesFlag, begin, confirm, session_of, warn_of_namesakes

if TYPE_CHECKING:
    from eft.cli.client import JsonObject

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Standing orders: which files go from where to where, and when.", epilog=EXIT_CODES
)

_OUTLOOKS = {"move": "would move", "wait": "wait", "refuse": "cannot be moved", "known": "known", "skip": "skipped"}
Reference = Annotated[str, typer.Argument(metavar="FLOW", help="Id or name.")]


def _place_help(which: str) -> str:
    return f"{which} endpoint (id or name), and optionally a directory below its root."


@app.command(
    "add",
    epilog=examples(
        "eft flow add invoices --from acme-in:outbox --to archive:invoices --glob '*.csv' --every 5m --dispose delete",
        "eft flow add nightly --from archive --to partner:/in --recursive --cron '30 2 * * *' --timezone Europe/Berlin --holidays DE-BY",
        "eft flow add orders --from shop-bucket:orders --to partner:/in --on-arrival",
        "eft flow add slow --from acme-in --to archive --every 1m --exclude '*.tmp' --looks 3 --expect-by '0 6 * * 1-5'",
        "eft flow add dated --from acme-in --to archive --name '{date:%Y/%m/%d}/{name}' --conflict rename",
    ),
)
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What you call it.")],
    *,
    source: Annotated[str, typer.Option("--from", help=_place_help("Source"), metavar="ENDPOINT[:DIRECTORY]")],
    destination: Annotated[str, typer.Option("--to", help=_place_help("Destination"), metavar="ENDPOINT[:DIRECTORY]")],
    glob: selecting.Glob = None,
    regex: selecting.Regex = None,
    exclude: selecting.Exclude = None,
    recursive: selecting.Recursive = False,
    max_depth: selecting.MaxDepth = None,
    min_size: selecting.MinSize = None,
    max_size: selecting.MaxSize = None,
    min_age: selecting.MinAge = None,
    max_age: selecting.MaxAge = None,
    forget_after: selecting.ForgetAfter = None,
    looks: selecting.Looks = None,
    looks_apart: selecting.LooksApart = None,
    done_marker: selecting.DoneMarker = None,
    every: trigger.Every = None,
    cron: trigger.CronOption = None,
    at: trigger.At = None,
    on_arrival: trigger.OnArrival = False,
    listed_every: trigger.ListedEvery = None,
    timezone: trigger.Timezone = None,
    workdays: trigger.Workdays = False,
    holidays: trigger.Holidays = None,
    closed: trigger.Closed = None,
    blackout: trigger.Blackouts = None,
    misfire: trigger.Misfire = None,
    jitter: trigger.Jitter = None,
    expect_by: trigger.ExpectBy = None,
    expect_files: trigger.ExpectFiles = None,
    expect_within: trigger.ExpectWithin = None,
    warn_before: trigger.WarnBefore = None,
    name_template: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="Destination name, of {path} {name} {stem} {suffix} {directory} {date:%Y-%m-%d} {flow} {transfer}. [default: {path}]",
            metavar="TEMPLATE",
        ),
    ] = None,
    conflict: policy.Conflict = None,
    dispose: policy.Dispose = None,
    archive_to: policy.ArchiveTo = None,
    create_directories: policy.CreateDirectories = None,
    checksum: policy.Checksum = None,
    sidecar: policy.Sidecar = False,
    staging: policy.Staging = None,
    receiver_removes: policy.ReceiverRemoves = False,
    priority: policy.Priority = None,
    tries: policy.Tries = None,
    paused: Annotated[bool, typer.Option("--paused", help="Add it paused.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Add a flow. Without --every, --cron, --at or --on-arrival it runs when somebody asks: `eft flow run`."""
    schedule = trigger.schedule_of(workdays=workdays, holidays=holidays, closed=closed, blackouts=blackout, misfire=misfire, jitter=jitter)
    expected = trigger.expected_of(
        by=expect_by,
        files=expect_files,
        within=expect_within,
        warn_before=warn_before,
        timezone=timezone,
        calendar=schedule.get("calendar"),
    )
    if timezone is not None and every is None and cron is None and at is None and expected is None:
        raise usage("--timezone goes with --cron, --every, --at or --expect-by")
    triggered = trigger.trigger_of(
        every=every, cron=cron, at=at, on_arrival=on_arrival, listed_every=listed_every, timezone=timezone, schedule=schedule
    )
    taken = policy.policy_of(
        conflict=conflict,
        dispose=dispose,
        archive_to=archive_to,
        create_directories=create_directories,
        checksum=checksum,
        sidecar=sidecar,
        staging=staging,
        receiver_removes=receiver_removes,
        priority=priority,
        tries=tries,
        name_template=name_template,
    )
    from_endpoint, directory = policy.place(source, option="--from")
    to_endpoint, to_directory = policy.place(destination, option="--to")
    from eft.cli.client import new_key, path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    selection = selecting.selection_of(
        directory=directory,
        glob=glob,
        regex=regex,
        exclude=exclude,
        recursive=recursive,
        max_depth=max_depth,
        sizes=(min_size, max_size),
        ages=(min_age, max_age, forget_after),
        looks=looks,
        looks_apart=looks_apart,
        done_marker=done_marker,
    )
    body = {
        "name": name,
        "source": api.find("endpoints", from_endpoint).body["id"],
        "destination": api.find("endpoints", to_endpoint).body["id"],
        "destination_directory": to_directory,
        "selection": selection,
        "policy": taken,
        "trigger": triggered,
        "expected": expected,
        "enabled": not paused,
    }
    flow = api.post(path("flows"), body, key=new_key()).body
    out.document(flow)
    out.say(f"Flow {flow['name']} is added: {flow['id']} ({trigger.when(flow)})")
    for warning in flow["warnings"]:
        out.say(f"Warning: {warning}.")
    warn_of_namesakes(api, out, "flows", str(flow["name"]))


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
            help="With --watch: end when no new file has come for so long. [default: 15s]",
            metavar="DURATION",
        ),
    ] = None,
    timeout: Annotated[
        timedelta | None, typer.Option("--timeout", parser=parse_duration, help="With --watch: give up after so long.", metavar="DURATION")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a flow now, rather than at its next fire."""
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
    watching = RunWatch(api, coming, flow=found["id"], fire=fired["fire"])
    follow(session_of(ctx), out, watching, timeout=timeout, quiet=quiet or timedelta(seconds=15))
    fire = watching.outcome()
    if coming.empty and fire is not None:
        out.say(f"The run: {_outcome(fire)}. Why: eft flow plan {found['id']}")


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
    rows = [
        (item["id"], item["name"], _from(item), _to(item), trigger.when(item), "on" if item["enabled"] else "paused")
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
    _show(out, found)


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
    rows += [(shown_moment(fire["at"]), fire["kind"], _outcome(fire)) for fire in fires["latest"]]
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
    begin_at: Annotated[str, typer.Option("--from", help="Files modified from then on …", metavar="TIME")],
    end_at: Annotated[str, typer.Option("--until", help="… and before this time.", metavar="TIME")],
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


def _outcome(fire: JsonObject) -> str:
    if not fire["ended"]:
        return "under way"
    if fire["error"]:
        return f"failed ({fire['reason']}): {fire['error']}"
    return ", ".join(f"{count} {what}" for what, count in fire["files"].items() if count) or "none"


def _expected(flow: JsonObject) -> str:
    expected = flow["expected"]
    if expected is None:
        return ""
    warned = f", warned {shown_duration(expected['warn_before'])} before" if expected["warn_before"] else ""
    within = shown_duration(expected["within"])
    return f"{expected['files']} by cron {expected['by']} {expected['timezone']}, come within {within}{warned}"


def _switch(ctx: typer.Context, flow: str, verb: str, *, as_json: bool) -> None:
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    found = api.find("flows", flow)
    changed = api.post(path("flows", found.body["id"], verb)).body
    out.document(changed)
    out.say(f"Flow {changed['name']} is {'on' if changed['enabled'] else 'paused'}.")


def _from(flow: JsonObject) -> str:
    selection = flow["selection"]
    pattern = selection["glob"] or selection["regex"] or "*"
    return f"{flow['source']}:{selection['directory']}/{'**/' if selection['recursive'] else ''}{pattern}"


def _to(flow: JsonObject) -> str:
    return f"{flow['destination']}:{flow['destination_directory']}"


def _show(out: Output, flow: JsonObject) -> None:
    selection = flow["selection"]
    stability = selection["stability"]
    bounds = [
        f"at least {shown_size(selection['min_size'])}" if selection["min_size"] else None,
        f"at most {shown_size(selection['max_size'])}" if selection["max_size"] is not None else None,
        f"not younger than {shown_duration(selection['min_age'])}" if shown_duration(selection["min_age"]) != "0s" else None,
        f"not older than {shown_duration(selection['max_age'])}" if selection["max_age"] else None,
        f"forgotten after {shown_duration(selection['forget_after'])}" if selection["forget_after"] else None,
        f"not {' '.join(selection['exclude'])}" if selection["exclude"] else None,
        f"not deeper than {selection['max_depth']}" if selection["max_depth"] else None,
        f"seen unchanged {stability['looks']} times, {shown_duration(stability['apart'])} apart" if stability["looks"] > 1 else None,
        f"with {stability['done_marker']} beside it" if stability["done_marker"] else None,
    ]
    retry = flow["policy"]["retry"]
    out.pairs(
        [
            ("id", flow["id"]),
            ("name", flow["name"]),
            ("state", "on" if flow["enabled"] else "paused"),
            ("when", trigger.when(flow)),
            ("schedule", trigger.schedule_words(flow)),
            ("expected", _expected(flow)),
            ("from", _from(flow)),
            ("to", _to(flow)),
            ("bounds", ", ".join(bound for bound in bounds if bound)),
            *((name, value) for name, value in flow["policy"].items() if name != "retry"),
            ("retry", f"{retry['tries']} tries, pausing {shown_duration(retry['first'])} to {shown_duration(retry['longest'])}"),
            ("revision", flow["revision"]),
            ("created", shown_moment(flow["created"])),
        ]
    )
