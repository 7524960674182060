"""A picture as it is published: labelled, within the platform's limits, without anything but its pixels.

`finished` is the only way to a `Picture`: whatever is drawn or comes from a model passes it, and gets its label there.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from pydantic import Field

from chimera.content.media.alt import MAX_CHARS, check_alt
from chimera.content.media.label import labelled
from chimera.content.provenance.c2pa import SourceType
from chimera.core.errors import InputError, MissingExtra
from chimera.core.types import Frozen

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_INPUT_BYTES: Final = 20_000_000
MAX_INPUT_PIXELS: Final = 40_000_000
"""A picture of 120 MB once it is unpacked. A small file may claim any number of pixels."""

INPUTS: Final = ("PNG", "JPEG", "WEBP")
QUALITIES: Final = (90, 80, 70, 60, 50)
SHRUNK: Final = 0.8
ROOM_BYTES: Final = 30_000
"""For the credentials that are signed into the file: 4 KB with a chain of two, more with an operator's own."""


class ImageLimits(Frozen):
    """What a platform takes. Bluesky: 1,000,000 bytes an image (app.bsky.embed.images), 2,000 px a side."""

    max_bytes: int = Field(default=1_000_000, ge=50_000, le=10_000_000)
    max_side_px: int = Field(default=2_000, ge=256, le=8_192)
    alt_chars: int = Field(default=MAX_CHARS, ge=100, le=2_000)


DEFAULT_LIMITS: Final = ImageLimits()


@dataclass(frozen=True, slots=True)
class Picture:
    """The bytes of a file with all that an item says of it."""

    data: bytes = field(repr=False)
    media_type: str
    width: int
    height: int
    alt: str
    source_type: SourceType
    model: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes, in hex."""
        return sha256(self.data).hexdigest()


def finished(
    image: Image,
    *,
    alt: str,
    source_type: SourceType,
    limits: ImageLimits = DEFAULT_LIMITS,
    language: str = "en",
    identity: str = "",
    model: str = "",
) -> Picture:
    """`image`, labelled and encoded: PNG if it fits, else JPEG, smaller until it does.

    Raises InputError for a picture that is too small for its label, and for a bad alternative text.
    """
    from PIL import Image as Pil

    alt = check_alt(alt, limits.alt_chars)
    made = Pil.new("RGB", image.size, "white")
    made.paste(image.convert("RGB"), mask=image.getchannel("A") if image.mode == "RGBA" else None)
    made.thumbnail((limits.max_side_px, limits.max_side_px))
    made = labelled(made, language, identity)
    data, media_type = _encoded(made, limits.max_bytes - ROOM_BYTES)
    with Pil.open(io.BytesIO(data)) as written:
        width, height = written.size
    return Picture(data, media_type, width, height, alt, source_type, model)


def opened(data: bytes) -> Image:
    """A picture from outside: its pixels, upright, and nothing else of the file (no EXIF, no text, no profile).

    Raises InputError for what is no PNG, JPEG or WebP, is too large packed or unpacked, or is damaged; MissingExtra
    without Pillow.
    """
    try:
        from PIL import Image as Pil
        from PIL import ImageOps
    except ImportError:
        raise MissingExtra("pillow", "content") from None

    if not 0 < len(data) <= MAX_INPUT_BYTES:
        raise InputError(f"a picture of {len(data)} bytes: 1 to {MAX_INPUT_BYTES} are read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Pil.DecompressionBombWarning)
            with Pil.open(io.BytesIO(data), formats=INPUTS) as source:
                wide, high = source.size
                if wide * high > MAX_INPUT_PIXELS:
                    raise InputError(f"a picture of {wide} x {high} pixels: at most {MAX_INPUT_PIXELS} are unpacked")
                source.load()
                upright = ImageOps.exif_transpose(source)
    except (Pil.DecompressionBombError, Pil.DecompressionBombWarning) as error:
        raise InputError(f"the picture claims more pixels than are unpacked: {error}") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InputError(f"this is no picture in PNG, JPEG or WebP that can be read: {str(error)[:200]}") from error
    mode = "RGBA" if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info else "RGB"
    pixels = upright.convert(mode)
    return Pil.frombytes(mode, pixels.size, pixels.tobytes())


def _encoded(image: Image, most_bytes: int) -> tuple[bytes, str]:
    data = _saved(image, "PNG")
    if len(data) <= most_bytes:
        return data, "image/png"
    while True:
        for quality in QUALITIES:
            data = _saved(image, "JPEG", quality=quality, optimize=True)
            if len(data) <= most_bytes:
                return data, "image/jpeg"
        image = image.resize((int(image.width * SHRUNK), int(image.height * SHRUNK)))


def _saved(image: Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()
