"""Agents, tasks and missions. Who may not see everybody's missions sees their own, and no sign of others."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from chimera.api.bodies import Cancelled, NewMission, Page, Spawn, Spawned, Submit, Submitted
from chimera.api.guard import Here, Needs, bearer, own
from chimera.api.idempotency import OnceRoute
from chimera.api.services import Services
from chimera.api.streams import EventStream, sse
from chimera.core.errors import Forbidden, InputError, NotThere
from chimera.core.types import TaskResult
from chimera.security.principal import Principal
from chimera.security.roles import Permission

router = APIRouter(prefix="/api/swarm", tags=["swarm"], route_class=OnceRoute)

MAX_LISTED = 20_000
"""Missions that a list goes back to."""

WINDOW = 500

MAX_SEQ = 2**53

Reader = Annotated[Principal, Depends(Needs(Permission.SWARM_READ))]
MissionId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}$", examples=["mission-1f0a"])]


@router.get("")
async def status(here: Here, caller: Annotated[Principal, Depends(Needs(Permission.SWARM_ANY))]) -> dict[str, Any]:
    """The whole swarm at this moment: nodes, managers, cells, agents by role, rates, latencies."""
    return (await here.swarm.status()).model_dump(mode="json")


@router.post("/spawn", status_code=201)
async def spawn(
    body: Spawn, here: Here, caller: Annotated[Principal, Depends(Needs(Permission.SWARM_SPAWN))]
) -> Spawned:
    """Spawn agents of one kind: all of them or, with an error, none."""
    check_policy(here, body.policy)
    return Spawned(agents=await here.swarm.spawn_agents([body.spec()] * body.count))


@router.post("/task", status_code=202)
async def submit(
    body: Submit, here: Here, caller: Annotated[Principal, Depends(Needs(Permission.SWARM_TASK))]
) -> Submitted:
    """Start a task, and answer at once with its mission."""
    return Submitted(mission_id=await start(here, caller, body))


@router.post("/missions", status_code=202)
async def submit_mission(
    body: NewMission, here: Here, caller: Annotated[Principal, Depends(Needs(Permission.SWARM_TASK))]
) -> Submitted:
    """Start a mission of many tasks, and answer at once with its id."""
    mission_id = here.owned.new(caller.subject, caller.tenant)
    return Submitted(mission_id=await here.swarm.start(body.mission(), mission_id=mission_id))


@router.post("/consensus")
async def consensus(
    body: Submit, here: Here, caller: Annotated[Principal, Depends(Needs(Permission.SWARM_CONSENSUS))]
) -> TaskResult:
    """Put a question to several agents, and wait for what they agree on."""
    mission_id = await start(here, caller, body)
    return await here.swarm.result(mission_id)


@router.get("/missions")
async def missions(
    here: Here,
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[int, Query(ge=0, le=19_000, description="`next` of the part before")] = 0,
    running: bool = False,
) -> Page:
    """Missions, the one that began last first."""
    window = after + limit + 1
    while True:
        found = await here.swarm.missions(window, running=running)
        mine = [each for each in found if own(here, caller, each.mission_id)]
        if len(mine) > after + limit or len(found) < window or window >= MAX_LISTED:
            break
        window = min(max(2 * window, WINDOW), MAX_LISTED)
    part = [each.model_dump(mode="json") for each in mine[after : after + limit]]
    return Page(items=part, next=str(after + limit) if len(mine) > after + limit else None)


@router.get("/missions/{mission_id}")
async def mission(
    mission_id: MissionId,
    here: Here,
    caller: Reader,
    wait_s: Annotated[float, Query(ge=0, le=20, description="how long to wait for its end")] = 0.0,
) -> dict[str, Any]:
    """A mission's result, or that it is running."""
    result = await look_up(here, caller, mission_id, wait_s)
    return {"mission_id": mission_id, "state": "running"} if result is None else result.model_dump(mode="json")


@router.get(
    "/missions/{mission_id}/events",
    response_model=Page,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def events(
    request: Request,
    mission_id: MissionId,
    here: Here,
    caller: Reader,
    after: Annotated[int, Query(ge=0, le=MAX_SEQ)] = 0,
    stream: Annotated[bool, Query(description="server-sent events, until the mission ends")] = False,
) -> Page | Response:
    """What happened to a mission, a page at a time, or as it happens."""
    await look_up(here, caller, mission_id, 0.0)
    if stream:
        leave = request.app.state.streams.enter(f"{caller.kind}:{caller.subject}")
        told = sse(here, caller, bearer(request), mission_id, after)
        return EventStream(told, slow_s=here.settings.slow_s, leave=leave)
    found = await here.swarm.read_events(mission_id, after)
    return Page(items=[event.model_dump(mode="json") for event in found], next=str(found[-1].seq) if found else None)


@router.post("/missions/{mission_id}/cancel")
async def cancel(
    mission_id: MissionId, here: Here, caller: Annotated[Principal, Depends(Needs(Permission.SWARM_CANCEL))]
) -> Cancelled:
    """End a mission with what there is by now. One that has ended stays as it is."""
    await look_up(here, caller, mission_id, 0.0)
    result = await here.swarm.cancel(mission_id)
    return Cancelled(mission_id=mission_id, state=result.state)


async def start(here: Services, caller: Principal, body: Submit) -> str:
    """A mission of the caller's. Raises InputError, Overloaded."""
    mission_id = here.owned.new(caller.subject, caller.tenant)
    return await here.swarm.start_task(body.task(), budget=body.budget, mission_id=mission_id)


async def look_up(here: Services, caller: Principal, mission_id: str, wait_s: float) -> TaskResult | None:
    """The result, None while it runs. Raises NotThere, also for what is somebody else's."""
    if own(here, caller, mission_id):
        try:
            return await here.swarm.look_up(mission_id, wait_s)
        except InputError:
            pass
    raise NotThere(f"no mission {mission_id[:64]!r} of yours")


def check_policy(here: Services, policy: str) -> None:
    """Raises Forbidden for a policy that may not be named from outside; so is what its module has from elsewhere."""
    module, _, name = policy.partition(":")
    named = all(part.isidentifier() for part in (*module.split("."), name))
    if not named or not any(_permits(entry, policy) for entry in here.settings.policies):
        allowed = ", ".join(here.settings.policies) or "none"
        raise Forbidden(f"policy {policy[:100]!r} may not be spawned over the API: only those of {allowed}")


def _permits(entry: str, policy: str) -> bool:
    return policy.startswith(entry) if entry.endswith((":", ".")) else policy == entry
