"""A method's ranking as a ballot: its best quote, and the others it would accept, each with its confidence."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

from chimera.core.types import Alternative, Quote, Reply
from chimera.swarm.evidence.methods import Scored

MAX_ALTERNATIVES = 64


def ballot(ranked: Sequence[Scored]) -> Reply:
    """The reply that votes for `ranked`, best first. To have found nothing is a vote for None without confidence."""
    if not ranked:
        return Reply(value=None, confidence=0.0)
    best, *rest = ranked
    others = tuple(Alternative(value=_value(s.quote), confidence=s.confidence) for s in rest[:MAX_ALTERNATIVES])
    return Reply(value=_value(best.quote), confidence=best.confidence, alternatives=others)


def _value(quote: Quote) -> JsonValue:
    value: JsonValue = quote.model_dump(mode="json")
    return value
