"""/v1/flows: standing orders; create, change, pause, resume, run now, delete."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from typing import Final, Literal

from flask import Blueprint, url_for
from pydantic import TypeAdapter

from api.auth import Scope
from api.errors import FieldError, Problem, parsed
from api.operation import (
    Answered,
    announce,
    caller,
    engine,
    idempotency_key,
    invalid,
    match_revision,
    merged,
    operation,
    read_body,
    turn,
    validated,
)
from api.schemas.base import PageAsked
from api.schemas.flows import (
    BackfillNew,
    FiresAsked,
    FireShown,
    FiresShown,
    FlowMade,
    FlowNew,
    FlowPage,
    FlowShown,
    ForecastShown,
    PlanAsked,
    PlanShown,
    RunShown,
)
from eft.domain.endpoint import S3Endpoint
from eft.domain.flow import Arrival, Flow, Manual
from eft.domain.instants import fire_moment, fire_time
from eft.domain.schedule import HORIZON, coming_fires, deadlines
from eft.errors import Conflict, EftError, NotFound
from eft.journey.operate import run_flow
from eft.journey.plan import plan, warnings_about
from eft.ports import Fire

flows = Blueprint("flows", __name__, url_prefix="/v1/flows")

PLANS_AT_ONCE: Final = 4
"""Per tenant."""
PLAN_LEASE: Final = timedelta(minutes=2)
_KINDS: Final[dict[str, Literal["asked", "backfill", "late", "warning"]]] = {
    "now": "asked",
    "past": "backfill",
    "late": "late",
    "warn": "warning",
}
_CHANGED: TypeAdapter[object] = TypeAdapter(FlowNew)
_BOOKKEEPING: Final = ("revision", "created", "scheduled_since")
"""What a flow has beside what its customer asked for."""


@flows.post("")
@operation(summary="Create a flow", scope=Scope.FLOWS_WRITE, body=FlowNew, answer=FlowMade, status=201, etag=True, idempotent=True)
def create(body: FlowNew) -> Answered:
    """Both endpoints must exist. With any trigger but `manual` it runs by itself from now on, unless `enabled` is false.

    With the trigger `arrival` the source must be an S3 endpoint. The source is looked at: `warnings` says so if nothing there matches.
    With an Idempotency-Key a request may be repeated while the flow is as it asks; else the answer is 422 `idempotency_mismatch`.
    """
    _check_endpoints(body)
    core = engine()
    key = idempotency_key()
    mark = core.clock.nonce() if key is None else hashlib.sha256(f"{caller().tenant}|{key}".encode()).hexdigest()[:16]
    made = _built(body, id_=f"fl-{mark}", revision=1)
    _check_schedule(made)
    _check_expected(made)
    try:
        core.registry.add_flow(made)
    except Conflict:
        made = _made_before(made)
    return Answered(_made(made), etag=made.revision, headers={"Location": url_for("flows.show", flow_id=made.id)})


@flows.get("")
@operation(summary="List flows", scope=Scope.FLOWS_READ, query=PageAsked, answer=FlowPage)
def listing(query: PageAsked) -> FlowPage:
    """By id; `next_cursor` asks for the next page."""
    page = engine().registry.flows(caller().tenant, limit=query.limit, cursor=query.cursor)
    return FlowPage(items=tuple(shown(flow) for flow in page.items), next_cursor=page.cursor)


@flows.get("/<id:flow_id>")
@operation(summary="Show a flow", scope=Scope.FLOWS_READ, answer=FlowShown, etag=True)
def show(flow_id: str) -> Answered:
    """The ETag is what a change names in If-Match."""
    found = engine().registry.flow(caller().tenant, flow_id)
    return Answered(shown(found), etag=found.revision)


@flows.patch("/<id:flow_id>")
@operation(
    summary="Change a flow",
    scope=Scope.FLOWS_WRITE,
    body=FlowNew,
    patch=True,
    answer=FlowMade,
    if_match="required",
    etag=True,
)
def change(flow_id: str) -> Answered:
    """A merge patch: fields left out stay, null sets one back to its default.

    Transfers accepted before keep the policy they were accepted with.
    """
    core = engine()
    present = core.registry.flow(caller().tenant, flow_id)
    match_revision(present.revision, required=True)
    patch = parsed(read_body(patch=True))
    if not isinstance(patch, dict):
        raise invalid(FieldError(field="", message="must be an object"))
    current = parsed(present.model_dump_json(exclude={"id", "tenant", "revision", "created", "scheduled_since"}).encode())
    body = validated(_CHANGED, TypeAdapter(object).dump_json(merged(current, patch)))
    assert isinstance(body, FlowNew)  # noqa: S101 - the adapter's type
    _check_endpoints(body)
    changed = _built(body, id_=present.id, revision=present.revision + 1, like=present)
    if changed.trigger != present.trigger or (changed.enabled and not present.enabled):
        _check_schedule(changed)
    if changed.expected != present.expected:
        _check_expected(changed)
    core.registry.change_flow(changed)
    looked = (changed.source, changed.selection) != (present.source, present.selection)
    return Answered(_made(changed) if looked else FlowMade(**shown(changed).model_dump()), etag=changed.revision)


@flows.delete("/<id:flow_id>")
@operation(summary="Delete a flow", scope=Scope.FLOWS_WRITE, status=204, if_match="optional")
def remove(flow_id: str) -> None:
    """Its transfers stay, and those under way go on; what it remembers of its source goes."""
    core = engine()
    present = core.registry.flow(caller().tenant, flow_id)
    match_revision(present.revision, required=False)
    core.registry.remove_flow(present.tenant, present.id, revision=present.revision)
    for ledger in (core.ledger, *(() if core.peer is None else (core.peer.ledger,))):
        # The flow is gone: what cannot be reached now would only take room.
        with suppress(EftError):
            ledger.forget(present)


@flows.post("/<id:flow_id>/run")
@operation(summary="Run a flow now", scope=Scope.FLOWS_WRITE, answer=RunShown, status=202, idempotent=True)
def run(flow_id: str) -> RunShown:
    """Reads the source's listing once, whatever the schedule, also while the flow is paused; each new file becomes a transfer.

    Asking twice moves nothing twice: a version of a file that has its transfer is not taken again.
    With the same Idempotency-Key it is the same run.
    """
    core = engine()
    flow = core.registry.flow(caller().tenant, flow_id)
    messages = run_flow(core, flow, idempotency_key=idempotency_key())
    announce(messages)
    return RunShown(flow=flow.id, fire=messages[0].ids[0].rpartition("/")[2])


@flows.post("/<id:flow_id>/backfill")
@operation(
    summary="Run a flow for a time in the past", scope=Scope.FLOWS_WRITE, body=BackfillNew, answer=RunShown, status=202, idempotent=True
)
def backfill(flow_id: str, body: BackfillNew) -> RunShown:
    """Reads the source's listing once and takes the files that were modified in that time, whatever `min_age` and `max_age` say.

    What was moved before is not moved again; what lies behind the flow's watermark (`forget_after`) stays left out.
    """
    core = engine()
    flow = core.registry.flow(caller().tenant, flow_id)
    messages = run_flow(core, flow, window=(body.modified_from, body.modified_until), idempotency_key=idempotency_key())
    announce(messages)
    return RunShown(flow=flow.id, fire=messages[0].ids[0].rpartition("/")[2])


@flows.post("/<id:flow_id>/plan")
@operation(summary="Say what a run would do now", scope=Scope.FLOWS_READ, query=PlanAsked, answer=PlanShown, also=(429, 503))
def plan_run(flow_id: str, query: PlanAsked) -> PlanShown:
    """Connects, lists, and says for each file what would happen and why; moves nothing and changes nothing."""
    core = engine()
    flow = core.registry.flow(caller().tenant, flow_id)
    with turn("plan", limit=PLANS_AT_ONCE, lease=PLAN_LEASE):
        made = plan(core, flow, limit=query.limit)
    return PlanShown(
        flow=flow.id,
        complete=made.complete,
        counts=made.counts,
        items=tuple(ForecastShown(**{name: getattr(one, name) for name in ForecastShown.model_fields}) for one in made.forecasts),
        destination_trouble=made.destination_trouble,
    )


@flows.get("/<id:flow_id>/fires")
@operation(summary="Show when a flow runs and ran", scope=Scope.FLOWS_READ, query=FiresAsked, answer=FiresShown)
def fires(flow_id: str, query: FiresAsked) -> FiresShown:
    """Coming times are those of the schedule, with its calendar, blackouts and jitter; the latest ones say what came of them."""
    core = engine()
    flow = core.registry.flow(caller().tenant, flow_id)
    coming = islice(coming_fires(flow, now=core.clock.now()), query.limit if flow.enabled else 0)
    latest = tuple(_fire_shown(fire) for fire in core.ledger.fires(flow, limit=query.limit))
    return FiresShown(flow=flow.id, enabled=flow.enabled, coming=tuple(coming), latest=latest)


@flows.post("/<id:flow_id>/pause")
@operation(summary="Pause a flow", scope=Scope.FLOWS_WRITE, answer=FlowShown, if_match="optional", etag=True)
def pause(flow_id: str) -> Answered:
    """Its schedule fires no more until it is resumed; transfers under way go on. Pausing twice is harmless."""
    return _enabled(flow_id, enabled=False)


@flows.post("/<id:flow_id>/resume")
@operation(summary="Resume a flow", scope=Scope.FLOWS_WRITE, answer=FlowShown, if_match="optional", etag=True)
def resume(flow_id: str) -> Answered:
    """Its schedule fires again. One that has no time left is refused: give it another trigger, or run it once."""
    return _enabled(flow_id, enabled=True)


def shown(flow: Flow) -> FlowShown:
    """Returns a flow as its owner sees it."""
    return FlowShown(
        id=flow.id,
        name=flow.name,
        source=flow.source,
        destination=flow.destination,
        destination_directory=flow.destination_directory,
        selection=flow.selection,
        policy=flow.policy,
        trigger=flow.trigger,
        expected=flow.expected,
        enabled=flow.enabled,
        revision=flow.revision,
        created=flow.created,
    )


def _made(flow: Flow) -> FlowMade:
    try:
        with turn("plan", limit=PLANS_AT_ONCE, lease=PLAN_LEASE):
            warnings = warnings_about(engine(), flow)
    except Problem:
        warnings = ["the source was not looked at: too many of your plans run now"]
    return FlowMade(**shown(flow).model_dump(), warnings=tuple(warnings))


def _fire_shown(fire: Fire) -> FireShown:
    kind = "scheduled" if fire_time(fire.name) is not None else _KINDS.get(fire.name.partition("-")[0], "asked")
    return FireShown(
        fire=fire.name,
        kind=kind,
        at=fire_moment(fire.name),
        ended=fire.outcome is not None,
        files=fire.outcome,
        reason=fire.reason,
        error=fire.error,
    )


def _enabled(flow_id: str, *, enabled: bool) -> Answered:
    core = engine()
    for last in (False, False, True):
        present = core.registry.flow(caller().tenant, flow_id)
        named = match_revision(present.revision, required=False)
        if present.enabled is enabled:
            return Answered(shown(present), etag=present.revision)
        update = {"enabled": enabled, "revision": present.revision + 1}
        # What a pause left out is not made up for.
        changed = present.model_copy(update=update | ({"scheduled_since": core.clock.now()} if enabled else {}))
        if enabled:
            _check_schedule(changed)
        try:
            core.registry.change_flow(changed)
        except Conflict:
            if named or last:
                raise
            continue
        return Answered(shown(changed), etag=changed.revision)
    raise AssertionError  # pragma: no cover - the last round returns or raises


def _made_before(asked: Flow) -> Flow:
    """Returns the flow that an earlier request under the same key has made, if this one asks for the same."""
    present = engine().registry.flow(asked.tenant, asked.id)
    if present.model_copy(update={name: getattr(asked, name) for name in _BOOKKEEPING}) != asked:
        msg = "this Idempotency-Key was used for another flow, or the flow was changed since; use a new key"
        raise Conflict(msg, reason="idempotency_mismatch")
    return present


def _built(body: FlowNew, *, id_: str, revision: int, like: Flow | None = None) -> Flow:
    now = engine().clock.now()
    anew = like is None or (body.trigger, body.enabled) != (like.trigger, like.enabled)
    return Flow(
        id=id_,
        tenant=caller().tenant,
        name=body.name,
        source=body.source,
        destination=body.destination,
        destination_directory=body.destination_directory,
        selection=body.selection,
        policy=body.policy,
        trigger=body.trigger,
        expected=body.expected,
        enabled=body.enabled,
        revision=revision,
        created=now if like is None else like.created,
        scheduled_since=now if anew or like is None else like.scheduled_since,
    )


def _check_schedule(flow: Flow) -> None:
    if not isinstance(flow.trigger, Manual) and next(coming_fires(flow, now=engine().clock.now()), None) is None:
        never = "never fires: its time has passed, or its calendar and blackouts leave none"
        raise invalid(FieldError(field="/trigger", message=never))


def _check_expected(flow: Flow) -> None:
    now = engine().clock.now()
    if flow.expected is not None and next(deadlines(flow.expected, after=now, until=now + HORIZON), None) is None:
        raise invalid(FieldError(field="/expected", message="never comes: its calendar has none of the days of its expression"))


def _check_endpoints(body: FlowNew) -> None:
    missing = [field for field in ("source", "destination") if not endpoint_exists(getattr(body, field))]
    if missing:
        raise invalid(*(FieldError(field=f"/{field}", message="is no endpoint of yours; see GET /v1/endpoints") for field in missing))
    if isinstance(body.trigger, Arrival) and not isinstance(engine().registry.endpoint(caller().tenant, body.source), S3Endpoint):
        raise invalid(FieldError(field="/source", message="must be an S3 endpoint, because the trigger waits for arrivals in a bucket"))


def endpoint_exists(endpoint_id: str) -> bool:
    """Returns whether the caller's tenant has such an endpoint."""
    try:
        engine().registry.endpoint(caller().tenant, endpoint_id)
    except NotFound:
        return False
    return True
