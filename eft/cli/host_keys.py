"""Host keys: what the server shows, what the customer confirms out of band, what is pinned."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

import typer

from eft.cli.failure import ExitCode, Failure, usage
from eft.cli.output import Output
from eft.cli.session import Session

if TYPE_CHECKING:
    from eft.cli.client import Api, JsonObject

HostKeyOption = Annotated[
    list[str] | None,
    typer.Option("--host-key", help="Pin this key, as in known_hosts: 'ssh-ed25519 AAAA…'. Repeatable.", metavar="KEY"),
]
PinOption = Annotated[
    list[str] | None,
    typer.Option("--pin", help="Pin the key that the server shows with this fingerprint. Repeatable.", metavar="SHA256:…"),
]
_ALGORITHMS = ("ssh-", "ecdsa-", "sk-", "rsa-")


def parse_host_key(line: str) -> dict[str, str]:
    """Returns a line of known_hosts or of a .pub file as the API takes a key; host names before it and a comment after it are left out.

    Raises:
        Failure: there is no algorithm followed by a key.
    """
    words = line.split()
    for algorithm, key in pairwise(words):
        if algorithm.startswith(_ALGORITHMS):
            return {"algorithm": algorithm, "key": key}
    raise usage(f"'{line[:60]}' is no host key", advice="Write 'ssh-ed25519 AAAA…', as ssh-keyscan prints it.")


def unpinned(endpoint: JsonObject) -> bool:
    """Returns whether an endpoint moves nothing yet for want of a pinned key."""
    return endpoint["kind"] == "sftp" and not endpoint["host_keys"]


def choose(session: Session, out: Output, *, shown: Sequence[JsonObject], fingerprints: Sequence[str]) -> list[JsonObject]:
    """Returns the keys to pin among those that the server shows: by fingerprint, or as the person confirms; none if nobody is there.

    Raises:
        Failure: the server shows no key with one of the fingerprints: NEGATIVE, for it may be another server.
    """
    if fingerprints:
        wanted = {fingerprint if fingerprint.startswith("SHA256:") else f"SHA256:{fingerprint}" for fingerprint in fingerprints}
        missing = sorted(wanted - {key["fingerprint"] for key in shown})
        if missing:
            seen = ", ".join(f"{key['algorithm']} {key['fingerprint']}" for key in shown) or "none"
            raise Failure(
                f"The server shows no key with the fingerprint {missing[0]}",
                code=ExitCode.NEGATIVE,
                advice=f"It shows: {seen}. Ask its owner before you pin another.",
            )
        return [key for key in shown if key["fingerprint"] in wanted]
    if not shown or not session.interactive():
        return []
    out.note("Compare with what the server's owner tells you by another way: whoever sits between could show his own.")
    return [key for key in shown if typer.confirm(f"Pin {key['algorithm']} {key['fingerprint']}?", err=True)]


def pin(api: Api, endpoint: JsonObject, *, keys: Sequence[JsonObject], replace: bool = False) -> JsonObject:
    """Pins keys and returns the endpoint as it then is."""
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    body = {"host_keys": [{"algorithm": key["algorithm"], "key": key["key"]} for key in keys], "replace": replace}
    return api.post(path("endpoints", endpoint["id"], "host-keys"), body).body


def show(out: Output, keys: Sequence[JsonObject], *, endpoint: JsonObject) -> None:
    """Prints keys with their fingerprints, and whether they are pinned."""
    pinned = {key["fingerprint"] for key in endpoint["host_keys"]}
    rows = [(key["algorithm"], key["fingerprint"], "pinned" if key["fingerprint"] in pinned else "not pinned") for key in keys]
    out.table(("HOST KEY", "FINGERPRINT", ""), rows, empty="The server showed no host key.")
