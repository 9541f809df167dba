"""`eft webhook`: who is told of what happens, and what could not be delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from eft.cli.amounts import shown_moment
from eft.cli.failure import EXIT_CODES, ExitCode, examples, usage
from eft.cli.session import JsonFlag, YesFlag, begin, confirm

if TYPE_CHECKING:
    from eft.cli.client import JsonObject
    from eft.cli.output import Output

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Addresses of yours that are told of transfers and flows by signed requests (docs/events.md).",
    epilog=EXIT_CODES,
)

Reference = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Id or name.")]
KEEP: Final = "Keep the secret now: it is not shown again."


@app.command(
    "add",
    epilog=examples(
        "eft webhook add orders https://hooks.acme.example/eft --event transfer.delivered --event transfer.failed",
        "eft webhook add everything https://hooks.acme.example/eft --json | jq -r .secret",
    ),
)
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What you call it.")],
    url: Annotated[str, typer.Argument(metavar="URL", help="An https:// address of the public internet.")],
    *,
    event: Annotated[list[str] | None, typer.Option("--event", help="Of which events; repeatable. [default: all]", metavar="TYPE")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Add a webhook and print its secret, this once. It hears of what happens from now on."""
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    body: dict[str, object] = {"name": name, "url": url}
    if event:
        body["events"] = event
    made = api.post(path("webhooks"), body).body
    out.document(made)
    out.say(f"Webhook {made['name']} is added: {made['id']}")
    _secret(out, made)


@app.command("list")
def list_webhooks(ctx: typer.Context, *, as_json: JsonFlag = False) -> None:
    """List the webhooks."""
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    page = api.listing(path("webhooks"))
    out.document(page)
    rows = [(one["id"], one["name"], one["url"], ", ".join(one["events"])) for one in page["items"]]
    out.table(("ID", "NAME", "URL", "EVENTS"), rows, empty="No webhooks yet: eft webhook add --help")


@app.command("show")
def show(ctx: typer.Context, webhook: Reference, *, as_json: JsonFlag = False) -> None:
    """Show one webhook, without its secret."""
    api, out = begin(ctx, as_json=as_json)
    found = api.find("webhooks", webhook).body
    out.document(found)
    out.pairs(
        [
            ("id", found["id"]),
            ("name", found["name"]),
            ("url", found["url"]),
            ("events", ", ".join(found["events"])),
            ("rotated", None if found["rotated_at"] is None else shown_moment(found["rotated_at"])),
            ("revision", found["revision"]),
            ("created", shown_moment(found["created"])),
        ]
    )


@app.command("remove", epilog=examples("eft webhook remove orders --yes"))
def remove(ctx: typer.Context, webhook: Reference, *, yes: YesFlag = False, as_json: JsonFlag = False) -> None:
    """Remove a webhook, its secret, and what still waits to be delivered to it."""
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    found = api.find("webhooks", webhook)
    confirm(ctx, f"Remove the webhook {found.body['name']} ({found.body['id']})?", yes=yes)
    api.change("DELETE", path("webhooks", found.body["id"]), etag=found.etag)
    out.document({"removed": found.body["id"]})
    out.say(f"Webhook {found.body['id']} is removed.")


@app.command("test", epilog=examples("eft webhook test orders && echo it hears us"))
def try_out(ctx: typer.Context, webhook: Reference, *, as_json: JsonFlag = False) -> None:
    """Send an event `webhook.test` now, and say what the receiver answered; exit code 1 if it did not take it."""
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    found = api.find("webhooks", webhook).body
    told = api.post(path("webhooks", found["id"], "test")).body
    out.document(told)
    if not told["delivered"]:
        out.say(f"Not delivered after {told['milliseconds']} ms: {told['error']} ({told['reason']})")
        raise typer.Exit(ExitCode.NEGATIVE)
    out.say(f"Delivered in {told['milliseconds']} ms: the receiver answered {told['status']}.")


@app.command("rotate", epilog=examples("eft webhook rotate orders --json | jq -r .secret"))
def rotate(ctx: typer.Context, webhook: Reference, *, as_json: JsonFlag = False) -> None:
    """Make another secret and print it, this once. For a day events are signed with the former one, too."""
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    found = api.find("webhooks", webhook)
    made = api.change("POST", path("webhooks", found.body["id"], "rotate"), etag=found.etag).body
    out.document(made)
    out.say(f"Webhook {made['name']} has a new secret; the former one signs, too, for a day.")
    _secret(out, made)


@app.command(
    "deliveries",
    epilog=examples(
        "eft webhook deliveries orders --state dead",
        "eft webhook deliveries orders --json | jq -r '.items[] | [.id, .error] | @tsv'",
    ),
)
def deliveries(
    ctx: typer.Context,
    webhook: Reference,
    *,
    state: Annotated[str | None, typer.Option("--state", help="Only those that are `waiting`, or `dead`.", metavar="STATE")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="At most so many; else all.", min=1)] = None,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Go on where a list with --limit ended.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List what the receiver did not take at once: waiting for the next try, or given up."""
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    found = api.find("webhooks", webhook).body
    page = api.listing(path("webhooks", found["id"], "deliveries"), limit=limit, cursor=cursor, state=state)
    out.document(page)
    rows = [
        (
            one["id"],
            one["event"]["type"],
            one["state"],
            one["tries"],
            "–" if one["next_try"] is None else shown_moment(one["next_try"]),
            one["error"],
        )
        for one in page["items"]
    ]
    out.table(("ID", "EVENT", "STATE", "TRIES", "NEXT TRY", "ERROR"), rows, empty="Nothing waits, and nothing was given up.")
    out.more(page["next_cursor"])


@app.command(
    "resend",
    epilog=examples(
        "eft webhook resend orders 07aa…-delivered",
        "eft webhook resend orders --dead",
    ),
)
def resend(
    ctx: typer.Context,
    webhook: Reference,
    delivery: Annotated[str | None, typer.Argument(metavar="[DELIVERY]", help="Its id.")] = None,
    *,
    dead: Annotated[bool, typer.Option("--dead", help="All dead letters.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Send a delivery again within seconds, with all its tries anew; or all dead letters."""
    if (delivery is None) is not dead:
        raise usage("Say what to send again", advice="Give the id of a delivery, or --dead for all dead letters.")
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    found = api.find("webhooks", webhook).body
    if delivery is not None:
        again = api.post(path("webhooks", found["id"], "deliveries", delivery, "resend")).body
        out.document(again)
        out.say(f"Delivery {again['id']} is sent again.")
        return
    resent, cursor = 0, None
    while True:
        page = api.post(path("webhooks", found["id"], "deliveries", "resend"), {} if cursor is None else {"cursor": cursor}).body
        resent, cursor = resent + page["resent"], page["next_cursor"]
        if cursor is None:
            break
    out.document({"resent": resent})
    out.say(f"{resent} dead letters are sent again.")


def _secret(out: Output, made: JsonObject) -> None:
    out.say(f"Secret: {made['secret']}")
    out.note(KEEP)
