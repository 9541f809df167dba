"""`eft flow`: standing orders."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from eft.cli import policy
from eft.cli.amounts import iso, parse_duration, parse_size, shown_duration, shown_moment, shown_size
from eft.cli.failure import EXIT_CODES, examples, usage
from eft.cli.output import Output
from eft.cli.session import JsonFlag, YesFlag, begin, confirm, session_of

if TYPE_CHECKING:
    from eft.cli.client import JsonObject

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Standing orders: which files go from where to where, and when.", epilog=EXIT_CODES
)

Reference = Annotated[str, typer.Argument(metavar="FLOW", help="Id or name.")]


def _place_help(which: str) -> str:
    return f"{which} endpoint (id or name), and optionally a directory below its root."


@app.command(
    "add",
    epilog=examples(
        "eft flow add invoices --from acme-in:outbox --to archive:invoices --glob '*.csv' --every 5m --dispose delete",
        "eft flow add nightly --from archive --to partner:/in --recursive --cron '30 2 * * 1-5' --timezone Europe/Berlin",
        "eft flow add dated --from acme-in --to archive --name '{date:%Y/%m/%d}/{name}' --conflict rename",
    ),
)
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What you call it.")],
    *,
    source: Annotated[str, typer.Option("--from", help=_place_help("Source"), metavar="ENDPOINT[:DIRECTORY]")],
    destination: Annotated[str, typer.Option("--to", help=_place_help("Destination"), metavar="ENDPOINT[:DIRECTORY]")],
    glob: Annotated[str | None, typer.Option("--glob", help="Only these names, such as '*.csv'.", metavar="PATTERN")] = None,
    regex: Annotated[str | None, typer.Option("--regex", help="Only paths that this matches whole.", metavar="PATTERN")] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Directories below, too.")] = False,
    min_size: Annotated[
        int | None, typer.Option("--min-size", parser=parse_size, help="Smaller files stay, such as 1 or 10KiB.", metavar="SIZE")
    ] = None,
    max_size: Annotated[int | None, typer.Option("--max-size", parser=parse_size, help="Larger files stay.", metavar="SIZE")] = None,
    min_age: Annotated[
        timedelta | None,
        typer.Option("--min-age", parser=parse_duration, help="Files changed since stay, such as 30s or 5m.", metavar="DURATION"),
    ] = None,
    max_age: Annotated[
        timedelta | None, typer.Option("--max-age", parser=parse_duration, help="Files older than this stay.", metavar="DURATION")
    ] = None,
    every: Annotated[
        timedelta | None, typer.Option("--every", parser=parse_duration, help="Run this often, such as 90s, 5m, 1d.", metavar="DURATION")
    ] = None,
    cron: Annotated[str | None, typer.Option("--cron", help="Run by a five-field cron expression.", metavar="EXPRESSION")] = None,
    timezone: Annotated[str | None, typer.Option("--timezone", help="Time zone of --cron. [default: UTC]", metavar="ZONE")] = None,
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
    """Add a flow. Without --every or --cron it runs when somebody asks: `eft flow run`."""
    trigger = _trigger(every=every, cron=cron, timezone=timezone)
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
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    selection: dict[str, object] = {
        "directory": directory or None,
        "glob": glob,
        "regex": regex,
        "recursive": recursive or None,
        "min_size": min_size,
        "max_size": max_size,
        "min_age": None if min_age is None else iso(min_age),
        "max_age": None if max_age is None else iso(max_age),
    }
    body = {
        "name": name,
        "source": api.find("endpoints", from_endpoint).body["id"],
        "destination": api.find("endpoints", to_endpoint).body["id"],
        "destination_directory": to_directory,
        "selection": {field: value for field, value in selection.items() if value is not None},
        "policy": taken,
        "trigger": trigger,
        "enabled": not paused,
    }
    flow = api.post(path("flows"), body).body
    out.document(flow)
    out.say(f"Flow {flow['name']} is added: {flow['id']} ({when(flow)})")


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
        bool, typer.Option("--watch", "-w", help="Follow its transfers until they rest; exit code 1 if one did not settle.")
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
    from eft.cli.watch import FlowWatch, follow  # noqa: PLC0415 - as above

    api, out = begin(ctx, as_json=as_json)
    found = api.find("flows", flow).body
    watching = FlowWatch.begin(api, found["id"], moving=False) if watch else None
    fired = api.post(path("flows", found["id"], "run"), key=new_key()).body
    if watching is None:
        out.document(fired)
        out.say(f"Flow {found['name']} runs: {fired['fire']}. Follow it: eft transfer watch --flow {found['id']}")
        return
    follow(session_of(ctx), out, watching, timeout=timeout, quiet=quiet or timedelta(seconds=15))


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
    rows = [(item["id"], item["name"], _from(item), _to(item), when(item), "on" if item["enabled"] else "paused") for item in page["items"]]
    out.table(("ID", "NAME", "FROM", "TO", "WHEN", "STATE"), rows, empty="No flows yet: eft flow add --help")
    out.more(page["next_cursor"])


@app.command("show")
def show(ctx: typer.Context, flow: Reference, *, as_json: JsonFlag = False) -> None:
    """Show one flow with its selection and policy."""
    api, out = begin(ctx, as_json=as_json)
    found = api.find("flows", flow).body
    out.document(found)
    _show(out, found)


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


def when(flow: JsonObject) -> str:
    """Returns a flow's trigger in words."""
    trigger = flow["trigger"]
    match trigger["kind"]:
        case "interval":
            return f"every {shown_duration(trigger['every'])}"
        case "cron":
            return f"cron {trigger['cron']} {trigger['timezone']}"
        case "arrival":
            return f"on arrival, and every {shown_duration(trigger['listed_every'])}"
        case _:
            return "on request"


def _trigger(*, every: timedelta | None, cron: str | None, timezone: str | None) -> dict[str, object]:
    if every is not None and cron is not None:
        raise usage("A flow has one trigger", advice="Give --every or --cron, not both.")
    if timezone is not None and cron is None:
        raise usage("--timezone goes with --cron")
    if every is not None:
        return {"kind": "interval", "every": iso(every)}
    if cron is not None:
        return {"kind": "cron", "cron": cron, "timezone": timezone or "UTC"}
    return {"kind": "manual"}


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
    bounds = [
        f"at least {shown_size(selection['min_size'])}" if selection["min_size"] else None,
        f"at most {shown_size(selection['max_size'])}" if selection["max_size"] is not None else None,
        f"not younger than {shown_duration(selection['min_age'])}" if shown_duration(selection["min_age"]) != "0s" else None,
        f"not older than {shown_duration(selection['max_age'])}" if selection["max_age"] else None,
    ]
    retry = flow["policy"]["retry"]
    out.pairs(
        [
            ("id", flow["id"]),
            ("name", flow["name"]),
            ("state", "on" if flow["enabled"] else "paused"),
            ("when", when(flow)),
            ("from", _from(flow)),
            ("to", _to(flow)),
            ("bounds", ", ".join(bound for bound in bounds if bound)),
            *((name, value) for name, value in flow["policy"].items() if name != "retry"),
            ("retry", f"{retry['tries']} tries, pausing {shown_duration(retry['first'])} to {shown_duration(retry['longest'])}"),
            ("revision", flow["revision"]),
            ("created", shown_moment(flow["created"])),
        ]
    )
