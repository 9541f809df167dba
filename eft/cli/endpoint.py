"""`eft endpoint`: where files live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from eft.cli import host_keys
from eft.cli.amounts import shown_moment
from eft.cli.bandwidth import Windows, windows_of, windows_words
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
from eft.cli.session import JsonFlag, Session, YesFlag, begin, confirm, session_of, warn_of_namesakes

if TYPE_CHECKING:
    from eft.cli.client import Api, JsonObject

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Where files live: SFTP servers and S3 buckets.", epilog=EXIT_CODES)
add = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Onboard an endpoint with its credential.")
app.add_typer(add, name="add")

Reference = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Id or name.")]
MaxConnections = Annotated[int | None, typer.Option("--max-connections", help="At once, across all workers. [default: 8]", min=1, max=256)]
TestFlag = Annotated[bool, typer.Option("--test/--no-test", help="Test the connection afterwards.")]


@add.command(
    "sftp",
    epilog=examples(
        "eft endpoint add sftp acme-in --host sftp.acme.example -u eft --key-file ~/.ssh/id_ed25519",
        "eft endpoint add sftp acme-in --host sftp.acme.example -u eft --password-file ./secret --pin SHA256:47DEQp…",
        "pass acme | eft endpoint add sftp acme-in --host 10.0.0.7 -u eft --password-stdin --host-key 'ssh-ed25519 AAAA…' --json",
    ),
)
def add_sftp(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What you call it.")],
    *,
    host: Annotated[str, typer.Option("--host", help="DNS name or IP address.")],
    username: Annotated[str, typer.Option("--username", "-u", help="User at the server.")],
    port: Annotated[int, typer.Option("--port", "-p", help="TCP port.", min=1, max=65535, show_default=True)] = 22,
    root: Annotated[str, typer.Option("--root", help="Directory that all paths lie below.", show_default=True)] = "/",
    key_file: KeyFile = None,
    passphrase_stdin: PassphraseStdin = False,
    passphrase_file: PassphraseFile = None,
    password_stdin: PasswordStdin = False,
    password_file: PasswordFile = None,
    ask_password: AskPassword = False,
    host_key: HostKeyOption = None,
    pins: PinOption = None,
    rename: Annotated[
        Literal["auto", "posix", "plain"] | None, typer.Option("--rename", help="How a delivered file gets its name. [default: auto]")
    ] = None,
    max_connections: MaxConnections = None,
    bandwidth: Windows = None,
    test: TestFlag = True,
    as_json: JsonFlag = False,
) -> None:
    """Onboard an SFTP server: test it, show its host keys, pin those that you confirm.

    Without a pinned host key the endpoint can be tested but moves nothing. Scripts name the key with --host-key, or with --pin
    and the fingerprint that the server's owner told them.
    """
    pinned = [host_keys.parse_host_key(line) for line in host_key or ()]
    if pins and not test:
        raise usage("--pin needs the test, which shows the server's keys", advice="Leave --no-test out, or give --host-key.")
    api, out = begin(ctx, as_json=as_json)
    credential = ssh_credential(
        session_of(ctx),
        key_file=key_file,
        password_stdin=password_stdin,
        password_file=password_file,
        ask_password=ask_password,
        passphrase_stdin=passphrase_stdin,
        passphrase_file=passphrase_file,
    )
    body: dict[str, object] = {
        "kind": "sftp",
        "name": name,
        "host": host,
        "port": port,
        "username": username,
        "root": root,
        "host_keys": pinned,
        "credential": credential,
    }
    _onboard(
        session_of(ctx),
        api,
        out,
        body=_with(body, rename=rename, max_connections=max_connections, bandwidth=windows_of(bandwidth)),
        pins=pins or (),
        test=test,
    )


@add.command(
    "s3",
    epilog=examples(
        "eft endpoint add s3 archive --bucket acme-archive --region us-gov-west-1 --role-arn arn:aws-us-gov:iam::…:role/eft",
        "eft endpoint add s3 lab --bucket lab --region us-east-1 --endpoint-url https://s3.lab.example --access-key-id lab",
    ),
)
def add_s3(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What you call it.")],
    *,
    bucket: Annotated[str, typer.Option("--bucket", help="Bucket.")],
    region: Annotated[str, typer.Option("--region", help="Region of the bucket.")],
    prefix: Annotated[str, typer.Option("--prefix", help="Prefix that all keys lie below.")] = "",
    role_arn: Annotated[
        str | None,
        typer.Option(
            "--role-arn",
            help="Role to assume; else the credential, else the engine's own role for buckets that its operator lends you.",
            metavar="ARN",
        ),
    ] = None,
    kms_key: Annotated[str | None, typer.Option("--kms-key", help="Key for SSE-KMS.", metavar="KEY")] = None,
    endpoint_url: Annotated[str | None, typer.Option("--endpoint-url", help="Address of an S3-compatible store.", metavar="URL")] = None,
    access_key_id: AccessKeyId = None,
    secret_stdin: SecretStdin = False,
    secret_file: SecretFile = None,
    max_connections: MaxConnections = None,
    bandwidth: Windows = None,
    test: TestFlag = True,
    as_json: JsonFlag = False,
) -> None:
    """Onboard a bucket of S3 or of an S3-compatible store."""
    api, out = begin(ctx, as_json=as_json)
    credential = s3_credential(session_of(ctx), access_key_id=access_key_id, secret_stdin=secret_stdin, secret_file=secret_file)
    body: dict[str, object] = {"kind": "s3", "name": name, "bucket": bucket, "region": region, "prefix": prefix}
    body = _with(
        body,
        role_arn=role_arn,
        kms_key=kms_key,
        endpoint_url=endpoint_url,
        credential=credential,
        max_connections=max_connections,
        bandwidth=windows_of(bandwidth),
    )
    _onboard(session_of(ctx), api, out, body=body, pins=(), test=test)


@app.command(
    "test",
    epilog=examples(
        "eft endpoint test acme-in",
    ),
)
def probe(ctx: typer.Context, endpoint: Reference, *, as_json: JsonFlag = False) -> None:
    """Connect, check the host key, log in, list; show what was seen. Exit code 1 when a check fails."""
    api, out = begin(ctx, as_json=as_json)
    found = api.find("endpoints", endpoint).body
    report = _probe(api, out, found)
    out.document(report)
    _show_report(out, report, endpoint=found)
    if host_keys.unpinned(found):
        out.say(f"It moves nothing until a key is pinned: eft endpoint pin {found['id']}")
    _end_with(report)


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
        report = _probe(api, out, found)
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
    credential: dict[str, str] | None
    if found.body["kind"] == "sftp":
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
        credential = s3_credential(session, access_key_id=access_key_id, secret_stdin=secret_stdin, secret_file=secret_file)
        if credential is None:
            raise usage("An S3 endpoint's credential is a static key", advice="Add --access-key-id.")
    changed = api.change("PATCH", path("endpoints", found.body["id"]), {"credential": credential}, etag=found.etag).body
    out.say(f"Endpoint {changed['name']} has its new credential.")
    _conclude(out, changed, report=_probe(api, out, changed) if test else None)


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


def _onboard(session: Session, api: Api, out: Output, *, body: JsonObject, pins: Sequence[str], test: bool) -> None:
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    endpoint = api.post(path("endpoints"), body).body
    out.say(f"Endpoint {endpoint['name']} is added: {endpoint['id']}")
    for warning in endpoint.get("warnings") or ():
        out.note(f"Warning: {warning['message']}")
    warn_of_namesakes(api, out, "endpoints", str(endpoint["name"]))
    report = _probe(api, out, endpoint) if test else None
    if report and report["host_keys"] and host_keys.unpinned(endpoint):
        if session.interactive():
            host_keys.show(out, report["host_keys"], endpoint=endpoint)
        keys = host_keys.choose(session, out, shown=report["host_keys"], fingerprints=pins)
        if keys:
            endpoint = host_keys.pin(api, endpoint, keys=keys)
            report = _probe(api, out, endpoint)
    _conclude(out, endpoint, report=report)


def _conclude(out: Output, endpoint: JsonObject, *, report: JsonObject | None) -> None:
    out.document({"endpoint": endpoint, "test": report})
    if report is None:
        return
    _show_report(out, report, endpoint=endpoint)
    if host_keys.unpinned(endpoint) and not report["host_keys"]:
        again = f"eft endpoint test {endpoint['id']}"
        remove = f"eft endpoint remove {endpoint['id']}"
        raise Failure(
            "The connection test failed, and no host key is pinned: the endpoint moves nothing yet",
            code=ExitCode.NEGATIVE,
            advice=f"See the failed check above. Test it again: {again}; if the address is wrong: {remove}, and add it anew.",
        )
    if host_keys.unpinned(endpoint):
        raise Failure(
            "No host key is pinned: the endpoint moves nothing yet",
            code=ExitCode.NEGATIVE,
            advice=f"Confirm a key with the server's owner, then: eft endpoint pin {endpoint['id']}",
        )
    _end_with(report)


def _probe(api: Api, out: Output, endpoint: JsonObject) -> JsonObject:
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    with out.waiting(f"Testing {endpoint['name']} …"):
        return api.post(path("endpoints", endpoint["id"], "test")).body


def _show_report(out: Output, report: JsonObject, *, endpoint: JsonObject) -> None:
    rows = [("ok" if check["ok"] else "failed", check["name"], check["message"]) for check in report["checks"]]
    out.table(("", "CHECK", "SEEN"), rows, empty="Nothing was checked.")
    if endpoint["kind"] == "sftp":
        host_keys.show(out, report["host_keys"], endpoint=endpoint)
    if report["capabilities"]:
        out.say("Server: " + ", ".join(f"{name} {value}" for name, value in report["capabilities"].items()))


def _end_with(report: JsonObject) -> None:
    if not report["ok"]:
        raise Failure("The connection test failed", code=ExitCode.NEGATIVE, advice="See the failed check above.")


def _readiness(endpoint: JsonObject) -> str:
    if endpoint["kind"] != "sftp":
        return "–"
    return "not pinned" if host_keys.unpinned(endpoint) else f"{len(endpoint['host_keys'])} pinned"


def _show(out: Output, endpoint: JsonObject) -> None:
    shown = [("id", endpoint["id"]), ("name", endpoint["name"]), ("address", address(endpoint))]
    others = ("region", "role_arn", "kms_key", "endpoint_url", "rename", "max_connections", "has_credential", "revision")
    shown += [(name, endpoint[name]) for name in others if name in endpoint]
    out.pairs([*shown, ("bandwidth", windows_words(endpoint)), ("created", shown_moment(endpoint["created"]))])
    if endpoint["kind"] == "sftp":
        host_keys.show(out, endpoint["host_keys"], endpoint=endpoint)


def _with(body: dict[str, object], **given: object) -> dict[str, object]:
    return body | {name: value for name, value in given.items() if value is not None}
