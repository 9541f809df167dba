"""Requests that make no sense: each is refused with exit code 2, by the option that is wrong and with what to write instead."""

from __future__ import annotations

import json

import pytest

from eft.cli.fields import NAMES
from tests.cli.conftest import Desk
from tests.cli.test_main import ALL

FLOW = ("flow", "add", "invoices", "--from", "sftp-a:in", "--to", "s3-a:out")
SUBMIT = ("transfer", "submit", "--from", "sftp-a:in/a.csv", "--to", "s3-a:out/")
SERVER = ("endpoint", "add", "sftp", "acme", "--host", "sftp.acme.test", "-u", "eft")
BACKFILL = ("flow", "backfill", "good", "--until", "2025-01-08T00:00:00Z", "--from")
ROTATE = ("endpoint", "rotate", "--no-test")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((*FLOW, "--every", "99999999999d"), "'--every': '99999999999d' is too long"),
        ((*FLOW, "--every", "9" * 5000 + "d"), "d' is too long"),
        ((*FLOW, "--every", "0s"), "--every: must be greater than or equal to 1 second"),
        ((*FLOW, "--min-size", "9" * 400), "9' is too large"),
        ((*FLOW, "--cron", "at noon"), "--cron: is no cron expression"),
        ((*FLOW, "--at", "yesterday"), "'--at': 'yesterday' is no time; write for example 2025-12-24T18:00:00Z"),
        ((*FLOW, "--at", "2026-12-24T18:00:00"), "has no time zone; write for example"),
        ((*FLOW, "--expect-by", "noon"), "--expect-by: is no cron expression"),
        ((*FLOW, "--every", "5m", "--blackout", "25:00-26:00"), "--blackout: must be in a valid time format"),
        ((*FLOW, "--name", "{nope}"), "--name: unknown field {nope}; known are"),
        ((*FLOW, "--workdays"), "--workdays, --holidays, --closed, --blackout, --misfire and --jitter go with --every, --cron or --at"),
        ((*FLOW, "--glob", ""), "--glob is empty"),
        ((*FLOW, "--exclude", ""), "--exclude is empty"),
        ((*FLOW, "--glob", "*", "--regex", ".*"), "--glob and --regex exclude each other"),
        ((*FLOW, "--max-depth", "2"), "Add --recursive."),
        ((*FLOW, "--looks-apart", "5s"), "Add --looks 2, or more."),
        ((*FLOW, "--from", "sftp-a:../in"), "--from: the name '../in' contains a '.' or '..' component"),
        (("flow", "add", "", "--from", "sftp-a", "--to", "s3-a"), "NAME: must have at least 1 character"),
        (("flow", "run", "good", "--quiet-for", "5s"), "Add --watch."),
        (("flow", "run", "good", "--timeout", "5s"), "Add --watch."),
        ((*BACKFILL, "monday"), "'--from': 'monday' is no time; write for example"),
        ((*BACKFILL, "2025-01-01"), "'--from': '2025-01-01' has no time zone"),
        ((*SUBMIT, "--key", ""), "--key '' is no Idempotency-Key"),
        ((*SUBMIT, "--key", "ü"), "Write 1 to 255 printable ASCII characters."),
        ((*SUBMIT, "--key", "k" * 256), "Write 1 to 255 printable ASCII characters."),
        ((*SUBMIT, "--timeout", "5m"), "Add --watch."),
        ((*SUBMIT, "--sha256", "abc"), "--sha256: must match"),
        (("transfer", "list", "--all", "--limit", "3"), "--limit and --all exclude each other"),
        (("transfer", "list", "--cursor", "zzz"), "--cursor: take it from the page before"),
        (("transfer", "show", ""), "'' is no id"),
        (("transfer", "watch", ""), "Give one that `list` shows; a variable of your shell may be empty."),
        (("transfer", "cancel", ".."), "'..' is no id"),
        ((*SERVER, "--password-stdin", "--bandwidth", "08:00-18:00=much"), "--bandwidth '08:00-18:00=much' is no window"),
        ((*SERVER, "--password-file", "/nowhere"), "--password-file: /nowhere cannot be read"),
        ((*SERVER, "--password-stdin", "--password-file", "/nowhere"), "Give --password-stdin or --password-file."),
        ((*ROTATE, "sftp-a", "--password-stdin", "--access-key-id", "AK"), "An SFTP endpoint's credential is a key or a password"),
        ((*ROTATE, "s3-a", "--password-stdin", "--access-key-id", "AK"), "An S3 endpoint's credential is a static key"),
    ],
)
def test_says_what_is_wrong_and_what_to_write(desk: Desk, words: tuple[str, ...], told: str) -> None:
    """Nothing is made, and nothing that was said is passed over in silence."""
    good = desk.json("flow", "add", "good", "--from", "sftp-a:in", "--to", "s3-a:out")["id"]
    result = desk.run(*words, typed="x\n")
    assert result.exit_code == 2, result.output
    assert told in result.stderr
    assert [flow.id for flow in desk.world.registry.flows("acme").items] == [good]
    assert desk.world.ledger.rows() == []
    assert not desk.world.queue


def test_what_is_wrong_before_a_request_is_one_document_too(desk: Desk) -> None:
    """With --json, options that do not go together are told as any other failure."""
    result = desk.run(*FLOW, "--listed-every", "5m", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert json.loads(result.stderr) == {"title": "--listed-every goes with --on-arrival", "exit_code": 2}


def test_options_that_fields_are_told_by_exist() -> None:
    """Each is an option or an argument of some command."""
    known = {option for command in ALL.values() for parameter in command.params for option in (*parameter.opts, parameter.metavar)}
    assert set(NAMES.values()) <= known
