"""One SFTP session: the requests that a store makes, pipelined, and what the server can do."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from eft.adapters.sftp.reading import Reading
from eft.adapters.sftp.wire import Attributes, Code, Kind, Pipe, Refused, Reply, Wire, string, uint32, uint64
from eft.domain.parts import MIB
from eft.ports import Bytes

SAFE_SIZE = 32 * 1024
"""Bytes that every server reads and writes in one request (draft-ietf-secsh-filexfer-02, section 3)."""
LARGEST_SIZE = 255 * 1024
"""Bytes beyond which no server does (OpenSSH: 256 KiB packets less their headers)."""
LEAST_AHEAD = 3 * MIB
MOST_AHEAD = 4 * MIB
"""Bounds of the bytes asked for or sent before they are answered; more doubles the work of a server next door."""
ASSUMED_SPEED = 250_000_000
"""Bytes per second that a path is thought to carry: with its round trip, this tells how much must be under way to fill it."""
MOST_REQUESTS = 256
FAR = 0.005
"""Seconds of round trip from which a file's following bytes are asked for before anybody wants them."""

READ, WRITE, CREATE, EXCLUSIVE = 0x01, 0x02, 0x08, 0x20
"""Flags of OPEN."""

POSIX_RENAME = b"posix-rename@openssh.com"
FSYNC = b"fsync@openssh.com"
STATVFS = b"statvfs@openssh.com"
LIMITS = b"limits@openssh.com"


@dataclass(frozen=True, slots=True)
class Habits:
    """What a server is known to stand, by the software version that it announces."""

    lanes: int = 1
    """Handles that may write one file at a time."""
    names_ahead: int = 1
    """READDIR requests that may be under way on one handle."""
    in_order: bool = False
    """Whether it carries out requests one after the other, as they came, whatever they are about. The draft (section 6.1) has it so for
    each file alone; servers that hand requests to threads let a look overtake a READ."""


_KNOWN = {
    "OpenSSH": Habits(lanes=4, names_ahead=16, in_order=True),
    # It writes to one file through several handles too, but its AllowStoreRestart must be on for that.
    "mod_sftp": Habits(lanes=1, names_ahead=16, in_order=True),
}


def habits_of(version: str) -> Habits:
    """Returns the habits of the server that announces `SSH-2.0-<software>…`; the most careful ones for an unknown server."""
    software = version.split("-", 2)[-1]
    return next((habits for name, habits in _KNOWN.items() if software.startswith(name)), Habits())


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a listing, as the server sent it."""

    name: bytes
    line: bytes
    """As `ls -l` would show it; the only hint of the type on some servers."""
    attributes: Attributes


class Session:
    """Requests on one wire. Raises `Refused` for error statuses, and the wire's own errors."""

    def __init__(self, pipe: Pipe, *, endpoint: str, version: str, patience: float, patience_for_disk: float) -> None:
        self.wire = Wire(pipe, endpoint=endpoint, patience=patience)
        self._patience_for_disk = patience_for_disk
        self.version = version
        self.habits = habits_of(version)
        self.extensions = self.wire.greet()
        self.read_size = self.write_size = SAFE_SIZE
        began = time.monotonic()
        if LIMITS in self.extensions:
            self._learn_limits()
        else:
            self.wire.call(Kind.REALPATH, string(b".")).expect(Kind.NAME)
        self.round_trip = time.monotonic() - began
        self._handles: set[bytes] = set()
        self._kept: tuple[bytes, Reading] | None = None
        self.reads_full = True
        """Whether no READ was answered with less than it asked for, so far."""
        self.streamed = {"read": 0, "written": 0}
        """Bytes of large files that went each way; small ones say nothing of how fast a server is."""
        self._ahead = min(MOST_AHEAD, max(LEAST_AHEAD, int(self.round_trip * ASSUMED_SPEED)))

    @property
    def at_rest(self) -> bool:
        """Whether nothing is open, so that no forgotten iterator can use the session any more."""
        return not self._handles

    @property
    def far(self) -> bool:
        """Whether each round trip counts."""
        return self.round_trip >= FAR

    @property
    def reads_ahead(self) -> int:
        """READ requests to keep under way."""
        return min(MOST_REQUESTS, self._ahead // self.read_size)

    @property
    def writes_ahead(self) -> int:
        """WRITE requests to keep under way."""
        return min(MOST_REQUESTS, self._ahead // self.write_size)

    # -- names -------------------------------------------------------------------------------------------------------

    def lstat(self, path: bytes) -> Attributes:
        """Returns what stands under a name; links are not followed."""
        return self.wire.call(Kind.LSTAT, string(path)).expect(Kind.ATTRS).attributes()

    def stat(self, path: bytes) -> Attributes:
        """Returns what a name leads to; links are followed."""
        return self.wire.call(Kind.STAT, string(path)).expect(Kind.ATTRS).attributes()

    def ask_lstat(self, path: bytes) -> int:
        """Asks what stands under a name and returns the request's id, for `wire.take`."""
        return self.wire.post(Kind.LSTAT, string(path))

    def realpath(self, path: bytes) -> bytes:
        """Returns the server's absolute form of a path."""
        reply = self.wire.call(Kind.REALPATH, string(path)).expect(Kind.NAME)
        reply.uint32()
        return bytes(reply.string())

    def rename(self, old: bytes, new: bytes) -> None:
        """Renames; version 3 forbids servers to overwrite, but not all obey."""
        self.wire.call(Kind.RENAME, string(old), string(new)).expect(Kind.STATUS)

    def posix_rename(self, old: bytes, new: bytes) -> None:
        """Renames in one instant, overwriting."""
        self.wire.call(Kind.EXTENDED, string(POSIX_RENAME), string(old), string(new)).expect(Kind.STATUS)

    def remove(self, path: bytes) -> None:
        """Removes a file or link."""
        self.wire.call(Kind.REMOVE, string(path)).expect(Kind.STATUS)

    def mkdir(self, path: bytes) -> None:
        """Makes a directory with the server's default permissions."""
        self.wire.call(Kind.MKDIR, string(path), uint32(0)).expect(Kind.STATUS)

    def names(self, path: bytes) -> Iterator[Entry]:
        """Yields the entries of a directory, asking for several replies ahead where the server stands it."""
        wire = self.wire
        handle = self._opened(wire.call(Kind.OPENDIR, string(path)))
        asked = deque(wire.post(Kind.READDIR, handle) for _ in range(self.habits.names_ahead))
        try:
            while asked:
                try:
                    reply = wire.take(asked.popleft()).expect(Kind.NAME)
                except Refused as refused:
                    if refused.code == Code.EOF:
                        return
                    raise
                count = reply.uint32()
                if not count:
                    # Not foreseen by the draft; servers that send it mean the end.
                    return
                for _ in range(count):
                    yield Entry(bytes(reply.string()), bytes(reply.string()), reply.attributes())
                asked.append(wire.post(Kind.READDIR, handle))
        finally:
            for ident in asked:
                wire.forget(ident)
            self.drop(handle)

    def free_bytes(self, path: bytes) -> int | None:
        """Returns the space left on the file system of a path, None where the server does not tell."""
        if STATVFS not in self.extensions:
            return None
        reply = self.wire.call(Kind.EXTENDED, string(STATVFS), string(path)).expect(Kind.EXTENDED_REPLY)
        _block, fragment, _blocks, _free, available = (reply.uint64() for _ in range(5))
        return fragment * available

    # -- bytes -------------------------------------------------------------------------------------------------------

    def open(self, path: bytes, flags: int) -> bytes:
        """Opens a file and returns its handle, as a field of later requests."""
        return self.opened(self.ask_open(path, flags))

    def ask_open(self, path: bytes, flags: int) -> int:
        """Asks for a file to be opened and returns the request's id, for `opened`, which must follow."""
        return self.wire.post(Kind.OPEN, string(path), uint32(flags), uint32(0))

    def opened(self, asked: int) -> bytes:
        """Returns the handle that was asked for."""
        return self._opened(self.wire.take(asked))

    def close(self, handle: bytes) -> None:
        """Closes a file and checks that the server managed to."""
        self._handles.discard(handle)
        self.wire.call(Kind.CLOSE, handle, patience=self._patience_for_disk).expect(Kind.STATUS)

    def drop(self, handle: bytes) -> None:
        """Closes a file or directory without waiting for the answer; the request leaves with the one that follows."""
        self._handles.discard(handle)
        if not self.wire.broken:
            self.wire.forget(self.wire.post(Kind.CLOSE, handle))

    def fsync(self, handle: bytes) -> None:
        """Has the server write a file to its disk, where it offers that."""
        if FSYNC not in self.extensions:
            return
        try:
            self.wire.call(Kind.EXTENDED, string(FSYNC), handle, patience=self._patience_for_disk).expect(Kind.STATUS)
        except Refused as refused:
            if refused.code != Code.OP_UNSUPPORTED:
                raise

    def ask_attributes(self, handle: bytes) -> int:
        """Asks for the attributes of an open file and returns the request's id, for `wire.take`."""
        return self.wire.post(Kind.FSTAT, handle)

    def ask_read(self, handle: bytes, offset: int, length: int) -> int:
        """Asks for bytes of an open file and returns the request's id, for `wire.take`."""
        return self.wire.post(Kind.READ, handle, uint64(offset), uint32(length))

    def read(self, handle: bytes, *, start: int, size: int) -> Iterator[memoryview]:
        """Yields the bytes [start, start + size) of an open file in order, with many requests under way.

        Raises:
            Shorter: the file ends before.
        """
        reading = Reading(self, handle, start=start)
        try:
            yield from reading.chunks(start + size, ahead_to=start + size)
        finally:
            reading.forget()

    def reads_at_most(self, size: int) -> None:
        """Asks for less from now on: the most that this server gives, or the end of a file: either way more is of no use."""
        self.read_size = max(SAFE_SIZE, min(self.read_size, size))
        self.reads_full = False

    def keep(self, path: bytes, reading: Reading) -> None:
        """Keeps a reading for whoever goes on where it stands."""
        self.let_go()
        self._kept = (path, reading)

    def resume(self, path: bytes, start: int) -> Reading | None:
        """Returns the reading that was kept, if it is of that file and stands there; any other is left."""
        if self._kept is not None and self._kept[0] == path and self._kept[1].at == start:
            (_, reading), self._kept = self._kept, None
            return reading
        self.let_go()
        return None

    def keeps(self, reading: Reading) -> bool:
        """Returns whether it is this reading that is kept."""
        return self._kept is not None and self._kept[1] is reading

    def let_go(self) -> None:
        """Leaves the reading that was kept."""
        if self._kept is not None:
            (_, reading), self._kept = self._kept, None
            reading.leave()

    def post_write(self, handle: bytes, offset: int, held: Bytes) -> int:
        """Sends bytes to be written and returns the request's id, for `wire.take`."""
        return self.wire.post(Kind.WRITE, handle, uint64(offset), uint32(len(held)), held)

    def _opened(self, reply: Reply) -> bytes:
        handle = string(bytes(reply.expect(Kind.HANDLE).string()))
        self._handles.add(handle)
        return handle

    def _learn_limits(self) -> None:
        try:
            reply = self.wire.call(Kind.EXTENDED, string(LIMITS)).expect(Kind.EXTENDED_REPLY)
        except Refused:
            return
        packet, read, write = (reply.uint64() or LARGEST_PACKET for _ in range(3))
        # A packet also carries its type, id, handle (at most 256 bytes), offset and lengths.
        room = packet - 1024
        self.read_size = max(SAFE_SIZE, min(LARGEST_SIZE, read, room))
        self.write_size = max(SAFE_SIZE, min(LARGEST_SIZE, write, room))


LARGEST_PACKET = 256 * 1024
"""What a limit of 0, "unlimited", is taken for."""
