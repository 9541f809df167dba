"""The test of a connection: asking for it, showing what was seen, and ending with its result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from eft.cli import host_keys
from eft.cli.failure import ExitCode, Failure
from eft.cli.output import Output

if TYPE_CHECKING:
    from eft.cli.client import Api, JsonObject

TestFlag = Annotated[bool, typer.Option("--test/--no-test", help="Test the connection afterwards.")]


def probe(api: Api, out: Output, endpoint: JsonObject) -> JsonObject:
    """Has the API connect, and returns its report."""
    from eft.cli.client import path  # noqa: PLC0415 - loads httpx

    with out.waiting(f"Testing {endpoint['name']} …"):
        return api.post(path("endpoints", endpoint["id"], "test")).body


def show_report(out: Output, report: JsonObject, *, endpoint: JsonObject) -> None:
    """Prints what a test saw."""
    rows = [("ok" if check["ok"] else "failed", check["name"], check["message"]) for check in report["checks"]]
    out.table(("", "CHECK", "SEEN"), rows, empty="Nothing was checked.")
    if endpoint["kind"] == "sftp":
        host_keys.show(out, report["host_keys"], endpoint=endpoint)
    if report["capabilities"]:
        out.say("Server: " + ", ".join(f"{name} {value}" for name, value in report["capabilities"].items()))


def end_with(report: JsonObject) -> None:
    """Returns if the test was passed.

    Raises:
        Failure: NEGATIVE when a check failed.
    """
    if not report["ok"]:
        raise Failure("The connection test failed", code=ExitCode.NEGATIVE, advice="See the failed check above.")


def conclude(out: Output, endpoint: JsonObject, *, report: JsonObject | None) -> None:
    """Says how an endpoint stands after a change and its test, if it was tested.

    Raises:
        Failure: NEGATIVE when a check failed, or no key is pinned.
    """
    out.document({"endpoint": endpoint, "test": report})
    if report is None:
        return
    show_report(out, report, endpoint=endpoint)
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
    end_with(report)
