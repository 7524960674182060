"""The visible label: drawn into every picture that is made here, where no setting reaches it.

Credentials are stripped when a platform encodes a picture anew, and few people look at them. A dark band along the
lower edge is seen by everybody, and survives JPEG and half the size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chimera.content.media.fonts import font
from chimera.core.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

WORDS: Final = {
    "en": "AI-generated",
    "de": "KI-generiert",
    "fr": "Généré par IA",
    "es": "Generado con IA",
    "it": "Generato con IA",
    "nl": "Gegenereerd met AI",
    "pt": "Gerado por IA",
}
"""By language. There is no empty one, and no other."""

MIN_SIDE_PX: Final = 128
"""A smaller picture has no room for words that can be read."""

BAND: Final = (24, 24, 27)
INK: Final = (255, 255, 255)
"""White on near black: a contrast of 17 to 1, where WCAG 2.2 asks for 4.5."""


def label_words(language: str) -> str:
    """The words for a language, such as `de` or `de-AT`; English for one that is not known."""
    return WORDS.get(language.partition("-")[0].lower(), WORDS["en"])


def band_height_px(width: int, height: int) -> int:
    """Of the band in a picture of that size: a sixteenth of its shorter side, at least 20."""
    return max(20, min(width, height) // 16)


def labelled(image: Image, language: str = "en", identity: str = "") -> Image:
    """A copy of the picture, as large, with the band over its lower edge; `identity` stands at the band's other end.

    Raises InputError for a picture with a side below MIN_SIDE_PX.
    """
    from PIL import ImageDraw

    if min(image.size) < MIN_SIDE_PX:
        raise InputError(f"a picture of {image.width} x {image.height} has no room for its label: {MIN_SIDE_PX} px")
    made = image.convert("RGB").copy()
    high = band_height_px(*made.size)
    draw = ImageDraw.Draw(made)
    top = made.height - high
    draw.rectangle((0, top, made.width, made.height), fill=BAND)
    letters = font(int(high * 0.62), bold=True)
    words = label_words(language)
    while letters.getlength(words) > made.width - high and letters.size > 8:
        letters = font(int(letters.size) - 1, bold=True)
    middle = top + high / 2
    end = made.width - high / 2
    draw.text((end, middle), words, font=letters, fill=INK, anchor="rm")
    small = font(int(high * 0.5))
    room = made.width - 1.5 * high - letters.getlength(words)
    if identity and small.getlength(identity) <= room:
        draw.text((high / 2, middle), identity, font=small, fill=INK, anchor="lm")
    return made
