"""What a trend is, and what is wanted of one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from chimera.content.feeds.item import MAX_TITLE, MAX_URL
from chimera.content.trends.bursts import BurstOptions
from chimera.core.types import Frozen, Share
from chimera.security.gateway.taint import Tainted

MAX_EVIDENCE = 20


class TrendOptions(Frozen):
    """What makes a trend, and how much is kept.

    A batch is `batch_s` long; a burst is looked at over the last `window` batches, and
    over when nobody has mentioned it for `quiet`. A trend needs `min_voices` voices,
    and `lone_source_voices` where they all come from one source, whose accounts one hand may have made. A voice adds at
    most `voice_mentions` mentions of a term and `voice_documents` documents to a batch, so that none outweighs others
    by volume, neither to make a trend nor to drown one. Of the terms reported, at most `false_discovery_rate` are
    chance, as far as mentions are independent.
    """

    batch_s: Annotated[float, Field(ge=1.0, le=31_622_400.0)] = 3_600.0
    window: Annotated[int, Field(ge=2, le=1_000)] = 24
    quiet: Annotated[int, Field(ge=0, le=1_000)] = 6
    bursts: BurstOptions = BurstOptions()
    min_voices: Annotated[int, Field(ge=2, le=1_000)] = 3
    lone_source_voices: Annotated[int, Field(ge=2, le=10_000)] = 6
    voice_mentions: Annotated[int, Field(ge=1, le=100)] = 2
    voice_documents: Annotated[int, Field(ge=1, le=10_000)] = 20
    false_discovery_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01
    max_batch_items: Annotated[int, Field(ge=10, le=20_000)] = 5_000
    max_window_items: Annotated[int, Field(ge=10, le=100_000)] = 10_000


class Evidence(Frozen):
    """An item that a trend stands on."""

    item_id: str
    url: Annotated[str, Field(max_length=MAX_URL)]
    source: str
    title: Annotated[str, Field(max_length=MAX_TITLE)]
    published_s: float


class Trend(Frozen):
    """A topic that is talked about more than it was. `terms` name it, the clearest first.

    `strength` is Kleinberg's weight of its leading burst, in nats; `since_s` when that began. `documents`, `voices` and
    `sources` count what mentions a leading term since; `velocity` is documents an hour. `novelty` is 0 for what is said
    all the time or was published already, 1 for what nothing came near; `chance` the probability of so many mentions
    without a trend, for the leading term by itself. `counts` are its documents in each of the last batches. The words
    are those of the items' authors: data, and no instruction.
    """

    terms: Annotated[tuple[str, ...], Field(min_length=1, max_length=5)]
    strength: Annotated[float, Field(ge=0.0)]
    since_s: float
    documents: Annotated[int, Field(ge=1)]
    voices: Annotated[int, Field(ge=1)]
    sources: Annotated[int, Field(ge=1)]
    velocity: Annotated[float, Field(ge=0.0)]
    novelty: Share
    chance: Share
    counts: tuple[int, ...] = ()
    evidence: Annotated[tuple[Evidence, ...], Field(min_length=1, max_length=MAX_EVIDENCE)]

    def tainted(self) -> Tainted:
        """Its terms and the titles of its evidence for a prompt, marked as the words of their sources."""
        lines = [", ".join(self.terms), *(each.title for each in self.evidence)]
        return Tainted("\n".join(lines), frozenset(each.source for each in self.evidence))


class Intake(Frozen):
    """What became of items that were handed in.

    `copies` of what was there count for nothing; `late` ones came when their batch was closed; `refused` are more than
    a batch holds, or than one voice counts for in it.
    """

    taken: int = 0
    copies: int = 0
    late: int = 0
    refused: int = 0
