"""The team without a model: it quotes, word for word, says whom, and judges by rules. It writes no sentence."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from chimera.content.create.brief import Brief, Source
from chimera.content.create.claims import normal, sentences, unsourced
from chimera.content.create.item import Claim, Kind, Score
from chimera.content.create.length import length
from chimera.content.create.team import Draft, Plan, Team
from chimera.content.create.written import kinds
from chimera.core.errors import ModelError
from chimera.core.types import Quote
from chimera.llm.chat import ChatMessage, ChatModel, ChatRequest

MIN_WORDS: Final = 5
"""A shorter sentence says too little to be quoted alone."""

MAX_TITLE_CHARS: Final = 80
GOOD_CHARS: Final = 180
"""About what is read at one glance."""

Rank = Callable[[Brief, str, int], float]


def _leading(brief: Brief, sentence: str, place: int) -> float:
    return -place


def _on_topic(brief: Brief, sentence: str, place: int) -> float:
    return coverage(brief, sentence) - place / 1_000


def _concise(brief: Brief, sentence: str, place: int) -> float:
    return coverage(brief, sentence) - abs(len(sentence) - GOOD_CHARS / 2) / GOOD_CHARS


METHODS: Final[tuple[tuple[str, Rank], ...]] = (("leading", _leading), ("on-topic", _on_topic), ("concise", _concise))


def coverage(brief: Brief, text: str) -> float:
    """The share of the brief's terms that stand in a text; of the topic's words where it has no terms."""
    wanted = {normal(term).casefold() for term in brief.terms or brief.topic.split()}
    lower = normal(text).casefold()
    return sum(term in lower for term in wanted) / len(wanted) if wanted else 0.0


class RulePlanner:
    """The richest kind that the brief allows, on all of its sources, those of the most terms first."""

    async def plan(self, brief: Brief) -> Plan:
        allowed = kinds(brief)
        kind: Kind = next((k for k in ("chart post", "image post") if k in allowed), "post")
        if kind == "chart post" and brief.chart:
            return Plan(kind=kind, source_ids=(brief.chart.source_id,))
        return Plan(kind=kind, source_ids=tuple(source.id for source in brief.sources))


class QuotingWriter:
    """Quotes the sentence that ranks first, through a model that only extracts, with its source and link."""

    def __init__(self, name: str, model: ChatModel, rank: Rank) -> None:
        self.name = name
        self._model = model
        self._rank = rank

    async def write(self, brief: Brief, plan: Plan) -> Draft:
        found: list[tuple[float, int, str, Source]] = []
        for order, id in enumerate(plan.source_ids):
            source = brief.source(id)
            for place, sentence in enumerate(sentences(source.quote) if source else ()):
                if source and len(sentence.split()) >= MIN_WORDS and self._laid_out(brief, sentence, source):
                    found.append((self._rank(brief, sentence, place), -order, sentence, source))
        if not found:
            raise ModelError("no sentence of the sources is short enough to be quoted whole, with its link")
        _, _, sentence, source = max(found, key=lambda one: one[:2])
        said = await self._extract(brief, sentence, source)
        text = self._laid_out(brief, said, source)
        if text is None:
            raise ModelError(f"{self._model.name} gave more than it was given")
        quoted = text.partition("\n")[0]
        return Draft(parts=(text,), claims=(Claim(text=quoted, source_ids=(source.id,), quote=said),))

    async def _extract(self, brief: Brief, sentence: str, source: Source) -> str:
        quote = Quote(text=sentence, file=source.id, line=1)
        asked = (ChatMessage(role="user", content=brief.topic),)
        response = await self._model.chat(ChatRequest(messages=asked, documents=(quote,)))
        return response.text.removesuffix(quote.citation).strip()

    @staticmethod
    def _laid_out(brief: Brief, sentence: str, source: Source) -> str | None:
        """The post; None if it does not fit."""
        title = " ".join(source.title.split())
        title = title if len(title) <= MAX_TITLE_CHARS else title[: MAX_TITLE_CHARS - 1].rstrip() + "…"
        inner = sentence.replace("“", "‘").replace("”", "’")
        text = f"“{' '.join(inner.split())}”\n\nSource: {title}\n{source.url}"
        return text if length(text, brief.limits.link_chars) <= brief.limits.room_chars else None


class RuleJudge:
    """Scores by what can be counted. `weighs_terms` is how much the terms matter to this one, against length."""

    def __init__(self, name: str, weighs_terms: float) -> None:
        self.name = name
        self._weighs_terms = weighs_terms

    async def judge(self, brief: Brief, draft: Draft) -> Score:
        text = " ".join(draft.parts)
        said = " ".join(claim.quote for claim in draft.claims)
        stands = unsourced(draft.parts, draft.claims, brief.sources) is None
        brevity = min(1.0, GOOD_CHARS / max(1, len(said)))
        useful = self._weighs_terms * coverage(brief, said) + (1 - self._weighs_terms) * brevity
        shouting = sum(word.isupper() and len(word) > 3 for word in said.split()) + text.count("!")
        return Score(
            accuracy=1.0 if stands else 0.0,
            usefulness=round(0.5 + useful / 2, 6),
            tone=max(0.0, 1.0 - 0.25 * shouting),
            safety=1.0 if stands else 0.0,
            reason="quoted word for word" if stands else "not in its sources",
        )


def quoting_team(model: ChatModel, *, members: int, rng: random.Random) -> Team:
    """Up to three writers, and three judges, who are others."""
    ranks: Sequence[tuple[str, Rank]] = METHODS[: max(1, min(members, len(METHODS)))]
    writers = [QuotingWriter(f"quoting-{name}", model, rank) for name, rank in ranks]
    judges = [RuleJudge(f"rule-{n + 1}", weight) for n, weight in enumerate((0.8, 0.5, 0.65))]
    return Team(RulePlanner(), writers, judges, model.name)
