"""`eft flow` against the real API."""

from __future__ import annotations

import json
from datetime import date, timedelta

import pytest

from eft.domain.flow import Cron, Disposition, Interval, Manual, Misfire, Once, Stability
from eft.domain.trigger import Calendar
from tests.cli.conftest import Desk
from tests.fake_store import FakeServer

ADD = ("flow", "add", "invoices", "--from", "sftp-a:in", "--to", "s3-a:out")


def test_adds_a_flow_with_all_that_it_says(desk: Desk) -> None:
    """Every option of `flow add` arrives in the flow."""
    words = (
        *("--glob", "*.csv", "--recursive", "--min-size", "1K", "--max-size", "1.5GB", "--min-age", "5m", "--max-age", "2d"),
        *("--every", "1h30m", "--name", "{date:%Y}/{name}", "--conflict", "rename", "--dispose", "archive", "--archive-to", "done"),
        *("--no-create-directories", "--checksum", "sha256", "--sidecar", "--staging", "--receiver-removes", "--priority", "bulk"),
        *("--tries", "3", "--paused"),
    )
    made = desk.json(*ADD, *words)
    flow = desk.world.registry.flow("acme", made["id"])
    selection, policy = flow.selection, flow.policy
    assert (flow.source, flow.destination, flow.destination_directory, flow.enabled) == ("sftp-a", "s3-a", "out", False)
    assert (selection.directory, selection.glob, selection.recursive) == ("in", "*.csv", True)
    assert (selection.min_size, selection.max_size) == (1024, 1_500_000_000)
    assert (selection.min_age.total_seconds(), selection.max_age and selection.max_age.total_seconds()) == (300, 172800)
    assert isinstance(flow.trigger, Interval)
    assert flow.trigger.every.total_seconds() == 5400
    assert (policy.name_template, policy.conflict, policy.disposition) == ("{date:%Y}/{name}", "rename", Disposition.ARCHIVE)
    assert (policy.archive_directory, policy.create_directories, policy.checksum) == ("done", False, "sha256")
    assert (policy.sidecar, policy.staging, policy.receiver_removes, policy.priority) == (True, True, True, "bulk")
    assert policy.retry.tries == 3


def test_a_receiver_keeps_files_or_takes_them(desk: Desk) -> None:
    """What is said of it arrives; both at once are refused before anything is asked."""
    flow = desk.world.registry.flow("acme", desk.json(*ADD, "--receiver-keeps")["id"])
    assert (flow.policy.receiver_keeps, flow.policy.receiver_removes) == (True, False)
    both = desk.run(*ADD, "--receiver-keeps", "--receiver-removes")
    assert (both.exit_code, "--receiver-removes and --receiver-keeps exclude each other" in both.stderr) == (2, True)


def test_what_is_not_said_is_the_default(desk: Desk) -> None:
    """A flow without options runs on request, with the API's own policy."""
    flow = desk.world.registry.flow("acme", desk.json(*ADD)["id"])
    assert isinstance(flow.trigger, Manual)
    assert flow.enabled is True
    assert flow.policy == type(flow.policy)()


def test_takes_a_cron_expression(desk: Desk) -> None:
    """A cron expression arrives with its time zone, UTC unless given."""
    flow = desk.world.registry.flow("acme", desk.json(*ADD, "--cron", "30 2 * * 1-5", "--timezone", "Europe/Berlin")["id"])
    assert flow.trigger == Cron(cron="30 2 * * 1-5", timezone="Europe/Berlin")
    assert "cron 30 2 * * * UTC" in desk.run(*ADD, "--cron", "30 2 * * *").stdout


def test_takes_a_whole_schedule(desk: Desk) -> None:
    """Calendar, blackouts, misfires, jitter and expected files arrive, and are shown in words."""
    words = (
        *("--cron", "0 2 * * *", "--timezone", "Europe/Berlin", "--holidays", "DE-BY", "--closed", "2025-12-24", "--misfire", "all"),
        *("--blackout", "22:00-01:30", "--blackout", "2025-12-24T00:00:00Z/2025-12-27T00:00:00Z", "--jitter", "5m"),
        *("--expect-by", "0 6 * * *", "--expect-files", "2", "--expect-within", "3h", "--warn-before", "30m"),
    )
    flow = desk.world.registry.flow("acme", desk.json(*ADD, *words)["id"])
    assert isinstance(flow.trigger, Cron)
    assert flow.trigger.calendar == Calendar(holidays="DE-BY", closed=(date(2025, 12, 24),))
    assert [one.kind for one in flow.trigger.blackouts] == ["daily", "span"]
    assert (flow.trigger.misfire, flow.trigger.jitter) == (Misfire.ALL, timedelta(minutes=5))
    assert flow.expected is not None
    assert (flow.expected.files, flow.expected.within, flow.expected.timezone) == (2, timedelta(hours=3), "Europe/Berlin")
    assert flow.expected.calendar == flow.trigger.calendar
    shown = desk.run("flow", "show", "invoices").stdout
    assert "on mon,tue,wed,thu,fri, not on holidays of DE-BY, not on 2025-12-24, not 22:00:00 to 01:30:00" in shown
    assert "up to 5m later, missed: all" in shown
    assert "2 by cron 0 6 * * * Europe/Berlin, come within 3h, warned 30m before" in shown


def test_takes_other_triggers(desk: Desk) -> None:
    """Once, and on arrival in a bucket."""
    once = desk.json(*ADD, "--at", "2025-12-24T18:00:00Z", "--workdays")
    assert isinstance(desk.world.registry.flow("acme", once["id"]).trigger, Once)
    assert "once, at " in desk.run("flow", "list").stdout
    words = ("flow", "add", "orders", "--from", "s3-a", "--to", "s3-b", "--on-arrival", "--listed-every", "30m")
    assert "on arrival, and every 30m" in desk.run(*words).stdout


def test_takes_signals_of_finished_files(desk: Desk) -> None:
    """They arrive, and are shown in words."""
    words = ("--exclude", "*.tmp", "--exclude", ".*", "--recursive", "--max-depth", "2", "--forget-after", "30d", "--looks", "3")
    made = desk.json(*ADD, *words, "--looks-apart", "20s", "--done-marker", "{name}.done")
    selection = desk.world.registry.flow("acme", made["id"]).selection
    assert (selection.exclude, selection.max_depth, selection.forget_after) == (("*.tmp", ".*"), 2, timedelta(days=30))
    assert selection.stability == Stability(looks=3, apart=timedelta(seconds=20), done_marker="{name}.done")
    shown = desk.run("flow", "show", "invoices").stdout
    assert "not *.tmp .*, not deeper than 2, seen unchanged 3 times, 20s apart, with {name}.done beside it" in shown


def test_warns_of_a_flow_that_nothing_matches(desk: Desk, server: FakeServer) -> None:
    """It is added all the same."""
    server.put("in/a.txt", b"x")
    told = desk.run(*ADD, "--glob", "*.csv").stdout.splitlines()
    assert told[-1] == "Warning: nothing in 'in' matches the pattern: it holds 1 file now."


def test_plans(desk: Desk, server: FakeServer) -> None:
    """Each file with what would happen to it, and a sum."""
    server.put("in/a.csv", b"x")
    server.put("in/b.txt", b"x")
    made = desk.json(*ADD, "--glob", "*.csv")
    told = desk.run("flow", "plan", "invoices").stdout
    assert "would move to out/a.csv" in told
    assert "skipped: its name does not match the pattern" in told
    assert told.splitlines()[-1] == "1 would move, 1 skipped."
    assert desk.json("flow", "plan", made["id"], "--limit", "1")["items"][0]["path"] == "in/a.csv"
    assert desk.world.ledger.rows() == []


def test_shows_the_next_fires(desk: Desk, server: FakeServer) -> None:
    """Coming times first, then what came of the latest."""
    server.put("in/a.csv", b"x")
    desk.run(*ADD, "--cron", "30 6 * * *")
    assert len(desk.json("flow", "next", "invoices", "--count", "3")["coming"]) == 3
    desk.run("flow", "run", "invoices", "--watch")
    told = desk.run("flow", "next", "invoices", "--count", "1").stdout
    assert "to come" in told
    assert "1 listed, 1 selected, 1 created" in told
    desk.run("flow", "add", "other", "--from", "sftp-a", "--to", "s3-a")
    assert "runs by no schedule, and never ran" in desk.run("flow", "next", "other").stdout


def test_shows_why_a_run_failed(desk: Desk) -> None:
    """By its reason and in words."""
    desk.run("flow", "add", "lost", "--from", "sftp-a:gone", "--to", "s3-a")
    desk.run("flow", "run", "lost", "--watch")
    assert "failed (directory_missing): " in desk.run("flow", "next", "lost").stdout


def test_runs_for_a_time_in_the_past(desk: Desk, server: FakeServer) -> None:
    """A wrong time is refused."""
    server.put("in/a.csv", b"x")
    desk.run(*ADD)
    words = ("flow", "backfill", "invoices", "--from", "2025-01-01T00:00:00Z", "--until")
    assert desk.json(*words, "2025-02-01T00:00:00Z")["fire"].startswith("past-")
    assert "eft transfer watch" in desk.run(*words, "2025-02-01T00:00:00Z").stdout
    assert desk.run(*words, "2024-02-01T00:00:00Z").exit_code == 2


@pytest.mark.parametrize(
    "words",
    [
        ("--every", "5m", "--cron", "* * * * *"),
        ("--on-arrival", "--at", "2025-12-24T18:00:00Z"),
        ("--on-arrival",),
        ("--listed-every", "5m"),
        ("--workdays",),
        ("--on-arrival", "--jitter", "5m"),
        ("--every", "5m", "--blackout", "noon"),
        ("--every", "5m", "--holidays", "XX"),
        ("--every", "5m", "--closed", "today"),
        ("--at", "yesterday"),
        ("--at", "2024-12-24T18:00:00Z"),
        ("--warn-before", "5m"),
        ("--expect-by", "noon"),
        ("--done-marker", "{nme}"),
        ("--timezone", "UTC"),
        ("--dispose", "archive"),
        ("--archive-to", "done"),
        ("--every", "soon"),
        ("--min-size", "big"),
        ("--cron", "at noon"),
        ("--glob", "*", "--regex", ".*"),
        ("--from", ":in"),
        ("--conflict", "pray"),
    ],
)
def test_refuses_what_makes_no_sense(desk: Desk, words: tuple[str, ...]) -> None:
    """A wrong option is a usage error, told on standard error, and no flow is made."""
    result = desk.run(*ADD, *words)
    assert result.exit_code == 2, result.output
    assert result.stderr
    assert not desk.world.registry.flows("acme").items


def test_an_unknown_endpoint_is_not_found(desk: Desk) -> None:
    """A flow from an endpoint that does not exist is not made."""
    assert desk.run("flow", "add", "x", "--from", "nowhere", "--to", "s3-a").exit_code == 3


def test_lists_and_shows_flows(desk: Desk) -> None:
    """A list shows where from, where to and when; one flow is shown with its bounds and its policy."""
    assert "eft flow add" in desk.run("flow", "list").stdout
    made = desk.json(
        *ADD, "--glob", "*.csv", "--every", "90s", "--min-size", "1MiB", "--max-size", "2MiB", "--min-age", "30s", "--max-age", "1d"
    )
    listed = desk.run("flow", "list").stdout
    assert "sftp-a:in/*.csv" in listed
    assert "every 1m 30s" in listed
    shown = desk.run("flow", "show", "invoices").stdout
    assert "at least 1.0 MiB, at most 2.0 MiB, not younger than 30s, not older than 1d" in shown
    assert "8 tries, pausing 5s to 15m" in shown
    assert desk.json("flow", "show", made["id"])["name"] == "invoices"


def test_pauses_and_resumes(desk: Desk) -> None:
    """A paused flow is not enabled until it is resumed."""
    desk.run(*ADD)
    assert desk.json("flow", "pause", "invoices")["enabled"] is False
    assert "paused" in desk.run("flow", "list").stdout
    assert desk.run("flow", "resume", "invoices").stdout == "Flow invoices is on.\n"


def test_removes_a_flow(desk: Desk) -> None:
    """A flow is removed when somebody agrees."""
    desk.run(*ADD)
    desk.person = True
    assert desk.run("flow", "remove", "invoices", typed="y\n").exit_code == 0
    assert desk.run("flow", "show", "invoices").exit_code == 3


def test_runs_a_flow(desk: Desk, server: FakeServer) -> None:
    """A run is asked for and its discover queued; until then it is under way."""
    desk.run(*ADD)
    assert "eft transfer watch --flow fl-" in desk.run("flow", "run", "invoices").stdout
    assert len(desk.world.queue) == 1
    assert "under way" in desk.run("flow", "next", "invoices").stdout
    assert desk.json("flow", "run", "invoices")["fire"]


def test_follows_a_run_until_all_rest(desk: Desk, server: FakeServer) -> None:
    """A watched run ends with exit code 0 once every file that it found has settled; files of earlier runs do not count."""
    server.put("in/old.csv", b"old")
    flow = desk.world.registry.flow("acme", desk.json(*ADD)["id"])
    desk.world.run(flow)
    for number in range(3):
        server.put(f"in/{number}.csv", b"x" * 1000)
    result = desk.run("flow", "run", "invoices", "--watch")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "3 settled, 2.9 KiB."
    assert "old.csv" not in result.stdout


def test_a_run_that_finds_nothing_ends(desk: Desk, server: FakeServer) -> None:
    """A watched run that has nothing new ends the watch at once, and says what it saw."""
    server.put("in/a.txt", b"x")
    desk.run(*ADD, "--glob", "*.csv")
    result = desk.run("flow", "run", "invoices", "--watch")
    assert result.exit_code == 0
    assert result.stdout.startswith("Nothing has moved.\nThe run: 1 listed. Why: eft flow plan fl-")
    assert desk.naps == [1]


def test_a_run_that_fails_is_a_failure(desk: Desk) -> None:
    """A watched run whose source cannot be listed ends at once, with the reason and exit code 1."""
    desk.run("flow", "add", "lost", "--from", "sftp-a:gone", "--to", "s3-a")
    result = desk.run("flow", "run", "lost", "--watch")
    assert result.exit_code == 1
    assert "The run failed (directory_missing): " in result.stderr
    assert sum(desk.naps) < 5
    assert json.loads(desk.run("flow", "run", "lost", "--watch", "--json").stderr)["exit_code"] == 1


def test_warns_of_two_flows_of_one_name(desk: Desk) -> None:
    """The second one is added all the same; neither is found by the name any more."""
    assert desk.run(*ADD).stderr == ""
    assert "2 flows have the name 'invoices' now" in desk.run(*ADD).stderr
    desk.environ["EFT_TOKEN"] = desk.token("endpoints:read", "flows:write")
    again = desk.run(*ADD)
    assert (again.exit_code, again.stderr) == (0, "")


def test_a_run_with_a_failure_is_a_failure(desk: Desk, server: FakeServer) -> None:
    """When one file of a run is not delivered, the exit code is 1 and the reason is shown."""
    server.put("in/a.csv", b"new")
    desk.world.server("s3-a").put("out/a.csv", b"in the way")
    desk.run(*ADD)
    result = desk.run("flow", "run", "invoices", "--watch", "--json")
    assert result.exit_code == 1
    last = json.loads(result.stdout.splitlines()[-1])
    assert last["state"] == "dead"
    assert json.loads(result.stderr)["exit_code"] == 1
