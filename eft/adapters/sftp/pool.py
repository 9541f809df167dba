"""Connections to SFTP endpoints: pooled per process, bounded across the fleet, used by one thread at a time."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from eft.adapters.buffers import BUFFERS
from eft.adapters.sftp.connect import Connection, Patience, connect
from eft.adapters.sftp.easing import REFUSALS, Easing, slots_key
from eft.adapters.sftp.probe import probe
from eft.adapters.sftp.store import SftpStore
from eft.domain.endpoint import Credential, SftpEndpoint
from eft.errors import EftError, Permanent, SliceOver, Transient
from eft.ports import Check, Clock, Limits, ProbeReport, Secrets, Slots, Store

LOG = logging.getLogger(__name__)

IDLE = timedelta(seconds=30)
"""How long a connection waits for its next use: a new one costs round trips, and tens of milliseconds of processor time at both ends."""
SCARCE = timedelta(seconds=5)
"""The same where more than half of the slots that the endpoint may have now are taken: its own may be wanted elsewhere."""
LEASE = timedelta(seconds=60)
"""Life of a slot whose process died."""
TICK = 1.0
"""Seconds between two rounds of the keeper."""


@dataclass(eq=False, slots=True)
class _Slot:
    """One of an endpoint's slots, taken across the fleet, and the connection that it allows."""

    endpoint: SftpEndpoint
    secret: bytes
    """Digest of the credential that the connection was made with; the credential itself is not kept."""
    holder: str
    slots: Slots
    """The endpoint's, when this one was acquired or renewed."""
    renewed: float
    connection: Connection
    idle_since: float | None = None
    lost: bool = False
    """The slot could not be renewed: the connection ends with its present use."""

    def serves(self, endpoint: SftpEndpoint, secret: bytes) -> bool:
        return self.endpoint == endpoint and self.secret == secret

    def outlived(self, now: float) -> bool:
        """Whether it has been idle for longer than it may."""
        life = IDLE if 2 * self.slots.taken <= self.slots.of else SCARCE
        return self.idle_since is None or now - self.idle_since >= life.total_seconds()


class SftpConnections:
    """Opens SFTP endpoints. Built before or after a fork alike: a child starts with no connection."""

    def __init__(
        self,
        limits: Limits,
        secrets: Secrets,
        clock: Clock,
        *,
        patience: Patience | None = None,
        lease: timedelta = LEASE,
    ) -> None:
        self._limits = limits
        self._secrets = secrets
        self._clock = clock
        self._patience = patience or Patience()
        self._lease = lease
        self._salt = os.urandom(16)
        self._inherited: list[_Slot] = []
        self._idling: list[_Slot] = []
        self._used: set[_Slot] = set()
        self._keeper: threading.Thread | None = None
        self._easing = Easing(limits)
        self._lock = threading.Lock()
        _POOLS.add(self)

    @contextmanager
    def open(self, endpoint: SftpEndpoint) -> Iterator[Store]:
        """Gives a store for the duration of the block. Its connection goes back to the pool unless it broke or something was left open.

        Raises:
            Transient: `endpoint_busy`, which does not count as a try; what `connect` raises.
            Permanent: what `connect` and the secrets raise.
        """
        slot = self._take(endpoint)
        fit = False
        try:
            yield SftpStore(endpoint, slot.connection.session)
            fit = True
        except (EftError, SliceOver):
            fit = True
            raise
        finally:
            self._give_back(slot, fit=fit)

    def probe(self, endpoint: SftpEndpoint) -> ProbeReport:
        """Tests an endpoint; never raises for what it finds. Nothing secret is sent to a server whose host key is not pinned."""
        try:
            credential = self._credential(endpoint)
            holder, _ = self._acquire(endpoint)
        except EftError as error:
            return ProbeReport(ok=False, checks=(Check(error.reason, ok=False, message=str(error)),))
        try:
            return probe(endpoint, credential, self._patience)
        finally:
            self._release(endpoint, holder)

    def close_idle(self) -> None:
        """Closes the connections that nobody has used for `IDLE` or `SCARCE` and gives their slots back."""
        now = self._clock.monotonic()
        with self._lock:
            old = [slot for slot in self._idling if slot.lost or not slot.connection.usable or slot.outlived(now)]
            self._idling = [s for s in self._idling if s not in old]
        self._close(old)

    def close_all(self) -> None:
        """Closes all idle connections now, and those in use when their block ends."""
        with self._lock:
            for slot in self._used:
                slot.lost = True
            idling, self._idling = self._idling, []
        self._close(idling)

    # -- slots -------------------------------------------------------------------------------------------------------

    def _take(self, endpoint: SftpEndpoint) -> _Slot:
        credential = self._credential(endpoint)
        secret = self._digest(credential)
        outdated: list[_Slot] = []
        found: _Slot | None = None
        with self._lock:
            for slot in [s for s in self._idling if s.endpoint.id == endpoint.id and s.endpoint.tenant == endpoint.tenant]:
                if slot.lost or not slot.serves(endpoint, secret) or not slot.connection.usable:
                    outdated.append(slot)
                elif found is None:
                    found = slot
            for slot in outdated + ([found] if found else []):
                self._idling.remove(slot)
            if found:
                self._used.add(found)
                found.idle_since = None
        self._close(outdated)
        return found or self._connect(endpoint, credential, secret)

    def _connect(self, endpoint: SftpEndpoint, credential: Credential, secret: bytes) -> _Slot:
        holder, slots = self._acquire(endpoint)
        renewed = self._clock.monotonic()
        try:
            connection, secret = self._log_in(endpoint, credential, secret)
        except BaseException as error:
            self._release(endpoint, holder)
            if isinstance(error, Transient) and error.reason in REFUSALS and self._others(endpoint):
                # It is there and works, and has enough: that is no failure of the file's, nor of the endpoint's.
                self._easing.refused(endpoint, taken=slots.taken)
                raise self._busy("the endpoint's server takes no further connection now") from error
            raise
        slot = _Slot(endpoint, secret, holder, slots, renewed, connection)
        with self._lock:
            self._used.add(slot)
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name="sftp-keeper", daemon=True)
                self._keeper.start()
        return slot

    def _log_in(self, endpoint: SftpEndpoint, credential: Credential, secret: bytes) -> tuple[Connection, bytes]:
        """Connects; a refused credential is tried once more if it has been rotated since it was cached."""
        try:
            return connect(endpoint, credential, self._patience), secret
        except Permanent as error:
            if error.reason not in {"auth_failed", "key_unreadable", "passphrase_wrong"} or endpoint.secret is None:
                raise
            self._secrets.forget(endpoint.secret)
            anew = self._credential(endpoint)
            if self._digest(anew) == secret:
                raise
            return connect(endpoint, anew, self._patience), self._digest(anew)

    def _give_back(self, slot: _Slot, *, fit: bool) -> None:
        slot.connection.session.let_go()
        broke = not slot.lost and not slot.connection.usable
        with self._lock:
            self._used.discard(slot)
            fit = fit and not slot.lost and slot.connection.usable and slot.connection.session.at_rest
            if fit:
                slot.idle_since = self._clock.monotonic()
                # Last in, first out: what is not needed grows old.
                self._idling.insert(0, slot)
        if not fit:
            self._close([slot])
        if broke and self._others(slot.endpoint):
            self._easing.cut(slot.endpoint, taken=slot.slots.taken)

    def _close(self, slots: list[_Slot]) -> None:
        for slot in slots:
            slot.connection.close()
            self._release(slot.endpoint, slot.holder)
        if slots:
            # The keeper may be gone before the last of them.
            BUFFERS.trim()

    def _acquire(self, endpoint: SftpEndpoint) -> tuple[str, Slots]:
        """Returns who has the new slot, and the endpoint's slots with it."""
        holder = self._clock.nonce()
        slots = self._limits.acquire(slots_key(endpoint), limit=endpoint.max_connections, holder=holder, lease=self._lease)
        if slots is None:
            raise self._busy(
                f"all connections of the endpoint are in use: {endpoint.max_connections}, or fewer while its server takes no more"
            )
        return holder, slots

    def _busy(self, message: str) -> Transient:
        return Transient(message, reason="endpoint_busy", retry_after=timedelta(seconds=1 + 4 * self._clock.jitter()), counts=False)

    def _others(self, endpoint: SftpEndpoint) -> bool:
        """Returns whether a connection of this process's to the endpoint lives: its server is there, and the link to it stands."""
        with self._lock:
            held = [*self._used, *self._idling]
        return any(slot.endpoint.id == endpoint.id and slot.connection.usable for slot in held)

    def _release(self, endpoint: SftpEndpoint, holder: str) -> None:
        # A slot that cannot be given back ends with its lease.
        with suppress(EftError):
            self._limits.release(slots_key(endpoint), holder=holder)

    def _credential(self, endpoint: SftpEndpoint) -> Credential:
        return Credential() if endpoint.secret is None else self._secrets.get(endpoint.secret)

    def _digest(self, credential: Credential) -> bytes:
        held = [s.get_secret_value() if s else "" for s in (credential.password, credential.private_key, credential.passphrase)]
        return hashlib.blake2b("\0".join(held).encode(), key=self._salt).digest()

    # -- keeper ------------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Renews slots, closes idle connections and lets go of idle memory, for as long as there are connections."""
        me = threading.current_thread()
        while True:
            time.sleep(TICK)
            self.close_idle()
            self._renew()
            with self._lock:
                for slot in self._idling:
                    slot.connection.session.wire.rest()
                used = [(slot.endpoint, slot.connection.session, slot.slots.taken) for slot in self._used]
            self._easing.compare(used, now=self._clock.monotonic())
            BUFFERS.trim()
            with self._lock:
                if self._keeper is not me:
                    return
                if not self._used and not self._idling:
                    self._keeper = None
                    return

    def _renew(self) -> None:
        now = self._clock.monotonic()
        with self._lock:
            due = [slot for slot in [*self._used, *self._idling] if now - slot.renewed > self._lease.total_seconds() / 3]
        for slot in due:
            try:
                slots = self._limits.acquire(
                    slots_key(slot.endpoint), limit=slot.endpoint.max_connections, holder=slot.holder, lease=self._lease
                )
            except EftError:
                LOG.warning("the slot of a connection could not be renewed", extra={"endpoint": slot.endpoint.id}, exc_info=True)
                continue
            slot.renewed = now
            slot.slots, slot.lost = slots or slot.slots, slot.lost or slots is None
            with self._lock:
                given_back = slot not in self._used and slot not in self._idling
            if given_back:
                # Meanwhile: nobody else would end what was taken anew.
                self._release(slot.endpoint, slot.holder)

    # -- fork --------------------------------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """Begins anew in a forked child: the connections are the parent's, and so are their slots. They are kept from being collected."""
        self._inherited += [*self._idling, *self._used]
        for slot in self._inherited:
            slot.connection.abandon()
        self._idling, self._used, self._keeper, self._lock = [], set(), None, threading.Lock()


_POOLS: weakref.WeakSet[SftpConnections] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_POOLS):
        pool.after_fork()


os.register_at_fork(after_in_child=_after_fork)
