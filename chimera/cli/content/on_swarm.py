"""Making items by agents of a swarm on Ray, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

from pydantic import JsonValue

from chimera.client import SwarmCoordinator
from chimera.content.create.brief import Brief
from chimera.content.create.create import Created, Refused
from chimera.core.config import Settings
from chimera.core.types import AgentSpec, Task, TaskResult
from chimera.system.content_made import Recipe

ROLE: Final = "maker"
POLICY: Final = "chimera.system.content_made:make_as_agent"
MAKERS: Final = 4
DEADLINE_S: Final = 600.0


class MakeOnSwarm:
    """By agents of a swarm on Ray, of which each makes one item at a time. Raises what the swarm raises."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def __call__(self, briefs: Sequence[Brief], recipe: Recipe) -> AsyncIterator[tuple[Brief, Created | Refused]]:
        if not briefs:
            return
        async with SwarmCoordinator(settings=self._settings) as swarm:
            agents = min(MAKERS, len(briefs))
            await swarm.spawn_agents([AgentSpec(role=ROLE, policy=POLICY)] * agents)

            async def one(brief: Brief) -> tuple[Brief, TaskResult]:
                inputs: dict[str, JsonValue] = {
                    "brief": brief.model_dump(mode="json"),
                    "recipe": recipe.model_dump(mode="json"),
                }
                task = Task(goal="Make an item of the brief.", inputs=inputs, role=ROLE, deadline_s=DEADLINE_S)
                return brief, await swarm.submit_task(task)

            for done in asyncio.as_completed([one(brief) for brief in briefs]):
                brief, result = await done
                yield brief, _read(result)


def _read(result: TaskResult) -> Created | Refused:
    value = result.value
    if isinstance(value, dict) and "created" in value:
        return Created.model_validate(value["created"])
    if isinstance(value, dict) and "refused" in value:
        return Refused.model_validate(value["refused"])
    why = (result.error or {}).get("message", "") or result.explanation or "no agent made it"
    return Refused(reason="drafts", message=why[:1_000], cost_usd=result.cost_usd)
