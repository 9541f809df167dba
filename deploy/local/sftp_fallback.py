"""The SFTP server in Python: `python -m deploy.local.sftp_fallback`. See `deploy.local.sftp.PasswordSftpServer`.

Its configuration file (accounts and quirks) is read anew for each connection.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import hmac
import json
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import asyncssh
from asyncssh import sftp

from deploy.local.process import LOOPBACK
from deploy.local.sftp import Quirks

log = logging.getLogger(__name__)

EVERY_PROOF: Final = ("publickey", "password", "keyboard-interactive")
ANNOUNCED: Final = tuple(sftp.SFTPServerHandler._extensions)  # noqa: SLF001 - asyncssh offers no other way

cuts: Final[Counter[int]] = Counter()
"""How many connections have been cut, by the configuration's generation."""


class Login(asyncssh.SSHServer):
    """One connection: who it is, and how it is to be treated."""

    def __init__(self, config: Path) -> None:
        """Takes the configuration as it is now."""
        read = json.loads(config.read_text())
        self.config = config
        self.accounts: dict[str, dict[str, Any]] = read["accounts"]
        self.quirks = Quirks(**read["quirks"])
        self.generation = int(read["generation"])
        self.account: dict[str, Any] = {"proofs": EVERY_PROOF, "password": None, "keys": [], "directory": "/"}
        self.keyed = False
        self.carried = 0
        self.cut = False

    def full_after_now(self) -> int | None:
        """Returns where files are full at present: room that is made serves connections that were there before, as on a disk."""
        full_after: int | None = json.loads(self.config.read_text())["quirks"]["full_after"]
        return full_after

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Has a good key that is not enough answered with partial success (RFC 4252, 5.1)."""
        refuse: Callable[[bool], None] = conn.send_userauth_failure
        validate: Callable[..., Awaitable[bool]] = conn.validate_public_key
        conn.set_extra_info(login=self)
        partial = False

        async def validate_public_key(username: str, key: bytes, message: bytes, signature: bytes) -> bool:
            nonlocal partial
            good = await validate(username, key, message, signature)
            if good and signature and len(self.account["proofs"]) > 1:
                self.keyed = partial = True
                return False
            return good

        def send_userauth_failure(partial_success: bool) -> None:  # noqa: FBT001 - asyncssh's signature
            nonlocal partial
            refuse(partial_success or partial)
            partial = False
            # Some clients (paramiko) ask for the service again before each further proof; OpenSSH lets them.
            vars(conn).update(_next_service=b"ssh-userauth")

        vars(conn).update(validate_public_key=validate_public_key, send_userauth_failure=send_userauth_failure)

    def begin_auth(self, username: str) -> bool:
        """Finds the account; an unknown user is asked for everything and never let in."""
        self.account = self.accounts.get(username, self.account)
        self.keyed = False
        return True

    def asks(self, proof: str) -> bool:
        """Whether the client may bring this proof now: the key first, then the rest."""
        proofs = self.account["proofs"]
        if proofs == EVERY_PROOF or len(proofs) == 1:
            return proof in proofs
        return proof in proofs and (proof == "publickey") != self.keyed

    def public_key_auth_supported(self) -> bool:
        """Whether a key may be brought now."""
        return self.asks("publickey")

    def validate_public_key(self, _username: str, key: asyncssh.SSHKey) -> bool:
        """Whether it is one of the account's."""
        return any(asyncssh.import_public_key(known) == key for known in self.account["keys"])

    def password_auth_supported(self) -> bool:
        """Whether a password may be brought now."""
        return self.asks("password")

    def validate_password(self, _username: str, password: str) -> bool:
        """Whether it is the account's."""
        expected = self.account["password"]
        return expected is not None and hmac.compare_digest(expected.encode(), password.encode())

    def kbdint_auth_supported(self) -> bool:
        """Whether questions may be asked now."""
        return self.asks("keyboard-interactive")

    def get_kbdint_challenge(self, _username: str, _lang: str, _submethods: str) -> Any:  # noqa: ANN401 - asyncssh's union
        """Returns the one question."""
        return "", "", "en", [("Password: ", False)]

    def validate_kbdint_response(self, username: str, responses: Any) -> bool:  # noqa: ANN401 - as above
        """Whether the one answer is the account's password."""
        return len(responses) == 1 and self.validate_password(username, responses[0])


class Files(asyncssh.SFTPServer):
    """The account's files, as the machine has them, through the connection's quirks."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes]) -> None:
        """Takes the connection's login."""
        super().__init__(channel)
        self.login = cast("Login", channel.get_connection().get_extra_info("login"))
        self.quirks = self.login.quirks
        self.writing = asyncio.Lock()
        self.start = os.fsencode(self.login.account["directory"])
        silent = set()
        if not self.quirks.posix_rename:
            silent.add(b"posix-rename@openssh.com")
        if not self.quirks.fsync:
            silent.add(b"fsync@openssh.com")
        if self.quirks.max_packet is not None:
            silent.add(b"limits@openssh.com")
        # Read when the session greets its client, which is after this.
        sftp.SFTPServerHandler._extensions = [known for known in ANNOUNCED if known[0] not in silent]  # noqa: SLF001

    def map_path(self, path: bytes) -> bytes:
        """Counts relative paths from the account's directory."""
        return os.path.join(self.start, path)  # noqa: PTH118 - paths are bytes here

    def posix_rename(self, oldpath: bytes, newpath: bytes) -> None:
        """Is unknown where so told."""
        if not self.quirks.posix_rename:
            raise asyncssh.SFTPOpUnsupported("Unsupported request")
        super().posix_rename(oldpath, newpath)
        self._done("rename")

    def rename(self, oldpath: bytes, newpath: bytes) -> None:
        """Is done, and may be the last thing done."""
        super().rename(oldpath, newpath)
        self._done("rename")

    def close(self, file_obj: object) -> None:
        """Is done, and may be the last thing done."""
        written = cast("BinaryIO", file_obj).writable()
        super().close(file_obj)
        if written:
            self._done("close")

    def fsync(self, file_obj: object) -> None:
        """Is unknown where so told."""
        if not self.quirks.fsync:
            raise asyncssh.SFTPOpUnsupported("Unsupported request")
        super().fsync(file_obj)

    async def read(self, file_obj: object, offset: int, size: int) -> bytes:
        """Reads less than asked, slowly, or nothing any more."""
        for most in (self.quirks.short_reads, self.quirks.max_packet):
            size = min(size, most or size)
        found = cast("bytes", super().read(file_obj, offset, size))
        if await self._carry(len(found)) < len(found):
            self._cut()
        return found

    async def write(self, file_obj: object, offset: int, data: bytes) -> int:
        """Writes what may be written, and then fails as told."""
        quirks = self.quirks
        # A slow connection's writes keep their order.
        async with self.writing:
            if quirks.max_packet is not None and len(data) > quirks.max_packet:
                self._cut()
            if quirks.sequential and offset != os.fstat(cast("Any", file_obj).fileno()).st_size:
                raise asyncssh.SFTPFailure("Writes are sequential")
            passed = await self._carry(len(data))
            full_after = None if quirks.full_after is None else self.login.full_after_now()
            fits = passed if full_after is None else min(passed, max(full_after - offset, 0))
            written = cast("int", super().write(file_obj, offset, data[:fits])) if fits else 0
            if passed < len(data):
                self._cut()
            if fits < passed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return written

    async def _carry(self, size: int) -> int:
        """Counts bytes of files against the connection's end, at its pace; returns how many pass before the cut."""
        if self.quirks.bytes_per_second:
            await asyncio.sleep(size / self.quirks.bytes_per_second)
        if self.login.cut:
            return 0
        limit, times = self.quirks.cut_after, self.quirks.cut_times
        before = self.login.carried
        self.login.carried += size
        if limit is None or before + size < limit or (times is not None and cuts[self.login.generation] >= times):
            return size
        return max(limit - before, 0)

    def _done(self, what: str) -> None:
        """Cuts the connection after what was done, before its answer, where so told."""
        times = self.quirks.cut_times
        if self.quirks.cut_on == what and (times is None or cuts[self.login.generation] < times):
            self._cut()

    def _cut(self) -> None:
        if not self.login.cut:
            self.login.cut = True
            cuts[self.login.generation] += 1
            log.warning("cut")
        self.connection.abort()
        raise asyncssh.SFTPConnectionLost("cut")


async def serve(*, port: int, host_key: Path, config: Path) -> None:
    """Serves until the process ends."""
    server = await asyncssh.create_server(
        lambda: Login(config),
        LOOPBACK,
        port,
        server_host_keys=[str(host_key)],
        sftp_factory=Files,
        login_timeout=60,
        reuse_address=True,
    )
    await server.wait_closed()


def main() -> None:
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host-key", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(serve(port=chosen.port, host_key=chosen.host_key, config=chosen.config))


if __name__ == "__main__":
    main()
