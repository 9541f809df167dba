"""What the schemas of every resource share: asked or shown, lines of text, paths, pages."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Annotated, Final
from urllib.parse import urlsplit

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


_LABELS: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def _host(value: str) -> str:
    address = _as_address(value)
    if address is not None and (address.is_link_local or address.is_unspecified or address.is_multicast):
        msg = "is an address at which no server of yours can be"
        raise ValueError(msg)
    return value


def _store_address(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if port == 0 or not (_LABELS.fullmatch(host) or (":" in host and _as_address(host) is not None)):
        msg = "is no address such as https://store.example:9000"
        raise ValueError(msg)
    _host(host)
    return value


def _as_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Returns the IP address that a host is written as, in the old short and numeric forms too, which resolvers still take."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


Line = Annotated[str, StringConstraints(min_length=1, max_length=120), AfterValidator(printable)]
"""One line of text."""
Host = Annotated[
    str,
    StringConstraints(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9_:]([A-Za-z0-9._:-]*[A-Za-z0-9._:])?$"),
    AfterValidator(_host),
]
"""A DNS name or an IP address; none that is link-local, as the metadata of a machine is."""
StoreAddress = Annotated[str, StringConstraints(max_length=2048, pattern=r"^https?://[^\s/?#@]+/?$"), AfterValidator(_store_address)]
"""Scheme, host and port of an S3-compatible store; the same hosts as for `Host`."""
Directory = Annotated[str, StringConstraints(max_length=1024), AfterValidator(_root)]
FilePath = Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_file_path)]
"""A path below an endpoint's root: no `.` or `..`, no control character, at most 255 bytes in one component."""
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class PageAsked(Asked):
    """Which page of a list."""

    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, min_length=1, max_length=2048)
