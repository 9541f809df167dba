"""How a command ends when it does not end well: an exit code that scripts can use, and words that say what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """What a command answers to the shell."""

    OK = 0
    NEGATIVE = 1
    """The question was answered, with no: a transfer failed, a connection test did, or somebody declined."""
    USAGE = 2
    """The request itself is wrong: an option, a value, or a body that the API refuses."""
    NOT_FOUND = 3
    UNAUTHORISED = 4
    CONFLICT = 5
    """The thing exists already, has changed meanwhile, or is in a state that does not allow it."""
    UNAVAILABLE = 6
    """The API cannot be reached, is overloaded or fails."""


EXIT_CODES = """\
\b
Exit codes:
  0  done
  1  negative result: a transfer did not settle, a connection test failed, or you declined
  2  usage: an option, a value or a request that the API refuses
  3  not found
  4  not authorised: no token, an expired one, or one without the scope
  5  conflict: exists already, changed meanwhile, or its state does not allow it
  6  the API cannot be reached, is overloaded or fails; try again later"""


def examples(*lines: str) -> str:
    """Returns command lines as the end of a help text, each on a line of its own."""
    return "\n".join(["\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)])


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with one field of a request."""

    field: str
    message: str


class Failure(Exception):
    """A command's end with an exit code other than 0. `advice` says what to do; `problem` is the API's own answer, where it gave one."""

    def __init__(
        self,
        message: str,
        *,
        code: ExitCode,
        advice: str | None = None,
        faults: tuple[Fault, ...] = (),
        problem: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.advice = advice
        self.faults = faults
        self.problem = problem


def usage(message: str, *, advice: str | None = None) -> Failure:
    """Returns the failure of a request that is wrong before it is sent."""
    return Failure(message, code=ExitCode.USAGE, advice=advice)
