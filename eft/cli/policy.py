"""How a transfer is carried out: the options that `flow add` and `transfer submit` share. What is not given is the API's default."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from eft.cli.failure import usage

Conflict = Annotated[
    Literal["fail", "overwrite", "skip", "rename"] | None,
    typer.Option("--conflict", help="When the destination name exists already. [default: fail]"),
]
Dispose = Annotated[
    Literal["keep", "delete", "archive"] | None,
    typer.Option("--dispose", help="The source file, once delivered. [default: keep]"),
]
ArchiveTo = Annotated[str | None, typer.Option("--archive-to", help="Directory for --dispose archive.", metavar="DIRECTORY")]
CreateDirectories = Annotated[
    bool | None,
    typer.Option("--create-directories/--no-create-directories", help="Create missing directories at the destination. [default: create]"),
]
Checksum = Annotated[
    Literal["auto", "sha256"] | None,
    typer.Option(
        "--checksum", help="auto: SHA-256 where that is free, else CRC64NVME; sha256: always, at the price of a read-back. [default: auto]"
    ),
]
Sidecar = Annotated[bool, typer.Option("--sidecar", help="Compare with FILE.sha256 beside the source, which must then exist.")]
Staging = Annotated[
    bool | None,
    typer.Option("--staging/--no-staging", help="Whether the bytes go through the staging bucket. [default: only from SFTP to SFTP]"),
]
ReceiverRemoves = Annotated[
    bool, typer.Option("--receiver-removes", help="The receiver takes files as they appear, and nothing else removes our temporary names.")
]
ReceiverKeeps = Annotated[
    bool,
    typer.Option("--receiver-keeps", help="Nobody removes or overwrites what has arrived: small files may go to a bucket in one request."),
]
Priority = Annotated[Literal["bulk", "normal", "urgent"] | None, typer.Option("--priority", help="[default: normal]")]
Tries = Annotated[int | None, typer.Option("--tries", help="Tries of one step before it is given up. [default: 8]", min=1, max=100)]


def policy_of(
    *,
    conflict: str | None,
    dispose: str | None,
    archive_to: str | None,
    create_directories: bool | None,
    checksum: str | None,
    sidecar: bool,
    staging: bool | None,
    receiver_removes: bool,
    receiver_keeps: bool,
    priority: str | None,
    tries: int | None,
    name_template: str | None = None,
) -> dict[str, object]:
    """Returns the policy as the API takes it, without what is not given.

    Raises:
        Failure: `--archive-to` and `--dispose archive` are not given together, or two options that exclude each other are.
    """
    if receiver_removes and receiver_keeps:
        raise usage("--receiver-removes and --receiver-keeps exclude each other")
    if (dispose == "archive") != (archive_to is not None):
        raise usage("--archive-to goes with --dispose archive, and only with it")
    given: dict[str, object] = {
        "name_template": name_template,
        "conflict": conflict,
        "disposition": dispose,
        "archive_directory": archive_to,
        "create_directories": create_directories,
        "checksum": checksum,
        "sidecar": sidecar or None,
        "staging": staging,
        "receiver_removes": receiver_removes or None,
        "receiver_keeps": receiver_keeps or None,
        "priority": priority,
        "retry": None if tries is None else {"tries": tries},
    }
    return {name: value for name, value in given.items() if value is not None}


def place(text: str, *, option: str) -> tuple[str, str]:
    """Returns the endpoint and the path of `ENDPOINT:PATH`; without a colon the path is empty.

    Raises:
        Failure: there is no endpoint.
    """
    endpoint, _, path = text.partition(":")
    if not endpoint:
        raise usage(f"{option} '{text}' names no endpoint", advice="Write ENDPOINT:PATH; `eft endpoint list` shows the endpoints.")
    return endpoint, path
