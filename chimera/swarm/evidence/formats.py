"""Lines of text out of HTML and PDF, with their place in the source."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser

from chimera.core.errors import UnreadableDocument

MAX_PAGES = 10_000

_BLOCKS = frozenset(
    "address article aside blockquote caption dd div dl dt figcaption figure footer form h1 h2 h3 h4 h5 h6 header hr"
    " li main nav ol p pre section table tbody td tfoot th thead title tr ul".split()
)
_UNSEEN = frozenset(("script", "style", "template", "noscript"))


@dataclass(frozen=True)
class Line:
    """One line of text. `number` counts from 1, within `page` when the source has pages."""

    number: int
    text: str
    page: int | None = None


def html_lines(source: str) -> list[Line]:
    """The visible text of an HTML page, at the source's own line numbers; an empty line parts two blocks."""
    parser = _TextParser()
    parser.feed(source)
    parser.close()
    return parser.lines()


class _TextParser(HTMLParser):
    """Collects `(line number, text)` pieces. The standard parser forgives broken markup, as browsers do."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._pieces: list[tuple[int, str]] = []
        self._unseen = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN and not self._unseen:
            self._unseen = tag
        self._part(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == self._unseen:
            self._unseen = ""
        self._part(tag)

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            start = self.getpos()[0]
            self._pieces.extend((start + i, text) for i, text in enumerate(data.split("\n")))

    def _part(self, tag: str) -> None:
        if tag in _BLOCKS or tag == "br":
            self._pieces.append((self.getpos()[0], "\n" if tag in _BLOCKS else " "))

    def lines(self) -> list[Line]:
        found: list[Line] = []
        joined = False
        for number, text in self._pieces:
            if text == "\n":
                found.append(Line(number, ""))
                joined = False
            elif joined and found[-1].number == number:
                found[-1] = Line(number, found[-1].text + text)
            elif text:
                found.append(Line(number, text))
                joined = True
        return found


def pdf_lines(name: str, data: bytes) -> list[Line]:
    """The text of a PDF, with page and line within the page. Raises UnreadableDocument for a locked or broken one."""
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableDocument(name, "it is locked with a password")
        if len(reader.pages) > MAX_PAGES:
            raise UnreadableDocument(name, f"it has more than {MAX_PAGES} pages")
        lines = list(_page_lines(reader))
    except UnreadableDocument:
        raise
    except Exception as error:  # pypdf lets many kinds through on broken files
        raise UnreadableDocument(name, f"it is not a PDF that can be read ({type(error).__name__})") from error
    if not any(line.text.strip() for line in lines):
        raise UnreadableDocument(name, "it has no text (scanned pages?)")
    return lines


def _page_lines(reader: object) -> Iterator[Line]:
    from pypdf import PdfReader

    assert isinstance(reader, PdfReader)
    for page, content in enumerate(reader.pages, start=1):
        for number, text in enumerate(content.extract_text().split("\n"), start=1):
            yield Line(number, text, page)
