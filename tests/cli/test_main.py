"""The command as a whole: its help, its start, its completion, and what it leaves alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from eft.cli import policy
from eft.cli.endpoint import app as endpoint_app
from eft.cli.failure import EXIT_CODES, ExitCode
from eft.cli.main import app
from eft.cli.transfer import StateName
from eft.domain.endpoint import RenameMode
from eft.domain.flow import Checksum, ConflictMode, Disposition, Priority
from eft.domain.transfer import State
from tests.cli.conftest import Desk

LOCAL = {"up", "demo"}


def commands(command: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401 - the framework's own types
    """Yields every command with its words."""
    command = command or get_command(app)
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from commands(inner, (*words, name))
    else:
        yield words, command


ALL = dict(commands())


def test_the_commands_are_those_promised() -> None:
    """Each noun has its verbs."""
    assert {" ".join(words) for words in ALL} == {
        *(f"endpoint {verb}" for verb in ("add sftp", "add s3", "test", "pin", "rotate", "list", "show", "remove")),
        *(f"flow {verb}" for verb in ("add", "run", "list", "show", "plan", "next", "backfill", "pause", "resume", "remove")),
        *(f"transfer {verb}" for verb in ("submit", "watch", "list", "show", "redrive", "cancel", "decide")),
        *(f"webhook {verb}" for verb in ("add", "list", "show", "remove", "test", "rotate", "deliveries", "resend")),
        *(f"region {verb}" for verb in ("status", "drain", "undrain", "hand-over", "promote", "solo", "rejoin", "confirm")),
        *("token", "up", "demo", "version"),
    }


@pytest.mark.parametrize("words", ALL)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    """Each command has a help text, each of its options too, and each that answers speaks JSON."""
    command = ALL[words]
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0
    assert command.help
    assert [parameter.name for parameter in command.params if not parameter.help] == []
    assert ("--json" in result.stdout) is (words[-1] not in LOCAL)


@pytest.mark.parametrize("words", ALL)
def test_no_secret_is_taken_from_the_command_line(words: tuple[str, ...]) -> None:
    """No option takes a secret as its value: those about secrets are flags, or name a file."""
    for parameter in ALL[words].params:
        if any(word in parameter.name for word in ("password", "passphrase", "secret", "token")):
            assert parameter.is_flag or parameter.name.endswith("_file"), parameter.name


@pytest.mark.parametrize("words", [(), ("endpoint",), ("flow",), ("transfer",)])
def test_the_exit_codes_are_in_the_help(words: tuple[str, ...]) -> None:
    """The help of the command and of each noun lists every exit code."""
    shown = CliRunner().invoke(app, [*words, "--help"]).stdout.partition("Exit codes:")[2].split("\n")
    assert [line.split()[0] for line in shown if line.strip()] == [str(int(code)) for code in ExitCode]


@pytest.mark.parametrize(
    ("option", "values"),
    [
        (policy.Conflict, ConflictMode),
        (policy.Dispose, Disposition),
        (policy.Checksum, Checksum),
        (policy.Priority, Priority),
    ],
)
def test_choices_are_the_engines(option: Any, values: Any) -> None:  # noqa: ANN401 - annotations
    """What can be chosen is what the engine knows; the client repeats it so that its help needs no engine."""
    choices = {value for part in get_args(get_args(option)[0]) for value in get_args(part)}
    assert choices == {str(value) for value in values}


def test_states_and_renames_are_the_engines() -> None:
    """The states that a list filters by and the ways to rename are the engine's."""
    assert set(get_args(StateName)) == {str(state) for state in State}
    [rename] = [p for p in ALL["endpoint", "add", "sftp"].params if p.name == "rename"]
    assert set(rename.type_descriptor.choices) == {str(mode) for mode in RenameMode}


@pytest.mark.parametrize("words", [["--help"], ["transfer", "submit", "--help"], ["version"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    """Help and version are there at once, for they load no HTTP client and no tables, and no command needs an engine."""
    code = (
        "import sys\nfrom eft.cli.main import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = {'httpx', 'rich', 'boto3', 'celery', 'kombu', 'flask', 'paramiko', 'deploy'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr.strip() == "[]"


def test_a_request_needs_no_engine() -> None:
    """Even the whole client, loaded with every module, is no more than a REST client."""
    code = (
        "import sys, pkgutil, importlib, eft.cli\n"
        "for found in pkgutil.iter_modules(eft.cli.__path__):\n"
        "    found.name == '__main__' or importlib.import_module('eft.cli.' + found.name)\n"
        "heavy = {'boto3', 'botocore', 'celery', 'kombu', 'flask', 'paramiko', 'tasks', 'api', 'deploy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_the_module_is_the_command() -> None:
    """`python -m eft.cli` does the same as `eft`."""
    done = subprocess.run([sys.executable, "-m", "eft.cli", "version"], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == version("eft")


def test_prints_the_version(desk: Desk) -> None:
    """The version is that of the installed package."""
    assert desk.run("version").stdout == version("eft") + "\n"
    assert desk.json("version") == {"version": version("eft")}


def test_completes_words(desk: Desk) -> None:
    """The shell completes nouns, verbs and choices."""

    def completed(line: str) -> list[str]:
        env = {"_EFT_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
        return CliRunner().invoke(app, [], env=env, prog_name="eft").stdout.split()

    assert completed("eft transfer re") == ["redrive"]
    assert completed("eft transfer list --state hel") == ["held"]
    assert completed("eft endpoint add s") == ["sftp", "s3"]


def test_nothing_said_is_help(desk: Desk) -> None:
    """A noun without a verb prints its help, and is a usage error."""
    result = CliRunner().invoke(endpoint_app, [])
    assert result.exit_code == 2
    assert "Usage:" in result.output


def test_an_unknown_command_is_a_usage_error(desk: Desk) -> None:
    """A misspelt command is told on standard error, with the word that is closest."""
    result = desk.run("transfr")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "transfer" in result.stderr


def test_errors_for_programs_are_one_document(desk: Desk) -> None:
    """With --json a failure is one JSON document on standard error, and standard output stays empty."""
    result = desk.run("flow", "show", "nowhere", "--json")
    assert (result.exit_code, result.stdout) == (3, "")
    told = json.loads(result.stderr)
    assert (told["exit_code"], told["advice"]) == (3, "`eft flow list` shows what there is.")


def test_an_interrupt_is_no_failure_of_ours(desk: Desk) -> None:
    """Ctrl-C ends a command with 130, as shells expect."""

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    made = desk.json("transfer", "submit", "--from", "sftp-a:in/x", "--to", "s3-a")["id"]
    desk._sleep = interrupt  # type: ignore[method-assign]
    assert desk.run("transfer", "watch", made).exit_code == 130
    assert typer.Exit(130).exit_code == 130


def test_the_exit_codes_are_in_the_documentation() -> None:
    """docs/cli.md lists the exit codes in the words of the help."""
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    for line in EXIT_CODES.splitlines()[2:]:
        code, words = line.split(maxsplit=1)
        assert f"| {code} | {words} |" in page
