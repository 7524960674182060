"""The letters of pictures: DejaVu Sans, which matplotlib brings along: pictures are the same on every machine."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chimera.core.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

ABSENT: Final = "\U0010fffe"
"""A code point that is never assigned: what is drawn for it is the sign for a missing letter."""


@lru_cache(maxsize=128)
def font(size_px: int, *, bold: bool = False) -> FreeTypeFont:
    """DejaVu Sans in that size. Raises MissingExtra without Pillow or matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise MissingExtra("matplotlib", "content") from None
    try:
        from PIL import ImageFont
    except ImportError:
        raise MissingExtra("pillow", "content") from None
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(str(path), max(1, size_px), layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=4_096)
def _has(letter: str) -> bool:
    letters = font(32)
    return letter.isspace() or bytes(letters.getmask(letter)) != bytes(letters.getmask(ABSENT))


def check_letters(text: str) -> str:
    """`text`, if every letter of it can be drawn. Raises InputError that names those that cannot."""
    missing = sorted({letter for letter in text if not _has(letter)})
    if missing:
        shown = " ".join(f"U+{ord(letter):04X}" for letter in missing[:8])
        raise InputError(f"DejaVu Sans has no {shown}: leave these out, or publish the text without a picture")
    return text


def wrapped(text: str, letters: FreeTypeFont, width_px: float) -> list[str]:
    """`text` in lines of at most that width: broken between words, and within one that is wider than a line."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        for piece in _pieces(word, letters, width_px):
            longer = f"{line} {piece}" if line else piece
            if letters.getlength(longer) <= width_px:
                line = longer
            else:
                lines += [line] if line else []
                line = piece
    return [*lines, line] if line else lines


def _pieces(word: str, letters: FreeTypeFont, width_px: float) -> list[str]:
    pieces = [""]
    for letter in word:
        if pieces[-1] and letters.getlength(pieces[-1] + letter) > width_px:
            pieces.append("")
        pieces[-1] += letter
    return pieces
