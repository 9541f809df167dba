"""`eft endpoint` against the real API."""

from __future__ import annotations

import json

from tests.cli.conftest import ED25519, Desk

ADD = ("endpoint", "add", "sftp", "acme", "--host", "sftp.acme.test", "-u", "eft", "--password-stdin")


def test_adds_pins_and_tests_in_one_command(desk: Desk) -> None:
    """A script that knows the fingerprint onboards an SFTP server whole: its key is pinned and the test passes."""
    answer = desk.json(*ADD, "--pin", ED25519.fingerprint, typed="s3cret\n")
    assert [key["key"] for key in answer["endpoint"]["host_keys"]] == [ED25519.key]
    assert answer["test"]["ok"] is True


def test_takes_the_password_from_standard_input(desk: Desk) -> None:
    """The password goes into the secret store without its line end, and is shown nowhere."""
    result = desk.run(*ADD, "--no-test", typed="s3cret\n")
    [endpoint] = [e for e in desk.world.registry.endpoints("acme").items if e.name == "acme"]
    assert endpoint.secret is not None
    kept = desk.world.secrets.get(endpoint.secret)
    assert kept.password is not None
    assert kept.password.get_secret_value() == "s3cret"
    assert "s3cret" not in result.output


def test_a_foreign_key_is_not_pinned(desk: Desk) -> None:
    """When the server shows another fingerprint than the script names, nothing is pinned and the exit code is 1."""
    result = desk.run(*ADD, "--pin", "SHA256:AAAA", "--json", typed="x\n")
    assert result.exit_code == 1
    assert ED25519.fingerprint in json.loads(result.stderr)["advice"]
    assert all(not e.host_keys for e in desk.world.registry.endpoints("acme").items if e.name == "acme" and e.kind == "sftp")


def test_asks_a_person_for_each_key(desk: Desk) -> None:
    """A person is shown each key with its fingerprint, and only what they confirm is pinned."""
    desk.person = True
    result = desk.run(*ADD[:-1], typed="s3cret\ny\nn\n")
    assert result.exit_code == 0, result.output
    assert ED25519.fingerprint in result.stderr
    shown = desk.json("endpoint", "show", "acme")
    assert [key["fingerprint"] for key in shown["host_keys"]] == [ED25519.fingerprint]


def test_says_that_an_unpinned_endpoint_moves_nothing(desk: Desk) -> None:
    """Without anybody to confirm a key the endpoint stays unpinned: exit code 1, and the command that pins it."""
    result = desk.run(*ADD, typed="x\n")
    assert result.exit_code == 1
    assert "eft endpoint pin ep-" in result.stderr


def test_a_given_host_key_is_pinned_at_once(desk: Desk) -> None:
    """A line of known_hosts, host name and comment included, is pinned with the endpoint."""
    line = f"sftp.acme.test {ED25519.algorithm} {ED25519.key} root@acme"
    answer = desk.json(*ADD, "--host-key", line, "--port", "2222", "--root", "/in", typed="x\n")
    assert answer["endpoint"]["host_keys"][0]["fingerprint"] == ED25519.fingerprint
    assert (answer["endpoint"]["port"], answer["endpoint"]["root"]) == (2222, "/in")


def test_refuses_what_is_no_host_key(desk: Desk) -> None:
    """A fingerprint given as a key is refused before anything is sent."""
    result = desk.run(*ADD, "--host-key", "SHA256:AAAA", typed="x\n")
    assert result.exit_code == 2
    assert "ssh-keyscan" in result.stderr


def test_pin_without_the_test_is_refused(desk: Desk) -> None:
    """--pin cannot work without asking the server for its keys."""
    assert desk.run(*ADD, "--no-test", "--pin", ED25519.fingerprint, typed="x\n").exit_code == 2


def test_a_dead_server_fails_the_test(desk: Desk) -> None:
    """A server that cannot be reached is added all the same, and the exit code is 1."""
    result = desk.run("endpoint", "add", "sftp", "gone", "--host", "dead.test", "-u", "eft", "--password-stdin", typed="x\n")
    assert result.exit_code == 1
    assert "no route to host" in result.stdout
    assert "The connection test failed" in result.stderr
    assert "eft endpoint remove ep-" in result.stderr
    assert "gone" in desk.run("endpoint", "list").stdout


def test_adds_a_bucket(desk: Desk) -> None:
    """A bucket is onboarded with the engine's own role, and tested."""
    answer = desk.json("endpoint", "add", "s3", "archive", "--bucket", "acme-archive", "--region", "us-gov-west-1", "--prefix", "in")
    assert answer["endpoint"]["prefix"] == "in"
    assert answer["endpoint"]["has_credential"] is False
    assert answer["test"]["ok"] is True


def test_adds_a_bucket_with_a_static_key(desk: Desk) -> None:
    """The secret access key comes from a file, not from the command line."""
    secret = desk.file("secret", "wJalr\n")
    words = (
        "endpoint",
        "add",
        "s3",
        "lab",
        "--bucket",
        "lab",
        "--region",
        "us-east-1",
        "--access-key-id",
        "AK",
        "--secret-key-file",
        secret,
    )
    assert desk.json(*words)["endpoint"]["has_credential"] is True


def test_warns_of_an_overlap(desk: Desk) -> None:
    """A second endpoint at the same place is added with a warning on standard error."""
    desk.run(*ADD, "--no-test", typed="x\n")
    result = desk.run(*ADD, "--no-test", "--json", typed="x\n")
    assert result.exit_code == 0
    assert "same server and path" in result.stderr
    assert json.loads(result.stdout)["endpoint"]["warnings"]


def test_tests_a_connection(desk: Desk) -> None:
    """A test answers with the report, and with exit code 1 when a check fails."""
    desk.run(*ADD, "--no-test", typed="x\n")
    report = desk.json("endpoint", "test", "acme", code=1)
    assert report["checks"] == [{"name": "host key", "ok": False, "message": "no pinned key matches"}]
    assert desk.run("endpoint", "test", "acme").stdout.count("not pinned") == 2


def test_tests_a_pinned_connection(desk: Desk) -> None:
    """A pinned endpoint passes its test, and its keys are shown as pinned or not."""
    desk.run(*ADD, "--no-test", "--host-key", f"{ED25519.algorithm} {ED25519.key}", typed="x\n")
    result = desk.run("endpoint", "test", "acme")
    assert result.exit_code == 0
    assert result.stdout.count("not pinned") == 1
    assert "moves nothing" not in result.stdout
    assert "HOST KEY" not in desk.run("endpoint", "test", "s3-a").stdout


def test_pins_later(desk: Desk) -> None:
    """A key is pinned beside the others, or instead of them."""
    desk.run(*ADD, "--no-test", "--host-key", f"{ED25519.algorithm} {ED25519.key}", typed="x\n")
    both = desk.json("endpoint", "pin", "acme", "--pin", ED25519.fingerprint.removeprefix("SHA256:"))
    assert len(both["host_keys"]) == 1
    desk.stores.shows = ()
    result = desk.run("endpoint", "pin", "acme")
    assert result.exit_code == 1
    replaced = desk.json("endpoint", "pin", "acme", "--replace", "--host-key", f"{ED25519.algorithm} {ED25519.key}")
    assert len(replaced["host_keys"]) == 1


def test_a_bucket_has_no_host_keys(desk: Desk) -> None:
    """Pinning a bucket is a usage error."""
    assert desk.run("endpoint", "pin", "s3-a").exit_code == 2


def test_lists_endpoints_page_by_page(desk: Desk) -> None:
    """A list with a limit ends with the cursor of the rest, and a full list is one document."""
    first = desk.json("endpoint", "list", "--limit", "1")
    rest = desk.json("endpoint", "list", "--cursor", first["next_cursor"])
    assert [item["id"] for item in first["items"] + rest["items"]] == ["s3-a", "s3-b", "sftp-a", "sftp-b"]
    assert rest["next_cursor"] is None
    table = desk.run("endpoint", "list", "--limit", "3").stdout
    assert "s3://bucket-s3-a/" in table
    assert "sftp://u@sftp-a.test/" in table
    assert "--cursor" in table


def test_an_empty_list_says_how_to_begin(desk: Desk) -> None:
    """A tenant without endpoints is told how to add one."""
    desk.environ["EFT_TOKEN"] = desk.token(tenant="newcomer")
    assert "eft endpoint add" in desk.run("endpoint", "list").stdout


def test_shows_one_by_name_or_id(desk: Desk) -> None:
    """An endpoint is found by its name as by its id, and shown without its secret."""
    added = desk.json(*ADD, "--no-test", typed="s3cret\n")["endpoint"]
    assert desk.json("endpoint", "show", "acme") == desk.json("endpoint", "show", added["id"])
    assert "sftp://eft@sftp.acme.test/" in desk.run("endpoint", "show", "acme").stdout
    assert "us-gov-west-1" in desk.run("endpoint", "show", "s3-a").stdout


def test_an_ambiguous_name_is_refused(desk: Desk) -> None:
    """Of two endpoints with one name, the ids are named to choose from."""
    ids = [desk.json(*ADD, "--no-test", typed="x\n")["endpoint"]["id"] for _ in range(2)]
    result = desk.run("endpoint", "show", "acme")
    assert result.exit_code == 2
    assert all(id_ in result.stderr for id_ in ids)


def test_warns_of_two_endpoints_of_one_name(desk: Desk) -> None:
    """Who adds one anew after a mistake hears that the first is still there, also where a program reads the answer."""
    assert desk.run(*ADD, "--no-test", typed="x\n").stderr == ""
    again = desk.run(*ADD, "--no-test", "--json", typed="x\n")
    assert again.exit_code == 0
    assert "2 endpoints have the name 'acme' now" in again.stderr


def test_an_unknown_endpoint_is_not_found(desk: Desk) -> None:
    """Exit code 3 tells a script that there is no such endpoint, also for a name with blanks."""
    assert desk.run("endpoint", "show", "nowhere").exit_code == 3
    assert desk.run("endpoint", "show", "no where").exit_code == 3


def test_rotates_a_credential(desk: Desk) -> None:
    """A new password takes the place of the old credential as a whole."""
    desk.run(*ADD, "--no-test", typed="old\n")
    rotated = desk.json("endpoint", "rotate", "acme", "--password-stdin", "--no-test", typed="new\n")["endpoint"]
    stored = desk.world.registry.endpoint("acme", rotated["id"])
    assert stored.secret is not None
    password = desk.world.secrets.get(stored.secret).password
    assert password is not None
    assert password.get_secret_value() == "new"


def test_rotates_a_static_key(desk: Desk) -> None:
    """A bucket's static key is replaced; without its id the command is refused."""
    assert desk.run("endpoint", "rotate", "s3-a").exit_code == 2
    words = ("endpoint", "rotate", "s3-a", "--access-key-id", "AK", "--secret-key-stdin")
    assert desk.json(*words, typed="wJalr\n")["endpoint"]["has_credential"] is True


def test_removes_after_asking(desk: Desk) -> None:
    """Nothing is removed unless somebody agrees; a script says --yes."""
    desk.run(*ADD, "--no-test", typed="x\n")
    assert desk.run("endpoint", "remove", "acme").exit_code == 2
    desk.person = True
    assert desk.run("endpoint", "remove", "acme", typed="n\n").exit_code == 1
    assert desk.run("endpoint", "remove", "acme", typed="").exit_code == 1
    assert desk.run("endpoint", "show", "acme").exit_code == 0
    removed = desk.run("endpoint", "remove", "acme", "--yes")
    assert removed.exit_code == 0
    assert "is removed" in removed.stdout
    assert desk.run("endpoint", "show", "acme").exit_code == 3


def test_one_in_use_stays(desk: Desk) -> None:
    """An endpoint that a flow uses is not removed: exit code 5, and the flow is named."""
    desk.world.flow("sftp-a", "s3-a")
    result = desk.run("endpoint", "remove", "sftp-a", "--yes")
    assert result.exit_code == 5
    assert "flow-" in result.stderr


def test_what_is_wrong_is_told_by_field(desk: Desk) -> None:
    """A refused value is told with its field and what to do, in words and as the API's problem."""
    words = ("endpoint", "add", "s3", "x", "--bucket", "No_Bucket", "--region", "us-gov-west-1")
    told = desk.run(*words)
    assert told.exit_code == 2
    assert "bucket: must match" in told.stderr
    assert told.stdout == ""
    problem = json.loads(desk.run(*words, "--json").stderr)
    assert problem["errors"][0]["field"] == "/bucket"
    assert problem["exit_code"] == 2


def test_takes_bandwidth_windows(desk: Desk) -> None:
    """They arrive and are shown in words; what is none is a usage error."""
    words = ("endpoint", "add", "s3", "slow", "--bucket", "slow-bucket", "--region", "us-gov-west-1", "--no-test")
    made = desk.json(*words, "--bandwidth", "08:00-18:00=10MiB@Europe/Berlin", "--bandwidth", "22:00-04:00=1GiB")
    rates = [one.bytes_per_second for one in desk.world.registry.endpoint("acme", made["endpoint"]["id"]).bandwidth]
    assert rates == [10 << 20, 1 << 30]
    shown = desk.run("endpoint", "show", "slow").stdout
    assert "10.0 MiB/s from 08:00 to 18:00 Europe/Berlin, 1.0 GiB/s from 22:00 to 04:00 UTC" in shown
    assert desk.run(*words, "--bandwidth", "all day").exit_code == 2
