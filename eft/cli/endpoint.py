"""`eft endpoint`: where files live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from eft.cli import endpoint_add, host_keys
from eft.cli.amounts import shown_moment
from eft.cli.bandwidth import windows_words
from eft.cli.credentials import (
    AccessKeyId,
    AskPassword,
    KeyFile,
    PassphraseFile,
    PassphraseStdin,
    PasswordFile,
    PasswordStdin,
    SecretFile,
    SecretStdin,
    s3_credential,
    ssh_credential,
)
from eft.cli.failure import EXIT_CODES, ExitCode, Failure, examples, usage
from eft.cli.host_keys import HostKeyOption, PinOption
from eft.cli.output import Output
from eft.cli.probing import TestFlag, conclude, end_with, probe, show_report
from eft.cli.session import JsonFlag, YesFlag, begin, confirm, session_of

if TYPE_CHECKING:
    from eft.cli.client import JsonObject

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Where files live: SFTP servers and S3 buckets.", epilog=EXIT_CODES)
app.add_typer(endpoint_add.app, name="add")

Reference = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Id or name.")]


@app.command(
    "test",
    epilog=examples(
        "eft endpoint test acme-in",
    ),
)
def try_out(ctx: typer.Context, endpoint: Reference, *, as_json: JsonFlag = False) -> None:
    """Connect, check the host key, log in, list; show what was seen. Exit code 1 when a check fails."""
    api, out = begin(ctx, as_json=as_json)
    found = api.find("endpoints", endpoint).body
    report = probe(api, out, found)
    out.document(report)
    show_report(out, report, endpoint=found)
    if host_keys.unpinned(found):
        out.say(f"It moves nothing until a key is pinned: eft endpoint pin {found['id']}")
    end_with(report)


@app.command(
    "pin",
    epilog=examples(
        "eft endpoint pin acme-in",
        "eft endpoint pin acme-in --pin SHA256:47DEQp…",
        'eft endpoint pin acme-in --replace --host-key "$(ssh-keyscan -t ed25519 sftp.acme.example)"',
    ),
)
def pin(
    ctx: typer.Context,
    endpoint: Reference,
    *,
    host_key: HostKeyOption = None,
    pins: PinOption = None,
    replace: Annotated[bool, typer.Option("--replace", help="Drop the keys pinned so far; else they stay beside the new ones.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Pin host keys that were confirmed out of band. Without options, the server's keys are shown and you are asked for each."""
    keys = [host_keys.parse_host_key(line) for line in host_key or ()]
    api, out = begin(ctx, as_json=as_json)
    found = api.find("endpoints", endpoint).body
    if found["kind"] != "sftp":
        raise usage(f"{found['name']} has no host keys: it is no SFTP endpoint")
    if pins or not keys:
        report = probe(api, out, found)
        host_keys.show(out, report["host_keys"], endpoint=found)
        keys += host_keys.choose(session_of(ctx), out, shown=report["host_keys"], fingerprints=pins or ())
    if not keys:
        raise Failure("No key is pinned", code=ExitCode.NEGATIVE, advice="Confirm a key, or give --pin or --host-key.")
    changed = host_keys.pin(api, found, keys=keys, replace=replace)
    out.document(changed)
    host_keys.show(out, changed["host_keys"], endpoint=changed)


@app.command(
    "rotate",
    epilog=examples(
        "eft endpoint rotate acme-in --key-file ./new_ed25519",
        "eft endpoint rotate lab --access-key-id lab2 --secret-key-file ./secret",
    ),
)
def rotate(
    ctx: typer.Context,
    endpoint: Reference,
    *,
    key_file: KeyFile = None,
    passphrase_stdin: PassphraseStdin = False,
    passphrase_file: PassphraseFile = None,
    password_stdin: PasswordStdin = False,
    password_file: PasswordFile = None,
    ask_password: AskPassword = False,
    access_key_id: AccessKeyId = None,
    secret_stdin: SecretStdin = False,
    secret_file: SecretFile = None,
    test: TestFlag = True,
    as_json: JsonFlag = False,
) -> None:
    """Replace an endpoint's credential as a whole (SFTP: key, password, or both; S3: a static key), then test it."""
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    session = session_of(ctx)
    found = api.find("endpoints", endpoint)
    static = access_key_id is not None or secret_stdin or secret_file is not None
    ssh = key_file or password_file or passphrase_file or password_stdin or passphrase_stdin or ask_password
    credential: dict[str, str] | None
    if found.body["kind"] == "sftp":
        if static:
            raise usage(
                "An SFTP endpoint's credential is a key or a password", advice="Give --key-file, --password-… or both, and no other."
            )
        credential = ssh_credential(
            session,
            key_file=key_file,
            password_stdin=password_stdin,
            password_file=password_file,
            ask_password=ask_password,
            passphrase_stdin=passphrase_stdin,
            passphrase_file=passphrase_file,
        )
    else:
        if ssh:
            raise usage("An S3 endpoint's credential is a static key", advice="Give --access-key-id, and no key, password or passphrase.")
        credential = s3_credential(session, access_key_id=access_key_id, secret_stdin=secret_stdin, secret_file=secret_file)
        if credential is None:
            raise usage("An S3 endpoint's credential is a static key", advice="Add --access-key-id.")
    changed = api.change("PATCH", path("endpoints", found.body["id"]), {"credential": credential}, etag=found.etag).body
    out.say(f"Endpoint {changed['name']} has its new credential.")
    conclude(out, changed, report=probe(api, out, changed) if test else None)


@app.command(
    "list",
    epilog=examples(
        "eft endpoint list --json | jq -r '.items[].id'",
    ),
)
def list_endpoints(
    ctx: typer.Context,
    *,
    limit: Annotated[int | None, typer.Option("--limit", help="At most so many; else all.", min=1)] = None,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Go on where a list with --limit ended.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the endpoints."""
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    page = api.listing(path("endpoints"), limit=limit, cursor=cursor)
    out.document(page)
    rows = [(item["id"], item["name"], item["kind"], address(item), _readiness(item)) for item in page["items"]]
    out.table(("ID", "NAME", "KIND", "ADDRESS", "HOST KEY"), rows, empty="No endpoints yet: eft endpoint add --help")
    out.more(page["next_cursor"])


@app.command("show")
def show(ctx: typer.Context, endpoint: Reference, *, as_json: JsonFlag = False) -> None:
    """Show one endpoint; its secrets are never shown."""
    api, out = begin(ctx, as_json=as_json)
    found = api.find("endpoints", endpoint).body
    out.document(found)
    _show(out, found)


@app.command(
    "remove",
    epilog=examples(
        "eft endpoint remove acme-in --yes",
    ),
)
def remove(ctx: typer.Context, endpoint: Reference, *, yes: YesFlag = False, as_json: JsonFlag = False) -> None:
    """Remove an endpoint with its credential."""
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    api, out = begin(ctx, as_json=as_json)
    found = api.find("endpoints", endpoint)
    confirm(ctx, f"Remove the endpoint {found.body['name']} ({found.body['id']}) and its credential?", yes=yes)
    api.change("DELETE", path("endpoints", found.body["id"]), etag=found.etag)
    out.document({"removed": found.body["id"]})
    out.say(f"Endpoint {found.body['id']} is removed.")


def address(endpoint: JsonObject) -> str:
    """Returns where an endpoint is, as an address for people."""
    if endpoint["kind"] == "sftp":
        port = "" if endpoint["port"] == 22 else f":{endpoint['port']}"  # noqa: PLR2004 - RFC 4253, section 4.1
        return f"sftp://{endpoint['username']}@{endpoint['host']}{port}/{str(endpoint['root']).lstrip('/')}"
    return f"s3://{endpoint['bucket']}/{endpoint['prefix']}"


def _readiness(endpoint: JsonObject) -> str:
    if endpoint["kind"] != "sftp":
        return "–"
    return "not pinned" if host_keys.unpinned(endpoint) else f"{len(endpoint['host_keys'])} pinned"


def _show(out: Output, endpoint: JsonObject) -> None:
    shown = [("id", endpoint["id"]), ("name", endpoint["name"]), ("address", address(endpoint))]
    others = ("region", "role_arn", "kms_key", "endpoint_url", "refuses_taken", "rename", "max_connections", "has_credential", "revision")
    shown += [(name, endpoint[name]) for name in others if name in endpoint]
    out.pairs([*shown, ("bandwidth", windows_words(endpoint)), ("created", shown_moment(endpoint["created"]))])
    if endpoint["kind"] == "sftp":
        host_keys.show(out, endpoint["host_keys"], endpoint=endpoint)
