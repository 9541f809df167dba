"""The command line against the real API in this process, over an engine of fakes whose queue moves while a command sleeps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from api.app import create_app
from api.auth import AuthSettings
from deploy.local.identity import Identity, create_identity, issue
from eft.cli.main import app
from eft.cli.session import Session
from eft.cli.token import SCOPES
from eft.domain.endpoint import Endpoint, HostKey, SftpEndpoint
from eft.ports import Check, ProbeReport
from tests.fake_store import FakeServer, FakeStores
from tests.world import TENANT, World

URL = "http://127.0.0.1:8080"
ED25519 = HostKey(algorithm="ssh-ed25519", key="AAAAC3NzaC1lZDI1NTE5AAAAIBERERERERERERERERERERERERERERERERERERERERER")
ECDSA_LIKE = HostKey(algorithm="ssh-rsa", key="AAAAB3NzaC1yc2EAAAADAQABAAAAgQCx")


class ShowingStores(FakeStores):
    """Stores whose probes find a server for every endpoint, unless its host is `dead`, and log in only where a shown key is pinned."""

    shows: tuple[HostKey, ...] = (ED25519, ECDSA_LIKE)
    dead: str = "dead.test"

    def probe(self, endpoint: Endpoint) -> ProbeReport:
        if not isinstance(endpoint, SftpEndpoint):
            return ProbeReport(ok=True, checks=(Check(name="list", ok=True, message="3 objects"),))
        if endpoint.host == self.dead:
            return ProbeReport(ok=False, checks=(Check(name="connect", ok=False, message="no route to host"),))
        pinned = set(endpoint.host_keys) & set(self.shows)
        check = Check(name="host key", ok=bool(pinned), message="pinned" if pinned else "no pinned key matches")
        return ProbeReport(ok=bool(pinned), checks=(check,), host_keys=self.shows, capabilities={"posix-rename": "yes"})


@dataclass
class Desk:
    """A person at a shell: runs commands, and reads what they answer."""

    world: World
    stores: ShowingStores
    identity: Identity
    transport: httpx.BaseTransport
    home: Path
    environ: dict[str, str]
    person: bool = False
    """Whether somebody is there to be asked."""
    naps: list[float] = field(default_factory=list)
    while_asleep: Callable[[], None] | None = None
    """What happens meanwhile; else one message is carried out."""

    def run(self, *words: str, typed: str | None = None) -> Result:
        """Runs a command; `typed` is its standard input."""
        session = Session(
            environ=self.environ,
            transport=self.transport,
            sleep=self._sleep,
            monotonic=self.world.clock.monotonic,
            interactive=lambda: self.person,
        )
        result = CliRunner().invoke(app, list(words), input=typed, obj=session, catch_exceptions=False)
        assert result.stderr is not None
        return result

    def json(self, *words: str, code: int = 0, typed: str | None = None) -> Any:  # noqa: ANN401 - parsed JSON
        """Runs a command with --json, and returns its one document."""
        result = self.run(*words, "--json", typed=typed)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    def token(self, *scopes: str, tenant: str = TENANT) -> str:
        """Returns a token of the stack's issuer."""
        return issue(self.identity, tenant, scopes or SCOPES, timedelta(hours=1))

    def file(self, name: str, content: str) -> str:
        """Returns the path of a new file."""
        made = self.home / name
        made.write_text(content)
        return str(made)

    def _sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.world.clock.advance(seconds)
        if self.while_asleep is not None:
            self.while_asleep()
        elif self.world.queue:
            self.world.queue += self.world.deliver_message(self.world.queue.popleft())


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk in front of a whole system in memory, with the token of a customer in the environment."""
    world = World()
    stores = ShowingStores(world.clock, world.stores.servers)
    stores.staging_server = world.stores.staging_server
    world.stores = stores
    world.engine = replace(world.engine, stores=stores)
    identity = create_identity(tmp_path / "identity")
    auth = AuthSettings(issuer=identity.issuer, audience=identity.audience, jwks=str(identity.jwks))
    api = create_app(world.engine, world.queue.extend, auth)
    with httpx.WSGITransport(app=api) as transport:
        made = Desk(world=world, stores=stores, identity=identity, transport=transport, home=tmp_path, environ={})
        made.environ |= {"EFT_API_URL": URL, "EFT_TOKEN": made.token(), "EFT_CONFIG": str(tmp_path / "config.toml")}
        yield made


@pytest.fixture
def server(desk: Desk) -> FakeServer:
    """The SFTP server behind the endpoint `sftp-a`."""
    return desk.world.server("sftp-a")
