"""What an item is to be about, for whom, and on what it may rest."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, field_validator, model_validator

from chimera.content.media.chart import Chart
from chimera.content.media.picture import ImageLimits
from chimera.core.types import Frozen, Name

MAX_SOURCES: Final = 12
MAX_SOURCE_CHARS: Final = 8_000

Term = Annotated[str, Field(min_length=1, max_length=60)]


class Source(Frozen):
    """Something that others published: `quote` is its text, or the part of it that may be quoted. Never trusted."""

    id: Name
    url: str = Field(pattern=r"^https?://[^\s<>\"]{1,2000}$")
    title: str = Field(min_length=1, max_length=300)
    quote: str = Field(min_length=1, max_length=MAX_SOURCE_CHARS)


class ChannelLimits(Frozen):
    """How much a channel takes: characters of a part as `length` counts them, and parts of a thread.

    `disclosure_chars` of each part are kept free for the words that are added when it is published.
    """

    channel: Name = "outbox"
    part_chars: int = Field(default=500, ge=80, le=10_000)
    parts: int = Field(default=5, ge=1, le=25)
    link_chars: int | None = Field(default=None, ge=1, le=200)
    disclosure_chars: int = Field(default=60, ge=0, le=500)
    images: ImageLimits = ImageLimits()

    @property
    def room_chars(self) -> int:
        """Of a part, for the item's own words."""
        return self.part_chars - self.disclosure_chars

    @model_validator(mode="after")
    def _leaves_room(self) -> ChannelLimits:
        if self.room_chars < 40:
            raise ValueError(f"{self.disclosure_chars} of {self.part_chars} characters leave no room for words")
        return self


BLUESKY: Final = ChannelLimits(channel="bluesky", part_chars=300)
MASTODON: Final = ChannelLimits(channel="mastodon", part_chars=500, link_chars=23)
OUTBOX: Final = ChannelLimits()


class Brief(Frozen):
    """An order for one item. `topic` and `terms` may come from strangers' posts and are treated so; the rest is ours.

    `chart` holds numbers that were published, with the id of their source: no model makes numbers.
    """

    id: Name
    topic: str = Field(min_length=1, max_length=120)
    terms: tuple[Term, ...] = Field(default=(), max_length=20)
    sources: tuple[Source, ...] = Field(min_length=1, max_length=MAX_SOURCES)
    audience: str = Field(default="everybody", max_length=200)
    voice: str = Field(default="plain, friendly, exact", max_length=500)
    language: str = Field(default="en", pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})?$")
    limits: ChannelLimits = OUTBOX
    chart: Chart | None = None
    picture: bool = True
    """Whether the item may have one."""

    @field_validator("sources")
    @classmethod
    def _are_told_apart(cls, sources: tuple[Source, ...]) -> tuple[Source, ...]:
        if len({source.id for source in sources}) < len(sources):
            raise ValueError("two sources have the same id: give each its own")
        return sources

    @model_validator(mode="after")
    def _cites_its_numbers(self) -> Brief:
        if self.chart and self.chart.source_id not in {source.id for source in self.sources}:
            raise ValueError(f"the chart's source {self.chart.source_id!r} is none of the brief's")
        return self

    def source(self, id: str) -> Source | None:
        return next((source for source in self.sources if source.id == id), None)
