"""What the schemas of every resource share: asked or shown, lines of text, paths, pages."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from eft.domain.names import directory_path, remote_path


class Asked(BaseModel):
    """A request: unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Shown(BaseModel):
    """An answer."""

    model_config = ConfigDict(frozen=True)


def printable(value: str) -> str:
    """Returns the text if it is one line without blanks at its ends.

    Raises:
        ValueError: it is not.
    """
    if not value.isprintable() or value != value.strip():
        msg = "holds a control character, or blanks at an end"
        raise ValueError(msg)
    return value


def _file_path(value: str) -> str:
    if value.endswith("/"):
        msg = "names a directory; give the file's name too"
        raise ValueError(msg)
    return remote_path(value)


def _root(value: str) -> str:
    directory_path(value)
    return value


Line = Annotated[str, StringConstraints(min_length=1, max_length=120), AfterValidator(printable)]
"""One line of text."""
Host = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9_:]([A-Za-z0-9._:-]*[A-Za-z0-9._:])?$")]
"""A DNS name or an IP address."""
Directory = Annotated[str, StringConstraints(max_length=1024), AfterValidator(_root)]
FilePath = Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_file_path)]
"""A path below an endpoint's root: no `.` or `..`, no control character, at most 255 bytes in one component."""
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class PageAsked(Asked):
    """Which page of a list."""

    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, min_length=1, max_length=2048)
