"""Reading a small file at once, between two looks at it: with few round trips, for on a small file those are what takes time.

A server that carries out requests in the order in which they came is asked in two goes: for a look and the file's opening; then for all
of its bytes, its closing and the second look. From any other, each answer is awaited that the next request depends on.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from eft.adapters.sftp.reading import Reading, Shorter, data_of
from eft.adapters.sftp.session import READ, Session
from eft.adapters.sftp.wire import Kind, Refused
from eft.domain.fingerprint import RemoteFile
from eft.domain.names import RemotePath
from eft.errors import EftError, Permanent
from eft.ports import Bytes, Whole

if TYPE_CHECKING:
    from eft.adapters.sftp.source import SftpSource


def read_whole(source: SftpSource, path: RemotePath, *, limit: int, listed: bool) -> Whole:
    """Returns a file as it stood from the first look to the second, with its bytes; without them where it is larger than `limit`.

    Only what was listed as a file is opened before its look is answered: a server waits for ever that opens a named pipe.
    """
    session = source.session
    # What is being read ahead of another file would be answered first.
    session.let_go()
    file, handle = _opened(source, path, limit=limit, ahead=listed and session.habits.in_order)
    if handle is None:
        return file, []
    if not (session.habits.in_order and session.reads_full and file.size <= session.read_size * session.reads_ahead):
        return file, _in_turn(source, file, handle)
    chunks = _at_once(source, file, handle)
    # What a short answer left out cannot be asked for any more: the file is closed. From now on this server is asked in turn.
    return read_whole(source, path, limit=limit, listed=listed) if chunks is None else (file, chunks)


def changed(file: RemoteFile, how: str) -> Permanent:
    """Returns the error of a file that is no longer what it was found to be."""
    return Permanent(f"'{file.path}' changed while it was read: {how}, {file.size} when it was found", reason="source_changed")


def _opened(source: SftpSource, path: RemotePath, *, limit: int, ahead: bool) -> tuple[RemoteFile, bytes | None]:
    """Returns what stands under a path, and the handle of the file opened after that look; None where it is larger than `limit`."""
    session, name = source.session, source.at(path)
    looking = session.ask_lstat(name)
    opening = session.ask_open(name, READ) if ahead else None
    try:
        file = _seen(source, path, looking)
    except EftError:
        _leave(session, opening)
        raise
    if file.size > limit:
        _leave(session, opening)
        return file, None
    try:
        return file, session.open(name, READ) if opening is None else session.opened(opening)
    except Refused as refused:
        raise source.error(refused, path, failed="read_failed") from None


def _leave(session: Session, opening: int | None) -> None:
    """Closes what was asked to be opened, if it was; what the look said stands, whatever becomes of that."""
    if opening is not None and not session.wire.broken:
        with suppress(Refused, EftError):
            session.drop(session.opened(opening))


def _at_once(source: SftpSource, file: RemoteFile, handle: bytes) -> list[Bytes] | None:
    """Returns the bytes of an open file, which is closed and looked at behind them; None where a READ was answered in part."""
    session, wire = source.session, source.session.wire
    lengths = [min(session.read_size, file.size - offset) for offset in range(0, file.size, session.read_size)]
    asked = [session.ask_read(handle, number * session.read_size, length) for number, length in enumerate(lengths)]
    session.drop(handle)
    looking = session.ask_lstat(source.at(file.path))
    try:
        read = [data_of(session, wire.take(ident), length) for ident, length in zip(asked, lengths, strict=True)]
        _check_unchanged(file, _seen(source, file.path, looking))
    except Shorter:
        raise changed(file, "it ended early") from None
    except Refused as refused:
        raise source.error(refused, file.path, failed="read_failed") from None
    finally:
        for ident in (*asked, looking):
            wire.forget(ident)
    came = [sum(len(piece) for piece in pieces) for pieces in read]
    if came == lengths:
        return [piece for pieces in read for piece in pieces]
    session.reads_at_most(min(size for size, length in zip(came, lengths, strict=True) if size < length))
    return None


def _in_turn(source: SftpSource, file: RemoteFile, handle: bytes) -> list[Bytes]:
    """Returns the bytes of an open file; it is closed, and looked at, when they have come."""
    reading = Reading(source.session, handle, start=0)
    try:
        chunks: list[Bytes] = list(reading.chunks(file.size, ahead_to=file.size))
    except Shorter:
        raise changed(file, "it ended early") from None
    except Refused as refused:
        raise source.error(refused, file.path, failed="read_failed") from None
    finally:
        reading.leave()
    _check_unchanged(file, source.stat(file.path))
    return chunks


def _seen(source: SftpSource, path: RemotePath, looking: int) -> RemoteFile:
    try:
        attributes = source.session.wire.take(looking).expect(Kind.ATTRS).attributes()
    except Refused as refused:
        raise source.error(refused, path) from None
    return source.file(path, attributes)


def _check_unchanged(file: RemoteFile, now: RemoteFile) -> None:
    if not now.fingerprint.matches(file.fingerprint):
        msg = f"'{file.path}' is not the version that was accepted: it changed from {file.size} to {now.size} bytes or was written again"
        raise Permanent(msg, reason="source_changed")
