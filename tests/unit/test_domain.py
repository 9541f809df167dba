"""Names, selections, parts, schedules: the rules without I/O."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from eft.domain.endpoint import SftpEndpoint
from eft.domain.fingerprint import Fingerprint, RemoteFile
from eft.domain.flow import Cron, Interval, Policy, Retry, Selection
from eft.domain.names import (
    PARTITIONS,
    destination_name,
    display,
    disposed_by,
    is_token,
    join,
    numbered,
    partition_of,
    partition_of_id,
    remote_path,
    token_name,
    transfer_id,
)
from eft.domain.parts import MAX_PARTS, MIB, followed, lanes, plan_parts
from eft.domain.transfer import MOVES, NEXT_STEP, RESTING, State
from eft.errors import NotFound, Permanent

NOW = datetime(2025, 3, 30, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "empty"),
        (b"/", "empty"),
        (b"a/../b", "'..'"),
        (b"./a", "'.'"),
        (b"a\nb", "control"),
        (b"a\0b", "control"),
        (b"a\x7f", "control"),
        (b"\xff\xfe", "UTF-8"),
        (b"x" * 256, "255"),
        (b"/".join([b"y" * 200] * 6), "1024"),
        ("\ud800", "UTF-8"),
    ],
)
def test_a_hostile_name_is_refused_and_says_why(raw: bytes | str, why: str) -> None:
    """Nothing is guessed or repaired, and the message is printable."""
    with pytest.raises(Permanent) as error:
        remote_path(raw)
    assert error.value.reason == "name_invalid"
    assert why in str(error.value)
    assert str(error.value).isprintable()


@given(st.binary(max_size=80))
def test_a_normal_name_is_its_own_normal_form(raw: bytes) -> None:
    """Normalising twice changes nothing, and no normal name climbs."""
    try:
        path = remote_path(raw)
    except Permanent:
        return
    assert remote_path(path) == path
    assert ".." not in path.split("/")
    assert not path.startswith("/")


@given(st.binary(max_size=400))
def test_any_name_can_be_shown(raw: bytes) -> None:
    """A shown name is printable UTF-8 and bounded."""
    shown = display(raw)
    assert shown.isprintable()
    assert len(shown) <= 300
    shown.encode()


def test_tokens_lie_beside_their_final_name() -> None:
    """A token names its transfer, era and attempt, and is recognised as ours."""
    token = token_name(join("out/day", "a.csv"), transfer="t", region_epoch=2, attempt=3, nonce="n")
    assert token == "out/day/.t.2.3.n.part"
    assert is_token(token)
    assert not is_token("out/.hidden")


def test_a_token_of_a_disposal_names_its_transfer() -> None:
    """Attempt 0 is no upload's: such a name holds a source, and says whose."""
    one = "2a" + 30 * "0"
    names = [token_name(remote_path("in/a.csv"), transfer=one, region_epoch=7, attempt=attempt, nonce="0f") for attempt in (0, 1)]
    assert [disposed_by(name) for name in names] == [one, None]
    assert disposed_by("in/.mine.part") is None


def test_numbered_names_keep_their_suffix() -> None:
    """The number goes before the first dot."""
    assert numbered(remote_path("d/a.tar.gz"), 2) == "d/a.2.tar.gz"
    assert numbered(remote_path("a"), 1) == "a.1"


def test_ids_name_their_partition() -> None:
    """An id is the same for the same parts, and says which partition it is in; anything else is no id."""
    one = transfer_id("t", "f", "ab", partition=5)
    assert one == transfer_id("t", "f", "ab", partition=5) != transfer_id("t", "fa", "b", partition=5)
    assert partition_of_id(one) == 5
    for bad in ("", "zz", "g" * 32, "ff" + "0" * 30):
        with pytest.raises(NotFound):
            partition_of_id(bad)
    assert {partition_of("t", str(n)) for n in range(2000)} == set(range(PARTITIONS))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{path}", "sub/a.tar.gz"),
        ("{name}", "a.tar.gz"),
        ("{date:%Y/%m}/{stem}-{flow}{suffix}", "2025/03/a.tar-f1.gz"),
        ("{tenant}/{directory}/{transfer}", "acme/sub/t1"),
    ],
)
def test_templates_name_the_destination(template: str, expected: str) -> None:
    """Every field is fixed when the transfer is accepted."""
    named = destination_name(template, source=remote_path("in/sub/a.tar.gz"), base="in", at=NOW, tenant="acme", flow="f1", transfer="t1")
    assert named == expected


@pytest.mark.parametrize("template", ["{nope}", "{name", "name}", "{}"])
def test_a_bad_template_is_refused(template: str) -> None:
    """The error names the field or the brace."""
    with pytest.raises(ValidationError, match=r"unknown field|unbalanced"):
        Policy(name_template=template)


@pytest.mark.parametrize("template", ["../{name}", "{directory}/./{name}", "{date:..}/{name}", "a\n{name}", "/", "x" * 256])
def test_a_template_that_makes_no_path_is_refused_when_it_is_given(template: str) -> None:
    """Not file by file, when the first ones come."""
    with pytest.raises(ValidationError, match="name_template"):
        Policy(name_template=template)


def _file(name: str, *, size: int = 5, age: timedelta | None = timedelta(hours=1)) -> RemoteFile:
    modified = None if age is None else NOW - age
    return RemoteFile(path=remote_path(name), fingerprint=Fingerprint(size=size, modified=modified))


@pytest.mark.parametrize(
    ("selection", "name", "taken"),
    [
        ({"glob": "*.csv"}, "in/sub/a.csv", True),
        ({"glob": "*.csv"}, "in/a.txt", False),
        ({"glob": "sub/*.csv"}, "in/sub/a.csv", True),
        ({"glob": "sub/*.csv"}, "in/a.csv", False),
        ({"regex": r"\d+\.csv"}, "in/12.csv", True),
        ({"regex": r"\d+\.csv"}, "in/12.csv.bak", False),
        ({}, "in/anything", True),
    ],
)
def test_patterns_select(selection: dict[str, Any], name: str, taken: bool) -> None:
    """Globs and regular expressions look at the path below the selection's directory."""
    assert (Selection(directory="in", **selection).why_not(_file(name), now=NOW) is None) is taken


@pytest.mark.parametrize(
    ("selection", "file", "why"),
    [
        ({"min_size": 6}, _file("a"), "smaller"),
        ({"max_size": 4}, _file("a"), "larger"),
        ({"min_age": timedelta(hours=2)}, _file("a"), "younger"),
        ({"max_age": timedelta(minutes=2)}, _file("a"), "older"),
        ({"min_age": timedelta(hours=2)}, _file("a", age=None), None),
    ],
)
def test_bounds_say_why_a_file_is_left_out(selection: dict[str, Any], file: RemoteFile, why: str | None) -> None:
    """The words are a customer's."""
    said = Selection(**selection).why_not(file, now=NOW)
    assert said is None if why is None else why in (said or "")


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (Selection, {"regex": "("}),
        (Selection, {"regex": "(?=x)y"}),
        (Selection, {"regex": "a", "glob": "b"}),
        (Selection, {"directory": "../x"}),
        (Policy, {"disposition": "archive"}),
        (Policy, {"archive_directory": "done"}),
        (Policy, {"unknown": 1}),
        (Retry, {"first": timedelta(seconds=-1)}),
        (Cron, {"cron": "61 * * * *"}),
        (Cron, {"cron": "0 0 * * *", "timezone": "Mars/Olympus"}),
        (Interval, {"every": timedelta(0)}),
    ],
)
def test_bad_values_are_refused(model: Any, fields: dict[str, Any]) -> None:  # noqa: ANN401 - a model
    """A field that cannot work is an error when it is given, not when it is used."""
    with pytest.raises((ValidationError, Permanent)):
        model(**fields)


def test_a_hostile_pattern_takes_linear_time() -> None:
    """A pattern that backtracks without end elsewhere answers at once."""
    assert Selection(regex="(a+)+$").why_not(_file("a" * 200 + "!"), now=NOW) is not None


@given(st.integers(min_value=0, max_value=60 * 1024**4), st.integers(min_value=5 * MIB, max_value=64 * MIB))
def test_plans_cover_a_file_within_s3s_limits(size: int, part_size: int) -> None:
    """Parts are at most 10,000, follow each other without gap, and end with the file."""
    plan = plan_parts(size, part_size=part_size)
    assert 1 <= plan.count <= MAX_PARTS
    first, last = plan.part(1), plan.part(plan.count)
    assert first.start == 0
    assert last.start + last.size == size
    assert last.size > 0 or size == 0


def test_parts_that_nobody_holds_grow_with_the_file() -> None:
    """They double where a file still has many, and it has no fewer lanes for that."""
    grown = {size: plan_parts(size * MIB, part_size=8 * MIB, held=False) for size in (8, 256, 1023, 1024, 100 * 1024)}
    assert {size: plan.part_size // MIB for size, plan in grown.items()} == {8: 8, 256: 8, 1023: 8, 1024: 16, 100 * 1024: 16}
    assert [len(lanes(grown[size], width=4)) for size in (256, 1023, 1024)] == [8, 16, 16]
    assert plan_parts(1024 * MIB, part_size=8 * MIB).part_size == 8 * MIB


def test_parts_are_read_in_one_go_up_to_the_next_gap() -> None:
    """Each is told where it and those that follow it directly end, wherever one is missing or out of order."""
    plan = plan_parts(75, part_size=10)
    ends = {
        number: [until for _, until in followed([plan.part(n) for n in order])]
        for number, order in enumerate([(1, 2, 3), (2, 3, 5, 8), (3, 2)])
    }
    assert ends == {0: [30, 30, 30], 1: [30, 30, 50, 75], 2: [30, 20]}
    assert list(followed([])) == []
    empty = plan_parts(0, part_size=10).part(1)
    assert list(followed([empty])) == [(empty, 0)]


@given(st.integers(min_value=1, max_value=300), st.integers(min_value=1, max_value=40))
def test_lanes_cover_every_part_once(count: int, width: int) -> None:
    """Lanes are contiguous, as even as can be, and of large files some for each worker."""
    found = lanes(plan_parts(count * 10, part_size=10), width=width)
    assert [n for lane in found for n in lane] == list(range(1, count + 1))
    assert min(width, count) <= len(found) <= min(4 * width, count)
    assert len(found) == min(width, count) or min(map(len, found)) >= 4
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_fingerprints_match_by_the_strongest_identity_both_have() -> None:
    """Versions decide before etags, etags before times."""
    one = Fingerprint(size=1, modified=NOW, etag="e", version="v")
    assert one.matches(one.model_copy(update={"etag": "f"}))
    assert not one.matches(one.model_copy(update={"version": "w"}))
    assert one.matches(Fingerprint(size=1, etag="e"))
    assert not one.matches(Fingerprint(size=1, etag="f", modified=NOW))
    assert not Fingerprint(size=1, modified=NOW).matches(Fingerprint(size=1, modified=NOW + timedelta(seconds=1)))


def test_every_state_rests_or_has_a_next_step() -> None:
    """No state is a dead end by accident, and what is committing is never given up."""
    for state in State:
        assert state in RESTING or state in NEXT_STEP or state is State.ACCEPTED
    assert not MOVES[State.COMMITTING] & {State.DEAD, State.CANCELLED}


def test_retries_back_off_up_to_a_bound() -> None:
    """Pauses double, stay within half and all of their bound, and never exceed the longest."""
    retry = Retry(first=timedelta(seconds=2), longest=timedelta(seconds=60))
    assert [retry.pause(n, jitter=0).total_seconds() for n in (1, 2, 3, 10, 99)] == [1, 2, 4, 30, 30]
    assert retry.pause(99, jitter=0.999) < timedelta(seconds=60)


def test_an_endpoints_root_is_normal() -> None:
    """Absolute roots stay absolute; climbing is refused."""
    fields: dict[str, Any] = {"id": "e", "tenant": "t", "name": "n", "host": "h", "username": "u", "created": NOW}
    assert SftpEndpoint(**fields, root="//srv//in/").root == "/srv/in"
    assert SftpEndpoint(**fields, root="in/").root == "in"
    with pytest.raises((ValidationError, Permanent)):
        SftpEndpoint(**fields, root="/srv/../etc")
