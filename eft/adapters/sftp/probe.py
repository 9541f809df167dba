"""The connection test of an SFTP endpoint, step by step; it stops at the first step that fails and says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import islice
from typing import TypeVar

from eft.adapters.sftp.connect import Address, Connection, Patience, connect, dial, resolve, show
from eft.adapters.sftp.keys import HOST_KEY_ALGORITHMS
from eft.adapters.sftp.login import check_host_key
from eft.adapters.sftp.session import FSYNC, LIMITS, POSIX_RENAME, STATVFS
from eft.adapters.sftp.store import SftpStore
from eft.domain.endpoint import Credential, HostKey, SftpEndpoint
from eft.errors import EftError, Permanent
from eft.ports import Check, ProbeReport

T = TypeVar("T")


class _Failed(Exception):
    """A step failed; its check is noted."""


def probe(endpoint: SftpEndpoint, credential: Credential, patience: Patience) -> ProbeReport:
    """Returns what a test of an endpoint finds: resolve, connect, host_key, authenticate, list, and the server's capabilities.

    Every host key that the server holds is shown. Without a pinned one among them the test ends there: nothing secret is sent to a
    server that nobody has vouched for.
    """
    checks: list[Check] = []
    shown: list[HostKey] = []
    capabilities: dict[str, str] = {}
    try:
        addresses = _step(checks, "resolve", lambda: resolve(endpoint, patience), _counted)
        held = _step(checks, "connect", lambda: dial(endpoint, addresses, patience), lambda _: "connected")
        held.close()
        _step(checks, "host_key", lambda: _host_keys(endpoint, patience, shown), lambda text: text)
        with closing(
            _step(checks, "authenticate", lambda: connect(endpoint, credential, patience), lambda _: f"as '{endpoint.username}'")
        ) as connection:
            store = SftpStore(endpoint, connection.session)
            _step(checks, "list", lambda: _list_root(store), lambda text: text)
            capabilities = _capabilities(store, connection)
    except _Failed:
        pass
    return ProbeReport(ok=all(check.ok for check in checks), checks=tuple(checks), host_keys=tuple(shown), capabilities=capabilities)


def _step(checks: list[Check], name: str, act: Callable[[], T], tell: Callable[[T], str]) -> T:
    try:
        result = act()
    except EftError as error:
        checks.append(Check(name, ok=False, message=f"{error} [{error.reason}]"))
        raise _Failed from None
    checks.append(Check(name, ok=True, message=tell(result)))
    return result


def _host_keys(endpoint: SftpEndpoint, patience: Patience, shown: list[HostKey]) -> str:
    """Notes the server's key of each type and returns what is to be said of them.

    Raises:
        Permanent: `host_key_unpinned`; `host_key_mismatch` when none of the keys is a pinned one.
        Transient: the server could not be asked for any.
    """
    failure: EftError | None = None
    for algorithms in HOST_KEY_ALGORITHMS.values():
        try:
            shown.append(show(endpoint, algorithms, patience))
        except Permanent:
            # It holds no key of this type.
            continue
        except EftError as error:
            failure = error
            break
    if failure and not shown:
        raise failure
    seen = ", ".join(f"{key.algorithm} {key.fingerprint}" for key in shown)
    if not shown:
        raise Permanent("the server holds no host key of a known type, or shares no cipher with us", reason="algorithms_differ")
    if not endpoint.host_keys:
        raise Permanent(f"no host key is pinned; the server shows {seen}: compare out of band, then pin", reason="host_key_unpinned")
    pinned = {pin.key for pin in endpoint.host_keys}
    known = [key for key in shown if key.key in pinned]
    if not known:
        check_host_key(endpoint, shown[0])
    return f"pinned: {', '.join(f'{key.algorithm} {key.fingerprint}' for key in known)}"


def _counted(addresses: Sequence[Address]) -> str:
    return f"{len(addresses)} address{'' if len(addresses) == 1 else 'es'}"


def _list_root(store: SftpStore) -> str:
    some = list(islice(store.list("", recursive=False), 1001))
    number = "more than 1000" if len(some) > 1000 else len(some)  # noqa: PLR2004
    return f"the root can be listed: {number} file{'' if number == 1 else 's'}, its directories aside"


def _capabilities(store: SftpStore, connection: Connection) -> dict[str, str]:
    session = connection.session
    offered = {POSIX_RENAME: "posix_rename", FSYNC: "fsync", LIMITS: "limits", STATVFS: "statvfs"}
    return {
        "software": session.version,
        **{name: "yes" if extension in session.extensions else "no" for extension, name in offered.items()},
        "rename": str(store.rename_mode),
        "lanes": str(store.lanes),
        "read_size": str(session.read_size),
        "write_size": str(session.write_size),
        "round_trip_ms": f"{session.round_trip * 1000:.1f}",
        "root": session.realpath(store.at("")).decode("utf-8", "backslashreplace"),
    }
