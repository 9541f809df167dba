"""What every command starts with: the address, the token, and a client made from them."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eft.cli.failure import ExitCode, Failure, usage
from eft.cli.output import Output
from eft.cli.profiles import DEFAULT_PROFILE, Profile, check_name, default_path, environment, exposed, read_profile

if TYPE_CHECKING:
    import httpx

    from eft.cli.client import Api


def _remember(ctx: typer.Context, as_json: bool) -> bool:  # noqa: FBT001 - as the framework calls it
    """Keeps how the command speaks and which options it has, for whatever goes wrong from here on."""
    session = ctx.find_object(Session)
    if session is not None:
        session.as_json = as_json
        session.options = frozenset(option for parameter in ctx.command.params for option in parameter.opts)
    return as_json


JsonFlag = Annotated[
    bool, typer.Option("--json", callback=_remember, is_eager=True, help="Print JSON on standard output, and nothing else there.")
]
YesFlag = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def _interactive() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


@dataclass
class Session:
    """One invocation's surroundings; tests hand in their own."""

    environ: Mapping[str, str] = field(default_factory=environment, repr=False)
    transport: httpx.BaseTransport | None = None
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    interactive: Callable[[], bool] = _interactive
    """Whether a person is there to be asked."""
    api_url: str | None = None
    profile_name: str = DEFAULT_PROFILE
    as_json: bool = False
    options: frozenset[str] = frozenset()
    """Those of the command."""

    @property
    def config_path(self) -> Path:
        """The configuration file."""
        chosen = self.environ.get("EFT_CONFIG")
        return Path(chosen) if chosen else default_path(self.environ)

    def profile(self) -> Profile:
        """Returns the chosen profile, with what the environment and the options say instead of it.

        Raises:
            Failure: the file is malformed.
        """
        stored = read_profile(self.config_path, check_name(self.profile_name))
        return Profile(
            name=stored.name,
            api_url=self.api_url or self.environ.get("EFT_API_URL") or stored.api_url,
            token=self.environ.get("EFT_TOKEN") or stored.token,
        )

    def api(self, *, out: Output) -> Api:
        """Returns a client for the chosen API.

        Raises:
            Failure: no address or no token is known.
        """
        from eft.cli.client import Api  # noqa: PLC0415 - httpx takes longer to load than `eft --help` to run

        profile = self.profile()
        if not profile.api_url:
            absent = profile.name != DEFAULT_PROFILE and read_profile(self.config_path, profile.name) == Profile(profile.name)
            raise usage(
                f"No API address is known: {self.config_path} has no profile '{profile.name}'" if absent else "No API address is known",
                advice="Set EFT_API_URL, or api_url in the profile; `eft token --save` does so for a local stack (`eft up`).",
            )
        if not profile.token:
            raise Failure(
                "No token is known",
                code=ExitCode.UNAUTHORISED,
                advice="Set EFT_TOKEN, or token in the profile; `eft token --save` issues one from a local stack.",
            )
        if not self.environ.get("EFT_TOKEN") and exposed(self.config_path):
            out.note(f"Others can read {self.config_path}, which holds a token: chmod 600 it.")
        api = Api(profile.api_url, token=profile.token, transport=self.transport, sleep=self.sleep)
        if api.exposes_token:
            out.note(f"{api.url} is not HTTPS: the token crosses the network in the clear.")
        return api


def session_of(ctx: typer.Context) -> Session:
    """Returns the session that the root command made."""
    session = ctx.find_object(Session)
    if session is None:  # pragma: no cover - the root command always makes one
        raise usage("no session")
    return session


def begin(ctx: typer.Context, *, as_json: bool) -> tuple[Api, Output]:
    """Returns the client and the voice of a command.

    Raises:
        Failure: no address or no token is known.
    """
    session = session_of(ctx)
    out = Output(as_json=as_json)
    api = session.api(out=out)
    ctx.call_on_close(api.close)
    return api, out


def warn_of_namesakes(api: Api, out: Output, noun: str, name: str) -> None:
    """Says so where a new thing's name is no longer its own: from now on neither is found by it."""
    try:
        number = len(api.named(noun, name))
    except Failure:  # what was asked for is done; a token may add and not list
        return
    if number > 1:
        out.note(f"Warning: {number} {noun} have the name '{name}' now: name them by id, or remove one (eft {noun[:-1]} remove ID).")


def endpoint_names(api: Api) -> Mapping[str, str]:
    """Returns by id what endpoints are called, as far as that is known: not those that share their name, for it would find none of them.

    Where the token may not list endpoints, their ids have to do.
    """
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    try:
        names = {str(item["id"]): str(item["name"]) for item in api.listing(path("endpoints"))["items"]}
    except Failure:  # what was asked for is here already
        return {}
    number = Counter(names.values())
    return {id_: name for id_, name in names.items() if number[name] == 1}


def confirm(ctx: typer.Context, question: str, *, yes: bool) -> None:
    """Returns once the person agrees.

    Raises:
        Failure: they decline, or nobody is there to ask and `--yes` is not given.
    """
    if yes:
        return
    if not session_of(ctx).interactive():
        raise usage(f"{question} Nobody is there to ask.", advice="Add --yes.")
    if not typer.confirm(question, err=True):
        raise Failure("Nothing is changed", code=ExitCode.NEGATIVE)
