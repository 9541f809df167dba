"""`eft transfer`: single files on their way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from eft.cli import policy
from eft.cli.amounts import parse_duration, shown_moment, shown_size
from eft.cli.failure import EXIT_CODES, ExitCode, Failure, examples, usage
from eft.cli.output import Output
from eft.cli.session import JsonFlag, YesFlag, begin, confirm, endpoint_names, session_of

if TYPE_CHECKING:
    from eft.cli.client import Api, JsonObject

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Files on their way: submit, follow, re-drive, cancel.", epilog=EXIT_CODES
)

LONGEST_KEY: Final = 255
LISTED: Final = 50
StateName = Literal["accepted", "staging", "staged", "delivering", "committing", "delivered", "settled", "held", "dead", "cancelled"]
Ids = Annotated[list[str] | None, typer.Argument(metavar="TRANSFER", help="Ids.")]
FlowFilter = Annotated[str | None, typer.Option("--flow", help="Only those of this flow (id or name).", metavar="FLOW")]
Timeout = Annotated[
    timedelta | None,
    typer.Option(
        "--timeout", parser=parse_duration, help="Give up watching after so long (exit code 1); the transfer goes on.", metavar="DURATION"
    ),
]


@app.command(
    "submit",
    epilog=examples(
        "eft transfer submit --from acme-in:outbox/a.csv --to archive:invoices/",
        "eft transfer submit --from acme-in:big.bin --to partner:/in/big.bin --conflict overwrite --watch --timeout 1h",
        'eft transfer submit --from acme-in:a.csv --to archive --key "$JOB" --json | jq -r .id',
    ),
)
def submit(
    ctx: typer.Context,
    *,
    source: Annotated[
        str, typer.Option("--from", help="The file: endpoint (id or name) and path below its root.", metavar="ENDPOINT:PATH")
    ],
    destination: Annotated[
        str, typer.Option("--to", help="Where it goes; a path that is empty or ends in / keeps the file's name.", metavar="ENDPOINT[:PATH]")
    ],
    sha256: Annotated[
        str | None, typer.Option("--sha256", help="What the file must be; anything else is not delivered.", metavar="HEX")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", help="Idempotency-Key: submitting again with the same key is the same transfer. [default: a new one]", metavar="KEY"
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
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow it until it rests; exit code 1 if it did not settle.")] = False,
    timeout: Timeout = None,
    as_json: JsonFlag = False,
) -> None:
    """Move one file, once. Accepted is durable: from then on it settles, or rests with its reason."""
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
    )
    from_endpoint, from_path = policy.place(source, option="--from")
    to_endpoint, to_path = policy.place(destination, option="--to")
    if key is not None and not (0 < len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()):
        raise usage(f"--key '{key}' is no Idempotency-Key", advice=f"Write 1 to {LONGEST_KEY} printable ASCII characters.")
    if timeout is not None and not watch:
        raise usage("--timeout goes with --watch", advice="Add --watch.")
    if not from_path or from_path.endswith("/"):
        raise usage(f"--from '{source}' names no file", advice="Write ENDPOINT:PATH; for all files of a directory, add a flow.")
    if not to_path or to_path.endswith("/"):
        to_path += from_path.rpartition("/")[2]
    from eft.cli.client import new_key, path  # noqa: PLC0415 - loads httpx
    from eft.cli.watch import IdWatch, follow  # noqa: PLC0415 - as above

    api, out = begin(ctx, as_json=as_json)
    body: dict[str, object] = {
        "source": {"endpoint": api.find("endpoints", from_endpoint).body["id"], "path": from_path},
        "destination": {"endpoint": api.find("endpoints", to_endpoint).body["id"], "path": to_path},
        "policy": taken,
    }
    if sha256 is not None:
        body["expected_sha256"] = sha256.lower()
    transfer = api.post(path("transfers"), body, key=key or new_key()).body
    out.say(f"Transfer {transfer['id']} is {transfer['state']}.")
    if watch:
        follow(session_of(ctx), out, IdWatch(api, [transfer["id"]]), timeout=timeout)
    else:
        out.document(transfer)


@app.command(
    "watch",
    epilog=examples(
        "eft transfer watch 3f0c… 77ab…",
        "eft transfer watch --flow invoices --timeout 30m",
    ),
)
def watch_transfers(
    ctx: typer.Context,
    transfers: Ids = None,
    *,
    flow: Annotated[
        str | None, typer.Option("--flow", help="All that move in this flow, and those that come meanwhile.", metavar="FLOW")
    ] = None,
    timeout: Timeout = None,
    as_json: JsonFlag = False,
) -> None:
    """Follow transfers until they rest: state, bytes, speed. Exit code 0 if all settled, 1 if one is held, dead or cancelled.

    With --json: one JSON document per line for each change. Ctrl-C stops the watching, not the transfer.
    """
    if bool(transfers) == (flow is not None):
        raise usage("Name transfers or a flow", advice="eft transfer watch ID …, or: eft transfer watch --flow FLOW")
    from eft.cli.watch import FlowWatch, IdWatch, follow  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    if flow is not None:
        follow(session_of(ctx), out, FlowWatch.begin(api, api.find("flows", flow).body["id"], moving=True), timeout=timeout)
    else:
        follow(session_of(ctx), out, IdWatch(api, transfers or ()), timeout=timeout)


@app.command(
    "list",
    epilog=examples(
        "eft transfer list --state held",
        "eft transfer list --flow invoices --all --json | jq '[.items[].size] | add'",
    ),
)
def list_transfers(
    ctx: typer.Context,
    *,
    state: Annotated[StateName | None, typer.Option("--state", help="Only those in this state.")] = None,
    flow: FlowFilter = None,
    limit: Annotated[int | None, typer.Option("--limit", help=f"At most so many. [default: {LISTED}]", min=1)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Go on where the list before ended.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List transfers, newest first."""
    if everything and limit is not None:
        raise usage("--limit and --all exclude each other", advice="Give one of them.")
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    found = None if flow is None else api.find("flows", flow).body["id"]
    page = api.listing(path("transfers"), limit=None if everything else limit or LISTED, cursor=cursor, state=state, flow=found)
    out.document(page)
    names = endpoint_names(api) if page["items"] and not as_json else {}
    rows = [
        (
            item["id"],
            item["state"],
            _at(item["source"], names),
            _at(item["destination"], names),
            shown_size(item["size"]),
            shown_moment(item["created"]),
            item["reason"],
        )
        for item in page["items"]
    ]
    columns = ("ID", "STATE", "FROM", "TO", "SIZE", "ACCEPTED (UTC)", "REASON")
    out.table(columns, rows, right=frozenset({"SIZE"}), empty="No transfers.")
    out.more(page["next_cursor"])
    if page["missing"] is not None:
        out.say(f"{page['missing']} does not answer: what is carried out there is not shown.", style="yellow")


@app.command("show")
def show(
    ctx: typer.Context, transfer: Annotated[str, typer.Argument(metavar="TRANSFER", help="Id.")], *, as_json: JsonFlag = False
) -> None:
    """Show one transfer with its progress, receipt and timeline."""
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    found = api.get(path("transfers", transfer)).body
    out.document(found)
    if not as_json:
        _show(out, found, names=endpoint_names(api))


@app.command(
    "redrive",
    epilog=examples(
        "eft transfer redrive 3f0c…",
        "eft transfer redrive --state dead --flow invoices --yes",
    ),
)
def redrive(
    ctx: typer.Context,
    transfers: Ids = None,
    *,
    state: Annotated[Literal["dead", "held"] | None, typer.Option("--state", help="All in this state.")] = None,
    flow: FlowFilter = None,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Send held or dead transfers round again, from the step that failed: named ones, or all by --state, --flow or both."""
    filtered = state is not None or flow is not None
    if bool(transfers) == filtered:
        raise usage("Name transfers, or a filter", advice="eft transfer redrive ID …, or: eft transfer redrive --state dead --flow FLOW")
    api, out = begin(ctx, as_json=as_json)
    if transfers:
        _each(api, out, transfers, verb="redrive", done="sent round again")
        return
    found = None if flow is None else api.find("flows", flow).body["id"]
    states = ("dead", "held") if state is None else (state,)
    confirm(ctx, f"Re-drive all {' and '.join(states)} transfers{f' of the flow {flow}' if flow else ''}?", yes=yes)
    answer = _by_filter(api, states=states, flow=found)
    out.document(answer)
    out.say(f"{answer['redriven']} of {answer['seen']} are sent round again.")
    _tell_refused(out, answer["refused"])


@app.command(
    "cancel",
    epilog=examples(
        "eft transfer cancel 3f0c…",
    ),
)
def cancel(
    ctx: typer.Context, transfers: Annotated[list[str], typer.Argument(metavar="TRANSFER", help="Ids.")], *, as_json: JsonFlag = False
) -> None:
    """Cancel transfers. Once one commits it is too late (exit code 5), and it says so."""
    api, out = begin(ctx, as_json=as_json)
    _each(api, out, transfers, verb="cancel", done="cancelled")


@app.command(
    "decide",
    epilog=examples(
        "eft transfer decide 3f0c… deliver --why 'the partner says nothing came'",
        "eft transfer decide 3f0c… accept --why 'the partner confirmed it by phone'",
    ),
)
def decide(
    ctx: typer.Context,
    transfer: Annotated[str, typer.Argument(metavar="TRANSFER", help="Id.")],
    decision: Annotated[
        Literal["deliver", "accept", "abandon"],
        typer.Argument(metavar="deliver|accept|abandon", help="Deliver it anyway, take it as delivered, or give it up."),
    ],
    *,
    why: Annotated[str, typer.Option("--why", help="Why; it stays on the transfer's timeline.", metavar="TEXT")],
    as_json: JsonFlag = False,
) -> None:
    """Decide a held transfer: what nobody but you can know. Where the file is found at its destination it is delivered all the same."""
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    decided = api.post(path("transfers", transfer, "decide"), {"decision": decision, "why": why}).body
    out.document(decided)
    out.say(f"{transfer} is {decided['state']} now ({decided['timeline'][-1]['reason']}).")


def _each(api: Api, out: Output, transfers: Sequence[str], *, verb: str, done: str) -> None:
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    changed: list[JsonObject] = []
    refused: list[JsonObject] = []
    first: Failure | None = None
    for transfer in transfers:
        try:
            changed.append(api.post(path("transfers", transfer, verb)).body)
        except Failure as failure:
            if len(transfers) == 1 or failure.code in {ExitCode.UNAUTHORISED, ExitCode.UNAVAILABLE}:
                raise
            first = first or failure
            refused.append({"id": transfer, "reason": str((failure.problem or {}).get("reason", "")), "message": str(failure)})
        else:
            out.say(f"{transfer} is {done}: {changed[-1]['state']}.")
    out.document({"items": changed, "refused": refused})
    if first is not None:
        _tell_refused(out, refused, code=first.code)


def _by_filter(api: Api, *, states: Sequence[str], flow: str | None) -> JsonObject:
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    total: JsonObject = {"seen": 0, "redriven": 0, "refused": []}
    for state in states:
        body: JsonObject = {"state": state}
        if flow is not None:
            body["flow"] = flow
        while True:
            answer = api.post(path("transfers", "redrive"), body).body
            total = {name: total[name] + answer[name] for name in total}
            if answer["next_cursor"] is None:
                break
            body["cursor"] = answer["next_cursor"]
    return total


def _tell_refused(out: Output, refused: Sequence[JsonObject], *, code: ExitCode = ExitCode.NEGATIVE) -> None:
    if refused:
        out.table(("REFUSED", "REASON", ""), [(item["id"], item["reason"], item["message"]) for item in refused], empty="")
        raise Failure(f"{len(refused)} refused", code=code)


def _at(place: JsonObject, names: Mapping[str, str]) -> str:
    return f"{names.get(place['endpoint'], place['endpoint'])}:{place['path']}"


def _show(out: Output, transfer: JsonObject, *, names: Mapping[str, str]) -> None:
    progress, receipt, policy_ = transfer["progress"], transfer["receipt"], transfer["policy"]
    come = f"{shown_size(progress['bytes_done'])} of {shown_size(progress['bytes_total'])}"
    parts = f", part {progress['parts_done']} of {progress['parts_total']}" if progress["parts_total"] else ""
    pairs: list[tuple[str, object]] = [
        ("id", transfer["id"]),
        ("state", transfer["state"]),
        ("since", shown_moment(transfer["since"])),
        ("flow", transfer["flow"]),
        ("from", _at(transfer["source"], names)),
        ("to", _at(transfer["destination"], names)),
        ("size", shown_size(transfer["size"])),
        ("policy", f"conflict {policy_['conflict']}, source {policy_['disposition']}, {policy_['priority']}"),
        ("attempts", f"{transfer['attempt']}, {transfer['tries']} failed tries of this step, {transfer['redrives']} re-drives"),
    ]
    if progress["into"]:
        pairs.append(("progress", f"{come} into {progress['into']}{parts}"))
    if transfer["reason"] or transfer["error"]:
        pairs += [("reason", transfer["reason"]), ("error", transfer["error"])]
    if transfer["held_from"]:
        pairs.append(("held from", transfer["held_from"]))
    if transfer["next_try"]:
        pairs.append(("next look", shown_moment(transfer["next_try"])))
    if receipt:
        pairs += [("delivered as", receipt["path"]), ("checksum", receipt["checksum"]), ("delivered at", shown_moment(receipt["at"]))]
    out.pairs(pairs)
    rows = [
        (
            shown_moment(event["at"]),
            event["state"],
            event["attempt"],
            shown_size(event["bytes"]),
            event["reason"],
            event["error"],
            event["by"],
        )
        for event in transfer["timeline"]
    ]
    out.table(("AT (UTC)", "STATE", "ATTEMPT", "BYTES", "REASON", "ERROR", "BY"), rows, right=frozenset({"ATTEMPT", "BYTES"}), empty="")
