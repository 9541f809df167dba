"""Address and token: environment, options, and the profiles of the configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from eft.cli.failure import Failure
from eft.cli.profiles import Profile, default_path, exposed, read_profile, save_profile
from eft.cli.session import Session
from tests.cli.conftest import URL, Desk

FILE = """\
# mine
[profiles.default]
api_url = "https://a.test"
token = "t-a"

[profiles.lab]  # the lab
api_url = "https://b.test"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration file with two profiles."""
    made = tmp_path / "config.toml"
    made.write_text(FILE)
    return made


def test_reads_a_profile(config: Path) -> None:
    """A profile has what stands in its table; one that is not there, or a missing file, has nothing."""
    assert read_profile(config, "default") == Profile("default", "https://a.test", "t-a")
    assert read_profile(config, "lab") == Profile("lab", "https://b.test", None)
    assert read_profile(config, "nobody") == Profile("nobody")
    assert read_profile(config.with_name("absent.toml"), "default") == Profile("default")


@pytest.mark.parametrize(
    "text",
    ["[profiles", "profiles = 1", "[profiles]\ndefault = 1", "[profiles.default]\ntokn = 'x'", "[profiles.default]\ntoken = 1", "\xff"],
)
def test_a_malformed_file_is_named(tmp_path: Path, text: str) -> None:
    """Whatever is wrong with the file is told with its path."""
    made = tmp_path / "config.toml"
    made.write_bytes(text.encode("latin-1"))
    with pytest.raises(Failure, match=str(made)):
        read_profile(made, "default")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A directory in the file's place is told as such."""
    with pytest.raises(Failure, match="cannot be read"):
        read_profile(tmp_path, "default")


@pytest.mark.parametrize("name", ["default", "lab", "new"])
def test_saving_changes_one_profile(config: Path, name: str) -> None:
    """A saved profile reads back; the others and the comments stay; only the owner can read the file."""
    others = {other: read_profile(config, other) for other in ("default", "lab") if other != name}
    saved = Profile(name, "https://c.test", 'q"uo\\te')
    save_profile(config, saved)
    assert read_profile(config, name) == saved
    assert {other: read_profile(config, other) for other in others} == others
    assert config.read_text().startswith("# mine\n")
    assert config.stat().st_mode & 0o777 == 0o600
    assert [left.name for left in config.parent.iterdir()] == ["config.toml"]


def test_saving_makes_the_file(tmp_path: Path) -> None:
    """The first profile makes the file and its directory."""
    made = tmp_path / "a" / "b" / "config.toml"
    save_profile(made, Profile("default", None, "t"))
    assert read_profile(made, "default") == Profile("default", None, "t")


@pytest.mark.parametrize("text", ["profiles = {default = {token = 'x'}}\n", "[profiles\n", 'note = """\n[profiles.default]\n[x]\n"""\n'])
def test_a_file_that_cannot_be_changed_stays(tmp_path: Path, text: str) -> None:
    """A layout that cannot take the profile is refused, and the file stays as it was."""
    made = tmp_path / "config.toml"
    made.write_text(text)
    with pytest.raises(Failure):
        save_profile(made, Profile("default", None, "t"))
    assert made.read_text() == text


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Where the directory cannot be made, the path and a way out are told."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Failure, match="cannot be written"):
        save_profile(tmp_path / "file" / "config.toml", Profile("default", None, "t"))


def test_a_profile_has_a_plain_name(config: Path) -> None:
    """A name that would need quoting is refused."""
    with pytest.raises(Failure, match="no name"):
        save_profile(config, Profile("a.b", None, "t"))


def test_the_default_file_is_where_others_are() -> None:
    """The file lies in the user's configuration directory, as XDG says."""
    assert default_path({"XDG_CONFIG_HOME": "/x"}) == Path("/x/eft/config.toml")
    assert default_path({}) == Path.home() / ".config/eft/config.toml"
    assert Session(environ={"XDG_CONFIG_HOME": "/x"}).config_path == Path("/x/eft/config.toml")


def test_what_is_nearer_wins(desk: Desk) -> None:
    """The option beats the environment, and the environment the profile."""
    Path(desk.environ["EFT_CONFIG"]).write_text(FILE)
    session = Session(environ=desk.environ, api_url="https://option.test")
    assert session.profile().api_url == "https://option.test"
    session.api_url = None
    assert session.profile().api_url == URL
    del desk.environ["EFT_API_URL"], desk.environ["EFT_TOKEN"]
    assert (session.profile().api_url, session.profile().token) == ("https://a.test", "t-a")
    session.profile_name = "lab"
    assert session.profile() == Profile("lab", "https://b.test", None)


def test_a_token_is_in_no_repr() -> None:
    """Neither profile nor session shows a token when printed."""
    assert "s3cret" not in repr(Profile("p", "u", "s3cret"))
    assert "s3cret" not in repr(Session(environ={"EFT_TOKEN": "s3cret"}))


def test_commands_work_from_a_profile(desk: Desk) -> None:
    """With address and token in a profile, a command needs no environment; a file that others can read is warned about."""
    config = Path(desk.environ["EFT_CONFIG"])
    save_profile(config, Profile("work", URL, desk.environ["EFT_TOKEN"]))
    del desk.environ["EFT_API_URL"], desk.environ["EFT_TOKEN"]
    quiet = desk.run("--profile", "work", "endpoint", "list")
    assert (quiet.exit_code, quiet.stderr) == (0, "")
    config.chmod(0o644)
    assert "chmod 600" in desk.run("--profile", "work", "endpoint", "list").stderr


def test_a_token_without_a_file_is_no_exposure(tmp_path: Path) -> None:
    """A file that does not exist exposes nothing."""
    assert exposed(tmp_path / "absent.toml") is False


def test_says_what_is_missing(desk: Desk) -> None:
    """Without an address the exit code is 2, without a token 4, and both say what to set."""
    token = desk.environ.pop("EFT_TOKEN")
    no_token = desk.run("endpoint", "list")
    assert no_token.exit_code == 4
    assert "EFT_TOKEN" in no_token.stderr
    desk.environ["EFT_TOKEN"] = token
    del desk.environ["EFT_API_URL"]
    no_address = desk.run("endpoint", "list")
    assert no_address.exit_code == 2
    assert "EFT_API_URL" in no_address.stderr
    assert "has no profile" not in no_address.stderr
    assert desk.run("--profile", "a.b", "endpoint", "list").exit_code == 2
    assert "has no profile 'wrok'" in desk.run("--profile", "wrok", "endpoint", "list").stderr
