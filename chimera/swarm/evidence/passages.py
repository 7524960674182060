"""Documents cut into sentences that stand word for word in their source.

A passage is what a method ranks and what an answer quotes, so its text is never edited: runs of white space become
one space, and that is all. Headings are not passages; they are kept as context of what stands below them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from chimera.core.types import Quote
from chimera.swarm.evidence.documents import Document
from chimera.swarm.evidence.formats import Line

MAX_PASSAGE_CHARS = 1_000
MAX_MARKUP_CHARS = 300
"""A longer line is prose: its end is not searched for markup, so that no line takes long."""

_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof st sr jr rev gen col lt sgt capt gov sen rep hon vs cf al approx ca ed eds e.g i.e viz "
    "inc ltd corp jan feb mar apr jun jul aug sep sept oct nov dec".split()
)
_BEFORE_NUMBERS = frozenset("no nos fig figs vol p pp sec ch eq".split())

_SENTENCE_END = re.compile(r"(?:(?<![.!?…])[.!?…]+[\"'”’»)\]*]*\s+|[。！？]+[」』”’]*\s*)")
_WORD_BEFORE = re.compile(r"[^\s(\[\"'“‘]+$")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[A-Z]")
_OPENING = "\"'“‘«([*_`"
_GOES_ON = ",;)–—-&/"
_HEADING_RULE = re.compile(r"\s*([=\-~`#\"^+*:.'_])\1{2,}\s*$")
_MARKDOWN_HEADING = re.compile(r" {0,3}#{1,6}\s+(.*?)\s*#*\s*$")
_TABLE_RULE = re.compile(r"[\s|+:=\-]*[=\-]{2}[\s|+:=\-]*$")
_HIDDEN_MARKUP = re.compile(r"\s*(?:\.\.(?:\s+(?:_|\w[\w\-]*::|\[)|\s*$)|```|~~~)")
_FIELD = re.compile(r"\s*:[^:\s][^:]{0,80}:(?:\s|$)")
_COLUMNS = re.compile(r"(?:.*?[^\s.!?]\s{2,}\S){2}")
_ITEM = re.compile(r"\s*(?:[-*+•]|\(?\d{1,3}[.)]|>|\|)\s+(?=\S)")


@dataclass(frozen=True)
class Passage:
    """One sentence and where it stands. `paragraph` counts from 0 within the file."""

    text: str
    file: str
    line: int
    page: int | None
    paragraph: int
    heading: str

    @property
    def quote(self) -> Quote:
        return Quote(text=self.text, file=self.file, line=self.line, page=self.page)


def split_passages(document: Document) -> list[Passage]:
    """The sentences of a document, in order, each at most MAX_PASSAGE_CHARS characters long."""
    return list(iter_passages(document))


def iter_passages(document: Document) -> Iterator[Passage]:
    """As `split_passages`, one by one, for a reader that stops at a limit."""
    for number, (heading, block) in enumerate(_blocks(document.lines)):
        text = " ".join(line.text for line in block)
        starts = list(accumulate((len(line.text) + 1 for line in block), initial=0))
        for begin, end in _sentences(text):
            line = block[bisect_right(starts, begin) - 1]
            quoted = " ".join(text[begin:end].split())
            yield Passage(quoted, document.ref.name, line.number, line.page, number, heading)


def _blocks(lines: Sequence[Line]) -> Iterator[tuple[str, list[Line]]]:
    """Paragraphs, list items, fields and table rows, each with the heading that it stands under."""
    heading, block = "", list[Line]()
    for index, line in enumerate(lines):
        mark = line.text if len(line.text) <= MAX_MARKUP_CHARS else ""
        title = _title(line, lines[index + 1].text if index + 1 < len(lines) else "", alone=not block)
        blank = not line.text.strip() or _is_rule(mark)
        item = _ITEM.match(mark)
        apart = blank or title is not None or item or _FIELD.match(mark) or _COLUMNS.match(mark.strip())
        if block and (apart or line.page != block[-1].page):
            yield heading, block
            block = []
        if title is not None:
            heading = title
        elif not blank:
            block.append(Line(line.number, line.text[item.end() :], line.page) if item else line)
    if block:
        yield heading, block


def _is_rule(text: str) -> bool:
    return bool(_HEADING_RULE.match(text) or _TABLE_RULE.match(text) or _HIDDEN_MARKUP.match(text))


def _title(line: Line, below: str, *, alone: bool) -> str | None:
    """The heading on this line: `# Title`, or a title with a rule of punctuation right below it."""
    text = line.text.strip()
    if not text or max(len(line.text), len(below)) > MAX_MARKUP_CHARS:
        return None
    if match := _MARKDOWN_HEADING.match(line.text):
        return match[1]
    underlined = _HEADING_RULE.match(below) and len(below.strip()) >= min(len(text), 4)
    return text if alone and underlined and not _is_rule(line.text) else None


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    """Begin and end offsets of the sentences of a paragraph, without white space around them."""
    begin = 0
    for match in _SENTENCE_END.finditer(text):
        if _ends_sentence(text, begin, match):
            yield from _pieces(text, begin, match.end())
            begin = match.end()
    yield from _pieces(text, begin, len(text))


def _ends_sentence(text: str, begin: int, match: re.Match[str]) -> bool:
    mark = match[0][0]
    if mark in "。！？":
        return True
    following = text[match.end() : match.end() + 2].lstrip(_OPENING)[:1]
    if following.islower() or (following and following in _GOES_ON):
        return False
    if mark != "." or match[0][1:2] == ".":
        return True
    before = _WORD_BEFORE.search(text, max(begin, match.start() - 40), match.start())
    word = before[0].lower() if before else ""
    if word in _BEFORE_NUMBERS:
        return not following.isdigit()
    return not (word in _ABBREVIATIONS or (before is not None and _INITIALS.fullmatch(before[0])))


def _pieces(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The span, trimmed; cut at white space into pieces when it is too long to quote."""
    while True:
        while begin < end and text[begin].isspace():
            begin += 1
        while end > begin and text[end - 1].isspace():
            end -= 1
        if begin == end:
            return
        if end - begin <= MAX_PASSAGE_CHARS:
            if any(c.isalnum() for c in text[begin:end]):
                yield begin, end
            return
        cut = text.rfind(" ", begin + 1, begin + MAX_PASSAGE_CHARS)
        cut = cut if cut > begin else begin + MAX_PASSAGE_CHARS
        yield begin, cut
        begin = cut


def stands_in(quote: Quote, document: Document) -> bool:
    """Whether the quote stands word for word in one paragraph of the document, and starts on the line that it names.

    White space apart: any run of it equals any other.
    """
    wanted = " ".join(quote.text.split())
    if not wanted or quote.file != document.ref.name:
        return False
    place = (quote.line, quote.page)
    return any(
        (line.number, line.page) == place and _starts_here(wanted, document.lines, index)
        for index, line in enumerate(document.lines)
    )


def _starts_here(wanted: str, lines: Sequence[Line], index: int) -> bool:
    first = joined = " ".join(lines[index].text.split())
    for at in range(index + 1, len(lines)):
        following = " ".join(lines[at].text.split())
        if not following or len(joined) >= len(first) + len(wanted):
            break
        joined = f"{joined} {following}"
    return 0 <= joined.find(wanted) < len(first)
