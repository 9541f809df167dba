"""Counting what a file costs: requests to AWS by operation, items written and read, and requests and bytes at an SFTP server."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import asyncssh
import botocore.handlers
import pytest
from asyncssh import sftp
from botocore.model import OperationModel

from deploy.local.process import LOOPBACK, free_port

ITEM_WRITES: Final = ("PutItem", "UpdateItem", "DeleteItem")
NAMES: Final = {code: name[4:].lower() for name, code in vars(sftp).items() if name.startswith("FXP_") and isinstance(code, int)}
PASSWORD: Final = "open sesame"


@dataclass
class AwsCounted:
    """Requests of every client of this process, by service and operation."""

    requests: Counter[str] = field(default_factory=Counter)
    """`dynamodb.PutItem`, …"""
    item_writes: int = 0
    """Items written or asked to be written, each one of a transaction or batch."""
    items_read: int = 0
    sent: int = 0
    """Bytes of the bodies of requests to S3."""
    unindexed: list[str] = field(default_factory=list)
    """Reads whose cost grows with what is stored: scans, and queries that filter what they have read."""

    def of(self, service: str) -> Counter[str]:
        """Returns a service's requests by operation."""
        return Counter({name.partition(".")[2]: count for name, count in self.requests.items() if name.startswith(f"{service}.")})

    def asked(self, event_name: str, request: Any, **_: object) -> None:  # noqa: ANN401 - the stubs know less of bodies than we do
        """Notes a request; botocore's event `before-send`."""
        service, operation = event_name.split(".")[1:]
        self.requests[f"{service}.{operation}"] += 1
        if isinstance(request.body, list):
            # Large bodies are buffers in a list; moto in this process, which no HTTP client stands before, takes bytes alone.
            request.body = b"".join(request.body)
        if service == "s3":
            self.sent += len(request.body) if isinstance(request.body, bytes) else 0
        if service != "dynamodb":
            return
        body = json.loads(request.body)
        if operation in ITEM_WRITES:
            self.item_writes += 1
        self.item_writes += len(body.get("TransactItems", [])) if operation == "TransactWriteItems" else 0
        if operation == "BatchWriteItem":
            self.item_writes += sum(len(each) for each in body["RequestItems"].values())
        if operation == "Scan" or "FilterExpression" in body or "QueryFilter" in body:
            self.unindexed.append(operation)

        if operation == "GetItem":
            self.items_read += 1

    def answered(self, model: OperationModel, parsed: dict[str, Any], **_: object) -> None:
        """Notes an answer with many items; botocore's event `after-call`."""
        if model.service_model.service_name != "dynamodb":
            return
        self.items_read += len(parsed.get("Items", []))
        self.items_read += sum(len(rows) for rows in parsed.get("Responses", {}).values()) if model.name == "BatchGetItem" else 0


@contextmanager
def aws_counted(patch: pytest.MonkeyPatch) -> Iterator[AwsCounted]:
    """Counts the requests of all clients that are built in the block."""
    counted = AwsCounted()
    listeners: list[Any] = [("before-send", counted.asked), ("after-call", counted.answered)]
    with patch.context() as patched:
        # Where botocore itself, and moto, hang what every client is to do.
        patched.setattr(botocore.handlers, "BUILTIN_HANDLERS", [*listeners, *botocore.handlers.BUILTIN_HANDLERS])
        yield counted


@dataclass
class SftpCounted:
    """What an SFTP server was asked for."""

    port: int
    host_key: str
    requests: Counter[str] = field(default_factory=Counter)
    """By the names of draft-ietf-secsh-filexfer-02; extensions by their own."""
    logins: int = 0
    read: int = 0
    written: int = 0

    def forget(self) -> None:
        """Begins anew."""
        self.requests.clear()
        self.logins = self.read = self.written = 0


class _Login(asyncssh.SSHServer):
    def __init__(self, counted: SftpCounted) -> None:
        self._counted = counted

    def begin_auth(self, username: str) -> bool:
        """Lets everybody in: what is counted comes after the login."""
        self._counted.logins += 1
        return False


@contextmanager
def sftp_counted(root: Path, patch: pytest.MonkeyPatch) -> Iterator[SftpCounted]:
    """Serves a directory over SFTP, in a thread, and counts at the server: whatever client asks, and however it is built."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    counted = SftpCounted(free_port(), key.export_public_key().decode().strip())
    process = sftp.SFTPServerHandler._process_packet

    async def counting(handler: Any, pkttype: int, pktid: int, packet: asyncssh.packet.SSHPacket) -> None:  # noqa: ANN401 - not public
        name = NAMES.get(pkttype, str(pkttype))
        if name == "extended":
            # The name of the extension comes first: a length and so many bytes.
            ahead = packet.get_remaining_payload()
            name = ahead[4 : 4 + int.from_bytes(ahead[:4], "big")].decode()
        counted.requests[name] += 1
        await process(handler, pkttype, pktid, packet)

    class Files(asyncssh.SFTPServer):
        def __init__(self, channel: asyncssh.SSHServerChannel[bytes]) -> None:
            super().__init__(channel, chroot=os.fsencode(root))

        def read(self, file_obj: object, offset: int, size: int) -> bytes:
            found = cast("bytes", super().read(file_obj, offset, size))
            counted.read += len(found)
            return found

        def write(self, file_obj: object, offset: int, data: bytes) -> int:
            counted.written += len(data)
            return cast("int", super().write(file_obj, offset, data))

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            LOOPBACK, counted.port, server_host_keys=[key], server_factory=lambda: _Login(counted), sftp_factory=Files
        )

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    with patch.context() as patched:
        patched.setattr(sftp.SFTPServerHandler, "_process_packet", counting)
        acceptor = asyncio.run_coroutine_threadsafe(listen(), loop).result(30)
        try:
            yield counted
        finally:
            asyncio.run_coroutine_threadsafe(_close(acceptor), loop).result(30)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(30)
            loop.close()


async def _close(acceptor: asyncssh.SSHAcceptor) -> None:
    acceptor.close()
    await acceptor.wait_closed()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
