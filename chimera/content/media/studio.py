"""The studio: gives an item its picture, labelled, described and signed, within what is left of the item's budget."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Final

from chimera.content.create.brief import Brief
from chimera.content.create.budget import ItemBudget
from chimera.content.create.create import Created
from chimera.content.create.item import Item
from chimera.content.media.card import Card, draw_card
from chimera.content.media.chart import draw_chart
from chimera.content.media.picture import Picture, finished, opened
from chimera.content.media.store import MediaFolder
from chimera.content.provenance.c2pa import Identity, Provenance, SourceType, sign
from chimera.content.provenance.certificates import Credentials
from chimera.content.provenance.registry import Registry
from chimera.core.errors import BudgetExceeded, InputError, ModelError
from chimera.llm.images import ImageModel, ImageRequest, MeteredImages

PROMPT: Final = (
    "An abstract illustration in flat colours for an article on: {topic}. No people, no faces, no text, no logos."
)
"""Only our own words and the topic: no source can say what is drawn, and no people are made up."""


@dataclass(frozen=True, slots=True)
class Illustrated:
    """The item with its picture. `note` says why there is none, or why it is a card and no model's picture."""

    item: Item
    note: str = ""


class Studio:
    """Draws, signs, keeps and registers, for one account.

    Without `image_model` pictures are cards and charts. Raises StorageError where folder or registry fail,
    SecurityError where the credentials have ended.
    """

    def __init__(
        self,
        *,
        folder: MediaFolder,
        registry: Registry,
        credentials: Credentials,
        identity: Identity,
        image_model: ImageModel | None = None,
    ) -> None:
        self._folder = folder
        self._registry = registry
        self._credentials = credentials
        self._identity = identity
        self._image_model = image_model

    async def illustrate(self, created: Created, brief: Brief, *, budget: ItemBudget) -> Illustrated:
        """The item with the picture that its kind asks for, and all of it in the registry.

        A picture that cannot be drawn (letters that the font has not, a quote too long for a card) is left out: the
        item is then a post. So is an image model's that fails or costs too much: it is then a card.
        """
        item, note = created.item, ""
        picture: Picture | None = None
        if item.kind == "image post" and self._image_model is not None:
            picture, note = await self._by_model(self._image_model, brief, budget)
        if picture is None:
            try:
                picture = await asyncio.to_thread(self._drawn, item, brief)
            except InputError as error:
                note = f"{note}; {error}" if note else str(error)
        if picture is not None:
            signed = await asyncio.to_thread(self._signed, picture, brief)
            media = await asyncio.to_thread(self._folder.put, signed)
            item = item.model_copy(update={"media": (media,), "cost_usd": budget.spent_usd})
        elif item.kind in ("image post", "chart post"):
            item = item.model_copy(update={"kind": "post", "cost_usd": budget.spent_usd})
        pictures = (signed.data,) if picture is not None else ()
        await asyncio.to_thread(
            self._registry.record, item.id, self._identity.account, texts=item.parts, pictures=pictures
        )
        return Illustrated(item, note)

    async def _by_model(self, model: ImageModel, brief: Brief, budget: ItemBudget) -> tuple[Picture | None, str]:
        metered = MeteredImages(model, budget.meter)
        try:
            with budget.charged():
                made = await metered.image(ImageRequest(prompt=PROMPT.format(topic=brief.topic)))
            image = await asyncio.to_thread(opened, made.data)
        except (BudgetExceeded, ModelError, InputError) as error:
            return None, f"no picture by {model.name}: {error}"
        alt = f"Abstract illustration, made by a model, for the topic “{brief.topic}”. It shows no real scene."
        return (
            await asyncio.to_thread(
                finished,
                image,
                alt=alt,
                source_type=SourceType.MODEL,
                limits=brief.limits.images,
                language=brief.language,
                identity=self._identity.account,
                model=made.model or model.name,
            ),
            "",
        )

    def _drawn(self, item: Item, brief: Brief) -> Picture | None:
        look = {"limits": brief.limits.images, "language": brief.language, "identity": self._identity.account}
        if item.kind == "chart post" and brief.chart:
            return draw_chart(brief.chart, **look)  # type: ignore[arg-type]
        if item.kind != "image post" or not item.claims:
            return None
        claim = item.claims[0]
        source = brief.source(claim.source_ids[0])
        if len(claim.quote) > 400 or source is None:
            raise InputError(f"a quote of {len(claim.quote)} characters does not fit on a card")
        card = Card(heading=brief.topic, body=claim.quote, source=source.title[:200])
        palette = sum(self._identity.account.encode()) % 4
        return draw_card(card, palette=palette, **look)  # type: ignore[arg-type]

    def _signed(self, picture: Picture, brief: Brief) -> Picture:
        provenance = Provenance(
            title=brief.topic,
            source_type=picture.source_type,
            model=picture.model,
            identity=self._identity,
            version=version("chimera"),
        )
        return replace(picture, data=sign(picture.data, picture.media_type, provenance, self._credentials))
