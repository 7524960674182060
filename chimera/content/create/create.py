"""From a brief to an item: plan, drafts, checks, judges, a decision; or a refusal that says why.

What is refused leaves nothing half-made: an item is returned whole, within its budget, with every claim sourced, or
not at all. Calls are made one after the other: reservations are from above, and side by side they would refuse what
the budget has room for.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final, Literal, Protocol

from chimera.content.create import prompts
from chimera.content.create.brief import Brief
from chimera.content.create.budget import ItemBudget
from chimera.content.create.check import refusal_of
from chimera.content.create.item import Item, Judgement, Opinion
from chimera.content.create.offline import quoting_team
from chimera.content.create.team import Draft, Judge, Plan, Team
from chimera.content.create.written import model_team
from chimera.core.errors import BudgetExceeded, InputError, ModelError, ModelUnauthorized
from chimera.core.types import Alternative, Decision, FailureKind, Frozen, Reply, Vote
from chimera.llm.chat import ChatModel
from chimera.security.gateway.gateway import SecurityGateway

PASS: Final = 0.5
"""Overall, below which a judge takes a draft for none."""

MAX_MEMBERS: Final = 8

Reason = Literal["sources", "plan", "drafts", "judges", "budget"]


class Decide(Protocol):
    """Consensus over the judges' votes, as `ConsensusEngine` of the swarm with `weighted` makes it.

    Each vote's value is the id of the draft its judge likes best, with its score as confidence and the other drafts as
    alternatives; the value None stands for none of them.
    """

    def __call__(self, votes: Sequence[Vote], electorate: int) -> Decision: ...


class Created(Frozen):
    """The item, the plan that it follows, and the sources that were left out because they look injected."""

    item: Item
    plan: Plan
    left_out: tuple[str, ...] = ()


class Refused(Frozen):
    """There is no item. `reason` is where it ended, `details` what each attempt lacked."""

    reason: Reason
    message: str
    details: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    cost_usd: float = 0.0


async def create(
    brief: Brief,
    *,
    model: ChatModel,
    decide: Decide,
    budget: ItemBudget,
    gateway: SecurityGateway,
    rng: random.Random,
    members: int = 3,
) -> Created | Refused:
    """An item for `brief`, by `members` writers who judge one another; without a model that writes, by quoting.

    Sources that `gateway` finds suspicious are left out. Raises InputError for members outside 2 to 8 and for a model
    without a price, ModelUnauthorized for a key that is not taken; other failures of a model are refusals.
    """
    if not 2 <= members <= MAX_MEMBERS:
        raise InputError(f"{members} members: 2 to {MAX_MEMBERS} can judge one another's drafts")
    brief, left_out = _screened(brief, gateway)
    if not brief.sources:
        return Refused(reason="sources", message="every source looks like an attack", left_out=left_out)
    gather = model_team if model.writes else quoting_team
    team = gather(budget.over(model), members=members, rng=rng)
    try:
        with budget.charged():
            made = await _made(brief, team, decide, budget)
    except BudgetExceeded as error:
        made = Refused(reason="budget", message=f"the item would cost more than ${budget.cap_usd:g}: {error}")
    if isinstance(made, Refused):
        return made.model_copy(update={"left_out": left_out, "cost_usd": budget.spent_usd})
    return made.model_copy(update={"left_out": left_out})


def _screened(brief: Brief, gateway: SecurityGateway) -> tuple[Brief, tuple[str, ...]]:
    """The brief without the sources that look injected, and their ids; its chart goes with its source."""
    bad = {s.id for s in brief.sources if gateway.screen(f"{s.title}\n{s.quote}", "source").suspicious}
    chart = None if brief.chart and brief.chart.source_id in bad else brief.chart
    kept = tuple(source for source in brief.sources if source.id not in bad)
    return brief.model_copy(update={"sources": kept, "chart": chart}), tuple(sorted(bad))


async def _made(brief: Brief, team: Team, decide: Decide, budget: ItemBudget) -> Created | Refused:
    try:
        plan = await team.planner.plan(brief)
    except ModelUnauthorized:
        raise
    except ModelError as error:
        return Refused(reason="plan", message=str(error)[:1_000])
    drafts, faults = await _drafts(brief, plan, team)
    if not drafts:
        return Refused(reason="drafts", message="no draft could be used", details=tuple(faults))
    opinions = {judge.name: await _opinions(brief, judge, drafts) for judge in team.judges}
    votes = [_vote(name, scored) for name, scored in sorted(opinions.items())]
    decision = decide(votes, len(votes))
    chosen = _chosen(decision, drafts, opinions)
    if chosen is None:
        return Refused(reason="judges", message="no draft is good enough", details=_told(opinions))
    scores = tuple(scored[chosen] for _, scored in sorted(opinions.items()) if chosen in scored)
    confidence = sum(one.score.overall for one in scores if one.score) / len(scores)
    judged = Judgement(
        opinions=scores, drafts=len(drafts), agreed=decision.agreed, explanation=decision.explanation[:2_000]
    )
    item = Item(
        brief_id=brief.id,
        kind=plan.kind,
        language=brief.language,
        parts=drafts[chosen][0].parts,
        claims=drafts[chosen][0].claims,
        judged=judged,
        confidence=round(confidence if decision.agreed else min(confidence, PASS), 6),
        cost_usd=budget.spent_usd,
        model=team.wrote,
        prompts=prompts.VERSION,
    )
    return Created(item=item, plan=plan)


async def _drafts(brief: Brief, plan: Plan, team: Team) -> tuple[dict[str, tuple[Draft, set[str]]], list[str]]:
    """Those that pass the checks, by id, each with its writers; and what the others lack."""
    drafts: dict[str, tuple[Draft, set[str]]] = {}
    faults: list[str] = []
    for writer in team.writers:
        try:
            draft = await writer.write(brief, plan)
        except ModelUnauthorized:
            raise
        except ModelError as error:
            faults.append(f"{writer.name}: {str(error)[:500]}")
            continue
        if fault := refusal_of(draft, brief, plan):
            faults.append(f"{writer.name}: {fault}")
        else:
            drafts.setdefault(draft.id, (draft, set()))[1].add(writer.name)
    return drafts, faults


async def _opinions(brief: Brief, judge: Judge, drafts: dict[str, tuple[Draft, set[str]]]) -> dict[str, Opinion]:
    """The judge's opinion of each draft that is not its own."""
    found: dict[str, Opinion] = {}
    for id, (draft, writers) in drafts.items():
        if judge.name in writers:
            continue
        try:
            found[id] = Opinion(judge=judge.name, score=await judge.judge(brief, draft))
        except ModelUnauthorized:
            raise
        except ModelError as error:
            found[id] = Opinion(judge=judge.name, failure=str(error)[:500] or type(error).__name__)
    return found


def _vote(judge: str, opinions: dict[str, Opinion]) -> Vote:
    scores = {id: one.score.overall for id, one in opinions.items() if one.score}
    if not scores:
        return Vote(voter=judge, failure=FailureKind.RAISED, detail="has no opinion")
    good = sorted(((score, id) for id, score in scores.items() if score >= PASS), key=lambda one: (-one[0], one[1]))
    if not good:
        return Vote(voter=judge, reply=Reply(value=None, confidence=1.0 - max(scores.values())))
    (best, first), *rest = good
    others = tuple(Alternative(value=id, confidence=score) for score, id in rest)
    return Vote(voter=judge, reply=Reply(value=first, confidence=best, alternatives=others))


def _chosen(
    decision: Decision, drafts: dict[str, tuple[Draft, set[str]]], opinions: dict[str, dict[str, Opinion]]
) -> str | None:
    """The draft that was decided on; without agreement the best of those that most judges take, for a person to see."""
    if decision.agreed:
        return decision.value if isinstance(decision.value, str) and decision.value in drafts else None
    passed: dict[str, list[float]] = {}
    for scored in opinions.values():
        for id, one in scored.items():
            passed.setdefault(id, []).append(one.score.overall if one.score else 0.0)
    means = {id: sum(scores) / len(scores) for id, scores in passed.items()}
    best = max(sorted(means), key=lambda id: means[id], default=None)
    return best if best is not None and means[best] >= PASS else None


def _told(opinions: dict[str, dict[str, Opinion]]) -> tuple[str, ...]:
    return tuple(
        f"{one.judge}: {one.score.reason if one.score else one.failure}"
        for _, scored in sorted(opinions.items())
        for one in scored.values()
    )[:64]
