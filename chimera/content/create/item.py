"""An item: what may be published, with everything that is needed to account for it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from chimera.core.hashing import digest
from chimera.core.types import Frozen, Name, Share

Kind = Literal["post", "thread", "article", "image post", "chart post"]
Part = Annotated[str, Field(min_length=1, max_length=10_000)]
Usd = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Claim(Frozen):
    """A sentence of the item that says how the world is, and the words in its sources that say so."""

    text: str = Field(min_length=1, max_length=2_000)
    source_ids: tuple[Name, ...] = Field(min_length=1, max_length=12)
    quote: str = Field(min_length=1, max_length=2_000)


class Media(Frozen):
    """A picture of the item. `ref` is the name of its file in the media folder; `alt` stands for it in words."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    media_type: Literal["image/png", "image/jpeg"]
    alt: str = Field(min_length=1, max_length=2_000)
    ref: str = Field(pattern=r"^[0-9a-f]{64}\.(png|jpg)$")
    width: int = Field(ge=1, le=10_000)
    height: int = Field(ge=1, le=10_000)
    size_bytes: int = Field(ge=1)


class Score(Frozen):
    """One judge's opinion of one draft, each from 0 to 1."""

    accuracy: Share
    usefulness: Share
    tone: Share
    safety: Share
    reason: str = Field(default="", max_length=500)

    @property
    def overall(self) -> float:
        """The mean, and no more than the draft's accuracy and its safety: neither is made up for by charm."""
        mean = (self.accuracy + self.usefulness + self.tone + self.safety) / 4
        return round(min(mean, self.accuracy, self.safety), 6)


class Opinion(Frozen):
    """A judge's score of the item. `failure` says why there is none."""

    judge: Name
    score: Score | None = None
    failure: str = Field(default="", max_length=500)


class Judgement(Frozen):
    """How the item was chosen. `agreed` is False where the judges were not at one: a person should look then."""

    opinions: tuple[Opinion, ...]
    drafts: int = Field(ge=1)
    agreed: bool
    explanation: str = Field(default="", max_length=2_000)


class Item(Frozen):
    """What a brief became. `confidence` is the judges' in it, for the review.

    `model` is who wrote it; `prompts` is the version of the words that it was asked with. `cost_usd` is all that was
    spent on the way, drafts that were not taken included.
    """

    brief_id: Name
    kind: Kind
    language: str
    parts: tuple[Part, ...] = Field(min_length=1, max_length=25)
    claims: tuple[Claim, ...] = Field(default=(), max_length=64)
    media: tuple[Media, ...] = Field(default=(), max_length=4)
    judged: Judgement
    confidence: Share
    cost_usd: Usd
    model: str
    prompts: str

    @property
    def id(self) -> str:
        """A digest of what is said and shown. The same content from the same brief has the same id."""
        said = self.model_dump(mode="json", include={"brief_id", "kind", "language", "parts", "claims", "media"})
        return digest(said)
