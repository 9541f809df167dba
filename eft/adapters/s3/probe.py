"""Testing a bucket before anything moves: what works, what does not, and what to change."""

from __future__ import annotations

from collections.abc import Callable

from eft.adapters.s3.store import S3Store
from eft.domain.names import RemotePath
from eft.errors import EftError, Permanent
from eft.ports import Check, ProbeReport

PROBE_PREFIX = ".eft-probe-"


def probe_bucket(store: S3Store, *, region: str, nonce: str) -> ProbeReport:
    """Returns what was found; it is ok where the bucket is in its region and can be listed or written to.

    Writing is tried by an upload that is begun and aborted: no object is created, and nobody's notifications fire.
    """
    capabilities: dict[str, str] = {}
    checks = [_tried("credential", lambda: _resolve_credential(store))]
    if checks[0].ok:
        read = _tried("list", lambda: _list(store))
        write = _tried("write", lambda: _write(store, RemotePath(PROBE_PREFIX + nonce), capabilities))
        # HeadBucket asks for the right to list; who may only write needs no such right.
        bucket = _tried("bucket", lambda: _find_bucket(store, region))
        if write.ok and not bucket.ok and not read.ok:
            bucket = Check("bucket", ok=True, message=f"bucket '{store.bucket}' takes uploads; the credential may not look at it")
        checks += [bucket, read, write]
        capabilities["versioning"] = _versioning(store)
        capabilities["conditional_commit"] = "server" if store.session.endpoint_url is None else "server, after a look"
    by_name = {check.name: check.ok for check in checks}
    ok = by_name.get("bucket", False) and (by_name["list"] or by_name["write"])
    return ProbeReport(ok=ok, checks=tuple(checks), capabilities=capabilities)


def _tried(name: str, attempt: Callable[[], str]) -> Check:
    try:
        return Check(name, ok=True, message=attempt())
    except EftError as error:
        return Check(name, ok=False, message=str(error))


def _resolve_credential(store: S3Store) -> str:
    with store.translated():
        store.session.resolve_credential()
    role = store.session.role
    return "the credential is complete" if role is None else f"the role {role.arn} can be assumed"


def _find_bucket(store: S3Store, region: str) -> str:
    with store.translated():
        found = store.s3.head_bucket(Bucket=store.bucket).get("BucketRegion") or region
    if found != region:
        raise Permanent(f"bucket '{store.bucket}' is in {found}: set that region", reason="wrong_region")
    return f"bucket '{store.bucket}' is there, in {region}"


def _list(store: S3Store) -> str:
    with store.translated():
        page = store.s3.list_objects_v2(Bucket=store.bucket, Prefix=store.root, MaxKeys=1)
    where = f"'{store.root}'" if store.root else "the bucket"
    return f"{where} can be listed" + ("" if page.get("KeyCount") else "; it is empty")


def _write(store: S3Store, path: RemotePath, capabilities: dict[str, str]) -> str:
    token = store.mint(path, token=path, transfer="probe", size=0, create_directories=True)
    store.consume(token, path)
    capabilities["full_object_checksum"] = "crc64nvme" if store.judges_whole() else "none"
    return "an upload was begun and aborted; no object was created"


def _versioning(store: S3Store) -> str:
    try:
        with store.translated():
            return store.s3.get_bucket_versioning(Bucket=store.bucket).get("Status", "Off").lower()
    except EftError:
        # Not needed for moving files, and often not allowed.
        return "unknown"
