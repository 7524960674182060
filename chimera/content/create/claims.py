"""Claims need a source: which sentences say how the world is, and whether their sources say the same.

Every sentence is one, except for questions, greetings and invitations. That a quote stands in its source is checked
word for word; that a claim says what its quote says, by what can be compared: numbers in their order, names, negations
and the stems of the words that carry meaning, against the whole sentence that the quote is cut from. A sentence too
many is refused rather than one too few let pass. Who did what to whom in the same words is left to the judges.
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

MAX_NEW: Final = 0.2
"""The share of a claim's meaningful words that may be the writer's own."""

MIN_SHARED: Final = 2

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
_CONNECTIVES: Final = frozenset(
    "also although after before because despite during even however instead last meanwhile most next now once only"
    " overall rather since still then therefore though today together too until when whereas while within yet".split()
)
_FUNCTION: Final = (
    _OPENERS
    | _CONNECTIVES
    | frozenset(
        "be been being am has had having just about above against among around between into near onto out over per"
        " through under up down off than such very quite much each any other another same all both him them us me his"
        " hers itself themselves i'm i'd said say says saying told tells according reported reports accordingly".split()
    )
) - {"let", "read", "see", "source", "sources", "worth", "thank", "thanks"}
_NEGATION: Final = re.compile(
    r"\b(?:not|cannot|never|no|none|nobody|nothing|nowhere|neither|nor|without)\b|n't\b", re.I
)
_CHANGES: Final[Mapping[str, str]] = {
    form: name
    for name, forms in {
        "+": "rise rises rose risen rising raise raises raised raising grow grows grew grown growing growth increase"
        " increases increased increasing climb climbs climbed climbing",
        "-": "fall falls fell fallen falling drop drops dropped dropping cut cuts cutting lower lowers lowered decrease"
        " decreases decreased decreasing decline declines declined declining shrink shrinks shrank shrunk reduce"
        " reduces reduced reducing",
        "win": "win wins won winning",
        "lose": "lose loses lost losing",
        "begin": "begin begins began begun start starts started launch launches launched open opens opened",
        "end": "end ends ended stop stops stopped close closes closed",
        "allow": "allow allows allowed approve approves approved approval permit permits permitted",
        "forbid": "ban bans banned forbid forbids forbade forbidden prohibit prohibits prohibited reject rejects"
        " rejected deny denies denied",
        "cause": "cause causes caused",
        "prevent": "prevent prevents prevented",
        "heal": "cure cures cured heal heals healed",
        "kill": "kill kills killed die dies died",
    }.items()
    for form in forms.split()
}
"""Verbs of change by what they come to: one in another's stead turns a sentence round."""

_ENDING: Final = re.compile(r"(?<=\w{3})(?:ings?|ed|es|s|ly|e)$")
_DOUBLED: Final = re.compile(r"([bdgmnprt])\1$")
_CLAUSE: Final = re.compile(r"[,;:]\s|\s-+\s|\.{3}|[.!]+\s")
_GREETING: Final = re.compile(
    r"(?:good (?:morning|afternoon|evening|day|night|luck|news)|hello|hi|hey|welcome|congratulations|well done|dear"
    r"|happy|worth (?:a|an|the|your|it|reading|seeing|watching|knowing)|sources?|more)\b(?: \S+){0,3}"
    r"|thank(?:s| you)(?: (?:so|very) much)?(?: for (?:your|the|writing|asking|reading|being|all)(?: \S+){0,4})?"
)
_INVITATION: Final = re.compile(
    r"(?:(?:please|so|and|or|then|just|do|now) )*(?:ask|bring|browse|check|click|come|comment|contact|discover|enjoy"
    r"|explore|find|follow|have|join|keep|learn|let|listen|look|meet|read|register|reply|save|scroll"
    r"|see|send|share|sign|stay|subscribe|take|tell|try|visit|watch|write)"
    r"(?:$| (?:a|all|along|at|back|by|down|for|from|here|if|in|into|it|me|more|of|on|out|over|the|their|them|this"
    r"|through|to|tuned|up|us|what|where|whether|which|with|you|your|yours|our|below)\b.*)"
)
_QUESTION: Final = re.compile(
    r"(?:(?:and|so|but|or) )?(?:what|why|how|who|whom|whose|when|where|which|do|does|did|is|are|was|were|can|could|will"
    r"|would|should|shall|may|have|has|in what|at what|for whom)\b"
)
_ASSERTS: Final = re.compile(r"\b(?:that|how|why|because|since|as|while|who)(?: \S+){2}|\byou know\b|\byou heard\b")
"""By these a question or an invitation says something after all: "Did you know", "Read how"."""


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
    clauses = [clause.strip(" .!?()-") for clause in _CLAUSE.split(" ".join(bare.lower().split()))]
    asks = bare.endswith("?")
    return not all(_harmless(clause, asks) for clause in clauses)


def _harmless(clause: str, asks: bool) -> bool:
    """Whether it only asks, greets or invites. A single word says nothing."""
    if len(_WORD.findall(clause)) < 2:
        return True
    if _ASSERTS.search(clause):
        return False
    return bool((asks and _QUESTION.match(clause)) or _GREETING.fullmatch(clause) or _INVITATION.fullmatch(clause))


def unsourced(parts: Iterable[str], claims: Sequence[Claim], sources: Sequence[Source]) -> str | None:
    """Why these parts may not go out: the first sentence or claim that does not stand on a source. None: all do.

    Each claim's quote must stand, word for word, within one sentence of every source it names. Each sentence that is a
    claim must be one of `claims`, all of it. Its numbers must stand in the quotes, in the same order; its names, its
    negations and nearly all of its other words in the sentences that the quotes are cut from, or in the source's title.
    A line `Source: TITLE` is no sentence.
    """
    texts = {source.id: _Text(source) for source in sources}
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
        if covers and (reason := _beyond(sentence, said, covers, texts)):
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


class _Text:
    """A source to compare with: what it says, its title, and its sentences."""

    def __init__(self, source: Source) -> None:
        self.all = normal(source.quote)
        self.title = normal(source.title)
        unwrapped = re.sub(r"(?<![.!?…:\n])\n(?=[ \t]*[a-z])", " ", source.quote)
        self._sentences = [*map(normal, sentences(unwrapped)), *sentences(self.all)]

    def around(self, quote: str) -> str | None:
        """The whole sentence that these words stand in. None: in no single one."""
        return next((sentence for sentence in self._sentences if _stands(quote, sentence)), None)


def _beyond(sentence: str, said: str, covers: Sequence[Claim], texts: Mapping[str, _Text]) -> str | None:
    """What the sentence has that its sources have not: a number, a name, a negation more or less, other words."""
    covers = sorted(covers, key=lambda claim: said.find(_bare(claim.text)))
    quotes = [number for claim in covers for number in _NUMBER.findall(normal(claim.quote))]
    in_order = iter(quotes)
    for number in _NUMBER.findall(said):
        if number not in quotes:
            return f"the number {number} is not in the quote that is given for {sentence[:300]!r}"
        if number not in in_order:
            return f"the number {number} stands elsewhere in the quote that is given for {sentence[:300]!r}"
    around = {
        (claim.quote, id): texts[id].around(normal(claim.quote)) or "" for claim in covers for id in claim.source_ids
    }
    known = " ".join((*around.values(), *(texts[id].title for claim in covers for id in claim.source_ids)))
    stems, words = set(_stems(known)), {word.removesuffix("'s") for word in _WORD.findall(known.lower())}
    for name in _names(said):
        if _stem(name) not in stems and name not in words:
            return f"the name {name.capitalize()} is not in the quote that is given for {sentence[:300]!r}"
    of_source: dict[str, set[str]] = {}
    for (_, id), whole in around.items():
        of_source.setdefault(id, set()).add(whole)
    counts = {sum(len(_NEGATION.findall(whole)) for whole in wholes) for wholes in of_source.values()}
    distinct = sum(len(_NEGATION.findall(whole)) for whole in set(around.values()))
    if len(_NEGATION.findall(said)) not in counts | {distinct}:
        return f"a negation is in {sentence[:300]!r} or in the sentence that its quote is cut from, and not in both"
    return _other_words(sentence, list(_stems(said)), stems)


def _other_words(sentence: str, said: list[str], known: set[str]) -> str | None:
    new = [stem for stem in said if stem not in known]
    turned = [stem for stem in new if stem in _CHANGES.values()]
    if turned or len(new) > MAX_NEW * len(said) or len(said) - len(new) < min(MIN_SHARED, len(said)):
        return f"the source does not say so: its sentence has other words than {sentence[:300]!r}"
    return None


def _names(said: str) -> list[str]:
    """What is written with a capital, in small letters; the first word too, unless sentences often begin with it."""
    found = [word for word in _WORD.findall(said) if word[:1].isupper()]
    return [name for word in found if (name := word.lower().removesuffix("'s")) not in _FUNCTION | _NUMERALS]


def _stems(text: str) -> Iterable[str]:
    """The words that carry meaning, without their endings; verbs of change by their meaning."""
    for word in re.findall(r"[^\W\d_]+", _NEGATION.sub(" ", text.lower().replace("'s ", " "))):
        if word not in _FUNCTION and len(word) > 1:
            yield _stem(word)


def _stem(word: str) -> str:
    if word in _CHANGES:
        return _CHANGES[word]
    stem = _DOUBLED.sub(r"\1", _ENDING.sub("", word))
    return f"{stem[:-1]}i" if stem.endswith("y") else stem


def _misquoted(claim: Claim, texts: Mapping[str, _Text]) -> str | None:
    quote = normal(claim.quote)
    if len(quote.split()) < MIN_QUOTE_WORDS and all(quote != text.all for text in texts.values()):
        return f"the quote {claim.quote[:100]!r} is too short to show anything: give at least {MIN_QUOTE_WORDS} words"
    for id in claim.source_ids:
        if id not in texts:
            return f"there is no source {id!r} for {claim.text[:300]!r}"
        if texts[id].around(quote) is None:
            where = f"in one sentence of source {id!r}" if _stands(quote, texts[id].all) else f"in source {id!r}"
            return f"the quote {claim.quote[:200]!r} does not stand {where}; it is given for {claim.text[:300]!r}"
    return None


def _stands(quote: str, text: str) -> bool:
    """Whether it stands there in whole words."""
    return bool(re.search(rf"(?<!\w){re.escape(quote)}(?!\w)", text))
