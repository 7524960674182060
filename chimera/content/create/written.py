"""The team of models: planner, writers of different methods and temperatures, judges. Answers are schema-validated.

What strangers wrote is spotlit in every prompt, and there is no tool on this path: the most that an injected text can
do is to spoil a draft, which the checks and the other writers' drafts are there for. It cannot reach the plan, which
is made before any source is read.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from chimera.content.create import prompts
from chimera.content.create.brief import Brief, Source
from chimera.content.create.item import Claim, Kind, Part, Score
from chimera.content.create.team import Draft, Plan, Team
from chimera.core.errors import ModelError
from chimera.core.types import Frozen, Name, Share
from chimera.llm.chat import ChatMessage, ChatModel, ChatRequest
from chimera.llm.structured import ask
from chimera.security.gateway.taint import Tainted, Trail

PLAN_TOKENS, WRITE_TOKENS, JUDGE_TOKENS = 300, 1_200, 250
TEMPERATURES = (0.2, 0.6, 0.9)


class PlanAnswer(Frozen):
    """What a planner answers."""

    kind: Kind
    source_ids: tuple[Annotated[str, Field(max_length=128)], ...] = Field(min_length=1, max_length=12)
    angle: str = Field(max_length=300)


class DraftAnswer(Frozen):
    """What a writer answers."""

    parts: tuple[Part, ...] = Field(min_length=1, max_length=25)
    claims: tuple[Claim, ...] = Field(max_length=64)


class ScoreAnswer(Frozen):
    """What a judge answers."""

    accuracy: Share
    usefulness: Share
    tone: Share
    safety: Share
    reason: str = Field(max_length=500)


class ModelPlanner:
    """Plans with a model that is told the topic, the terms and the sources' ids."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model

    async def plan(self, brief: Brief) -> Plan:
        allowed = kinds(brief)
        told = Trail().take(Tainted("\n".join((brief.topic, *brief.terms)), frozenset({"trend"})))
        ids = ", ".join(source.id for source in brief.sources)
        system = prompts.PLAN.format(kinds=", ".join(allowed))
        asked = f"Topic and terms.\n{told}\nAudience: {brief.audience}\nSources: {ids}"
        answer, _ = await ask(self._model, _request(system, asked, PLAN_TOKENS, 0.0, None), PlanAnswer)
        chosen = [id for id in dict.fromkeys(answer.source_ids) if brief.source(id)]
        if answer.kind not in allowed or not chosen:
            raise ModelError(
                f"{self._model.name} planned {answer.kind} on {list(answer.source_ids)}, which is not there"
            )
        return Plan(kind=answer.kind, source_ids=tuple(chosen), angle=answer.angle)


class ModelMember:
    """A writer with a method of its own, which also judges what the others wrote."""

    def __init__(self, name: str, model: ChatModel, *, method: str, temperature: float, seed: int) -> None:
        self.name = name
        self._model = model
        self._method = method
        self._temperature = temperature
        self._seed = seed

    async def write(self, brief: Brief, plan: Plan) -> Draft:
        system = prompts.WRITE.format(
            kind=plan.kind,
            audience=brief.audience,
            voice=brief.voice,
            language=brief.language,
            angle=plan.angle or "what is new",
            method=self._method,
            parts=most_parts(brief, plan.kind),
            chars=brief.limits.room_chars,
        )
        sources = [source for id in plan.source_ids if (source := brief.source(id))]
        request = _request(system, _shown(brief, sources), WRITE_TOKENS, self._temperature, self._seed)
        answer, _ = await ask(self._model, request, DraftAnswer)
        return Draft(parts=answer.parts, claims=answer.claims)

    async def judge(self, brief: Brief, draft: Draft) -> Score:
        system = prompts.JUDGE.format(audience=brief.audience, voice=brief.voice)
        cited = {id for claim in draft.claims for id in claim.source_ids}
        sources = [source for source in brief.sources if source.id in cited] or list(brief.sources[:1])
        text = "\n\n".join(draft.parts)
        shown = f"The draft.\n{Trail().take(Tainted(text, frozenset({'draft'})))}\n\n{_shown(brief, sources)}"
        answer, _ = await ask(self._model, _request(system, shown, JUDGE_TOKENS, 0.0, self._seed), ScoreAnswer)
        return Score(**answer.model_dump())


def model_team(model: ChatModel, *, members: int, rng: random.Random) -> Team:
    """`members` writers, each of which judges the others' drafts, and a reader who only judges: somebody is left to
    judge where all write the same."""
    methods = rng.sample(prompts.METHODS, k=min(members, len(prompts.METHODS)))
    team = [
        ModelMember(
            f"member-{n + 1}",
            model,
            method=methods[n % len(methods)],
            temperature=TEMPERATURES[n % len(TEMPERATURES)],
            seed=rng.getrandbits(31),
        )
        for n in range(members)
    ]
    reader = ModelMember("reader", model, method="", temperature=0.0, seed=rng.getrandbits(31))
    return Team(ModelPlanner(model), team, (*team, reader), model.name)


def kinds(brief: Brief) -> tuple[Kind, ...]:
    """The kinds that a brief allows."""
    found: list[Kind] = ["post"]
    if brief.limits.parts > 1:
        found.append("thread")
    if brief.limits.part_chars >= 2_000:
        found.append("article")
    if brief.picture:
        found.append("image post")
        if brief.chart:
            found.append("chart post")
    return tuple(found)


def most_parts(brief: Brief, kind: Kind) -> int:
    """Parts that an item of that kind may have."""
    return brief.limits.parts if kind == "thread" else 1


def _shown(brief: Brief, sources: Sequence[Source]) -> str:
    trail = Trail()
    shown = []
    for source in sources:
        text = f"{source.title}\n{source.url}\n{source.quote}"
        shown.append(f"Source {source.id}.\n{trail.take(Tainted(text, frozenset({_label(source.id)})))}")
    return "\n\n".join(shown)


def _label(id: Name) -> str:
    return "source:" + "".join(c if c.isalnum() or c in "_.:/-" else "-" for c in id)[:100]


def _request(system: str, user: str, tokens: int, temperature: float, seed: int | None) -> ChatRequest:
    messages = (ChatMessage(role="system", content=system), ChatMessage(role="user", content=user))
    return ChatRequest(messages=messages, max_tokens=tokens, temperature=temperature, seed=seed)
