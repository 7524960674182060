"""Claims need a source: which sentences say how the world is, and whether their sources say the same.

Which sentences those are is decided from above, by rules and by the writer's own list: numbers, dates, names, words of
reporting and of cause. A sentence too many is refused rather than one too few let pass; what is left are questions,
greetings and invitations. That a quote stands in its source is checked word for word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from chimera.content.create.brief import Source
from chimera.content.create.item import Claim
from chimera.content.create.length import LINK

MIN_QUOTE_WORDS: Final = 3
"""Fewer words stand in nearly every text."""

_QUOTED: Final = re.compile(r"“[^”]{1,2000}”")
_END: Final = re.compile(r"(?:(?<=[.!?…])|(?<=[.!?…][\"”’)]))\s+|\n+")
_ABBREVIATED: Final = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|e\.g|i\.e|No|Inc|Ltd|U\.S|U\.K|[A-Z])\.$")
_NUMBER: Final = re.compile(r"\d+(?:[.,:]\d+)*")
_WORD: Final = re.compile(r"[^\W\d_][\w'’-]*")
_NUMERALS: Final = frozenset(
    "two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred hundreds thousand"
    " thousands million millions billion billions trillion dozen dozens half third quarter double doubled twice"
    " triple tripled percent majority most first last".split()
)
_TELLING: Final = frozenset(
    "said says announced announces reported reports according found finds shows showed proved proves study studies"
    " research researchers scientists experts evidence data survey because causes caused leads led due"
    " yesterday today tomorrow week month year decade century largest biggest smallest fastest highest lowest record"
    " rose rises fell falls grew grows dropped drops increased increases decreased decreases won lost died killed"
    " launched launches banned bans approved approves confirmed confirms always never everyone nobody all every"
    " january february march april may june july august september october november december"
    " monday tuesday wednesday thursday friday saturday sunday".split()
) - {"may", "march"}
_OPENERS: Final = frozenset(
    "a an the this that these those here there what why how when where who which if we you it they i he she let read"
    " see more our your their its and but so or in on at for from with by as to of not no yes thanks thank source"
    " sources worth have do does did is are was were can could would should will may might one some many".split()
)
_VERB: Final = re.compile(
    r"^(?:\w+(?:ed|s)|is|are|was|were|has|had|have|will|can|may|won|made|cut|put|set|grew|fell|rose)$"
)


def normal(text: str) -> str:
    """For comparing: NFKC, one space between words, straight quotation marks and dashes. Case stays."""
    text = unicodedata.normalize("NFKC", text).translate(_PLAIN)
    return " ".join("".join(c for c in text if unicodedata.category(c) != "Cf").split())


_PLAIN: Final = str.maketrans({"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "–": "-", "—": "-", "…": "..."})


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order. What stands in “quotation marks” is not divided."""
    kept: list[str] = []

    def hide(match: re.Match[str]) -> str:
        kept.append(match.group())
        last = match.group()[-2:-1]
        return f"\ue000{len(kept) - 1}\ue001" + (last if last in ".!?" else "")

    def shown(piece: str) -> str:
        return re.sub(r"\ue000(\d+)\ue001[.!?]?", lambda match: kept[int(match.group(1))], piece)

    pieces: list[str] = []
    for piece in _END.split(_QUOTED.sub(hide, text.translate({0xE000: None, 0xE001: None}))):
        if pieces and _ABBREVIATED.search(pieces[-1]):
            pieces[-1] += f" {piece}"
        else:
            pieces.append(piece)
    return [shown(piece).strip() for piece in pieces if piece.strip()]


def is_claim(sentence: str) -> bool:
    """Whether a sentence says how the world is, so that it needs a source."""
    said = normal(LINK.sub("", sentence))
    bare = re.sub(r"#\w+", "", said).strip()
    words = _WORD.findall(bare)
    if not words and not _NUMBER.search(bare):
        return False
    if _NUMBER.search(bare) or '"' in bare:
        return True
    lower = [word.lower() for word in words]
    if set(lower) & (_NUMERALS | _TELLING):
        return True
    if any(word[:1].isupper() and word not in ("I", "I'm", "I'd") for word in words[1:]):
        return True
    first = words[0]
    named = (first[:1].isupper() and lower[0] not in _OPENERS) or (len(first) > 1 and first.isupper())
    return named and len(words) > 1 and bool(_VERB.match(lower[1]))


def unsourced(parts: Iterable[str], claims: Sequence[Claim], sources: Sequence[Source]) -> str | None:
    """Why these parts may not go out: the first sentence or claim that does not stand on a source. None: all do.

    Each claim's quote must stand, word for word, in every source it names. Each sentence that is a claim must be one of
    `claims`, all of it; its numbers must stand in the claim's quote, and its names there or in the source's title.
    A line `Source: TITLE` is no sentence.
    """
    by_id = {source.id: source for source in sources}
    texts = {source.id: normal(source.quote) for source in sources}
    for claim in claims:
        if reason := _misquoted(claim, texts):
            return reason
    titles = [normal(source.title) for source in sources]
    lines = (line for part in parts for line in part.splitlines() if not _attributes(normal(line), titles))
    for sentence in (sentence for line in lines for sentence in sentences(line)):
        said = _bare(sentence)
        covers = [claim for claim in claims if _covers(_bare(claim.text), said)]
        rest = said
        for claim in covers:
            rest = "" if said in _bare(claim.text) else rest.replace(_bare(claim.text), " ")
        if is_claim(rest):
            return f"this sentence needs a source: {sentence[:300]!r}"
        if covers and (reason := _beyond(sentence, said, covers, by_id)):
            return reason
    return None


def _bare(sentence: str) -> str:
    return normal(LINK.sub("", sentence)).strip(" :-()")


def _covers(claimed: str, said: str) -> bool:
    return bool(claimed and said) and (claimed in said or said in claimed)


def _attributes(line: str, titles: Sequence[str]) -> bool:
    """Whether a line only names a source, by its title or the beginning of it."""
    head, colon, title = line.partition(": ")
    title = title.removesuffix("...")
    return bool(colon) and head == "Source" and len(title) >= 3 and any(one.startswith(title) for one in titles)


def _beyond(sentence: str, said: str, covers: Sequence[Claim], sources: Mapping[str, Source]) -> str | None:
    """What the sentence has that the quotes for it have not: a number, or a name."""
    quotes = normal(" ".join(claim.quote for claim in covers))
    titles = normal(" ".join(sources[id].title for claim in covers for id in claim.source_ids))
    numbers, words = set(_NUMBER.findall(quotes)), {word.lower() for word in _WORD.findall(f"{quotes} {titles}")}
    for number in _NUMBER.findall(said):
        if number not in numbers:
            return f"the number {number} is not in the quote that is given for {sentence[:300]!r}"
    for name in _WORD.findall(said)[1:]:
        if name[:1].isupper() and name != "I" and name.lower().removesuffix("'s") not in words | {"i'm", "i'd"}:
            return f"the name {name} is not in the quote that is given for {sentence[:300]!r}"
    return None


def _misquoted(claim: Claim, texts: dict[str, str]) -> str | None:
    quote = normal(claim.quote)
    if len(quote.split()) < MIN_QUOTE_WORDS and quote not in texts.values():
        return f"the quote {claim.quote[:100]!r} is too short to show anything: give at least {MIN_QUOTE_WORDS} words"
    for id in claim.source_ids:
        if id not in texts:
            return f"there is no source {id!r} for {claim.text[:300]!r}"
        if not _stands(quote, texts[id]):
            return (
                f"the quote {claim.quote[:200]!r} does not stand in source {id!r}; it is given for {claim.text[:300]!r}"
            )
    return None


def _stands(quote: str, text: str) -> bool:
    """Whether it stands there in whole words."""
    return bool(re.search(rf"(?<!\w){re.escape(quote)}(?!\w)", text))
