"""`eft up`, `eft demo`: the whole engine on this machine."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Final

import typer

from eft.cli.failure import ExitCode, Failure

DIRECTORY: Final = Path(".local")

DirectoryOption = Annotated[
    Path,
    typer.Option(
        "--directory",
        help="Where the local stack keeps its state.",
        envvar="EFT_LOCAL",
        show_envvar=True,
        show_default=True,
        metavar="PATH",
    ),
]


def local(name: str) -> ModuleType:
    """Returns a module of the local stack.

    It is loaded by name: it stands on the whole engine, Celery and Flask included, of which the client otherwise knows nothing.

    Raises:
        Failure: this installation does not have it.
    """
    try:
        return import_module(f"deploy.local.{name}")
    except ModuleNotFoundError as error:
        raise Failure(
            f"The local stack is not installed here: {error.name} is missing",
            code=ExitCode.UNAVAILABLE,
            advice="Run it from a checkout of the project, after `make setup`.",
        ) from None


def up(
    *,
    directory: DirectoryOption = DIRECTORY,
    port: Annotated[int, typer.Option("--port", help="Port of the API; 0 takes a free one.", min=0, max=65535, show_default=True)] = 8080,
    workers: Annotated[int, typer.Option("--workers", help="Worker processes, in each region.", min=1, max=64, show_default=True)] = 2,
    regions: Annotated[
        int, typer.Option("--regions", help="2 starts two regions, the second API on the next port.", min=1, max=2, show_default=True)
    ] = 1,
) -> None:
    """Start the whole engine on this machine, and keep it until Ctrl-C.

    Stand-ins for AWS and Redis are part of it. It prints the addresses of the API, its try-it page and Flower, and how to use them.
    """
    module = local("up" if regions == 1 else "up_regions")
    raise typer.Exit(int(module.run(directory=directory, port=port, workers=workers) or 0))


def demo(*, keep: Annotated[bool, typer.Option("--keep", help="Keep everything up afterwards, until Ctrl-C.")] = False) -> None:
    """Start everything, move a few hundred files, verify each one, stop.

    Exit code 0 if every check holds, 1 if one fails.
    """
    raise typer.Exit(int(local("demo").run(keep=keep) or 0))
