"""`eft token`, `eft up`, `eft demo`: the local stack from the command line."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import jwt
import pytest

from deploy.local.identity import create_identity
from eft.cli.profiles import read_profile
from eft.cli.token import OPERATOR, SCOPES, TENANT
from tests.cli.conftest import URL, Desk


@pytest.fixture
def stack(desk: Desk) -> Path:
    """The directory of a local stack that has run, and whose issuer the API trusts."""
    (desk.home / "api-url").write_text(f"{URL}\n")
    return desk.home


def claims(token: str) -> dict[str, object]:
    """Returns what a token says."""
    read: dict[str, object] = jwt.decode(token, options={"verify_signature": False})
    return read


def test_prints_a_token_that_works(desk: Desk, stack: Path) -> None:
    """The token stands alone on standard output, and the API takes it."""
    del desk.environ["EFT_TOKEN"]
    result = desk.run("token", "--tenant", "acme", "--directory", str(stack))
    assert result.stderr == ""
    desk.environ["EFT_TOKEN"] = result.stdout.strip()
    assert len(desk.json("endpoint", "list")["items"]) == 4


def test_a_token_says_what_was_asked(desk: Desk, stack: Path) -> None:
    """Tenant, scopes and lifetime are those of the command; by default all of a customer's scopes and twelve hours."""
    words = ("token", "--directory", str(stack), "--tenant", "acme")
    narrow = claims(desk.json(*words, "--scope", "flows:read", "--scope", "flows:write", "--lifetime", "1h")["token"])
    assert (narrow["tenant"], narrow["scope"]) == ("acme", "flows:read flows:write")
    assert int(str(narrow["exp"])) - int(str(narrow["iat"])) == timedelta(hours=1).total_seconds()
    wide = desk.json(*words)
    assert claims(wide["token"])["scope"] == " ".join(SCOPES)
    assert (wide["expires_in"], wide["api_url"]) == (43200, URL)


def test_saves_a_token(desk: Desk, stack: Path) -> None:
    """A saved token is not printed; with it and the stack's address later commands need nothing else."""
    del desk.environ["EFT_TOKEN"], desk.environ["EFT_API_URL"]
    result = desk.run("token", "--save", "--tenant", "acme", "--directory", str(stack))
    saved = read_profile(Path(desk.environ["EFT_CONFIG"]), "default")
    assert saved.api_url == URL
    assert saved.token is not None
    assert saved.token not in result.output
    assert desk.run("endpoint", "list").exit_code == 0
    assert desk.json("token", "--save", "--directory", str(stack))["profile"] == "default"


def test_says_when_the_address_is_not_known(desk: Desk) -> None:
    """Where the stack has left no address, the token is saved with a remark."""
    del desk.environ["EFT_API_URL"]
    assert "EFT_API_URL" in desk.run("token", "--save", "--directory", str(desk.home)).stderr


def test_there_is_no_token_without_a_stack(desk: Desk, tmp_path: Path) -> None:
    """A directory in which no local stack has run is a usage error; no issuer is made there."""
    result = desk.run("token", "--directory", str(tmp_path / "nowhere"))
    assert result.exit_code == 2
    assert "eft up" in result.stderr
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("words", [("--tenant", "A B"), ("--scope", "endpoints:reed")])
def test_issues_no_token_that_the_api_refuses(desk: Desk, stack: Path, words: tuple[str, str]) -> None:
    """A tenant or a scope that cannot be is a usage error, and nothing is printed."""
    result = desk.run("token", *words, "--directory", str(stack))
    assert (result.exit_code, result.stdout) == (2, "")
    assert words[1] in result.stderr


def test_the_scopes_are_the_apis() -> None:
    """A customer's token has all scopes of the API but the operators'."""
    from api.auth import TENANT as API_TENANT  # noqa: PLC0415 - beside their only use
    from api.auth import Scope  # noqa: PLC0415 - as above

    assert set(SCOPES) == set(Scope) - {Scope.OPERATOR}
    assert Scope(OPERATOR) is Scope.OPERATOR
    assert API_TENANT == TENANT


class Stack(ModuleType):
    """A module of the local stack that notes how it is run."""

    def __init__(self, name: str, answer: int | None) -> None:
        super().__init__(name)
        self.answer = answer
        self.given: dict[str, object] = {}

    def run(self, **given: object) -> int | None:
        """Notes what it is given."""
        self.given = given
        return self.answer


@pytest.mark.parametrize(("answer", "code"), [(None, 0), (0, 0), (1, 1)])
@pytest.mark.parametrize("name", ["up", "demo"])
def test_starts_the_local_stack(desk: Desk, monkeypatch: pytest.MonkeyPatch, name: str, answer: int | None, code: int) -> None:
    """`eft up` and `eft demo` run the local stack, and end with its exit code."""
    stack = Stack(f"deploy.local.{name}", answer)
    monkeypatch.setitem(sys.modules, stack.__name__, stack)
    words = {"up": ("--port", "0", "--directory", "/x", "--workers", "3"), "demo": ("--keep",)}[name]
    assert desk.run(name, *words).exit_code == code
    assert stack.given == {"up": {"directory": Path("/x"), "port": 0, "workers": 3}, "demo": {"keep": True}}[name]


@pytest.mark.parametrize("name", ["up", "demo"])
def test_says_when_there_is_no_local_stack(desk: Desk, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """In an installation without the local stack the command says what is missing and where it is to be had."""
    monkeypatch.setitem(sys.modules, f"deploy.local.{name}", None)
    result = desk.run(name)
    assert result.exit_code == 6
    assert "make setup" in result.stderr


def test_the_issuer_of_the_fixture_is_the_stacks(desk: Desk) -> None:
    """The issuer that the command finds is the one that the API trusts."""
    assert create_identity(desk.home / "identity") == desk.identity
