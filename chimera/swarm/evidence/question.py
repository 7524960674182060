"""A compound question is asked in parts: "Which dataset ..., and how many features has it?" is two."""

from __future__ import annotations

import re

MAX_PARTS = 8

_JOINT = re.compile(r"[,;]\s+and\s+(?=(?:how|what|which|who|whom|whose|when|where|why)\b)", re.IGNORECASE)


def split_question(text: str) -> tuple[str, ...]:
    """The parts of a question, in order; one part unless it is plainly joined by ", and how / what / which ...".

    At most eight parts: the eighth keeps the rest.
    """
    parts = [part.strip() for part in _JOINT.split(text.strip(), maxsplit=MAX_PARTS - 1)]
    return tuple(part for part in parts if part) or (text.strip(),)
