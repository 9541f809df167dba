"""Logs: one JSON object a line, with the context of the work at hand."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from eft.telemetry import JsonLines, context, log_to_stderr


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Standard error with the logs of one test; logging is put back afterwards."""
    root, written = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    quiet = {name: logging.getLogger(name).level for name in ("boto3", "botocore", "paramiko", "urllib3")}
    monkeypatch.setattr(sys, "stderr", written)
    root.handlers = []
    log_to_stderr("INFO")
    yield written
    root.handlers = handlers
    root.setLevel(level)
    for name, before in quiet.items():
        logging.getLogger(name).setLevel(before)


def lines(stderr: io.StringIO) -> list[dict[str, Any]]:
    """Returns what was logged."""
    return [json.loads(line) for line in stderr.getvalue().splitlines()]


def test_a_line_says_when_who_and_what(stderr: io.StringIO) -> None:
    """Time in UTC, level, logger, message with its arguments, and the extra fields."""
    logging.getLogger("eft.somewhere").warning("%d of %s", 3, "Zürich", extra={"transfer": "t1", "size": 7})
    (line,) = lines(stderr)
    at = datetime.fromisoformat(line.pop("at"))
    assert at.utcoffset() is not None
    assert abs((datetime.now(UTC) - at).total_seconds()) < 600
    assert line == {"level": "warning", "logger": "eft.somewhere", "message": "3 of Zürich", "transfer": "t1", "size": 7}


def test_context_is_on_every_line_of_its_block(stderr: io.StringIO) -> None:
    """Inner blocks add to outer ones, also where an error ends them; another thread has its own."""
    log = logging.getLogger("eft")

    def elsewhere() -> None:
        log.info("elsewhere")

    def fail_inside() -> None:
        with context(id="t2", part=3):
            log.info("inner")
            _ = 1 / 0

    with context(step="deliver", id="t1"):
        with pytest.raises(ZeroDivisionError):
            fail_inside()
        log.info("outer")
        other = threading.Thread(target=elsewhere)
        other.start()
        other.join(timeout=60)
    log.info("after")
    seen = [{name: line.get(name) for name in ("message", "step", "id", "part")} for line in lines(stderr)]
    assert seen == [
        {"message": "inner", "step": "deliver", "id": "t2", "part": 3},
        {"message": "outer", "step": "deliver", "id": "t1", "part": None},
        {"message": "elsewhere", "step": None, "id": None, "part": None},
        {"message": "after", "step": None, "id": None, "part": None},
    ]


def test_an_exception_is_one_field_of_its_line(stderr: io.StringIO) -> None:
    """A traceback does not tear the log into lines that nobody can parse."""
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        logging.getLogger("eft").exception("it happened")
    (line,) = lines(stderr)
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ZeroDivisionError: division by zero")


def test_what_json_does_not_know_is_shown_as_text(stderr: io.StringIO) -> None:
    """A log call never fails for what it was to tell."""
    logging.getLogger("eft").info("odd", extra={"when": datetime(2025, 1, 6, tzinfo=UTC), "what": {1}})
    (line,) = lines(stderr)
    assert (line["when"], line["what"]) == ("2025-01-06 00:00:00+00:00", "{1}")


def test_the_sdks_speak_from_warnings_on(stderr: io.StringIO) -> None:
    """Their debug output holds headers and bodies; ours begins at the level that was asked for."""
    for name in ("botocore", "botocore.parsers", "paramiko.transport", "urllib3.connectionpool", "boto3"):
        logging.getLogger(name).info("Authorization: secret")
        logging.getLogger(name).warning("retrying")
    logging.getLogger("eft").debug("too much")
    logging.getLogger("eft").info("enough")
    assert [line["message"] for line in lines(stderr)] == ["retrying"] * 5 + ["enough"]


def test_an_extra_field_of_an_own_name_keeps_its_place() -> None:
    """The formatter adds what a record does not have by itself, and nothing of logging's own."""
    record = logging.getLogger("eft").makeRecord("eft", logging.INFO, __file__, 1, "m", (), None, extra={"reason": "x"})
    assert set(json.loads(JsonLines().format(record))) == {"at", "level", "logger", "message", "reason"}
