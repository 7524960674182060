"""Cards: a few words as a picture. A quote with its source, or a title."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import Field

from chimera.content.media.alt import card_alt
from chimera.content.media.fonts import check_letters, font, wrapped
from chimera.content.media.label import band_height_px
from chimera.content.media.picture import DEFAULT_LIMITS, ImageLimits, Picture, finished
from chimera.content.provenance.c2pa import SourceType
from chimera.core.errors import InputError, MissingExtra
from chimera.core.types import Frozen

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

WIDTH_PX: Final = 1_200
HEIGHT_PX: Final = 675
"""16 to 9, as timelines show it uncut."""

MARGIN_PX: Final = 72
SIZES_PX: Final = (64, 56, 48, 42, 36, 30)
"""Of the words, the largest first. Words that do not fit in the last are too many."""

PALETTES: Final = (
    ((250, 250, 249), (28, 25, 23), (180, 83, 9)),
    ((240, 249, 255), (12, 35, 64), (3, 105, 161)),
    ((240, 253, 244), (20, 48, 32), (21, 128, 61)),
    ((250, 245, 255), (46, 16, 74), (126, 34, 206)),
)
"""Paper, ink and accent. Ink on paper has a contrast above 12 to 1 in each."""


class Card(Frozen):
    """What stands on it: `heading` above, `body` large, `source` below; a `body` with a source is a quote."""

    heading: str = Field(default="", max_length=120)
    body: str = Field(min_length=1, max_length=400)
    source: str = Field(default="", max_length=200)


def draw_card(
    card: Card,
    *,
    palette: int = 0,
    model_wrote: bool = False,
    limits: ImageLimits = DEFAULT_LIMITS,
    language: str = "en",
    identity: str = "",
) -> Picture:
    """The card as a picture. `model_wrote` says that a model wrote the words, and not their source.

    Raises InputError for letters that the font has not and for words that do not fit, MissingExtra without Pillow.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        raise MissingExtra("pillow", "content") from None

    for text in (card.heading, card.body, card.source):
        check_letters(text)
    paper, ink, accent = PALETTES[palette % len(PALETTES)]
    image = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), paper)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 16, HEIGHT_PX), fill=accent)
    top, bottom = MARGIN_PX, HEIGHT_PX - band_height_px(WIDTH_PX, HEIGHT_PX) - MARGIN_PX // 2
    wide = WIDTH_PX - 2 * MARGIN_PX
    if card.heading:
        small = font(32, bold=True)
        for line in wrapped(card.heading, small, wide)[:2]:
            draw.text((MARGIN_PX, top), line, font=small, fill=accent)
            top += 44
        top += 12
    if card.source:
        small = font(26)
        for line in reversed(wrapped(f"Source: {card.source}", small, wide)[:3]):
            bottom -= 36
            draw.text((MARGIN_PX, bottom), line, font=small, fill=accent)
        bottom -= 12
    body = f"“{card.body}”" if card.source else card.body
    letters, lines, step = _fitted(body, wide, bottom - top)
    start = top + (bottom - top - step * len(lines)) / 2
    for place, line in enumerate(lines):
        draw.text((MARGIN_PX, start + place * step), line, font=letters, fill=ink)
    return finished(
        image,
        alt=card_alt(card.heading, card.body, card.source),
        source_type=SourceType.COMPOSITE if model_wrote else SourceType.ALGORITHM,
        limits=limits,
        language=language,
        identity=identity,
    )


def _fitted(text: str, wide: float, high: float) -> tuple[FreeTypeFont, list[str], float]:
    """The largest letters in which it fits, its lines and their distance."""
    for size in SIZES_PX:
        letters = font(size, bold=True)
        lines, step = wrapped(text, letters, wide), size * 1.3
        if step * len(lines) <= high:
            return letters, lines, step
    raise InputError(f"{len(text)} characters do not fit on a card: shorten them")
