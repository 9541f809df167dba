"""Selection: which files of a source a flow takes, and when one counts as finished by its writer."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from fnmatch import translate
from functools import lru_cache
from typing import Annotated, Any, Final, Self

import re2
from pydantic import Field, StringConstraints, field_validator, model_validator

from eft.domain.endpoint import Frozen
from eft.domain.fingerprint import RemoteFile
from eft.domain.instants import spoken
from eft.domain.names import directory_path

_MARKER_FIELD = re.compile(r"\{(name|stem)\}")
REGEX_MEMORY: Final = 1024 * 1024
"""Bytes that one expression may take: every process holds those of all tenants."""
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class Stability(Frozen):
    """When a file counts as finished. All that is asked for must hold; `Selection.min_age` and `exclude` are signals, too."""

    looks: int = Field(default=1, ge=1, le=20)
    """Listings, one after the other, in which the file must show the same size and modified time."""
    apart: timedelta = Field(default=timedelta(seconds=10), ge=timedelta(seconds=1), le=timedelta(minutes=5))
    """Time between two looks that count; a run looks again by itself until its files are settled or are seen to change."""
    done_marker: str | None = Field(default=None, min_length=1, max_length=200)
    """A file beside it that its writer makes last: `{name}.done`, `{stem}.ok`; without a field, one for a whole directory: `READY`."""

    @field_validator("done_marker")
    @classmethod
    def _is_name(cls, value: str | None) -> str | None:
        if value is not None:
            plain = _MARKER_FIELD.sub("", value)
            if not plain or "/" in value or "{" in plain or "}" in plain or len(_MARKER_FIELD.findall(value)) > 1:
                msg = "is a file name, with at most one of {name} and {stem} and something beside it, such as {name}.done"
                raise ValueError(msg)
        return value


class Selection(Frozen):
    """Which files of the source a flow takes."""

    directory: str = ""
    glob: str | None = Field(default=None, max_length=255)
    regex: str | None = Field(default=None, max_length=500)
    exclude: tuple[Pattern, ...] = Field(default=(), max_length=50)
    """Globs of names that are never taken: those of unfinished files (`*.tmp`, `.*`) where a writer renames at the end."""
    recursive: bool = False
    max_depth: int | None = Field(default=None, ge=1, le=32)
    """Directories below the selection's that a recursive flow enters at most."""
    min_size: int = Field(default=0, ge=0)
    max_size: int | None = Field(default=None, ge=0)
    min_age: timedelta = timedelta(0)
    max_age: timedelta | None = None
    forget_after: timedelta | None = Field(default=None, ge=timedelta(days=1), le=timedelta(days=3660))
    """Files modified longer ago are never taken again, whatever happens: a watermark that only rises, behind which memory may end."""
    stability: Stability = Stability()

    @field_validator("directory")
    @classmethod
    def _clean_directory(cls, value: str) -> str:
        return directory_path(value)

    @field_validator("regex")
    @classmethod
    def _is_regex(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                _regex(value)
            except re2.error as error:
                msg = f"is no regular expression of the RE2 syntax (no look-around, no back-references): {_said(error)}"
                raise ValueError(msg) from None
        return value

    @model_validator(mode="after")
    def _one_pattern(self) -> Self:
        if self.glob is not None and self.regex is not None:
            msg = "give glob or regex, not both"
            raise ValueError(msg)
        if self.max_depth is not None and not self.recursive:
            msg = "max_depth goes with recursive"
            raise ValueError(msg)
        return self

    def below(self, path: str) -> str:
        """Returns a path relative to the selection's directory."""
        return path[len(self.directory) + 1 :] if self.directory and path.startswith(self.directory + "/") else path

    def names(self, path: str) -> bool:
        """Returns whether the pattern takes a path, given relative to the selection's directory.

        A glob without `/` is matched against the last component, one with `/` against the whole path (`*` crosses `/`); a regex, in
        RE2's syntax because that takes linear time whatever a customer writes, must match the whole path.
        """
        if self.max_depth is not None and path.count("/") > self.max_depth:
            return False
        name = path.rpartition("/")[2]
        if any(_compiled(glob).match(path if "/" in glob else name) for glob in self.exclude) or self.is_marker(name):
            return False
        if self.regex is not None:
            return _regex(self.regex).fullmatch(path) is not None
        glob = self.glob or "*"
        return _compiled(glob).match(path if "/" in glob else name) is not None

    def is_marker(self, name: str) -> bool:
        """Returns whether a file's name is that of a done-marker, which is never taken itself."""
        marker = self.stability.done_marker
        if marker is None:
            return False
        before, field, after = _MARKER_FIELD.split(marker) if "{" in marker else (marker, "", "")
        if not field:
            return name == marker
        return len(name) > len(before) + len(after) and name.startswith(before) and name.endswith(after)

    def marker_of(self, path: str) -> str | None:
        """Returns the path of the done-marker that a file waits for, if its flow asks for one."""
        marker = self.stability.done_marker
        if marker is None:
            return None
        name = path.rpartition("/")[2]
        stem = name.rpartition(".")[0] or name
        beside = _MARKER_FIELD.sub(lambda match: name if match[1] == "name" else stem, marker)
        return path[: len(path) - len(name)] + beside

    def why_not(self, file: RemoteFile, *, now: datetime, window: tuple[datetime, datetime] | None = None) -> str | None:
        """Returns why a listed file is left out, in words for a customer, or None if it is taken.

        With a `window` a file is taken if it was modified in it, of whatever age.
        """
        if not self.names(self.below(file.path)):
            return "its name does not match the pattern"
        if file.size < self.min_size:
            return f"smaller than {self.min_size} bytes"
        if self.max_size is not None and file.size > self.max_size:
            return f"larger than {self.max_size} bytes"
        return self._why_not_in_time(file.modified, now=now, window=window)

    def _why_not_in_time(self, modified: datetime | None, *, now: datetime, window: tuple[datetime, datetime] | None) -> str | None:
        if modified is None:
            return None if window is None else "its server does not tell when it was modified"
        age = now - modified
        if self.forget_after is not None and age > self.forget_after:
            return f"older than {spoken(self.forget_after)}, which the flow has forgotten"
        if window is not None:
            return None if window[0] <= modified < window[1] else "not modified in the time asked for"
        if age < self.min_age:
            return f"younger than {spoken(self.min_age)}"
        if self.max_age is not None and age > self.max_age:
            return f"older than {spoken(self.max_age)}"
        return None


@lru_cache(maxsize=256)
def _regex(pattern: str) -> Any:  # noqa: ANN401 - re2 is published without types
    options = re2.Options()
    options.log_errors = False
    options.max_mem = REGEX_MEMORY
    return re2.compile(pattern, options=options)


def _said(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)


@lru_cache(maxsize=512)
def _compiled(glob: str) -> re.Pattern[str]:
    return re.compile(translate(glob))
