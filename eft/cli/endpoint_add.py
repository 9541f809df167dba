"""`eft endpoint add`: onboard a server or a bucket, test it, pin its keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from eft.cli import host_keys
from eft.cli.bandwidth import Windows, windows_of
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
from eft.cli.failure import examples, usage
from eft.cli.host_keys import HostKeyOption, PinOption
from eft.cli.output import Output
from eft.cli.probing import TestFlag, conclude, probe
from eft.cli.session import JsonFlag, Session, begin, session_of, warn_of_namesakes

if TYPE_CHECKING:
    from eft.cli.client import Api, JsonObject

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Onboard an endpoint with its credential.")

MaxConnections = Annotated[
    int | None,
    typer.Option("--max-connections", help="At once, across all workers; a bucket's are not counted. [default: 8]", min=1, max=256),
]


@app.command(
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


@app.command(
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
    refuses_taken: Annotated[bool, typer.Option("--refuses-taken", help="That store honours 'If-None-Match: *' as AWS does.")] = False,
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
        refuses_taken=refuses_taken or None,
        credential=credential,
        max_connections=max_connections,
        bandwidth=windows_of(bandwidth),
    )
    _onboard(session_of(ctx), api, out, body=body, pins=(), test=test)


def _onboard(session: Session, api: Api, out: Output, *, body: JsonObject, pins: Sequence[str], test: bool) -> None:
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    endpoint = api.post(path("endpoints"), body).body
    out.say(f"Endpoint {endpoint['name']} is added: {endpoint['id']}")
    for warning in endpoint.get("warnings") or ():
        out.note(f"Warning: {warning['message']}")
    warn_of_namesakes(api, out, "endpoints", str(endpoint["name"]))
    report = probe(api, out, endpoint) if test else None
    if report and report["host_keys"] and host_keys.unpinned(endpoint):
        if session.interactive():
            host_keys.show(out, report["host_keys"], endpoint=endpoint)
        keys = host_keys.choose(session, out, shown=report["host_keys"], fingerprints=pins)
        if keys:
            endpoint = host_keys.pin(api, endpoint, keys=keys)
            report = probe(api, out, endpoint)
    conclude(out, endpoint, report=report)


def _with(body: dict[str, object], **given: object) -> dict[str, object]:
    return body | {name: value for name, value in given.items() if value is not None}
