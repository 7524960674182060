"""Small grammars: a template with {slots} becomes many sentences, drawn with a seed.

Slots are drawn anew each time, so a list of twenty templates and a dozen words for each slot gives thousands of texts
that share no long run of words.
"""

from __future__ import annotations

import random
import re

SLOT = re.compile(r"\{(\w+)\}")
MAX_DEPTH = 8


def draw(template: str, slots: dict[str, list[str]], rng: random.Random) -> str:
    """The template with each {slot} replaced by one of its words, again until none is left."""
    for _ in range(MAX_DEPTH):
        if not SLOT.search(template):
            break
        template = SLOT.sub(lambda found: rng.choice(slots[found[1]]), template)
    return template


def noise(text: str, rng: random.Random) -> str:
    """The text as people type it: another case, no full stop, a slip of the finger, now and then."""
    roll = rng.random()
    if roll < 0.12:
        text = text.lower()
    elif roll < 0.16:
        text = text.upper()
    if rng.random() < 0.2:
        text = text.rstrip(".!")
    if rng.random() < 0.12 and len(text) > 12:
        place = rng.randrange(1, len(text) - 2)
        text = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    return text
