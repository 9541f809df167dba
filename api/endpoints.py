"""/v1/endpoints: onboard, test, pin host keys, change, remove. Credentials go in and never come out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus
from typing import Final

from flask import Blueprint, url_for
from pydantic import TypeAdapter

from api.auth import Scope
from api.errors import FieldError, Problem, parsed
from api.operation import (
    Answered,
    caller,
    engine,
    invalid,
    match_revision,
    merged,
    operation,
    read_body,
    turn,
    validated,
)
from api.schemas.base import PageAsked
from api.schemas.endpoints import (
    CheckShown,
    EndpointChange,
    EndpointNew,
    EndpointPage,
    EndpointShown,
    HostKeyShown,
    HostKeysNew,
    ProbeShown,
    S3EndpointNew,
    S3EndpointShown,
    SftpEndpointChange,
    SftpEndpointNew,
    SftpEndpointShown,
    Warned,
)
from eft.domain.endpoint import Endpoint, HostKey, S3Endpoint, SecretRef, SftpEndpoint
from eft.errors import Conflict, EftError, NotFound, Permanent

log = logging.getLogger(__name__)

endpoints = Blueprint("endpoints", __name__, url_prefix="/v1/endpoints")

TESTS_AT_ONCE: Final = 3
"""Per tenant: a test waits for a foreign server, and the API's threads are everybody's."""
TEST_LEASE: Final = timedelta(minutes=3)
_CHANGED: TypeAdapter[object] = TypeAdapter(EndpointChange)


@endpoints.post("")
@operation(
    summary="Onboard an endpoint",
    scope=Scope.ENDPOINTS_WRITE,
    body=EndpointNew,
    answer=EndpointShown,
    status=201,
    etag=True,
)
def onboard(body: SftpEndpointNew | S3EndpointNew) -> Answered:
    """Keeps the credential in the secrets store and the rest as a row; the credential is never returned.

    An SFTP endpoint without a pinned host key moves nothing yet: test it, compare the keys that it shows with what the server's
    owner tells you, and pin them. `warnings` names other endpoints of yours at the same place.
    """
    core = engine()
    made = _built(body, id_=f"ep-{core.clock.nonce()}", secret=None, revision=1)
    if body.credential is not None:
        secret = core.secrets.put(tenant=made.tenant, endpoint=made.id, credential=body.credential.kept())
        made = made.model_copy(update={"secret": secret})
    try:
        _permit(made)
        warnings = _overlaps(made)
        core.registry.add_endpoint(made)
    except (EftError, Problem):
        _forget(made.secret)
        raise
    return Answered(shown(made, warnings), etag=made.revision, headers={"Location": url_for("endpoints.show", endpoint_id=made.id)})


@endpoints.get("")
@operation(summary="List endpoints", scope=Scope.ENDPOINTS_READ, query=PageAsked, answer=EndpointPage)
def listing(query: PageAsked) -> EndpointPage:
    """By id; `next_cursor` asks for the next page."""
    page = engine().registry.endpoints(caller().tenant, limit=query.limit, cursor=query.cursor)
    return EndpointPage(items=tuple(shown(e) for e in page.items), next_cursor=page.cursor)


@endpoints.get("/<id:endpoint_id>")
@operation(summary="Show an endpoint", scope=Scope.ENDPOINTS_READ, answer=EndpointShown, etag=True)
def show(endpoint_id: str) -> Answered:
    """The ETag is what a change names in If-Match."""
    found = engine().registry.endpoint(caller().tenant, endpoint_id)
    return Answered(shown(found), etag=found.revision)


@endpoints.patch("/<id:endpoint_id>")
@operation(
    summary="Change an endpoint",
    scope=Scope.ENDPOINTS_WRITE,
    body=EndpointChange,
    patch=True,
    answer=EndpointShown,
    if_match="required",
    etag=True,
)
def change(endpoint_id: str) -> Answered:
    """A merge patch: fields left out stay, null sets one back to its default. A credential given replaces the present one as a whole;
    `"credential": null` removes that of an S3 endpoint. The kind never changes.
    """
    core = engine()
    present = core.registry.endpoint(caller().tenant, endpoint_id)
    match_revision(present.revision, required=True)
    patch = parsed(read_body(patch=True))
    if not isinstance(patch, dict):
        raise invalid(FieldError(field="", message="must be an object"))
    if patch.get("kind", present.kind) != present.kind:
        raise invalid(FieldError(field="/kind", message=f"stays '{present.kind}'; onboard another endpoint instead"))
    body = validated(_CHANGED, _merged_text(present, patch))
    assert isinstance(body, SftpEndpointChange | S3EndpointNew)  # noqa: S101 - the adapter's types
    drops = "credential" in patch and patch["credential"] is None
    if drops and isinstance(body, SftpEndpointChange):
        raise invalid(FieldError(field="/credential", message="cannot be removed from an SFTP endpoint; give a new one"))
    changed = _built(
        body,
        id_=present.id,
        secret=None if drops else present.secret,
        revision=present.revision + 1,
        like=present,
    )
    _permit(changed if body.credential is None else changed.model_copy(update={"secret": SecretRef(name="to come")}))
    # The row first: whoever loses the race for it leaves the credential alone.
    core.registry.change_endpoint(changed)
    if drops:
        _forget(present.secret)
    if body.credential is not None:
        secret = core.secrets.put(tenant=changed.tenant, endpoint=changed.id, credential=body.credential.kept())
        if secret != changed.secret:
            changed = changed.model_copy(update={"secret": secret, "revision": changed.revision + 1})
            core.registry.change_endpoint(changed)
    return Answered(shown(changed, _overlaps(changed)), etag=changed.revision)


@endpoints.delete("/<id:endpoint_id>")
@operation(summary="Remove an endpoint", scope=Scope.ENDPOINTS_WRITE, status=204, if_match="optional", also=(409,))
def remove(endpoint_id: str) -> None:
    """Removes the endpoint and its credential. Refused while a flow uses it; transfers under way that still need it
    come to rest with the reason `endpoint_unknown`.
    """
    core = engine()
    present = core.registry.endpoint(caller().tenant, endpoint_id)
    match_revision(present.revision, required=False)
    users = list(_flows_using(endpoint_id))
    if users:
        raise Problem(
            f"{len(users)} flow(s) use it: {', '.join(users[:10])}. Change or delete them first.",
            status=HTTPStatus.CONFLICT,
            reason="endpoint_in_use",
        )
    try:
        core.registry.remove_endpoint(present.tenant, present.id, revision=present.revision)
    except EftError:
        # After a lost answer the row is gone all the same, and nobody would ever name its secret again.
        if not _gone(present):
            raise
    _forget(present.secret)


@endpoints.post("/<id:endpoint_id>/test")
@operation(summary="Test the connection", scope=Scope.ENDPOINTS_WRITE, answer=ProbeShown, also=(429,))
def test(endpoint_id: str) -> ProbeShown:
    """Connects, logs in, lists and looks what the server offers, now; moves nothing. `ok` says whether transfers would work;
    each check says what failed and what to do.

    For SFTP, `host_keys` are the keys that the server showed: confirm them out of band, then pin them.
    """
    core = engine()
    endpoint = core.registry.endpoint(caller().tenant, endpoint_id)
    with turn("test", limit=TESTS_AT_ONCE, lease=TEST_LEASE):
        report = core.stores.probe(endpoint)
    return ProbeShown(
        ok=report.ok,
        checks=tuple(CheckShown(name=c.name, ok=c.ok, message=c.message) for c in report.checks),
        host_keys=tuple(_key_shown(key) for key in report.host_keys),
        capabilities=dict(report.capabilities),
    )


@endpoints.post("/<id:endpoint_id>/host-keys")
@operation(
    summary="Pin host keys",
    scope=Scope.ENDPOINTS_WRITE,
    body=HostKeysNew,
    answer=EndpointShown,
    if_match="optional",
    etag=True,
    also=(409,),
)
def pin(endpoint_id: str, body: HostKeysNew) -> Answered:
    """From now on the server must show one of the pinned keys. `replace` drops those pinned before."""
    core = engine()
    for last in (False, False, True):
        present = core.registry.endpoint(caller().tenant, endpoint_id)
        named = match_revision(present.revision, required=False)
        if not isinstance(present, SftpEndpoint):
            raise Problem("Only SFTP endpoints have host keys.", status=HTTPStatus.CONFLICT, reason="not_sftp")
        new = tuple(HostKey(algorithm=key.algorithm, key=key.key) for key in body.host_keys)
        kept = () if body.replace else present.host_keys
        pinned = tuple(dict.fromkeys((*kept, *new)))
        changed = present.model_copy(update={"host_keys": pinned, "revision": present.revision + 1})
        try:
            core.registry.change_endpoint(changed)
        except Conflict:
            if named or last:
                raise
            continue
        return Answered(shown(changed), etag=changed.revision)
    raise AssertionError  # pragma: no cover - the last round returns or raises


def _permit(endpoint: Endpoint) -> None:
    try:
        engine().stores.permit(endpoint)
    except Permanent as error:
        field = "/bucket" if error.reason == "bucket_reserved" else "/credential"
        raise invalid(FieldError(field=field, message=f"is refused: {error}")) from error


def shown(endpoint: Endpoint, warnings: tuple[Warned, ...] = ()) -> SftpEndpointShown | S3EndpointShown:
    """Returns an endpoint as its owner sees it."""
    if isinstance(endpoint, SftpEndpoint):
        return SftpEndpointShown(
            id=endpoint.id,
            name=endpoint.name,
            max_connections=endpoint.max_connections,
            bandwidth=endpoint.bandwidth,
            has_credential=endpoint.secret is not None,
            revision=endpoint.revision,
            created=endpoint.created,
            warnings=warnings,
            host=endpoint.host,
            port=endpoint.port,
            username=endpoint.username,
            root=endpoint.root,
            host_keys=tuple(_key_shown(key) for key in endpoint.host_keys),
            rename=endpoint.rename,
        )
    return S3EndpointShown(
        id=endpoint.id,
        name=endpoint.name,
        max_connections=endpoint.max_connections,
        bandwidth=endpoint.bandwidth,
        has_credential=endpoint.secret is not None,
        revision=endpoint.revision,
        created=endpoint.created,
        warnings=warnings,
        bucket=endpoint.bucket,
        prefix=endpoint.prefix,
        region=endpoint.region,
        role_arn=endpoint.role_arn,
        kms_key=endpoint.kms_key,
        endpoint_url=endpoint.endpoint_url,
        refuses_taken=endpoint.refuses_taken,
    )


def _built(
    body: SftpEndpointNew | SftpEndpointChange | S3EndpointNew,
    *,
    id_: str,
    secret: SecretRef | None,
    revision: int,
    like: Endpoint | None = None,
) -> Endpoint:
    fields = body.model_dump(exclude={"credential"})
    created = engine().clock.now() if like is None else like.created
    kind: type[SftpEndpoint | S3Endpoint] = S3Endpoint if isinstance(body, S3EndpointNew) else SftpEndpoint
    return kind.model_validate({**fields, "id": id_, "tenant": caller().tenant, "secret": secret, "revision": revision, "created": created})


def _merged_text(present: Endpoint, patch: dict[str, object]) -> bytes:
    own = {"id", "tenant", "secret", "revision", "created"}
    current = parsed(present.model_dump_json(exclude=own).encode())
    credential = {"credential": patch["credential"]} if "credential" in patch else {}
    rest = {name: value for name, value in patch.items() if name != "credential"}
    assert isinstance(current, dict)  # noqa: S101 - an object
    if rest.get("endpoint_url", current.get("endpoint_url")) != current.get("endpoint_url"):
        # It was said of another store.
        rest = {"refuses_taken": False, **rest}
    whole = merged(current, {**rest, "kind": present.kind})
    assert isinstance(whole, dict)  # noqa: S101 - both are objects
    return TypeAdapter(dict[str, object]).dump_json({**whole, **credential})


def _overlaps(endpoint: Endpoint) -> tuple[Warned, ...]:
    """Returns a warning for each other endpoint of the tenant that reaches the same files (DESIGN 5, the last paragraphs)."""
    server, path = _place(endpoint)
    found = []
    for other in _all_endpoints():
        if other.id == endpoint.id or _place(other)[0] != server:
            continue
        theirs = _place(other)[1]
        if theirs == path:
            what = "names the same server and path"
        elif theirs.startswith(path) or path.startswith(theirs):
            what = "names the same server, and one path lies within the other"
        else:
            continue
        message = f"Endpoint {other.id} ('{other.name}') {what}: files delivered through one do not reserve their names against the other."
        found.append(Warned(reason="endpoint_overlaps", message=message, endpoint=other.id))
    return tuple(found)


def _place(endpoint: Endpoint) -> tuple[tuple[str, ...], str]:
    """Returns what server an endpoint reaches, and the directory on it with a slash at its end."""
    if isinstance(endpoint, SftpEndpoint):
        # A path relative to the login directory is another one for each user.
        user = "" if endpoint.root.startswith("/") else endpoint.username
        return ("sftp", endpoint.host.lower().rstrip("."), str(endpoint.port), user), endpoint.root.rstrip("/") + "/"
    return ("s3", (endpoint.endpoint_url or "").lower().rstrip("/"), endpoint.bucket), f"/{endpoint.prefix}/" if endpoint.prefix else "/"


def _all_endpoints() -> Iterator[Endpoint]:
    cursor: str | None = None
    while True:
        page = engine().registry.endpoints(caller().tenant, limit=200, cursor=cursor)
        yield from page.items
        cursor = page.cursor
        if cursor is None:
            return


def _flows_using(endpoint_id: str) -> Iterator[str]:
    cursor: str | None = None
    while True:
        page = engine().registry.flows(caller().tenant, limit=200, cursor=cursor)
        yield from (flow.id for flow in page.items if endpoint_id in {flow.source, flow.destination})
        cursor = page.cursor
        if cursor is None:
            return


def _gone(endpoint: Endpoint) -> bool:
    try:
        engine().registry.endpoint(endpoint.tenant, endpoint.id)
    except NotFound:
        return True
    return False


def _forget(secret: SecretRef | None) -> None:
    """Removes a secret that no row names any more; one that cannot be removed now is named in the log for the operators."""
    if secret is None:
        return
    try:
        engine().secrets.remove(secret)
    except EftError as error:
        log.error("a secret is left over", extra={"secret": secret.name, "reason": error.reason})  # noqa: TRY400 - the reason says all


def _key_shown(key: HostKey) -> HostKeyShown:
    return HostKeyShown(algorithm=key.algorithm, key=key.key, fingerprint=key.fingerprint)
