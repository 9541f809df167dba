"""Names of things: remote paths from hostile bytes, ids derived from what makes them unique."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import NewType

from eft.errors import NotFound, Permanent

RemotePath = NewType("RemotePath", str)
"""A path relative to its endpoint's root: `/`-separated, no empty, `.` or `..` component, no control character, valid UTF-8."""

MAX_COMPONENT = 255
"""Bytes in one component: the limit of Linux file systems (limits.h, NAME_MAX)."""
MAX_PATH = 1024
"""Bytes in a whole path: the limit of an S3 key (Amazon S3 User Guide, "Naming Amazon S3 objects")."""
PARTITIONS = 64
"""Never changes: a row's partition is stored, and a new count would move none of them."""
TOKEN_SUFFIX = ".part"
_ID = re.compile(r"[0-9a-f]{32}")
_PUT = re.compile(r"put:([0-9a-f]{32})\.\d+\.\d+\.[0-9a-f]+")
_DISPOSAL = re.compile(r"\.([0-9a-f]{32})\.\d+\.0\.[0-9a-f]+\.part")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FIELD = re.compile(r"\{([a-z_]+)(?::([^{}]*))?\}")


class InvalidName(Permanent, ValueError):
    """A name that cannot become a RemotePath. It is a ValueError too, so that a model says which of its fields holds it."""


def remote_path(raw: bytes | str) -> RemotePath:
    """Returns the one normal form of a name that came from outside; leading and doubled slashes are dropped.

    Raises:
        InvalidName: `name_invalid`, saying what is wrong; nothing is guessed or repaired.
    """
    text = _decode(raw)
    components = [c for c in text.split("/") if c]
    if not components:
        raise _invalid(text, "is empty")
    if any(c in {".", ".."} for c in components):
        raise _invalid(text, "contains a '.' or '..' component")
    if _CONTROL.search(text):
        raise _invalid(text, "contains a control character")
    if any(len(c.encode()) > MAX_COMPONENT for c in components):
        raise _invalid(text, f"has a component longer than {MAX_COMPONENT} bytes")
    path = "/".join(components)
    if len(path.encode()) > MAX_PATH:
        raise _invalid(text, f"is longer than {MAX_PATH} bytes")
    return RemotePath(path)


def directory_path(raw: str) -> str:
    """Returns the normal form of a directory relative to its endpoint's root; the root itself is `""`."""
    return remote_path(raw) if raw.strip("/") else ""


def display(raw: bytes | str) -> str:
    """Returns a hostile name in printable ASCII escapes, at most 300 characters, for logs and rows."""
    text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw
    shown = "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode() for ch in text)
    return shown.encode("utf-8", "backslashreplace").decode()[:300]


def join(directory: str, name: str) -> RemotePath:
    """Returns `name` below `directory`, normalised."""
    return remote_path(f"{directory}/{name}" if directory else name)


def parent(path: str) -> str:
    """Returns the directory of a path, `""` for one at the root."""
    return path.rpartition("/")[0]


def basename(path: str) -> str:
    """Returns the last component of a path."""
    return path.rpartition("/")[2]


def numbered(path: RemotePath, number: int) -> RemotePath:
    """Returns the path of conflict mode `rename`: `report.csv` → `report.1.csv`."""
    stem, dot, suffix = basename(path).partition(".")
    return join(parent(path), f"{stem}.{number}{dot}{suffix}")


def partition_of(tenant: str, destination_endpoint: str) -> int:
    """Returns the slice of work, 0 … PARTITIONS - 1, that a transfer to this endpoint belongs to."""
    return shard_of(tenant, destination_endpoint, shards=PARTITIONS)


def shard_of(*parts: str, shards: int) -> int:
    """Returns the same number, 0 … shards - 1, for the same parts, evenly spread."""
    return int.from_bytes(_digest(*parts)[:8], "big") % shards


def transfer_id(*unique: str, partition: int) -> str:
    """Returns the id that these parts always have: 32 hex digits, the first two its partition, the rest a SHA-256."""
    return f"{partition:02x}{_digest(*unique).hex()[:30]}"


def partition_of_id(transfer: str) -> int:
    """Returns the partition that a transfer's id names: who has the id knows which region to ask.

    Raises:
        NotFound: `transfer_unknown`: it is no id of a transfer.
    """
    if _ID.fullmatch(transfer) and int(transfer[:2], 16) < PARTITIONS:
        return int(transfer[:2], 16)
    msg = f"no transfer has the id '{display(transfer)}'"
    raise NotFound(msg, reason="transfer_unknown")


def token_name(final: RemotePath, *, transfer: str, region_epoch: int, attempt: int, nonce: str) -> RemotePath:
    """Returns the temporary name that one attempt uploads under, beside the final name (DESIGN 5, D2)."""
    return join(parent(final), f".{transfer}.{region_epoch}.{attempt}.{nonce}{TOKEN_SUFFIX}")


def put_token(transfer: str, *, region_epoch: int, attempt: int, nonce: str) -> str:
    """Returns the token of an attempt that is one request: it names nothing at the destination, and no upload id looks like it."""
    return f"put:{transfer}.{region_epoch}.{attempt}.{nonce}"


def put_by(token: str) -> str | None:
    """Returns the id of the transfer whose token is one request that is never repeated (docs/adr/0017); None of any other token."""
    found = _PUT.fullmatch(token)
    return None if found is None else found[1]


def is_token(path: str) -> bool:
    """Returns whether a path looks like a token of ours, which discover never picks up."""
    name = basename(path)
    return name.startswith(".") and name.endswith(TOKEN_SUFFIX)


def disposed_by(path: str) -> str | None:
    """Returns the id of the transfer that renamed its source to this token (`attempt` is 0, which no upload is); None of any other path."""
    found = _DISPOSAL.fullmatch(basename(path)) if path.endswith(TOKEN_SUFFIX) else None
    return None if found is None else found[1]


TEMPLATE_FIELDS = frozenset({"name", "stem", "suffix", "directory", "path", "date", "flow", "tenant", "transfer"})


def check_template(template: str) -> str:
    """Returns the template if every field is known and what stands beside them can be part of a path.

    Raises:
        ValueError: names the unknown field, or says what no path has.
    """
    for field, _ in _FIELD.findall(template):
        if field not in TEMPLATE_FIELDS:
            msg = f"unknown field {{{field}}}; known are {', '.join(sorted(TEMPLATE_FIELDS))}"
            raise ValueError(msg)
    if "{" in _FIELD.sub("", template) or "}" in _FIELD.sub("", template):
        msg = "unbalanced brace; a field is written {name}"
        raise ValueError(msg)
    remote_path(_FIELD.sub(lambda field: _day(datetime(2000, 1, 1, tzinfo=UTC), field[2]) if field[1] == "date" else "x", template))
    return template


def destination_name(template: str, *, source: RemotePath, base: str, at: datetime, tenant: str, flow: str, transfer: str) -> RemotePath:
    """Returns the destination path for a source path.

    `{path}` is the source path below `base` (the selection's directory), `{directory}` its directory, `{name}` its last component with
    `{stem}` and `{suffix}`; `{date:%Y/%m/%d}` is the accept time in UTC; `{flow}`, `{tenant}` and `{transfer}` are ids. All of them are
    fixed when the transfer is accepted, so the same version gets the same name each time.
    """
    below = source[len(base) + 1 :] if base and source.startswith(base + "/") else source
    stem, dot, suffix = basename(below).rpartition(".")
    values = {
        "name": basename(below),
        "stem": stem if dot else suffix,
        "suffix": dot + suffix if dot else "",
        "directory": parent(below),
        "path": below,
        "flow": flow,
        "tenant": tenant,
        "transfer": transfer,
    }

    def fill(match: re.Match[str]) -> str:
        if match[1] == "date":
            return _day(at, match[2])
        return values[match[1]]

    return remote_path(_FIELD.sub(fill, template))


def _day(at: datetime, pattern: str | None) -> str:
    return at.astimezone(UTC).strftime(pattern or "%Y-%m-%d")


def _decode(raw: bytes | str) -> str:
    try:
        return raw.decode("utf-8") if isinstance(raw, bytes) else raw.encode("utf-8").decode("utf-8")
    except UnicodeError:
        raise _invalid(raw, "is not valid UTF-8") from None


def _invalid(raw: bytes | str, why: str) -> InvalidName:
    return InvalidName(f"the name '{display(raw)}' {why}", reason="name_invalid")


def _digest(*parts: str) -> bytes:
    joined = b"".join(len(p.encode()).to_bytes(4, "big") + p.encode() for p in parts)
    return hashlib.sha256(joined).digest()
