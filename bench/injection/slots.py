"""Small grammars: a template with {slots} becomes many sentences, drawn with a seed.

A file of templates has sections: `[family]` with a template a line, and `[slot NAME]` with what may stand for {NAME},
a line or several divided by ` | `. In a slot, `_` at an end is a space, and alone it is nothing. Slots are drawn anew
each time, so that thousands of texts share no long run of words.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("templates")
SLOT = re.compile(r"\{(\w+)\}")
MAX_DEPTH = 8


@dataclass(frozen=True)
class Grammar:
    """Templates by family, and what may stand in their slots."""

    families: dict[str, list[str]]
    slots: dict[str, list[str]]

    def draw(self, template: str, rng: random.Random) -> str:
        """The template with each {slot} replaced, again until none is left, its first letter a capital."""
        for _ in range(MAX_DEPTH):
            if not SLOT.search(template):
                break
            template = SLOT.sub(lambda found: rng.choice(self.slots[found[1]]), template)
        return template[:1].upper() + template[1:]


@cache
def grammar(name: str) -> Grammar:
    """The grammar of `templates/NAME.txt`."""
    families: dict[str, list[str]] = {}
    slots: dict[str, list[str]] = {}
    here: list[str] = []
    for line in (FOLDER / f"{name}.txt").read_text(encoding="utf-8").split("\n"):
        if head := re.fullmatch(r"\[(slot )?(\w+)\]", line):
            here = (slots if head[1] else families).setdefault(head[2], [])
        elif line and here is not None:
            parts = line.split(" | ") if any(here is words for words in slots.values()) else [line]
            here += [_word(part) for part in parts]
    return Grammar(families, slots)


def _word(written: str) -> str:
    if written == "_":
        return ""
    if written.startswith("_"):
        written = " " + written[1:]
    if written.endswith("_"):
        written = written[:-1] + " "
    return written.replace("\\n", "\n")


def drawn(name: str, per_template: int, rng: random.Random) -> list[tuple[str, str, str]]:
    """(family, template, text) `per_template` times for each template of a grammar, as people type it."""
    rules = grammar(name)
    return [
        (family, template, noise(rules.draw(template, rng), rng))
        for family, templates in rules.families.items()
        for template in templates
        for _ in range(per_template)
    ]


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
