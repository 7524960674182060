"""Making items of briefs: here, one after the other; or as an agent of a swarm does it, one item at a time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from pydantic import Field, JsonValue

from chimera.content.create.brief import Brief
from chimera.content.create.budget import ITEM_USD, ItemBudget
from chimera.content.create.create import Created, Refused, create
from chimera.core.clock import SystemClock
from chimera.core.types import Consensus, Decision, Frozen, Reply, Task, Vote
from chimera.llm.models import open_model
from chimera.llm.prices import Price, Prices
from chimera.security.gateway.gateway import SecurityGateway
from chimera.swarm.consensus import ConsensusEngine
from chimera.swarm.policy import Context


class Recipe(Frozen):
    """How items are made, the same for all of a run."""

    model: str = "offline"
    prices: dict[str, Price] = Field(default_factory=dict)
    item_usd: float = ITEM_USD
    members: int = 3


class Making(Protocol):
    """Makes items of briefs, in any order; what each became, as soon as it is known."""

    def __call__(self, briefs: Sequence[Brief], recipe: Recipe) -> AsyncIterator[tuple[Brief, Created | Refused]]: ...


async def make_here(briefs: Sequence[Brief], recipe: Recipe) -> AsyncIterator[tuple[Brief, Created | Refused]]:
    """In this process. Raises what `create` raises."""
    for brief in briefs:
        yield brief, await make(brief, recipe)


async def make_as_agent(task: Task, context: Context) -> Reply:
    """An agent's policy: makes an item of `inputs["brief"]` as `inputs["recipe"]` says."""
    brief = Brief.model_validate(task.inputs["brief"])
    made = await make(brief, Recipe.model_validate(task.inputs["recipe"]))
    if isinstance(made, Created):
        value: dict[str, JsonValue] = {"created": made.model_dump(mode="json")}
        return Reply(value=value, confidence=made.item.confidence, cost_usd=made.item.cost_usd)
    return Reply(value={"refused": made.model_dump(mode="json")}, cost_usd=made.cost_usd)


async def make(brief: Brief, recipe: Recipe) -> Created | Refused:
    """One item, decided on by weighted consensus of its judges. The same brief gives the same chances."""
    clock = SystemClock()
    budget = ItemBudget(brief.id, prices=Prices(tuple(recipe.prices.items())), clock=clock, cap_usd=recipe.item_usd)
    async with open_model(recipe.model) as model:
        return await create(
            brief,
            model=model,
            decide=weighted,
            budget=budget,
            gateway=SecurityGateway(),
            rng=random.Random(brief.id),
            members=recipe.members,
        )


def weighted(votes: Sequence[Vote], electorate: int) -> Decision:
    """The judges' decision, by the swarm's weighted consensus."""
    engine = ConsensusEngine(method=Consensus.WEIGHTED, electorate=electorate, early_stop=False)
    for vote in votes:
        engine.add(vote)
    return engine.decision or engine.close()
