"""`eft token`: a token from the local stack's own issuer. Elsewhere tokens come from your organisation's OIDC issuer."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Final

import typer

from eft.cli.amounts import parse_duration
from eft.cli.failure import usage
from eft.cli.output import Output
from eft.cli.profiles import Profile, save_profile
from eft.cli.session import JsonFlag, session_of
from eft.cli.stack import DIRECTORY, DirectoryOption, local

SCOPES: Final = (
    "endpoints:read",
    "endpoints:write",
    "flows:read",
    "flows:write",
    "webhooks:read",
    "webhooks:write",
    "transfers:read",
    "transfers:write",
)
"""What a customer's own token allows."""
OPERATOR: Final = "operator"
TENANT: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""As api.auth.TENANT."""
LIFETIME: Final = timedelta(hours=12)


def token(
    ctx: typer.Context,
    *,
    tenant: Annotated[str, typer.Option("--tenant", help="Whom it is for.", show_default=True)] = "demo",
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="What it allows; repeatable. [default: all of a customer's]", metavar="SCOPE")
    ] = None,
    lifetime: Annotated[
        timedelta | None, typer.Option("--lifetime", parser=parse_duration, help="How long it is valid. [default: 12h]", metavar="DURATION")
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Store it in the profile, with the stack's address, instead of printing it.")
    ] = False,
    directory: DirectoryOption = DIRECTORY,
    as_json: JsonFlag = False,
) -> None:
    """Issue a token for the local stack; print it, or store it.

    The stack is that of `eft up`. Elsewhere tokens come from your organisation's own OIDC issuer.
    """
    session = session_of(ctx)
    session.as_json = as_json
    out = Output(as_json=as_json)
    if not TENANT.fullmatch(tenant):
        raise usage(f"'{tenant}' is no tenant", advice="Use lower-case letters, digits and hyphens.")
    unknown = sorted({*(scope or ())} - {*SCOPES, OPERATOR})
    if unknown:
        raise usage(f"There is no scope '{unknown[0]}'", advice=f"Scopes are {', '.join(SCOPES)} and {OPERATOR}.")
    identity = local("identity")
    home = directory / "identity"
    if not home.is_dir():
        raise usage(f"There is no local stack in {directory}", advice="Start it with `eft up`, or name its --directory.")
    valid = lifetime or LIFETIME
    issued = str(identity.issue(identity.create_identity(home), tenant, scope or SCOPES, valid))
    address = directory / "api-url"
    api_url = address.read_text(encoding="utf-8").strip() if address.exists() else session.profile().api_url
    if save:
        save_profile(session.config_path, Profile(name=session.profile_name, api_url=api_url, token=issued))
        out.document({"saved": str(session.config_path), "profile": session.profile_name, "api_url": api_url, "tenant": tenant})
        out.say(f"Saved to [profiles.{session.profile_name}] of {session.config_path}, for the tenant {tenant}.")
        if api_url is None:
            out.note("The stack's address is not known: set EFT_API_URL to what `eft up` prints.")
    elif as_json:
        out.document({"token": issued, "tenant": tenant, "api_url": api_url, "expires_in": int(valid.total_seconds())})
    else:
        print(issued)
