"""Flower's pages in a real browser while transfers run; `python -m tests.browser.flower FILE` takes the picture in the README."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from deploy.local.stack import FLOWER_USER, LocalStack

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
QUIET: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1400,900",
    "--virtual-time-budget=15000",
)


def browser() -> str:
    """Returns the browser's program; raises SystemExit where there is none."""
    for name in BROWSERS:
        if (found := shutil.which(name)) is not None:
            return found
    raise SystemExit("no browser is installed (Debian: apt-get install chromium)")


def look(stack: LocalStack, path: str, *, picture: Path | None = None) -> str:
    """Returns a page of Flower as the browser has built it, and takes its picture if asked."""
    address = stack.flower_url.replace("http://", f"http://{FLOWER_USER}:{stack.flower_password}@") + path
    shot = [f"--screenshot={picture}"] if picture else []
    with tempfile.TemporaryDirectory() as profile:
        command = [browser(), *QUIET, f"--user-data-dir={profile}", *(shot or ["--dump-dom"]), address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def work(stack: LocalStack) -> None:
    """Moves a few files, so that there is something to see."""
    account = stack.account("browser")
    for number in range(24):
        (account.directory / f"report-{number:02d}.csv").write_bytes(b"x" * 10_240)
    with stack.customer("browser") as customer:
        source = customer.add_sftp("partner", account)
        target = customer.add_s3("bucket", stack.bucket("browser-target"))
        flow = customer.add_flow("reports", source, target)
        customer.run(flow)
        until = time.monotonic() + 120
        while sum(t["state"] == "settled" for t in customer.transfers(flow=flow)) < 24:
            if time.monotonic() > until:
                raise SystemExit("the files did not arrive")
            time.sleep(0.5)


def main(picture: Path) -> None:
    """Starts the stack, works, looks, and says what was seen."""
    with tempfile.TemporaryDirectory() as directory, LocalStack(Path(directory)) as stack:
        work(stack)
        workers, tasks = look(stack, "/workers"), look(stack, "/tasks")
        look(stack, "/tasks", picture=picture.resolve())
    seen = {"worker-1": "worker-1" in workers, "worker-2": "worker-2" in workers, "eft.deliver": "eft.deliver" in tasks}
    sys.stdout.write(" ".join(f"{what}={'seen' if there else 'MISSING'}" for what, there in seen.items()) + "\n")
    if not all(seen.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/flower.png"))
