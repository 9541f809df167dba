"""The `eft` command: a REST client, and the local stack. What a command needs beyond its own words it loads when it runs."""

from __future__ import annotations

import typing
from typing import Annotated, Final

import typer
from typer.core import TyperGroup

from eft import __version__
from eft.cli import endpoint, flow, region, stack, token, transfer, webhook
from eft.cli.failure import EXIT_CODES, ExitCode, Failure, examples
from eft.cli.output import Output, tell
from eft.cli.profiles import DEFAULT_PROFILE
from eft.cli.session import JsonFlag, Session, session_of

_HELP: Final = """\
Moves files between organisations: never twice, never silently lost, whole or not at all.

The address and the token come from EFT_API_URL and EFT_TOKEN, or from a profile in ~/.config/eft/config.toml (EFT_CONFIG names
another file; the token belongs there or in the environment, never on the command line):

\b
  [profiles.default]
  api_url = "https://eft.example.gov"
  token = "eyJ…"

\b
A first transfer:
  eft endpoint add sftp acme --host sftp.acme.example -u eft --key-file ~/.ssh/id_ed25519
  eft endpoint add s3 archive --bucket acme-archive --region us-gov-west-1
  eft transfer submit --from acme:outbox/a.csv --to archive --watch
"""


class _Root(TyperGroup):
    """Turns a failure, wherever a command raises it, into words and an exit code: the one place that does."""

    def invoke(self, ctx: typing.Any) -> typing.Any:  # noqa: ANN401 - the framework's signature
        try:
            return super().invoke(ctx)
        except Failure as failure:
            session = session_of(ctx)
            tell(failure, as_json=session.as_json, options=session.options)
            raise typer.Exit(failure.code) from None
        except typer.Abort:
            Output(as_json=True).note("Nothing is changed: no answer.")
            raise typer.Exit(ExitCode.NEGATIVE) from None


app = typer.Typer(
    cls=_Root,
    name="eft",
    no_args_is_help=True,
    # Plain help: it can be copied, and is there three times as fast.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help=_HELP,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
app.add_typer(endpoint.app, name="endpoint")
app.add_typer(flow.app, name="flow")
app.add_typer(transfer.app, name="transfer")
app.add_typer(webhook.app, name="webhook")
app.add_typer(region.app, name="region")
app.command(
    "token",
    epilog=examples(
        "eft token --save            # from now on eft speaks to the local stack",
        "export EFT_TOKEN=$(eft token --tenant acme --scope transfers:read --lifetime 1h)",
    ),
)(token.token)
app.command("up")(stack.up)
app.command("demo")(stack.demo)


@app.callback()
def root(
    ctx: typer.Context,
    *,
    api_url: Annotated[str | None, typer.Option("--api-url", help="Address of the API, instead of EFT_API_URL.", metavar="URL")] = None,
    profile: Annotated[
        str, typer.Option("--profile", help="Profile of the configuration file.", envvar="EFT_PROFILE", show_envvar=True, show_default=True)
    ] = DEFAULT_PROFILE,
) -> None:
    """Makes the session that every command begins with."""
    session = ctx.obj if isinstance(ctx.obj, Session) else Session()
    session.api_url = api_url
    session.profile_name = profile
    ctx.obj = session


@app.command("version")
def version(*, as_json: JsonFlag = False) -> None:
    """Print the version."""
    out = Output(as_json=as_json)
    out.document({"version": __version__})
    if not as_json:
        print(__version__)
