"""`eft up`: the whole engine on this machine, until Ctrl-C, and how to use it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from deploy.local import places, samples
from deploy.local.alone import alone
from deploy.local.process import StartFailed, stop_on_signals
from deploy.local.samples import MIB, many
from deploy.local.sftp import SftpAccount, write_private
from deploy.local.stack import FLOWER_USER, LocalStack, Pool
from eft.cli.profiles import DEFAULT_PROFILE, Profile, default_path, environment, read_profile, save_profile

TENANT: Final = "demo"
LOCAL_PROFILE: Final = "local"
OUTBOX: Final[Mapping[str, int]] = {**many("orders/order", 12), **many("orders/empty", 1, size=0), "orders/scan.tif": 24 * MIB}
BUCKET: Final = "demo-landing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What a newcomer finds to try things with."""

    outbox: SftpAccount
    inbox: SftpAccount
    key_file: Path
    password_file: Path
    bucket: str


def run(*, directory: Path, port: int, workers: int = 2, pool: Pool = "threads", console: Console | None = None) -> int:
    """Returns the exit status once the stack has been told to stop: 0, or 1 when it could not start.

    The address is left in the directory's `api-url` for `eft token`, and a token in a profile of the command line: the
    default one unless that leads elsewhere, else `local`.
    """
    out = console or Console()
    try:
        with stop_on_signals(), alone(directory, port):
            _serve(directory, port=port, workers=workers, pool=pool, out=out)
    except StartFailed as failure:
        out.print("[bold red]The local stack cannot start.[/]")
        out.print(str(failure), markup=False, highlight=False)
        return 1
    except SystemExit:
        pass
    out.print("Stopped.")
    return 0


def _serve(directory: Path, *, port: int, workers: int, pool: Pool, out: Console) -> None:
    _empty(directory)
    stack = LocalStack(directory, workers=workers, pool=pool, api_port=port or None, ingress=True)
    address = directory / "api-url"
    try:
        with out.status("Starting …") as status:
            stack.start(lambda what: status.update(f"Starting … {what} is up"))
        address.write_text(f"{stack.api_url}\n", encoding="utf-8")
        _explain(stack, _samples(stack, directory), _saved(stack), out)
        threading.Event().wait()
    finally:
        address.unlink(missing_ok=True)
        with out.status("Stopping …"):
            stack.stop()


def _empty(directory: Path) -> None:
    for entry in ("aws", "redis", "sftp", "password-sftp", "logs", "keys"):
        shutil.rmtree(directory / entry, ignore_errors=True)


def _samples(stack: LocalStack, directory: Path) -> Samples:
    outbox = stack.account("outbox")
    samples.in_directory(outbox.directory, OUTBOX)
    inbox = stack.password_sftp.account("inbox")
    keys = directory / "keys"
    keys.mkdir(mode=0o700, exist_ok=True)
    key_file, password_file = keys / "outbox", keys / "inbox-password"
    write_private(key_file, outbox.private_key or "")
    write_private(password_file, f"{inbox.password}\n")
    return Samples(outbox=outbox, inbox=inbox, key_file=key_file, password_file=password_file, bucket=stack.bucket(BUCKET))


def _saved(stack: LocalStack) -> str:
    """Stores address and token where the command line finds them; returns the profile's name."""
    environ = environment()
    path = Path(environ.get("EFT_CONFIG") or default_path(environ))
    present = read_profile(path, DEFAULT_PROFILE)
    free = present.api_url is None or present.api_url.startswith("http://127.0.0.1:")
    name = DEFAULT_PROFILE if free else LOCAL_PROFILE
    save_profile(path, Profile(name=name, api_url=stack.api_url, token=stack.token(TENANT)))
    return name


def _explain(stack: LocalStack, found: Samples, profile: str, out: Console) -> None:
    eft = "eft" if profile == DEFAULT_PROFILE else f"eft --profile {profile}"
    outbox, inbox = found.outbox, found.inbox

    def line(text: str = "") -> None:
        out.print(text, highlight=False, soft_wrap=True)

    line(f"[bold green]The engine is up[/] with {len(stack.workers)} workers.")
    line()
    line(f"  API, to read and try   {stack.page_url}")
    line(f"  Flower                 {stack.flower_url}   user {FLOWER_USER}, password {stack.flower_password}")
    line(f"  AWS emulator           {stack.aws.url}   region {stack.aws.region}, any access key")
    line(f"  Logs                   {_near(stack.logs)}/")
    line()
    line(f"[bold]A token[/] for the customer '{TENANT}' is in the profile '{profile}'; another:")
    line("  eft token --tenant acme")
    line()
    line("[bold]Onboard the sample servers and the sample bucket[/]")
    line(
        f"  {eft} endpoint add sftp outbox --host {outbox.host} --port {outbox.port} -u {outbox.username} --root {outbox.directory} \\\n"
        f"      --key-file {_near(found.key_file)} --host-key '{outbox.host_key}'"
    )
    line(
        f"  {eft} endpoint add sftp inbox --host {inbox.host} --port {inbox.port} -u {inbox.username} --root {inbox.directory} \\\n"
        f"      --password-file {_near(found.password_file)} --host-key '{inbox.host_key}'"
    )
    line(f"  {eft} endpoint add s3 landing --bucket {found.bucket} --region {stack.aws.region}")
    line()
    line("[bold]Move files[/]")
    line(f"  {eft} transfer submit --from outbox:orders/scan.tif --to landing --watch")
    line(f"  {eft} flow add orders --from outbox:orders --to inbox:orders --every 10s")
    line(f"  {eft} transfer list")
    line()
    line(f"The files of the sample servers lie in {_near(outbox.directory)} and {_near(inbox.directory)}.")
    line("Ctrl-C stops everything.")


def _near(path: Path) -> Path:
    """Returns the path as seen from the checkout, where it lies in it."""
    return path.relative_to(places.ROOT) if path.is_relative_to(places.ROOT) and Path.cwd() == places.ROOT else path
