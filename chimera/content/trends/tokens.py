"""The terms of an item: its words and pairs of words, each once.

How often an item says a word tells nothing about how many people say it, so terms are counted by item and voice.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

from chimera.content.feeds.item import FeedItem

MAX_WORDS: Final = 120
"""Words of an item that are looked at: its title and how it begins say what it is about."""

MAX_TERMS: Final = 60
MAX_WORD: Final = 32

_LINK = re.compile(r"(?:https?://|www\.)\S+|@[\w.@-]+")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")

STOP: Final = frozenset(
    """a about above after again against all also am an and any are aren't as at be because been before being below
    between both but by can can't cannot could couldn't did didn't do does doesn't doing don't down during each
    even ever few for from further get gets getting go goes going gone got had hadn't has hasn't have haven't
    having he her here hers herself him himself his how however i i'd i'll i'm i've if in into is isn't it it's
    its itself just last let's like made make makes many may me might more most much must my myself near new no
    nor not now of off on once one only or other our ours ourselves out over own per really said same say says
    she should shouldn't since so some still such than that that's the their theirs them themselves then there
    there's these they they're this those through to today told too two under until up upon us use used very via
    was wasn't way we we're well were weren't what when where which while who whom why will with without won't
    would wouldn't yes yesterday yet you you're your yours amp http https www com rt via re im dont der die das
    und ist nicht ein eine den dem des mit auf für von zu im le la les de des du un une et est en que qui pour
    dans par el los las una y es por con para il lo gli di che è per non""".split()
)
"""Words that say nothing by themselves in the languages met most. Others are told by how common they are."""


def terms_of(item: FeedItem) -> tuple[str, ...]:
    """At most MAX_TERMS terms, in the order of their first use: words, then pairs of neighbours, then tags with #."""
    return terms_in(f"{item.title}\n{item.text}", item.tags)


def terms_in(text: str, tags: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The terms of a text. A pair are neighbours in one clause that both say something, divided by one space.

    A tag begins with `#`. Addresses and accounts' names are no terms.
    """
    words: list[str] = []
    pairs: dict[str, None] = {}
    for line in _LINK.sub("\n", text.casefold()).splitlines():
        for clause in re.split(r"[.!?;:,()\"“”|]+(?:\s|$)", line):
            found = [_trimmed(word) for word in _WORD.findall(clause)]
            pairs |= dict.fromkeys(f"{a} {b}" for a, b in pairwise(found) if _tells(a) and _tells(b))
            words += [word for word in found if _tells(word)]
            if len(words) >= MAX_WORDS:
                break
    singles = dict.fromkeys(words[:MAX_WORDS])
    marked = dict.fromkeys("#" + "".join(_WORD.findall(tag.casefold()))[:MAX_WORD] for tag in tags)
    half = MAX_TERMS // 2
    kept = [*list(marked)[:8], *list(singles)[:half], *list(pairs)[: half - 8]]
    return tuple(term for term in dict.fromkeys(kept) if term != "#")


def _trimmed(word: str) -> str:
    for ending in ("'s", "’s"):
        word = word.removesuffix(ending)
    return word


def _tells(word: str) -> bool:
    return 1 < len(word) <= MAX_WORD and word not in STOP and not word.isdecimal()
