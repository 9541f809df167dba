"""`eft demo`: the whole engine moves a few hundred files between two customers, and every one of them is checked."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from deploy.local import evidence, samples
from deploy.local.board import Board
from deploy.local.customer import RESTING, Customer, JsonObject, Refused, TooLate, told
from deploy.local.evidence import Findings
from deploy.local.process import StartFailed, stop_on_signals
from deploy.local.samples import MIB, Sample, many
from deploy.local.stack import FLOWER_USER, LocalStack

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PATIENCE: Final = timedelta(minutes=4)
"""For all files together; a machine that needs longer has another trouble."""
LARGE: Final = 256 * MIB
BROKEN: Final = "statement-007.pdf"
LOG_LINES: Final = 15

TO_S3: Final[Mapping[str, int]] = {
    **many("orders/order", 80),
    **many("orders/empty", 3, size=0),
    **many("orders/scan", 4, size=MIB, suffix=".tif"),
    "orders/ledger-2026.db": LARGE,
}
TO_SFTP: Final[Mapping[str, int]] = {
    **many("invoice", 70),
    **many("nothing-new", 2, size=0),
    **many("contract", 4, size=MIB, suffix=".pdf"),
}
VIA_STAGING: Final[Mapping[str, int]] = {**many("statement", 70, suffix=".pdf"), **many("void", 2, size=0, suffix=".pdf")}
SERVER_SIDE: Final[Mapping[str, int]] = {**many("reading", 70, suffix=".json"), **many("camera", 4, size=MIB, suffix=".jpg")}


@dataclass(slots=True)
class Leg:
    """One flow of a customer, what it is to move, and how its destination is looked at."""

    title: str
    customer: Customer
    flow: str
    expected: Mapping[str, Sample]
    look: Callable[[list[JsonObject]], Findings]
    begun: float = field(default_factory=time.monotonic)
    seen: list[JsonObject] = field(default_factory=list)
    """Its transfers, whole, once all rest."""

    @property
    def bytes(self) -> int:
        """What it is to move."""
        return sum(sample.size for sample in self.expected.values())


class CheckFailed(RuntimeError):
    """Something that the demonstration promises does not hold."""


def run(*, keep: bool = False, home: Path = Path(".local"), console: Console | None = None) -> int:
    """Returns 0 if every check holds, else 1, after saying what failed. With `keep`, everything stays up until Ctrl-C."""
    out = console or Console()
    home.mkdir(parents=True, exist_ok=True)
    # A directory of its own, so that a second run, even at the same time, finds nothing of the first.
    directory = Path(tempfile.mkdtemp(prefix="demo-", dir=home))
    stack = LocalStack(directory / "stack")
    try:
        with stop_on_signals():
            return _run(stack, directory, out, keep=keep)
    except (CheckFailed, StartFailed, TooLate, Refused) as failure:
        out.print(f"[bold red]The demonstration failed:[/] {type(failure).__name__}")
        out.print(str(failure), markup=False, highlight=False)
        _show_logs(stack, out)
        out.print(f"Everything that was written lies in {directory}", highlight=False)
        return 1
    finally:
        with suppress(OSError):
            shutil.rmtree(directory / "stack" / "aws")
    # Only what failed is kept.


def _run(stack: LocalStack, directory: Path, out: Console, *, keep: bool) -> int:
    begun = time.monotonic()
    with out.status("Starting …") as status:
        stack.start(lambda what: status.update(f"Starting … {what} is up"))
    try:
        out.print(
            f"Everything is up after {time.monotonic() - begun:.1f} s: {len(stack.workers)} workers, beat, API, Flower and the stand-ins."
        )
        where(stack, out)
        with stack.customer("acme") as acme, stack.customer("globex") as globex:
            with out.status("Onboarding two customers, making files …"):
                legs = _legs(stack, acme, globex)
            moving = time.monotonic()
            _move(legs, out)
            _redrive(stack, legs, out)
            seconds = time.monotonic() - moving
            with out.status("Comparing every file with its source …"):
                findings = [leg.look(leg.seen) for leg in legs]
                _apart(acme, globex, legs)
        clean = _summary(legs, findings, seconds, out)
        if not clean:
            raise CheckFailed("\n".join(f"{leg.title}: {found}" for leg, found in zip(legs, findings, strict=True) if not found.clean))
        out.print(f"[bold green]Every file arrived once, whole.[/] {time.monotonic() - begun:.0f} s in all.")
        if keep:
            where(stack, out)
            out.print("It stays up until Ctrl-C.")
            threading.Event().wait()
    finally:
        with out.status("Stopping everything …"):
            stack.stop()
    shutil.rmtree(directory, ignore_errors=True)
    return 0


def where(stack: LocalStack, out: Console) -> None:
    """Prints the addresses of the API's page and of Flower."""
    out.print(f"  API      {stack.page_url}", highlight=False)
    out.print(f"  Flower   {stack.flower_url}   user {FLOWER_USER}, password {stack.flower_password}", highlight=False)


# -- what is moved -----------------------------------------------------------------------------------------------------


def _legs(stack: LocalStack, acme: Customer, globex: Customer) -> list[Leg]:
    """Onboards two customers with all they need, and starts a flow of each kind; the last one waits for beat."""
    s3: S3Client = stack.aws.client("s3")
    orders, statements = stack.account("acme-orders"), stack.account("globex-statements")
    invoices, archive = stack.password_sftp.account("globex-invoices"), stack.password_sftp.account("globex-archive")
    landing, billing, sensors, lake = (stack.bucket(name) for name in ("acme-landing", "globex-billing", "acme-sensors", "acme-lake"))
    made = {
        "orders": samples.in_directory(orders.directory, TO_S3),
        "invoices": samples.in_bucket(s3, billing, TO_SFTP),
        "statements": samples.in_directory(statements.directory, VIA_STAGING),
        "readings": samples.in_bucket(s3, sensors, SERVER_SIDE),
    }
    # Somebody else's file stands where one of the deliveries is to go.
    (archive.directory / BROKEN).write_text("not ours\n")

    scheduled = acme.add_flow(
        "sensor readings, every 3 seconds",
        acme.add_s3("sensors", sensors),
        acme.add_s3("data lake", lake),
        trigger={"kind": "interval", "every": "PT3S"},
    )
    legs = [
        Leg(
            "SFTP → S3",
            acme,
            acme.add_flow(
                "orders",
                acme.add_sftp("order desk", orders),
                acme.add_s3("landing", landing),
                selection={"recursive": True},
            ),
            made["orders"],
            lambda seen: evidence.in_bucket(s3, landing, made["orders"], transfers=seen),
        ),
        Leg(
            "S3 → SFTP",
            globex,
            globex.add_flow("invoices", globex.add_s3("billing", billing), globex.add_sftp("customer inbox", invoices)),
            made["invoices"],
            lambda seen: evidence.in_directory(invoices.directory, made["invoices"], transfers=seen),
        ),
        Leg(
            "SFTP → SFTP, staged",
            globex,
            globex.add_flow("statements", globex.add_sftp("printer", statements), globex.add_sftp("archive", archive)),
            made["statements"],
            lambda seen: evidence.in_directory(archive.directory, made["statements"], transfers=seen),
        ),
    ]
    for leg in legs:
        leg.customer.run(leg.flow)
    by_beat = lambda seen: evidence.in_bucket(s3, lake, made["readings"], transfers=seen)  # noqa: E731 - as the others
    return [*legs, Leg("S3 → S3, by schedule", acme, scheduled, made["readings"], by_beat)]


def _move(legs: list[Leg], out: Console) -> None:
    """Shows the files move until all rest; only the delivery that is blocked may rest elsewhere than in `settled`."""
    ends = time.monotonic() + PATIENCE.total_seconds()
    with Board(out, [(leg.title, len(leg.expected), leg.bytes) for leg in legs]) as board:
        while True:
            found = [_look(leg) for leg in legs]
            for number, transfers in enumerate(found):
                board.show(number, transfers)
            if all(
                len(transfers) >= len(leg.expected) and all(one["state"] in RESTING for one in transfers)
                for leg, transfers in zip(legs, found, strict=True)
            ):
                break
            if time.monotonic() > ends:
                stuck = [(leg, one) for leg, transfers in zip(legs, found, strict=True) for one in transfers if one["state"] not in RESTING]
                counts = ", ".join(f"{leg.title} {len(seen)} of {len(leg.expected)}" for leg, seen in zip(legs, found, strict=True))
                stories = "\n".join(told(leg.customer.transfer(one["id"])) for leg, one in stuck[:5])
                raise TooLate(f"after {PATIENCE.total_seconds():g} s not all files rest ({counts} found):\n{stories}")
            time.sleep(0.5)
    for leg in legs:
        _see_whole(leg)
    wrong = [one for leg in legs for one in leg.seen if one["state"] != "settled" and one["source"]["path"] != BROKEN]
    if wrong:
        raise CheckFailed("\n".join(told(one) for one in wrong[:5]))


def _look(leg: Leg) -> list[JsonObject]:
    """Returns a leg's transfers as a list shows them, large ones under way with the bytes that have come through."""
    found = list(leg.customer.transfers(flow=leg.flow))
    return [leg.customer.transfer(one["id"]) if (one["size"] or 0) >= LARGE and one["state"] not in RESTING else one for one in found]


def _see_whole(leg: Leg) -> None:
    with ThreadPoolExecutor(max_workers=4) as looks:
        leg.seen = list(looks.map(lambda one: leg.customer.transfer(one["id"]), list(leg.customer.transfers(flow=leg.flow))))


def _redrive(stack: LocalStack, legs: list[Leg], out: Console) -> None:
    """The blocked delivery: the way is cleared, the source is gone by now, and our own copy goes round again."""
    leg = legs[2]
    (blocked,) = [one for one in leg.seen if one["source"]["path"] == BROKEN]
    if blocked["state"] != "dead" or blocked["reason"] != "destination_exists" or not blocked["staged"]:
        raise CheckFailed(f"the blocked delivery should be dead with a staged copy: {told(blocked)}")
    out.print(f"[yellow]{BROKEN} could not be delivered:[/] {blocked['error']}")
    for account, name in (("globex-archive", BROKEN), ("globex-statements", BROKEN)):
        home = stack.password_sftp.home if account == "globex-archive" else stack.sftp.home
        (home / account / name).unlink()
    out.print("  The file in the way is removed, and the source, too; now it is re-driven from the staged copy …")
    leg.customer.redrive(blocked["id"])
    again = leg.customer.rested(blocked["id"], limit=timedelta(seconds=60))
    if again["state"] != "settled":
        raise CheckFailed(f"the re-drive did not settle: {told(again)}")
    out.print(f"  [green]{BROKEN} is delivered.[/]")
    _see_whole(leg)


def _apart(acme: Customer, globex: Customer, legs: list[Leg]) -> None:
    """Neither customer sees the other's transfers."""
    for stranger, leg in ((globex, legs[0]), (acme, legs[1])):
        try:
            stranger.transfer(leg.seen[0]["id"])
        except Refused as refused:
            if refused.status == 404:  # noqa: PLR2004 - HTTP's "not found"
                continue
        raise CheckFailed(f"{stranger.tenant} sees a transfer of {leg.customer.tenant}")


# -- what is said ------------------------------------------------------------------------------------------------------


def _summary(legs: list[Leg], findings: list[Findings], seconds: float, out: Console) -> bool:
    """Prints the table; returns whether all is as it should be."""
    table = Table(title="What stands at the destinations, compared with the sources", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("flow", no_wrap=True)
    table.add_column("of")
    for column in ("files", "MiB", "MB/s", "retries", "duplicates", "lost"):
        table.add_column(column, justify="right", no_wrap=True)
    totals = [0] * 5
    for leg, found in zip(legs, findings, strict=True):
        moved = sum(one["receipt"]["size"] for one in leg.seen if one["receipt"])
        counts = [
            len(found.good),
            moved,
            evidence.retries(leg.seen),
            len(found.duplicates),
            len(found.lost),
        ]
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        table.add_row(leg.title, leg.customer.tenant, *_figures(counts, _took(leg)))
    table.add_section()
    table.add_row("all", "", *_figures(totals, seconds), style="bold")
    out.print(table)
    return all(found.clean for found in findings)


def _figures(counts: list[int], seconds: float) -> list[str]:
    files, moved, *rest = counts
    return [str(files), f"{moved / MIB:.1f}", f"{moved / seconds / 1e6:.1f}", *map(str, rest)]


def _took(leg: Leg) -> float:
    """Returns the seconds from the first transfer's acceptance to the last receipt, re-driven ones aside."""
    times: list[Any] = [one for one in leg.seen if one["receipt"] and not one["redrives"]]
    if not times:
        return 1.0
    first = min(datetime.fromisoformat(one["created"]) for one in times)
    last = max(datetime.fromisoformat(one["receipt"]["at"]) for one in times)
    return max(0.001, (last - first).total_seconds())


def _show_logs(stack: LocalStack, out: Console) -> None:
    """Prints the ends of the logs, warnings and errors first."""
    for log in sorted(stack.logs.glob("*.log")):
        lines = log.read_text(errors="replace").splitlines()
        telling = [line for line in lines if '"level": "info"' not in line] or lines
        out.rule(f"the end of {log.name}")
        out.print("\n".join(telling[-LOG_LINES:]), markup=False, highlight=False)
