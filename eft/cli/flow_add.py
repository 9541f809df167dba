"""`eft flow add`: a standing order with all that it says. What is not given is the API's default."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from eft.cli import policy, selecting, trigger
from eft.cli.failure import examples, usage
from eft.cli.session import JsonFlag, begin, warn_of_namesakes

EXAMPLES: Final = examples(
    "eft flow add invoices --from acme-in:outbox --to archive:invoices --glob '*.csv' --every 5m --dispose delete",
    "eft flow add nightly --from archive --to partner:/in --recursive --cron '30 2 * * *' --timezone Europe/Berlin --holidays DE-BY",
    "eft flow add orders --from shop-bucket:orders --to partner:/in --on-arrival",
    "eft flow add slow --from acme-in --to archive --every 1m --exclude '*.tmp' --looks 3 --expect-by '0 6 * * 1-5'",
    "eft flow add dated --from acme-in --to archive --name '{date:%Y/%m/%d}/{name}' --conflict rename",
)


def _place_help(which: str) -> str:
    return f"{which} endpoint (id or name), and optionally a directory below its root."


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
    receiver_keeps: policy.ReceiverKeeps = False,
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
        receiver_keeps=receiver_keeps,
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
