"""`eft up --regions 2`: two regions on this machine until Ctrl-C, and how to break what is between them.

Words written into files of the stack's directory are what happens to it: `link` (up, cut, silent, or a delay such as 200ms), and
`west/power` or `east/power` (on, dark, lost).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from rich.console import Console

from deploy.local import samples
from deploy.local.alone import alone
from deploy.local.link import LinkState
from deploy.local.process import StartFailed, stop_on_signals
from deploy.local.regions import EAST, OPERATOR, WEST, TwoRegions
from deploy.local.sftp import SftpAccount, write_private
from deploy.local.up import BUCKET, OUTBOX, TENANT
from eft.cli.profiles import Profile, default_path, environment, save_profile

NAMES: Final[Mapping[str, str]] = {"west": WEST, "east": EAST}
LOOK_SECONDS: Final = 0.2


class Switchboard:
    """Carries out what the control files say, each time that one of them changes."""

    def __init__(self, pair: TwoRegions, say: Callable[[str], object]) -> None:
        self.pair = pair
        self._say = say
        self._dark: set[str] = set()
        self._acts: dict[Path, Callable[[str], None]] = {pair.directory / "link": self._link}
        for name, region in NAMES.items():
            self._acts[pair.directory / name / "power"] = lambda word, region=region: self._power(region, word)  # type: ignore[misc]
        self._said: dict[Path, str] = {}
        for path in self._acts:
            word = "up" if path.name == "link" else "on"
            path.write_text(f"{word}\n", encoding="utf-8")
            self._said[path] = word

    def look(self) -> None:
        """Acts on every file that says something new; an unknown word is told and changes nothing."""
        for path, act in self._acts.items():
            word = path.read_text(encoding="utf-8").strip() if path.exists() else ""
            if not word or word == self._said[path]:
                continue
            self._said[path] = word
            try:
                act(word)
            except (ValueError, StartFailed) as error:
                self._say(f"{path.relative_to(self.pair.directory)}: {error}")
            else:
                self._say(f"{path.relative_to(self.pair.directory)}: {word}")

    def _link(self, word: str) -> None:
        if word.endswith("ms") and word[:-2].isdigit():
            self.pair.delay(timedelta(milliseconds=int(word[:-2])))
            return
        try:
            state = LinkState(word)
        except ValueError:
            raise ValueError(f"'{word}' is none of {', '.join(LinkState)}, 200ms") from None
        for link in self.pair.links.values():
            link.become(state)

    def _power(self, region: str, word: str) -> None:
        acts = {"on": self.pair.bring_back, "dark": self.pair.darken, "lost": self.pair.lose}
        if word not in acts:
            raise ValueError(f"'{word}' is none of {', '.join(acts)}")
        if (word == "on") == (region not in self._dark):
            raise ValueError(f"it is {'on' if word == 'on' else 'off'} already")
        (self._dark.discard if word == "on" else self._dark.add)(region)
        acts[word](region)


def run(*, directory: Path, port: int, workers: int = 1, console: Console | None = None) -> int:
    """Returns the exit status once the pair has been told to stop: 0, or 1 when it could not start.

    The APIs serve on `port` and the next one, or on free ports where it is 0. The profiles `west` and `east` of the command line are
    left with an operator's token, the address of the western API in the directory's `api-url`.
    """
    out = console or Console()
    try:
        with stop_on_signals(), alone(directory, port, port + 1 if port else 0):
            _serve(directory, port=port, workers=workers, out=out)
    except StartFailed as failure:
        out.print("[bold red]The local stack cannot start.[/]")
        out.print(str(failure), markup=False, highlight=False)
        return 1
    except SystemExit:
        pass
    out.print("Stopped.")
    return 0


def _serve(directory: Path, *, port: int, workers: int, out: Console) -> None:
    _empty(directory)
    pair = TwoRegions(directory, workers=workers, monitored=True, api_ports={WEST: port, EAST: port + 1} if port else None)
    address = directory / "api-url"
    try:
        with out.status("Starting …") as status:
            pair.start(lambda what: status.update(f"Starting … {what} is up"))
        address.write_text(f"{pair.stacks[WEST].api_url}\n", encoding="utf-8")
        switchboard = Switchboard(pair, lambda line: out.print(line, markup=False, highlight=False))
        _explain(pair, directory, _outbox(pair), out)
        while True:
            switchboard.look()
            time.sleep(LOOK_SECONDS)
    finally:
        address.unlink(missing_ok=True)
        with out.status("Stopping …"):
            pair.stop()


def _empty(directory: Path) -> None:
    """Removes what an earlier stack left, but for its issuer: tokens stay good."""
    for name in ("west", "east", "customers-s3", "sftp", "password-sftp", "keys", "link", "replication.log"):
        path = directory / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _outbox(pair: TwoRegions) -> tuple[SftpAccount, Path]:
    outbox = pair.account("outbox")
    samples.in_directory(outbox.directory, OUTBOX)
    keys = pair.directory / "keys"
    keys.mkdir(mode=0o700, exist_ok=True)
    write_private(keys / "outbox", outbox.private_key or "")
    pair.bucket(BUCKET)
    return outbox, keys / "outbox"


def _explain(pair: TwoRegions, directory: Path, found: tuple[SftpAccount, Path], out: Console) -> None:
    outbox, key_file = found
    environ = environment()
    config = Path(environ.get("EFT_CONFIG") or default_path(environ))

    def line(text: str = "") -> None:
        out.print(text, highlight=False, soft_wrap=True)

    line("[bold green]Two regions are up.[/]")
    line()
    for name, region in NAMES.items():
        stack = pair.stacks[region]
        save_profile(config, Profile(name=name, api_url=stack.api_url, token=stack.token(TENANT, scopes=OPERATOR)))
        line(f"  {name}   {region}   API {stack.page_url}   Flower {stack.flower_url} (user eft, password {stack.flower_password})")
    line()
    line("[bold]Look[/]: the profiles 'west' and 'east' hold an operator's token")
    line("  eft --profile west region status")
    line()
    line("[bold]Onboard the sample server and the sample bucket, and move a file[/]; the other region knows them a moment later")
    line(
        f"  eft --profile west endpoint add sftp outbox --host {outbox.host} --port {outbox.port} -u {outbox.username}"
        f" --root {outbox.directory} \\\n      --key-file {directory / 'keys' / key_file.name} --host-key '{outbox.host_key}'"
    )
    line(f"  eft --profile west endpoint add s3 landing --bucket {BUCKET} --region {WEST} --endpoint-url {pair.customers_s3.url}")
    line("  eft --profile east transfer submit --from outbox:orders/scan.tif --to landing --watch")
    line()
    line("[bold]Break something[/], and mend it")
    line(f"  echo cut > {directory}/link            # silent swallows everything; 200ms slows it down; up mends it")
    line(f"  echo dark > {directory}/west/power     # the whole region fails; lost: for good; on brings it back")
    line()
    line("What to do then: docs/runbooks. Ctrl-C stops everything.")
